r"""JSON Lines that survive a killed run.

A file is read while it is written and after its writer has been killed. So a reader must expect a last line that
stops in the middle, and a writer must not glue its first line to one. The rule, for all files here: a last line
without a newline counts when it is a whole JSON object, which half of one never is; else it is as if it were not there.

`JsonlWriter` writes strict JSON in ASCII: other readers refuse `NaN`, and text from a model may hold lone surrogates,
which UTF-8 cannot carry but a ``\u`` escape can.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

from flip_plugin.files.atomic import StrPath, replaced_file
from flip_plugin.files.jsonable import dumps

T = TypeVar("T")


class Line(NamedTuple):
    """A line that is not blank: its number (from 1), its bytes, and where it ends in the file (bytes)."""

    number: int
    data: bytes
    end: int


def whole_lines(path: StrPath) -> Iterator[Line]:
    """The lines of a file, without blank ones and without the half of one that a kill left at the end."""
    end = 0
    with Path(path).open("rb") as file:
        for number, data in enumerate(file, start=1):
            end += len(data)
            if data.strip() and (data.endswith(b"\n") or _object(data) is not None):
                yield Line(number, data, end)


def read_as(
    path: StrPath, make: Callable[[dict[str, Any]], T], damaged: Callable[[int, str], Exception]
) -> Iterator[T]:
    """What `make` makes of each object in a JSON Lines file, in order.

    For a line that is no object, or of which `make` raises ValueError or TypeError, ``damaged(number, problem)`` is
    raised.
    """
    for line in whole_lines(path):
        try:
            row = json.loads(line.data)
            if not isinstance(row, dict):
                raise TypeError(f"a row must be an object, not {type(row).__name__}")
            made = make(row)
        except (ValueError, TypeError, RecursionError) as error:  # ValueError covers bad UTF-8, too
            raise damaged(line.number, str(error)) from error
        yield made


def read_jsonl(path: StrPath, *, bad_lines: list[int] | None = None) -> Iterator[dict[str, Any]]:
    """The objects in a JSON Lines file, in order.

    Any bad line but the half of one at the end is a damaged file and raises ValueError; a caller that would rather go
    on passes `bad_lines`, which collects the numbers (from 1) of all lines left out, the half of one, too.
    """
    with Path(path).open("rb") as file:
        for number, data in enumerate(file, start=1):
            if not data.strip():
                continue
            record = _object(data)
            if record is not None:
                yield record
            elif bad_lines is not None:
                bad_lines.append(number)
            elif data.endswith(b"\n"):
                raise ValueError(f"{os.fspath(path)}, line {number}: not a JSON object: {data[:80]!r}")


def repair_last_line(path: StrPath) -> None:
    """Make the file end with a newline, for what is appended next: complete a last line that is whole, else cut it."""
    path = Path(path)
    if not path.exists():
        return
    with path.open("r+b") as file:
        start = end = file.seek(0, os.SEEK_END)
        tail = b""
        while start > 0 and b"\n" not in tail:
            step = min(1 << 16, start)
            start -= step
            file.seek(start)
            tail = file.read(step) + tail
        tail = tail[tail.rfind(b"\n") + 1 :]
        if not tail:
            return
        if _object(tail) is None:
            file.truncate(end - len(tail))
        else:
            file.seek(end)
            file.write(b"\n")


def open_for_append(path: StrPath) -> TextIO:
    """A UTF-8 file to append `as_line` to, its last line repaired; a lone surrogate is written as its JSON escape."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    repair_last_line(path)
    return path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")


def as_line(record: Mapping[str, Any]) -> str:
    """The record, of plain JSON types, as a line that people can read in any language."""
    return json.dumps(record, ensure_ascii=False) + "\n"


class JsonlWriter:
    """Appends records to a file, one line and one flush each; may be shared by threads.

    A last line that an earlier run left cut is removed first: it is lost already, and the
    first record of this run must not be lost with it.
    """

    def __init__(self, path: StrPath):
        self.path = Path(path)
        self._file = open_for_append(self.path)
        self._lock = threading.Lock()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record of what `to_jsonable` knows, and flush it."""
        line = dumps(record) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def drop_steps_after(path: StrPath, step: int) -> int:
    """Rewrite a JSON Lines file without the records whose `training_step` is past `step`.

    For resuming: what a killed run wrote after its last checkpoint will happen again.
    Returns how many lines went; a missing file is no lines.
    """

    def is_past(record: Mapping[str, Any]) -> bool:
        number = record.get("training_step")
        return isinstance(number, int | float) and number > step

    return drop_records(path, is_past)


def drop_records(path: StrPath, is_past: Callable[[Mapping[str, Any]], bool]) -> int:
    """Rewrite a JSON Lines file without the records for which `is_past`; returns how many went.

    What stays is not held in memory, and a file of which nothing goes is left alone. A missing file is no lines.
    """
    path = Path(path)
    if not path.exists() or not any(is_past(record) for record in read_jsonl(path)):
        return 0
    dropped = 0
    with replaced_file(path) as file:
        for record in read_jsonl(path):
            if is_past(record):
                dropped += 1
            else:
                file.write((dumps(record) + "\n").encode("ascii"))
    return dropped


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
