"""The reference policy of the KL term: a frozen copy of the policy, or the policy with its adapters off."""

from __future__ import annotations

from typing import Any, Protocol

from open_instruct.config.args import Args
from open_instruct.learner.optim import deepspeed_config


class Reference(Protocol):
    """Where the KL term is measured from."""

    def logprobs(self, inputs: dict[str, Any]) -> Any:
        """Log-probabilities (N,) of a micro-batch's response tokens, without gradient."""

    def update(self, alpha: float) -> None:
        """Move towards the policy: reference = alpha x policy + (1 - alpha) x reference."""

    def state(self) -> dict[str, Any] | None:
        """What has to be saved to continue with the same reference; None when it is the initial policy."""

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned on this rank."""


class CopiedReference:
    """A second model of the policy's shape. Under ZeRO-3 it is sharded over the learners like the policy."""

    def __init__(self, policy: Any, copy: Any, config: dict[str, Any]) -> None:
        """`policy` and `copy` are modules whose forward takes a micro-batch's inputs; `copy` becomes frozen.

        `config` is `reference_config`, with which a sharded `copy` has been loaded.
        """
        self._policy, self._moved = policy, False
        self._copy = copy.eval().requires_grad_(False)
        self._call = self._copy
        if config["zero_optimization"]["stage"] == 3:
            import deepspeed

            self._call, *_ = deepspeed.initialize(model=self._copy, config=config)
            self._call.eval()

    def logprobs(self, inputs: dict[str, Any]) -> Any:
        """Log-probabilities of the response tokens of a micro-batch, (N,)."""
        import torch

        with torch.no_grad():
            return self._call(inputs)[0]

    def update(self, alpha: float) -> None:
        """Move towards the policy: alpha x policy + (1 - alpha) x reference."""
        import torch

        self._moved = True
        with torch.no_grad():
            for own, new in zip(self._copy.parameters(), self._policy.parameters(), strict=True):
                _local(own).lerp_(_local(new).to(_local(own)), alpha)
                _forget_second_shard(own)

    def state(self) -> dict[str, Any] | None:
        """The reference's parameters on this rank; None while it is the initial policy."""
        return {name: _local(p).cpu().clone() for name, p in self._copy.named_parameters()} if self._moved else None

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        import torch

        self._moved = True
        with torch.no_grad():
            for name, parameter in self._copy.named_parameters():
                _local(parameter).copy_(state[name])
                _forget_second_shard(parameter)


class BaseModelReference:
    """The policy without its LoRA adapters: no second copy, and always the initial policy."""

    def __init__(self, engine: Any, wrapped: Any) -> None:
        self._engine, self._wrapped = engine, wrapped

    def logprobs(self, inputs: dict[str, Any]) -> Any:
        """Log-probabilities of the response tokens of a micro-batch, (N,)."""
        import torch

        with torch.no_grad(), self._wrapped.disable_adapter():
            return self._engine(inputs)[0]

    def update(self, alpha: float) -> None:
        """Not possible: it would move the policy."""
        raise NotImplementedError("--ref_policy_update_freq cannot move the base model of LoRA adapters")

    def state(self) -> dict[str, Any] | None:
        """None: the base model is not trained."""
        return None

    def load(self, state: dict[str, Any]) -> None:
        """Not possible: no state holds one."""
        raise NotImplementedError("the base model of LoRA adapters is no part of a state")


def _local(parameter: Any) -> Any:
    """The part of a parameter that this rank keeps: all of it, or its shard under ZeRO-3."""
    return parameter.ds_tensor if hasattr(parameter, "ds_id") else parameter.data


def _forget_second_shard(parameter: Any) -> None:
    """With `--deepspeed_zpg` DeepSpeed gathers from a second shard; it makes that anew from the first."""
    if getattr(parameter, "ds_secondary_tensor", None) is not None:
        parameter.ds_secondary_tensor = None


def reference_config(args: Args, *, dtype: str, on_cpu: bool) -> dict[str, Any]:
    """DeepSpeed's configuration of a reference: the policy's, for a model that is not trained.

    `CopiedReference.update` writes to the shards of ZeRO-3, so no weight may be kept whole besides; and
    DeepSpeed can make the groups of `--deepspeed_zpg` for one model only.
    """
    config = deepspeed_config(args, dtype=dtype, on_cpu=on_cpu)
    zero = config["zero_optimization"]
    zero["stage3_param_persistence_threshold"] = 0
    for name in ("offload_optimizer", "zero_hpz_partition_size"):
        zero.pop(name, None)
    return config


def needs_reference(args: Args) -> bool:
    """Whether the loss has a KL term."""
    return args.load_ref_policy and args.beta != 0.0
