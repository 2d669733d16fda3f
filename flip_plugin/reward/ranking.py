"""Several responses to one prompt, compared: `RankResult`, the arithmetic of comparisons, and `RankingJudge`.

Every method that can tell which of N responses is best gives a `RankResult`, so that an evaluation can put them side
by side: `ListwiseJudge.rank`, `PairwiseJudge.rank`, and `rank_by_scores` for FLIP and the pointwise judge. What could
not be judged is missing, never the lowest score.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from flip_plugin.judge.event_loop import in_worker, on_judge_loop, run_sync
from flip_plugin.prompts.target import NoTarget, Prompt, Target, whole_prompt
from flip_plugin.prompts.templates import PromptError
from flip_plugin.replies.parsing import ParsedChoice
from flip_plugin.reward.base import LONG_RESPONSE, MOST_HALVINGS, Exchange, JudgedReward, problem_of, too_long
from flip_plugin.reward.result import FlipResult, Status
from flip_plugin.text.shorten import TEMPLATE_TOKENS, estimate_tokens, shorten


@dataclass(frozen=True)
class Comparison:
    """One question to a pairwise judge. All three are indices of responses; `first` was shown first.

    `winner` is `first` or `second`, and None unless `status` is "ok".
    """

    first: int
    second: int
    winner: int | None = None
    status: Status = "ok"


@dataclass(frozen=True)
class RankResult:
    """N responses compared. Indices are those of the responses as they were given.

    `scores` (N of them, 0..1) is None where nothing could be judged, `best` holds the
    indices that share the highest score. `status` is "ok" when `best` can be used;
    else `best` is empty. `error` is the first thing that went wrong, also where the rest was
    enough. `response_statuses` (N) says of each
    response whether it could be shown to a judge. `statuses` is that of each question
    put to the judge: 1 listwise, up to N (N - 1) pairwise, N by scores.

    One response that can be shown is the best without a question and without a score.

    Listwise: `order` is how the responses were shown, `reasoning` the judge's own (its
    numbers are places in `order`). Pairwise: `comparisons`; `position_consistency`, the
    share of pairs, judged in both orders, whose two judgements agree; `first_wins`, the
    share of judgements in favour of the response shown first (0.5 is fair, when nothing is missing);
    `intransitive`, the number of circles a > b > c > a among pairs with a winner.

    `usage` is in tokens, summed; `seconds` is wall time.
    """

    scores: list[float | None]
    best: list[int] = field(default_factory=list)
    status: Status = "ok"
    response_statuses: list[Status] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    reasoning: str | None = None
    order: list[int] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    position_consistency: float | None = None
    first_wins: float | None = None
    intransitive: int | None = None
    usage: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    @property
    def missing(self) -> int:
        """Questions that got no usable answer."""
        return sum(status != "ok" for status in self.statuses)

    def to_dict(self) -> dict[str, Any]:
        """The fields and `missing` as JSON-ready values."""
        return {**asdict(self), "missing": self.missing}


async def rank_by_scores(
    reward: JudgedReward,
    prompt: Prompt,
    responses: Sequence[str | None],
    *,
    finish_reasons: Sequence[str | None] | None = None,
) -> RankResult:
    """`responses` in the order of the scores that `reward` gives each of them alone.

    Raises ValueError when there are none, or not as many finish reasons.
    """
    reasons = checked_reasons(responses, finish_reasons)
    started = time.monotonic()
    results = await asyncio.gather(
        *(reward.score(prompt, one, finish_reason=why) for one, why in zip(responses, reasons, strict=True))
    )
    scores = [result.score for result in results]
    statuses: list[Status] = [result.status for result in results]
    best = best_of(scores)
    failed = next((result for result in results if result.status != "ok"), None)
    return RankResult(
        scores=scores,
        best=best,
        status=failed.status if failed and not best else "ok",
        response_statuses=statuses,
        statuses=statuses,
        usage=summed(result.usage for result in results),
        seconds=time.monotonic() - started,
        error=failed.error if failed and not best else None,
    )


def checked_reasons(
    responses: Sequence[str | None], finish_reasons: Sequence[str | None] | None
) -> Sequence[str | None]:
    """One finish reason for each response. Raises ValueError when there are no responses, or other numbers of them."""
    if isinstance(responses, str) or not responses:
        raise ValueError(f"ranking takes a list of at least one response, not {str(responses)[:40]!r}")
    reasons = [None] * len(responses) if finish_reasons is None else finish_reasons
    if len(reasons) != len(responses):
        raise ValueError(f"{len(responses)} responses, but {len(reasons)} finish reasons")
    return reasons


def best_of(scores: Sequence[float | None]) -> list[int]:
    """The indices that share the highest score; none without any score.

    >>> best_of([0.5, None, 0.75, 0.75])
    [2, 3]
    """
    top = max((score for score in scores if score is not None), default=None)
    return [index for index, score in enumerate(scores) if score is not None and score == top]


def summed(usages: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Tokens by kind, over several calls."""
    total: Counter[str] = Counter()
    for usage in usages:
        total.update(usage)
    return dict(total)


