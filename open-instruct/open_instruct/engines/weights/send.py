"""The learner's weights on their way to the policy engines.

One update, after a step, as `open_instruct.run.loop` drives it:

1. The driver asks the data side which engines are up, and hands their Ray handles to the learners
   (`PolicyTrainerRayProcess.sync_weights`).
2. The learners gather the weights (`open_instruct.engines.weights.gather`), and rank 0 sends them straight to
   those engines, one of the two ways below. Each engine holds its requests in flight, or waits for them
   (`inflight_updates`), takes the weights and goes on. One that dies meanwhile is left out.
3. The driver tells the data side that the engines have this version (`DataPreparationActor.weights_synced`):
   what may now be generated is started. With it goes the reference of step 2: the pool of engines keeps it, and
   gives these weights to an engine that was started again, before it takes a request.

On GPUs vLLM's own ``nccl`` backend broadcasts from learner 0 to every engine worker. On CPUs, where learner
and engine share one GPU (NCCL wants a card for each rank), and where ``--weight_sync object_store`` asks for
it, the state dict travels through Ray's object store, which also crosses nodes, to each engine actor; the
actor hands it to its engine core in an anonymous memory file (`SharedWeights`), received by the
``shared_memory`` backend in `receive_cpu`. On this way an engine that died can be replaced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from open_instruct.engines.errors import NO_RESTART_WITH_NCCL, engine_gone, lost_for_good
from open_instruct.engines.weights.gather import FullTensor, full_tensors

_ALIGNMENT = 64


def weight_backend(args: Any, *, on_cpu: bool) -> str:
    """vLLM's name for the way that the weights take."""
    return "shared_memory" if on_cpu or args.single_gpu_mode or args.weight_sync == "object_store" else "nccl"


@dataclass(frozen=True)
class WeightLayout:
    """Where each tensor lies in the flat buffer: (name, dtype name, shape, offset in bytes)."""

    tensors: list[tuple[str, str, list[int], int]]
    num_bytes: int


@dataclass(frozen=True)
class Weights:
    """Weights in Ray's object store: `reference` is of (num_bytes,) uint8, and keeps them there. Pickles."""

    reference: Any
    layout: WeightLayout
    version: int


def sent_tensors(module: Any) -> list[FullTensor]:
    """The weights that an update sends: all, frozen ones too, since vLLM's reload wants whole layers."""
    return full_tensors(module)


