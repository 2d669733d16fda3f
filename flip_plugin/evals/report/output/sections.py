"""Which tables and charts each evaluation gets, in the order of the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

from flip_plugin.evals.records.runs import ITEMS
from flip_plugin.evals.report.input.runs import EvalRun, ReportRuns
from flip_plugin.evals.report.input.training import TrainingRun, is_measure
from flip_plugin.evals.report.output import charts, tables
from flip_plugin.evals.report.output.tables import Entry, Section, Table, head
from flip_plugin.evals.report.text import MISSING, shown
from flip_plugin.pages.text import visible

TITLES = {
    "rewardbench2": ("RewardBench 2", "Best of four: how often the judge's pick is the right response."),
    "best_of_n": ("Best of N", "What the pick out of N candidates is worth, by the benchmark's own metric."),
    "robustness": ("Robustness", "An attacked bad response: how its score moves, how often it then beats a good one."),
    "length": ("Accuracy by length", "Accuracy by the length of the responses."),
    "similarity": ("Similarity ablation", "FLIP's judgements scored anew by other similarities, without judge calls."),
    "agreement": ("Agreement", "Do two runs of a judge, or two judges, order responses alike?"),
    "grpo_table": ("GRPO: benchmarks", "Checkpoints by benchmark, through lm-eval."),
}
ORDER = tuple(TITLES)


def sections(runs: ReportRuns, sizes: Mapping[str, float]) -> list[Section]:
    """A section a run, evaluations in the paper's order, then one over all training runs."""
    place = {name: number for number, name in enumerate(ORDER)}
    ordered = sorted(runs.evals, key=lambda run: (place.get(run.evaluation, len(ORDER)), run.evaluation))
    made = [_section(run, runs, sizes, number) for number, run in enumerate(ordered)]
    if runs.training:
        made.append(training_section(runs.training))
    return made


def _section(run: EvalRun, runs: ReportRuns, sizes: Mapping[str, float], number: int) -> Section:
    title, intro = TITLES.get(run.evaluation, (run.evaluation.replace("_", " ").capitalize(), ""))
    if len(runs.of(run.evaluation)) > 1:
        title = f"{title}: {visible(run.name)}"
    make = MAKERS.get(run.evaluation, _generic)
    made_tables, made_charts = make(run, sizes)
    return Section(f"run-{number}", title, intro, made_tables, made_charts)


Made = tuple[list[Table], list[charts.Chart]]


def _rewardbench2(run: EvalRun, sizes: Mapping[str, float]) -> Made:
    chance = chance_of(run)
    gain = tables.gain_table(run.results)
    made = [*tables.accuracy_tables(run), *([gain] if gain else [])]
    bars = charts.accuracy_bars(run, chance)
    return made, [bars[0], *charts.size_chart(run, sizes, chance), *bars[1:]]


def _best_of_n(run: EvalRun, sizes: Mapping[str, float]) -> Made:
    made = []
    placed = [(result, where) for result in run.results if (where := charts.candidates(result))]
    for of, metric in dict.fromkeys((where[0], result.metric) for result, where in placed):
        mine = [result for result, where in placed if (where[0], result.metric) == (of, metric)]
        groups = tables.distinct(mine, lambda result: result.group)
        table = tables.judge_method_table(mine, [(group, metric) for group in groups])
        columns = ["Judge", "Method", *(f"N={n}" for group in groups for n in [_n_of(group, placed)])]
        title = " · ".join(filter(None, [of, metric.replace("_", " ")]))
        made.append(Table(title, columns, table.rows))
    rest = [result for result in run.results if not charts.candidates(result)]
    others = tables.by_metric_tables(EvalRun(run.name, run.path, run.evaluation, rest)) if rest else []
    made += [Table(one.title, one.columns, one.rows, folded=True) for one in others]
    return made, charts.best_of_n_curves(run)


def _n_of(group: str, placed: Sequence[tuple]) -> int:
    return next(where[1] for result, where in placed if result.group == group)


def _robustness(run: EvalRun, sizes: Mapping[str, float]) -> Made:
    return tables.robustness_tables(run), charts.robustness_dots(run)


def _length(run: EvalRun, sizes: Mapping[str, float]) -> Made:
    return tables.accuracy_tables(run), charts.length_curves(run)


def _similarity(run: EvalRun, sizes: Mapping[str, float]) -> Made:
    return tables.accuracy_tables(run), charts.similarity_bars(run)


def _agreement(run: EvalRun, sizes: Mapping[str, float]) -> Made:
    return tables.agreement_tables(run), charts.agreement_maps(run)


def _grpo_table(run: EvalRun, sizes: Mapping[str, float]) -> Made:
    return tables.grpo_tables(run), charts.grpo_bars(run)


def _generic(run: EvalRun, sizes: Mapping[str, float]) -> Made:
    return tables.by_metric_tables(run), []


MAKERS: dict[str, Callable[[EvalRun, Mapping[str, float]], Made]] = {
    "rewardbench2": _rewardbench2,
    "best_of_n": _best_of_n,
    "robustness": _robustness,
    "length": _length,
    "similarity": _similarity,
    "agreement": _agreement,
    "grpo_table": _grpo_table,
}


def chance_of(run: EvalRun) -> float | None:
    """What a random pick is worth over the run's items; None where the items are not there."""
    shares = []
    try:
        with (run.path / ITEMS).open(encoding="utf-8") as lines:
            for line in lines:
                right = json.loads(line).get("right")
                if right:
                    shares.append(sum(right) / len(right))
    except (OSError, ValueError):
        return None
    return fmean(shares) if shares else None


def training_section(runs: Sequence[TrainingRun]) -> Section:
    """Curves of training runs, and a table of where each metric began and ended."""
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.curves))
    metrics.sort(key=lambda metric: not is_measure(metric))
    rows = [
        [head(run.name), head(run.reward or "?"), *(_first_to_last(run, metric) for metric in metrics)] for run in runs
    ]
    rewards = list(dict.fromkeys(run.reward for run in runs))
    if any(sum(run.reward == reward for run in runs) > 1 for reward in rewards):
        rows += [
            [
                head("mean of runs", "mean"),
                head(reward or "?", "mean"),
                *(_mean_last(runs, reward, one) for one in metrics),
            ]
            for reward in rewards
        ]
    titles = [metric.partition("/")[2].replace("_", " ") for metric in metrics]
    note = "The last value of each eval metric; small: the first. Mean of runs: ± is the standard deviation over runs."
    table = Table("Where runs ended", ["Run", "Reward", *map(visible, titles)], rows, note)
    intro = "Evaluation metrics over training, a line a run, by the reward that it was trained with."
    return Section("training", "GRPO: training runs", intro, [table], charts.training_curves(runs))


def _first_to_last(run: TrainingRun, metric: str) -> Entry:
    curve = run.curves.get(metric)
    if not curve:
        return Entry(MISSING)
    (first_step, first), (last_step, last) = curve[0], curve[-1]
    beside = (f"step {last_step:g}", f"from {shown(first, 'score')} at {first_step:g}")
    return Entry(shown(last, "score"), beside, last)


def _mean_last(runs: Sequence[TrainingRun], reward: str, metric: str) -> Entry:
    values = [value for run in runs if run.reward == reward and (value := run.last(metric)) is not None]
    if not values:
        return Entry(MISSING)
    spread = f"± {stdev(values):.3f}, {len(values)} runs" if len(values) > 1 else "1 run"
    return Entry(shown(fmean(values), "score"), (spread,), fmean(values), "mean")
