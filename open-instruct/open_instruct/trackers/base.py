"""What a tracker is, and the description of a run that it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class TrackedRun:
    """The description of a run that a tracker gets.

    `resume_step`: the step that a continued run goes on after, None for a new run. `config`: its flags,
    without keys.
    """

    output_dir: Path
    name: str
    project: str = "open_instruct"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    resume_step: int | None = None


class Tracker(Protocol):
    """Takes a run's numbers. Whatever it raises switches it off."""

    name: str

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """The finite numbers of one step; steps rise, but start again after `resume_step` in a continued run."""
        ...

    def close(self, failed: bool) -> None:
        """The run is over; `failed` when an error ended it."""
        ...