class FlatWeights:
    """Copies a module's weights (`sent_tensors`) into one flat byte buffer, in the dtype that the engines use."""

    def __init__(self, module: Any, dtype: Any) -> None:
        offset, tensors = 0, []
        self._sources, self.dtype = sent_tensors(module), dtype
        for source in self._sources:
            tensors.append((source.name, str(dtype).removeprefix("torch."), list(source.shape), offset))
            size = int(np.prod(source.shape)) * dtype.itemsize
            offset += -(-size // _ALIGNMENT) * _ALIGNMENT
        self.layout = WeightLayout(tensors, offset)

    def copy(self, *, keep: bool = True) -> np.ndarray | None:
        """The current weights as (num_bytes,) uint8; None where `keep` is False.

        Under ZeRO-3 gathering is a collective: every rank must call, ranks but the first with keep=False.
        """
        import torch

        buffer = torch.zeros(self.layout.num_bytes, dtype=torch.uint8) if keep else None
        for (_, _, shape, offset), source in zip(self.layout.tensors, self._sources, strict=True):
            with source.whole() as tensor:
                if buffer is not None:
                    size = int(np.prod(shape)) * self.dtype.itemsize
                    view = buffer[offset : offset + size].view(self.dtype).view(shape)
                    view.copy_(tensor)
        return None if buffer is None else buffer.numpy()


class SharedWeights:
    """An anonymous memory file that this process writes and its engine core reads."""

    def __init__(self) -> None:
        self._handle = os.memfd_create("policy-weights")
        self.path = f"/proc/{os.getpid()}/fd/{self._handle}"

    def write(self, flat: np.ndarray) -> None:
        """Replace the content by `flat`, (num_bytes,) uint8."""
        os.ftruncate(self._handle, flat.nbytes)
        view, done = flat.data, 0
        while done < flat.nbytes:
            done += os.pwrite(self._handle, view[done:], done)


class ObjectStoreSender:
    """Learner side without NCCL: one object in Ray's store, read by every engine."""

    def __init__(self, module: Any, dtype: Any, rank: int) -> None:
        self._flat, self._rank = FlatWeights(module, dtype), rank

    def send(self, engines: Sequence[Any], version: int) -> Weights | None:
        """Bring `engines` (handles) to the current weights; returns, on rank 0, the weights when all have them.

        Every learner rank must call it. An engine that is gone is left to the pool, which replaces it.
        """
        import ray

        flat = self._flat.copy(keep=self._rank == 0)
        if flat is None:
            return None
        weights = Weights(ray.put(flat), self._flat.layout, version)
        loading = [engine.load_weights.remote(weights.reference, weights.layout, version) for engine in engines]
        for call in loading:
            with contextlib.suppress(*engine_gone()):
                ray.get(call)
        return weights


class NcclSender:
    """Learner side on GPUs: vLLM's trainer-side NCCL engine, driven on every learner rank."""

    def __init__(
        self, module: Any, engines: Sequence[Any], rank: int, *, tensor_parallel_size: int, address: str, port: int
    ) -> None:
        from vllm.distributed.weight_transfer.nccl_engine import (
            NCCLTrainerInitInfo,
            NCCLTrainerWeightTransferEngine,
        )

        self._client = _EnginesClient(engines, tensor_parallel_size)
        info = NCCLTrainerInitInfo(
            master_address=address,
            master_port=port,
            world_size=1 + len(engines) * tensor_parallel_size,
            rank=rank,
        )
        self._engine = NCCLTrainerWeightTransferEngine.trainer_init(
            info, client=self._client, source=_deepspeed_source(module)
        )

    def send(self, engines: Sequence[Any], version: int) -> None:
        """Bring every engine to the current weights; every learner rank must call it.

        `engines` are those of the start: the NCCL group is theirs. Raises `EngineLost` where one is gone.
        """
        self._client.version = version
        self._engine.send_weights()


class _EnginesClient:
    """What vLLM's NCCL engine calls the policy engines by (its `VLLMWeightSyncClient`)."""

    def __init__(self, engines: Sequence[Any], tensor_parallel_size: int) -> None:
        self._engines, self._tp, self.version = engines, tensor_parallel_size, 0

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        # vLLM numbers the workers of one engine from 1; those of the next engine follow.
        self._wait(
            engine.init_weight_transfer.remote(init_info | {"rank_offset": 1 + i * self._tp})
            for i, engine in enumerate(self._engines)
        )

    def start_weight_update(self) -> None:
        self._wait(engine.start_weight_update.remote() for engine in self._engines)

    def update_weights(self, update_info: Any) -> None:
        self._wait(engine.receive_weights.remote(update_info) for engine in self._engines)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._wait(engine.finish_weight_update.remote(self.version) for engine in self._engines)

    def _wait(self, calls: Iterable[Any]) -> None:
        """For a call of every engine. A dead one is named at once: the others may wait for it."""
        import ray

        of_engine = {call: index for index, call in enumerate(calls)}
        waiting = list(of_engine)
        while waiting:
            [done], waiting = ray.wait(waiting, num_returns=1)
            try:
                ray.get(done)
            except engine_gone() as error:
                why = f"it is not started again: {NO_RESTART_WITH_NCCL}"
                raise lost_for_good(of_engine[done], why, error) from None


def _deepspeed_source(module: Any) -> Any:
    """vLLM's `WeightSource` over a DeepSpeed module: one whole (under LoRA, merged) tensor at a time."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    sources = sent_tensors(module)

    class DeepSpeedSource(WeightSource):
        def metadata(self) -> list[ParamMeta]:
            return [ParamMeta(source.name, source.dtype, source.shape) for source in sources]

        def __iter__(self) -> Iterator[tuple[str, Any]]:
            for source in sources:
                with source.whole() as tensor:
                    yield source.name, tensor

    return DeepSpeedSource()
