"""FLIP's lead over the other methods, item by item: differences of paired figures, with their intervals.

Methods judge the same items, and an item that is hard for one is often hard for all. The difference of two means
is therefore known better than either mean, and is estimated here from the items' own differences. A lead is a cell
with the other method as `method` and the metric's name with ``_lead`` behind it; method ``judges`` is the mean of
all the others, where there are two or more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from flip_plugin.evals.records.items import Cell, EvalItem, Judgement
from flip_plugin.evals.stats.rows import credits, mean_cell
from flip_plugin.evals.stats.scoring import difference, invalid_share

LEAD = "_lead"
JUDGES = "judges"
RULE = (
    "A lead is FLIP's figure less that of another method, its interval from the items' own differences: both methods "
    "judge the same items, in runs of the same seeds."
)

# (item id, seed) -> a method's figure
Values = Mapping[tuple[str, int], float | None]


def lead_cells(
    values: Mapping[str, Values],
    judgements: Mapping[str, Sequence[Judgement]],
    *,
    metric: str,
    asked: Mapping[str, Sequence[Judgement]] | None = None,
    **place: Any,
) -> list[Cell]:
    """A cell for each method but FLIP, and for their mean; none without FLIP.

    `values` and `judgements` are by method; an item that one of the two has no figure for is in neither. `asked` are
    the judgements with the questions that count for the invalid share, where these are not all. `place` goes to
    `flip_plugin.evals.stats.rows.mean_cell`.
    """
    if "flip" not in values:
        return []
    others: dict[str, Values] = {method: found for method, found in values.items() if method != "flip"}
    names = {method: [method] for method in others}
    if len(others) > 1:
        others[JUDGES] = {key: _mean([found.get(key) for found in others.values()]) for key in values["flip"]}
        names[JUDGES] = list(names)
    cells = []
    for method, found in others.items():
        both = ("flip", *names[method])
        cell = mean_cell(
            {key: difference(value, found.get(key)) for key, value in values["flip"].items()},
            method=method,
            metric=f"{metric}{LEAD}",
            judgements=[one for name in both for one in judgements.get(name, ())],
            **place,
        )
        if asked is not None:
            cell = replace(cell, invalid=invalid_share([one for name in both for one in asked.get(name, ())]))
        cells.append(cell)
    return cells


def accuracy_leads(
    evaluation: str,
    items: Sequence[EvalItem],
    judgements: Sequence[Judgement],
    *,
    judges: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
) -> list[Cell]:
    """Leads in ``accuracy_macro``, the mean of subsets, for each judge."""
    right = {item.id: list(item.right or ()) for item in items}
    groups = {item.id: item.subset for item in items}
    cells = []
    for judge in judges:
        mine = {
            method: [one for one in judgements if (one.judge, one.method) == (judge, method) and one.id in right]
            for method in methods
        }
        values = {method: credits(found, right) for method, found in mine.items()}
        place: dict[str, Any] = {"evaluation": evaluation, "judge": judge, "group": "all", "seeds": seeds}
        cells += lead_cells(values, mine, metric="accuracy_macro", ids=list(right), groups=groups, **place)
    return cells


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
