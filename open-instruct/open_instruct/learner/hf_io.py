"""Loading the policy and saving it again, as Hugging Face checkpoints."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flip_plugin.files.atomic import replace_folder, sync_tree


def resolve_dtype(name: str, *, on_cpu: bool) -> str:
    """For "auto" float32 on a CPU, where it costs little and agrees exactly with the learner, else bfloat16."""
    if name != "auto":
        return name
    return "float32" if on_cpu else "bfloat16"


def load_policy(
    name_or_path: str,
    *,
    revision: str | None,
    dtype: str,
    attn_implementation: str | None,
    device: str,
    shard_config: dict[str, Any] | None = None,
) -> Any:
    """A causal language model in `dtype` on `device`; never runs code from the hub.

    With `shard_config`, DeepSpeed's for ZeRO-3, each rank keeps its shard of every weight from the start, and
    never holds the whole model; all ranks must call.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations import HfDeepSpeedConfig

    # transformers looks for it as long as it is alive.
    sharding = HfDeepSpeedConfig(shard_config) if shard_config else None
    model = AutoModelForCausalLM.from_pretrained(
        name_or_path,
        revision=revision,
        dtype=getattr(torch, dtype),
        attn_implementation=attn_implementation or "sdpa",
        trust_remote_code=False,
    )
    if sharding is None:
        return model.to(device)
    for module in model.modules():  # weights are where they belong; moving the model would move them again
        module._buffers |= {name: b if b is None else b.to(device) for name, b in module._buffers.items()}
    return model


def disable_dropout(model: Any) -> None:
    """No dropout, in layers or attention: the ratio of two passes over the same tokens must be the weights' alone."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def save_checkpoint(
    model: Any,
    tokenizer: Any,
    folder: Path,
    state_dict: dict[str, Any] | None = None,
    write_more: Callable[[Path], None] | None = None,
) -> None:
    """Write model and tokenizer to `folder`, which is replaced only once everything is on disk.

    `state_dict` holds the weights where the model itself does not have them whole; `write_more` is called with
    the folder that is being written, to add to it.
    """
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial, state_dict=state_dict, safe_serialization=True)
    tokenizer.save_pretrained(partial)
    if write_more is not None:
        write_more(partial)
    sync_tree(partial)
    replace_folder(partial, folder)
