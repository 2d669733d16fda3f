"""What a run says about itself: `metrics.jsonl`, trackers by flag, a line a step, and log messages.

`metrics.jsonl` is the record, and always written. TensorBoard and Weights & Biases get
the same numbers when asked for, and are imported only then.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_instruct.records_io import JsonlWriter, drop_steps_after, to_jsonable

METRICS_FILE = "metrics.jsonl"
DEFAULT_WANDB_PROJECT = "open_instruct"
_OWN_PACKAGES = ("open_instruct", "flip_plugin", "datasets_prep", "__main__")
_STAGES = {"gen": "generation", "judge": "judging", "train": "training", "sync": "weight_sync"}

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
    """Writes a run's metrics, one line a step, under `output_dir`.

    Args:
        output_dir: where `metrics.jsonl` goes (and `tensorboard/`, `wandb/` if asked for).
        with_tracking: log to Weights & Biases, too.
        tensorboard: log to TensorBoard, too.
        wandb_project, run_name: how the run is called there.
        resume_step: the step of the checkpoint that the run goes on from; later lines are
            dropped, since those steps will happen again. None starts a new record, and an
            older one is kept next to it under a number.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        with_tracking: bool = False,
        tensorboard: bool = False,
        wandb_project: str | None = None,
        run_name: str | None = None,
        resume_step: int | None = None,
    ):
        output_dir = Path(output_dir)
        # The trackers first: if one is missing, the run must stop before it touches a record.
        self._tensorboard = _open_tensorboard(output_dir, resume_step) if tensorboard else None
        self._wandb = _open_wandb(output_dir, wandb_project, run_name, resume_step) if with_tracking else None
        path = output_dir / METRICS_FILE
        if resume_step is None:
            _set_aside(path)
        elif dropped := drop_steps_after(path, resume_step):
            logger.info("resuming after step %d: dropped %d later lines of %s", resume_step, dropped, path.name)
        self._writer = JsonlWriter(path)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Record one step. Values that are not finite are null in the file and absent in the trackers."""
        row = to_jsonable({"training_step": step, **metrics})
        self._writer.write(row)
        numbers = {key: value for key, value in row.items() if _number(value) is not None}
        if self._tensorboard is not None:
            for key, value in numbers.items():
                self._tensorboard.add_scalar(key, value, step)
            self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        self._writer.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()
        self._tensorboard = self._wandb = None

    def __enter__(self) -> MetricsLogger:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _set_aside(path: Path) -> None:
    """Rename an older run's record, so that two runs never share a curve."""
    if not path.exists():
        return
    number = 1
    while (older := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    path.rename(older)
    logger.warning("%s held an earlier run; it is kept as %s", path.name, older.name)


def _open_tensorboard(output_dir: Path, resume_step: int | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("TensorBoard logging needs it installed: pip install tensorboard") from error
    # purge_step hides what an earlier run logged for the steps that happen again.
    purge_step = None if resume_step is None else resume_step + 1
    return SummaryWriter(str(output_dir / "tensorboard"), purge_step=purge_step)


def _open_wandb(output_dir: Path, project: str | None, run_name: str | None, resume_step: int | None) -> Any:
    try:
        import wandb  # ty: ignore[import-not-found]  # optional, never a dependency
    except ImportError as error:
        raise ImportError(
            "--with_tracking needs Weights & Biases: pip install wandb (or leave the flag out; "
            f"{METRICS_FILE} is always written)"
        ) from error
    output_dir.mkdir(parents=True, exist_ok=True)
    id_file = output_dir / "wandb_run_id"
    run_id = id_file.read_text().strip() if resume_step is not None and id_file.exists() else None
    run = wandb.init(
        project=project or DEFAULT_WANDB_PROJECT,
        name=run_name,
        dir=str(output_dir),
        id=run_id,
        resume="allow" if run_id else None,
    )
    id_file.write_text(run.id)
    return run


def progress_line(step: int, total: int | None, metrics: Mapping[str, Any]) -> str:
    """One step as one line for the terminal; what `metrics` lacks is left out.

    >>> progress_line(12, 80, {"objective/scores": 0.621, "time/total": 1.74, "time/generation": 0.9})
    'step 12/80  reward 0.62  1.74 s (gen 0.9)'
    """
    values = {key: number for key, value in metrics.items() if (number := _number(value)) is not None}
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
    if evals := _scores(values, "eval/"):
        parts.append("eval: " + " ".join(part.removeprefix("general-") for part in evals))
    return "  ".join(parts)


def _scores(values: Mapping[str, float], prefix: str) -> list[str]:
    """`name value` for the scores under a prefix: the overall one, each verifier's, the constraints."""
    found = [("reward", f"{prefix}scores")]
    found += [
        (key.removeprefix(prefix).removesuffix("_reward"), key)
        for key in sorted(values)
        if key.startswith(prefix) and key.endswith("_reward")
    ]
    found.append(("constraints", f"{prefix}constraints_satisfied"))
    return [f"{name} {values[key]:.2f}" for name, key in found if key in values]


def _number(value: Any) -> float | None:
    """A finite number, from Python, numpy or torch; None for anything else."""
    value = to_jsonable(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def _seconds(value: float, digits: int = 1) -> str:
    """Seconds in about as many characters as they are worth: 0.03, 0.9, 12, 340."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.{digits - 1}f}"
    return f"{value:.{digits if value >= 0.095 else 2}f}"
