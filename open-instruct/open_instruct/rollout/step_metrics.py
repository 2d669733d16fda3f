"""What a step's groups measured, under Open Instruct's metric names. Missing scores are left out, and counted.

A metric that has nothing to measure is None, never 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from open_instruct.data.types import Group, PackedBatch, ScoredSample
from open_instruct.learner.packing import TrainingSample
from open_instruct.rewards.shaping import NOT_STOPPED

#: Statuses for what the policy wrote: no answer that could be scored, so no pass.
FAILED_BY_POLICY = frozenset({"truncated", "empty_response", NOT_STOPPED})


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None when there is none."""
    present = [v for v in values if v is not None]
    return float(np.mean(present)) if present else None


def group_metrics(groups: list[Group], *, prefix: str) -> dict[str, float | None]:
    """What training ("objective") and evaluation ("eval") both measure, over all samples of `groups`.

    - ``<prefix>/scores``, ``_std``: rewards as the loss sees them; ``<prefix>/invalid_frac``: share of them missing.
    - ``<prefix>/<verifier>_reward``: that verifier's own score, 0 to 1, over the samples it was asked about and
      could score; ``<prefix>/<verifier>_invalid_frac``: share that it was asked about and could not.
    - ``<prefix>/<verifier>`` of `report_verifiers`; ``<prefix>/echo``: share of the instruction that is restated.
    - ``val/sequence_lengths`` with ``_min`` and ``_max``: response tokens; ``val/stop_rate``: share that stopped by
      itself; in evaluations under ``eval/``. Upstream's lengths of "solved" and "unsolved" responses are left
      out: a graded score has no such halves.
    - ``val/format_scores``, ``val/overlong_penalty``: mean of those parts of the reward, where they are on.
    """
    samples = [s for g in groups for s in g.samples]
    rewards = [s.reward for s in samples]
    present = [r for r in rewards if r is not None]
    metrics: dict[str, float | None] = {
        f"{prefix}/scores": mean_or_none(rewards),
        f"{prefix}/scores_std": float(np.std(present)) if present else None,
        f"{prefix}/invalid_frac": 1.0 - len(present) / max(len(samples), 1),
    }
    metrics |= _verifier_metrics(samples, prefix)
    metrics |= _response_metrics(samples, "val" if prefix == "objective" else prefix)
    return metrics


def _verifier_metrics(samples: list[ScoredSample], prefix: str) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {}
    scores, echoes = defaultdict(list), []
    for sample in samples:
        for name, result in sample.per_verifier.items():
            scores[name].append(result.score)
            echoes.append((result.details or {}).get("echo"))
    for name, values in scores.items():
        metrics[f"{prefix}/{name}_reward"] = mean_or_none(values)
        metrics[f"{prefix}/{name}_invalid_frac"] = sum(v is None for v in values) / len(values)
    if any(e is not None for e in echoes):
        metrics[f"{prefix}/echo"] = mean_or_none(echoes)
    for name in samples[0].reported if samples else ():
        metrics[f"{prefix}/{name}"] = mean_or_none(s.reported[name] for s in samples)
    return metrics


def _response_metrics(samples: list[ScoredSample], prefix: str) -> dict[str, float | None]:
    lengths = [len(s.sample.token_ids) for s in samples]
    metrics: dict[str, float | None] = {
        f"{prefix}/sequence_lengths": mean_or_none(lengths),
        f"{prefix}/sequence_lengths_min": float(min(lengths)) if lengths else None,
        f"{prefix}/sequence_lengths_max": float(max(lengths)) if lengths else None,
        f"{prefix}/stop_rate": mean_or_none(float(s.sample.finish_reason == "stop") for s in samples),
    }
    for name, parts in (
        ("format_scores", [s.format_reward for s in samples]),
        ("overlong_penalty", [s.overlong for s in samples]),
    ):
        if any(part is not None for part in parts):
            metrics[f"{prefix}/{name}"] = mean_or_none(parts)
    return metrics


