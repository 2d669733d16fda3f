"""Tables of a report: plain data that the Markdown and the page both draw.

A table has `columns` of titles and `rows` of `Entry`s. An entry is the number as text, what stands small beside
it (interval, invalid share, items), and the value to sort by. The paper's numbers are rows of
their own below ours, marked with their sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from flip_plugin.evals.lm_eval.benchmarks import benchmark_of
from flip_plugin.evals.records.items import Result
from flip_plugin.evals.report.input import paper
from flip_plugin.evals.report.input.lookup import BOUNDS, distinct, find, primary
from flip_plugin.evals.report.input.runs import EvalRun
from flip_plugin.evals.report.text import MISSING, interval, invalid, shown
from flip_plugin.pages.text import visible

Column = tuple[str, str]  # (group, metric)


@dataclass(frozen=True)
class Entry:
    """One place of a table: `text` is the number, `small` what has to stand beside it, `value` what it sorts by.

    `kind` is "head" for what names a row; a first entry of kind "mean", "paper" or "bound" keeps its row below ours.
    """

    text: str
    small: Sequence[str] = ()
    value: float | str | None = None
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its title, a note under it, titles of columns and rows of entries."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """What the report says of one run, or of several: tables, charts (plain data) and a line of introduction."""

    id: str
    title: str
    intro: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[dict] = field(default_factory=tuple)


def head(text: str, kind: str = "head") -> Entry:
    """An entry that names a row."""
    return Entry(visible(text), value=visible(text).lower(), kind=kind)


def entry(result: Result | None, *, count: bool = False) -> Entry:
    """A result's number with its interval and invalid share."""
    if result is None:
        return Entry(MISSING)
    beside = [interval(result), invalid(result), f"n={result.n}" if count and result.n else ""]
    if result.value is None and result.note:
        beside = [visible(result.note).partition(":")[0][:60], invalid(result)]  # the error itself is in report.json
    return Entry(shown(result.value, result.metric), tuple(filter(None, beside)), result.value)


def judge_method_table(
    results: Sequence[Result], columns: Sequence[Column], *, title: str = "", note: str = "", folded: bool = False
) -> Table:
    """A row a judge and method, a column each (group, metric)."""
    rows = []
    for judge, method in dict.fromkeys((result.judge, result.method) for result in results):
        mine = [result for result in results if (result.judge, result.method) == (judge, method)]
        own = [find(mine, group=group, metric=metric) for group, metric in columns]
        if any(own):
            kind = "bound" if method in BOUNDS else "head"
            rows.append([head(judge, kind), head(method, kind), *(entry(result) for result in own)])
    rows.sort(key=lambda row: row[0].kind == "bound")
    return Table(title, ["Judge", "Method", *(column_title(*column) for column in columns)], rows, note, folded)


def column_title(group: str, metric: str) -> str:
    """A column's title: the group where the metric is the usual one, else both."""
    words = metric.replace("_", " ")
    if metric == "accuracy_macro":
        return "Mean of groups"
    if group == "all":
        return "All items" if metric == "accuracy" else words.capitalize()
    return group if metric in ("accuracy",) else f"{group}: {words}"


def accuracy_columns(results: Sequence[Result]) -> list[Column]:
    """The groups by accuracy, the whole last, and its mean over groups where there is more than one."""
    groups = [group for group in distinct(results, lambda result: result.group) if group != "all"]
    named = [(group, "accuracy") for group in groups if find(results, group=group, metric="accuracy")]
    whole: list[Column] = [("all", "accuracy")]
    if len(named) > 1 and find(results, group="all", metric="accuracy_macro"):
        whole.insert(0, ("all", "accuracy_macro"))
    return [*named, *whole]


