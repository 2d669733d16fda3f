"""What reading gives to the filters: units of work, batches of rows, and files wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from flip_plugin.rows.json_files import Defect

BATCH_ROWS = 1024


@dataclass(frozen=True)
class Unit:
    """A part of a file: row groups [start, stop) of a Parquet file, else bytes [start, stop); stop -1: to the end."""

    file: str
    start: int
    stop: int
    rows: int | None = None
    first_row: int = 0


@dataclass
class Batch:
    """Some rows. Lists have a place for each row; None for a label that none of these rows has.

    `number` tells a row's number (from 1) in its file. `prompts(places, first)` gives the prompt
    column's values for some rows as plain Python; with `first`, turns after the first user turn may be missing.
    `defects` are further rows, which cannot be used: they have no place.
    """

    size: int
    number: Callable[[int], int]
    id: Sequence[str | None] | None
    language: Sequence[str | None] | None
    toxic: Sequence[bool | None] | None
    redacted: Sequence[bool | None] | None
    prompts: Callable[[Sequence[int], bool], list[Any]]
    defects: list[Defect] = field(default_factory=list)


def open_file(name: str) -> IO[bytes]:
    """A file or an address, for reading; parts of an address are fetched as they are needed."""
    if "://" not in name:
        return open(name, "rb")
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(name)
    # Parquet is read column by column, in pieces that its reader knows; reading ahead would fetch others.
    return filesystem.open(path, "rb", **({"cache_type": "none"} if name.endswith(".parquet") else {}))


def local_copy(name: str) -> str:
    """A file's path; an address is fetched into fsspec's cache first, under a name that says nothing of its format."""
    if "://" not in name:
        return name
    import fsspec

    return str(fsspec.open_local(f"simplecache::{name}"))


def flagged(turns: Any) -> bool | None:
    """A moderation's verdict on a row: a turn without one counts as flagged. None where there is no moderation."""
    return None if turns is None else any(turn is None or turn.get("flagged") is not False for turn in turns)


def either(labels: Sequence[bool | None] | None, others: list[bool | None]) -> list[bool | None]:
    """True where one of two labels is, None where nothing is known."""
    if labels is None:
        return others
    return [
        True if a or b else (None if a is None or b is None else False) for a, b in zip(labels, others, strict=True)
    ]


def texts(ids: Sequence[Any] | None) -> list[str | None] | None:
    """Ids as text that can be written: some sources number their rows."""
    return None if ids is None else [None if one is None else writable(str(one)) for one in ids]


def writable(text: str) -> str:
    """Text without halves of surrogate pairs, which come from JSON's escapes and cannot be written as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
