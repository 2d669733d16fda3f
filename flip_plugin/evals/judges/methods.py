"""The four methods with one face: ``await make_method(name, client).judge(item)`` gives a `Judgement`.

flip and pointwise score each response alone; listwise sees all of them at once, pairwise every two in both orders,
or, as a knockout, those that meet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flip_plugin.evals.records.items import METHODS, EvalItem, Judgement
from flip_plugin.reward.base import JudgedReward
from flip_plugin.reward.flip import FlipReward
from flip_plugin.reward.listwise import ListwiseJudge
from flip_plugin.reward.pairwise import PairwiseJudge
from flip_plugin.reward.pointwise import PointwiseJudge
from flip_plugin.reward.ranking import RankingJudge, RankResult, summed
from flip_plugin.reward.result import FlipResult

# A prompt's target stands in every item; what else of a result an analysis may want, by response.
DETAILS = ("inferred_instruction", "target", "echo", "similarity", "error")


class MethodJudge(Protocol):
    """One method with one judge and one seed. `judge` does not raise for what items or judges hold."""

    async def judge(self, item: EvalItem) -> Judgement:
        """What this judge says of `item`."""
        ...


def make_method(
    name: str,
    client: Any,
    *,
    judge: str = "",
    seed: int = 0,
    prompts: Any = None,
    schema: bool = True,
    similarity: Any = "f1",
    echo: Any = "report",
    target: Any = "auto",
    max_context_length: int | None = None,
    pairwise: str = "full",
    record: Any = None,
) -> MethodJudge:
    """Method `name` over `client` (`JudgeClient` or its like); `judge` and `seed` go into the judgements.

    `similarity`, `echo` and `target` are FLIP's. The listwise judge's order of showing is shuffled by `seed`.
    `pairwise` is ``full`` or ``knockout``. Raises ValueError for an unknown name.
    """
    model = str(getattr(client, "model", ""))
    shared: dict[str, Any] = {
        "client": client,
        "prompts": prompts,
        "schema": schema,
        "max_context_length": max_context_length,
        "record": record,
    }
    if name == "flip":
        flip = FlipReward(model, similarity=similarity, echo=echo, target=target, **shared)
        return _OneByOne(name, judge, seed, flip)
    if name == "pointwise":
        return _OneByOne(name, judge, seed, PointwiseJudge(model, **shared))
    if name == "listwise":
        return _Together(name, judge, seed, ListwiseJudge(model, shuffle=seed, **shared))
    if name == "pairwise" and pairwise == "knockout":
        from flip_plugin.evals.judges.knockout import KnockoutJudge

        return _Together(name, judge, seed, KnockoutJudge(model, coin=seed, **shared))
    if name == "pairwise":
        return _Together(name, judge, seed, PairwiseJudge(model, **shared))
    raise ValueError(f"unknown method {name!r}: it must be {', '.join(METHODS)}")


@dataclass(frozen=True)
class _OneByOne:
    method: str
    judge_name: str
    seed: int
    reward: JudgedReward

    async def judge(self, item: EvalItem) -> Judgement:
        started = time.monotonic()
        reasons = _finish_reasons(item)
        results = await asyncio.gather(
            *(
                self.reward.score(item.prompt, response, finish_reason=reason)
                for response, reason in zip(item.responses, reasons, strict=True)
            )
        )
        return Judgement(
            id=item.id,
            judge=self.judge_name,
            method=self.method,
            seed=self.seed,
            scores=[result.score for result in results],
            statuses=[result.status for result in results],
            details=[_detail(result) for result in results],
            usage=summed(result.usage for result in results),
            seconds=time.monotonic() - started,
            error=next((result.error for result in results if result.status != "ok"), None),
        )


@dataclass(frozen=True)
class _Together:
    method: str
    judge_name: str
    seed: int
    reward: RankingJudge

    async def judge(self, item: EvalItem) -> Judgement:
        result = await self.reward.rank(item.prompt, item.responses, finish_reasons=_finish_reasons(item))
        return Judgement(
            id=item.id,
            judge=self.judge_name,
            method=self.method,
            seed=self.seed,
            scores=result.scores,
            # Nothing could be asked: what kept it from being asked stands for the question.
            statuses=result.statuses or [result.status],
            details=[],
            extra=_extra(result),
            usage=result.usage,
            seconds=result.seconds,
            error=result.error,
        )


def _detail(result: FlipResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in DETAILS if getattr(result, name) is not None}


def _extra(result: RankResult) -> dict[str, Any]:
    """What is known of the item as a whole; `best` where it does not follow from the scores."""
    known = {
        "order": result.order or None,
        "comparisons": [[one.first, one.second, one.winner] for one in result.comparisons] or None,
        "position_consistency": result.position_consistency,
        "first_wins": result.first_wins,
        "circles": result.intransitive,
        "response_statuses": result.response_statuses if any(s != "ok" for s in result.response_statuses) else None,
        "best": result.best if result.best and all(score is None for score in result.scores) else None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _finish_reasons(item: EvalItem) -> Sequence[str | None]:
    """``meta["finish_reasons"]``, one a response, where the data has them."""
    return item.meta.get("finish_reasons") or [None] * len(item.responses)
