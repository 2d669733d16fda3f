"""Rows of a file with their numbers: JSON Lines (gzip, too), a JSON array, or Parquet; on this machine or an address.

What is wrong with one row (a line that is no JSON, text that is not UTF-8) comes as a `Defect` in the row's place, so
that a reader may refuse it or leave it out. What is wrong with a whole file is a `DatasetError`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from flip_plugin.rows.checks import DatasetError

Row = dict[str, Any]
# Rows of a Parquet file in memory at a time.
BATCH_ROWS = 1024


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

    def describe(self, file: str) -> str:
        """The defect in words, with the file called `file`, and without what the row holds."""
        where = f"{'line' if self.line else 'row'} {self.number}" + (f", {self.column}" if self.column else "")
        return f"{file}, {where}: {self.reason}"

    def __str__(self) -> str:
        return self.describe(self.file) + self.quote


def numbered_rows(file: str) -> Iterator[tuple[int, Row]]:
    """(row number, row) of a whole file, one after the other. DatasetError names file, row and reason."""
    if not file.endswith(".parquet"):
        for number, row in json_rows(file):
            if isinstance(row, Defect):
                raise DatasetError(str(row))
            yield number, row
        return
    number = 0
    with open_file(file) as handle:
        for piece in parquet_pieces(open_parquet(handle, file), file):
            for defect in split_defects(piece, number, file)[2]:
                raise DatasetError(str(defect))
            for row in piece.to_pylist():
                number += 1
                yield number, row


# --- files and addresses ----------------------------------------------------------------------------------


def open_file(name: str) -> IO[bytes]:
    """A file or an address that fsspec knows, for reading; parts of an address are fetched as they are needed."""
    if "://" not in name:
        return Path(name).open("rb")
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(name)
    # Parquet is read column by column, in pieces that its reader knows; reading ahead would fetch others.
    return filesystem.open(path, "rb", **({"cache_type": "none"} if name.endswith(".parquet") else {}))


@contextmanager
def open_lines(name: str) -> Generator[Any, None, None]:
    """`open_file`, unpacked where the name ends in .gz. DatasetError for what goes wrong while it is read."""
    try:
        with open_file(name) as raw:
            yield gzip.GzipFile(fileobj=raw) if name.endswith(".gz") else raw
    except (EOFError, OSError, zlib.error) as error:  # gzip's: cut off, of another format, damaged
        raise DatasetError(f"{name}: the file cannot be read: {error}. Fetch or write it anew.") from error


def _local_copy(name: str) -> str:
    """A file's path; an address is fetched into fsspec's cache first, under a name that says nothing of its format."""
    if "://" not in name:
        return name
    import fsspec

    return str(fsspec.open_local(f"simplecache::{name}"))


# --- JSON -------------------------------------------------------------------------------------------------


def json_rows(name: str) -> Iterator[tuple[int, Row | Defect]]:
    """(row number, row or what is wrong with it). A .json file may hold one array of objects, else one a line."""
    is_json = name.lower().endswith(".json")
    with open_lines(_local_copy(name) if is_json else name) as lines:
        if is_json and _begins_array(lines):
            for number, row in enumerate(_array(lines.read(), name), start=1):
                yield number, _row(row, name, number)
            return
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, parse_row(line, name, number)


def _begins_array(file: IO[bytes]) -> bool:
    start = b""
    while not start and (block := file.read(2**16)):
        start = block.lstrip()
    file.seek(0)
    return start.startswith(b"[")


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


def parse_row(line: bytes, name: str, number: int) -> Row | Defect:
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


def _row(value: Any, name: str, number: int) -> Row | Defect:
    if isinstance(value, dict):
        return value
    return Defect(name, number, f"a row must be an object, not {type(value).__name__}")


# --- Parquet ----------------------------------------------------------------------------------------------


def open_parquet(handle: IO[bytes], name: str) -> Any:
    """A file's reader; DatasetError where it is cut off or of another format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(handle, pre_buffer="://" in name)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{name} is not a whole Parquet file: {error}. Fetch or write it anew.") from error


def parquet_pieces(parquet: Any, name: str, before: int = 0, **options: Any) -> Iterator[Any]:
    """Rows of an open file, `BATCH_ROWS` at a time, after `before` others; `options` are those of `iter_batches`.

    DatasetError where the file breaks off or is damaged on the way.
    """
    import pyarrow as pa

    try:
        for piece in parquet.iter_batches(BATCH_ROWS, use_threads=False, **options):
            yield piece
            before += piece.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{name}, after row {before}: the file cannot be read: {error}. Fetch or write it anew."
        ) from error


def split_defects(table: Any, before: int, file: str) -> tuple[Any, list[int], list[Defect]]:
    """(rows whose texts are UTF-8, their numbers, the other rows): Parquet's text is bytes that may be anything.

    `before` is the number of the file's rows that come before those of `table`.
    """
    import pyarrow as pa

    def problem(part: Any) -> str | None:
        try:
            part.validate(full=True)
        except pa.ArrowInvalid as error:
            return str(error)
        return None

    numbers = range(before + 1, before + 1 + table.num_rows)
    if problem(table) is None:
        return table, list(numbers), []
    places, defects = [], []
    for place, number in enumerate(numbers):
        # A slice would share, and so be blamed for, its neighbours' bytes.
        reason = problem(table.take(pa.array([place])))
        if reason is None:
            places.append(place)
        else:
            defects.append(Defect(file, number, f"holds text that cannot be read: {reason}"))
    return table.take(pa.array(places, pa.int64())), [numbers[place] for place in places], defects
