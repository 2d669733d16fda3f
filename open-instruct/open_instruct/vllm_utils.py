"""The policy engine: a Ray actor around vLLM's `AsyncLLM`, and how its weights are replaced.

Prompts go in as token ids and samples come out as token ids with log-probabilities, so an engine needs
no tokenizer unless stop strings ask for one.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, replace
from typing import Any

from open_instruct.data_types import Sample, SamplingConfig


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
    inflight_updates: bool = True
    weight_backend: str = "nccl"
    on_cpu: bool = False
    omp_threads: int = 1


class LLMRayActor:
    """One policy engine. Make it with `create_vllm_engines`; all methods are coroutines."""

    def __init__(self, options: EngineOptions) -> None:
        from flip_plugin.processes import DIE_WITH_PARENT

        self.options = options
        self.weights_version = 0
        os.environ |= {DIE_WITH_PARENT: "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if options.on_cpu:
            from flip_plugin.serving import cpu_engine_env

            os.environ |= cpu_engine_env(options.omp_threads)
        self._engine: Any = None
        self._shared: Any = None

    async def start(self) -> None:
        """Load the model; returns when the engine takes requests."""
        from vllm import AsyncEngineArgs
        from vllm.config import WeightTransferConfig
        from vllm.v1.engine.async_llm import AsyncLLM

        o = self.options
        args = AsyncEngineArgs(
            model=o.model,
            revision=o.revision,
            tokenizer=o.tokenizer or o.model,
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
            logprobs_mode="processed_logprobs",  # after the temperature, as the learner computes them
            disable_log_stats=True,
        )
        self._engine = AsyncLLM.from_engine_args(args)
        if o.weight_backend == "shared_memory":
            from open_instruct.weight_sync import SharedWeights

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
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        final = None
        async for output in self._engine.generate(
            {"prompt_token_ids": prompt_ids}, params, request_id=uuid.uuid4().hex
        ):
            final = output
        assert final is not None, "the engine ended the stream without an output"
        return [self._sample(output) for output in sorted(final.outputs, key=lambda o: o.index)]

    def _sample(self, output: Any) -> Sample:
        token_ids = list(output.token_ids)
        logprobs = [step[token].logprob for step, token in zip(output.logprobs, token_ids, strict=True)]
        return Sample(token_ids, logprobs, output.finish_reason or "length", self.weights_version)

    async def prompt_logprobs(self, token_ids: list[int]) -> list[float]:
        """Log-probability in nats of each token but the first, as this engine's weights have it."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=1.0, prompt_logprobs=0, detokenize=False)
        final = None
        async for output in self._engine.generate({"prompt_token_ids": token_ids}, params, request_id=uuid.uuid4().hex):
            final = output
        assert final is not None
        return [step[t].logprob for step, t in zip(final.prompt_logprobs[1:], token_ids[1:], strict=True)]

    # Weight updates: the four steps of vLLM's API, and the path without NCCL that runs them in one call.

    async def init_weight_transfer(self, init_info: dict[str, Any]) -> None:
        """Hand the backend what it needs to meet the sender."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._engine.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info))

    async def start_weight_update(self) -> None:
        """Hold generation: requests in flight are kept or waited for, as `inflight_updates` says."""
        keep = self.options.inflight_updates
        # A prefix cache holds keys and values of the old weights.
        clear = not keep or self.options.enable_prefix_caching
        await self._engine.pause_generation(mode="keep" if keep else "wait", clear_cache=clear)
        await self._engine.start_weight_update()

    async def receive_weights(self, update_info: dict[str, Any]) -> None:
        """One chunk of weights."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._engine.update_weights(WeightTransferUpdateRequest(update_info=update_info))

    async def finish_weight_update(self, version: int) -> None:
        """Take the new weights into use and go on generating."""
        await self._engine.finish_weight_update(str(version))
        self.weights_version = version
        await self._engine.resume_generation()

    async def load_weights(self, flat: Any, layout: Any, version: int) -> None:
        """Without NCCL: `flat` is (num_bytes,) uint8 from Ray's object store, laid out as `layout` says."""
        self._shared.write(flat)
        await self.start_weight_update()
        await self.receive_weights(
            {"path": self._shared.path, "num_bytes": layout.num_bytes, "tensors": layout.tensors}
        )
        await self.finish_weight_update(version)

    async def stop(self) -> None:
        """End the engine core."""
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None


def create_vllm_engines(options: EngineOptions, num_engines: int, *, num_gpus: float = 0.0) -> list[Any]:
    """Start `num_engines` actors; call `start` on each and wait for it."""
    import ray

    actor = ray.remote(LLMRayActor)
    return [
        actor.options(num_cpus=0, num_gpus=num_gpus, max_concurrency=4096).remote(
            replace(options, seed=options.seed + i)
        )
        for i in range(num_engines)
    ]