def win_shares(n: int, comparisons: Sequence[Comparison]) -> list[float | None]:
    """Of each of `n` responses, the share of its judged comparisons that it won; None without any.

    >>> win_shares(3, [Comparison(0, 1, 0), Comparison(1, 0, 1), Comparison(0, 2, 0), Comparison(2, 1)])
    [0.6666666666666666, 0.5, 0.0]
    """
    judged = [one for one in comparisons if one.winner is not None]
    wins = Counter(one.winner for one in judged)
    played = Counter(index for one in judged for index in (one.first, one.second))
    return [wins[index] / played[index] if played[index] else None for index in range(n)]


def position_consistency(comparisons: Sequence[Comparison]) -> float | None:
    """The share of pairs, judged in both orders, with the same winner in both; None without any.

    >>> position_consistency([Comparison(0, 1, 0), Comparison(1, 0, 1), Comparison(0, 2, 0), Comparison(2, 0, 0)])
    0.5
    """
    by_order = {(one.first, one.second): one.winner for one in comparisons if one.winner is not None}
    both = [(winner, by_order[b, a]) for (a, b), winner in by_order.items() if a < b and (b, a) in by_order]
    return sum(one == other for one, other in both) / len(both) if both else None


def first_wins(comparisons: Sequence[Comparison]) -> float | None:
    """The share of judgements in favour of the response that was shown first; None without any."""
    judged = [one for one in comparisons if one.winner is not None]
    return sum(one.winner == one.first for one in judged) / len(judged) if judged else None


def count_circles(n: int, comparisons: Sequence[Comparison]) -> int:
    """Triples a > b > c > a, where a > b means that a won more of their comparisons than b.

    >>> count_circles(3, [Comparison(0, 1, 0), Comparison(1, 2, 1), Comparison(2, 0, 2)])
    1
    """
    more_wins: Counter[tuple[int, int]] = Counter()  # (a, b) -> a's wins over b less b's over a
    for one in comparisons:
        if one.winner is not None:
            loser = one.first + one.second - one.winner
            more_wins[one.winner, loser] += 1
            more_wins[loser, one.winner] -= 1
    edges = [pair for pair, wins in more_wins.items() if wins > 0]
    beats, beaten_by = [0] * n, [0] * n  # bit k of beats[a]: a > k
    for a, b in edges:
        beats[a] |= 1 << b
        beaten_by[b] |= 1 << a
    return sum((beats[b] & beaten_by[a]).bit_count() for a, b in edges) // 3


# The tags around responses, opening or closing: in a response they are escaped, or it could pose as another.
_RESPONSE_TAG = re.compile(r"<(\s*+(?:/\s*+)?response_\w{1,8}\s*+>)", re.IGNORECASE)


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
