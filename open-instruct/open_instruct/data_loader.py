"""The data side of a run: prompts in flight, scored groups, and a packed batch for each learner.

One Ray actor (`DataPreparationActor`) keeps the engines busy, awaits the verifiers and hands out steps.
Step s may be generated once the engines hold weights of version s - async_steps, a version being the
number of updates made; so a batch is never more than `async_steps` updates old when it is started.
Batches are made in data order: which prompts step s holds depends on the seed and s alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import numpy as np

from open_instruct.config import Args
from open_instruct.data_types import Group, SamplingConfig, StepData
from open_instruct.engine_pool import EngineKeeper, EnginePool, EngineSet
from open_instruct.judge_counters import JudgeCounters
from open_instruct.rewards import JudgeFailure, RowScorer, check_invalid_share
from open_instruct.rl_utils import TrainingSample, pack_mini_batches
from open_instruct.rollout_metrics import group_metrics
from open_instruct.rollouts import RolloutWriter
from open_instruct.stage_times import StageClock


class PromptOrder:
    """The endless sequence of prompts: each epoch a new permutation, a function of the seed alone."""

    def __init__(self, num_rows: int, seed: int) -> None:
        self._num_rows, self._seed = num_rows, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> int:
        """Row number of the prompt at `position`, counted from 0 over all epochs."""
        epoch, offset = divmod(position, self._num_rows)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._num_rows)
        return int(self._order[offset])


class DataPreparationActor(EngineKeeper):
    """Rows in, `StepData` out. All methods are coroutines on one loop, beside the judge's client."""

    def __init__(
        self,
        args: Args,
        engines: EngineSet,
        rows: list[dict[str, Any]],
        eval_rows: list[dict[str, Any]],
        scorer: RowScorer,
        pad_token_id: int,
        resume_step: int | None = None,
    ) -> None:
        self.args, self.rows, self.eval_rows = args, rows, eval_rows
        self.engines = EnginePool(engines)
        self.scorer, self.pad_token_id = scorer, pad_token_id
        self.order = PromptOrder(len(rows), args.seed)
        self.writer = RolloutWriter(rollouts_folder(args), token_ids=args.save_token_ids) if args.save_traces else None
        self.replay = RolloutReplay(args, rows) if args.replay_rollouts else None
        self._steps: dict[int, list[asyncio.Task[Group]]] = {}
        self._next_step: int | None = None
        self.clock = StageClock()
        self.judge_counters = JudgeCounters(getattr(scorer, "verifiers", list)())

    async def ready(self) -> bool:
        """Load what the scorer needs, so that the first step does not wait for it."""
        self.scorer.warm_up()
        return True

    async def use_judge(self, urls: list[str], keys: dict[str, str]) -> None:
        """Where the run's own judge servers are, if it has any, and API keys; to be called before the first step."""
        os.environ |= keys  # read when the judge's client is made, as the next
        if urls:
            os.environ["HOSTED_VLLM_API_BASE"] = ",".join(urls)

    async def weights_synced(self, version: int) -> None:
        """The engines hold weights of this version: start what may now be generated."""
        if self._next_step is None:
            self._next_step = version
        last = min(version + self.args.async_steps, self.args.num_training_steps - 1)
        while self._next_step <= last:
            self._steps[self._next_step] = self._start_step(self._next_step)
            self._next_step += 1

    def _start_step(self, step: int) -> list[asyncio.Task[Group]]:
        args, prompts = self.args, self.args.num_unique_prompts_rollout
        sampling = SamplingConfig(
            args.num_samples_per_prompt_rollout,
            args.temperature,
            args.vllm_top_p,
            args.response_length,
            tuple(args.stop_strings),
        )
        rows = [self.rows[self.order[step * prompts + i]] for i in range(prompts)]
        return [asyncio.create_task(self._rollout(row, sampling)) for row in rows]

    async def _rollout(self, row: dict[str, Any], sampling: SamplingConfig, *, training: bool = True) -> Group:
        start = time.perf_counter()
        with self.clock.generating(counts=training):
            samples = await self._generate(row["input_ids_prompt"], sampling)
        generated = time.perf_counter()
        scored = await self.scorer.score(row, samples)
        return Group(row, scored, generated - start, time.perf_counter() - generated, start)

    async def _generate(self, prompt_ids: list[int], sampling: SamplingConfig) -> Any:
        return await self.engines.generate(prompt_ids, sampling)

    async def get_step(self, step: int) -> StepData:
        """Wait for a step's groups; advantages, packing, rollouts on disk.

        Raises `JudgeFailure` when more than `llm_judge_max_invalid_frac` of the rewards are missing.
        """
        with self.clock.waiting():
            groups = list(await asyncio.gather(*self._steps.pop(step)))
        handed = time.perf_counter()
        check_invalid_share(groups, self.args.llm_judge_max_invalid_frac, f"step {step + 1}")
        training, counts = training_samples(groups, self.args)
        if self.writer:
            self.writer.write(groups, training_step=step + 1, split="train")
        batches = pack_mini_batches(
            training,
            num_mini_batches=self.args.num_mini_batches,
            seed=self.args.seed,
            step=step,
            pack_length=self.args.pack_length,
            num_learners=self.args.world_size,
            pad_token_id=self.pad_token_id,
        )
        metrics = group_metrics(groups, prefix="objective") | counts | self.engines.stats()
        metrics |= self.clock.metrics(groups) | self.judge_counters.metrics(groups)
        metrics["time/packing"] = time.perf_counter() - handed
        return StepData(step, batches, metrics)

    async def evaluate(self, step: int) -> dict[str, float | None]:
        """One sample for each evaluation row under the engines' present weights."""
        start = time.perf_counter()
        args = self.args
        temperature = args.temperature if args.eval_temperature is None else args.eval_temperature
        sampling = SamplingConfig(1, temperature, args.vllm_top_p, args.response_length, tuple(args.stop_strings))
        groups = list(await asyncio.gather(*(self._rollout(row, sampling, training=False) for row in self.eval_rows)))
        check_invalid_share(groups, args.llm_judge_max_invalid_frac, f"the evaluation at step {step}")
        if self.writer:
            self.writer.write(groups, training_step=step, split="eval")
        return group_metrics(groups, prefix="eval") | {"time/eval": time.perf_counter() - start}


