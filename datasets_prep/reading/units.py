"""Files -> units of work -> batches of rows, with only the columns that are needed and bounded memory.

A unit is what one worker does at a time, and what a continued run does not do again: some row
groups of a Parquet file, some bytes of a JSON Lines file, or a whole file that cannot be split.
Files may lie on this machine or be addresses that fsspec knows (``hf://...``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from datasets_prep.reading.batches import Batch, Unit, open_file
from datasets_prep.reading.json_files import Lines, check_columns, json_batches
from datasets_prep.reading.parquet import parquet_batches, parquet_pieces, parquet_units
from datasets_prep.reading.sources import Source
from flip_plugin.rows.checks import DatasetError
from flip_plugin.rows.json_files import Defect
from flip_plugin.rows.parquet import open_parquet, sound

UNIT_BYTES = 32 * 2**20


def plan_units(files: Sequence[str], source: Source, unit_rows: int) -> list[Unit]:
    """The work in `files`. Files without the source's columns are refused here, before any work."""
    units = []
    for file in files:
        if file.endswith(".parquet"):
            units += parquet_units(file, source, unit_rows)
            continue
        check_columns(file, source)
        if file.endswith(".jsonl"):
            with open_file(file) as handle:
                size = handle.seek(0, 2)
            # A row is taken for 1 KiB, so that both kinds of file have units of about the same work.
            step = min(UNIT_BYTES, max(1, unit_rows * 1024))
            units += [Unit(file, start, min(start + step, size)) for start in range(0, size, step)]
        else:
            units.append(Unit(file, 0, -1))
    return units


def read_unit(unit: Unit, source: Source) -> Iterator[Batch]:
    """The rows of a unit, each in one batch; a row that cannot be used is a defect of a batch."""
    return parquet_batches(unit, source) if unit.file.endswith(".parquet") else json_batches(unit, source)


def numbered_rows(file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number, row) of a whole file, one after the other. DatasetError names file, row and reason."""
    if not file.endswith(".parquet"):
        for place, row in Lines(Unit(file, 0, -1)):
            if isinstance(row, Defect):
                raise DatasetError(str(row))
            yield place, row
        return
    number = 0
    with open_file(file) as handle:
        for piece in parquet_pieces(open_parquet(handle, file), file):
            for defect in sound(piece, number, file)[2]:
                raise DatasetError(str(defect))
            for row in piece.to_pylist():
                number += 1
                yield number, row
