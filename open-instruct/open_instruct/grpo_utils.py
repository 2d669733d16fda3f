"""Advantages, losses and KL estimators, under upstream's module name: see `open_instruct.learner.grpo`."""

from open_instruct.config.flags import parse_denominator
from open_instruct.learner.grpo import (
    ADVANTAGE_TYPES,
    LOSS_FNS,
    RhoCorrection,
    group_advantages,
    kl_penalty,
    number_segments,
    policy_loss,
    rho_correction,
    segment_lengths,
    segment_mean,
    token_logprobs,
    token_weights,
)

__all__ = [
    "ADVANTAGE_TYPES",
    "LOSS_FNS",
    "RhoCorrection",
    "group_advantages",
    "kl_penalty",
    "number_segments",
    "parse_denominator",
    "policy_loss",
    "rho_correction",
    "segment_lengths",
    "segment_mean",
    "token_logprobs",
    "token_weights",
]
