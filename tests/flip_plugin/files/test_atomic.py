"""Files that are whole or absent, whatever goes wrong while they are written."""

import json

import numpy as np
import pytest

from flip_plugin.files.atomic import replaced_path, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_text(path, "old \ud800")
    assert path.read_text() == "old \\ud800"

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old \\ud800"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_write_json_is_strict_json(tmp_path):
    write_json(tmp_path / "config.json", {"lr": np.float32(0.5), "nan": float("nan")})
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 0.5, "nan": None}


def test_json_keeps_any_text_readable(tmp_path):
    value = {"text": "né \ud800"}
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == value
    assert "né" in (tmp_path / "value.json").read_text(encoding="utf-8")


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    with replaced_path(path, ".csv") as temporary:
        assert temporary.suffix == ".csv" and temporary.parent == path.parent
        temporary.write_text("old")
    with pytest.raises(RuntimeError), replaced_path(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old" and [file.name for file in path.parent.iterdir()] == ["rows.csv"]
