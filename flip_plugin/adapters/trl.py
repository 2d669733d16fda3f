"""FLIP as a reward function of TRL's GRPOTrainer (written against TRL 1.16).

    trainer = GRPOTrainer(reward_funcs=flip_reward("hosted_vllm/Qwen/Qwen3-4B", "http://127.0.0.1:8000/v1"), ...)

A missing score is None, which TRL leaves out of the group's mean and deviation and
gives no advantage. See docs/trl.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flip_plugin.adapters.shared import response_text, row_prompt
from flip_plugin.prompts.target import Prompt
from flip_plugin.reward.flip import FlipReward
from flip_plugin.reward.result import FlipResult


def flip_reward(
    judge_model: str,
    api_base: str | list[str] | None = None,
    *,
    name: str = "flip",
    ground_truth_column: str | None = "ground_truth",
    eos_token_ids: int | Iterable[int] | None = None,
    **options: Any,
) -> TRLReward:
    """A reward function for ``reward_funcs=``. `options` are `FlipReward`'s keywords.

    `name` is that of TRL's metrics and columns. A row's instruction is the text in
    `ground_truth_column` where the data has that column, and else the prompt's
    (`find_target`). `eos_token_ids` are the tokens that end a completion
    (``model.generation_config.eos_token_id``): a truncated one has none of them at
    its end, so `skip_truncated` needs them. Raises ValueError without.
    """
    if options.get("skip_truncated") and eos_token_ids is None:
        raise ValueError(
            "skip_truncated needs eos_token_ids (model.generation_config.eos_token_id): "
            "TRL passes a completion's tokens, not why it ended"
        )
    ends = (eos_token_ids,) if isinstance(eos_token_ids, int) else eos_token_ids
    reward = FlipReward(judge_model, api_base, **options)
    return TRLReward(reward, name, ground_truth_column, None if ends is None else frozenset(ends))


class TRLReward:
    """What `flip_reward` returns: an async callable that pickles. `reward` is its `FlipReward`."""

    def __init__(
        self, reward: FlipReward, name: str, ground_truth_column: str | None, eos_token_ids: frozenset[int] | None
    ) -> None:
        self.__name__ = name  # TRL names its metrics by this
        self.reward = reward
        self.ground_truth_column = ground_truth_column
        self.eos_token_ids = eos_token_ids

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Scores in the order of `completions`, None where there is none.

        Prompts and completions are texts or lists of messages; `columns` are the data's,
        one value a completion. `log_extra` and `log_metric` are TRL's, where it has them.
        """
        truths = columns.get(self.ground_truth_column) if self.ground_truth_column else None
        if truths is None:
            truths = [None] * len(prompts)
        ids = completion_ids if completion_ids is not None else [None] * len(prompts)
        rows = zip(prompts, completions, truths, ids, strict=True)
        results = await asyncio.gather(*(self._score(*row) for row in rows))
        self._log(results, log_extra, log_metric)
        return [result.score for result in results]

    async def _score(self, prompt: Any, completion: Any, truth: Any, ids: Sequence[int] | None) -> FlipResult:
        messages = None if isinstance(prompt, str) else prompt
        question: Prompt | None = row_prompt(truth, messages)
        if question is None:
            question = prompt if isinstance(prompt, str) else ""
        return await self.reward.score(question, response_text(completion), finish_reason=self._finish_reason(ids))

    def _finish_reason(self, ids: Sequence[int] | None) -> str | None:
        if self.eos_token_ids is None or ids is None or len(ids) == 0:
            return None
        return "stop" if int(ids[-1]) in self.eos_token_ids else "length"

    def _log(self, results: list[FlipResult], log_extra: Any, log_metric: Any) -> None:
        name = self.__name__
        if log_extra is not None:
            log_extra(f"{name}_inferred_instruction", [r.inferred_instruction or "" for r in results])
            log_extra(f"{name}_status", [r.status for r in results])
            log_extra(f"{name}_echo", [r.echo for r in results])
        if log_metric is not None and results:
            log_metric(f"{name}/invalid_frac", sum(r.score is None for r in results) / len(results))
            echoes = [r.echo for r in results if r.echo is not None]
            if echoes:
                log_metric(f"{name}/echo", sum(echoes) / len(echoes))
