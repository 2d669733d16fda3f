"""The judges that FLIP is compared with, by the same model, over the same client and with the same statuses.

`PointwiseJudge` reads the instruction and one response and rates it from 1 to 10.
`ListwiseJudge` reads all responses to an instruction and names the best one, in one
call. `PairwiseJudge` compares every two of them in both orders, in N (N - 1) calls.
What could not be judged is missing, never the lowest score.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flip_plugin.judge.event_loop import in_worker, on_judge_loop, run_sync
from flip_plugin.prompts.target import NoTarget, Target, normalize_messages, render_context
from flip_plugin.prompts.templates import PromptError
from flip_plugin.replies.parsing import ParsedChoice, parse_best_index, parse_better, parse_score_reply
from flip_plugin.reward.base import (
    LONG_RESPONSE,
    MOST_HALVINGS,
    Exchange,
    JudgedReward,
    Prompt,
    json_schema,
    problem_of,
    too_long,
)
from flip_plugin.reward.ranking import (
    Comparison,
    RankResult,
    best_of,
    checked_reasons,
    count_circles,
    first_wins,
    position_consistency,
    summed,
    win_shares,
)
from flip_plugin.reward.result import FlipResult, Status
from flip_plugin.text.shorten import TEMPLATE_TOKENS, estimate_tokens, shorten

REASONING = {"type": "string", "maxLength": 300}

# The tags around responses, opening or closing: in a response they are escaped, or it could pose as another.
_RESPONSE_TAG = re.compile(r"<(\s*+(?:/\s*+)?response_\w{1,8}\s*+>)", re.IGNORECASE)


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


class RankingJudge(JudgedReward):
    """What judges of several responses share. They have `rank` and `rank_batch` instead of `score`.

    Options as for `PointwiseJudge`. A response that is empty, or was cut off inside its
    thinking (or at its limit, with `skip_truncated`), is not shown; the others are ranked.
    Where `max_context_length` is too small for all of them (the server counts, if it can),
    the longest lose their middles first, by an estimate of their tokens; the instruction
    loses nothing.
    Raises `PromptError` for a folder whose templates cannot ask the question.
    """

    template = ""

    def __init__(self, judge_model: str, api_base: str | list[str] | None = None, **options: Any) -> None:
        super().__init__(judge_model, api_base, **options)
        probes = ["probe-0", "probe-1", "probe-2"]
        question = "".join(turn["content"] for turn in self._filled(Target(probes[0]), probes[1:]))
        if not all(probe in question for probe in probes):
            raise PromptError(f"{self.template}_USER.prompt in {self.prompts.folder!r} does not show all it must")

    async def rank(
        self,
        prompt: Prompt,
        responses: Sequence[str | None],
        *,
        finish_reasons: Sequence[str | None] | None = None,
    ) -> RankResult:
        """Compare `responses` to one prompt; see `RankResult`. Does not raise for what either holds.

        Raises ValueError when there are no responses, or not as many finish reasons.
        """
        reasons = checked_reasons(responses, finish_reasons)
        return await on_judge_loop(self._rank(prompt, responses, reasons))

    async def _rank(self, prompt: Prompt, responses: Sequence[str | None], reasons: Sequence[str | None]) -> RankResult:
        started = time.monotonic()
        looks = [self._visible(one, why) for one, why in zip(responses, reasons, strict=True)]
        statuses: list[Status] = ["ok" if problem is None else problem.status for problem, _ in looks]
        shown = {index: text for index, (problem, text) in enumerate(looks) if problem is None}
        no_scores: list[float | None] = [None] * len(responses)
        try:
            target = whole_prompt(prompt)
        except NoTarget as error:
            return RankResult(no_scores, status="no_target", response_statuses=statuses, error=str(error))
        if not shown:
            return RankResult(no_scores, status=statuses[0], response_statuses=statuses, error="no response to judge")
        if len(shown) == 1:
            error = "a single response: not judged"
            return RankResult(no_scores, list(shown), response_statuses=statuses, error=error)
        result = await self._compare(target, shown, len(responses))
        return replace(result, response_statuses=statuses, seconds=time.monotonic() - started)

    def rank_batch(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Sequence[str | None]],
        finish_reasons: Sequence[Sequence[str | None]] | None = None,
    ) -> list[RankResult]:
        """Rank the responses to each of many prompts; blocks, keeps the order, works inside a running loop, too."""
        reasons = finish_reasons if finish_reasons is not None else [None] * len(responses)
        if not len(prompts) == len(responses) == len(reasons):
            raise ValueError(f"{len(prompts)} prompts, but {len(responses)} lists of responses")

        async def all_of_them() -> list[RankResult]:
            # Rankings, not calls: the client bounds those. It bounds how many prompts lie ready in memory.
            slots = asyncio.Semaphore(self.client.max_concurrency)

            async def one(row: tuple[Any, Any, Any]) -> RankResult:
                async with slots:
                    return await self.rank(row[0], row[1], finish_reasons=row[2])

            return await asyncio.gather(*map(one, zip(prompts, responses, reasons, strict=True)))

        return run_sync(all_of_them())

    async def score(
        self, messages_or_prompt: Prompt, response: str | None, *, finish_reason: str | None = None
    ) -> FlipResult:
        """Raises TypeError: there is nothing to compare a single response with."""
        raise TypeError(f"a {self.judge_type} judge compares responses: call rank(prompt, responses)")

    async def _compare(self, target: Target, shown: dict[int, str], n: int) -> RankResult:
        """`shown`: the responses, at least two, by index; `n`: how many were given."""
        raise NotImplementedError

    def _filled(self, target: Target, texts: Sequence[str]) -> list[dict[str, str]]:
        """The messages about `texts`, in which nothing can pose as the prompt's own structure (`PromptSet.escape`)."""
        raise NotImplementedError

    def _fill(self, target: Target, **values: str) -> list[dict[str, str]]:
        system = self.prompts.fill(f"{self.template}_SYSTEM")
        user = self.prompts.fill(f"{self.template}_USER", instruction=target.instruction, **values)
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]

    async def _compare_texts(self, target: Target, texts: Sequence[str], schema: dict[str, Any]) -> Exchange:
        """Ask about `texts`, as short as the judge's window makes them."""
        room = await self._room(target, texts)
        exchange = None
        for _ in range(1 + MOST_HALVINGS):
            # Fitting and filling go over every character: off the loop when there are many.
            slow = sum(map(len, texts)) > LONG_RESPONSE
            fit = self._fit_and_fill
            question = await in_worker(fit, target, texts, room) if slow else fit(target, texts, room)
            if question is None:
                break
            fitted, messages = question
            reply = await self.client.complete(messages, response_format=schema if self.schema else None)
            exchange = Exchange(messages, reply, problem_of(reply))
            if not exchange.is_too_long:
                break
            # No window was given, or it was too large: the server knows its own.
            room = sum(estimate_tokens(text) for text in fitted) // 2
        limit = f"the judge's window of {self.max_context_length} tokens"
        return exchange or too_long(f"prompt and reply leave no room for {len(texts)} responses in {limit}")

    def _fit_and_fill(
        self, target: Target, texts: Sequence[str], room: int | None
    ) -> tuple[Sequence[str], list[dict[str, str]]] | None:
        """`texts` as short as they must be, and the messages with them; None when they would say too little."""
        fitted = texts if room is None else shared_room(texts, room)
        if fitted is None:
            return None
        return fitted, self._filled(target, [_RESPONSE_TAG.sub(r"<\\\1", text) for text in fitted])

    async def _room(self, target: Target, texts: Sequence[str]) -> int | None:
        """Tokens left for `texts` in the judge's window; None where there is no limit, or all of them fit."""
        if self.max_context_length is None:
            return None
        limit = self.max_context_length - self.client.max_tokens
        fixed = sum(estimate_tokens(turn["content"]) for turn in self._filled(target, [""] * len(texts)))
        room = limit - TEMPLATE_TOKENS - fixed
        if sum(map(estimate_tokens, texts)) <= room:
            return None
        # The estimate is on the high side: cut nothing that would have fitted.
        counted = await self.client.count_tokens(self._filled(target, texts))
        return None if counted is not None and counted <= limit else room

    def _result(
        self, target: Target, exchange: Exchange, choice: ParsedChoice, score: float | None = None
    ) -> FlipResult:
        """What one question came to, recorded. The record's score is that of the response shown first, if any."""
        reply, problem = exchange.reply, exchange.problem
        if problem is None and choice.index is None:
            problem = FlipResult(status="unparsed", error=choice.problem)
        result = replace(
            problem or FlipResult(score=score),
            target=target.instruction,
            reasoning=choice.reasoning,
            usage=dict(reply.usage),
            seconds=reply.seconds,
        )
        return self._done(result, exchange) if exchange.messages else result  # what was not sent is no call


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


def shared_room(texts: Sequence[str], room: int) -> list[str] | None:
    """`texts` in at most `room` estimated tokens together: short ones whole, the longest cut to one length.

    None when some text would be left with too little to be worth a judgement.
    """
    left, fitted = room, list(texts)
    ranked = sorted(range(len(texts)), key=lambda index: estimate_tokens(texts[index]))
    for done, index in enumerate(ranked):
        short = shorten(texts[index], left // (len(texts) - done))
        if short is None:
            return None
        fitted[index] = short
        left -= estimate_tokens(short)
    return fitted


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
