"""TensorBoard: event files in OUTPUT_DIR/tensorboard. `tensorboard --logdir OUTPUT_DIR` shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from open_instruct.trackers.base import TrackedRun


class TensorBoardTracker:
    """Scalars under their own names, the flags as a text."""

    name = "TensorBoard"

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides what the run logged before for the steps that happen again.
        purge_step = None if run.resume_step is None else run.resume_step + 1
        self._writer: Any = SummaryWriter(str(run.output_dir / "tensorboard"), purge_step=purge_step)
        if run.resume_step is None:
            self._writer.add_text("config", _code_block(run.config), 0)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        """See `Tracker`."""
        self._writer.close()


def _code_block(config: dict[str, Any]) -> str:
    """TensorBoard reads Markdown, where four blanks make a line stay as it is."""
    return "\n".join(f"    {line}" for line in json.dumps(config, indent=2, default=str).splitlines())
