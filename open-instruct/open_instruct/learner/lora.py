"""LoRA through peft (arXiv 2106.09685): adapters are trained, the policy's own weights stay as they are.

The engines, and the checkpoint, get the merged weights under the base model's names (`engines.weights.gather`);
the checkpoint has the adapters in its folder `adapter/`, too. With the adapters off, the policy is the reference
of the KL term, so there is no second copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from open_instruct.config.args import Args
from open_instruct.engines.weights.gather import gathered

ADAPTER_FOLDER = "adapter"


def add_adapters(model: Any, args: Args) -> Any:
    """Put adapters into `model` (changed in place, base weights frozen); returns peft's model around it.

    Without `--lora_target_modules` every linear layer but the output head has one. Raises ValueError for
    modules that the model does not have, and for a head or embeddings that share one weight.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=args.lora_target_modules or "all-linear",
    )
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    tied = getattr(model.config, "tie_word_embeddings", False)
    wrapped = get_peft_model(model, config)
    adapted_ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if tied and adapted_ends != ends:
        raise ValueError(
            f"--lora_target_modules {' '.join(args.lora_target_modules)}: this model's output head and embeddings "
            "are one weight, which cannot be merged with an adapter on one of them. Leave them out."
        )
    return wrapped


def adapter_state(wrapped: Any, *, keep: bool) -> dict[str, Any]:
    """The trained weights, whole, in main memory; empty where `keep` is False.

    Under ZeRO-3 every rank must call, ranks but the first with keep=False.
    """
    state = {}
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            with gathered(parameter):
                if keep:
                    state[name] = parameter.detach().cpu().clone()
    return state


def write_adapter(wrapped: Any, state: dict[str, Any], folder: Path) -> None:
    """peft's adapter files, from `adapter_state`, in `folder`/adapter."""
    # Whether the embeddings were resized would be looked up on the hub: they never are.
    wrapped.save_pretrained(str(folder / ADAPTER_FOLDER), state_dict=state, save_embedding_layers=False)
