"""What every judge of single responses shares: find the target, look at the response, ask, grade, record.

A subclass says what to ask (`JudgedReward.messages`) and how to grade the reply (`JudgedReward.grade`). The steps
stand in `JudgedReward._score`; each that fails ends in a result without a score. Nothing that a prompt, a response
or a judge may hold raises here: it becomes a status.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from flip_plugin.judge.call_log import JudgeCallWriter
from flip_plugin.judge.client import JudgeClient
from flip_plugin.judge.event_loop import in_worker, on_judge_loop, run_sync
from flip_plugin.judge.reply import JudgeReply
from flip_plugin.prompts.target import NoTarget, Prompt, Target, TargetChoice, find_target
from flip_plugin.prompts.templates import PromptSet
from flip_plugin.reward.result import FlipResult, Status
from flip_plugin.text.echo import echo_share
from flip_plugin.text.reasoning import after_thinking, without_answer_frame
from flip_plugin.text.shorten import TEMPLATE_TOKENS, CannotCount, estimate_tokens, shorten, shorten_counted

# Halvings of the response after the server itself said that the request is too long, and not how long it may be.
MOST_HALVINGS = 6
# Characters; the words of a longer response are counted in a thread, off the judge's loop.
LONG_RESPONSE = 20_000

# As the published GRPO script sets them (yikee/FLIP at 1f1c235, scripts/train/grpo_flip.sh); what it leaves
# to defaults is temperature 1.0, no structured output, and nothing said about thinking.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "schema": False,
        "max_context_length": 25_000,
        "temperature": 1.0,
        "max_tokens": 2048,
        "timeout": 3600.0,
        "seed": 1,
        "thinking": True,
    }
}


#: A judge's reasoning in structured output: at most so many characters.
REASONING = {"type": "string", "maxLength": 300}


def json_schema(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's ``response_format`` for an object of exactly `properties`, in their order."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


@dataclass(frozen=True)
class Exchange:
    """One question and its answer. `messages` is empty where the question was not sent.

    `problem` is a result without a score where the reply cannot be graded, else None.
    """

    messages: list[dict[str, str]] = field(default_factory=list)
    reply: JudgeReply = field(default_factory=JudgeReply)
    problem: FlipResult | None = None

    @property
    def is_too_long(self) -> bool:
        """The judge's server has refused the question for its length."""
        return self.reply.error_kind == "context_overflow"


