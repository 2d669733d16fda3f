"""The data side of a run: prompts in flight, scored groups, and packed batches for the learners.

One Ray actor (`DataPreparationActor`) keeps the engines busy, awaits the verifiers and hands out steps.
Step s may be generated once the engines hold weights of version s - async_steps, a version being the
number of updates made; so a batch is never more than `async_steps` updates old when it is started.

Prompts are a stream (`open_instruct.data.prompt_stream`), whose groups a step takes in the order in which they were
drawn (`open_instruct.rollout.group_queue`): which prompts a step holds depends on the seed and on scores, never on
which group was ready first.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import nullcontext
from typing import Any

from flip_plugin.judge.call_log import call_context
from flip_plugin.serving.processes import freeze_heap
from open_instruct.config.args import Args
from open_instruct.data.prompt_stream import Draw, PromptOrder, PromptStream
from open_instruct.data.rollout_log import RolloutWriter
from open_instruct.data.types import Group, PackedBatch, SamplingConfig, StepData
from open_instruct.engines.pool import EnginePool, EngineSet
from open_instruct.engines.sleep import Turns
from open_instruct.engines.weights.send import Weights
from open_instruct.learner.packing import TrainingSample, pack_mini_batches
from open_instruct.rewards.missing import check_invalid_share
from open_instruct.rewards.scorer import RowScorer
from open_instruct.rollout.group_filter import has_loss, training_samples
from open_instruct.rollout.group_queue import GroupQueue
from open_instruct.rollout.judge_counters import JudgeCounters
from open_instruct.rollout.replay import RolloutReplay
from open_instruct.rollout.stage_times import StageClock
from open_instruct.rollout.step_metrics import group_metrics, pass_at_k_metrics, step_metrics
from open_instruct.state.run_folder import rollouts_folder


class DataPreparationActor:
    """Rows in, `StepData` out. All methods are coroutines on one loop, beside the judge's client.

    `resume_step` is the number of steps that a continued run has behind it, and `state` what `state` returned
    after them; what was in flight then is generated again.
    """

    def __init__(
        self,
        args: Args,
        engines: EngineSet,
        rows: list[dict[str, Any]],
        eval_rows: list[dict[str, Any]],
        scorer: RowScorer,
        pad_token_id: int,
        resume_step: int | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.args, self.rows, self.eval_rows = args, rows, eval_rows
        self.engines = EnginePool(engines)
        self.turns = Turns(self.engines) if engines.sleep_mode else None
        self.scorer, self.pad_token_id = scorer, pad_token_id
        self._state = initial_state(args, resume_step, state)
        horizon = (args.async_steps + 1) * args.num_unique_prompts_rollout
        self.stream = PromptStream(PromptOrder(len(rows), args.seed), horizon, self._state["prompts"])
        self.writer = RolloutWriter(rollouts_folder(args), token_ids=args.save_token_ids) if args.save_traces else None
        self.replay = RolloutReplay(args, rows) if args.replay_rollouts else None
        self._next_step: int = self._state["training_step"]  # the first that is not being made
        self.queue = GroupQueue(args, self.stream, self._rollout_of, self._next_step)
        self._steps: dict[int, asyncio.Task[tuple[StepData, list[Group], dict[str, Any]]]] = {}
        self.clock = StageClock()
        self.judge_counters = JudgeCounters(scorer.verifiers())

    async def ready(self) -> bool:
        """Load what the scorer needs, so that the first step does not wait for it."""
        self.scorer.warm_up()
        freeze_heap()  # each judge call makes thousands of objects
        return True

    async def use_judge(self, urls: list[str], keys: dict[str, str]) -> None:
        """Where the run's own judge servers are, if it has any, and API keys; to be called before the first step."""
        os.environ |= keys  # read when the judge's client is made, as the next
        if urls:
            os.environ["HOSTED_VLLM_API_BASE"] = ",".join(urls)
        if self.turns:
            self.turns.judged_by(urls)

    async def state(self) -> dict[str, Any]:
        """JSON-able: what a continued run needs to see the prompts that this one would see after the last step
        that `get_step` has handed out: ``{"training_step", "prompts": {"position", "drawn", "excluded"}}``.
        """
        return self._state

    async def engines_up(self) -> list[Any]:
        """Handles of the policy engines that are up, for the learner to send its weights to."""
        return self.engines.up()

    async def engine_lost(self) -> None:
        """See `EnginePool.wait_until_lost`."""
        await self.engines.wait_until_lost()

    async def stop_engines(self) -> None:
        """See `EnginePool.stop`."""
        await self.engines.stop()

    async def weights_synced(self, version: int, weights: Weights | None = None) -> None:
        """The engines hold weights of this version: start what may now be generated.

        `weights` are kept for engines that are started again; None at the start of a run, and with NCCL.
        """
        if weights is not None:
            await self.engines.keep_weights(weights)
        if self.turns:
            await self.turns.wake()
        allowed = min(version + self.args.async_steps + 1, self.args.num_training_steps)
        while self._next_step < allowed:
            self._steps[self._next_step] = asyncio.create_task(self._assemble(self._next_step))
            self._next_step += 1
        if self.replay is None:
            self.queue.allow(allowed)

    async def get_step(self, step: int) -> StepData:
        """Wait for a step. Steps must be asked for in order.

        Raises `JudgeFailure` when more than `llm_judge_max_invalid_frac` of its rewards are missing, and
        `NoPromptsLeft` when all prompts are excluded.
        """
        with self.clock.waiting():
            data, groups, self._state = await self._steps.pop(step)
            if self.turns:
                await self.turns.rest()
        data.metrics |= self.engines.stats() | self.clock.metrics(groups) | self.judge_counters.metrics(groups)
        return data

    def _sampling(self) -> SamplingConfig:
        args = self.args
        return SamplingConfig(
            args.num_samples_per_prompt_rollout,
            args.temperature,
            args.vllm_top_p,
            args.response_length,
            tuple(args.stop_strings),
        )

    def _eval_sampling(self) -> SamplingConfig:
        args = self.args
        return SamplingConfig(
            args.eval_pass_at_k,
            args.temperature if args.eval_temperature is None else args.eval_temperature,
            args.vllm_top_p if args.eval_top_p is None else args.eval_top_p,
            args.response_length if args.eval_response_length is None else args.eval_response_length,
            tuple(args.stop_strings),
        )

    def _place_of(self, draw: Draw) -> dict[str, Any]:
        """Where a prompt stands in the run, for its judge calls; a step of active sampling is known only later."""
        prompts = self.args.num_unique_prompts_rollout
        step = None if self.args.active_sampling else draw.number // prompts + 1
        return {"split": "train", "draw": draw.number, "training_step": step}

    async def _rollout_of(self, draw: Draw) -> Group:
        return await self._rollout(self.rows[draw.row], self._sampling(), self._place_of(draw))

    async def _rollout(
        self, row: dict[str, Any], sampling: SamplingConfig, place: dict[str, Any], *, training: bool = True
    ) -> Group:
        call_context.set(place)  # of this task
        async with self.turns.using() if self.turns else nullcontext():
            return await self._sample_and_score(row, sampling, training=training)

    async def _sample_and_score(self, row: dict[str, Any], sampling: SamplingConfig, *, training: bool) -> Group:
        start = time.perf_counter()
        with self.clock.generating(counts=training):
            samples = await self.engines.generate(row["input_ids_prompt"], sampling)
        generated = time.perf_counter()
        scored = await self.scorer.score(row, samples, sampling.max_tokens)
        return Group(row, scored, generated - start, time.perf_counter() - generated, start)

    async def _assemble(self, step: int) -> tuple[StepData, list[Group], dict[str, Any]]:
        """A step: groups, advantages, rollouts on disk, packing. With its groups, and the state after it."""
        if self.replay is not None:
            groups, prompts = self.replay.groups(step + 1), self._state["prompts"]
        else:
            groups, last = await self.queue.take_step()
            prompts = self.stream.state_after(last)
        start = time.perf_counter()
        training, counts = training_samples(groups, self.args)
        if self.writer:
            self.writer.write(groups, training_step=step + 1, split="train")
        batches = self._pack(training, step)
        metrics = group_metrics(groups, prefix="objective") | counts
        metrics |= step_metrics(groups, training, batches, step=step, samples_wanted=self.args.samples_per_step)
        state = {"training_step": step + 1, "prompts": prompts}
        metrics["batch/no_resampled_prompts"] = float(len(state["prompts"]["excluded"]))
        metrics["time/packing"] = time.perf_counter() - start
        return StepData(step, batches, metrics, self._warnings(step, groups)), groups, state

    def _pack(self, training: list[TrainingSample], step: int) -> list[list[PackedBatch]]:
        return pack_mini_batches(
            training,
            num_mini_batches=self.args.num_mini_batches,
            seed=self.args.seed,
            step=step,
            pack_length=self.args.pack_length,
            num_learners=self.args.world_size,
            pad_token_id=self.pad_token_id,
        )

    def _warnings(self, step: int, groups: list[Group]) -> list[str]:
        args, prompts = self.args, self.args.num_unique_prompts_rollout
        teach = sum(has_loss(group, args) for group in groups)
        if len(groups) < prompts:
            return [f"step {step + 1}: {len(groups)} prompts instead of {prompts}, as all others are excluded"]
        if args.active_sampling and teach < prompts:
            return [
                f"step {step + 1}: {teach} of {len(groups)} prompts teach something, of {prompts} that were wanted "
                f"(--active_sampling_max_batches {args.active_sampling_max_batches}); trained on those"
            ]
        return []

    async def evaluate(self, step: int) -> dict[str, float | None]:
        """`eval_pass_at_k` samples for each evaluation row under the engines' present weights."""
        start = time.perf_counter()
        args, sampling = self.args, self._eval_sampling()
        place = {"split": "eval", "draw": None, "training_step": step}
        rollouts = (self._rollout(row, sampling, place, training=False) for row in self.eval_rows)
        async with self.turns.using() if self.turns else nullcontext():  # from now on, not from the first rollout
            groups = list(await asyncio.gather(*rollouts))
        check_invalid_share(groups, args.llm_judge_max_invalid_frac, f"the evaluation at step {step}")
        if self.writer:
            self.writer.write(groups, training_step=step, split="eval")
        metrics = group_metrics(groups, prefix="eval") | {"time/eval": time.perf_counter() - start}
        return metrics | (pass_at_k_metrics(groups, sampling.n) if sampling.n > 1 else {})


def initial_state(args: Args, resume_step: int | None, state: dict[str, Any] | None) -> dict[str, Any]:
    """What `DataPreparationActor` starts from: `state`, or what follows from the number of steps alone.

    Raises ValueError when the two disagree, or when the position is not known without a state.
    """
    step = resume_step or 0
    if state is not None:
        if state["training_step"] != step:
            raise ValueError(f"the data's state is that after step {state['training_step']}, not after step {step}")
        return state
    if step and (args.active_sampling or args.no_resampling_pass_rate is not None):
        raise ValueError(
            f"step {step} was saved without the data's state, so the next prompts are not known: continue without "
            "--active_sampling and --no_resampling_pass_rate, or start again."
        )
    drawn = step * args.num_unique_prompts_rollout
    return {"training_step": step, "prompts": {"position": drawn, "drawn": drawn, "excluded": {}}}
