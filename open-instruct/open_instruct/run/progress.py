"""The line that a run prints for each step: what it earned, how long it took, how much is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from flip_plugin.files.jsonable import to_number

_STAGES = {"gen": "generation", "judge": "judging", "train": "training", "sync": "weight_sync"}
#: The time left is estimated from so many of the last steps: they are most like those to come.
_RECENT = 20


class Progress:
    """Lines of a run's steps, with the time left by the wall clock: saving and evaluating count.

    `now` is the clock, in seconds; the first step is taken to begin when the object is made.
    """

    def __init__(self, total: int, now: Callable[[], float] = time.perf_counter) -> None:
        self._total, self._now = total, now
        self._ends: deque[tuple[int | None, float]] = deque([(None, now())], maxlen=_RECENT + 1)

    def line(self, step: int, metrics: Mapping[str, Any]) -> str:
        """The line of `step`, which has just ended."""
        self._ends.append((step, self._now()))
        return progress_line(step, self._total, metrics, self._seconds_left(step))

    def _seconds_left(self, step: int) -> float | None:
        if step < 1:  # an evaluation before the first step says nothing of steps
            return None
        known = [(s, at) for s, at in self._ends if s is not None]
        steps, seconds = step - known[0][0], known[-1][1] - known[0][1]
        if steps < 1:  # only one step is over; before it lies the start of the run
            steps, seconds = 1, self._ends[-1][1] - self._ends[0][1]
        return seconds / steps * (self._total - step)


def progress_line(step: int, total: int | None, metrics: Mapping[str, Any], seconds_left: float | None = None) -> str:
    """One step as one line for the terminal; what `metrics` lacks is left out.

    >>> progress_line(12, 80, {"objective/scores": 0.621, "time/total": 1.74, "time/generation": 0.9}, 150)
    'step 12/80  reward 0.62  1.74 s (gen 0.9)  68 left, 2.5 min'
    """
    values = {key: number for key, value in metrics.items() if (number := to_number(value)) is not None}
    parts = [f"step {step}" if total is None else f"step {step:>{len(str(total))}}/{total}"]
    parts += _scores(values, "objective/")
    invalid = [value for key, value in values.items() if key.startswith("objective/") and key.endswith("_invalid_frac")]
    if invalid:
        # The worst of several verifiers: that is the one that would stop the run.
        parts.append(f"invalid {max(invalid):.0%}")
    if "val/sequence_lengths" in values:
        parts.append(f"len {values['val/sequence_lengths']:.0f}")
    stages = [
        f"{short} {_seconds(values[f'time/{name}'])}" for short, name in _STAGES.items() if f"time/{name}" in values
    ]
    clock = [f"{_seconds(values['time/total'], digits=2)} s"] if "time/total" in values else []
    if stages:
        clock.append(f"({' '.join(stages)})")
    if clock:
        parts.append(" ".join(clock))
    if total is not None and seconds_left is not None and step < total:
        parts.append(f"{total - step} left, {duration(seconds_left)}")
    if evals := _scores(values, "eval/"):
        parts.append("eval: " + " ".join(part.removeprefix("general-") for part in evals))
    return "  ".join(parts)


def _scores(values: Mapping[str, float], prefix: str) -> list[str]:
    """`name value` for the scores under a prefix: the overall one, each verifier's, the constraints."""
    parts = [("reward", f"{prefix}scores")]
    parts += [
        (key.removeprefix(prefix).removesuffix("_reward"), key)
        for key in sorted(values)
        if key.startswith(prefix) and key.endswith("_reward")
    ]
    parts.append(("constraints", f"{prefix}constraints_satisfied"))
    return [f"{name} {values[key]:.2f}" for name, key in parts if key in values]


def _seconds(value: float, digits: int = 1) -> str:
    """Seconds in about as many characters as they are worth: 0.03, 0.9, 12, 340."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.{digits - 1}f}"
    return f"{value:.{digits if value >= 0.095 else 2}f}"


def duration(seconds: float) -> str:
    """A time to wait, in one unit.

    >>> [duration(s) for s in (8.3, 150, 7200)]
    ['8 s', '2.5 min', '2.0 h']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.{1 if seconds < 600 else 0}f} min"
    return f"{seconds / 3600:.1f} h"