class JudgedReward:
    """A judge that is asked one question about each response. These are the options of every judge.

    `client` replaces the client that `judge_model`, `api_base` and the judge options
    (`JudgeClient`'s keywords) would make. `max_context_length` is the judge's window in
    tokens; a response that would not fit loses its middle. `record` is a folder or a
    `JudgeCallWriter`. With `skip_truncated`, responses that ended with ``"length"`` are
    not judged. `schema=False` asks for no structured output, as the paper's runs did.
    `preset` names a set of `PRESETS`, whose values options given here override.
    """

    judge_type = ""
    response_schema: Mapping[str, Any] | None = None
    echo_policy = "report"

    def __init__(
        self,
        judge_model: str,
        api_base: str | list[str] | None = None,
        *,
        preset: str | None = None,
        target: TargetChoice = "auto",
        schema: bool | None = None,
        prompts: PromptSet | str | Path | None = None,
        max_context_length: int | None = None,
        skip_truncated: bool = False,
        client: JudgeClient | None = None,
        record: JudgeCallWriter | str | os.PathLike[str] | None = None,
        **judge_options: Any,
    ) -> None:
        if target not in get_args(TargetChoice):
            raise ValueError(f"unknown target {target!r}: it must be {', '.join(get_args(TargetChoice))}")
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}: known is {', '.join(PRESETS)}")
        settings = dict(PRESETS[preset]) if preset else {}
        set_schema, set_window = settings.pop("schema", True), settings.pop("max_context_length", None)
        judge_options = {**settings, **judge_options}
        if client is not None and judge_options:
            raise ValueError(f"client= already decides {', '.join(sorted(judge_options))}")
        self.client = client or JudgeClient(judge_model, api_base, **judge_options)
        self.target: TargetChoice = target
        self.schema: bool = set_schema if schema is None else schema
        self.prompts = prompts if isinstance(prompts, PromptSet) else PromptSet.load(prompts)
        self.max_context_length = set_window if max_context_length is None else max_context_length
        self.skip_truncated = skip_truncated
        is_writer = record is None or isinstance(record, JudgeCallWriter)
        self.record = record if is_writer else JudgeCallWriter(record)
        if self.record is not None:
            self.record.check()

    def find(self, prompt: Prompt) -> Target:
        """What a response to `prompt` is judged against. Raises `NoTarget`."""
        if not isinstance(prompt, Target):
            return find_target(prompt, self.target)
        if not prompt.instruction.strip():
            raise NoTarget("the Target's instruction is empty")
        return prompt

    def messages(self, target: Target, response: str) -> list[dict[str, str]]:
        """What the judge is asked about `response`."""
        raise NotImplementedError

    def grade(self, target: Target, text: str | None) -> FlipResult:
        """The judge's reply as score or problem."""
        raise NotImplementedError

    def adjusted(self, target: Target, result: FlipResult) -> FlipResult:
        """`result` after what its `echo` costs."""
        return result

    def shown(self, target: Target, response: str) -> str:
        """What of `response` the judge may see; "" when nothing is left to judge."""
        return response

    def nothing_shown(self) -> FlipResult:
        """The result where `shown` left nothing."""
        return FlipResult(status="empty_response", error="nothing of the response is left to judge")

    def is_slow(self, response: str) -> bool:
        """True when counting and grading words would hold up the judge's loop, and so other calls."""
        return len(response) > LONG_RESPONSE

    async def score(
        self, messages_or_prompt: Prompt, response: str | None, *, finish_reason: str | None = None
    ) -> FlipResult:
        """Judge one response to a prompt (text, messages, or a `Target`); does not raise for either.

        `finish_reason` is that of the response. What is judged is what follows its
        last ``</think>``; an unclosed ``<think>`` makes it "truncated".
        """
        # All of it on the judge's loop: counting words takes time that the caller's may not have.
        return await on_judge_loop(self._score(messages_or_prompt, response, finish_reason))

    async def _score(self, prompt: Prompt, response: str | None, finish_reason: str | None) -> FlipResult:
        try:
            target = self.find(prompt)
        except NoTarget as error:
            return self._done(FlipResult(status="no_target", error=str(error)))
        problem, visible = self._visible(response, finish_reason)
        if problem is not None:
            return self._done(replace(problem, target=target.instruction))
        slow = self.is_slow(visible)

        def look() -> tuple[float, str]:
            return echo_share(target.instruction, visible), self.shown(target, visible)

        echo, shown = await in_worker(look) if slow else look()
        if not shown.strip():
            return self._done(replace(self.nothing_shown(), target=target.instruction, echo=echo))
        exchange = await self._ask(target, shown)
        reply, result = exchange.reply, exchange.problem
        if result is None:
            result = await in_worker(self.grade, target, reply.text) if slow else self.grade(target, reply.text)
        result = replace(result, target=target.instruction, echo=echo, usage=dict(reply.usage), seconds=reply.seconds)
        return self._done(self.adjusted(target, result), exchange)

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
        """(None, what follows the thinking of `response`), or (why there is nothing to judge, "")."""
        if not isinstance(response, str) or not response.strip():
            return FlipResult(status="empty_response", error="the response is empty"), ""
        if self.skip_truncated and finish_reason == "length":
            return FlipResult(status="truncated", error="the response ended at its length limit"), ""
        visible = after_thinking(response)
        if visible is None:
            return FlipResult(status="truncated", error="the response ends inside its thinking"), ""
        visible = without_answer_frame(visible.strip())
        if not visible:
            return FlipResult(status="empty_response", error="nothing follows the thinking"), ""
        return None, visible

    async def _ask(self, target: Target, response: str) -> Exchange:
        """Ask about as much of `response` as the judge's window has room for."""
        shown = await self._fit(target, response)
        if shown is None:
            limit = f"the judge's window of {self.max_context_length} tokens"
            return too_long(f"prompt and reply leave no room for the response in {limit}")
        exchange = await self._send(target, shown)
        return await self._ask_with_less(target, shown, exchange) if exchange.is_too_long else exchange

    async def _ask_with_less(self, target: Target, shown: str, refused: Exchange) -> Exchange:
        """Ask again about less than `shown`, which the server has `refused`.

        No window was given, or too large a one. The server knows its own; if it does not say, half of the response is
        shown, and half of that.
        """
        exchange = refused
        less = await self._fit_to_server(target, shown) or _half(shown)
        for _ in range(1 + MOST_HALVINGS):
            if less is None:
                break
            exchange = await self._send(target, less)
            if not exchange.is_too_long:
                break
            less = _half(less)
        return exchange

    async def _send(self, target: Target, shown: str) -> Exchange:
        messages = self.messages(target, shown)
        schema = self.response_schema if self.schema else None
        reply = await self.client.complete(messages, response_format=schema)
        return Exchange(messages, reply, problem_of(reply))

    async def _fit(self, target: Target, response: str) -> str | None:
        """As much of the response as the window that was given has room for; None when that is next to nothing."""
        if self.max_context_length is None:
            return response
        limit = self.max_context_length - self.client.max_tokens
        fixed = sum(estimate_tokens(turn["content"]) for turn in self.messages(target, ""))
        room = limit - TEMPLATE_TOKENS - fixed
        if estimate_tokens(response) <= room:
            return response
        try:
            return await shorten_counted(response, limit, lambda text: self._count(target, text))
        except CannotCount:
            return shorten(response, room)

    async def _fit_to_server(self, target: Target, shown: str) -> str | None:
        """As much of the response as the server's own window has room for; None when it does not say."""
        window = await self.client.window(self.messages(target, ""))
        if window is None:
            return None
        limit = window - self.client.max_tokens
        try:
            return await shorten_counted(shown, limit, lambda text: self._count(target, text))
        except CannotCount:
            return None

    async def _count(self, target: Target, shown: str) -> int | None:
        """Tokens of the whole question about `shown`, by the server; None where it does not count."""
        return await self.client.count_tokens(self.messages(target, shown))

    def _done(self, result: FlipResult, exchange: Exchange | None = None) -> FlipResult:
        """`result`, written to the records, where there are any, with what was asked for it."""
        if self.record is not None:
            exchange = exchange or Exchange()
            reply = exchange.reply
            self.record.write(
                {
                    **result.to_dict(),
                    "judge_type": self.judge_type,
                    "model": self.client.model,
                    "api_base": reply.api_base,
                    "messages": exchange.messages,
                    "sampling": self.client.sampling,
                    "reply": reply.text,
                    "finish_reason": reply.finish_reason,
                    "attempts": reply.attempts,
                    "cached": reply.cached,
                    "echo_policy": self.echo_policy,
                }
            )
        return result


def problem_of(reply: JudgeReply) -> FlipResult | None:
    """Why `reply` cannot be graded, as a result without a score; None when it can."""
    if reply.error is not None:
        status: Status = "context_overflow" if reply.error_kind == "context_overflow" else "judge_error"
        return FlipResult(status=status, error=reply.error)
    if reply.finish_reason == "length":
        return FlipResult(status="unparsed", error="the judge's reply was cut off at its token limit")
    return None


def too_long(error: str) -> Exchange:
    """A question that was not sent, because it would not fit."""
    return Exchange(problem=FlipResult(status="context_overflow", error=error))


def _half(text: str) -> str | None:
    """The ends of `text`, half of its tokens; None when that would say too little."""
    return shorten(text, estimate_tokens(text) // 2)
