"""Optimiser, schedule and DeepSpeed's configuration, from the flags."""

from __future__ import annotations

from typing import Any

from open_instruct.config.args import Args
from open_instruct.engines.weights.gather import full_shape


def deepspeed_config(args: Args, *, dtype: str, on_cpu: bool = False) -> dict[str, Any]:
    """DeepSpeed's configuration. Accumulation boundaries are set by hand: a step's number of packs varies.

    In bfloat16, stage 1 takes the place of stage 0: the latter can only sum the gradients of a step's packs in
    bfloat16, where their small parts are lost, and counts Adam's steps from 1.
    """
    half = dtype == "bfloat16"
    stage = args.deepspeed_stage or int(half)
    return {
        "train_micro_batch_size_per_gpu": args.per_device_train_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": args.max_grad_norm,
        "bf16": {"enabled": half},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": _zero(args, stage, pin_memory=not on_cpu),
        # torch's own AdamW, fused, takes the place of an optimiser that is compiled at run time.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def _zero(args: Args, stage: int, *, pin_memory: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False}
    if stage == 3 and args.deepspeed_zpg > 1:
        zero["zero_hpz_partition_size"] = args.deepspeed_zpg
    if args.deepspeed_offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pin_memory}
    if args.deepspeed_offload_param:
        zero["offload_param"] = {"device": "cpu", "pin_memory": pin_memory}
    return zero


def parameter_groups(module: Any, weight_decay: float, *, decay_bias_and_norm: bool) -> list[dict[str, Any]]:
    """The trainable parameters as AdamW takes them: one group, or matrices with decay and vectors without.

    Biases and the weights of norms are what has fewer than two dimensions. Groups without parameters are
    left out, which DeepSpeed could not partition.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    if decay_bias_and_norm:
        return [{"params": trainable, "weight_decay": weight_decay}]
    groups = [
        {"params": [p for p in trainable if len(full_shape(p)) > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if len(full_shape(p)) < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(args: Args, module: Any) -> Any:
    """AdamW over the trainable parameters."""
    import torch

    groups = parameter_groups(module, args.weight_decay, decay_bias_and_norm=args.set_weight_decay_on_bias_and_norm)
    return torch.optim.AdamW(groups, lr=args.learning_rate, fused=args.fused_optimizer)


def optimizer_steps(args: Args) -> int:
    """Optimiser steps of the whole run."""
    return args.num_training_steps * args.num_mini_batches * args.num_epochs


def make_scheduler(args: Args, optimizer: Any) -> Any:
    """transformers' schedule of `--lr_scheduler_type`; `--warm_up_steps` goes before `--warmup_ratio`."""
    from transformers import get_scheduler

    steps = optimizer_steps(args)
    # Its default would end at 1e-7, and refuse peaks below.
    specific = {"lr_end": 0.0} if args.lr_scheduler_type == "polynomial" else None
    return get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=args.warm_up_steps or int(steps * args.warmup_ratio),
        num_training_steps=steps,
        scheduler_specific_kwargs=specific,
    )
