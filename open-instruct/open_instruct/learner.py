"""The learner: a Ray actor, one a rank, that takes packed batches and steps the policy with DeepSpeed.

Loss of a step, over all response tokens of all learners (a token mean, as in DAPO):

    min(p_now / p_sampler, cap) * clipped surrogate + beta * KL(policy || initial policy)
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from open_instruct.config import Args
from open_instruct.data_types import PackedBatch

PLAIN_METRICS = ("lr", "optim/grad_norm", "time/training")


def mean_over_tokens(results: list[dict[str, float]]) -> dict[str, float | None]:
    """Metrics of all learners: sums over tokens become means over all tokens, None where there are none."""
    tokens = sum(r.get("tokens", 0.0) for r in results)
    names = {name for r in results for name in r} - {*PLAIN_METRICS, "tokens"}
    means = {n: sum(r.get(n, 0.0) for r in results) / tokens if tokens else None for n in sorted(names)}
    return means | {n: sum(r[n] for r in results) / len(results) for n in PLAIN_METRICS}


def deepspeed_config(args: Args, *, dtype: str) -> dict[str, Any]:
    """What DeepSpeed is told. Accumulation boundaries are set by hand: a step's number of packs varies."""
    return {
        "train_micro_batch_size_per_gpu": args.per_device_train_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": args.max_grad_norm,
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_optimization": {"stage": args.deepspeed_stage, "overlap_comm": False},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


class PolicyTrainerRayProcess:
    """One learner rank. The driver calls `setup`, `connect`, then `step` and `sync_weights` in turns."""

    def __init__(self, rank: int, world_size: int, *, on_cpu: bool) -> None:
        self.rank, self.world_size, self.on_cpu = rank, world_size, on_cpu
        self.device = "cpu" if on_cpu else "cuda"
        self.grad_norm = 0.0

    def address(self) -> tuple[str, int]:
        """Where rank 0 listens for the others: (ip, free port)."""
        import ray

        from flip_plugin.processes import free_port

        host = ray.util.get_node_ip_address()
        return host, free_port(host)

    def setup(self, args: Args, address: tuple[str, int], pad_token_id: int) -> dict[str, Any]:
        """Load the policy and wrap it in DeepSpeed; returns facts for the log (parameters, dtype)."""
        os.environ |= {
            "RANK": str(self.rank),
            "LOCAL_RANK": "0",
            "WORLD_SIZE": str(self.world_size),
            "MASTER_ADDR": address[0],
            "MASTER_PORT": str(address[1]),
        }
        import torch

        if self.on_cpu:
            torch.set_num_threads(args.learner_threads or os.cpu_count() or 1)
        torch.manual_seed(args.seed + self.rank)
        self.args, self.pad_token_id = args, pad_token_id
        self._init_distributed()
        import deepspeed

        from open_instruct.model_utils import load_policy, policy_module, resolve_dtype

        dtype = resolve_dtype(args.model_dtype, on_cpu=self.on_cpu)
        load = {
            "revision": args.model_revision,
            "dtype": dtype,
            "attn_implementation": args.attn_implementation,
            "device": self.device,
        }
        model = load_policy(args.model_name_or_path, **load)
        if args.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        self.model = model
        self.reference = None
        if args.beta:
            self.reference = policy_module(load_policy(args.model_name_or_path, **load), args.temperature).eval()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay, fused=True
        )
        self.engine, *_ = deepspeed.initialize(
            model=policy_module(model, args.temperature),
            optimizer=optimizer,
            lr_scheduler=self._scheduler(optimizer),
            config=deepspeed_config(args, dtype=dtype),
        )
        return {"parameters": sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters()), "dtype": dtype}

    def _init_distributed(self) -> None:
        from datetime import timedelta

        import deepspeed

        if self.on_cpu:
            # Saves a C++ compiler at run time, and the named shared-memory files that a killed run would leave.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(
            dist_backend="gloo" if self.on_cpu else "nccl",
            timeout=timedelta(minutes=self.args.backend_timeout),
            verbose=False,
        )

    def _scheduler(self, optimizer: Any) -> Any:
        from transformers import get_scheduler

        updates = self.args.num_training_steps * self.args.num_mini_batches * self.args.num_epochs
        return get_scheduler(
            self.args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=int(updates * self.args.warmup_ratio),
            num_training_steps=updates,
        )

    def connect(self, engines: list[Any], address: tuple[str, int], engine_dtype: str) -> None:
        """Set up the way to the policy engines; every rank must call it."""
        import torch

        from open_instruct.weight_sync import NcclSender, ObjectStoreSender, weight_backend

        if weight_backend(self.args, on_cpu=self.on_cpu) == "shared_memory":
            self.sender: Any = ObjectStoreSender(self.model, getattr(torch, engine_dtype), engines, self.rank)
        else:
            tp = self.args.vllm_tensor_parallel_size
            self.sender = NcclSender(
                self.model, engines, self.rank,
                tensor_parallel_size=tp, address=address[0], port=address[1],
            )  # fmt: skip

    def sync_weights(self, version: int) -> float:
        """Bring all engines to this learner's weights; returns the seconds it took."""
        start = time.perf_counter()
        self.sender.send(version)
        return time.perf_counter() - start

    def step(self, batches: list[PackedBatch]) -> dict[str, float]:
        """Train on a step's mini-batches, an optimiser step each; returns sums over this rank's response tokens,
        `tokens`, and plain values.

        See `mean_over_tokens` for what is what.
        """
        start = time.perf_counter()
        mini_batches = [list(self._micro_batches(batch)) for batch in batches]
        micro_batches = [micro for mini_batch in mini_batches for micro in mini_batch]
        passes = self.args.num_mini_batches * self.args.num_epochs
        if passes > 1:  # with a single pass the old policy is the one that is about to be updated
            for micro in micro_batches:
                micro["old_logprobs"] = self._without_grad(self.engine, micro)
        if self.reference is not None:
            for micro in micro_batches:
                micro["ref_logprobs"] = self._without_grad(self.reference, micro)
        totals: dict[str, float] = {}
        for _ in range(self.args.num_epochs):
            for mini_batch in mini_batches:
                self._update(mini_batch, totals)
        return totals | {
            "lr": self.engine.get_lr()[0],
            "optim/grad_norm": self.grad_norm,
            "time/training": time.perf_counter() - start,
        }

    def _micro_batches(self, batch: PackedBatch) -> Any:
        import torch

        names = ("input_ids", "position_ids", "segment_ids", "response_mask", "advantages", "sampler_logprobs")
        size = self.args.per_device_train_batch_size
        for start in range(0, len(batch.input_ids), size):
            # Ray's arrays are read-only views of shared memory, which torch would complain about.
            yield {
                name: torch.from_numpy(np.array(getattr(batch, name)[start : start + size])).to(self.device)
                for name in names
            }

    def _without_grad(self, policy: Any, micro: dict[str, Any]) -> Any:
        import torch

        with torch.no_grad():
            return policy(micro)

    def _update(self, micro_batches: list[dict[str, Any]], totals: dict[str, float]) -> None:
        """One optimiser step; adds sums over tokens to `totals`."""
        tokens = self._tokens_of_all_learners(micro_batches)
        if not tokens:
            return  # nothing to learn from: momentum and weight decay must not move the policy either
        for i, micro in enumerate(micro_batches):
            self.engine.set_gradient_accumulation_boundary(i == len(micro_batches) - 1)
            loss_sum = self._loss(micro, totals)
            # DeepSpeed averages gradients over the learners; we want the mean over all their tokens.
            self.engine.backward(loss_sum * (self.world_size / tokens), scale_wrt_gas=False)
            if i == len(micro_batches) - 1:
                self.grad_norm = self._gradient_norm()
            self.engine.step()
        self.grad_norm = float(self.engine.get_global_grad_norm() or self.grad_norm)

    def _gradient_norm(self) -> float:
        """Before clipping, where whole gradients are here; ZeRO knows it only after its own step."""
        import torch

        if self.args.deepspeed_stage:
            return 0.0
        gradients = [p.grad for p in self.engine.module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def _tokens_of_all_learners(self, micro_batches: list[dict[str, Any]]) -> float:
        import torch

        tokens = sum((m["response_mask"][:, 1:].sum() for m in micro_batches), torch.zeros((), device=self.device))
        if self.world_size > 1:
            torch.distributed.all_reduce(tokens)
        return float(tokens)

    def _loss(self, micro: dict[str, Any], totals: dict[str, float]) -> Any:
        """The sum of the loss over this micro-batch's N response tokens; all tensors here are (N,)."""
        from open_instruct.grpo_utils import kl_penalty, number_segments, policy_loss, rho_correction

        args = self.args
        predicted = micro["response_mask"][:, 1:] > 0
        advantages, sampler = micro["advantages"][:, 1:][predicted], micro["sampler_logprobs"][:, 1:][predicted]
        logprobs = self.engine(micro)
        old = micro.get("old_logprobs", logprobs.detach())
        segments = number_segments(micro["segment_ids"][:, 1:], predicted)
        surrogate, clipped = policy_loss(
            logprobs, old, advantages, segments,
            loss_fn=args.loss_fn, clip_lower=args.clip_lower, clip_higher=args.clip_higher,
        )  # fmt: skip
        weights = rho_correction(
            old, sampler, advantages, segments,
            clamp_lower=args.rho_clamp_lower_bound, clamp_upper=args.truncated_importance_sampling_ratio_cap,
            mask_lower=args.rho_mask_lower_bound, mask_upper=args.rho_mask_upper_bound,
            sequence_level=args.rho_mask_sequence_level, tv_divergence=args.rho_mask_tv_divergence,
        ).weights  # fmt: skip
        loss = surrogate * weights
        observed = {
            "loss/policy_avg": loss,
            "policy/clipfrac_avg": clipped.float(),
            "val/ratio": (logprobs - old).exp(),
            "val/tis_weight": weights,
            "val/sampler_logprob_gap": (old - sampler).abs(),
            "policy/neg_logprob_avg": -logprobs,
        }
        if self.reference is not None:
            kl = kl_penalty(logprobs, micro["ref_logprobs"], args.kl_estimator, (logprobs - old).exp())
            loss = loss + args.beta * kl
            observed["objective/kl_avg"] = kl
        for name, values in observed.items():
            totals[name] = totals.get(name, 0.0) + float(values.detach().sum())
        totals["tokens"] = totals.get("tokens", 0.0) + len(logprobs)
        return loss.sum()

    def save_model(self, folder: str) -> None:
        """Hugging Face checkpoint, written by rank 0; under ZeRO-3 every rank must call it."""
        from open_instruct.dataset_transformation import get_tokenizer
        from open_instruct.model_utils import save_checkpoint

        state = None
        if self.args.deepspeed_stage == 3:
            whole = self.engine._zero3_consolidated_16bit_state_dict()
            state = {k.removeprefix("model."): v for k, v in whole.items()} if whole else None
        if self.rank == 0:
            name = self.args.tokenizer_name_or_path or self.args.model_name_or_path
            tokenizer = get_tokenizer(name, chat_template_name=self.args.chat_template_name)
            save_checkpoint(self.model, tokenizer, Path(folder), state)

    def save_state(self, folder: str, step: int) -> None:
        """Model, optimiser and scheduler, as DeepSpeed keeps them; every rank must call it."""
        self.engine.save_checkpoint(folder, tag=f"step_{step}", client_state={"training_step": step})

    def load_state(self, folder: str, step: int) -> None:
        """Take up the state that was saved after `step` steps; every rank must call it."""
        path, _ = self.engine.load_checkpoint(folder, tag=f"step_{step}")
        if path is None:
            raise FileNotFoundError(f"{folder}/step_{step} holds no state that DeepSpeed can load")

    def logprobs_of(self, token_ids: list[int]) -> list[float]:
        """Log-probability of each token but the first at temperature 1, for checks of the weight sync."""
        import torch

        from open_instruct.model_utils import response_logprobs

        ids = torch.tensor([token_ids], device=self.device)
        batch = {
            "input_ids": ids,
            "position_ids": torch.arange(ids.shape[1], device=self.device)[None],
            "response_mask": torch.ones_like(ids),
        }
        with torch.no_grad():
            return response_logprobs(self.model, batch, 1.0).tolist()


def create_learners(args: Args, *, on_cpu: bool, gpus_per_learner: float) -> list[Any]:
    """The learner actors of all nodes; `setup` and `connect` must follow."""
    import ray

    environment = {"DS_ACCELERATOR": "cpu"} if on_cpu else {}
    actor = ray.remote(PolicyTrainerRayProcess)
    return [
        actor.options(num_cpus=0, num_gpus=gpus_per_learner, runtime_env={"env_vars": environment}).remote(
            rank, args.world_size, on_cpu=on_cpu
        )
        for rank in range(args.world_size)
    ]
