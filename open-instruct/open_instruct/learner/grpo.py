"""The arithmetic of GRPO: pure functions over arrays and tensors.

What the papers write as sums over a response is kept per token here: N response tokens of a micro-batch in
a row, and `segments` (N,), the number of the response that each belongs to, counted from 0. The objective
of an optimiser step is the sum over all learners' tokens of `token_weights` x (rho x `policy_loss` +
beta x `kl_penalty`). Each function names the paper that it follows; options and upstream's forms of them
are compared in docs/algorithms.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from open_instruct.config.flags import parse_denominator

if TYPE_CHECKING:
    import torch

ADVANTAGE_TYPES = ("standard", "centered", "leave_one_out")
LOSS_FNS = ("dapo", "cispo", "gspo")


def group_advantages(rewards: np.ndarray, normalization: str = "standard") -> np.ndarray:
    """Advantages of one group: (G,) rewards, NaN where missing -> (G,) advantages, NaN where missing.

    ``standard`` is (r - mean) / (std + 1e-8) (DeepSeekMath, arXiv 2402.03300), ``centered`` is r - mean
    (Dr. GRPO, arXiv 2503.20783), with mean and (population) std over the n scores that are there;
    ``leave_one_out`` is r - mean of the other n - 1 (RLOO, arXiv 2402.14740), so centered x n / (n - 1).
    Fewer than two scores say nothing about each other: all NaN.

    >>> group_advantages(np.array([1.0, 0.0, np.nan]), "centered")
    array([ 0.5, -0.5,  nan])
    """
    if normalization not in ADVANTAGE_TYPES:
        raise ValueError(f"advantage normalization must be one of {ADVANTAGE_TYPES}, not {normalization!r}")
    rewards = np.asarray(rewards, dtype=np.float64)
    present = ~np.isnan(rewards)
    count = int(present.sum())
    if count < 2:
        return np.full_like(rewards, np.nan)
    centered = rewards - rewards[present].mean()
    if normalization == "centered":
        return centered
    if normalization == "leave_one_out":
        return centered * (count / (count - 1))
    return centered / (rewards[present].std() + 1e-8)


def token_logprobs(logits: torch.Tensor, tokens: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Log-probability in nats of each token: logits (..., V), tokens (...) -> (...), at least float32.

    Entry i of `logits` must be the distribution that token i was drawn from (shift before you call).
    `temperature` divides the logits, as it did when the tokens were sampled.
    """
    import torch
    from torch.nn.functional import cross_entropy

    logits = logits if logits.dtype == torch.float64 else logits.float()
    scaled = logits if temperature == 1.0 else logits / temperature
    # One fused kernel: a third of the memory traffic of gather and logsumexp.
    flat = cross_entropy(scaled.reshape(-1, scaled.shape[-1]), tokens.reshape(-1), reduction="none")
    return -flat.view(tokens.shape)


def kl_penalty(
    logprobs: torch.Tensor, ref_logprobs: torch.Tensor, kl_estimator: int, ratio: torch.Tensor
) -> torch.Tensor:
    """Per-token estimate of KL(policy || reference), nats; all (N,) -> (N,).

    Upstream's numbers; with d = log p - log q, clamped to +-40: 0: d (Schulman's k1); 1: d^2 / 2 (k2);
    2: exp(-d) - 1 + d (k3); 3: `ratio` x d, where `ratio` = p / p_old carries its gradient. As a loss, k1 has
    a gradient of mean zero; where p = p_old, k2 and 3 have that of KL(policy || reference), k3 the reverse's.
    """
    import torch

    diff = (logprobs - ref_logprobs).clamp(-40.0, 40.0)
    if kl_estimator == 0:
        return diff
    if kl_estimator == 1:
        return diff.square() / 2
    if kl_estimator == 2:
        return torch.expm1(-diff) + diff
    if kl_estimator == 3:
        return ratio * diff
    raise ValueError(f"kl_estimator must be 0, 1, 2 or 3, not {kl_estimator}")


def policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    segments: torch.Tensor,
    *,
    loss_fn: str,
    clip_lower: float,
    clip_higher: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per-token policy loss: all (N,) -> loss (N,) and whether the clip was binding (N,) bool.

    With r = p / p_old of the token, A its advantage, and clip to [1 - clip_lower, 1 + clip_higher]:

    - ``dapo`` (arXiv 2503.14476): max(-A r, -A clip(r)).
    - ``cispo`` (MiniMax-M1, arXiv 2506.13585): -A min(r, 1 + clip_higher) log p, no gradient through r; so
      every token keeps a gradient. Without the lower clip, as in the paper's runs and upstream.
    - ``gspo`` (arXiv 2507.18071, eq. 5): as dapo, with s = exp(mean of log r over the response) for r. Each
      token's loss is its response's, and its gradient goes through all tokens of the response; so a mean
      over the response's tokens (loss_denominator "sequence") is the paper's objective.
    """
    import torch

    log_ratio = (logprobs - old_logprobs).clamp(-40.0, 40.0)
    if loss_fn == "cispo":
        ratio = torch.exp(log_ratio.detach())
        return -advantages * ratio.clamp(max=1.0 + clip_higher) * logprobs, ratio > 1.0 + clip_higher
    if loss_fn == "gspo":
        log_ratio = segment_mean(log_ratio, segments)
    elif loss_fn != "dapo":
        raise ValueError(f"loss_fn must be one of {LOSS_FNS}, not {loss_fn!r}")
    ratio = torch.exp(log_ratio)
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1.0 - clip_lower, 1.0 + clip_higher)
    return torch.maximum(plain, clipped), clipped > plain


def token_weights(segments: torch.Tensor, denominator: str, *, num_tokens: float, num_responses: float) -> torch.Tensor:
    """What each token's loss is multiplied by, so that the sum over all learners is the objective; (N,) float32.

    `num_tokens` and `num_responses` count the optimiser step over all learners. ``token``: 1 / num_tokens
    (DAPO, arXiv 2503.14476); ``sequence``: 1 / (num_responses x tokens of the response) (GRPO, arXiv
    2402.03300); a number C: 1 / (num_responses x C) (Dr. GRPO, arXiv 2503.20783, which takes the longest
    response for C). Raises ValueError for any other `denominator`.
    """
    import torch

    constant = parse_denominator(denominator)
    if constant is not None:
        return torch.full(segments.shape, 1.0 / (num_responses * constant), device=segments.device)
    if denominator == "token":
        return torch.full(segments.shape, 1.0 / num_tokens, device=segments.device)
    return 1.0 / (num_responses * segment_lengths(segments)[segments])


def number_segments(segment_ids: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """`segments` of a micro-batch: which response each of its N tokens belongs to.

    Packed (B, L) `segment_ids` (from 1 within each row) and a mask of N tokens -> (N,) int64, responses counted
    from 0 over all rows in the order in which they stand.
    """
    import torch

    stride = int(segment_ids.max()) + 1 if segment_ids.numel() else 1
    rows = torch.arange(len(segment_ids), device=segment_ids.device)[:, None]
    return torch.unique((rows * stride + segment_ids)[predicted], return_inverse=True)[1]


def segment_lengths(segments: torch.Tensor) -> torch.Tensor:
    """Tokens of each response: (N,) -> (R,) float32; 0 for a number that no token bears."""
    import torch

    return torch.bincount(segments).to(torch.float32)


def segment_mean(values: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """The mean over each response's tokens, at each of its tokens; (N,), (N,) -> (N,), differentiable."""
    import torch

    lengths = segment_lengths(segments).to(values.dtype)
    sums = torch.zeros_like(lengths).index_add(0, segments, values)
    return (sums / lengths)[segments]


class RhoCorrection(NamedTuple):
    """What `rho_correction` returns, each (N,): weights of the tokens' losses, and why they are not rho."""

    weights: torch.Tensor
    dropped_low: torch.Tensor
    dropped_high: torch.Tensor
    clamped: torch.Tensor


def rho_correction(
    old_logprobs: torch.Tensor,
    sampler_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    segments: torch.Tensor,
    *,
    clamp_lower: float,
    clamp_upper: float,
    mask_lower: float,
    mask_upper: float,
    sequence_level: bool = False,
    tv_divergence: bool = False,
) -> RhoCorrection:
    """Weights for what trainer and sampler disagree about, without gradient; all (N,). A bound of 0 is off.

    rho = p_old / p_sampler of a token (log rho clamped to +-10), or with `sequence_level` the geometric mean
    over its response. Clamped to [clamp_lower, clamp_upper] it is the weight (truncated importance sampling,
    fengyao.notion.site/off-policy-rl); outside [mask_lower, mask_upper] the weight is 0 (IcePop,
    arXiv 2510.18855). With `tv_divergence` the mask looks at the response's mean |rho - 1| instead, and
    spares the tokens whose update would not raise it, sign(log rho) x advantage <= 0 (VACO, arXiv 2603.01365).
    """
    import torch

    log_rho = (old_logprobs - sampler_logprobs).detach().clamp(-10.0, 10.0)
    rho = torch.exp(log_rho)
    effective = torch.exp(segment_mean(log_rho, segments)) if sequence_level else rho
    measured = segment_mean((rho - 1.0).abs(), segments) if tv_divergence else effective
    masked = torch.sign(log_rho) * advantages > 0 if tv_divergence else torch.ones_like(rho, dtype=torch.bool)
    dropped_low = masked & (measured < mask_lower) if mask_lower > 0 else torch.zeros_like(masked)
    dropped_high = masked & (measured > mask_upper) if mask_upper > 0 else torch.zeros_like(masked)
    clamped = effective.clamp(
        min=clamp_lower if clamp_lower > 0 else None, max=clamp_upper if clamp_upper > 0 else float("inf")
    )
    weights = torch.where(dropped_low | dropped_high, 0.0, clamped)
    return RhoCorrection(weights, dropped_low, dropped_high, clamped != effective)
