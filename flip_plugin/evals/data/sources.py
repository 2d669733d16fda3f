"""Rows of a data set by its Hugging Face id, or of local files of the same schema; bad rows are named.

`read_rows` streams: memory is bounded by a batch of rows, whatever the source's size.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.rows.checks import DatasetError
from flip_plugin.rows.reading import Defect, json_rows, numbered_rows

SUFFIXES = (".parquet", ".jsonl", ".json")


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
        for number, row in rows:
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


# A row with its number (from 1), or what is wrong with it, as text.
Numbered = Iterator[tuple[int, Any]]


def _parts(source: str, split: str | None) -> Iterator[tuple[str, Numbered]]:
    """(name, rows) of each file, or of the data set on the hub."""
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
        yield source, enumerate(_hub(source, split), start=1)


def _file(path: Path) -> Numbered:
    if path.suffix not in SUFFIXES:
        raise CommandError(f"{path}: not a file of rows: {', '.join(SUFFIXES)} are read")
    if path.suffix == ".json" and not path.read_bytes().lstrip().startswith(b"["):  # it is a small file
        raise CommandError(f"{path}: a list of objects was expected")
    try:
        if path.suffix == ".parquet":
            yield from numbered_rows(str(path))
            return
        for number, row in json_rows(str(path)):
            yield number, row.reason if isinstance(row, Defect) else row
    except DatasetError as error:
        raise CommandError(str(error)) from error


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
