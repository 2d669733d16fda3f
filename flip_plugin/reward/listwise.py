"""All responses to a prompt in one question: the judge names the best."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from flip_plugin.prompts.target import Target
from flip_plugin.replies.parsing import ParsedChoice, parse_best_index
from flip_plugin.reward.base import (
    REASONING,
    json_schema,
)
from flip_plugin.reward.ranking import (
    RankingJudge,
    RankResult,
    best_of,
)


class ListwiseJudge(RankingJudge):
    """Shows all responses at once; the one that is named scores 1.0, the others 0.0.

    `shuffle` is the seed of the order in which they are shown, the same for the same
    prompt and number of responses: judges favour places, and data often has the right
    answer first. None shows them as given.

    The responses stand one below the other between numbered tags, ``<response_0>`` to
    ``</response_0>`` and so on, in place of ``{response_list}``. How the published code
    writes that list is not known; its template works with this one.
    """

    judge_type = "listwise"
    template = "llmjudge_listwise_ranking"

    def __init__(
        self, judge_model: str, api_base: str | list[str] | None = None, *, shuffle: int | None = 0, **options: Any
    ) -> None:
        super().__init__(judge_model, api_base, **options)
        self.shuffle = shuffle

    async def _compare(self, target: Target, shown: dict[int, str], n: int) -> RankResult:
        order = list(shown)
        if self.shuffle is not None:
            seed = f"{self.shuffle} {len(order)} {target.instruction}"
            random.Random(seed.encode("utf-8", "surrogatepass")).shuffle(order)
        exchange = await self._compare_texts(target, [shown[index] for index in order], self._schema(len(order)))
        choice = ParsedChoice() if exchange.problem else parse_best_index(exchange.reply.text, len(order))
        result = self._result(target, exchange, choice)
        scores: list[float | None] = [None] * n
        if choice.index is not None:
            for place, index in enumerate(order):
                scores[index] = 1.0 if place == choice.index else 0.0
        return RankResult(
            scores=scores,
            best=best_of(scores),
            status=result.status,
            statuses=[result.status],
            reasoning=choice.reasoning,
            order=order,
            usage=result.usage,
            error=result.error,
        )

    def _schema(self, n: int) -> dict[str, Any]:
        index = {"type": "integer", "minimum": 0, "maximum": n - 1}
        return json_schema("best_response", {"REASONING": REASONING, "BEST_RESPONSE_INDEX": index})

    def _filled(self, target: Target, texts: Sequence[str]) -> list[dict[str, str]]:
        blocks = [f"<response_{place}>\n{text}\n</response_{place}>" for place, text in enumerate(texts)]
        return self._fill(target, response_list="\n\n".join(blocks))
