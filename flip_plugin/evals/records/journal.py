"""``judgements/<judge>.<method>.<seed>.jsonl``: a line a judgement, appended by one process, read after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import Judgement, Key
from flip_plugin.files.jsonl import as_line, open_for_append, read_as
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
        self._before: list[Judgement] = []

    def __enter__(self) -> Journal:
        try:
            self._lock.acquire()
        except InUseError as error:
            raise CommandError(
                f"another process is judging into {self.folder.parent}{error.holder}: wait for it, or end it"
            ) from None
        try:
            self._before = read_judgements(self.folder.parent)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._lock.release()

    def judgements(self) -> list[Judgement]:
        """What was on disk at the start: the last judgement of each key."""
        return self._before

    def append(self, judgement: Judgement) -> None:
        """Write a line and flush it."""
        path = self.folder / f"{judgement.judge}.{judgement.method}.{judgement.seed}.jsonl"
        if path not in self._files:
            self._files[path] = open_for_append(path)
        file = self._files[path]
        file.write(as_line(judgement.to_dict()))
        file.flush()


def read_judgements(run_dir: str | Path) -> list[Judgement]:
    """All judgements of a run folder, the last of each key; a cut last line is left out.

    Raises `CommandError` for any other line that is no judgement, with file and number.
    """
    by_key: dict[Key, Judgement] = {}
    for file in sorted((Path(run_dir) / FOLDER).glob("*.jsonl")):
        by_key.update((one.key, one) for one in _read(file))
    return list(by_key.values())


def _read(file: Path) -> Iterator[Judgement]:
    def damaged(number: int, problem: str) -> CommandError:
        return CommandError(f"{file}: line {number} is no judgement ({problem}): remove it, or use --overwrite")

    return read_as(file, lambda row: Judgement(**row), damaged)
