"""Where a step's time went: generation, judging, and how much of the judging nobody waited for.

Everything is taken on one clock, that of the data preparation actor: it starts the generations, awaits the
judgements, and sees when the learner is handed a batch and when it asks for the next. Times are in seconds.

- A generation lasts from the request of a group to its last sample, waiting for room in the engine included.
- A judgement lasts from the moment its sample is there to its score, waiting for room at the judge included.
- The learner is at work from when it is handed a batch until it asks for the next one: training, weight sync,
  and what it saves in between.

`time/judge_hidden_frac` of a step is the share of its judging time in which the learner was at work for an
earlier step, or a group of the run (of this step or another; not of an evaluation) was being generated. Its
judging time is the union of the judgements of its samples: the seconds in which at least one was under way. So 1
means that a judge of infinite speed would not have made the run faster, and what is left, `time/judge_exposed`,
are the seconds in which everything else waited for the judge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from open_instruct.data.types import Group

Interval = tuple[float, float]
#: Older stretches of work are forgotten; no judgement lasts that long.
KEPT = 1000


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same times as intervals that are apart and in order; empty ones are left out.

    >>> union([(3, 4), (0, 2), (1, 2.5), (5, 5)])
    [(0, 2.5), (3, 4)]
    """
    merged: list[Interval] = []
    for start, end in sorted(interval for interval in intervals if interval[1] > interval[0]):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def busy(intervals: Iterable[Interval]) -> float:
    """Seconds in which at least one of the intervals was under way.

    >>> busy([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    return float(sum(end - start for start, end in union(intervals)))


def overlap(some: Iterable[Interval], others: Iterable[Interval]) -> float:
    """Seconds in which one of `some` and one of `others` were under way at once.

    >>> overlap([(0, 4), (6, 8)], [(3, 7)])
    2.0
    """
    left, right = union(some), union(others)
    total, i, j = 0.0, 0, 0
    while i < len(left) and j < len(right):
        total += max(0.0, min(left[i][1], right[j][1]) - max(left[i][0], right[j][0]))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return total


def hidden_fraction(judging: Iterable[Interval], work: Iterable[Interval]) -> float | None:
    """The share of the judging time that lies inside `work`; None where there was no judging.

    >>> hidden_fraction([(0, 4), (2, 6)], [(0, 3), (5, 9)])
    0.6666666666666666
    """
    judging = list(judging)
    seconds = busy(judging)
    return overlap(judging, work) / seconds if seconds else None


def group_intervals(groups: Iterable[Group]) -> tuple[list[Interval], list[Interval]]:
    """When the groups were generated, an interval each, and when their samples were judged."""
    generation, judging = [], []
    for group in groups:
        generation.append((group.generation_start, group.generation_start + group.generation_seconds))
        judging += [(s.judge_start, s.judge_start + s.judge_seconds) for s in group.samples]
    return generation, judging


class StageClock:
    """Notes when the run generates and when its learner is at work. `now` is the clock of the groups' stamps."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._work: list[Interval] = []
        self._under_way: dict[object, float] = {}
        self._handed: float | None = None
        self._asked = now()

    @contextmanager
    def generating(self, *, counts: bool = True) -> Generator[None]:
        """Around the generation of a group; `counts` is False for an evaluation's, which no batch waits for."""
        key = object()
        if counts:
            self._under_way[key] = self._now()
        try:
            yield
        finally:
            if counts:
                self._work.append((self._under_way.pop(key), self._now()))

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Around the learner's wait for a batch."""
        self._asked = self._now()
        if self._handed is not None:
            self._work.append((self._handed, self._asked))
        try:
            yield
        finally:
            self._handed = self._now()

    def metrics(self, groups: list[Group]) -> dict[str, float | None]:
        """`time/...` of the step whose `groups` have just been handed over; see docs/tracking.md.

        To be called after `waiting`.
        """
        now = self._now()
        generation, judging = group_intervals(groups)
        self._work = union(self._work)[-KEPT:]
        work = self._work + [(start, now) for start in self._under_way.values()]
        hidden = hidden_fraction(judging, work)
        judged = busy(judging)
        ready = max((end for _, end in generation + judging), default=self._asked)
        handed = self._asked if self._handed is None else self._handed
        return {
            "time/trainer_waiting_for_data": handed - self._asked,
            "time/generation_waiting_for_trainer": max(0.0, self._asked - ready),
            **_generation_seconds(generation),
            **_judging_seconds(judging),
            "time/judge_hidden_frac": hidden,
            "time/judge_exposed": None if hidden is None else (1.0 - hidden) * judged,
        }


def _generation_seconds(generation: list[Interval]) -> dict[str, float | None]:
    """`time/group_...` are upstream's names: seconds of a group."""
    seconds = [end - start for start, end in generation]
    return {
        "time/generation": busy(generation),
        "time/generation_sum": float(sum(seconds)),
        "time/group_generation_mean": sum(seconds) / len(seconds) if seconds else None,
        "time/group_generation_max": max(seconds, default=None),
        "time/group_generation_min": min(seconds, default=None),
    }


def _judging_seconds(judging: list[Interval]) -> dict[str, float | None]:
    total = float(sum(end - start for start, end in judging))
    return {
        "time/judging": busy(judging),
        "time/judging_sum": total,
        "time/judging_mean": total / len(judging) if judging else None,
    }
