"""Rows of JSON files with their numbers; what cannot be read is told with file, line and reason.

A defect of one row (a line that is no JSON, a value that is no object) comes in the row's place, so that a
reader may refuse it or leave it out; a defect of a whole file is a `DatasetError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip_plugin.rows.checks import DatasetError


@dataclass(frozen=True)
class Defect:
    """What makes a row unusable: its file, its number there (from 1), the column if it is one's, and the reason.

    `quote` goes on with what the row holds, which nobody has checked: to be shown here, and not to be published.
    """

    file: str
    number: int
    reason: str
    column: str = ""
    line: bool = False
    quote: str = ""

    def told(self, file: str) -> str:
        """The defect in words without those of the row, with the file called `file`."""
        where = f"{'line' if self.line else 'row'} {self.number}" + (f", {self.column}" if self.column else "")
        return f"{file}, {where}: {self.reason}"

    def __str__(self) -> str:
        return self.told(self.file) + self.quote


def read_json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number, row) of a file with one object a line, or with one array of objects."""
    for number, row in json_rows(path, str(path)):
        if isinstance(row, Defect):
            raise DatasetError(str(row))
        yield number, row


def json_rows(path: Path, name: str) -> Iterator[tuple[int, dict[str, Any] | Defect]]:
    """(row number, row or what is wrong with it) of the file at `path`, which messages call `name`.

    A .json file by its `name` may hold one array of objects; otherwise there is an object a line.
    """
    with path.open("rb") as lines:
        if name.lower().endswith(".json") and (data := lines.read()).lstrip().startswith(b"["):
            for number, row in enumerate(_array(data, name), start=1):
                yield number, _row(row, name, number)
            return
        lines.seek(0)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, parse_row(line, name, number)


def _array(data: bytes, name: str) -> list[Any]:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name} is not UTF-8 text: {error}") from error
    except json.JSONDecodeError as error:
        raise DatasetError(f"{name}, line {error.lineno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in thousands
        raise DatasetError(
            f"{name}: the array cannot be read: {error}. Repair it, or write a row a line (.jsonl): lines are named."
        ) from error


def parse_row(line: bytes, name: str, number: int) -> dict[str, Any] | Defect:
    """Line `number` of the file `name`, as a row."""
    try:
        text = line.decode("utf-8")
        return _row(json.loads(text), name, number)
    except UnicodeDecodeError as error:
        return Defect(name, number, f"is not UTF-8 text: {error}", line=True)
    except json.JSONDecodeError as error:
        quote = (
            f": {text.strip()[:80]!r}. "
            "Repair or remove the line; a file that was cut off while it was written ends like this."
        )
        return Defect(name, number, f"not valid JSON ({error.msg} at column {error.colno})", line=True, quote=quote)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in thousands
        return Defect(name, number, f"cannot be read: {error}", line=True)


def _row(value: Any, name: str, number: int) -> dict[str, Any] | Defect:
    if isinstance(value, dict):
        return value
    return Defect(name, number, f"a row must be an object, not {type(value).__name__}")