def step_metrics(
    groups: list[Group],
    training: Sequence[TrainingSample],
    batches: list[list[PackedBatch]],
    *,
    step: int,
    samples_wanted: int,
) -> dict[str, float | None]:
    """What only a training step has; `step` is the number of updates made before it.

    - ``val/advantages_mean``, ``_min``, ``_max``: over the samples with a loss.
    - ``val/num_step_tokens``: prompt and response tokens of all groups, a prompt counted once;
      ``val/num_step_tokens_trained``: response tokens with a loss.
    - ``batch/total_prompts``: groups with a loss; ``batch/filtered_prompts`` (``_pct``: share of all): groups whose
      rewards are all equal, of which ``_zero`` have score 0 and ``_solved`` 1 throughout and ``_nonzero`` neither;
      ``batch/percent_solved_mean``: mean score, 0 to 1, of the groups with a loss. The samples' own scores are meant.
    - ``real_batch_size_ratio``: samples with a loss over those of a full step; ``packed_ratio``: packs over samples.
    - ``model_step_min``, ``_max``, ``_mean``: updates that the engine had seen when a response was finished, and
      ``num_steps_off_policy``: how many it had missed, on average.
    - ``val/actor_tokens_per_second``: ``val/num_step_tokens`` over the slowest group's seconds.

    Times are `open_instruct.rollout.stage_times`'.
    """
    samples = [s for g in groups for s in g.samples]
    advantages = [sample.advantage for sample in training]
    versions = [s.sample.weights_version for s in samples]
    slowest = max(g.generation_seconds for g in groups)
    tokens = sum(len(g.row["input_ids_prompt"]) for g in groups) + sum(len(s.sample.token_ids) for s in samples)
    packs = sum(int((batch.segment_ids.max(axis=1) > 0).sum()) for of_rank in batches for batch in of_rank)
    return {
        "val/advantages_mean": mean_or_none(advantages),
        "val/advantages_min": min(advantages, default=None),
        "val/advantages_max": max(advantages, default=None),
        "val/num_step_tokens": float(tokens),
        "val/num_step_tokens_trained": float(sum(len(sample.response_ids) for sample in training)),
        **_prompt_metrics(groups),
        "real_batch_size_ratio": len(training) / samples_wanted,
        "packed_ratio": packs / len(training) if training else None,
        "model_step_min": float(min(versions)),
        "model_step_max": float(max(versions)),
        "model_step_mean": float(np.mean(versions)),
        "num_steps_off_policy": float(step - np.mean(versions)),
        "val/actor_tokens_per_second": tokens / slowest if slowest > 0 else None,
    }


def _prompt_metrics(groups: list[Group]) -> dict[str, float | None]:
    kept = [g for g in groups if any(s.advantage is not None for s in g.samples)]
    equal = [g for g in groups if not any(s.advantage is not None for s in g.samples) and _equal_rewards(g)]
    means = [mean_or_none(s.score for s in g.samples) for g in equal]
    zero, solved = means.count(0.0), means.count(1.0)
    return {
        "batch/total_prompts": float(len(kept)),
        "batch/filtered_prompts": float(len(equal)),
        "batch/filtered_prompts_pct": len(equal) / max(len(groups), 1),
        "batch/filtered_prompts_zero": float(zero),
        "batch/filtered_prompts_solved": float(solved),
        "batch/filtered_prompts_nonzero": float(len(equal) - zero - solved),
        "batch/percent_solved_mean": mean_or_none(mean_or_none(s.score for s in g.samples) for g in kept),
    }


def _equal_rewards(group: Group) -> bool:
    rewards = [s.reward for s in group.samples if s.reward is not None]
    return len(rewards) > 1 and min(rewards) == max(rewards)


def pass_at_k_metrics(groups: list[Group], num_samples: int, threshold: float = 1.0) -> dict[str, float | None]:
    """``eval/pass_at_k`` for k = 1, 2, 4, ... and `num_samples`: does one of k samples pass? Mean over prompts.

    A sample passes when its score reaches `threshold`; that is right for verifiers that say 0 or 1. For a
    graded score such as FLIP's, only a perfect one passes. A sample that the policy left without an answer
    (`FAILED_BY_POLICY`) does not pass; one whose score is missing for any other reason is left out, and a
    prompt with fewer than k samples left has no say in k. The estimate is unbiased (arXiv 2107.03374); upstream
    calls it pass_at_k_unbiased.
    """
    ks = {num_samples} | {2**i for i in range(num_samples.bit_length()) if 2**i <= num_samples}
    counted = []
    for group in groups:
        known = [s for s in group.samples if s.score is not None or s.status in FAILED_BY_POLICY]
        counted.append((len(known), sum(s.score is not None and s.score >= threshold for s in known)))
    return {
        f"eval/pass_at_{k}": mean_or_none(pass_at_k(n, correct, k) for n, correct in counted if n >= k)
        for k in sorted(ks)
    }


def pass_at_k(num_samples: int, correct: int, k: int) -> float:
    """The chance that k of `num_samples` samples, drawn without putting back, hold one of the `correct` ones.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    return 1.0 - math.comb(num_samples - correct, k) / math.comb(num_samples, k)
