"""`FlipReward`: a response in, how well its instruction can be inferred from it out.

As in arXiv 2602.13551: a judge reads the response (and earlier turns, if any), names
the instruction that most likely led to it, and the score is the word-level F1 between
that and the real instruction. Here, what could not be judged has no score: `status`
says why, and `score` is None unless it is ``"ok"``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from flip_plugin.echo import echo_share
from flip_plugin.judge import JudgeClient, JudgeReply, run_sync
from flip_plugin.metrics import Similarity, get_similarity
from flip_plugin.parsing import after_thinking, parse_flip_reply
from flip_plugin.prompts import PromptSet
from flip_plugin.records import JudgeCallWriter
from flip_plugin.target import NoTarget, Target, TargetChoice, find_target, render_context

Status = Literal["ok", "unparsed", "judge_error", "empty_response", "truncated", "no_target", "context_overflow"]
STATUSES: tuple[str, ...] = get_args(Status)

Prompt = str | Sequence[Mapping[str, Any]] | Target

# What a chat template adds around two messages, in tokens; generous.
TEMPLATE_TOKENS = 32
# Less than this of a long response is not worth a judgement, in tokens.
LEAST_RESPONSE_TOKENS = 16
# Halvings of the response after the server itself said that the request is too long.
MOST_HALVINGS = 2


@dataclass(frozen=True)
class FlipResult:
    """One judged response. `score` is in 0..1, and None unless `status` is "ok".

    `echo` is the share of the target repeated word for word in the response (0..1);
    `usage` is in tokens, `seconds` from the first request to the judge to its end;
    `error` says what went wrong when `status` is not "ok".
    """

    score: float | None = None
    status: Status = "ok"
    inferred_instruction: str | None = None
    target: str | None = None
    reasoning: str | None = None
    echo: float | None = None
    usage: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)

    def details(self) -> dict[str, Any]:
        """What a trainer's logs keep next to score, status and reasoning."""
        kept = ("inferred_instruction", "echo", "usage", "seconds", "error", "target")
        return {name: getattr(self, name) for name in kept}


