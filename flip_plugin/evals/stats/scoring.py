"""From scores to credit: which response is picked, and what the pick is worth. Pure functions.

Credit shared among ties is RewardBench 2's rule (allenai/reward-bench, ``reroll_and_score_dataset``: one over the
number of tied responses where the right one is among them). There an unusable verdict is worth a random pick, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flip_plugin.evals.records.items import Judgement
from flip_plugin.reward.ranking import best_of

RULES = (
    "The pick is the response with the highest score; where several share it, they share the credit.",
    "A response without a score is not picked while another has one.",
    "An item without any score counts as a random pick in accuracy, is left out of accuracy_skip, "
    "and is wrong in accuracy_wrong.",
    "invalid is the share of questions to the judge that got no usable answer: one a response for flip and "
    "pointwise, one an item for listwise, one an ordered pair for pairwise.",
)


def chance(right: Sequence[bool]) -> float:
    """What a random pick is worth: the share of right ones.

    >>> chance([True, False, False, False])
    0.25
    """
    return sum(right) / len(right)


def picks(judgement: Judgement) -> list[int]:
    """The indices that share the first place; none without a verdict.

    A ranking judge that could be shown a single response (the others are empty, say) is not asked, and
    that one is the pick.
    """
    return best_of(judgement.scores) or list(judgement.extra.get("best", ()))


def credit_of(judgement: Judgement, right: Sequence[bool]) -> float | None:
    """The share of right ones among a judgement's `picks`; None without a verdict.

    Raises ValueError when there are not as many scores as responses.

    >>> judged = Judgement("1", "j", "flip", 1, [0.5, 0.75, 0.75, None], ["ok", "ok", "ok", "unparsed"])
    >>> credit_of(judged, [True, True, False, False])
    0.5
    """
    if len(judgement.scores) != len(right):
        raise ValueError(f"item {judgement.id!r}: {len(judgement.scores)} scores for {len(right)} responses")
    picked = picks(judgement)
    return sum(right[index] for index in picked) / len(picked) if picked else None


def difference(after: float | None, before: float | None) -> float | None:
    """`after` less `before`; None unless both are there."""
    return None if after is None or before is None else after - before


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there; None where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def invalid_share(judgements: Sequence[Judgement]) -> float | None:
    """The share of questions without a usable answer (status not "ok"), 0..1; None without a question.

    >>> judged = Judgement("1", "j", "pointwise", 1, [0.5, None, 0.5, 0.1], ["ok", "unparsed", "ok", "ok"])
    >>> invalid_share([judged])
    0.25
    """
    asked = [status for judgement in judgements for status in judgement.statuses]
    return sum(status != "ok" for status in asked) / len(asked) if asked else None
