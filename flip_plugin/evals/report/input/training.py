"""A GRPO run's evaluation curves, from the ``metrics.jsonl`` that the trainer writes (a line a step).

The reward that the run was trained with shows in its metrics' names: ``objective/general-flip_reward`` or
``objective/general-quality_reward``; without either, in the run's name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flip_plugin.evals.tasks.grpo_table import reward_of
from flip_plugin.files.jsonl import read_jsonl
from flip_plugin.files.redaction import without_logins

METRICS = "metrics.jsonl"
EVAL = "eval/"
# What a reward says of itself, or what is about the run and not about the policy's worth.
_NOT_A_MEASURE = re.compile(r"general-|scores|invalid|sequence_length|stop_rate|echo|_std$|judge|pass_at")
_REWARDS = {"objective/general-flip_reward": "flip", "objective/general-quality_reward": "pointwise"}

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class TrainingRun:
    """One training run. `curves` has each eval metric's (step, value) pairs in order of steps."""

    name: str
    path: Path
    reward: str
    curves: Mapping[str, Curve] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> Any:
        """The run's seed, where its configuration says it."""
        flags = self.config.get("flags")
        return (flags if isinstance(flags, dict) else self.config).get("seed")

    def last(self, metric: str) -> float | None:
        """The last value of a curve."""
        curve = self.curves.get(metric)
        return curve[-1][1] if curve else None


def is_measure(metric: str) -> bool:
    """Whether runs under different rewards can be compared by an eval metric: not by a reward's own score.

    >>> is_measure("eval/constraints_satisfied"), is_measure("eval/general-flip_reward")
    (True, False)
    """
    return metric.startswith(EVAL) and not _NOT_A_MEASURE.search(metric)


def read_training_run(folder: Path, name: str, notes: list[str]) -> TrainingRun:
    """The run in `folder`. Lines that are no JSON objects (a killed run's last) are left out and noted."""
    bad: list[int] = []
    rows = list(read_jsonl(folder / METRICS, bad_lines=bad))
    if bad:
        notes.append(f"{name}: {len(bad)} damaged lines of {METRICS} are left out.")
    keys = {key for row in rows for key in row}
    reward = next((reward for key, reward in _REWARDS.items() if key in keys), None) or reward_of(name)
    curves = {key: _curve(rows, key) for key in sorted(keys) if key.startswith(EVAL)}
    return TrainingRun(name, folder, reward, {key: curve for key, curve in curves.items() if curve}, _config(folder))


def _curve(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    by_step = {
        row["training_step"]: float(row[key])
        for row in rows
        if _is_number(row.get(key)) and _is_number(row.get("training_step"))
    }
    return sorted(by_step.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return without_logins(config) if isinstance(config, dict) else {}
