"""How far FLIP is ahead of the other methods: paired differences, item by item, with their intervals.

Methods judge the same items, and an item that is hard for one is often hard for all. The difference of two means
is therefore known better than either mean, and is estimated here from the items' own differences. Such a result has
the other method as `method`, and the metric's name with ``_lead`` behind it; method ``judges`` is the mean of all the
others, where there are two or more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from flip_plugin.evals.records.items import Judgement, Result
from flip_plugin.evals.stats.results import Values, mean_result
from flip_plugin.evals.stats.scoring import difference, invalid_share

PAIRED = "_lead"
JUDGES = "judges"
RULE = (
    "A metric with _lead behind its name is a paired difference: FLIP's figure less that of the method, its interval "
    "from the items' own differences, since both methods judge the same items, in runs of the same seeds."
)


def paired_results(
    values: Mapping[str, Values],
    judgements: Mapping[str, Sequence[Judgement]],
    *,
    metric: str,
    asked: Mapping[str, Sequence[Judgement]] | None = None,
    **place: Any,
) -> list[Result]:
    """A result for each method but FLIP, and for their mean; none without FLIP.

    `values` and `judgements` are by method; an item that one of the two has no figure for is in neither. `asked` are
    the judgements with the questions that count for the invalid share, where these are not all. `place` goes to
    `flip_plugin.evals.stats.results.mean_result`.
    """
    if "flip" not in values:
        return []
    others: dict[str, Values] = {method: own for method, own in values.items() if method != "flip"}
    names = {method: [method] for method in others}
    if len(others) > 1:
        others[JUDGES] = {key: _mean([own.get(key) for own in others.values()]) for key in values["flip"]}
        names[JUDGES] = list(names)
    results = []
    for method, own in others.items():
        both = ("flip", *names[method])
        result = mean_result(
            {key: difference(value, own.get(key)) for key, value in values["flip"].items()},
            method=method,
            metric=f"{metric}{PAIRED}",
            judgements=[one for name in both for one in judgements.get(name, ())],
            **place,
        )
        if asked is not None:
            result = replace(result, invalid=invalid_share([one for name in both for one in asked.get(name, ())]))
        results.append(result)
    return results


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, where every value is there."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
