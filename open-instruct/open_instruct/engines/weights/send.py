"""Getting the learner's weights into the policy engines after a step.

On GPUs vLLM's own ``nccl`` backend broadcasts from learner 0 to every engine worker. On CPUs, where learner
and engine share one GPU (NCCL wants a card for each rank), and where ``--weight_sync object_store`` asks for
it, the state dict travels through Ray's object store, which also crosses nodes, to each engine actor; the
actor hands it to its engine core in an anonymous memory file (`SharedWeights`), received by the
``shared_memory`` backend in `receive_cpu`. On this way an engine that died can be replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from open_instruct.engines.weights.gather import full_tensors

_ALIGNMENT = 64


def weight_backend(args: Any, *, on_cpu: bool) -> str:
    """vLLM's name for the way that the weights take."""
    return "shared_memory" if on_cpu or args.single_gpu_mode or args.weight_sync == "object_store" else "nccl"


@dataclass(frozen=True)
class WeightLayout:
    """Where each tensor lies in the flat buffer: (name, dtype name, shape, offset in bytes)."""

    tensors: list[tuple[str, str, list[int], int]]
    num_bytes: int


class FlatWeights:
    """Copies a module's weights (`full_tensors`) into one flat byte buffer, in the dtype that the engines use."""

    def __init__(self, module: Any, dtype: Any) -> None:
        offset, tensors = 0, []
        self._sources, self.dtype = full_tensors(module), dtype
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
    """Learner side without NCCL: one object in Ray's store, read by every engine.

    `engines`: `PooledEngines` or `DirectEngines` (`open_instruct.engines.pool`).
    """

    def __init__(self, module: Any, dtype: Any, engines: Any, rank: int) -> None:
        self._flat, self._engines, self._rank = FlatWeights(module, dtype), engines, rank

    def send(self, version: int) -> None:
        """Bring every engine to the current weights; returns when they have them."""
        import ray

        flat = self._flat.copy(keep=self._rank == 0)
        if flat is not None:
            self._engines.load_weights(ray.put(flat), self._flat.layout, version)


class NcclSender:
    """Learner side on GPUs: vLLM's trainer-side NCCL engine, driven on every learner rank."""

    def __init__(
        self, module: Any, engines: Any, rank: int, *, tensor_parallel_size: int, address: str, port: int
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

    def send(self, version: int) -> None:
        """Bring every engine to the current weights; every learner rank must call it."""
        self._client.version = version
        self._engine.send_weights()


class _EnginesClient:
    """vLLM's `VLLMWeightSyncClient` over `PooledEngines` or `DirectEngines`."""

    def __init__(self, engines: Any, tensor_parallel_size: int) -> None:
        self._engines, self._tp, self.version = engines, tensor_parallel_size, 0

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        # vLLM numbers the workers of one engine from 1; those of the next engine follow.
        infos = [init_info | {"rank_offset": 1 + i * self._tp} for i in range(len(self._engines))]
        self._engines.call("init_weight_transfer", [(info,) for info in infos])

    def start_weight_update(self) -> None:
        self._engines.call("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._engines.call("receive_weights", [(update_info,)] * len(self._engines))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._engines.call("finish_weight_update", [(self.version,)] * len(self._engines))


def _deepspeed_source(module: Any) -> Any:
    """vLLM's `WeightSource` over a DeepSpeed module: one whole (under LoRA, merged) tensor at a time."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    sources = full_tensors(module)

    class DeepSpeedSource(WeightSource):
        def metadata(self) -> list[ParamMeta]:
            return [ParamMeta(source.name, source.dtype, source.shape) for source in sources]

        def __iter__(self) -> Iterator[tuple[str, Any]]:
            for source in sources:
                with source.whole() as tensor:
                    yield source.name, tensor

    return DeepSpeedSource()
