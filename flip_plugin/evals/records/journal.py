"""``judgements/<judge>.<method>.<seed>.jsonl``: a line a judgement, appended by one process, read after a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import Judgement
from flip_plugin.files.locks import InUseError, folder_lock

FOLDER = "judgements"


class Journal:
    """The judgements of a run folder, open for one writer. A context manager.

    Entering raises `CommandError` when another process has it open, and for a file that is none of ours.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.folder = Path(run_dir) / FOLDER
        self._files: dict[Path, IO[str]] = {}
        self._lock = folder_lock(self.folder)
        self._found: list[Judgement] = []

    def __enter__(self) -> Journal:
        try:
            self._lock.acquire()
        except InUseError as error:
            raise CommandError(
                f"another process is judging into {self.folder.parent}{error.holder}: wait for it, or end it"
            ) from None
        found: dict[Any, Judgement] = {}
        for file in sorted(self.folder.glob("*.jsonl")):
            judgements, end = _read(file)
            if end != file.stat().st_size:
                os.truncate(file, end)  # the half of a line that a kill left
            found.update((one.key, one) for one in judgements)
        self._found = list(found.values())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._lock.release()

    def judgements(self) -> list[Judgement]:
        """What was on disk at the start: the last judgement of each key."""
        return self._found

    def append(self, judgement: Judgement) -> None:
        """Write a line and flush it."""
        path = self.folder / f"{judgement.judge}.{judgement.method}.{judgement.seed}.jsonl"
        if path not in self._files:
            # A lone surrogate in a reply is written as its JSON escape instead of failing.
            self._files[path] = path.open("a", encoding="utf-8", errors="backslashreplace")
        file = self._files[path]
        file.write(json.dumps(judgement.to_dict(), ensure_ascii=False) + "\n")
        file.flush()


def read_judgements(run_dir: str | Path) -> list[Judgement]:
    """All judgements of a run folder, the last of each key; a cut last line is left out.

    Raises `CommandError` for any other line that is no judgement, with file and number.
    """
    found: dict[Any, Judgement] = {}
    for file in sorted((Path(run_dir) / FOLDER).glob("*.jsonl")):
        found.update((one.key, one) for one in _read(file)[0])
    return list(found.values())


def _read(file: Path) -> tuple[list[Judgement], int]:
    """The judgements, and where the last whole line ends, in bytes."""
    judgements, end = [], 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                judgements.append(Judgement(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise CommandError(
                    f"{file}: line {number} is no judgement ({error}): remove it, or use --overwrite"
                ) from error
            end += len(line)
    return judgements, end
