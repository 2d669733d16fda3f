"""Files -> units of work -> batches of rows, with only the columns that are needed and bounded memory.

A unit is what one worker does at a time, and what a continued run does not do again: some row
groups of a Parquet file, some bytes of a JSON Lines file, or a whole file that cannot be split.
Files may lie on this machine or be addresses that fsspec knows (``hf://...``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datasets_prep.reading.batches import Batch, Unit
from datasets_prep.reading.json_files import check_columns, json_batches
from datasets_prep.reading.parquet import parquet_batches, parquet_units
from datasets_prep.reading.sources import Source
from flip_plugin.rows.reading import open_file

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
