"""Comparing numbers that have intervals: ``holds``, ``does not hold`` or ``not shown``. Pure arithmetic.

Where the run has the lead of one over the other with its own interval (`flip_plugin.evals.stats.paired`), a comparison
holds when that lies above 0, does not hold when it lies below, and is not shown when it holds 0. Without a lead it
holds when the two intervals lie apart the way that was claimed, does not hold when they lie apart the other
way, and is not shown when they overlap or when there is none. Overlap is a cautious rule: two 95% intervals that
just touch are a difference at about the 0.5% level. An interval without width, of items that are all alike, counts
from `FEWEST` items on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from flip_plugin.evals.records.items import Cell
from flip_plugin.evals.report.text import MISSING, interval, shown
from flip_plugin.evals.stats.intervals import t95

Verdict = Literal["holds", "does not hold", "not shown", "in part", "no data"]


#: As many equal differences come about by chance in less than 5% of cases: 2 / 2**6, by the sign test.
FEWEST = 6


@dataclass(frozen=True)
class Part:
    """One comparison: what is compared, the verdict, and the figures that it stands on.

    What does not `count` is shown and has no part in the claim's own verdict: the paper does not speak of it.
    """

    label: str
    verdict: Verdict
    figures: str
    counts: bool = True


def higher(one: Cell | None, other: Cell | None) -> Verdict:
    """Whether `one` is higher than `other`.

    >>> a, b = (Cell("e", "j", "m", "all", "accuracy", v, v - 0.05, v + 0.05) for v in (0.5, 0.3))
    >>> higher(a, b), higher(b, a), higher(a, a)
    ('holds', 'does not hold', 'not shown')
    """
    if one is None or other is None or one.value is None or other.value is None:
        return "no data"
    ends, others = bounds(one), bounds(other)
    if ends is None or others is None:
        return "not shown"
    if ends[0] > others[1]:
        return "holds"
    return "does not hold" if others[0] > ends[1] else "not shown"


def bounds(cell: Cell) -> tuple[float, float] | None:
    """A cell's interval where it may decide something."""
    if cell.low is None or cell.high is None or (cell.low == cell.high and cell.n < FEWEST):
        return None
    return cell.low, cell.high


def compare(label: str, one: Cell | None, other: Cell | None, *, is_higher: bool = True) -> Part:
    """`higher` (or lower) as a part, with both numbers."""
    verdict = higher(one, other) if is_higher else higher(other, one)
    return Part(label, verdict, f"{told(one)} against {told(other)}")


def ahead(label: str, lead: Cell | None, one: Cell | None, other: Cell | None, *, is_higher: bool = True) -> Part:
    """Whether `one` is higher (or lower) than `other` by the `lead` of one over the other; by their intervals without.

    >>> cell = Cell("e", "j", "m", "all", "accuracy_lead", 0.1, 0.02, 0.18)
    >>> ahead("", cell, None, None).verdict
    'holds'
    """
    if lead is None or lead.value is None:
        return compare(label, one, other, is_higher=is_higher)
    verdict: Verdict = "not shown"
    ends = bounds(lead)
    if ends is not None and (ends[0] > 0 or ends[1] < 0):
        verdict = "holds" if (ends[0] > 0) == is_higher else "does not hold"
    return Part(label, verdict, f"{told(one)} against {told(other)}, a lead of {told(lead)}")


def told(cell: Cell | None) -> str:
    """A cell's number with its interval."""
    if cell is None:
        return MISSING
    return " ".join(filter(None, [shown(cell.value, cell.metric), interval(cell)]))


def overall(parts: Sequence[Part]) -> Verdict:
    """All parts in one word: ``in part`` where some hold and others do not or are not shown.

    >>> overall([Part("", "holds", ""), Part("", "not shown", "")])
    'in part'
    """
    verdicts = {part.verdict for part in parts if part.counts} - {"no data"}
    if not verdicts:
        return "no data"
    if verdicts == {"holds"}:
        return "holds"
    if verdicts & {"holds", "in part"}:
        return "in part"
    return "does not hold" if "does not hold" in verdicts else "not shown"


def difference(one: Cell, others: Iterable[Cell]) -> Cell | None:
    """`one` less the mean of `others`, as a cell; None where a value is missing.

    Its interval adds up the squares of theirs, as if they were independent: too wide where they are not, since
    all are of the same items.
    """
    rest = list(others)
    values = [cell.value for cell in rest if cell.value is not None]
    if one.value is None or not rest or len(values) < len(rest):
        return None
    value = one.value - fmean(values)
    halves = [_half(one), *(_half(cell) for cell in rest)]
    known = [half for half in halves if half is not None]
    if len(known) < len(halves):
        return Cell(one.evaluation, one.judge, one.method, one.group, one.metric, value)
    half = math.hypot(known[0], *(other / len(rest) for other in known[1:]))
    return Cell(one.evaluation, one.judge, one.method, one.group, one.metric, value, value - half, value + half)


def over_runs(values: Sequence[float], name: str, metric: str) -> Cell:
    """Several runs' values as a cell: their mean, and its interval by Student's t where there are two that differ."""
    mean = fmean(values)
    if len(set(values)) < 2:
        return Cell("grpo", name, name, "all", metric, mean, runs=list(values))
    half = t95(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Cell("grpo", name, name, "all", metric, mean, mean - half, mean + half, n=len(values), runs=list(values))


def _half(cell: Cell) -> float | None:
    return None if cell.low is None or cell.high is None else (cell.high - cell.low) / 2
