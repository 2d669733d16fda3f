"""Every two responses to a prompt, in both orders: the judge names the better one each time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from flip_plugin.prompts.target import Target
from flip_plugin.replies.parsing import ParsedChoice, parse_better
from flip_plugin.reward.base import (
    REASONING,
    json_schema,
)
from flip_plugin.reward.ranking import (
    Comparison,
    RankingJudge,
    RankResult,
    best_of,
    count_circles,
    first_wins,
    position_consistency,
    summed,
    win_shares,
)
from flip_plugin.reward.result import FlipResult


class PairwiseJudge(RankingJudge):
    """Asks about every two responses, in both orders; a score is the share of comparisons won.

    A comparison that failed counts for neither; a tie is no answer to which is better.
    A judge that always takes the first one gives everyone 0.5 and a
    ``position_consistency`` of 0.
    """

    judge_type = "pairwise"
    template = "llmjudge_pairwise_ranking"
    response_schema = json_schema(
        "better_response", {"REASONING": REASONING, "BETTER_RESPONSE": {"type": "string", "enum": ["A", "B"]}}
    )

    async def _compare(self, target: Target, shown: dict[int, str], n: int) -> RankResult:
        pairs = [(a, b) for a in shown for b in shown if a != b]
        answers = await asyncio.gather(*(self._prefer(target, shown[a], shown[b]) for a, b in pairs))
        comparisons = [
            Comparison(a, b, None if result.score is None else a if result.score else b, result.status)
            for (a, b), result in zip(pairs, answers, strict=True)
        ]
        scores = win_shares(n, comparisons)
        best = best_of(scores)
        failed = next((result for result in answers if result.status != "ok"), None)
        return RankResult(
            scores=scores,
            best=best,
            status=failed.status if failed and not best else "ok",
            statuses=[one.status for one in comparisons],
            comparisons=comparisons,
            position_consistency=position_consistency(comparisons),
            first_wins=first_wins(comparisons),
            intransitive=count_circles(n, comparisons) if best else None,
            usage=summed(result.usage for result in answers),
            error=failed.error if failed else None,
        )

    async def _prefer(self, target: Target, first: str, second: str) -> FlipResult:
        """A score of 1.0 where the judge prefers `first`, 0.0 for `second`."""
        assert self.response_schema is not None
        exchange = await self._compare_texts(target, [first, second], dict(self.response_schema))
        choice = ParsedChoice() if exchange.problem else parse_better(exchange.reply.text)
        return self._result(target, exchange, choice, score=None if choice.index is None else 1.0 - choice.index)

    def _filled(self, target: Target, texts: Sequence[str]) -> list[dict[str, str]]:
        return self._fill(target, response1=texts[0], response2=texts[1])
