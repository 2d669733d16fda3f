"""What reading gives to the filters: units of work and batches of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flip_plugin.rows.reading import Defect


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
