"""What finished evaluations and training runs left on disk, as data for a report.

A folder with results.json is an evaluation, one with metrics.jsonl a training run; any other folder
stands for the runs directly inside it. What cannot be read is noted, so that one damaged run
does not take the report of the others with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import Result
from flip_plugin.evals.records.journal import FOLDER as JUDGEMENTS
from flip_plugin.evals.records.runs import CONFIG, ITEMS, RESULTS
from flip_plugin.evals.report.input.training import METRICS, TrainingRun, read_training_run
from flip_plugin.evals.stats.paired import PAIRED
from flip_plugin.files.redaction import without_logins


@dataclass(frozen=True)
class EvalRun:
    """A finished evaluation. `name` is the folder's, with the folders above it where two have one name.

    `differences` are those of `flip_plugin.evals.stats.paired`, which compare two methods; `results` are the others.
    """

    name: str
    path: Path
    evaluation: str
    results: Sequence[Result]
    rules: Sequence[str] = ()
    config: dict[str, Any] = field(default_factory=dict)
    differences: Sequence[Result] = ()


@dataclass
class ReportRuns:
    """All runs of a report; `notes` are about what was left out."""

    evals: list[EvalRun] = field(default_factory=list)
    training: list[TrainingRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, evaluation: str) -> list[EvalRun]:
        """The runs of one evaluation."""
        return [run for run in self.evals if run.evaluation == evaluation]


def read_runs(paths: Sequence[str | Path]) -> ReportRuns:
    """Everything in these folders. Raises `CommandError` for a folder that is not there, and where no run is found."""
    # A link to a run, or the same run by another spelling, is not a second run.
    folders = list({folder.resolve(): folder for path in paths for folder in _run_folders(Path(path))}.values())
    names = _short_names(folders)
    runs = ReportRuns()
    for folder in folders:
        if (folder / RESULTS).exists():
            run = _read_eval(folder, names[folder], runs.notes)
            runs.evals += [run] if run else []
        elif (folder / METRICS).exists():
            runs.training.append(read_training_run(folder, names[folder], runs.notes))
        else:
            runs.notes.append(f"{names[folder]}: no {RESULTS} yet, so it is not in this report; continue its command.")
    if not runs.evals and not runs.training:
        places = " ".join(map(str, paths))
        raise CommandError(f"no finished run in {places}: none has {RESULTS} or {METRICS}")
    return runs


def _run_folders(path: Path) -> list[Path]:
    """The folder itself where it is a run, else the runs inside it, two levels down at most."""
    if not path.is_dir():
        raise CommandError(f"{path}: no such folder")
    if _is_run(path):
        return [path]
    below = sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    runs = [child for child in below if _is_run(child)]
    deeper = [
        grandchild
        for child in below
        if child not in runs
        for grandchild in sorted(child.iterdir())
        if grandchild.is_dir() and _is_run(grandchild)
    ]
    return sorted([*runs, *deeper])


def _is_run(path: Path) -> bool:
    if (path / RESULTS).exists() or (path / METRICS).exists():
        return True
    return (path / CONFIG).exists() and ((path / ITEMS).exists() or (path / JUDGEMENTS).exists())


def _read_eval(folder: Path, name: str, notes: list[str]) -> EvalRun | None:
    try:
        content = without_logins(json.loads((folder / RESULTS).read_text(encoding="utf-8")))
        results = [Result(**result) for result in content["cells"]]
    except (ValueError, KeyError, TypeError) as error:
        notes.append(f"{name}: {RESULTS} cannot be read ({error}), so it is left out.")
        return None
    config = content.get("config") or {}
    evaluation = str(config.get("evaluation") or (results[0].evaluation if results else "evaluation"))
    metrics = {f"{result.metric}{PAIRED}" for result in results}  # a metric of the user's may have such a name, too
    differences = [result for result in results if result.metric in metrics]
    figures = [result for result in results if result.metric not in metrics]
    return EvalRun(name, folder, evaluation, figures, list(content.get("rules") or []), config, differences)


def _short_names(folders: Iterable[Path]) -> dict[Path, str]:
    """Each folder's last part, with as many of those before it as no other has."""
    parts = {folder: folder.resolve().parts for folder in folders}
    names: dict[Path, str] = {}
    for folder, own in parts.items():
        depth = 1
        while depth < len(own) and any(
            other is not folder and theirs[-depth:] == own[-depth:] for other, theirs in parts.items()
        ):
            depth += 1
        names[folder] = "/".join(own[-depth:])
    return names
