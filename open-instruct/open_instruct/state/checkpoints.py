"""Folders that are whole or absent: resumable states and Hugging Face checkpoints, one a step.

A state is ``STATES/step_<n>/``: the learners' files (`open_instruct.state.rank`) and ``manifest.json``, with
size and CRC-32 of every file, the step, the run's flags and where the data side was. It is written as
``STATES/.step_<n>.partial-<id>/`` and renamed when everything is on disk, so a killed run leaves either the
whole state or a folder that the next run clears away. A state that was damaged later (cut, lost or changed
files) is recognised by its manifest, moved to ``STATES/damaged/``, and the one before it is taken.

The learners of all machines write into the same folder: STATES must lie on a file system that they share.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip_plugin.files.atomic import replace_folder, sync_folder, write_json
from open_instruct.state.rank import FileSums

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
#: In STATES: the newest state's step, and whether the run was finished with it. Written after that state.
STEP_FILE = "training_step.json"
FORMAT = 1

_STEP_FOLDER = re.compile(r"step_(\d+)")
#: What a killed run can leave: half a folder, the folder that was to be replaced, half a file.
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>partial|old)-\w+|\..+\.\d+\.\d+\.tmp")
_CHUNK = 1 << 24


class StateError(RuntimeError):
    """A state could not be written; the text says what to do."""


class NewerState(StateError):
    """A state of a newer version of this code: whole, but not to be read by this one."""


@dataclass(frozen=True)
class State:
    """A whole state on disk."""

    folder: Path
    step: int
    manifest: dict[str, Any]


def step_folders(folder: Path) -> dict[int, Path]:
    """The ``step_<n>`` folders in `folder` by step, oldest first; {} where `folder` is not there."""
    folders = {}
    for path in folder.iterdir() if folder.is_dir() else []:
        if (match := _STEP_FOLDER.fullmatch(path.name)) and path.is_dir():
            folders[int(match[1])] = path
    return dict(sorted(folders.items()))


def keep_newest(folder: Path, keep: int) -> None:
    """Remove all but the `keep` newest ``step_<n>`` folders in `folder`; -1 keeps all."""
    paths = list(step_folders(folder).values())
    for old in paths[: len(paths) - keep] if keep >= 0 else []:
        _remove(old)


def drop_newer(folder: Path, step: int) -> None:
    """Remove the ``step_<n>`` folders of steps after `step`."""
    for number, path in step_folders(folder).items():
        if number > step:
            _remove(path)


def _remove(path: Path) -> None:
    """By way of a rename: half a removed folder must not look like a damaged one."""
    renamed = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex[:8]}")
    path.rename(renamed)
    shutil.rmtree(renamed)


def begin_state(states: Path, step: int) -> Path:
    """A new folder for the learners to write the state after `step` steps into; `commit_state` ends it."""
    partial = states / f".step_{step}.partial-{uuid.uuid4().hex[:8]}"
    partial.mkdir(parents=True)
    return partial


def commit_state(
    partial: Path,
    step: int,
    written: Sequence[FileSums],
    facts: dict[str, Any],
    nodes: Sequence[str] = (),
    patience: float = 10.0,
) -> State:
    """Put the manifest to what the learners wrote, and the folder in its place.

    `written` holds each learner's files, `facts` what else goes into the manifest (JSON), `nodes` the
    learners' machines, for messages. A folder of the same step is replaced. Raises `StateError` when a file
    of a learner is not to be seen from here after `patience` seconds.
    """
    deadline = time.monotonic() + patience  # a network file system may show another machine's files late
    for rank, files in enumerate(written):
        for name, sums in files.items():
            path = partial / name
            while not (seen := _has_size(path, sums["bytes"])) and time.monotonic() < deadline:
                time.sleep(0.5)
            if seen:
                continue
            where = f"learner {rank}" + (f" on {nodes[rank]}" if nodes else "")
            raise StateError(
                f"{where} wrote {path}, which is not to be seen whole from here: --checkpoint_state_dir must lie on "
                "a file system that all machines share."
            )
    files = {name: sums for one in written for name, sums in one.items()}
    manifest = {"format": FORMAT, "training_step": step, "world_size": len(written), **facts, "files": files}
    write_json(partial / MANIFEST, manifest)
    for folder in {partial, *((partial / name).parent for name in files)}:
        sync_folder(folder)
    target = partial.with_name(f"step_{step}")
    replace_folder(partial, target)
    return State(target, step, manifest)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def mark_newest(states: Path, step: int, *, finished: bool) -> None:
    """Write `STEP_FILE`."""
    write_json(states / STEP_FILE, {"training_step": step, "finished": finished})


def is_finished(states: Path, step: int) -> bool:
    """True when the run that left the state of `step` had nothing more to do."""
    try:
        marker = json.loads((states / STEP_FILE).read_text())
        return bool(marker["finished"]) and marker["training_step"] == step
    except (OSError, ValueError, KeyError, TypeError):
        return False


def newest_whole_state(states: Path) -> State | None:
    """The newest state whose files are all there and as they were written; None where there is none.

    Damaged ones are reported in the log and moved to ``damaged/``. Raises `NewerState`.
    """
    for step, folder in reversed(step_folders(states).items()):
        try:
            manifest = read_manifest(folder, step)
            check_files(folder, manifest["files"])
        except NewerState:
            raise
        except StateError as error:
            kept = _set_aside(folder)
            logger.warning(
                "the state of step %d is damaged (%s); it is now %s, and an older one is taken", step, error, kept
            )
            continue
        return State(folder, step, manifest)
    return None


def read_manifest(folder: Path, step: int) -> dict[str, Any]:
    """The manifest of a state. Raises `StateError` where it makes no sense, `NewerState` for a newer format."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except OSError:
        raise StateError(f"no {MANIFEST}") from None
    except ValueError:
        raise StateError(f"{MANIFEST} cannot be read") from None
    wanted = {"format": int, "training_step": int, "files": dict}
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(k), t) for k, t in wanted.items()):
        raise StateError(f"{MANIFEST} cannot be read")
    if manifest["format"] > FORMAT:
        raise NewerState(f"{folder} was written by a newer version (format {manifest['format']}, not {FORMAT})")
    if manifest["training_step"] != step:
        raise StateError(f"{MANIFEST} is that of step {manifest['training_step']}")
    return manifest