def accuracy_tables(run: EvalRun) -> list[Table]:
    """Accuracy by judge, method and group; the paper's rows below; then what missing verdicts are worth."""
    columns = accuracy_columns(run.results)
    table = judge_method_table(run.results, columns, title="Accuracy, %")
    rows = [*table.rows, *_mean_rows(run.results, columns), *_paper_rows(run.evaluation, columns)]
    note = ""
    if len(rows) > len(table.rows):
        note = "Rows in italics: the mean over judges, and the paper's numbers with their sources, where found."
    tables = [Table(table.title, table.columns, rows, note)]
    missing: list[Column] = [("all", metric) for metric in ("accuracy", "accuracy_skip", "accuracy_wrong")]
    if find(run.results, metric="accuracy_skip"):
        tables.append(
            judge_method_table(
                run.results,
                missing,
                title="What items without a verdict are worth",
                note="accuracy: a random pick; skip: left out; wrong: counted as wrong.",
                folded=True,
            )
        )
    return tables


def _mean_rows(results: Sequence[Result], columns: Sequence[Column]) -> list[list[Entry]]:
    """Our mean over judges by method, as the paper's averages are; only where there are several judges."""
    judges = distinct(results, lambda result: result.judge)
    if len(judges) < 2:
        return []
    rows = []
    for method in distinct(results, lambda result: result.method):
        entries = []
        for group, metric in columns:
            values = [
                result.value
                for result in results
                if (result.method, result.group, result.metric) == (method, group, metric) and result.value is not None
            ]
            mean = fmean(values) if len(values) == len(judges) else None
            entries.append(Entry(shown(mean, metric), value=mean, kind="mean"))
        rows.append([head(f"mean of {len(judges)} judges", "mean"), head(method, "mean"), *entries])
    return rows


def _paper_rows(evaluation: str, columns: Sequence[Column]) -> list[list[Entry]]:
    known = [figure for figure in paper.figures(evaluation) if figure.method and figure.metric.startswith("accuracy")]
    rows = []
    for method in dict.fromkeys(figure.method for figure in known):
        own = [
            next((one for one in known if (one.method, one.group, one.metric) == (method, *column)), None)
            for column in columns
        ]
        rows.append([head("paper: mean of 13", "paper"), head(method, "paper"), *map(paper_entry, own)])
    return rows


def paper_entry(figure: paper.Figure | None) -> Entry:
    """One of the paper's numbers with its sources; empty where it was not found."""
    if figure is None or figure.value is None:
        return Entry("", ("not found",) if figure is not None else (), kind="paper")
    number, _, source = figure.label().partition(" ")
    return Entry(number, (source.strip("()"),), figure.value, "paper")


def gain_table(results: Sequence[Result]) -> Table | None:
    """FLIP's relative gain over each judge method and over their mean, by our judges' means, beside the paper's."""
    judges = distinct(results, lambda result: result.judge)
    metric = "accuracy_macro" if find(results, metric="accuracy_macro") else "accuracy"
    means = {}
    for method in distinct(results, lambda result: result.method):
        own = [result for result in results if (result.method, result.group, result.metric) == (method, "all", metric)]
        values = [result.value for result in own if result.value is not None]
        if len(values) == len(judges):
            means[method] = fmean(values)
    others = {method: value for method, value in means.items() if method != "flip" and value > 0}
    if "flip" not in means or not others:
        return None
    gains = {f"over {method}": means["flip"] / value - 1 for method, value in others.items()}
    gains["mean of these"] = fmean(gains.values())
    theirs = {
        "over pointwise": "gain_over_pointwise",
        "mean of these": "gain",
    }
    rows = []
    for name, gain in gains.items():
        known = paper.figures("rewardbench2", group="all", metric=theirs[name]) if name in theirs else []
        rows.append(
            [head(f"FLIP {name}"), Entry(f"{100 * gain:+.1f}%", value=gain), paper_entry(known[0] if known else None)]
        )
    note = "Of the means over judges. The paper's 79.6% is the mean of its gains over the three judge methods."
    return Table("FLIP's relative gain", ["Gain", "Ours", "Paper"], rows, note)


