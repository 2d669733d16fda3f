"""What a step's groups measured, under Open Instruct's metric names. Missing scores are left out, and counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from open_instruct.data_types import Group


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None when there is none."""
    present = [v for v in values if v is not None]
    return float(np.mean(present)) if present else None


def group_metrics(groups: list[Group], *, prefix: str) -> dict[str, float | None]:
    """`<prefix>/scores` (rewards as the loss sees them), and for each verifier `<prefix>/<name>_reward`
    (its score, 0 to 1) and `<prefix>/<name>_invalid_frac`; reported-only verifiers as `<prefix>/<name>`.
    """
    samples = [s for g in groups for s in g.samples]
    lengths = [len(s.sample.token_ids) for s in samples]
    rewards = [s.reward for s in samples]
    present = [r for r in rewards if r is not None]
    val = "val" if prefix == "objective" else prefix
    metrics: dict[str, float | None] = {
        f"{prefix}/scores": mean_or_none(rewards),
        f"{prefix}/scores_std": float(np.std(present)) if present else None,
        f"{prefix}/invalid_frac": 1.0 - len(present) / max(len(samples), 1),
        f"{val}/sequence_lengths": float(np.mean(lengths)) if lengths else None,
        f"{val}/stop_rate": float(np.mean([s.sample.finish_reason == "stop" for s in samples])),
    }
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