def check_files(folder: Path, files: FileSums) -> None:
    """Read every file of a state again. Raises `StateError` for the first that is not as it was written."""
    with ThreadPoolExecutor(4) as pool:  # zlib lets go of the interpreter lock
        for problem in pool.map(lambda item: _problem(folder / item[0], item[1]), files.items()):
            if problem:
                raise StateError(problem)


def _problem(path: Path, sums: dict[str, int]) -> str | None:
    try:
        size = path.stat().st_size
        if size != sums["bytes"]:
            return f"{path.name} has {size} of {sums['bytes']} bytes"
        crc32 = 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                crc32 = zlib.crc32(chunk, crc32)
    except OSError as error:
        return f"{path.name}: {error.strerror}"
    return None if crc32 == sums["crc32"] else f"{path.name} has been changed: its checksum is wrong"


def _set_aside(folder: Path) -> Path:
    number, target = 1, folder.parent / "damaged" / folder.name
    target.parent.mkdir(exist_ok=True)
    while target.exists():
        number += 1
        target = target.with_name(f"{folder.name}-{number}")
    folder.rename(target)
    return target


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed run left half done in `folder`; a folder that was just being replaced comes back."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _LEFTOVER.fullmatch(path.name)
        if match is None:
            continue
        if match["kind"] == "old" and not path.with_name(match["name"]).exists():
            path.rename(path.with_name(match["name"]))
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
