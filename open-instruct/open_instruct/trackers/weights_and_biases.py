"""Weights & Biases. WANDB_MODE=offline writes to OUTPUT_DIR/wandb alone, for `wandb sync` later.

A continued run keeps its id, and so stays one run on the server. The x-axis is `training_step`, not W&B's own
step: that may only rise, and W&B would throw away what a continued run logs for steps that happen again. They
are there twice; `metrics.jsonl` has them once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from open_instruct.config.args import FlagError
from open_instruct.trackers.base import TrackedRun

ID_FILE = "wandb_run_id"


class WandbTracker:
    """One W&B run. Raises `FlagError` when it cannot be started (no account, no network)."""

    name = "Weights & Biases"

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        run.output_dir.mkdir(parents=True, exist_ok=True)
        id_file = run.output_dir / ID_FILE
        run_id = id_file.read_text().strip() if run.resume_step is not None and id_file.exists() else None
        try:
            self._run: Any = wandb.init(
                project=run.project,
                entity=run.entity,
                group=run.group,
                name=run.name,
                tags=list(run.tags),
                config=run.config,
                dir=str(run.output_dir),
                id=run_id,
                resume="allow" if run_id else None,
                settings=wandb.Settings(quiet=True),  # else it prints every metric again when it ends
            )
        except wandb.Error as error:
            raise FlagError(
                f"--with_tracking: Weights & Biases cannot be used: {error}\n"
                "Run `wandb login`, or set WANDB_MODE=offline to log to the output folder."
            ) from error
        id_file.write_text(self._run.id)
        self._run.define_metric("training_step")
        self._run.define_metric("*", step_metric="training_step")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log({**numbers, "training_step": step})

    def close(self, failed: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=int(failed))
