"""RewardBench 2's own score for its Ties subset: many right answers, and they should be alike to a judge.

The rule is that of allenai/reward-bench (``process_single_model``); its paper is arXiv 2506.01937. A question
comes twice: as ``tied:N`` with several right answers, and as ``ref:N`` with one. For each item,
with r the right scores and w the wrong ones:

    spread = max(r) - min(r)            margin = min(r) - max(w)            accurate = margin > 0

and over the questions that have both, m being the smaller of their two margins:

    score = 0.3 mean accurate(tied) + 0.3 mean accurate(ref)
          + 0.2 share(margin(tied) > spread) + 0.2 share(m > spread)
          + 0.01 mean tanh(m / spread - 1)

spread is the tied item's. Where spread and m are both 0 the last term is 0, and where spread alone is, it
is 1 or -1. So the best score is 1.01 and chance is about 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TIES_ID = re.compile(r"(ref|tied):(\d+)")


@dataclass(frozen=True)
class Margins:
    """Of one item: `margin` between right and wrong, and `spread` of the right ones, both in units of the score."""

    margin: float
    spread: float

    @property
    def accurate(self) -> bool:
        """True when every right answer scores above every wrong one."""
        return self.margin > 0


def margins(scores: Sequence[float | None], right: Sequence[bool]) -> Margins | None:
    """Over the responses that have a score; None when no right one or no wrong one has.

    >>> margins([0.75, 0.5, 0.25, None], [True, True, False, False])
    Margins(margin=0.25, spread=0.25)
    """
    good = [score for score, fits in zip(scores, right, strict=True) if fits and score is not None]
    bad = [score for score, fits in zip(scores, right, strict=True) if not fits and score is not None]
    if not good or not bad:
        return None
    return Margins(min(good) - max(bad), max(good) - min(good))


def ties_score(verdicts: Mapping[tuple[str, int], Margins | None]) -> float | None:
    """The score over items by (``ref`` or ``tied``, number). Items without a verdict are left out.

    None when there is no question with both a ref and a tied verdict: the margins cannot be compared.
    """
    ref = {number: one for (kind, number), one in verdicts.items() if kind == "ref" and one is not None}
    tied = {number: one for (kind, number), one in verdicts.items() if kind == "tied" and one is not None}
    both = sorted(ref.keys() & tied.keys())
    if not both:
        return None
    return score_of_pairs(list(ref.values()), list(tied.values()), [(ref[one], tied[one]) for one in both])


def score_of_pairs(ref: Sequence[Margins], tied: Sequence[Margins], pairs: Sequence[tuple[Margins, Margins]]) -> float:
    """The weighted sum; `pairs` are (ref, tied) of one question each."""
    smaller = [(min(one.margin, other.margin), other.spread) for one, other in pairs]
    return (
        0.30 * _mean([one.accurate for one in tied])
        + 0.30 * _mean([one.accurate for one in ref])
        + 0.20 * _mean([other.margin > other.spread for _, other in pairs])
        + 0.20 * _mean([margin > spread for margin, spread in smaller])
        + 0.01 * _mean([_closeness(margin, spread) for margin, spread in smaller])
    )


def _closeness(margin: float, spread: float) -> float:
    if spread:
        return math.tanh(margin / spread - 1)
    return math.copysign(1.0, margin) if margin else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
