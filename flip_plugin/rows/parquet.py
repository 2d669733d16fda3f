"""Parquet files of rows: opened with a clear error, and rows whose text is not UTF-8 named."""

from __future__ import annotations

from typing import IO, Any

from flip_plugin.rows.checks import DatasetError
from flip_plugin.rows.json_files import Defect


def open_parquet(handle: IO[bytes], name: str) -> Any:
    """A file's reader; DatasetError where it is cut off or of another format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(handle, pre_buffer="://" in name)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{name} is not a whole Parquet file: {error}. Fetch or write it anew.") from error


def sound(table: Any, before: int, file: str) -> tuple[Any, list[int], list[Defect]]:
    """(rows whose texts are UTF-8, their numbers, the other rows): Parquet's text is bytes that may be anything."""
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
