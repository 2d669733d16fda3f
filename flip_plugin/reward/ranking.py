"""`RankResult`: several responses to one prompt, compared; and the arithmetic of comparisons.

Every method that can tell which of N responses is best gives one of these, so that an
evaluation can put them side by side: `ListwiseJudge.rank`, `PairwiseJudge.rank` (both in
`flip_plugin.reward.llm_judges`), and `rank_by_scores` for FLIP and the pointwise judge.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flip_plugin.reward.base import JudgedReward, Prompt
from flip_plugin.reward.result import Status


@dataclass(frozen=True)
class Comparison:
    """One question to a pairwise judge. All three are indices of responses; `first` was shown first.

    `winner` is `first` or `second`, and None unless `status` is "ok".
    """

    first: int
    second: int
    winner: int | None = None
    status: Status = "ok"


@dataclass(frozen=True)
class RankResult:
    """N responses compared. Indices are those of the responses as they were given.

    `scores` (N of them, 0..1) is None where nothing could be judged, `best` holds the
    indices that share the highest score. `status` is "ok" when `best` can be used;
    else `best` is empty. `error` is the first thing that went wrong, also where the rest was
    enough. `response_statuses` (N) says of each
    response whether it could be shown to a judge. `statuses` is that of each question
    put to the judge: 1 listwise, up to N (N - 1) pairwise, N by scores.

    One response that can be shown is the best without a question and without a score.

    Listwise: `order` is how the responses were shown, `reasoning` the judge's own (its
    numbers are places in `order`). Pairwise: `comparisons`; `position_consistency`, the
    share of pairs, judged in both orders, whose two judgements agree; `first_wins`, the
    share of judgements in favour of the response shown first (0.5 is fair, when nothing is missing);
    `intransitive`, the number of circles a > b > c > a among pairs with a winner.

    `usage` is in tokens, summed; `seconds` is wall time.
    """

    scores: list[float | None]
    best: list[int] = field(default_factory=list)
    status: Status = "ok"
    response_statuses: list[Status] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    reasoning: str | None = None
    order: list[int] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    position_consistency: float | None = None
    first_wins: float | None = None
    intransitive: int | None = None
    usage: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    @property
    def missing(self) -> int:
        """Questions that got no usable answer."""
        return sum(status != "ok" for status in self.statuses)

    def to_dict(self) -> dict[str, Any]:
        """The fields and `missing` as JSON-ready values."""
        return {**asdict(self), "missing": self.missing}


async def rank_by_scores(
    reward: JudgedReward,
    prompt: Prompt,
    responses: Sequence[str | None],
    *,
    finish_reasons: Sequence[str | None] | None = None,
) -> RankResult:
    """`responses` in the order of the scores that `reward` gives each of them alone.

    Raises ValueError when there are none, or not as many finish reasons.
    """
    reasons = checked_reasons(responses, finish_reasons)
    started = time.monotonic()
    results = await asyncio.gather(
        *(reward.score(prompt, one, finish_reason=why) for one, why in zip(responses, reasons, strict=True))
    )
    scores = [result.score for result in results]
    statuses: list[Status] = [result.status for result in results]
    best = best_of(scores)
    failed = next((result for result in results if result.status != "ok"), None)
    return RankResult(
        scores=scores,
        best=best,
        status=failed.status if failed and not best else "ok",
        response_statuses=statuses,
        statuses=statuses,
        usage=summed(result.usage for result in results),
        seconds=time.monotonic() - started,
        error=failed.error if failed and not best else None,
    )


def checked_reasons(
    responses: Sequence[str | None], finish_reasons: Sequence[str | None] | None
) -> Sequence[str | None]:
    """One finish reason for each response. Raises ValueError when there are no responses, or other numbers of them."""
    if isinstance(responses, str) or not responses:
        raise ValueError(f"ranking takes a list of at least one response, not {str(responses)[:40]!r}")
    reasons = [None] * len(responses) if finish_reasons is None else finish_reasons
    if len(reasons) != len(responses):
        raise ValueError(f"{len(responses)} responses, but {len(reasons)} finish reasons")
    return reasons


def best_of(scores: Sequence[float | None]) -> list[int]:
    """The indices that share the highest score; none without any score.

    >>> best_of([0.5, None, 0.75, 0.75])
    [2, 3]
    """
    top = max((score for score in scores if score is not None), default=None)
    return [index for index, score in enumerate(scores) if score is not None and score == top]


def summed(usages: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Tokens by kind, over several calls."""
    total: Counter[str] = Counter()
    for usage in usages:
        total.update(usage)
    return dict(total)


def win_shares(n: int, comparisons: Sequence[Comparison]) -> list[float | None]:
    """Of each of `n` responses, the share of its judged comparisons that it won; None without any.

    >>> win_shares(3, [Comparison(0, 1, 0), Comparison(1, 0, 1), Comparison(0, 2, 0), Comparison(2, 1)])
    [0.6666666666666666, 0.5, 0.0]
    """
    judged = [one for one in comparisons if one.winner is not None]
    wins = Counter(one.winner for one in judged)
    played = Counter(index for one in judged for index in (one.first, one.second))
    return [wins[index] / played[index] if played[index] else None for index in range(n)]


def position_consistency(comparisons: Sequence[Comparison]) -> float | None:
    """The share of pairs, judged in both orders, with the same winner in both; None without any.

    >>> position_consistency([Comparison(0, 1, 0), Comparison(1, 0, 1), Comparison(0, 2, 0), Comparison(2, 0, 0)])
    0.5
    """
    by_order = {(one.first, one.second): one.winner for one in comparisons if one.winner is not None}
    both = [(winner, by_order[b, a]) for (a, b), winner in by_order.items() if a < b and (b, a) in by_order]
    return sum(one == other for one, other in both) / len(both) if both else None


def first_wins(comparisons: Sequence[Comparison]) -> float | None:
    """The share of judgements in favour of the response that was shown first; None without any."""
    judged = [one for one in comparisons if one.winner is not None]
    return sum(one.winner == one.first for one in judged) / len(judged) if judged else None


def count_circles(n: int, comparisons: Sequence[Comparison]) -> int:
    """Triples a > b > c > a, where a > b means that a won more of their comparisons than b.

    >>> count_circles(3, [Comparison(0, 1, 0), Comparison(1, 2, 1), Comparison(2, 0, 2)])
    1
    """
    more_wins: Counter[tuple[int, int]] = Counter()  # (a, b) -> a's wins over b less b's over a
    for one in comparisons:
        if one.winner is not None:
            loser = one.first + one.second - one.winner
            more_wins[one.winner, loser] += 1
            more_wins[loser, one.winner] -= 1
    edges = [pair for pair, wins in more_wins.items() if wins > 0]
    beats, beaten_by = [0] * n, [0] * n  # bit k of beats[a]: a > k
    for a, b in edges:
        beats[a] |= 1 << b
        beaten_by[b] |= 1 << a
    return sum((beats[b] & beaten_by[a]).bit_count() for a, b in edges) // 3
