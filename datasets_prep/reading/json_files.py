"""JSON files -> batches. A row's columns are the keys that it has: neither its neighbours nor its batch matter.

A row without a label that its source requires is a defect; without another label it has none (unlike `null`,
an empty one). The rows of a batch have the same columns, so rows of other columns are in other batches.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import cached_property
from itertools import islice
from typing import Any

from datasets_prep.reading.batches import Batch, Unit, either, flagged, texts
from datasets_prep.reading.sources import Columns, MissingColumn, Source, choose_columns
from flip_plugin.rows.reading import BATCH_ROWS, Defect, Row, json_rows, open_file, open_lines, parse_row

# Of these, one must have a column that the source requires; else the file is not of the source.
FIRST_ROWS = 1000
_TYPES = (("language", str, "text"), ("toxic", bool, "true or false"), ("redacted", bool, "true or false"))


class Lines:
    """(line of the unit, row or defect), and the number in the file of such a line, counted when it is asked for."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def number(self, place: int) -> int:
        """The file's number of the unit's line `place`."""
        return place + self._before

    @cached_property
    def _before(self) -> int:
        if self.unit.start == 0:
            return 0
        with open_file(self.unit.file) as handle:
            left, lines = self.unit.start, 0
            while left > 0 and (block := handle.read(min(left, 2**20))):
                lines += block.count(b"\n")
                left -= len(block)
            handle.seek(self.unit.start - 1)
            return lines + (handle.read(1) != b"\n")

    def __iter__(self) -> Generator[tuple[int, Row | Defect], None, None]:
        unit = self.unit
        if unit.start == 0 and unit.stop < 0:
            yield from json_rows(unit.file)
            return
        with open_lines(unit.file) as handle:
            if unit.start:
                handle.seek(unit.start - 1)
                handle.readline()  # the line that the unit before began, or its last line break
            place = 0
            while (unit.stop < 0 or handle.tell() < unit.stop) and (line := handle.readline()):
                place += 1
                if not line.strip():
                    continue
                row = parse_row(line, unit.file, place)
                yield place, parse_row(line, unit.file, self.number(place)) if isinstance(row, Defect) else row


def check_columns(file: str, source: Source) -> None:
    """Raise `DatasetError` where none of a file's first rows has a column that the source requires."""
    with closing(iter(Lines(Unit(file, 0, -1)))) as lines:
        rows = [row for _, row in islice(lines, FIRST_ROWS) if not isinstance(row, Defect)]
    if rows:
        keys = dict.fromkeys(key for row in rows for key in row)
        choose_columns(source, keys, f"{file}, in its first {len(rows)} rows,")


def json_batches(unit: Unit, source: Source) -> Iterator[Batch]:
    """The rows of a unit; those of a batch in their order. DatasetError for a file that cannot be read."""
    lines, choose = Lines(unit), _Chooser(source)
    waiting = iter(lines)
    while part := list(islice(waiting, BATCH_ROWS)):
        groups: dict[Columns, list[tuple[int, Row]]] = {}
        defects = []
        for place, row in part:
            if isinstance(row, Defect):
                defects.append(row)
                continue
            try:
                columns = choose(row)
            except MissingColumn as error:
                defects.append(Defect(unit.file, lines.number(place), error.reason, quote=error.rest))
                continue
            if (problem := _wrong_label(row, columns)) is not None:
                column, reason, quote = problem
                defects.append(Defect(unit.file, lines.number(place), reason, column, quote=quote))
                continue
            groups.setdefault(columns, []).append((place, row))
        for columns, rows in groups.items():
            yield _batch(columns, rows, lines, defects)
            defects = []
        if defects:
            yield Batch(0, lines.number, None, None, None, None, lambda places, first: [], defects)


class _Chooser:
    """The columns of a row, looked up once for rows of the same relevant keys. Raises `MissingColumn`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        kinds = Columns.__dataclass_fields__
        self._names = [name for kind in kinds for name in getattr(source, kind)]
        self._known: dict[tuple[bool, ...], Columns] = {}

    def __call__(self, row: Row) -> Columns:
        key = tuple(name in row for name in self._names)
        if key not in self._known:
            self._known[key] = choose_columns(self._source, row, "the row")
        return self._known[key]


def _wrong_label(row: Row, columns: Columns) -> tuple[str, str, str] | None:
    """(column, what is wrong, what is there) for a label of another type; null is none of them."""
    for kind, wanted, words in _TYPES:
        column = getattr(columns, kind)
        value = None if column is None else row[column]
        if value is not None and not isinstance(value, wanted):
            return column, f"must be {words}", f", but is {value!r:.60}"
    turns = None if columns.moderation is None else row[columns.moderation]
    if columns.moderation is None or turns is None:
        return None
    if isinstance(turns, list) and all(turn is None or isinstance(turn, dict) for turn in turns):
        return None
    return columns.moderation, "must be a list of objects", f", but is {turns!r:.60}"


def _batch(columns: Columns, numbered: list[tuple[int, Row]], lines: Lines, defects: list[Defect]) -> Batch:
    rows = [row for _, row in numbered]

    def values(column: str | None) -> list[Any] | None:
        return None if column is None else [row[column] for row in rows]

    toxic = values(columns.toxic)
    if (moderation := values(columns.moderation)) is not None:
        toxic = either(toxic, [flagged(turns) for turns in moderation])
    return Batch(
        len(rows),
        lambda place: lines.number(numbered[place][0]),
        texts(values(columns.id)),
        values(columns.language),
        toxic,
        values(columns.redacted),
        lambda places, first: [rows[place][columns.prompt] for place in places],
        defects,
    )
