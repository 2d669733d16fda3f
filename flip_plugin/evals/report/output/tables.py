"""Tables of a report: plain data that the Markdown and the page both draw.

A table has `columns` of titles and `rows` of `Entry`s. An entry is the number as text, what stands small beside
it (interval, invalid share, items), and the value to sort by. The paper's numbers are rows of
their own below ours, marked with their sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from flip_plugin.evals.lm_eval.tasks import benchmark_of
from flip_plugin.evals.records.items import Cell
from flip_plugin.evals.report.input import paper
from flip_plugin.evals.report.input.results import BOUNDS, distinct, find, primary
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


def entry(cell: Cell | None, *, count: bool = False) -> Entry:
    """A cell's number with its interval and invalid share."""
    if cell is None:
        return Entry(MISSING)
    beside = [interval(cell), invalid(cell), f"n={cell.n}" if count and cell.n else ""]
    if cell.value is None and cell.note:
        beside = [visible(cell.note).partition(":")[0][:60], invalid(cell)]  # the error itself is in report.json
    return Entry(shown(cell.value, cell.metric), tuple(filter(None, beside)), cell.value)


def judge_method_table(
    cells: Sequence[Cell], columns: Sequence[Column], *, title: str = "", note: str = "", folded: bool = False
) -> Table:
    """A row a judge and method, a column each (group, metric)."""
    rows = []
    for judge, method in dict.fromkeys((cell.judge, cell.method) for cell in cells):
        mine = [cell for cell in cells if (cell.judge, cell.method) == (judge, method)]
        found = [find(mine, group=group, metric=metric) for group, metric in columns]
        if any(found):
            kind = "bound" if method in BOUNDS else "head"
            rows.append([head(judge, kind), head(method, kind), *(entry(cell) for cell in found)])
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


def accuracy_columns(cells: Sequence[Cell]) -> list[Column]:
    """The groups by accuracy, the whole last, and its mean over groups where there is more than one."""
    groups = [group for group in distinct(cells, lambda cell: cell.group) if group != "all"]
    named = [(group, "accuracy") for group in groups if find(cells, group=group, metric="accuracy")]
    whole: list[Column] = [("all", "accuracy")]
    if len(named) > 1 and find(cells, group="all", metric="accuracy_macro"):
        whole.insert(0, ("all", "accuracy_macro"))
    return [*named, *whole]


def accuracy_tables(run: EvalRun) -> list[Table]:
    """Accuracy by judge, method and group; the paper's rows below; then what missing verdicts are worth."""
    columns = accuracy_columns(run.cells)
    table = judge_method_table(run.cells, columns, title="Accuracy, %")
    rows = [*table.rows, *_mean_rows(run.cells, columns), *_paper_rows(run.evaluation, columns)]
    note = ""
    if len(rows) > len(table.rows):
        note = "Rows in italics: the mean over judges, and the paper's numbers with their sources, where found."
    tables = [Table(table.title, table.columns, rows, note)]
    missing: list[Column] = [("all", metric) for metric in ("accuracy", "accuracy_skip", "accuracy_wrong")]
    if find(run.cells, metric="accuracy_skip"):
        tables.append(
            judge_method_table(
                run.cells,
                missing,
                title="What items without a verdict are worth",
                note="accuracy: a random pick; skip: left out; wrong: counted as wrong.",
                folded=True,
            )
        )
    return tables


def _mean_rows(cells: Sequence[Cell], columns: Sequence[Column]) -> list[list[Entry]]:
    """Our mean over judges by method, as the paper's averages are; only where there are several judges."""
    judges = distinct(cells, lambda cell: cell.judge)
    if len(judges) < 2:
        return []
    rows = []
    for method in distinct(cells, lambda cell: cell.method):
        found = []
        for group, metric in columns:
            values = [
                cell.value
                for cell in cells
                if (cell.method, cell.group, cell.metric) == (method, group, metric) and cell.value is not None
            ]
            mean = fmean(values) if len(values) == len(judges) else None
            found.append(Entry(shown(mean, metric), value=mean, kind="mean"))
        rows.append([head(f"mean of {len(judges)} judges", "mean"), head(method, "mean"), *found])
    return rows


