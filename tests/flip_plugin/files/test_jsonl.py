"""JSON Lines: what a killed or resumed writer leaves, and what a reader makes of it."""

import pytest

from flip_plugin.files.jsonl import (
    JsonlWriter,
    as_line,
    drop_steps_after,
    open_for_append,
    read_as,
    read_jsonl,
    repair_last_line,
    whole_lines,
)


def test_writer_is_readable_at_once_and_keeps_any_text(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    text = "line\nbreak \u2028 \x00 \ud800 é {}"
    writer = JsonlWriter(path)
    writer.write({"text": text, "loss": float("-inf")})
    assert list(read_jsonl(path)) == [{"text": text, "loss": None}]  # before close
    writer.close()
    assert path.read_bytes().isascii() and path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        (b'{"a": 1}\n{"a": 2, "te', [1]),  # cut: gone
        (b'{"a": 1}\n{"a": 2}', [1, 2]),  # whole, but for its newline: kept
        (b'{"a": 1, "text": "' + b"x" * 200_000, []),  # longer than one block, and nothing before
        (b"", []),
    ],
)
def test_writer_does_not_glue_to_a_cut_line(tmp_path, tail, kept):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(tail)
    with JsonlWriter(path) as writer:
        writer.write({"a": 9})
    assert [row["a"] for row in read_jsonl(path)] == [*kept, 9]


def test_a_cut_end_is_left_out_but_damage_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": "\xc3')
    assert list(read_jsonl(path)) == [{"a": 1}]

    path.write_bytes(b'{"a": 1}\n{"a": \n[3]\n{"a": 4}\n')
    with pytest.raises(ValueError, match="line 2"):
        list(read_jsonl(path))
    bad_lines: list[int] = []
    assert list(read_jsonl(path, bad_lines=bad_lines)) == [{"a": 1}, {"a": 4}]
    assert bad_lines == [2, 3]


def test_drop_steps_after(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert drop_steps_after(path, 3) == 0 and not path.exists()
    path.write_text('{"training_step": 3}\n{"training_step": 4}\n{"other": 1}\n{"training_step": 5}\n{"tr')
    assert drop_steps_after(path, 3) == 2
    assert path.read_text() == '{"training_step": 3}\n{"other": 1}\n'


def test_whole_lines_say_where_they_end(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n[2]\n{"a": 3}')
    assert [(line.number, line.end) for line in whole_lines(path)] == [(1, 9), (3, 14), (4, 22)]
    path.write_bytes(b'{"a": 1}\n{"a": 3')
    assert [line.data for line in whole_lines(path)] == [b'{"a": 1}\n']


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "2: .*Expecting"),
        (b"[3]", "2: a row must be an object, not list"),
        (b'{"b": 3}', "2: no a"),
        (b"\xff", "2: "),
    ],
)
def test_read_as_names_the_line_that_does_not_fit(tmp_path, line, problem):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 4}\n')

    def make(row):
        if "a" not in row:
            raise ValueError("no a")
        return row["a"]

    read = read_as(path, make, lambda number, what: KeyError(f"{number}: {what}"))
    assert next(read) == 1
    with pytest.raises(KeyError, match=problem):
        next(read)


def test_lines_are_appended_readable_and_with_any_text(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    record = {"text": "né \ud800 \u2028"}
    for _ in range(2):
        with open_for_append(path) as file:
            file.write(as_line(record))
            file.write('{"cut')
    repair_last_line(path)
    assert list(read_jsonl(path)) == [record, record] and "né" in path.read_text(encoding="utf-8")
