"""Loading the policy and saving it again, as Hugging Face checkpoints."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from open_instruct.checkpoints import replace_folder, sync_tree


def resolve_dtype(name: str, *, on_cpu: bool) -> str:
    """ "auto" -> float32 on a CPU, where it costs little and agrees exactly with the learner, else bfloat16."""
    if name != "auto":
        return name
    return "float32" if on_cpu else "bfloat16"


def load_policy(
    name_or_path: str, *, revision: str | None, dtype: str, attn_implementation: str | None, device: str
) -> Any:
    """A causal language model in `dtype` on `device`; never runs code from the hub."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        name_or_path,
        revision=revision,
        dtype=getattr(torch, dtype),
        attn_implementation=attn_implementation or "sdpa",
        trust_remote_code=False,
    )
    return model.to(device)


def response_logprobs(model: Any, batch: dict[str, Any], temperature: float) -> Any:
    """Log-probabilities of a packed batch's N response tokens, row by row: (N,) float32, in nats.

    `batch` holds `input_ids`, `position_ids` and `response_mask`, each (B, L). Positions start again at 0
    with each sample, and at each token of padding: transformers reads the packs' borders from that, and
    builds the mask that the model's layers ask for (sliding windows, flash attention). The output head
    runs on the positions that predict response tokens alone, so logits are (N, V), not (B, L, V).
    """
    from open_instruct.grpo_utils import token_logprobs

    inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False}
    predicted = batch["response_mask"][:, 1:] > 0
    tokens = batch["input_ids"][:, 1:][predicted]
    if head_is_linear(model):
        hidden = model.get_decoder()(**inputs).last_hidden_state[:, :-1][predicted]
        logits = model.get_output_embeddings()(hidden)
    else:
        logits = model(**inputs).logits[:, :-1][predicted]
    return token_logprobs(logits, tokens, temperature)


def head_is_linear(model: Any) -> bool:
    """False for models that scale or cap their logits after the head; those keep their own forward."""
    config = model.config
    return not any(getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"))


def policy_module(model: Any, temperature: float) -> Any:
    """`model` as a torch module whose forward is `response_logprobs`: what DeepSpeed wraps."""
    import torch

    class Policy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: dict[str, Any]) -> Any:
            return response_logprobs(self.model, batch, temperature)

    return Policy()


def save_checkpoint(model: Any, tokenizer: Any, folder: Path, state_dict: dict[str, Any] | None = None) -> None:
    """Write model and tokenizer to `folder`, which is replaced only once everything is on disk."""
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial, state_dict=state_dict, safe_serialization=True)
    tokenizer.save_pretrained(partial)
    sync_tree(partial)
    replace_folder(partial, folder)