def robustness_tables(run: EvalRun) -> list[Table]:
    """A table a judge: a row an attack; wins before and under attack, and the shift, for each method."""
    tables = []
    for judge in distinct(run.results, lambda result: result.judge):
        mine = [result for result in run.results if result.judge == judge]
        methods = distinct([result for result in mine if result.metric == "wins"], lambda result: result.method)
        groups = distinct([result for result in mine if result.metric == "wins"], lambda result: result.group)
        rows = []
        for group in groups:
            row = [head(group)]
            for method in methods:
                before, wins, change, shift = (
                    find(mine, group=group, method=method, metric=metric)
                    for metric in ("wins_before", "wins", "wins_change", "shift")
                )
                row += [_before_after(before, wins, change), entry(shift)]
            rows.append(row)
        titles = [title for method in methods for title in (f"{method}: wins, %", f"{method}: shift")]
        note = (
            "wins: how often the bad response beats the good one, before → under attack; small: the change with its "
            "interval. shift: how far the bad response's score moves."
        )
        tables.append(Table(f"Judge {visible(judge)}", ["Attack", *titles], rows, note, folded=bool(tables)))
    return tables


def _before_after(before: Result | None, wins: Result | None, change: Result | None) -> Entry:
    if wins is None:
        return Entry(MISSING)
    first = MISSING if before is None else shown(before.value, "wins")
    beside = [invalid(wins)]
    if change is not None and change.value is not None:
        beside.insert(0, f"{100 * change.value:+.1f} {interval(change)}")
    return Entry(f"{first} → {shown(wins.value, 'wins')}", tuple(filter(None, beside)), wins.value)


def by_metric_tables(run: EvalRun, *, judge_title: str = "Judge") -> list[Table]:
    """For an evaluation that is not known here: a table a metric, a column a group."""
    tables = []
    for metric in distinct(run.results, lambda result: result.metric):
        mine = [result for result in run.results if result.metric == metric]
        groups = distinct(mine, lambda result: result.group)
        table = judge_method_table(mine, [(group, metric) for group in groups])
        columns = [judge_title, "Method", *map(visible, groups)]
        tables.append(Table(metric.replace("_", " ").capitalize(), columns, table.rows))
    return tables


def agreement_tables(run: EvalRun) -> list[Table]:
    """Between the runs of a judge, and between judges: a column a measure."""
    tables = []
    for group, title in (("runs", "Between the runs of a judge"), ("judges", "Between judges")):
        mine = [result for result in run.results if result.group == group]
        metrics = distinct(mine, lambda result: result.metric)
        if mine:
            table = judge_method_table(mine, [(group, metric) for metric in metrics], title=title)
            tables.append(Table(title, ["Judge", "Method", *(one.replace("_", " ") for one in metrics)], table.rows))
    return tables


def grpo_tables(run: EvalRun) -> list[Table]:
    """Checkpoints by benchmarks with the paper's rows below; then all metrics."""
    own = primary(run.results)
    tasks = distinct(own, lambda result: result.group)
    rows = []
    for judge in distinct(own, lambda result: result.judge):
        mine = [result for result in own if result.judge == judge]
        rewards = distinct(mine, lambda result: result.method)
        entries = [entry(find(mine, group=task), count=True) for task in tasks]
        rows.append([head(judge), head(rewards[0] or "none"), *entries])
    for reward, name in (("flip", "paper: FLIP"), ("pointwise", "paper: LLM judge")):
        known = {figure.group: figure for figure in paper.figures("grpo_table", method=reward, metric="primary")}
        if any(task in known for task in tasks):
            rows.append([head(name, "paper"), head(reward, "paper"), *(paper_entry(known.get(one)) for one in tasks)])
    titles = [benchmark_of(task).title for task in tasks]
    notes = [f"{benchmark_of(task).title}: {result.metric}" for task in tasks if (result := find(own, group=task))]
    first = Table("Benchmarks, %", ["Checkpoint", "Reward", *titles], rows, "; ".join(notes) + ".")
    every = [
        Table(table.title, ["Checkpoint", "Reward", *table.columns[2:]], table.rows, folded=True)
        for table in by_metric_tables(run, judge_title="Checkpoint")
    ]
    return [first, *every]
