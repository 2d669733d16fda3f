"""Files that are either whole or not there, and rows in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from flip_plugin.files.atomic import replaced_path
from flip_plugin.rows.checks import DatasetError

Result = TypeVar("Result")


def write_whole(path: Path, write: Callable[[Path], Result]) -> Result:
    """Call `write` with a temporary path beside `path`, then rename it: `path` is the old or the new file, whole."""
    return write_all({path: write})[path]


def write_all(writes: Mapping[Path, Callable[[Path], Result]]) -> dict[Path, Result]:
    """`write_whole` for several files: all are whole before the first takes its place, so one failure leaves all.

    DatasetError, before anything is written, where a folder is in a file's place or a file in its folder's.
    """
    for path in writes:
        if path.is_dir():
            raise DatasetError(f"{path} is a folder where a file is to be written: remove it, or choose another place")
        there = next(folder for folder in path.absolute().parents if folder.exists())
        if not there.is_dir():
            raise DatasetError(f"{path} cannot be written: {there} is a file, not a folder. Choose another place")
    with ExitStack() as whole:
        # Entered from the last to the first: they take their places in the order in which they are given.
        temporaries = {path: whole.enter_context(replaced_path(path, path.suffix)) for path in reversed(list(writes))}
        return {path: write(temporaries[path]) for path, write in writes.items()}


def write_rows(rows: Iterable[dict[str, Any]], path: Path, ready: Callable[[], None] | None = None) -> int:
    """Rows as JSON Lines or, by the name's end, as Parquet; whole, and a block of rows in memory. Returns how many.

    `ready` is called when all rows are written, before they take the place of an older file; if it raises, that stays.
    """

    def write(temporary: Path) -> int:
        number = (_parquet if path.suffix == ".parquet" else _jsonl)(rows, temporary)
        if ready is not None:
            ready()
        return number

    return write_whole(path, write)


def _jsonl(rows: Iterable[dict[str, Any]], path: Path) -> int:
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            number += 1
    return number


def _parquet(rows: Iterable[dict[str, Any]], path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    turn = pa.struct([("role", text), ("content", text)])
    known = {"messages": pa.list_(turn), "ground_truth": text, "dataset": text, "id": text}
    number, block, writer = 0, [], None
    try:
        for row in rows:
            number += 1
            block.append(row)
            if writer is None:
                writer = pq.ParquetWriter(path, pa.schema([(name, known[name]) for name in row]))
            if len(block) == 1000:
                writer.write_table(pa.Table.from_pylist(block, schema=writer.schema))
                block = []
        if writer is not None and block:
            writer.write_table(pa.Table.from_pylist(block, schema=writer.schema))
    finally:
        if writer is not None:
            writer.close()
    return number
