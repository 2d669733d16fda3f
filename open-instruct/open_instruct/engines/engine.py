"""The policy engine: a Ray actor around vLLM's `AsyncLLM`, and how its weights are replaced.

Prompts go in as token ids and samples come out as token ids with log-probabilities, so an engine needs
no tokenizer unless stop strings ask for one.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from open_instruct.data.types import Sample, SamplingConfig
from open_instruct.engines.errors import EngineDied

#: Seconds between two looks at whether the engine core is alive.
WATCH_S = 0.5


@dataclass(frozen=True)
class EngineOptions:
    """How the policy is served for rollouts. `dtype` is the engine's; logprobs are always float32."""

    model: str
    revision: str | None = None
    tokenizer: str | None = None
    eos_token_id: int | None = None
    dtype: str = "bfloat16"
    seed: int = 0
    max_model_len: int = 1024
    max_num_seqs: int = 256
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    kv_cache_memory_bytes: int | None = None
    enforce_eager: bool = False
    enable_prefix_caching: bool = False
    attention_backend: str | None = None
    inflight_updates: bool = True
    weight_backend: str = "nccl"
    sleep_mode: bool = False
    on_cpu: bool = False
    omp_threads: int = 1


class LLMRayActor:
    """One policy engine. Make it with `EngineMaker`; all methods are coroutines.

    They raise `EngineDied` once vLLM's engine core is gone: the actor is then of no more use.
    """

    def __init__(self, options: EngineOptions) -> None:
        from flip_plugin.serving.processes import DIE_WITH_PARENT, guard_children

        guard_children()  # before anything loads: vLLM's processes are tied to us only once they have loaded it
        self.options = options
        self.weights_version = 0
        os.environ |= {DIE_WITH_PARENT: "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if options.on_cpu:
            from flip_plugin.serving.options import cpu_engine_env

            os.environ |= cpu_engine_env(options.omp_threads)
        self._engine: Any = None
        self._shared: Any = None
        self._asleep = False
        self._failed_update: Exception | None = None

    async def start(self) -> None:
        """Load the model; returns when the engine takes requests."""
        from vllm import AsyncEngineArgs
        from vllm.config import WeightTransferConfig
        from vllm.v1.attention.backends.registry import AttentionBackendEnum
        from vllm.v1.engine.async_llm import AsyncLLM

        from flip_plugin.serving.processes import freeze_heap

        o = self.options
        args = AsyncEngineArgs(
            model=o.model,
            revision=o.revision,
            tokenizer=o.tokenizer or o.model,
            tokenizer_revision=o.revision if o.tokenizer in (None, o.model) else None,
            skip_tokenizer_init=o.tokenizer is None,
            dtype=o.dtype,  # ty: ignore[invalid-argument-type]
            seed=o.seed,
            max_model_len=o.max_model_len,
            max_num_seqs=o.max_num_seqs,
            tensor_parallel_size=o.tensor_parallel_size,
            gpu_memory_utilization=0.05 if o.on_cpu else o.gpu_memory_utilization,
            kv_cache_memory_bytes=o.kv_cache_memory_bytes,
            enforce_eager=o.enforce_eager or o.on_cpu,
            enable_prefix_caching=o.enable_prefix_caching,
            distributed_executor_backend="uni" if o.on_cpu and o.tensor_parallel_size == 1 else None,
            weight_transfer_config=WeightTransferConfig(backend=o.weight_backend),
            enable_sleep_mode=o.sleep_mode,
            attention_backend=AttentionBackendEnum[o.attention_backend] if o.attention_backend else None,
            logprobs_mode="processed_logprobs",  # after the temperature, as the learner computes them
            disable_log_stats=True,
        )
        self._engine = AsyncLLM.from_engine_args(args)
        freeze_heap()  # every token makes objects here
        if o.weight_backend == "shared_memory":
            from open_instruct.engines.weights.send import SharedWeights

            await self.init_weight_transfer({})
            self._shared = SharedWeights()

    async def generate(self, prompt_ids: list[int], sampling: SamplingConfig) -> list[Sample]:
        """`sampling.n` samples for one prompt of token ids."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop_strings) or None,
            # The tokenizer's own, which need not be the one in the model's configuration.
            stop_token_ids=None if self.options.eos_token_id is None else [self.options.eos_token_id],
            include_stop_str_in_output=True,
            detokenize=bool(sampling.stop_strings),
            logprobs=0,  # of the sampled token alone
            flat_logprobs=True,  # lists of numbers; else a dictionary with an object for each token
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        final = None
        with engine_death():
            async for output in self._engine.generate(
                {"prompt_token_ids": prompt_ids}, params, request_id=uuid.uuid4().hex
            ):
                final = output
        assert final is not None, "the engine ended the stream without an output"
        return [self._sample(output) for output in sorted(final.outputs, key=lambda o: o.index)]

    def _sample(self, output: Any) -> Sample:
        token_ids = list(output.token_ids)
        flat = output.logprobs
        if [flat.token_ids[i] for i in flat.start_indices] != token_ids:
            raise RuntimeError("vLLM's log-probabilities are not those of its tokens")
        logprobs = [flat.logprobs[i] for i in flat.start_indices]
        return Sample(token_ids, logprobs, output.finish_reason or "length", self.weights_version)

    async def version(self) -> int:
        """The number of weight updates that this engine has taken."""
        return self.weights_version

    async def wait_until_dead(self) -> None:
        """Raise `EngineDied` when the engine core is gone or a weight update failed; return when it was stopped."""
        while self._engine is not None:
            if self._engine.errored:
                raise EngineDied("vLLM's engine core is gone")
            if (error := self._failed_update) is not None:
                raise EngineDied(f"a weight update failed: {type(error).__name__}: {error}")
            await asyncio.sleep(WATCH_S)

    # Weight updates: the four steps of vLLM's API, and the path without NCCL that runs them in one call.

    async def init_weight_transfer(self, init_info: dict[str, Any]) -> None:
        """Hand the backend what it needs to meet the sender."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        with engine_death():
            await self._engine.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info))

    async def start_weight_update(self) -> None:
        """Hold generation: requests in flight are kept or waited for, as `inflight_updates` says."""
        keep = self.options.inflight_updates
        # A prefix cache holds keys and values of the old weights.
        clear = not keep or self.options.enable_prefix_caching
        with engine_death():
            await self._engine.pause_generation(mode="keep" if keep else "wait", clear_cache=clear)
            await self._engine.start_weight_update()

    async def receive_weights(self, update_info: dict[str, Any]) -> None:
        """One chunk of weights."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        with engine_death(), self._kept_failure():
            await self._engine.update_weights(WeightTransferUpdateRequest(update_info=update_info))

    async def finish_weight_update(self, version: int) -> None:
        """Take the new weights into use and go on generating."""
        with engine_death(), self._kept_failure():
            await self._engine.finish_weight_update(str(version))
            self.weights_version = version
            await self._engine.resume_generation()

    @contextmanager
    def _kept_failure(self) -> Generator[None]:
        """Keep what is raised inside for `wait_until_dead`, which ends the run.

        With NCCL the learner does not see it: it looks at the answer after its broadcast, which waits for this engine.
        """
        try:
            yield
        except Exception as error:
            self._failed_update = error
            raise

    async def load_weights(self, flat: Any, layout: Any, version: int) -> None:
        """Without NCCL: `flat` is (num_bytes,) uint8 from Ray's object store, laid out as `layout` says.

        An engine that sleeps wakes up for it.
        """
        self._shared.write(flat)
        await self.wake_up()
        await self.start_weight_update()
        await self.receive_weights(
            {"path": self._shared.path, "num_bytes": layout.num_bytes, "tensors": layout.tensors}
        )
        await self.finish_weight_update(version)

    # Sleep mode (GPU): weights go to main memory, the KV cache is dropped.

    async def sleep(self) -> None:
        """Give the GPU's memory back; nothing may be in flight."""
        with engine_death():
            await self._engine.sleep(level=1)
            self._asleep = True

    async def wake_up(self) -> None:
        """Take it again, if the engine sleeps."""
        if not self._asleep:
            return
        with engine_death():
            await self._engine.wake_up()
            self._asleep = False

    async def stop(self) -> None:
        """End the engine core."""
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None


