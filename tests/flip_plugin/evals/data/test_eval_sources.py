import doctest
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flip_plugin.errors import CommandError
from flip_plugin.evals.data import sources
from flip_plugin.evals.data.sources import RowError, misfit, read_rows

ROWS = [{"id": "a", "tags": ["x"], "count": 1}, {"id": "b", "tags": [], "count": 2}]
SCHEMA = {"id": str, "tags": list[str], "count": int, "note": str | None}


def jsonl(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_the_same_rows_from_every_kind_of_file(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    for name in ("rows.parquet", "rows.jsonl", "rows.json"):
        assert list(read_rows(str(tmp_path / name), schema=SCHEMA)) == [(1, ROWS[0]), (2, ROWS[1])], name


def test_a_folder_of_files_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "data").mkdir()
    jsonl(tmp_path / "data" / "test-00001.jsonl", ROWS[1:])
    jsonl(tmp_path / "data" / "test-00000.jsonl", ROWS[:1])
    (tmp_path / "README.md").write_text("card")
    assert list(read_rows(str(tmp_path), schema=SCHEMA)) == [(1, ROWS[0]), (2, ROWS[1])]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"id": "b", "count": 2}, "column 'tags' is missing; the row has 'id', 'count'"),
        ({"id": "b", "tags": "x", "count": 2}, r"column 'tags' must be list\[str\], but is str \(x\)"),
        ({"id": "b", "tags": ["x", None], "count": 2}, r"column 'tags' must be list\[str\], but its item 2 is null"),
        ({"id": None, "tags": [], "count": 2}, "column 'id' must be str, but is null"),
        ({"id": "b", "tags": [], "count": 2.5}, r"column 'count' must be int, but is float \(2.5\)"),
        ({"id": "b", "tags": [], "count": True}, r"column 'count' must be int, but is bool \(True\)"),
        ({"id": "b", "tags": [], "count": 2, "note": 3}, r"column 'note' must be str or null, but is int \(3\)"),
        ('{"id": "b", "ta', "not valid JSON"),
        ("[1]", "a row must be an object, not list"),
    ],
)
def test_a_bad_row_is_named_with_file_row_and_reason(tmp_path, bad, reason):
    path = jsonl(tmp_path / "rows.jsonl", [ROWS[0], "", bad])
    with pytest.raises(RowError, match=f"rows.jsonl: row 3: {reason}") as caught:
        list(read_rows(path, schema=SCHEMA))
    assert caught.value.row == 3  # the line's number, the empty one counted


def test_whole_numbers_may_be_floats():
    assert misfit({"n": 4.0}, {"n": int}) is None
    assert misfit({"n": float("inf")}, {"n": int}) is not None


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.jsonl", None, "does not exist"),
        ("rows.csv", b"a,b", "not a file of rows"),
        ("rows.parquet", b"no parquet", "is not a whole Parquet file"),
        ("rows.jsonl", b"\n", "has no rows"),
        ("rows.json", b"{}", "a list of objects was expected"),
    ],
)
def test_a_source_of_no_use_is_refused(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CommandError, match=reason):
        list(read_rows(str(tmp_path / name)))


def test_a_folder_of_two_kinds_is_refused(tmp_path):
    jsonl(tmp_path / "a.jsonl", ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    with pytest.raises(CommandError, match="several kinds"):
        list(read_rows(str(tmp_path)))


def test_an_id_is_streamed_by_datasets(monkeypatch):
    """What is handed to `datasets`, whose hub is not reached here."""
    import datasets

    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return iter(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(read_rows("allenai/reward-bench-2", split="test")) == [(1, ROWS[0]), (2, ROWS[1])]
    assert asked == [(("allenai/reward-bench-2",), {"split": "test", "streaming": True})]


def test_examples():
    assert doctest.testmod(sources).failed == 0
