"""The judge that FLIP is compared with: pointwise rating by the same model, over the same client.

It reads the instruction and the response and gives 1 to 10; the score is a tenth of
that. Results have FLIP's type and statuses, so a failed rating is missing as well.
"""

from __future__ import annotations

from flip_plugin.parsing import parse_score_reply
from flip_plugin.reward import FlipResult, JudgedReward, Prompt, json_schema
from flip_plugin.target import NoTarget, Target, normalize_messages, render_context

# A pointwise result is a FlipResult without an inferred instruction.
PointwiseResult = FlipResult


class PointwiseJudge(JudgedReward):
    """Rates a response from 0.1 to 1.0. Options as for `FlipReward`, without `similarity`.

    The judge sees the whole prompt: one user turn as it is, several turns with their
    roles. ``result.target`` is that text.
    """

    judge_type = "quality"
    response_schema = json_schema(
        "rating",
        {
            "REASONING": {"type": "string", "maxLength": 300},
            "SCORE": {"type": "integer", "minimum": 1, "maximum": 10},
        },
    )

    def find(self, prompt: Prompt) -> Target:
        return whole_prompt(prompt)

    def messages(self, target: Target, response: str) -> list[dict[str, str]]:
        return self.prompts.pointwise_messages(target.instruction, response)

    def grade(self, target: Target, text: str | None) -> FlipResult:
        parsed = parse_score_reply(text)
        if parsed.score is None:
            return FlipResult(status="unparsed", reasoning=parsed.reasoning, error=parsed.problem)
        return FlipResult(score=parsed.score / 10, reasoning=parsed.reasoning)


def whole_prompt(prompt: Prompt) -> Target:
    """All that was asked, as one instruction without context: what a rating judge must see.

    One turn is its text; several are rendered with their roles. A closing assistant
    turn (the response) is left out. Raises `NoTarget` when nothing remains.
    """
    if isinstance(prompt, Target):
        turns = [*prompt.context, {"role": "user", "content": prompt.instruction}]
    elif isinstance(prompt, str):
        turns = [{"role": "user", "content": prompt}]
    else:
        turns = normalize_messages(prompt)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    text = turns[0]["content"] if len(turns) == 1 else render_context(turns)
    if not text.strip():
        raise NoTarget("the prompt is empty")
    return Target(text.strip())
