"""JSON Lines that survive a killed run.

A run is read while it is written and after it has been killed, so a reader must expect a
last line that stops in the middle, and a writer must not glue its first line to one.
Everything written is strict JSON in ASCII: other readers refuse `NaN`, and text from a
model may hold lone surrogates, which UTF-8 cannot carry but a `\\u` escape can.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flip_plugin.files.atomic import StrPath, replaced_file
from flip_plugin.files.jsonable import dumps


class JsonlWriter:
    """Appends records to a file, one line and one flush each; may be shared by threads.

    A last line that an earlier run left cut is removed first: it is lost already, and the
    first record of this run must not be lost with it.
    """

    def __init__(self, path: StrPath):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _mend_tail(self.path)
        self._lock = threading.Lock()
        self._file = self.path.open("a", encoding="ascii", newline="\n")

    def write(self, record: Mapping[str, Any]) -> None:
        line = dumps(record) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _mend_tail(path: Path) -> None:
    """Make the file end with a newline: complete a last line that is whole, cut one that is not."""
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
        if _parse(tail) is None:
            file.truncate(end - len(tail))
        else:
            file.seek(end)
            file.write(b"\n")


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # ValueError covers bad UTF-8, too
        return None
    return value if isinstance(value, dict) else None


def read_jsonl(path: StrPath, *, bad_lines: list[int] | None = None) -> Iterator[dict[str, Any]]:
    """The objects in a JSON-lines file, in order, without those that a killed run left cut.

    A bad line without a newline at the end of the file is such a cut, and passed over. Any
    other bad line is a damaged file and raises ValueError; a caller that would rather go
    on hands in `bad_lines`, which collects the numbers (from 1) of all lines passed over.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            record = _parse(line)
            if record is not None:
                yield record
            elif bad_lines is not None:
                bad_lines.append(number)
            elif line.endswith(b"\n"):
                raise ValueError(f"{os.fspath(path)}, line {number}: not a JSON object: {line[:80]!r}")


def drop_steps_after(path: StrPath, step: int) -> int:
    """Rewrite a JSON-lines file without the records whose `training_step` is past `step`.

    For resuming: what a killed run wrote after its last checkpoint will happen again.
    Returns how many lines went; a missing file is no lines.
    """
    return drop_records(path, lambda record: _is_past(record, step))


def drop_records(path: StrPath, is_past: Callable[[Mapping[str, Any]], bool]) -> int:
    """Rewrite a JSON-lines file without the records for which `is_past`; returns how many went.

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


def _is_past(record: Mapping[str, Any], step: int) -> bool:
    number = record.get("training_step")
    return isinstance(number, (int, float)) and number > step