@contextmanager
def engine_death() -> Generator[None]:
    """Inside, the death of the engine core raises `EngineDied`, which every process can unpickle."""
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        yield
    except EngineDeadError as error:
        raise EngineDied(f"vLLM's engine core is gone: {error}") from None


@dataclass(frozen=True)
class EngineMaker:
    """Makes engine actors, at the start of a run and in place of those that died. Pickles.

    `strategies[i]` says where on the cluster engine i goes; None leaves it to Ray.
    """

    options: EngineOptions
    num_gpus: float = 0.0
    strategies: Sequence[Any] | None = None

    def make(self, index: int, restart: int = 0) -> Any:
        """An actor for engine `index`; call `start` on it and wait. A restarted one samples from other seeds."""
        import ray

        placed = {} if self.strategies is None else {"scheduling_strategy": self.strategies[index]}
        actor = ray.remote(LLMRayActor).options(num_cpus=0, num_gpus=self.num_gpus, max_concurrency=4096, **placed)
        return actor.remote(replace(self.options, seed=self.options.seed + index + 10_000 * restart))

    def end(self, actor: Any) -> None:
        """Kill it with all that it started."""
        import ray

        ray.kill(actor)


def create_vllm_engines(options: EngineOptions, num_engines: int, *, num_gpus: float = 0.0) -> list[Any]:
    """Start `num_engines` actors anywhere; call `start` on each and wait for it."""
    maker = EngineMaker(options, num_gpus)
    return [maker.make(i) for i in range(num_engines)]
