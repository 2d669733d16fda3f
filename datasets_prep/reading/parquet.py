"""Parquet files -> batches: only the columns that are needed, a piece of a row group in memory.

Types are a file's, so other ones are refused with the file; of a single row, text that is not UTF-8 is a defect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from datasets_prep.reading.batches import Batch, Unit, either, flagged, texts
from datasets_prep.reading.sources import Columns, Source, choose_columns
from flip_plugin.rows.checks import DatasetError
from flip_plugin.rows.reading import Defect, open_file, open_parquet, parquet_pieces, split_defects


def parquet_units(file: str, source: Source, unit_rows: int) -> list[Unit]:
    """The row groups of a file, in units. DatasetError where columns are missing or have other types."""
    with open_file(file) as handle:
        parquet = open_parquet(handle, file)
        _check_types(parquet.schema_arrow, choose_columns(source, parquet.schema_arrow.names, file), file)
        groups = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
    units, start, rows, before = [], 0, 0, 0
    for number, size in enumerate(groups, start=1):
        rows += size
        if rows >= unit_rows or number == len(groups):
            units.append(Unit(file, start, number, rows, before))
            start, before, rows = number, before + rows, 0
    return units


def _check_types(schema: Any, columns: Columns, name: str) -> None:
    import pyarrow.types as t

    def fail(column: str, wanted: str) -> None:
        raise DatasetError(f"{name}, column {column}: must be {wanted}, but is {schema.field(column).type}")

    prompt = schema.field(columns.prompt).type
    if not (t.is_string(prompt) or t.is_large_string(prompt)):
        turn = prompt.value_type if t.is_list(prompt) or t.is_large_list(prompt) else None
        if turn is None or not t.is_struct(turn) or {"role", "content"} - {field.name for field in turn}:
            fail(columns.prompt, "text or a list of {role, content}")
    if columns.language and not any(f(schema.field(columns.language).type) for f in (t.is_string, t.is_large_string)):
        fail(columns.language, "text")
    for column in (columns.toxic, columns.redacted):
        if column and not t.is_boolean(schema.field(column).type):
            fail(column, "true or false")
    if columns.moderation:
        turn = getattr(schema.field(columns.moderation).type, "value_type", None)
        if turn is None or not t.is_struct(turn) or turn.get_field_index("flagged") < 0:
            fail(columns.moderation, "a list of objects with `flagged`")


def _leaves(parquet: Any, columns: Columns) -> list[str]:
    """Paths of the values that are read: of a turn its role and content alone, of a moderation its verdict."""
    inside = {columns.prompt: {"role", "content"}, columns.moderation: {"flagged"}}
    plain = {columns.id, columns.language, columns.toxic, columns.redacted}
    paths = []
    for place in range(len(parquet.schema)):
        path = parquet.schema.column(place).path
        top, *below = path.split(".")
        if top in plain or (top in inside and (not below or inside[top] & set(below))):
            paths.append(path)
    return paths


def parquet_batches(unit: Unit, source: Source) -> Iterator[Batch]:
    """The rows of a unit in their order. DatasetError for a file that cannot be read."""
    with open_file(unit.file) as handle:
        parquet = open_parquet(handle, unit.file)
        columns = choose_columns(source, parquet.schema_arrow.names, unit.file)
        row, groups = unit.first_row, range(unit.start, unit.stop)
        for piece in parquet_pieces(parquet, unit.file, row, row_groups=groups, columns=_leaves(parquet, columns)):
            yield _arrow_batch(*split_defects(piece, row, unit.file), columns)
            row += piece.num_rows


def _arrow_batch(table: Any, numbers: list[int], defects: list[Defect], columns: Columns) -> Batch:
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made at import

    def plain(column: str | None) -> list[Any] | None:
        return None if column is None else table.column(column).to_pylist()

    def prompts(places: Sequence[int], first: bool) -> list[Any]:
        chosen = table.column(columns.prompt).take(pa.array(places, pa.int64()))  # of no places, the type is not seen
        if not first or chosen.type.num_fields == 0:  # whole conversations, or one text each
            return chosen.to_pylist()
        firsts = pc.list_slice(chosen, 0, 1).to_pylist()
        for place, turns in enumerate(firsts):
            if not turns or turns[0] is None or turns[0]["role"] != "user":
                firsts[place] = chosen[place].as_py()
        return firsts

    toxic = plain(columns.toxic)
    if columns.moderation is not None:
        toxic = either(toxic, [flagged(turns) for turns in table.column(columns.moderation).to_pylist()])
    return Batch(
        table.num_rows,
        numbers.__getitem__,
        texts(plain(columns.id)),
        plain(columns.language),
        toxic,
        plain(columns.redacted),
        prompts,
        defects,
    )
