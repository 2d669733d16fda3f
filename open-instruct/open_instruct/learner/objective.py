"""The loss of a micro-batch, and what is measured on the way: tensors over its N response tokens.

An optimiser step minimises, summed over all tokens of all learners,

    w_i (rho_i L_i + beta KL_i)

with w from `--loss_denominator`, rho from the correction between sampler and trainer (not a function of the
weights), L from `--loss_fn`, KL from `--kl_estimator`. The terms are pure functions in `learner.grpo`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from open_instruct.config.args import Args
from open_instruct.data.types import PackedBatch

if TYPE_CHECKING:
    import torch

TOKENS = "tokens"
RATIO, RATIO_SQUARED = "val/ratio", "val/ratio_squared_deviation"


@dataclass
class MicroBatch:
    """Some packed rows on the learner's device.

    `inputs`: what the policy's forward takes, (B, L) each. The others are (N,) over the response tokens, row by
    row: `advantages`, the sampler's and (where known) the old policy's and the reference's log-probabilities,
    and `segments`, the number of the response that a token belongs to.
    """

    inputs: dict[str, torch.Tensor]
    advantages: torch.Tensor
    sampler_logprobs: torch.Tensor
    segments: torch.Tensor
    num_responses: int
    old_logprobs: torch.Tensor | None = None
    ref_logprobs: torch.Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Response tokens, which have a loss."""
        return len(self.advantages)


def micro_batches(batch: PackedBatch, rows: int, device: str) -> Iterator[MicroBatch]:
    """Cut a mini-batch into micro-batches of `rows` packed rows (the last may have fewer).

    Each is as wide as its own longest row: packs come longest first, so later ones carry less padding.
    """
    import torch

    from open_instruct.learner.grpo import number_segments

    for start in range(0, len(batch.input_ids), rows):
        used = np.flatnonzero((batch.segment_ids[start : start + rows] > 0).any(axis=0))
        width = max(int(used[-1]) + 1 if len(used) else 0, 2)  # padding alone keeps a token to predict

        def tensor(name: str, start: int = start, width: int = width) -> torch.Tensor:
            # Ray's arrays are read-only views of shared memory, which torch would complain about.
            return torch.from_numpy(np.array(getattr(batch, name)[start : start + rows, :width])).to(device)

        inputs = {name: tensor(name) for name in ("input_ids", "position_ids", "response_mask")}
        predicted = inputs["response_mask"][:, 1:] > 0
        segments = number_segments(tensor("segment_ids")[:, 1:], predicted)
        yield MicroBatch(
            inputs,
            advantages=tensor("advantages")[:, 1:][predicted],
            sampler_logprobs=tensor("sampler_logprobs")[:, 1:][predicted],
            segments=segments,
            num_responses=int(segments.max()) + 1 if len(segments) else 0,
        )


def micro_batch_loss(
    args: Args,
    micro: MicroBatch,
    logprobs: torch.Tensor,
    entropy: torch.Tensor | None,
    *,
    num_tokens: float,
    num_responses: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The micro-batch's share of the objective (a scalar), and what is logged of each token, {name: (N,)}.

    `num_tokens` and `num_responses` count the optimiser step over all learners. Without `old_logprobs` the old
    policy is the present one; with `--use_vllm_logprobs` it is the sampler. Names are upstream's.
    """
    from open_instruct.learner.grpo import policy_loss, token_weights

    sampler, old = micro.sampler_logprobs, micro.old_logprobs
    if args.use_vllm_logprobs:
        old = sampler
    elif old is None:
        old = logprobs.detach()
    loss, clipped = policy_loss(
        logprobs,
        old,
        micro.advantages,
        micro.segments,
        loss_fn=args.loss_fn,
        clip_lower=args.clip_lower,
        clip_higher=args.clip_higher,
    )
    ratio = (logprobs - old).clamp(-40.0, 40.0).exp()
    present, gap = logprobs.detach(), (old - sampler).abs()
    deviation = ratio.detach() - 1.0
    observed = {
        RATIO: ratio.detach(),
        RATIO_SQUARED: deviation * deviation,
        "debug/vllm_vs_local_logprob_diff_mean": gap,
        "debug/vllm_vs_local_logprob_diff_max": gap,
        "policy/neg_logprob_avg": -present,
    }
    if args.use_rho_correction:
        rho, measured = _rho(args, micro, old)
        loss, clipped = loss * rho, clipped & (rho != 0)
        observed |= measured
    observed |= {"loss/policy_avg": loss.detach(), "policy/clipfrac_avg": clipped}
    if micro.ref_logprobs is not None:
        kl, measured = _kl(args, logprobs, micro.ref_logprobs, ratio)
        loss = loss + args.beta * kl
        observed |= measured
    observed["loss/total_avg"] = loss.detach()
    if entropy is not None:
        observed["policy/entropy_avg"] = entropy
    weights = token_weights(micro.segments, args.loss_denominator, num_tokens=num_tokens, num_responses=num_responses)
    return (loss * weights.to(loss.dtype)).sum(), observed


def _rho(args: Args, micro: MicroBatch, old: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    from open_instruct.learner.grpo import rho_correction

    correction = rho_correction(
        old,
        micro.sampler_logprobs,
        micro.advantages,
        micro.segments,
        clamp_lower=args.rho_clamp_lower_bound,
        clamp_upper=args.truncated_importance_sampling_ratio_cap,
        mask_lower=args.rho_mask_lower_bound,
        mask_upper=args.rho_mask_upper_bound,
        sequence_level=args.rho_mask_sequence_level,
        tv_divergence=args.rho_mask_tv_divergence,
    )
    return correction.weights, {
        "val/rho_weight": correction.weights,
        "val/rho_clipfrac": correction.clamped,
        "val/rho_drop_frac": correction.dropped_low | correction.dropped_high,
        "val/rho_drop_low_frac": correction.dropped_low,
        "val/rho_drop_high_frac": correction.dropped_high,
    }


def _kl(
    args: Args, logprobs: torch.Tensor, reference: torch.Tensor, ratio: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    from open_instruct.learner.grpo import kl_penalty

    estimates = [kl_penalty(logprobs.detach(), reference, number, ratio.detach()) for number in range(4)]
    chosen = estimates[args.kl_estimator]
    observed = {f"objective/kl{number}_avg": estimate for number, estimate in enumerate(estimates)}
    observed |= {"objective/kl_avg": chosen, "loss/kl_avg": args.beta * chosen}
    return kl_penalty(logprobs, reference, args.kl_estimator, ratio), observed


class TokenStatistics:
    """Sums over the tokens of a training step, and maxima of what is called ``..._max``; on the device until read."""

    def __init__(self) -> None:
        self._totals: dict[str, torch.Tensor] = {}
        self._tokens = 0

    def add(self, observed: dict[str, torch.Tensor]) -> None:
        """Take in {name: (N,)}; N = 0 adds nothing."""
        tokens = len(observed[RATIO])
        if not tokens:
            return
        self._tokens += tokens
        for name, values in observed.items():
            value = values.max() if name.endswith("_max") else values.sum()
            if name in self._totals:
                before = self._totals[name]
                value = before.maximum(value) if name.endswith("_max") else before + value
            self._totals[name] = value

    def result(self) -> dict[str, float]:
        """Plain numbers, with the number of tokens under "tokens"."""
        import torch

        values = torch.stack([v.double() for v in self._totals.values()]).tolist() if self._totals else []
        return dict(zip(self._totals, values, strict=True)) | {TOKENS: float(self._tokens)}
