"""A run's folder: ``config.json`` (what was asked, of whom, with which versions), ``items.jsonl``, ``results.json``.

All are written atomically. A folder is continued by the same command; one that was made with other settings
is refused, with what differs. Judges, methods and seeds may be added to it. One process at a time has it open.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import EvalItem, Result
from flip_plugin.evals.records.journal import FOLDER
from flip_plugin.files.atomic import write_json, write_text
from flip_plugin.files.locks import hold, let_go
from flip_plugin.files.redaction import without_logins
from flip_plugin.versions import versions

CONFIG, ITEMS, RESULTS = "config.json", "items.jsonl", "results.json"
#: The folder of a run that keeps the judges' replies.
REPLIES = "replies"


class Judge(Protocol):
    """A judge as a run's configuration names it (`flip_plugin.evals.judges.spec.JudgeSpec`)."""

    def to_dict(self) -> dict[str, Any]:
        """Its name, its model and where that is served."""
        ...


class RunOptions(Protocol):
    """What a run folder keeps of the command's options (`flip_plugin.evals.judges.options.EvalOptions`)."""

    @property
    def data(self) -> str:
        """The data set's id or file."""
        ...

    @property
    def split(self) -> str | None:
        """The data set's split."""
        ...

    @property
    def judges(self) -> Sequence[Judge]:
        """The judges, by their names."""
        ...

    @property
    def methods(self) -> Sequence[str]:
        """The methods, by their names."""
        ...

    @property
    def seeds(self) -> Sequence[int]:
        """One a run of each judge and method."""
        ...

    @property
    def overwrite(self) -> bool:
        """Whether to start anew."""
        ...

    def settings(self) -> dict[str, Any]:
        """What else decides a judgement."""
        ...


@dataclass(frozen=True)
class Run:
    """An open run folder. `config` is what stands in config.json."""

    path: Path
    config: Mapping[str, Any]

    def finish(self, results: Sequence[Result], rules: Sequence[str] | None = None) -> Path:
        """Write results.json (``{"cells", "rules", "config"}``) atomically, and let the next process in; the path."""
        content = {
            "cells": [result.to_dict() for result in results],
            "rules": list(self.config["rules"] if rules is None else rules),
            "config": self.config,
        }
        written = write_json(self.path / RESULTS, content)
        let_go(self.path)
        return written


def open_run(
    output: str | Path,
    evaluation: str,
    *,
    items: Sequence[EvalItem] = (),
    options: RunOptions | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    rules: Sequence[str] = (),
    overwrite: bool = False,
) -> Run:
    """Make or continue a run folder.

    `settings` (with those of `options`, and the items) must be the same when it is continued; `notes` may change.
    Raises `CommandError` with what differs, and where another process has the folder open.
    `overwrite` (or `options.overwrite`) removes what is there.
    """
    path = Path(output)
    hold(path)
    if overwrite or (options is not None and options.overwrite):
        _clear(path)
    text = "".join(json.dumps(item.to_dict(), ensure_ascii=False) + "\n" for item in items)
    config = {
        "evaluation": evaluation,
        "command": shlex.join(["flip", *sys.argv[1:]]),
        "data": {
            "source": options.data if options else "",
            "split": options.split if options else None,
            "items": len(items),
            "sha256": hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest(),
        },
        "judges": [spec.to_dict() for spec in options.judges] if options else [],
        "methods": list(options.methods) if options else [],
        "seeds": list(options.seeds) if options else [],
        "settings": {**(options.settings() if options else {}), **(settings or {})},
        "rules": list(rules),
        "notes": dict(notes or {}),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    config = without_logins(json.loads(json.dumps(config)))  # as it will be read: tuples are lists
    begun = (path / CONFIG).exists()
    if begun:
        before = _read_config(path)
        problems = differences(before, config)
        if problems:
            raise CommandError(
                f"{path} was made by another command: {'; '.join(problems)}. Name another --output, or use --overwrite"
            )
        config["date"] = before["date"]
    # Items without a configuration are what a killed command left, perhaps of other data.
    if not begun or not (path / ITEMS).exists():
        write_text(path / ITEMS, text)
    write_json(path / CONFIG, config)
    return Run(path, config)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps a run from being continued, in words; empty when nothing does."""
    problems = []
    if before["evaluation"] != now["evaluation"]:
        return [f"it holds {before['evaluation']}, not {now['evaluation']}"]
    if before["data"]["sha256"] != now["data"]["sha256"]:
        then, here = before["data"], now["data"]
        problems.append(
            f"its items differ ({then['items']} of {then['source'] or 'that command'}; "
            f"now {here['items']} of {here['source'] or 'this one'})"
        )
    old, new = before["settings"], now["settings"]
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            problems.append(_describe_change(name, old.get(name), new.get(name)))
    for name in ("methods", "seeds"):
        lost = [one for one in before[name] if one not in now[name]]
        if lost:
            problems.append(f"it has {name} {' '.join(map(str, lost))}, too: keep them (others may be added)")
    judges = {one["name"]: one for one in now["judges"]}
    for one in before["judges"]:
        same = judges.get(one["name"])
        if same is None:
            problems.append(f"it has judge {one['name']}, too: keep it (others may be added)")
        elif (one["model"], one["offline"]) != (same["model"], same["offline"]):
            problems.append(f"judge {one['name']} was {one['model']}, now {same['model']}")
    return problems


def load_run(path: str | Path) -> tuple[dict[str, Any], list[EvalItem]]:
    """config.json and items.jsonl of a run folder. Raises `CommandError` when it is none."""
    config = _read_config(Path(path))
    items = Path(path) / ITEMS
    if not items.exists():
        return config, []
    with items.open(encoding="utf-8") as lines:
        return config, [EvalItem(**json.loads(line)) for line in lines]


def _clear(path: Path) -> None:
    """Remove what this module and the engine write, and nothing else."""
    for name in (FOLDER, REPLIES):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in (CONFIG, ITEMS, RESULTS):
        (path / name).unlink(missing_ok=True)


def _read_config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandError(f"{path} has no {CONFIG}: it is no run of `flip eval`") from None
    except json.JSONDecodeError as error:
        raise CommandError(f"{file} is not JSON ({error}): use --overwrite to start anew") from error


def _describe_change(name: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):  # the prompts' hashes
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        return f"{name} differ ({', '.join(changed)})"
    return f"{name} was {json.dumps(old)}, now {json.dumps(new)}"
