"""Trackers: where a run's numbers go besides `metrics.jsonl`, each by a flag and in a file of its own.

A tracker is opened before anything is loaded, so that a missing package or account ends the run at once
and in words. From then on none may end it: one that fails is switched off, with one warning.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from flip_plugin.files.redaction import without_secrets
from open_instruct.config.args import Args, FlagError
from open_instruct.trackers.base import TrackedRun, Tracker

logger = logging.getLogger(__name__)

#: Flag -> the package that it needs.
PACKAGES = {"tensorboard": "tensorboard", "with_tracking": "wandb", "trackio": "trackio"}


def tracked_run(args: Args, resume_step: int | None) -> TrackedRun:
    """The description of a run with these flags, for its trackers."""
    return TrackedRun(
        output_dir=Path(args.output_dir),
        name=args.run_name or f"{args.exp_name}__{args.seed}",
        project=args.wandb_project_name,
        entity=args.wandb_entity,
        group=args.wandb_group_name,
        tags=(args.exp_name,),
        config=without_secrets(asdict(args)),
        resume_step=resume_step,
    )


def check_trackers(args: Args) -> None:
    """Raises `FlagError` for a tracker whose package is not installed."""
    for flag, package in PACKAGES.items():
        if getattr(args, flag) and not _installed(package):
            raise FlagError(
                f"--{flag} needs the package {package}: pip install {package}, or leave the flag out "
                "(metrics.jsonl and report.html are always written)."
            )


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that somebody put in place without a spec
        return False


def open_trackers(args: Args, run: TrackedRun) -> list[Tracker]:
    """The trackers that the flags ask for. Raises `FlagError` when one cannot be opened."""
    check_trackers(args)
    opened: list[Tracker] = []
    if args.tensorboard:
        from open_instruct.trackers.tensorboard import TensorBoardTracker

        opened.append(TensorBoardTracker(run))
    if args.with_tracking:
        from open_instruct.trackers.weights_and_biases import WandbTracker

        opened.append(WandbTracker(run))
    if args.trackio:
        from open_instruct.trackers.trackio import TrackioTracker

        opened.append(TrackioTracker(run))
    return opened


class GuardedTrackers:
    """Several trackers as one that never raises."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._active = list(trackers)

    @property
    def names(self) -> list[str]:
        """Those still at work."""
        return [tracker.name for tracker in self._active]

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand one step's numbers to each; one that raises is switched off."""
        for tracker in list(self._active):
            try:
                tracker.log(step, numbers)
            except Exception as error:  # noqa: BLE001 - foreign code, often over a network: training goes on
                self._active.remove(tracker)
                logger.warning(
                    "%s is switched off from step %d on (%s: %s); metrics.jsonl goes on",
                    tracker.name,
                    step,
                    type(error).__name__,
                    error,
                )

    def close(self, failed: bool = False) -> None:
        """End them all; `failed` when an error ended the run."""
        while self._active:
            tracker = self._active.pop()
            try:
                tracker.close(failed)
            except Exception as error:  # noqa: BLE001 - as above
                logger.warning("%s did not close: %s: %s", tracker.name, type(error).__name__, error)