def json_schema(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's ``response_format`` for an object of exactly `properties`, in their order."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


class JudgedReward:
    """What every judge of single responses shares; subclasses say what to ask and how to grade.

    `client` replaces the client that `judge_model`, `api_base` and the judge options
    (`JudgeClient`'s keywords) would make. `max_context_length` is the judge's window in
    tokens; a response that would not fit loses its middle. `record` is a folder or a
    `JudgeCallWriter`. With `skip_truncated`, responses that ended with ``"length"`` are
    not judged. `schema=False` asks for no structured output, as the paper's runs did.
    """

    judge_type = ""
    response_schema: Mapping[str, Any] | None = None

    def __init__(
        self,
        judge_model: str,
        api_base: str | list[str] | None = None,
        *,
        target: TargetChoice = "auto",
        schema: bool = True,
        prompts: PromptSet | str | Path | None = None,
        max_context_length: int | None = None,
        skip_truncated: bool = False,
        client: JudgeClient | None = None,
        record: JudgeCallWriter | str | os.PathLike[str] | None = None,
        **judge_options: Any,
    ) -> None:
        if client is not None and judge_options:
            raise ValueError(f"client= already decides {', '.join(sorted(judge_options))}")
        self.client = client or JudgeClient(judge_model, api_base, **judge_options)
        self.target: TargetChoice = target
        self.schema = schema
        self.prompts = prompts if isinstance(prompts, PromptSet) else PromptSet.load(prompts)
        self.max_context_length = max_context_length
        self.skip_truncated = skip_truncated
        is_writer = record is None or isinstance(record, JudgeCallWriter)
        self.record = record if is_writer else JudgeCallWriter(record)

    def find(self, prompt: Prompt) -> Target:
        """What a response to `prompt` is judged against. Raises `NoTarget`."""
        return prompt if isinstance(prompt, Target) else find_target(prompt, self.target)

    def messages(self, target: Target, response: str) -> list[dict[str, str]]:
        """What the judge is asked about `response`."""
        raise NotImplementedError

    def grade(self, target: Target, text: str | None) -> FlipResult:
        """The judge's reply as score or problem."""
        raise NotImplementedError

    async def score(
        self, messages_or_prompt: Prompt, response: str | None, *, finish_reason: str | None = None
    ) -> FlipResult:
        """Judge one response to a prompt (text, messages, or a `Target`); does not raise for either.

        `finish_reason` is that of the response. What is judged is what follows its
        last ``</think>``; an unclosed ``<think>`` makes it "truncated".
        """
        try:
            target = self.find(messages_or_prompt)
        except NoTarget as error:
            return self._done(FlipResult(status="no_target", error=str(error)))
        problem, visible = self._visible(response, finish_reason)
        if problem is not None:
            return self._done(replace(problem, target=target.instruction))
        result, messages, reply = await self._judge(target, visible)
        echo = echo_share(target.instruction, visible)
        return self._done(replace(result, target=target.instruction, echo=echo), messages, reply)

    def score_batch(
        self,
        messages_or_prompts: Sequence[Prompt],
        responses: Sequence[str | None],
        finish_reasons: Sequence[str | None] | None = None,
    ) -> list[FlipResult]:
        """Judge many; blocks, keeps the order, works inside a running event loop, too."""
        reasons = finish_reasons if finish_reasons is not None else [None] * len(responses)
        if not len(messages_or_prompts) == len(responses) == len(reasons):
            raise ValueError(f"{len(messages_or_prompts)} prompts, but {len(responses)} responses")

        async def all_of_them() -> list[FlipResult]:
            rows = zip(messages_or_prompts, responses, reasons, strict=True)
            return await asyncio.gather(*(self.score(p, r, finish_reason=f) for p, r, f in rows))

        return run_sync(all_of_them())

    def _visible(self, response: str | None, finish_reason: str | None) -> tuple[FlipResult | None, str]:
        if not isinstance(response, str) or not response.strip():
            return FlipResult(status="empty_response", error="the response is empty"), ""
        if self.skip_truncated and finish_reason == "length":
            return FlipResult(status="truncated", error="the response ended at its length limit"), ""
        visible = after_thinking(response)
        if visible is None:
            return FlipResult(status="truncated", error="the response ends inside its thinking"), ""
        if not visible.strip():
            return FlipResult(status="empty_response", error="nothing follows the thinking"), ""
        return None, visible.strip()

    async def _judge(self, target: Target, visible: str) -> tuple[FlipResult, list[dict[str, str]], JudgeReply | None]:
        room = self._room(target)
        for attempt in range(1 + MOST_HALVINGS):
            shown = shorten(visible, room) if room is not None else visible
            if shown is None:
                limit = f"the judge's window of {self.max_context_length} tokens"
                error = f"prompt and reply leave no room for the response in {limit}"
                return FlipResult(status="context_overflow", error=error), [], None
            messages = self.messages(target, shown)
            schema = self.response_schema if self.schema else None
            reply = await self.client.complete(messages, response_format=schema)
            if reply.error_kind != "context_overflow" or attempt == MOST_HALVINGS:
                break
            # The estimate was too kind to this text; the server counted.
            room = estimate_tokens(shown) // 2
        return self._graded(target, reply), messages, reply

    def _room(self, target: Target) -> int | None:
        """Tokens left for the response in the judge's window; None without a limit."""
        if self.max_context_length is None:
            return None
        fixed = sum(estimate_tokens(turn["content"]) for turn in self.messages(target, ""))
        return self.max_context_length - self.client.max_tokens - TEMPLATE_TOKENS - fixed

    def _graded(self, target: Target, reply: JudgeReply) -> FlipResult:
        if reply.error is not None:
            status: Status = "context_overflow" if reply.error_kind == "context_overflow" else "judge_error"
            result = FlipResult(status=status, error=reply.error)
        elif reply.finish_reason == "length":
            result = FlipResult(status="unparsed", error="the judge's reply was cut off at its token limit")
        else:
            result = self.grade(target, reply.text)
        return replace(result, usage=dict(reply.usage), seconds=reply.seconds)

    def _done(
        self,
        result: FlipResult,
        messages: Sequence[dict[str, str]] = (),
        reply: JudgeReply | None = None,
    ) -> FlipResult:
        if self.record is not None:
            reply = reply or JudgeReply()
            self.record.write(
                {
                    **result.to_dict(),
                    "judge_type": self.judge_type,
                    "model": self.client.model,
                    "api_base": reply.api_base,
                    "messages": list(messages),
                    "sampling": self.client.sampling,
                    "reply": reply.text,
                    "finish_reason": reply.finish_reason,
                    "attempts": reply.attempts,
                    "cached": reply.cached,
                }
            )
        return result


class FlipReward(JudgedReward):
    """The FLIP reward. `similarity` is a name in `metrics.SIMILARITIES` or a function.

    ::

        reward = FlipReward("hosted_vllm/Qwen/Qwen3-4B", api_base="http://127.0.0.1:8000/v1")
        result = await reward.score("Write a haiku about autumn.", response)
    """

    judge_type = "flip"
    # In this order, so that the judge looks at evidence before it names the instruction; the
    # reasoning bounded, so that it cannot eat the budget. The instruction is not: max_tokens ends
    # one that wanders (unparsed), and following a long bound costs as much as the model itself.
    response_schema = json_schema(
        "inferred_instruction",
        {
            "REASONING": {"type": "string", "maxLength": 300},
            "INFERRED INSTRUCTION": {"type": "string"},
        },
    )

    def __init__(
        self,
        judge_model: str,
        api_base: str | list[str] | None = None,
        *,
        similarity: str | Similarity = "f1",
        **options: Any,
    ) -> None:
        super().__init__(judge_model, api_base, **options)
        self.similarity = get_similarity(similarity) if isinstance(similarity, str) else similarity

    def messages(self, target: Target, response: str) -> list[dict[str, str]]:
        return self.prompts.flip_messages(response, render_context(target.context))

    def grade(self, target: Target, text: str | None) -> FlipResult:
        parsed = parse_flip_reply(text)
        if parsed.instruction is None:
            return FlipResult(status="unparsed", reasoning=parsed.reasoning, error=parsed.problem)
        return FlipResult(
            score=float(self.similarity(parsed.instruction, target.instruction)),
            inferred_instruction=parsed.instruction,
            reasoning=parsed.reasoning,
        )


def estimate_tokens(text: str) -> int:
    """Tokens in `text`, on the high side, without a tokenizer: for budgets, not for bills.

    Three ASCII characters a token, but one digit or one other character a token, as
    current vocabularies have them at worst.
    """
    plain = len(text.encode("ascii", "ignore"))
    digits = sum(text.count(digit) for digit in "0123456789")
    return -(-(plain - digits) // 3) + digits + (len(text) - plain)


def shorten(text: str, room: int) -> str | None:
    """`text` in at most `room` estimated tokens, its middle left out and the gap named.

    The ends tell most about an instruction. None when `room` is too small to say anything.
    """
    total = estimate_tokens(text)
    if total <= room:
        return text
    if room < LEAST_RESPONSE_TOKENS:
        return None
    keep = int(len(text) * room / total)
    while keep > 0:
        half = keep // 2
        gap = f"\n[... {len(text) - 2 * half} characters left out ...]\n"
        short = f"{text[:half]}{gap}{text[len(text) - half :]}"
        if estimate_tokens(short) <= room:
            return short
        keep = int(keep * 0.9)
    return None
