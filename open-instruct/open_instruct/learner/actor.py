"""The learner: a Ray actor, one a rank, that takes packed batches and steps the policy with DeepSpeed.

The loss is in `objective`, optimiser and schedule in `optim`, the reference of the KL term in `reference`, the
forward pass in `logprobs`, adapters in `lora`.
"""

from __future__ import annotations

import math
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from open_instruct.config.args import Args
from open_instruct.config.memory_plan import takes_turns
from open_instruct.data.types import PackedBatch
from open_instruct.engines.weights.send import Weights
from open_instruct.learner.group import Whereabouts, whereabouts
from open_instruct.learner.objective import RATIO, RATIO_SQUARED, TOKENS, MicroBatch, TokenStatistics
from open_instruct.learner.reference import Reference
from open_instruct.state.rank import FileSums, load_rank, save_rank

PLAIN_METRICS = ("lr", "optim/grad_norm", "time/training")


def mean_over_tokens(results: list[dict[str, float]]) -> dict[str, float | None]:
    """Metrics of all learners: sums over tokens become means over all tokens, None where there are none.

    What is called ``..._max`` is the greatest of all; `val/ratio_var` is the ratio's variance over tokens.
    """
    tokens = sum(r.get(TOKENS, 0.0) for r in results)
    names = {name for r in results for name in r} - {*PLAIN_METRICS, TOKENS}
    means: dict[str, float | None] = {}
    for name in sorted(names):
        values = [r[name] for r in results if name in r and r.get(TOKENS)]
        if not tokens:
            means[name] = None
        else:
            means[name] = max(values) if name.endswith("_max") else sum(values) / tokens
    squared, ratio = means.pop(RATIO_SQUARED, None), means.get(RATIO)
    if squared is not None and ratio is not None:
        means["val/ratio_var"] = max(squared - (ratio - 1.0) ** 2, 0.0)
    return means | {n: sum(r[n] for r in results) / len(results) for n in PLAIN_METRICS}


