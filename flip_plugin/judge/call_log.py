"""What judges answered, on disk: every call as a line of JSONL.

A folder of JSONL files has one line a judged response, with the keys of `FIELDS`:
enough to see what was asked and answered, and to score it again with another
similarity, without a judge. Every process appends to its own file, so Ray actors can
share a folder.
"""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from flip_plugin.files.jsonl import as_line, read_as

# split, draw, training_step: where in a training run (see `call_context`). time: seconds since 1970.
# score: in the verifier's own 0..1, None unless status is "ok"; similarity: the same before the echo policy's penalty.
FIELDS = (
    "id",
    "time",
    "split",
    "draw",
    "training_step",
    "judge_type",
    "model",
    "api_base",
    "messages",
    "sampling",
    "reply",
    "finish_reason",
    "status",
    "score",
    "inferred_instruction",
    "target",
    "reasoning",
    "echo",
    "echo_policy",
    "similarity",
    "usage",
    "seconds",
    "attempts",
    "cached",
    "error",
)


#: What a trainer notes with every call that is judged in this context (fields of `FIELDS`): ``split`` "train" or
#: "eval", ``draw`` the number of the prompt's draw, ``training_step`` the step that it belongs to.
call_context: ContextVar[Mapping[str, Any]] = ContextVar("call_context", default=MappingProxyType({}))


class JudgeCallWriter:
    """Appends to ``folder/NNN-<pid>.jsonl``, flushed after every line.

    The file is opened at the first write; a pickled or forked copy opens its own.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self._file: TextIO | None = None
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])

    def write(self, call: dict[str, Any]) -> None:
        """Append one call; missing `FIELDS` become null. Raises ValueError for others."""
        unknown = call.keys() - set(FIELDS)
        if unknown:
            raise ValueError(f"not fields of a judge call: {', '.join(sorted(unknown))}")
        line = {**dict.fromkeys(FIELDS), "id": uuid.uuid4().hex, "time": time.time(), **call_context.get(), **call}
        file = self._open()
        file.write(as_line(line))
        file.flush()

    def check(self) -> None:
        """Make the folder. Raises ValueError when that, or a file in it, cannot be: at the start, not in mid-run."""
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"judge calls cannot be kept in {self.folder!r}: {error.strerror or error}") from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise ValueError(f"judge calls cannot be kept in {self.folder!r}: no right to write there")

    def _open(self) -> TextIO:
        if self._file is None or self._pid != os.getpid():
            folder, pid = Path(self.folder), os.getpid()
            folder.mkdir(parents=True, exist_ok=True)
            # A restarted process may get an old pid: never append to another run's file.
            names = (folder / f"{number:03d}-{pid}.jsonl" for number in itertools.count())
            file = next(name for name in names if not name.exists())
            # A lone surrogate in a reply is written as its JSON escape instead of failing.
            self._file = file.open("x", encoding="utf-8", errors="backslashreplace")
            self._pid = pid
        return self._file

    def close(self) -> None:
        """Close the file, if it is open; a later write starts another."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None


def read_calls(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The calls in a file, or in all ``*.jsonl`` files of a folder, in the order of their names.

    A last line that was cut off by a crash is left out; any other malformed line
    raises ValueError with its file and number.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"no judge calls at {str(root)!r}")
    for file in sorted(root.glob("*.jsonl")) if root.is_dir() else [root]:
        yield from read_as(file, _checked_call, partial(_damaged, file))


def _checked_call(call: dict[str, Any]) -> dict[str, Any]:
    if not call.keys() >= {"id", "judge_type", "status"}:
        raise ValueError("not a judge call (those are what --record_calls_to keeps)")
    return call


def _damaged(file: Path, number: int, problem: str) -> ValueError:
    return ValueError(f"{file}:{number}: {problem}")
