"""95% intervals: by a seeded bootstrap over items, where an item is drawn with all its runs, and Student's t.

Runs of one judge over one item are alike, so drawing judgements one by one would give intervals that are too narrow.
The percentile method; with groups, items are drawn within their group, whose sizes are the data set's choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

RESAMPLES = 2000
BATCH = 200


@dataclass(frozen=True)
class Estimate:
    """A mean over runs with its 95% interval; `runs` has one value a run, `n` is the number of items with a value."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    runs: Sequence[float | None] = ()


def estimate(
    values: Sequence[Sequence[float | None]],
    groups: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Estimate:
    """Of ``values[run][item]``, None left out: the mean over runs of each run's mean, and its interval.

    With `groups` (one an item) a run's mean is the unweighted mean of the groups' means; a group without
    any value in a run makes that run None, and one with a single item leaves no interval. Raises ValueError for
    runs or groups of other lengths.
    """
    import numpy as np

    lengths = {len(run) for run in values} | ({len(groups)} if groups is not None else set())
    if len(lengths) > 1:
        raise ValueError(f"runs and groups must have one length, not {sorted(lengths)}")
    table = np.array([[np.nan if one is None else one for one in run] for run in values], dtype=float)
    if table.size == 0 or np.isnan(table).all():
        return Estimate(None, runs=[None] * len(values))
    names = list(groups) if groups is not None else [""] * table.shape[1]
    members = [np.flatnonzero([name == one for name in names]) for one in dict.fromkeys(names)]
    runs = [_none(float(one)) for one in _run_means(table, [np.array([part]) for part in members])[:, 0]]
    known = [one for one in runs if one is not None]
    if not known:
        return Estimate(None, n=int((~np.isnan(table)).any(axis=0).sum()), runs=runs)

    def statistic(drawn: list[Any]) -> Any:
        means = _run_means(table, drawn)
        with np.errstate(invalid="ignore"):
            return np.nansum(means, axis=0) / (~np.isnan(means)).sum(axis=0)

    has_value = np.any(~np.isnan(table), axis=0)
    # A group of one item never varies when it is drawn, and its share of the interval would be missing.
    varies = all(np.count_nonzero(has_value[part]) > 1 for part in members)
    low, high = _percentiles(members, statistic, seed, RESAMPLES) if varies else (None, None)
    return Estimate(sum(known) / len(known), low, high, int(has_value.sum()), runs)


def bootstrap(
    n: int,
    statistic: Callable[[Any], float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float | None, float | None]:
    """95% interval of ``statistic(indices)`` (an array of `n` item numbers, with repeats); (None, None) for n < 2.

    For figures that are no means (a correlation, a weighted score). What `statistic` gives as NaN is left out.
    """
    import numpy as np

    def each(drawn: list[Any]) -> Any:
        return np.array([statistic(row) for row in np.concatenate(drawn, axis=1)], dtype=float)

    return _percentiles([np.arange(n)], each, seed, resamples)


def t95(freedom: int) -> float:
    """The two-sided 95% point of Student's t with that many degrees of freedom.

    >>> round(t95(1), 3), round(t95(10), 3)
    (12.706, 2.228)
    """
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def _percentiles(
    members: list[Any], statistic: Callable[[list[Any]], Any], seed: int, resamples: int
) -> tuple[float | None, float | None]:
    """`statistic` takes, for each group, an array (draws, items of the group) of item numbers."""
    import numpy as np

    if sum(map(len, members)) < 2:
        return None, None
    random, batches = np.random.default_rng(seed), []
    # In batches: draws x items x runs would not fit for large data sets.
    for start in range(0, resamples, BATCH):
        size = min(BATCH, resamples - start)
        drawn = [part[random.integers(0, len(part), (size, len(part)))] for part in members]
        batches.append(statistic(drawn))
    values = np.concatenate(batches)
    values = values[~np.isnan(values)]
    if not len(values):
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _run_means(table: Any, drawn: list[Any]) -> Any:
    """(runs, draws): each run's mean over groups of the mean over the drawn items that have a value."""
    import numpy as np

    total = np.zeros((table.shape[0], drawn[0].shape[0]))
    for indices in drawn:
        picked = table[:, indices]
        known = ~np.isnan(picked)
        with np.errstate(invalid="ignore"):
            total += np.where(known, picked, 0.0).sum(axis=2) / known.sum(axis=2)
    return total / len(drawn)


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value
