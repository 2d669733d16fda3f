"""`FlipReward`: a response in, how well its instruction can be inferred from it out.

As in arXiv 2602.13551: a judge reads the response (and earlier turns, if any), names
the instruction that most likely led to it, and the score is the word-level F1 between
that and the real instruction. Here, what could not be judged has no score: `status`
says why, and `score` is None unless it is ``"ok"``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flip_plugin.prompts.target import Target, render_context
from flip_plugin.prompts.templates import FLIP_ANSWER_SYSTEM, PromptError
from flip_plugin.replies.parsing import parse_flip_reply
from flip_plugin.reward.base import PRESETS, JudgedReward, Prompt, json_schema
from flip_plugin.reward.result import STATUSES, FlipResult, Status
from flip_plugin.text.echo import EchoPolicy, check_echo_policy, penalty, strip_echo
from flip_plugin.text.shorten import estimate_tokens, shorten
from flip_plugin.text.similarity import Checked, Similarity, get_similarity

__all__ = [
    "PRESETS",
    "STATUSES",
    "FlipResult",
    "FlipReward",
    "JudgedReward",
    "Prompt",
    "Status",
    "estimate_tokens",
    "json_schema",
    "shorten",
]

# In this order, so that the judge looks at evidence before it names the instruction; the
# reasoning bounded, so that it cannot eat the budget. The instruction is not: max_tokens ends
# one that wanders (unparsed), and following a long bound costs as much as the model itself.
REASONING = {"REASONING": {"type": "string", "maxLength": 300}}
ANSWER = {"INFERRED INSTRUCTION": {"type": "string"}}
REASONING_FIRST = json_schema("inferred_instruction", {**REASONING, **ANSWER})
ANSWER_ALONE = json_schema("inferred_instruction", ANSWER)


class FlipReward(JudgedReward):
    """The FLIP reward. Options beside those of `JudgedReward`:

    `similarity`: a name that `get_similarity` knows, or a function of (inferred, target).
    `echo`: what to do about a response that repeats its instruction (see `flip_plugin.text.echo`):
    ``report``, ``strip`` or ``penalise``. A response of nothing but the instruction scores 0
    under ``strip``: there is nothing to infer from.
    `reasoning=False` asks the judge for the answer alone: fewer tokens, no evidence first.

    ::

        reward = FlipReward("hosted_vllm/Qwen/Qwen3-4B", api_base="http://127.0.0.1:8000/v1")
        result = await reward.score("Write a haiku about autumn.", response)
    """

    judge_type = "flip"

    def __init__(
        self,
        judge_model: str,
        api_base: str | list[str] | None = None,
        *,
        similarity: str | Similarity = "f1",
        echo: EchoPolicy = "report",
        reasoning: bool = True,
        **options: Any,
    ) -> None:
        check_echo_policy(echo)
        super().__init__(judge_model, api_base, **options)
        is_name = isinstance(similarity, str)
        self.similarity = get_similarity(similarity) if is_name else Checked(similarity, repr(similarity))
        self.echo_policy: EchoPolicy = echo
        self.reasoning = reasoning
        if not reasoning and FLIP_ANSWER_SYSTEM not in self.prompts.templates:
            raise PromptError(f"reasoning=False needs {FLIP_ANSWER_SYSTEM}.prompt, which {self.prompts.folder!r} lacks")
        self.response_schema = REASONING_FIRST if reasoning else ANSWER_ALONE

    def messages(self, target: Target, response: str) -> list[dict[str, str]]:
        return self.prompts.flip_messages(response, render_context(target.context), reasoning=self.reasoning)

    def shown(self, target: Target, response: str) -> str:
        return strip_echo(target.instruction, response) if self.echo_policy == "strip" else response

    def nothing_shown(self) -> FlipResult:
        return FlipResult(
            score=0.0, similarity=0.0, inferred_instruction="", reasoning="the response only restates the instruction"
        )

    def is_slow(self, response: str) -> bool:
        return getattr(self.similarity, "slow", False) or super().is_slow(response)

    def grade(self, target: Target, text: str | None) -> FlipResult:
        parsed = parse_flip_reply(text)
        if parsed.instruction is None:
            return FlipResult(status="unparsed", reasoning=parsed.reasoning, error=parsed.problem)
        try:
            similarity = float(self.similarity(parsed.instruction, target.instruction))
        except (ValueError, ArithmeticError) as error:
            # Somebody's function, on one text: the others' rewards were paid for.
            problem = f"the similarity failed: {type(error).__name__}: {error}"
            return FlipResult(status="unparsed", inferred_instruction=parsed.instruction, error=problem)
        return FlipResult(
            score=similarity,
            similarity=similarity,
            inferred_instruction=parsed.instruction,
            reasoning=parsed.reasoning,
        )

    def adjusted(self, target: Target, result: FlipResult) -> FlipResult:
        if self.echo_policy != "penalise" or result.score is None or result.echo is None:
            return result
        return replace(result, score=result.score * penalty(target.instruction, result.echo))