def training_samples(groups: list[Group], args: Args) -> tuple[list[TrainingSample], dict[str, float | None]]:
    """Advantages within each group, and the samples that have a loss.

    A missing reward leaves its group's mean and deviation and has no loss. Groups with fewer than two
    rewards are dropped, groups whose rewards are all equal too (`filter_zero_std_samples`); both are
    counted. A truncated response (`mask_truncated_completions`) has no loss, but stays in its group's
    statistics, so its siblings' advantages do not move.
    """
    from open_instruct.grpo_utils import group_advantages

    training: list[TrainingSample] = []
    dropped = zero_std = 0
    for group in groups:
        rewards = np.array([np.nan if s.reward is None else s.reward for s in group.samples], dtype=float)
        advantages = group_advantages(rewards, args.advantage_normalization_type)
        if np.isnan(advantages).all():
            dropped += 1
            continue
        if args.filter_zero_std_samples and np.ptp(rewards[~np.isnan(rewards)]) == 0:
            zero_std += 1
            continue
        for scored, advantage in zip(group.samples, advantages, strict=True):
            truncated = args.mask_truncated_completions and scored.sample.finish_reason != "stop"
            if np.isnan(advantage) or truncated or not scored.sample.token_ids:
                continue
            scored.advantage = float(advantage)
            training.append(
                TrainingSample(
                    group.row["input_ids_prompt"],
                    scored.sample.token_ids,
                    scored.sample.logprobs,
                    scored.advantage,
                )
            )
    counts: dict[str, float | None] = {
        "objective/groups_dropped": float(dropped),
        "objective/groups_zero_std": float(zero_std),
        "objective/samples_trained_on": float(len(training)),
    }
    return training, counts


__all__ = ["DataPreparationActor", "JudgeFailure", "PromptOrder", "training_samples"]