class PolicyTrainerRayProcess:
    """One learner rank. The driver calls `setup`, `connect`, then `step` and `sync_weights` in turns."""

    def __init__(self, rank: int, world_size: int, *, on_cpu: bool) -> None:
        self.rank, self.world_size, self.on_cpu = rank, world_size, on_cpu
        self.device = "cpu" if on_cpu else "cuda"
        self.training_step = 0  # steps so far, over all runs that continued each other

    def address(self) -> tuple[str, int]:
        """Where rank 0 listens for the others: (ip, free port)."""
        import ray

        from flip_plugin.serving.processes import free_port

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

        from open_instruct.state.random_state import seed_everything

        if self.on_cpu:
            torch.set_num_threads(args.learner_threads or os.cpu_count() or 1)
        seed_everything(args.seed + self.rank)
        self.args, self.pad_token_id = args, pad_token_id
        self._init_distributed()
        import deepspeed

        from open_instruct.engines.weights.gather import full_shape
        from open_instruct.learner.hf_io import resolve_dtype
        from open_instruct.learner.optim import deepspeed_config, make_optimizer, make_scheduler
        from open_instruct.learner.reference import needs_reference

        dtype = resolve_dtype(args.model_dtype, on_cpu=self.on_cpu)
        config = deepspeed_config(args, dtype=dtype, on_cpu=self.on_cpu)
        model = self._load(dtype, config)
        self.wrapped = None
        if args.use_peft:
            from open_instruct.learner.lora import add_adapters

            self.wrapped = add_adapters(model, args)
        if args.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        self.model = model
        optimizer = make_optimizer(args, model)
        self.engine, *_ = deepspeed.initialize(
            model=self._policy(model, with_entropy=args.record_entropy),
            optimizer=optimizer,
            lr_scheduler=make_scheduler(args, optimizer),
            config=config,
        )
        self.reference = self._make_reference(dtype) if needs_reference(args) else None
        trainable = sum(math.prod(full_shape(p)) for p in model.parameters() if p.requires_grad)
        return {
            "parameters": sum(math.prod(full_shape(p)) for p in model.parameters()),
            "trainable_parameters": trainable,
            "dtype": dtype,
        }

    def _load(self, dtype: str, config: dict[str, Any]) -> Any:
        """The initial policy; under ZeRO-3 (of DeepSpeed's `config`), this rank's shard of it."""
        from open_instruct.learner.hf_io import disable_dropout, load_policy

        args = self.args
        model = load_policy(
            args.model_name_or_path,
            revision=args.model_revision,
            dtype=dtype,
            attn_implementation=args.attn_implementation,
            device=self.device,
            shard_config=config if args.deepspeed_stage == 3 else None,
        )
        disable_dropout(model)
        return model

    def _policy(self, model: Any, *, with_entropy: bool = False) -> Any:
        from open_instruct.learner.logprobs import Policy

        return Policy(model, self.args.temperature, chunk_size=self.args.logprob_chunk_size, with_entropy=with_entropy)

    def _make_reference(self, dtype: str) -> Reference:
        from open_instruct.learner.reference import BaseModelReference, CopiedReference, reference_config

        if self.wrapped is not None:
            return BaseModelReference(self.engine, self.wrapped)
        config = reference_config(self.args, dtype=dtype, on_cpu=self.on_cpu)
        return CopiedReference(self.engine.module, self._policy(self._load(dtype, config)), config)

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

    def connect(self, engines: list[Any], address: tuple[str, int], engine_dtype: str) -> None:
        """Set up the way to the policy engines (handles), if there are any; every rank must call it."""
        import torch

        from open_instruct.engines.weights.send import NcclSender, ObjectStoreSender, weight_backend

        self.sender: Any = None
        if not engines:
            return
        if weight_backend(self.args, on_cpu=self.on_cpu) == "shared_memory":
            self.sender = ObjectStoreSender(self.model, getattr(torch, engine_dtype), self.rank)
        else:
            tp = self.args.vllm_tensor_parallel_size
            self.sender = NcclSender(
                self.model,
                engines,
                self.rank,
                tensor_parallel_size=tp,
                address=address[0],
                port=address[1],
            )

    def sync_weights(self, version: int, engines: list[Any]) -> Weights | None:
        """Bring `engines` (handles) to this learner's weights; every rank must call it.

        Returns, on rank 0 and without NCCL, the weights for engines that are started later.
        """
        if takes_turns(self.args, on_cpu=self.on_cpu):
            import torch

            torch.cuda.empty_cache()  # what the step used, for the engines that wake up now
        return None if self.sender is None else self.sender.send(engines, version)

    def step(self, batches: list[PackedBatch]) -> dict[str, float]:
        """Train on one step's mini-batches: an optimiser step for each, `num_epochs` times over.

        Returns sums over this rank's response tokens, their number `tokens`, and plain values: see
        `mean_over_tokens` for what is what.
        """
        from open_instruct.learner.objective import micro_batches

        start = time.perf_counter()
        size = self.args.per_device_train_batch_size
        mini_batches = [list(micro_batches(batch, size, self.device)) for batch in batches]
        self._log_before_updates(mini_batches)
        statistics, self.grad_norms = TokenStatistics(), []
        for epoch in range(self.args.num_epochs):
            for mini_batch in mini_batches:
                self._update(mini_batch, statistics, keep_old=epoch == 0 and self.args.num_epochs > 1)
        self.training_step += 1
        every = self.args.ref_policy_update_freq
        if self.reference is not None and every and self.training_step % every == 0:
            self.reference.update(self.args.alpha)
        return statistics.result() | {
            "lr": self.engine.get_lr()[0],
            "optim/grad_norm": sum(self.grad_norms) / len(self.grad_norms) if self.grad_norms else 0.0,
            "time/training": time.perf_counter() - start,
        }

    def _log_before_updates(self, mini_batches: list[list[MicroBatch]]) -> None:
        """The log-probabilities of the reference, and of the old policy: the policy before this step's updates.

        The first mini-batch needs no pass of its own: nothing is updated before it is seen.
        """
        import torch

        later = [micro for mini_batch in mini_batches[1:] for micro in mini_batch]
        if later and not self.args.use_vllm_logprobs:
            self.engine.eval()
            with torch.no_grad():
                for micro in later:
                    micro.old_logprobs = self.engine(micro.inputs)[0]
            self.engine.train()
        if self.reference is not None:
            for mini_batch in mini_batches:
                for micro in mini_batch:
                    micro.ref_logprobs = self.reference.logprobs(micro.inputs)

    def _update(self, mini_batch: list[MicroBatch], statistics: TokenStatistics, *, keep_old: bool) -> None:
        """One optimiser step; `keep_old` notes the log-probabilities of before as the old policy's."""
        from open_instruct.learner.objective import micro_batch_loss

        tokens, responses = self._over_all_learners(mini_batch)
        if not tokens:
            return  # nothing to learn from: momentum and weight decay must not move the policy either
        for i, micro in enumerate(mini_batch):
            last = i == len(mini_batch) - 1
            self.engine.set_gradient_accumulation_boundary(last)
            logprobs, entropy = self.engine(micro.inputs)
            if keep_old and micro.old_logprobs is None:
                micro.old_logprobs = logprobs.detach()
            loss, observed = micro_batch_loss(
                self.args, micro, logprobs, entropy, num_tokens=tokens, num_responses=responses
            )
            statistics.add(observed)
            # DeepSpeed averages gradients over the learners; the loss is a share of a sum over them.
            self.engine.backward(loss * self.world_size, scale_wrt_gas=False)
            norm = self._gradient_norm() if last else 0.0
            self.engine.step()
        self.grad_norms.append(float(self.engine.get_global_grad_norm() or norm))

    def _gradient_norm(self) -> float:
        """Before clipping, where whole gradients are here; ZeRO knows it only after its own step."""
        import torch

        if self.args.deepspeed_stage:
            return 0.0
        gradients = [p.grad for p in self.engine.module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def _over_all_learners(self, mini_batch: list[MicroBatch]) -> tuple[float, float]:
        """Response tokens and responses of an optimiser step."""
        import torch

        counts = [sum(m.num_tokens for m in mini_batch), sum(m.num_responses for m in mini_batch)]
        if self.world_size > 1:
            shared = torch.tensor(counts, device=self.device, dtype=torch.float64)
            torch.distributed.all_reduce(shared)
            counts = shared.tolist()
        return float(counts[0]), float(counts[1])

    def save_model(self, folder: str) -> None:
        """Hugging Face checkpoint, written by rank 0; under ZeRO-3 every rank must call it."""
        from open_instruct.data.templates import get_tokenizer
        from open_instruct.engines.weights.gather import whole_state
        from open_instruct.learner.hf_io import save_checkpoint

        keep = self.rank == 0
        state, write_more = None, None
        if self.args.deepspeed_stage == 3 or self.wrapped is not None:
            state = whole_state(self.model, keep=keep)
        if self.wrapped is not None:
            from open_instruct.learner.lora import adapter_state, write_adapter

            write_more = partial(write_adapter, self.wrapped, adapter_state(self.wrapped, keep=keep))
        if keep:
            args = self.args
            tokenizer = get_tokenizer(
                args.tokenizer_name_or_path or args.model_name_or_path,
                chat_template_name=args.chat_template_name,
                revision=args.tokenizer_revision,
            )
            save_checkpoint(self.model, tokenizer, Path(folder), state, write_more)

    def save_state(self, folder: str, step: int) -> FileSums:
        """Write this rank's part of the state after `step` steps; every rank must call it."""
        if self.training_step != step:
            raise RuntimeError(f"learner {self.rank} has made {self.training_step} steps: this is no state of {step}")
        return save_rank(self, folder)

    def load_state(self, folder: str, step: int) -> None:
        """Take up the state that was saved after `step` steps; every rank must call it."""
        load_rank(self, folder)
        self.training_step = step

    def sees(self, folder: str) -> bool:
        """Whether `folder` is there on this learner's machine."""
        return Path(folder).is_dir()

    def whereabouts(self) -> Whereabouts:
        """Where this learner runs and logs, for when it is no longer there to be asked."""
        return whereabouts()


def create_learners(
    args: Args, *, on_cpu: bool, gpus_per_learner: float, strategies: list[Any] | None = None
) -> list[Any]:
    """The learner actors of all nodes; `setup` and `connect` must follow. `strategies`: where Ray puts each."""
    import ray

    environment = {"DS_ACCELERATOR": "cpu"} if on_cpu else {}
    actor = ray.remote(PolicyTrainerRayProcess)
    common = {"num_cpus": 0, "num_gpus": gpus_per_learner, "runtime_env": {"env_vars": environment}}
    return [
        actor.options(**common, scheduling_strategy=strategies[rank] if strategies else None).remote(
            rank, args.world_size, on_cpu=on_cpu
        )
        for rank in range(args.world_size)
    ]
