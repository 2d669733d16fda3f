"""Charts of a report as plain data; ``assets/charts.js`` draws them.

Every chart has `kind`, `title`, `note`, `unit` (share: 0..1 shown in percent; plain) and, by kind:

    bars    categories, series [{name, points}]        a point a category
    lines   x {label, scale: linear|log|names, names}, series [{name, points with "x", dashed}]
    dots    categories (rows), series [{name, points}]
    heat    rows, columns, points [row][column]

A point is {v, low, high, invalid, n, note} or null. `refs` are horizontal lines {name, value}. A series may have
`like`, the reward whose colour it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flip_plugin.evals.lm_eval.benchmarks import benchmark_of
from flip_plugin.evals.records.items import Result
from flip_plugin.evals.report.input import paper
from flip_plugin.evals.report.input.lookup import BOUNDS, candidates, distinct, find, primary
from flip_plugin.evals.report.input.runs import EvalRun
from flip_plugin.evals.report.input.training import TrainingRun, is_measure
from flip_plugin.evals.report.output.tables import accuracy_columns
from flip_plugin.evals.report.text import is_share
from flip_plugin.pages.text import visible

Chart = dict[str, Any]
Point = dict[str, Any] | None


def point(result: Result | None, **more: Any) -> Point:
    """A result as a place in a chart; None where it has no value."""
    if result is None or result.value is None:
        return None
    figures = {
        "v": result.value,
        "low": result.low,
        "high": result.high,
        "invalid": result.invalid,
        "n": result.n or None,
    }
    return {name: value for name, value in {**figures, **more}.items() if value is not None}


def chart(kind: str, title: str, metric: str = "accuracy", note: str = "", **more: Any) -> Chart:
    """The frame of a chart."""
    return {
        "kind": kind,
        "title": visible(title),
        "note": note,
        "unit": "share" if is_share(metric) else "plain",
        **more,
    }


def accuracy_bars(run: EvalRun, chance: float | None) -> list[Chart]:
    """Accuracy by judge and method: over all subsets with the paper's beside it, then a chart a subset."""
    columns = accuracy_columns(run.results)
    whole = ("all", "accuracy_macro") if ("all", "accuracy_macro") in columns else ("all", "accuracy")
    methods = distinct(run.results, lambda result: result.method)
    judges = distinct(run.results, lambda result: result.judge)
    refs = [{"name": "random pick", "value": chance}] if chance else []
    known = {
        figure.method: figure
        for figure in paper.figures(run.evaluation, group="all", metric=whole[1])
        if figure.value is not None
    }
    charts = []
    for group, metric in [whole, *(column for column in columns if column[0] != "all")]:
        is_whole = (group, metric) == whole
        series: list[Chart] = []
        for method in methods:
            own = [find(run.results, judge=judge, method=method, group=group, metric=metric) for judge in judges]
            points = [point(result) for result in own]
            if is_whole and known:
                points.append(_paper_point(known.get(method)))
            series.append({"name": method, "points": points})
        categories = [visible(judge) for judge in judges] + (["paper: mean of 13"] if is_whole and known else [])
        title = "Mean over subsets" if metric == "accuracy_macro" else group if group != "all" else "All items"
        charts.append(chart("bars", title, refs=refs, categories=categories, series=series, wide=is_whole))
    return charts


def _paper_point(figure: paper.Figure | None) -> Point:
    return None if figure is None else {"v": figure.value, "note": figure.label(), "paper": True}


def size_chart(run: EvalRun, sizes: Mapping[str, float], chance: float | None) -> list[Chart]:
    """Accuracy over the judge's parameters; nothing where fewer than two sizes are known."""
    whole = "accuracy_macro" if find(run.results, metric="accuracy_macro") else "accuracy"
    judges = sorted(
        (judge for judge in distinct(run.results, lambda c: c.judge) if judge in sizes), key=sizes.__getitem__
    )
    if len({sizes[judge] for judge in judges}) < 2:
        return []
    series = [
        {
            "name": method,
            "points": [
                point(
                    find(run.results, judge=judge, method=method, group="all", metric=whole), x=sizes[judge], note=judge
                )
                for judge in judges
            ],
        }
        for method in distinct(run.results, lambda result: result.method)
    ]
    refs = [{"name": "random pick", "value": chance}] if chance else []
    x = {"label": "parameters of the judge", "scale": "log"}
    return [chart("lines", "Accuracy over judge size", x=x, series=series, refs=refs, wide=True)]


def best_of_n_curves(run: EvalRun) -> list[Chart]:
    """A chart a benchmark, metric and judge: what is picked out of N, between the random pick and the oracle."""
    placed = [(result, where) for result in run.results if (where := candidates(result))]
    charts = []
    for of, metric in dict.fromkeys((where[0], result.metric) for result, where in placed):
        mine = [(result, where[1]) for result, where in placed if (where[0], result.metric) == (of, metric)]
        bounds = [(result, n) for result, n in mine if result.method in BOUNDS]
        judges = distinct([result for result, _ in mine if result.method not in BOUNDS], lambda result: result.judge)
        for judge in judges:
            shared = [pair for pair in bounds if pair[0].judge in (judge, "", pair[0].method)] or bounds
            own = [pair for pair in mine if pair[0].judge == judge and pair[0].method not in BOUNDS]
            title = " · ".join(filter(None, [f"Judge {judge}", of, metric.replace("_", " ")]))
            charts.append(
                chart(
                    "lines",
                    title,
                    metric,
                    x={"label": "candidates N", "scale": "log"},
                    series=[
                        {
                            "name": method,
                            "dashed": method in BOUNDS,
                            "points": sorted(
                                (
                                    p
                                    for result, n in [*own, *shared]
                                    if result.method == method and (p := point(result, x=n))
                                ),
                                key=lambda one: one["x"],
                            ),
                        }
                        for method in dict.fromkeys(result.method for result, _ in [*own, *shared])
                    ],
                )
            )
    return charts


