"""vLLM weight-transfer backend ``shared_memory``: a state dict in one anonymous memory file.

Runs inside vLLM's worker (engine core) process; imported by vLLM through `open_instruct.engines.vllm_plugin`.
The sender is `open_instruct.engines.weights.send.SharedWeights` in the engine actor, this process's ancestor.
The file has no name in the file system (``memfd_create``): it is opened through the sender's
``/proc/<pid>/fd/<n>``, so a killed run cannot leave it behind.

Linear weights are repacked for the CPU kernels after they are loaded, so an update has to go through
vLLM's layer-wise reload. A tied output head would keep its old packed copy (off by more than a nat a
token when measured), which is why such models are refused here.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing to agree on: each update says where its bytes are."""


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """`path`: memory file with the tensors back to back; `tensors`: (name, dtype name, shape, offset in bytes)."""

    path: str
    num_bytes: int
    tensors: list[tuple[str, str, list[int], int]] = field(default_factory=list)


class SharedMemoryWeightTransferEngine(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """Receives checkpoint-format weights on the CPU."""

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        """Refuse a model that the CPU backend would update only in part."""
        config = self.model_config.hf_text_config
        if self.device.type == "cpu" and getattr(config, "tie_word_embeddings", False):
            raise ValueError(
                "This model ties its output head to its embeddings, and vLLM on a CPU keeps an old packed "
                "copy of a tied head after a weight update. Untie it first (set tie_word_embeddings to false "
                "and save lm_head.weight), or run on a GPU."
            )

    def start_weight_update(self) -> None:
        """Make the layers ready to be loaded again."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        """Load the tensors that lie in the sender's memory file."""
        handle = os.open(update_info.path, os.O_RDONLY)
        try:
            # A private mapping: writable as torch wants it, without a way back to the sender.
            buffer = mmap.mmap(handle, update_info.num_bytes, flags=mmap.MAP_PRIVATE)
        finally:
            os.close(handle)
        self.model.load_weights(_tensors(buffer, update_info.tensors))  # ty: ignore[not-callable]

    def finish_weight_update(self) -> None:
        """Repack the layers for the CPU kernels."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing is held between updates."""


def _tensors(buffer: mmap.mmap, tensors: list[tuple[str, str, list[int], int]]) -> Any:
    for name, dtype_name, shape, offset in tensors:
        count = 1
        for size in shape:
            count *= size
        flat = torch.frombuffer(buffer, dtype=getattr(torch, dtype_name), count=count, offset=offset)
        # The reload keeps what it is given until the layer is complete, and the file is reused.
        yield name, flat.view(shape).clone()