def _paper_rows(evaluation: str, columns: Sequence[Column]) -> list[list[Entry]]:
    known = [figure for figure in paper.figures(evaluation) if figure.method and figure.metric.startswith("accuracy")]
    rows = []
    for method in dict.fromkeys(figure.method for figure in known):
        found = [
            next((one for one in known if (one.method, one.group, one.metric) == (method, *column)), None)
            for column in columns
        ]
        rows.append([head("paper: mean of 13", "paper"), head(method, "paper"), *map(paper_entry, found)])
    return rows


def paper_entry(figure: paper.Figure | None) -> Entry:
    """One of the paper's numbers with its sources; empty where it was not found."""
    if figure is None or figure.value is None:
        return Entry("", ("not found",) if figure is not None else (), kind="paper")
    number, _, source = figure.label().partition(" ")
    return Entry(number, (source.strip("()"),), figure.value, "paper")


def gain_table(cells: Sequence[Cell]) -> Table | None:
    """FLIP's relative gain over each judge method and over their mean, by our judges' means, beside the paper's."""
    judges = distinct(cells, lambda cell: cell.judge)
    metric = "accuracy_macro" if find(cells, metric="accuracy_macro") else "accuracy"
    means = {}
    for method in distinct(cells, lambda cell: cell.method):
        own = [cell for cell in cells if (cell.method, cell.group, cell.metric) == (method, "all", metric)]
        values = [cell.value for cell in own if cell.value is not None]
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
    for judge in distinct(run.cells, lambda cell: cell.judge):
        mine = [cell for cell in run.cells if cell.judge == judge]
        methods = distinct([cell for cell in mine if cell.metric == "wins"], lambda cell: cell.method)
        groups = distinct([cell for cell in mine if cell.metric == "wins"], lambda cell: cell.group)
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


def _before_after(before: Cell | None, wins: Cell | None, change: Cell | None) -> Entry:
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
    for metric in distinct(run.cells, lambda cell: cell.metric):
        mine = [cell for cell in run.cells if cell.metric == metric]
        groups = distinct(mine, lambda cell: cell.group)
        table = judge_method_table(mine, [(group, metric) for group in groups])
        columns = [judge_title, "Method", *map(visible, groups)]
        tables.append(Table(metric.replace("_", " ").capitalize(), columns, table.rows))
    return tables


def agreement_tables(run: EvalRun) -> list[Table]:
    """Between the runs of a judge, and between judges: a column a measure."""
    tables = []
    for group, title in (("runs", "Between the runs of a judge"), ("judges", "Between judges")):
        mine = [cell for cell in run.cells if cell.group == group]
        metrics = distinct(mine, lambda cell: cell.metric)
        if mine:
            table = judge_method_table(mine, [(group, metric) for metric in metrics], title=title)
            tables.append(Table(title, ["Judge", "Method", *(one.replace("_", " ") for one in metrics)], table.rows))
    return tables


def grpo_tables(run: EvalRun) -> list[Table]:
    """Checkpoints by benchmarks with the paper's rows below; then all metrics."""
    own = primary(run.cells)
    tasks = distinct(own, lambda cell: cell.group)
    rows = []
    for judge in distinct(own, lambda cell: cell.judge):
        mine = [cell for cell in own if cell.judge == judge]
        rewards = distinct(mine, lambda cell: cell.method)
        found = [entry(find(mine, group=task), count=True) for task in tasks]
        rows.append([head(judge), head(rewards[0] or "none"), *found])
    for reward, name in (("flip", "paper: FLIP"), ("pointwise", "paper: LLM judge")):
        known = {figure.group: figure for figure in paper.figures("grpo_table", method=reward, metric="primary")}
        if any(task in known for task in tasks):
            rows.append([head(name, "paper"), head(reward, "paper"), *(paper_entry(known.get(one)) for one in tasks)])
    titles = [benchmark_of(task).title for task in tasks]
    notes = [f"{benchmark_of(task).title}: {cell.metric}" for task in tasks if (cell := find(own, group=task))]
    first = Table("Benchmarks, %", ["Checkpoint", "Reward", *titles], rows, "; ".join(notes) + ".")
    every = [
        Table(table.title, ["Checkpoint", "Reward", *table.columns[2:]], table.rows, folded=True)
        for table in by_metric_tables(run, judge_title="Checkpoint")
    ]
    return [first, *every]
