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
from flip_plugin.reward.base import REASONING, JudgedReward, json_schema
from flip_plugin.reward.result import FlipResult
from flip_plugin.text.echo import EchoPolicy, check_echo_policy, penalty, strip_echo
from flip_plugin.text.similarity import Checked, Similarity, get_similarity

# In this order, so that the judge looks at evidence before it names the instruction; the
# reasoning bounded, so that it cannot eat the budget. The instruction is not: max_tokens ends
# one that wanders (unparsed), and following a long bound costs as much as the model itself.
ANSWER = {"INFERRED INSTRUCTION": {"type": "string"}}
REASONING_FIRST = json_schema("inferred_instruction", {"REASONING": REASONING, **ANSWER})
ANSWER_ALONE = json_schema("inferred_instruction", ANSWER)


class FlipReward(JudgedReward):
    """The FLIP reward. It has these options beside those of `JudgedReward`.

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
        """The question which instruction led to `response`, with the turns before it."""
        return self.prompts.flip_messages(response, render_context(target.context), reasoning=self.reasoning)

    def shown(self, target: Target, response: str) -> str:
        """`response`, under ``strip`` without what it repeats of the instruction."""
        return strip_echo(target.instruction, response) if self.echo_policy == "strip" else response

    def nothing_shown(self) -> FlipResult:
        """A score of 0: the response only repeats its instruction."""
        return FlipResult(
            score=0.0, similarity=0.0, inferred_instruction="", reasoning="the response only restates the instruction"
        )

    def is_slow(self, response: str) -> bool:
        """True also where the similarity is slow."""
        return getattr(self.similarity, "slow", False) or super().is_slow(response)

    def grade(self, target: Target, text: str | None) -> FlipResult:
        """The similarity of the instruction in the reply to the target's."""
        parsed = parse_flip_reply(text)
        if parsed.instruction is None:
            return FlipResult(status="unparsed", reasoning=parsed.reasoning, error=parsed.problem)
        try:
            similarity = float(self.similarity(parsed.instruction, target.instruction))
        except (ValueError, ArithmeticError) as error:
            # Somebody's function failed on one text: that must not cost the rewards of the others.
            problem = f"the similarity failed: {type(error).__name__}: {error}"
            return FlipResult(status="unparsed", inferred_instruction=parsed.instruction, error=problem)
        return FlipResult(
            score=similarity,
            similarity=similarity,
            inferred_instruction=parsed.instruction,
            reasoning=parsed.reasoning,
        )

    def adjusted(self, target: Target, result: FlipResult) -> FlipResult:
        """`result`, under ``penalise`` with its score lowered by its echo."""
        if self.echo_policy != "penalise" or result.score is None or result.echo is None:
            return result
        return replace(result, score=result.score * penalty(target.instruction, result.echo))
