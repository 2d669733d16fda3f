"""Folders of rows: shards without rows, cards, older files beside new ones, and what is in a file's way."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prep_cases import read_rows, turns_of, write

from datasets_prep import tag, validate
from datasets_prep.writing.files import write_all
from flip_plugin.rows.checks import DatasetError


def row(text="Write a haiku.", **changes):
    return {"messages": turns_of(text), "ground_truth": text, "dataset": "general-flip"} | changes


QUALITY = row(dataset="general-quality")


# --- shards without rows


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_shard_without_rows_passes_beside_another(tmp_path, capsys, suffix):
    folder, out = tmp_path / "in", tmp_path / "out"
    empty = write(folder / f"train-0{suffix}", [])
    for name in (folder, empty):
        assert validate.main([str(name)]) == 1
        assert f"{name} holds no rows" in capsys.readouterr().err
        with pytest.raises(DatasetError, match=f"{name} holds no rows"):
            tag.tag(str(name), out, "general-quality")
    assert not out.exists()
    write(folder / f"train-1{suffix}", [row()])
    assert validate.main([str(folder)]) == 0
    assert f"{empty}: no rows" in capsys.readouterr().out
    tag.tag(str(folder), out, "general-quality")
    assert validate.main([str(out)]) == 0
    if suffix == ".jsonl":
        assert [read_rows(out / f"train-{number}.jsonl") for number in (0, 1)] == [[], [QUALITY]]
    else:
        assert [pq.read_table(out / f"train-{number}.parquet").num_rows for number in (0, 1)] == [0, 1]


def test_tag_passes_on_other_columns_that_are_no_utf8(tmp_path):
    column = pa.array([b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"dataset": ["general-flip"], "note": column}), tmp_path / "a.parquet")
    tag.tag(str(tmp_path / "a.parquet"), tmp_path / "b.parquet", "general-quality")
    assert pq.read_table(tmp_path / "b.parquet").column("note").cast(pa.binary()).to_pylist() == [b"\xff"]


# --- cards


def test_a_file_whose_name_ends_like_a_cards_has_rows(tmp_path, capsys):
    (tmp_path / "scorecard.json").write_text("no JSON at all")
    assert validate.main([str(tmp_path / "scorecard.json")]) == 1
    assert "scorecard.json, line 1: not valid JSON" in capsys.readouterr().err


def test_a_card_alone_is_no_data(tmp_path, capsys):
    (tmp_path / "card.json").write_text("{}")
    assert validate.main([str(tmp_path)]) == 1
    assert f"{tmp_path} holds no rows, only a card.json" in capsys.readouterr().err
    with pytest.raises(DatasetError, match="holds no rows, only a card"):
        tag.tag(str(tmp_path), tmp_path / "out", "general-quality")


# --- what is written


def test_rows_are_packed_where_the_new_name_says_so(tmp_path):
    plain = write(tmp_path / "plain.jsonl", [row()])
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    tag.tag(str(plain), tmp_path / "a.jsonl.gz", "general-quality")
    tag.tag(str(packed), tmp_path / "b.jsonl", "general-quality")
    tag.tag(str(packed), tmp_path / "out", "general-quality")
    assert read_rows(tmp_path / "b.jsonl") == [QUALITY]
    for file in (tmp_path / "a.jsonl.gz", tmp_path / "out" / "packed.jsonl.gz"):
        assert gzip.decompress(file.read_bytes()) == (tmp_path / "b.jsonl").read_bytes()


def test_tag_keeps_halves_of_surrogate_pairs(tmp_path):
    odd = row("Hi \ud83d \\ there, ünï", extra={"\ud800": ["\udfff"]})
    file = write(tmp_path / "a.jsonl", [odd])
    tag.tag(str(file), tmp_path / "b.jsonl", "general-quality")
    assert read_rows(tmp_path / "b.jsonl") == [odd | {"dataset": "general-quality"}]


@pytest.mark.parametrize("older", ["train.parquet", "train-2.jsonl", "other.json"])
def test_an_older_file_beside_a_new_set_is_refused(tmp_path, older):
    file, out = write(tmp_path / "in" / "train.jsonl", [row()]), tmp_path / "out"
    write(out / "train.jsonl", [row("older")])
    (out / older).write_text("older")
    with pytest.raises(DatasetError, match=f"{out / older} is there already .* Remove it"):
        tag.tag(str(tmp_path / "in"), out, "general-quality")
    assert read_rows(out / "train.jsonl") == [row("older")]
    if older == "train.parquet":
        for output in (out, out / "train.jsonl"):
            with pytest.raises(DatasetError, match=f"{out / older} is there already"):
                tag.tag(str(file), output, "general-quality")
    (out / older).unlink()
    (out / "card.json").write_text("{}")
    tag.tag(str(tmp_path / "in"), out, "general-quality")
    assert read_rows(out / "train.jsonl") == [QUALITY]


def test_single_files_may_stand_beside_others(tmp_path, monkeypatch):
    write(tmp_path / "other.parquet", [row()])
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(write(tmp_path / "b.jsonl", [row()]).read_bytes()))
    monkeypatch.chdir(tmp_path)
    assert tag.main(["--judge_type", "quality", "--input", str(packed), "--output", "a.jsonl"]) == 0
    assert read_rows(tmp_path / "a.jsonl") == [QUALITY]


@pytest.mark.parametrize("place", ["folder", "file"])
def test_what_is_in_the_way_is_told_before_anything_is_replaced(tmp_path, place):
    first = tmp_path / "first.txt"
    first.write_text("older")
    if place == "folder":
        (second := tmp_path / "second.txt").mkdir()
    else:
        second = first / "deep" / "second.txt"
    words = f"{second} is a folder" if place == "folder" else f"{second} cannot be written: {first} is a file"
    with pytest.raises(DatasetError, match=words):
        write_all({path: lambda temporary: temporary.write_text("new") for path in (first, second)})
    assert first.read_text() == "older"
    assert {path.name for path in tmp_path.iterdir()} <= {"first.txt", "second.txt"}
