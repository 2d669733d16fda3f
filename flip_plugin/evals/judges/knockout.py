"""`KnockoutJudge`: the pairwise question put 2 (N - 1) times instead of N (N - 1).

Neighbours meet, 0 with 1, 2 with 3; winners go on and meet theirs. Every match is asked in both orders. Since
neighbours meet first, the winner among candidates 0 to 2^k - 1 is known after k rounds: a bracket of 16 holds those of
2, 4 and 8, and of every other block of these sizes.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from flip_plugin.evals.judges.selection import num_rounds
from flip_plugin.prompts.target import Target
from flip_plugin.reward.pairwise import PairwiseJudge
from flip_plugin.reward.ranking import Comparison, RankResult, best_of, first_wins, position_consistency, summed
from flip_plugin.reward.result import FlipResult


class KnockoutJudge(PairwiseJudge):
    """Options as for `PairwiseJudge`. A score is the share of rounds survived: 1.0 for the winner, None unseen.

    A match without a winner (the two answers disagree, or neither can be used) is decided by a coin, seeded by
    `coin`, the instruction and the pair. A response that cannot be shown loses without a question.
    """

    judge_type = "knockout"

    def __init__(self, *arguments: Any, coin: int = 0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.coin = coin

    async def _compare(self, target: Target, shown: dict[int, str], n: int) -> RankResult:
        survived = dict.fromkeys(shown, 0)
        asked: list[tuple[Comparison, FlipResult]] = []
        left: list[int | None] = [index if index in shown else None for index in range(n)]
        for _ in range(num_rounds(n)):
            pairs = [(left[at], left[at + 1] if at + 1 < len(left) else None) for at in range(0, len(left), 2)]
            matches = await asyncio.gather(*(self._match(target, shown, a, b) for a, b in pairs))
            left = [winner for winner, _ in matches]
            asked += [one for _, questions in matches for one in questions]
            for winner in left:
                if winner is not None:
                    survived[winner] += 1
        comparisons = [comparison for comparison, _ in asked]
        answered = any(one.winner is not None for one in comparisons)
        failed = next((result for _, result in asked if result.status != "ok"), None)
        rounds = num_rounds(n)
        scores = [survived[index] / rounds if answered and index in shown else None for index in range(n)]
        return RankResult(
            scores=scores,
            best=best_of(scores),
            status="ok" if answered or failed is None else failed.status,
            statuses=[one.status for one in comparisons],
            comparisons=comparisons,
            position_consistency=position_consistency(comparisons),
            first_wins=first_wins(comparisons),
            usage=summed(result.usage for _, result in asked),
            error=failed.error if failed else None,
        )

    async def _match(
        self, target: Target, shown: dict[int, str], a: int | None, b: int | None
    ) -> tuple[int | None, list[tuple[Comparison, FlipResult]]]:
        """The winner, and the questions that it took: two, or none where one of them is not there."""
        if a is None or b is None:
            return (b if a is None else a), []
        orders = [(a, b), (b, a)]
        answers = await asyncio.gather(*(self._prefer(target, shown[one], shown[two]) for one, two in orders))
        asked = [
            (
                Comparison(one, two, None if result.score is None else one if result.score else two, result.status),
                result,
            )
            for (one, two), result in zip(orders, answers, strict=True)
        ]
        winners = [comparison.winner for comparison, _ in asked]
        margin = winners.count(a) - winners.count(b)
        if margin == 0:
            seed = f"{self.coin} {a} {b} {target.instruction}"
            margin = 1 if random.Random(seed.encode("utf-8", "surrogatepass")).random() < 0.5 else -1
        return (a if margin > 0 else b), asked
