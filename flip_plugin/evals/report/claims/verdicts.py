"""Comparing numbers that have intervals: ``holds``, ``does not hold`` or ``not shown``. Pure arithmetic.

Where the run has the paired difference of the two (`flip_plugin.evals.stats.paired`), a comparison holds when the
difference's interval lies above 0, does not hold when it lies below, and is not shown when it holds 0. Without one it
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

from flip_plugin.evals.records.items import Result
from flip_plugin.evals.report.text import MISSING, interval, shown
from flip_plugin.evals.stats.intervals import t95

Verdict = Literal["holds", "does not hold", "not shown", "in part", "no data"]


#: As many equal differences come about by chance in less than 5% of cases: 2 / 2**6, by the sign test.
FEWEST = 6


@dataclass(frozen=True)
class Part:
    """One comparison: what is compared, the verdict, and the figures that it stands on.

    What does not `count` is shown and has no part in the claim's own verdict: the paper makes no claim about it.
    """

    label: str
    verdict: Verdict
    figures: str
    counts: bool = True


def higher(one: Result | None, other: Result | None) -> Verdict:
    """Whether `one` is higher than `other`.

    >>> a, b = (Result("e", "j", "m", "all", "accuracy", v, v - 0.05, v + 0.05) for v in (0.5, 0.3))
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


def bounds(result: Result) -> tuple[float, float] | None:
    """A result's interval where it may decide something."""
    if result.low is None or result.high is None or (result.low == result.high and result.n < FEWEST):
        return None
    return result.low, result.high


def compare(label: str, one: Result | None, other: Result | None, *, is_higher: bool = True) -> Part:
    """`higher` (or lower) as a part, with both numbers."""
    verdict = higher(one, other) if is_higher else higher(other, one)
    return Part(label, verdict, f"{figure_text(one)} against {figure_text(other)}")


def ahead(
    label: str, paired: Result | None, one: Result | None, other: Result | None, *, is_higher: bool = True
) -> Part:
    """Whether `one` is higher (or lower) than `other` by their `paired` difference; without one by their intervals.

    >>> result = Result("e", "j", "m", "all", "accuracy_lead", 0.1, 0.02, 0.18)
    >>> ahead("", result, None, None).verdict
    'holds'
    """
    if paired is None or paired.value is None:
        return compare(label, one, other, is_higher=is_higher)
    verdict: Verdict = "not shown"
    ends = bounds(paired)
    if ends is not None and (ends[0] > 0 or ends[1] < 0):
        verdict = "holds" if (ends[0] > 0) == is_higher else "does not hold"
    return Part(
        label, verdict, f"{figure_text(one)} against {figure_text(other)}, paired difference {figure_text(paired)}"
    )


def figure_text(result: Result | None) -> str:
    """A result's number with its interval."""
    if result is None:
        return MISSING
    return " ".join(filter(None, [shown(result.value, result.metric), interval(result)]))


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


def difference(one: Result, others: Iterable[Result]) -> Result | None:
    """`one` less the mean of `others`, as a result; None where a value is missing.

    Its interval adds up the squares of theirs, as if they were independent: too wide where they are not, since
    all are of the same items.
    """
    rest = list(others)
    values = [result.value for result in rest if result.value is not None]
    if one.value is None or not rest or len(values) < len(rest):
        return None
    value = one.value - fmean(values)
    halves = [_half(one), *(_half(result) for result in rest)]
    known = [half for half in halves if half is not None]
    if len(known) < len(halves):
        return Result(one.evaluation, one.judge, one.method, one.group, one.metric, value)
    half = math.hypot(known[0], *(other / len(rest) for other in known[1:]))
    return Result(one.evaluation, one.judge, one.method, one.group, one.metric, value, value - half, value + half)


def over_runs(values: Sequence[float], name: str, metric: str) -> Result:
    """Several runs' values as a result: their mean, and its interval by Student's t where there are two that differ."""
    mean = fmean(values)
    if len(set(values)) < 2:
        return Result("grpo", name, name, "all", metric, mean, runs=list(values))
    half = t95(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Result("grpo", name, name, "all", metric, mean, mean - half, mean + half, n=len(values), runs=list(values))


def _half(result: Result) -> float | None:
    return None if result.low is None or result.high is None else (result.high - result.low) / 2
