"""A policy's weights as whole tensors under the names of its checkpoint, whatever training has made of them.

Weight sync and checkpoints read these. Under ZeRO-3 a tensor is gathered for as long as it is looked at;
where a layer has LoRA adapters, its weight is merged with them into a copy, and the base stays as it is.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: peft keeps an adapted layer's own weights in this child, and the adapters in children named `lora_...`.
BASE_LAYER = ".base_layer."


@dataclass(frozen=True)
class FullTensor:
    """One weight: its name in the base model's checkpoint, its whole shape, and where it comes from."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    parameter: Any
    adapted_layer: Any = None

    @contextmanager
    def whole(self) -> Generator[torch.Tensor]:
        """The tensor, for reading, as long as the block lasts. Under ZeRO-3 a collective: every rank must enter."""
        import torch

        adapters = [] if self.adapted_layer is None else adapter_parameters(self.adapted_layer)
        with gathered(self.parameter, *adapters), torch.no_grad():
            if self.adapted_layer is None:
                yield self.parameter.data
            else:
                merged = self.parameter.data.clone()
                for adapter in self.adapted_layer.active_adapters:
                    merged += self.adapted_layer.get_delta_weight(adapter)
                yield merged


def full_tensors(module: Any) -> list[FullTensor]:
    """All weights of `module`, a transformers model with or without peft's LoRA layers in it.

    Tied weights are there once. The list can be kept: tensors are read when `whole` is entered.
    """
    adapted = {name: layer for name, layer in module.named_modules() if hasattr(layer, "get_delta_weight")}
    tensors = []
    for name, parameter in module.named_parameters():
        if any(part.startswith("lora_") for part in name.split(".")):
            continue
        owner, _, kind = name.rpartition(BASE_LAYER)
        layer = adapted.get(owner) if kind == "weight" else None
        tensors.append(
            FullTensor(name.replace(BASE_LAYER, "."), full_shape(parameter), parameter.dtype, parameter, layer)
        )
    return tensors


def adapter_parameters(layer: Any) -> list[Any]:
    """The LoRA matrices of one adapted layer."""
    return [p for name, p in layer.named_parameters() if name.startswith("lora_")]


def whole_state(module: Any, *, keep: bool) -> dict[str, torch.Tensor] | None:
    """What a checkpoint of `module` holds, copied to main memory; None where `keep` is False.

    Under ZeRO-3 every rank must call, ranks but the first with keep=False.
    """
    state = {}
    for tensor in full_tensors(module):
        with tensor.whole() as value:
            if keep:
                state[tensor.name] = value.detach().cpu().clone()
    saved = module.state_dict().keys()
    buffers = {name.replace(BASE_LAYER, "."): b.cpu() for name, b in module.named_buffers() if name in saved}
    return state | buffers if keep else None


@contextmanager
def gathered(*parameters: Any) -> Generator[None]:
    """Within the block `parameters` are whole on this rank, also under DeepSpeed ZeRO-3; for reading."""
    sharded = [p for p in parameters if hasattr(p, "ds_id")]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=None):
        yield


def full_shape(parameter: Any) -> tuple[int, ...]:
    """A parameter's shape, also where ZeRO-3 has left only a shard of it here."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
