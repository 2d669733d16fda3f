"""From judgements to results, for every evaluation whose figure is a mean over items; and their table in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flip_plugin.evals.records.items import Judgement, Result, has_failed
from flip_plugin.evals.stats.intervals import estimate
from flip_plugin.evals.stats.scoring import invalid_share

if TYPE_CHECKING:
    from rich.console import Console

#: (item id, seed) -> a figure of that item in that run.
Values = Mapping[tuple[str, int], float | None]

MISSING_RULE = (
    "An item with a question that the judge's server failed is missing from every figure; the same command asks again."
)


def mean_result(
    values: Values,
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
) -> Result:
    """A result of any per-item figure: `values` by (item id, seed); `judgements` give its invalid share.

    `ids` and `seeds` say which of them (default: all). With `groups` (by item id) it is the mean of the groups'
    means. Where there is nothing to average, the note says why.
    """
    ids = list(dict.fromkeys(key[0] for key in values)) if ids is None else list(ids)
    seeds = sorted({key[1] for key in values}) if seeds is None else list(seeds)
    table = [[values.get((one, seed)) for one in ids] for seed in seeds]
    mean = estimate(table, [groups[one] for one in ids] if groups is not None else None)
    failed = [one for one in judgements if has_failed(one)]
    if failed and not note:
        note = f"{len(failed)} of {len(judgements)} judgements failed: {failed[-1].error}"
    elif mean.value is None and not note:
        note = "not judged"
    return Result(
        evaluation=evaluation,
        judge=judge,
        method=method,
        group=group,
        metric=metric,
        value=mean.value,
        low=mean.low,
        high=mean.high,
        n=mean.n,
        invalid=invalid_share(judgements),
        runs=list(mean.runs),
        note=note,
    )


def print_results(
    results: Sequence[Result],
    *,
    title: str,
    rules: Sequence[str] = (),
    columns: Sequence[tuple[str, str]],
    percent: bool = True,
) -> None:
    """A table (rich), a row a judge and method, a column each of `columns` ((group, metric)), then the invalid share.

    Results show value ± half the 95% interval, in percent or as they are; without a value, a dash. Below: `rules`.
    """
    from rich.table import Table

    table = Table(title=title + (" (%, ± half the 95% interval)" if percent else " (± half the 95% interval)"))
    for name in ("judge", "method"):
        table.add_column(name, overflow="fold")
    for group, metric in columns:
        table.add_column(_heading(group, metric), justify="right")
    table.add_column("invalid %", justify="right")
    by_place = {(result.judge, result.method, result.group, result.metric): result for result in results}
    for judge, method in dict.fromkeys((result.judge, result.method) for result in results):
        row = [by_place.get((judge, method, group, metric)) for group, metric in columns]
        whole = [result for result in row if result is not None]
        if not whole:  # what has other figures alone is no row
            continue
        widest = next((result for result in whole if result.group == "all"), whole[-1] if whole else None)
        invalid = None if widest is None else widest.invalid
        shown = [_value(result, 100 if percent else 1) for result in row]
        table.add_row(judge, method, *shown, "–" if invalid is None else f"{100 * invalid:.1f}")
    console = wide_console(max(120, 30 + 16 * (len(columns) + 2)))
    console.print(table)
    for rule in rules:
        console.print(f"- {rule}", style="dim", highlight=False, markup=False)
    for judge, note in dict.fromkeys(
        (result.judge, result.note) for result in results if result.note and result.group == "all"
    ):
        console.print(f"{judge}: {note}", highlight=False, markup=False)


def wide_console(width: int) -> Console:
    """Where tables are printed: the terminal, or `width` characters of a log, which has no width of its own."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=width)


def _heading(group: str, metric: str) -> str:
    if metric == "accuracy":
        return "all items" if group == "all" else group
    if metric == "accuracy_macro":
        return "mean of groups"
    return metric if group == "all" else f"{group} {metric}"


def _value(result: Result | None, factor: int) -> str:
    if result is None or result.value is None:
        return "–"
    digits = 1 if factor == 100 else 3
    half = (
        "" if result.low is None or result.high is None else f" ± {factor * (result.high - result.low) / 2:.{digits}f}"
    )
    return f"{factor * result.value:.{digits}f}{half}"
