"""What a run says about itself: `metrics.jsonl`, trackers by flag, and log messages.

`metrics.jsonl` is the record, and always written. TensorBoard, Weights & Biases and trackio get
the same numbers when asked for (`open_instruct.trackers`), and are imported only then.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flip_plugin.files.jsonable import to_jsonable, to_number
from flip_plugin.files.jsonl import JsonlWriter, drop_steps_after
from open_instruct.config.args import Args
from open_instruct.trackers import GuardedTrackers, Tracker, open_trackers, tracked_run

METRICS_FILE = "metrics.jsonl"
_OWN_PACKAGES = ("open_instruct", "flip_plugin", "datasets_prep", "__main__")

logger = logging.getLogger(__name__)


def setup_logging(level: int | str = logging.INFO) -> logging.Logger:
    """One format on stderr for every process of a run; call it as often as you like.

    Our own packages speak from `level` up, all others from WARNING up. Libraries that
    bring a handler of their own (vLLM, Ray) are left alone.
    """
    root = logging.getLogger()
    if not any(handler.get_name() == "open_instruct" for handler in root.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.set_name("open_instruct")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
        root.addHandler(handler)
        root.setLevel(logging.WARNING)
    for name in _OWN_PACKAGES:
        logging.getLogger(name).setLevel(level)
    return logging.getLogger("open_instruct")


class MetricsLogger:
    """Writes a run's metrics, one line a step, to `output_dir`/metrics.jsonl and to the trackers.

    Args:
        output_dir: where `metrics.jsonl` goes.
        trackers: open trackers; one that fails is switched off, the file goes on.
        resume_step: the step of the checkpoint that the run goes on from; later lines are
            dropped, since those steps will happen again. None starts a new record, and an
            older one is kept next to it under a number.

    """

    def __init__(
        self, output_dir: str | Path, *, trackers: Sequence[Tracker] = (), resume_step: int | None = None
    ) -> None:
        self._trackers = GuardedTrackers(trackers)
        path = Path(output_dir) / METRICS_FILE
        if resume_step is None:
            _set_aside(path)
        elif dropped := drop_steps_after(path, resume_step):
            logger.info("resuming after step %d: dropped %d later lines of %s", resume_step, dropped, path.name)
        self._writer = JsonlWriter(path)

    @classmethod
    def for_run(cls, args: Args, resume_step: int | None = None) -> MetricsLogger:
        """With the trackers of the run's flags, which are opened before any record is touched.

        Raises `FlagError` for a tracker that cannot be opened.
        """
        trackers = open_trackers(args, tracked_run(args, resume_step))
        return cls(args.output_dir, trackers=trackers, resume_step=resume_step)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Record one step. Values that are not finite are null in the file and absent in the trackers."""
        row = to_jsonable({"training_step": step, **metrics})
        self._writer.write(row)
        self._trackers.log(step, {key: n for key, value in row.items() if (n := to_number(value)) is not None})

    def close(self, failed: bool = False) -> None:
        """End file and trackers; `failed` tells them that an error ended the run."""
        self._writer.close()
        self._trackers.close(failed)

    def __enter__(self) -> MetricsLogger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(failed=kind is not None)


def _set_aside(path: Path) -> None:
    """Rename an older run's record, so that two runs never share a curve."""
    if not path.exists():
        return
    number = 1
    while (older := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    path.rename(older)
    logger.warning("%s held an earlier run; it is kept as %s", path.name, older.name)
