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

from flip_plugin.evals.lm_eval.tasks import benchmark_of
from flip_plugin.evals.records.items import Cell
from flip_plugin.evals.report.input import paper
from flip_plugin.evals.report.input.results import BOUNDS, candidates, distinct, find, primary
from flip_plugin.evals.report.input.runs import EvalRun
from flip_plugin.evals.report.input.training import TrainingRun, is_measure
from flip_plugin.evals.report.output.tables import accuracy_columns
from flip_plugin.evals.report.text import is_share
from flip_plugin.pages.text import visible

Chart = dict[str, Any]
Point = dict[str, Any] | None


def point(cell: Cell | None, **more: Any) -> Point:
    """A cell as a place in a chart; None where it has no value."""
    if cell is None or cell.value is None:
        return None
    told = {"v": cell.value, "low": cell.low, "high": cell.high, "invalid": cell.invalid, "n": cell.n or None}
    return {name: value for name, value in {**told, **more}.items() if value is not None}


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
    columns = accuracy_columns(run.cells)
    whole = ("all", "accuracy_macro") if ("all", "accuracy_macro") in columns else ("all", "accuracy")
    methods = distinct(run.cells, lambda cell: cell.method)
    judges = distinct(run.cells, lambda cell: cell.judge)
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
            found = [find(run.cells, judge=judge, method=method, group=group, metric=metric) for judge in judges]
            points = [point(cell) for cell in found]
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
    whole = "accuracy_macro" if find(run.cells, metric="accuracy_macro") else "accuracy"
    judges = sorted(
        (judge for judge in distinct(run.cells, lambda c: c.judge) if judge in sizes), key=sizes.__getitem__
    )
    if len({sizes[judge] for judge in judges}) < 2:
        return []
    series = [
        {
            "name": method,
            "points": [
                point(
                    find(run.cells, judge=judge, method=method, group="all", metric=whole), x=sizes[judge], note=judge
                )
                for judge in judges
            ],
        }
        for method in distinct(run.cells, lambda cell: cell.method)
    ]
    refs = [{"name": "random pick", "value": chance}] if chance else []
    x = {"label": "parameters of the judge", "scale": "log"}
    return [chart("lines", "Accuracy over judge size", x=x, series=series, refs=refs, wide=True)]


def best_of_n_curves(run: EvalRun) -> list[Chart]:
    """A chart a benchmark, metric and judge: what is picked out of N, between the random pick and the oracle."""
    placed = [(cell, where) for cell in run.cells if (where := candidates(cell))]
    charts = []
    for of, metric in dict.fromkeys((where[0], cell.metric) for cell, where in placed):
        mine = [(cell, where[1]) for cell, where in placed if (where[0], cell.metric) == (of, metric)]
        bounds = [(cell, n) for cell, n in mine if cell.method in BOUNDS]
        judges = distinct([cell for cell, _ in mine if cell.method not in BOUNDS], lambda cell: cell.judge)
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
                                (p for cell, n in [*own, *shared] if cell.method == method and (p := point(cell, x=n))),
                                key=lambda one: one["x"],
                            ),
                        }
                        for method in dict.fromkeys(cell.method for cell, _ in [*own, *shared])
                    ],
                )
            )
    return charts


def length_curves(run: EvalRun) -> list[Chart]:
    """A chart a judge: accuracy from the shortest bucket to the longest."""
    buckets = [group for group in distinct(run.cells, lambda cell: cell.group) if group != "all"]
    return [
        chart(
            "lines",
            f"Judge {judge}",
            x={"label": "length of the responses", "scale": "names", "names": [visible(one) for one in buckets]},
            series=[
                {
                    "name": method,
                    "points": [
                        point(find(run.cells, judge=judge, method=method, group=group, metric="accuracy"), x=place)
                        for place, group in enumerate(buckets)
                    ],
                }
                for method in distinct(run.cells, lambda cell: cell.method)
            ],
        )
        for judge in distinct(run.cells, lambda cell: cell.judge)
    ]


def robustness_dots(run: EvalRun) -> list[Chart]:
    """Two charts a judge: what each attack changes in wins, and how far it moves the score."""
    charts = []
    for judge in distinct(run.cells, lambda cell: cell.judge):
        for metric, title in (("wins_change", "change in wins, points"), ("shift", "shift of the score")):
            mine = [cell for cell in run.cells if (cell.judge, cell.metric) == (judge, metric)]
            groups = distinct(mine, lambda cell: cell.group)
            series = [
                {"name": method, "points": [point(find(mine, method=method, group=group)) for group in groups]}
                for method in distinct(mine, lambda cell: cell.method)
            ]
            if groups:
                categories = [visible(group).replace("_", " ") for group in groups]
                charts.append(chart("dots", f"Judge {judge}: {title}", metric, categories=categories, series=series))
    return charts


def similarity_bars(run: EvalRun) -> list[Chart]:
    """Accuracy by judge and similarity."""
    metric = "accuracy_macro" if find(run.cells, metric="accuracy_macro") else "accuracy"
    judges = distinct(run.cells, lambda cell: cell.judge)
    series = [
        {
            "name": method,
            "points": [
                point(find(run.cells, judge=judge, method=method, group="all", metric=metric)) for judge in judges
            ],
        }
        for method in distinct(run.cells, lambda cell: cell.method)
    ]
    return [chart("bars", "Accuracy by similarity", categories=[*map(visible, judges)], series=series, wide=True)]


def agreement_maps(run: EvalRun) -> list[Chart]:
    """For each method a matrix of judges: off the diagonal two judges, on it two runs of one judge."""
    judges = distinct([cell for cell in run.cells if cell.group == "runs"], lambda cell: cell.judge)
    pairs = {name for cell in run.cells if cell.group == "judges" for name in cell.judge.split("~")}
    judges = [*judges, *sorted(pairs - set(judges))]
    charts = []
    for metric, title in (("spearman_within", "Spearman within items"), ("same_pick", "same pick")):
        for method in distinct(run.cells, lambda cell: cell.method):
            mine = [cell for cell in run.cells if (cell.method, cell.metric) == (method, metric)]
            names = {cell.judge: cell for cell in mine}

            def between(one: str, other: str, names: Mapping[str, Cell] = names) -> Point:
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
    own = primary(run.cells)
    tasks = distinct(own, lambda cell: cell.group)
    series = [
        {
            "name": visible(judge),
            "like": next(cell.method for cell in own if cell.judge == judge) or "none",
            "points": [point(find(own, judge=judge, group=task)) for task in tasks],
        }
        for judge in distinct(own, lambda cell: cell.judge)
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
