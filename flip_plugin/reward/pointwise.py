"""A rating of one response from 1 to 10: what FLIP is compared with, by the same model and with the same statuses."""

from __future__ import annotations

from flip_plugin.prompts.target import Prompt, Target, whole_prompt
from flip_plugin.replies.parsing import parse_score_reply
from flip_plugin.reward.base import (
    REASONING,
    JudgedReward,
    json_schema,
)
from flip_plugin.reward.result import FlipResult


class PointwiseJudge(JudgedReward):
    """Rates a response from 0.1 to 1.0. Options as for `FlipReward`, without `similarity`.

    The judge sees the whole prompt: one user turn as it is, several turns with their
    roles. ``result.target`` is that text.
    """

    judge_type = "quality"
    response_schema = json_schema(
        "rating", {"REASONING": REASONING, "SCORE": {"type": "integer", "minimum": 1, "maximum": 10}}
    )

    def find(self, prompt: Prompt) -> Target:
        """The whole prompt. Raises `NoTarget` for an empty one."""
        return whole_prompt(prompt)

    def messages(self, target: Target, response: str) -> list[dict[str, str]]:
        """The question for a rating from 1 to 10."""
        return self.prompts.pointwise_messages(target.instruction, response)

    def grade(self, target: Target, text: str | None) -> FlipResult:
        """A tenth of the rating in the reply."""
        return read_rating(text)


def read_rating(text: str | None) -> FlipResult:
    """A pointwise judge's reply as a score of 0.1 to 1.0, a tenth of its rating; "unparsed" without a readable one."""
    parsed = parse_score_reply(text)
    if parsed.score is None:
        return FlipResult(status="unparsed", reasoning=parsed.reasoning, error=parsed.problem)
    return FlipResult(score=parsed.score / 10, reasoning=parsed.reasoning)
