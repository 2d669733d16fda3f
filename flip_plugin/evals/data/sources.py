"""Rows of a data set by its Hugging Face id, or of local files of the same schema; bad rows are named.

`read_rows` streams: memory is bounded by a batch of rows, whatever the source's size.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError

SUFFIXES = (".parquet", ".jsonl", ".json")
BATCH = 1000


class RowError(CommandError):
    """A row that cannot be used: the file (or data set), the row's number from 1, the reason."""

    def __init__(self, source: str, row: int, reason: str) -> None:
        super().__init__(f"{source}: row {row}: {reason}")
        self.source, self.row, self.reason = source, row, reason


def read_rows(
    source: str, *, split: str | None = None, schema: Mapping[str, Any] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row) of `source`: a ``.parquet``, ``.jsonl`` or ``.json`` file, a folder of them, or an id.

    An id is one of the Hugging Face hub, read as a stream; `split` is its. Several files count
    their rows on; a local file has no split.
    `schema` maps columns to types: ``str``, ``int``, ``float``, ``bool``, ``dict``, ``list``, ``list[str]``,
    ``object``; ``str | None`` may be null or missing. Other columns are kept unchecked. Raises `RowError`
    for a row that does not fit, `CommandError` for a source that cannot be read.
    """
    before, has_rows = 0, False
    for name, rows in _parts(source, split):
        number = 0
        for number, row in enumerate(rows, start=1):
            if row is None:
                continue
            problem = row if isinstance(row, str) else misfit(row, schema or {})
            if problem:
                raise RowError(name, number, problem)
            has_rows = True
            yield before + number, row
        before += number
    if not has_rows:
        raise CommandError(f"{source} has no rows")


def misfit(row: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    """Why `row` does not fit `schema`, or None when it does.

    >>> misfit({"id": "a", "chosen": ["x", 2]}, {"id": str, "chosen": list[str]})
    "column 'chosen' must be list[str], but its item 2 is int (2)"
    """
    for column, kind in schema.items():
        if column not in row and not _optional(kind):
            return f"column {column!r} is missing; the row has {', '.join(map(repr, row)) or 'no columns'}"
        value = row.get(column)
        if not _fits(value, kind):
            what = f"column {column!r} must be {_name(kind)}, but"
            if isinstance(value, list) and typing.get_args(kind):
                (inner,) = typing.get_args(kind)[:1]
                bad = next(((at, one) for at, one in enumerate(value, start=1) if not _fits(one, inner)), None)
                if bad:
                    return f"{what} its item {bad[0]} is {_shown(bad[1])}"
            return f"{what} is {_shown(value)}"
    return None


def _parts(source: str, split: str | None) -> Iterator[tuple[str, Iterator[Any]]]:
    """(name, rows) of each file. A row that cannot be read is its problem, as text; an empty line is None."""
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
        if not files:
            raise CommandError(f"{source} is a folder without {', '.join(SUFFIXES)} files")
        kinds = {file.suffix for file in files}
        if len(kinds) > 1:
            raise CommandError(f"{source} has files of several kinds ({', '.join(sorted(kinds))}): name one of them")
        yield from ((str(file), _file(file)) for file in files)
    elif path.is_file():
        yield source, _file(path)
    elif path.suffix in SUFFIXES or source.startswith(("/", ".", "~")) or source.count("/") > 1:
        raise CommandError(f"{source} does not exist")
    else:
        yield source, _hub(source, split)


def _file(path: Path) -> Iterator[Any]:
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".jsonl":
        return _jsonl(path)
    if path.suffix == ".json":
        return _json(path)
    raise CommandError(f"{path}: not a file of rows: {', '.join(SUFFIXES)} are read")


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise CommandError(f"{path} cannot be read as parquet: {error}") from error


def _jsonl(path: Path) -> Iterator[Any]:
    with path.open("rb") as lines:
        for line in lines:
            yield _parsed(line, dict) if line.strip() else None


def _json(path: Path) -> Iterator[Any]:
    """A list of objects: for small files, the whole of it is in memory."""
    rows = _parsed(path.read_bytes(), list)
    if isinstance(rows, str):
        raise CommandError(f"{path}: {rows}")
    for row in rows:
        yield row if isinstance(row, dict) else f"an object was expected, not {_shown(row)}"


def _parsed(text: bytes, kind: type) -> Any:
    """The JSON value, or as text why it is none of `kind`."""
    try:
        value = json.loads(text.decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return f"not JSON ({error})"
    if isinstance(value, kind):
        return value
    return f"{'an object' if kind is dict else 'a list of objects'} was expected, not {_shown(value)}"


def _hub(source: str, split: str | None) -> Iterator[Any]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        yield from load_dataset(source, split=split or "train", streaming=True)
    except (DatasetNotFoundError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CommandError(f"{source} is no local file, and as a Hugging Face data set: {reason}") from error


def _optional(kind: Any) -> bool:
    return isinstance(kind, types.UnionType) and types.NoneType in kind.__args__


def _fits(value: Any, kind: Any) -> bool:
    if kind is object:
        return True
    if isinstance(kind, types.UnionType):
        return any(_fits(value, one) for one in kind.__args__)
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(one, typing.get_args(kind)[0]) for one in value)
    if kind is int:
        # Whole numbers come as floats from JSON writers of data frames.
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _name(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join("null" if one is types.NoneType else _name(one) for one in kind.__args__)
    return str(kind) if typing.get_origin(kind) else kind.__name__


def _shown(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} ({str(value)[:40]})"
