"""What a run left on disk, read as far as it can be; what cannot is noted."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flip_plugin.files.jsonl import read_jsonl
from flip_plugin.pages.text import spread, visible
from open_instruct.report.numbers import Row, number

MAX_POINTS = 2000  # on a curve: more than a screen has pixels


@dataclass
class Run:
    """One run: `metrics` has a row a step, in order; `rollouts` are the files; `notes` what a reader should know."""

    folder: Path
    name: str
    config: Row
    metrics: list[Row]
    rollouts: list[Path]
    notes: list[str] = field(default_factory=list)

    @property
    def curve_rows(self) -> list[Row]:
        """The rows that the curves show."""
        return thin(self.metrics, MAX_POINTS)


def read_run(folder: Path) -> Run:
    """Raises FileNotFoundError where there is no such folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no such output directory: {folder}")
    notes: list[str] = []
    config = _read_config(folder / "config.json", notes)
    name = visible(str(find_setting(config, ("run_name", "exp_name")) or folder.resolve().name))
    run = Run(folder, name, config, _read_metrics(folder / "metrics.jsonl", notes), [], notes)
    elsewhere = find_setting(config, ["rollouts_save_path"])
    run.rollouts = sorted((Path(elsewhere) if elsewhere else folder / "rollouts").glob("*.jsonl"))
    if not run.rollouts:
        notes.append("No rollouts yet.")
    if len(run.curve_rows) < len(run.metrics):
        notes.append(f"The curves show {len(run.curve_rows)} of {len(run.metrics)} steps, evenly spread.")
    return run


def find_setting(config: Any, names: Sequence[str]) -> Any:
    """The first of these settings anywhere in a nested configuration."""
    if not isinstance(config, dict):
        return None
    for name in names:
        if config.get(name):
            return config[name]
    return next((found for value in config.values() if (found := find_setting(value, names))), None)


def _read_config(path: Path, notes: list[str]) -> Row:
    if not path.exists():
        notes.append("No config.json.")
        return {}
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        notes.append(f"config.json cannot be read: {error}")
        return {}
    return config if isinstance(config, dict) else {"config": config}


def rows(path: Path, notes: list[str]) -> Iterator[Row]:
    """The records of a JSON-lines file; damaged lines are left out and noted."""
    bad_lines: list[int] = []
    yield from read_jsonl(path, bad_lines=bad_lines)
    if bad_lines:
        lines = f"line {bad_lines[0]}" if len(bad_lines) == 1 else f"{len(bad_lines)} lines"
        notes.append(f"{path.name}: left out {lines}, cut short or damaged (usual after a killed run).")


def _read_metrics(path: Path, notes: list[str]) -> list[Row]:
    """One row a step, in order; lines of the same step are merged, as training and eval may come apart."""
    if not path.exists():
        notes.append("No metrics.jsonl yet.")
        return []
    steps: dict[float, Row] = defaultdict(dict)
    for row in rows(path, notes):
        if (step := number(row.get("training_step"))) is not None:
            steps[step].update(row)
    return [steps[step] for step in sorted(steps)]


def thin(metrics: list[Row], limit: int) -> list[Row]:
    """Rows at even distances, and always the last and those with an evaluation, which are few."""
    kept = set(spread(range(len(metrics)), limit))
    return [
        row
        for i, row in enumerate(metrics)
        if i in kept or i == len(metrics) - 1 or any(key.startswith("eval/") for key in row)
    ]