def length_curves(run: EvalRun) -> list[Chart]:
    """A chart a judge: accuracy from the shortest bucket to the longest."""
    buckets = [group for group in distinct(run.results, lambda result: result.group) if group != "all"]
    return [
        chart(
            "lines",
            f"Judge {judge}",
            x={"label": "length of the responses", "scale": "names", "names": [visible(one) for one in buckets]},
            series=[
                {
                    "name": method,
                    "points": [
                        point(find(run.results, judge=judge, method=method, group=group, metric="accuracy"), x=place)
                        for place, group in enumerate(buckets)
                    ],
                }
                for method in distinct(run.results, lambda result: result.method)
            ],
        )
        for judge in distinct(run.results, lambda result: result.judge)
    ]


def robustness_dots(run: EvalRun) -> list[Chart]:
    """Two charts a judge: what each attack changes in wins, and how far it moves the score."""
    charts = []
    for judge in distinct(run.results, lambda result: result.judge):
        for metric, title in (("wins_change", "change in wins, points"), ("shift", "shift of the score")):
            mine = [result for result in run.results if (result.judge, result.metric) == (judge, metric)]
            groups = distinct(mine, lambda result: result.group)
            series = [
                {"name": method, "points": [point(find(mine, method=method, group=group)) for group in groups]}
                for method in distinct(mine, lambda result: result.method)
            ]
            if groups:
                categories = [visible(group).replace("_", " ") for group in groups]
                charts.append(chart("dots", f"Judge {judge}: {title}", metric, categories=categories, series=series))
    return charts


def similarity_bars(run: EvalRun) -> list[Chart]:
    """Accuracy by judge and similarity."""
    metric = "accuracy_macro" if find(run.results, metric="accuracy_macro") else "accuracy"
    judges = distinct(run.results, lambda result: result.judge)
    series = [
        {
            "name": method,
            "points": [
                point(find(run.results, judge=judge, method=method, group="all", metric=metric)) for judge in judges
            ],
        }
        for method in distinct(run.results, lambda result: result.method)
    ]
    return [chart("bars", "Accuracy by similarity", categories=[*map(visible, judges)], series=series, wide=True)]


def agreement_maps(run: EvalRun) -> list[Chart]:
    """For each method a matrix of judges: off the diagonal two judges, on it two runs of one judge."""
    judges = distinct([result for result in run.results if result.group == "runs"], lambda result: result.judge)
    pairs = {name for result in run.results if result.group == "judges" for name in result.judge.split("~")}
    judges = [*judges, *sorted(pairs - set(judges))]
    charts = []
    for metric, title in (("spearman_within", "Spearman within items"), ("same_pick", "same pick")):
        for method in distinct(run.results, lambda result: result.method):
            mine = [result for result in run.results if (result.method, result.metric) == (method, metric)]
            names = {result.judge: result for result in mine}

            def between(one: str, other: str, names: Mapping[str, Result] = names) -> Point:
                return point(
                    names.get(one) if one == other else names.get(f"{one}~{other}") or names.get(f"{other}~{one}")
                )

            if mine:
                shown_as = [visible(judge) for judge in judges]
                points = [[between(one, other) for other in judges] for one in judges]
                charts.append(
                    chart("heat", f"{method}: {title}", metric, rows=shown_as, columns=shown_as, points=points)
                )
    return charts


def grpo_bars(run: EvalRun) -> list[Chart]:
    """Checkpoints by benchmark, by each benchmark's own metric."""
    own = primary(run.results)
    tasks = distinct(own, lambda result: result.group)
    series = [
        {
            "name": visible(judge),
            "like": next(result.method for result in own if result.judge == judge) or "none",
            "points": [point(find(own, judge=judge, group=task)) for task in tasks],
        }
        for judge in distinct(own, lambda result: result.judge)
    ]
    categories = [benchmark_of(task).title for task in tasks]
    return [chart("bars", "Benchmarks by checkpoint", categories=categories, series=series, wide=True)]


def training_curves(runs: Sequence[TrainingRun]) -> list[Chart]:
    """A chart an eval metric with a line a run: first what compares rewards, then the rewards themselves."""
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.curves))
    metrics.sort(key=lambda metric: not is_measure(metric))
    return [
        chart(
            "lines",
            metric.partition("/")[2].replace("_", " "),
            "score",
            x={"label": "training step", "scale": "linear"},
            series=[
                {
                    "name": visible(run.name),
                    "like": run.reward,
                    "points": [{"x": x, "v": v} for x, v in run.curves[metric]],
                }
                for run in runs
                if metric in run.curves
            ],
        )
        for metric in metrics
    ]
