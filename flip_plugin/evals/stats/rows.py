"""From judgements to cells, for every evaluation whose figure is a mean over items; and their table in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flip_plugin.evals.records.items import Cell, EvalItem, Judgement, has_failed
from flip_plugin.evals.stats.intervals import estimate
from flip_plugin.evals.stats.scoring import chance, credit_of, invalid_share

# What an item without any score is worth: as a random pick, left out, or wrong.
ACCURACIES: dict[str, Callable[[Sequence[bool]], float | None]] = {
    "accuracy": chance,
    "accuracy_skip": lambda right: None,
    "accuracy_wrong": lambda right: 0.0,
}
MISSING_RULE = (
    "An item with a question that the judge's server failed is missing from every figure; the same command asks again."
)


def accuracy_cells(
    evaluation: str,
    items: Sequence[EvalItem],
    judgements: Sequence[Judgement],
    *,
    judges: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    group_of: Callable[[EvalItem], str] = lambda item: item.subset,
    group_order: Sequence[str] = (),
) -> list[Cell]:
    """``accuracy``, ``accuracy_skip``, ``accuracy_wrong`` for each judge, method and group, and for ``all`` groups.

    For ``all``: ``accuracy`` is over items, ``accuracy_macro`` the unweighted mean of groups (as the paper's average).
    `items` know what is `right`; groups come in `group_order`, others behind it.
    """
    right = {item.id: list(item.right or ()) for item in items}
    groups = {item.id: group_of(item) for item in items}
    found = list(dict.fromkeys(groups.values()))
    order = [one for one in group_order if one in found] + [one for one in found if one not in group_order]
    cells = []
    for judge in judges:
        for method in methods:
            mine = [one for one in judgements if (one.judge, one.method) == (judge, method) and one.id in right]
            place: dict[str, Any] = {"evaluation": evaluation, "judge": judge, "method": method, "seeds": seeds}
            for metric, without in ACCURACIES.items():
                values = credits(mine, right, without)
                for group in order:
                    ids = [item.id for item in items if groups[item.id] == group]
                    part = [one for one in mine if groups[one.id] == group]
                    cells.append(mean_cell(values, ids=ids, group=group, metric=metric, judgements=part, **place))
                every: dict[str, Any] = {"ids": list(right), "group": "all", "judgements": mine, **place}
                cells.append(mean_cell(values, metric=metric, **every))
                if metric == "accuracy":
                    cells.append(mean_cell(values, metric="accuracy_macro", groups=groups, **every))
    return cells


def credits(
    judgements: Sequence[Judgement],
    right: Mapping[str, Sequence[bool]],
    without: Callable[[Sequence[bool]], float | None] = chance,
) -> dict[tuple[str, int], float | None]:
    """By (item id, seed): the credit of its pick, `without` a verdict, None where the judge's server failed."""
    values: dict[tuple[str, int], float | None] = {}
    for one in judgements:
        value = None if has_failed(one) else credit_of(one, right[one.id])
        if value is None and not has_failed(one):
            value = without(right[one.id])
        values[one.id, one.seed] = value
    return values


def mean_cell(
    values: Mapping[tuple[str, int], float | None],
    *,
    evaluation: str,
    judge: str,
    method: str,
    group: str,
    metric: str,
    ids: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    groups: Mapping[str, str] | None = None,
    judgements: Sequence[Judgement] = (),
    note: str = "",
) -> Cell:
    """A cell of any per-item figure: `values` by (item id, seed); `judgements` give its invalid share.

    `ids` and `seeds` say which of them (default: all). With `groups` (by item id) it is the mean of the groups'
    means. Where there is nothing to average, the note says why.
    """
    ids = list(dict.fromkeys(key[0] for key in values)) if ids is None else list(ids)
    seeds = sorted({key[1] for key in values}) if seeds is None else list(seeds)
    table = [[values.get((one, seed)) for one in ids] for seed in seeds]
    found = estimate(table, [groups[one] for one in ids] if groups is not None else None)
    failed = [one for one in judgements if has_failed(one)]
    if failed and not note:
        note = f"{len(failed)} of {len(judgements)} judgements failed: {failed[-1].error}"
    elif found.value is None and not note:
        note = "not judged"
    return Cell(
        evaluation=evaluation,
        judge=judge,
        method=method,
        group=group,
        metric=metric,
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        invalid=invalid_share(judgements),
        runs=list(found.runs),
        note=note,
    )


def print_cells(
    cells: Sequence[Cell],
    *,
    title: str,
    rules: Sequence[str] = (),
    columns: Sequence[tuple[str, str]],
    percent: bool = True,
) -> None:
    """A table (rich), a row a judge and method, a column each of `columns` ((group, metric)), then the invalid share.

    Cells show value ± half the 95% interval, in percent or as they are; without a value, a dash. Below: `rules`.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title + (" (%, ± half the 95% interval)" if percent else " (± half the 95% interval)"))
    for name in ("judge", "method"):
        table.add_column(name, overflow="fold")
    for group, metric in columns:
        table.add_column(_heading(group, metric), justify="right")
    table.add_column("invalid %", justify="right")
    by_place = {(cell.judge, cell.method, cell.group, cell.metric): cell for cell in cells}
    for judge, method in dict.fromkeys((cell.judge, cell.method) for cell in cells):
        row = [by_place.get((judge, method, group, metric)) for group, metric in columns]
        whole = [cell for cell in row if cell is not None]
        if not whole:  # what has other figures alone is no row
            continue
        widest = next((cell for cell in whole if cell.group == "all"), whole[-1] if whole else None)
        invalid = None if widest is None else widest.invalid
        shown = [_value(cell, 100 if percent else 1) for cell in row]
        table.add_row(judge, method, *shown, "–" if invalid is None else f"{100 * invalid:.1f}")
    console = Console()
    if not console.is_terminal:  # a log has no width of its own
        console = Console(width=max(120, 30 + 16 * (len(columns) + 2)))
    console.print(table)
    for rule in rules:
        console.print(f"- {rule}", style="dim", highlight=False, markup=False)
    for judge, note in dict.fromkeys((cell.judge, cell.note) for cell in cells if cell.note and cell.group == "all"):
        console.print(f"{judge}: {note}", highlight=False, markup=False)


def _heading(group: str, metric: str) -> str:
    if metric == "accuracy":
        return "all items" if group == "all" else group
    if metric == "accuracy_macro":
        return "mean of groups"
    return metric if group == "all" else f"{group} {metric}"


def _value(cell: Cell | None, factor: int) -> str:
    if cell is None or cell.value is None:
        return "–"
    digits = 1 if factor == 100 else 3
    half = "" if cell.low is None or cell.high is None else f" ± {factor * (cell.high - cell.low) / 2:.{digits}f}"
    return f"{factor * cell.value:.{digits}f}{half}"
