"""Accuracy, the share of right picks: by judge, method and group, and FLIP's paired differences in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flip_plugin.evals.records.items import EvalItem, Judgement, Result, has_failed
from flip_plugin.evals.stats.paired import paired_results
from flip_plugin.evals.stats.results import Values, mean_result
from flip_plugin.evals.stats.scoring import chance, credit_of

#: What an item without any score is worth: as a random pick, left out, or wrong.
ACCURACIES: dict[str, Callable[[Sequence[bool]], float | None]] = {
    "accuracy": chance,
    "accuracy_skip": lambda right: None,
    "accuracy_wrong": lambda right: 0.0,
}


def accuracy_results(
    evaluation: str,
    items: Sequence[EvalItem],
    judgements: Sequence[Judgement],
    *,
    judges: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    group_of: Callable[[EvalItem], str] = lambda item: item.subset,
    group_order: Sequence[str] = (),
    differences: bool = False,
) -> list[Result]:
    """``accuracy``, ``accuracy_skip``, ``accuracy_wrong`` for each judge, method and group, and for ``all`` groups.

    For ``all``: ``accuracy`` is over items, ``accuracy_macro`` the unweighted mean of groups (as the paper's average).
    `items` know what is `right`; groups come in `group_order`, others behind it. With `differences`, those in
    ``accuracy_macro`` follow, for each judge (`flip_plugin.evals.stats.paired`).
    """
    right = {item.id: list(item.right or ()) for item in items}
    groups = {item.id: group_of(item) for item in items}
    present = list(dict.fromkeys(groups.values()))
    order = [one for one in group_order if one in present] + [one for one in present if one not in group_order]
    results, paired = [], []
    for judge in judges:
        judged = {
            method: [one for one in judgements if (one.judge, one.method) == (judge, method) and one.id in right]
            for method in methods
        }
        credits = {method: pick_credits(own, right) for method, own in judged.items()}
        place: dict[str, Any] = {"evaluation": evaluation, "judge": judge, "seeds": seeds}
        for method, own in judged.items():
            for metric, without in ACCURACIES.items():
                values = credits[method] if metric == "accuracy" else pick_credits(own, right, without)
                for group in order:
                    ids = [item.id for item in items if groups[item.id] == group]
                    part = [one for one in own if groups[one.id] == group]
                    where: dict[str, Any] = {"ids": ids, "group": group, "judgements": part, **place}
                    results.append(mean_result(values, method=method, metric=metric, **where))
                every: dict[str, Any] = {"ids": list(right), "group": "all", "judgements": own, **place}
                results.append(mean_result(values, method=method, metric=metric, **every))
                if metric == "accuracy":
                    results.append(mean_result(values, method=method, metric="accuracy_macro", groups=groups, **every))
        if differences:
            place |= {"ids": list(right), "group": "all", "groups": groups}
            paired += paired_results(credits, judged, metric="accuracy_macro", **place)
    return results + paired


def pick_credits(
    judgements: Sequence[Judgement],
    right: Mapping[str, Sequence[bool]],
    without: Callable[[Sequence[bool]], float | None] = chance,
) -> Values:
    """By (item id, seed): the credit of its pick, `without` a verdict, None where the judge's server failed."""
    values: dict[tuple[str, int], float | None] = {}
    for one in judgements:
        value = None if has_failed(one) else credit_of(one, right[one.id])
        if value is None and not has_failed(one):
            value = without(right[one.id])
        values[one.id, one.seed] = value
    return values
