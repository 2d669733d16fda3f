"""A row is judged by itself: its labels, its defects, whatever lies beside it and however its file is read."""

import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prep_cases import LMSYS, TINY_TOKENIZER, prompt, read_rows, turns_of, wildchat, write

from datasets_prep.prepare import main
from datasets_prep.reading.sources import SOURCES
from datasets_prep.reading.units import plan_units, read_unit
from flip_plugin.rows.checks import DatasetError
from flip_plugin.rows.reading import numbered_rows


def command(output, files, *options):
    argv = ["--judge_type", "flip", "--tokenizer", TINY_TOKENIZER, "--data", *map(str, files), "--output", str(output)]
    return [*argv, "--workers", "1", "--num_prompts", "all", "--near_duplicates", "0", *options]


def prepared(output, files, *options, source="messages"):
    """({id of a row that was taken}, card)"""
    assert main(command(output, files, "--keep_id", *options), source=source) == 0
    return {row["id"] for row in read_rows(output / "train.jsonl")}, json.loads((output / "card.json").read_text())


def left_out(card):
    return {step["filter"]: step["left_out"] for step in card["steps"] if step["left_out"]}


def row(name, text=None, **labels):
    return {"id": name, "messages": turns_of(text or f"{prompt(sum(map(ord, name)))} {name}", "Fine.")} | labels


# --- labels

MIXED = [
    row("bare"),
    row("clean", toxic=False, redacted=False, language="English"),
    row("toxic", toxic=True),
    row("unknown", toxic=None),
    row("flagged", toxic=False, openai_moderation=[{"flagged": True}]),
    row("moderated", openai_moderation=[{"flagged": False}]),
    row("redacted", redacted=True),
    row("german", "Erkläre mir bitte, wie ein Gesetz im Parlament entsteht."),
    row("called german", language="German"),
    row("called english", "Erkläre mir, wie man ein Haus am Hafen baut.", language="English"),
    row("no language", language=None),
]


@pytest.mark.parametrize("rows_of_batch", [1, 2, 1024])
@pytest.mark.parametrize("order", [1, -1])
def test_an_unlabelled_row_does_not_depend_on_neighbours(tmp_path, monkeypatch, rows_of_batch, order):
    monkeypatch.setattr("datasets_prep.reading.json_files.BATCH_ROWS", rows_of_batch)
    file = write(tmp_path / "rows.jsonl", MIXED[::order])
    names, card = prepared(tmp_path / "out", [file], "--unit_rows", str(rows_of_batch))
    assert names == {"bare", "clean", "moderated", "called english"}
    assert left_out(card) == {"language": 2, "toxic": 3, "redacted": 1, "language_detected": 1}
    assert {label: found["rows"] for label, found in card["unlabelled"].items()} == {
        "language": 7,
        "toxic": 6,
        "redacted": 9,
    }


def test_the_card_says_which_files_lack_labels(tmp_path):
    files = [
        write(tmp_path / "a.parquet", [row("a", toxic=False, language="English")]),
        write(tmp_path / "b.parquet", [row("b"), row("c")]),
        write(tmp_path / "c.jsonl", [row("d", toxic=False, redacted=False, language="English"), row("e")]),
    ]
    _, card = prepared(tmp_path / "out", files)
    assert card["unlabelled"] == {
        "language": {"rows": 3, "files": ["b.parquet", "c.jsonl"]},
        "toxic": {"rows": 3, "files": ["b.parquet", "c.jsonl"]},
        "redacted": {"rows": 4, "files": ["a.parquet", "b.parquet", "c.jsonl"]},
    }
    text = (tmp_path / "out" / "card.md").read_text()
    assert "3 of the 5 rows read have no label for toxic rows, so none of them were left out for that: `b.p" in text
    assert "4 of the 5 rows read have no label for redacted rows" in text
    assert "3 of the 5 rows read have no label for the language, so the detector decided" in text
    prepared(tmp_path / "kept", files, "--keep_toxic", "--language", "any")
    text = (tmp_path / "kept" / "card.md").read_text()
    assert "label for redacted rows" in text and "label for toxic" not in text and "the language" not in text
    _, card = prepared(tmp_path / "full", files[:1], "--keep_redacted")
    assert card["unlabelled"].keys() == {"redacted"} and "have no label" not in (tmp_path / "full/card.md").read_text()


def test_files_of_one_name_differ_by_few_folders(tmp_path):
    lines = [json.dumps(row("a")), '{"messages": [']
    files = [tmp_path / place / "rows.jsonl" for place in ("x/one", "y/one", "x/two")]
    files.append(tmp_path / "x" / "other.jsonl")
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines))
    names = ["x/one/rows.jsonl", "y/one/rows.jsonl", "two/rows.jsonl", "other.jsonl"]
    evaluations = [str(write(tmp_path / place / "eval.jsonl", [{"prompt": "Who?"}])) for place in ("x", "y")]
    _, card = prepared(tmp_path / "out", files, "--skip_malformed", "--decontaminate", *evaluations)
    assert card["unlabelled"]["toxic"]["rows"] == 4 and set(card["unlabelled"]["toxic"]["files"]) == set(names)
    assert {text.partition(",")[0] for text in card["malformed_examples"]} == set(names)
    assert set(card["settings"]["files"]) == set(names)
    assert card["settings"]["decontaminate"] == ["x/eval.jsonl", "y/eval.jsonl"]
    assert str(tmp_path) not in (tmp_path / "out" / "card.json").read_text()


@pytest.mark.parametrize("first", [turns_of(prompt(1), "Fine."), prompt(1)], ids=["turns", "text"])
@pytest.mark.parametrize("turns", ["first", "full"])
def test_a_batch_none_of_whose_rows_has_the_language(tmp_path, monkeypatch, first, turns):
    monkeypatch.setattr("flip_plugin.rows.reading.BATCH_ROWS", 2)
    other = {"id": "other", "messages": first, "language": "German"}
    rows = [other, other, {"id": "good", "messages": first, "language": "English"}, other, other]
    names, card = prepared(tmp_path / "out", [write(tmp_path / "rows.parquet", rows)], "--turns", turns)
    assert names == {"good"} and left_out(card) == {"language": 4}


# --- defects

GOOD = [wildchat(1), wildchat(2)]


def without(name):
    return json.dumps({key: value for key, value in wildchat(3).items() if key != name})


DEFECTS = {
    "no JSON": ('{"conversation": [', "line 3: not valid JSON"),
    "deep": ("[" * 200_000, "line 3: "),
    "no UTF-8": (b'{"conversation": "\xff"}', "line 3: is not UTF-8 text"),
    "no object": ("[1]", "row 3: a row must be an object, not list"),
    "toxic": (json.dumps(wildchat(3, toxic="no")), "row 3, toxic: must be true or false, but is 'no'"),
    "redacted": (json.dumps(wildchat(3, redacted=0)), "row 3, redacted: must be true or false, but is 0"),
    "language": (json.dumps(wildchat(3, language=7)), "row 3, language: must be text, but is 7"),
    "no toxic": (without("toxic"), "row 3: the row has no column toxic; it has"),
    "no language": (without("language"), "row 3: the row has no column language"),
    "no prompt": (without("conversation"), "row 3: the row has no column conversation"),
    "null prompt": (json.dumps(wildchat(3, conversation=None)), "row 3: the prompt must be text or a list of turns"),
    "number as prompt": (json.dumps(wildchat(3, conversation=7)), "row 3: the prompt must be text or a list of turns"),
    "null turn": (json.dumps(wildchat(3, conversation=[None])), "row 3: turn 1 must be an object"),
}


@pytest.mark.parametrize("unit_rows", ["1", "25000"])  # a unit that begins in the middle of the file, and one for all
@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_of_a_row_is_refused_or_counted(tmp_path, capsys, name, unit_rows):
    line, words = DEFECTS[name]
    lines = [*(json.dumps(one) for one in GOOD), line, json.dumps(wildchat(4))]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"".join((one if isinstance(one, bytes) else one.encode()) + b"\n" for one in lines))
    assert main(command(tmp_path / "no", [file], "--unit_rows", unit_rows), source="wildchat") == 1
    error = capsys.readouterr().err
    assert f"{file}, {words}" in error and "count and leave out such rows: --skip_malformed" in error
    _, card = prepared(tmp_path / "out", [file], "--skip_malformed", "--unit_rows", unit_rows, source="wildchat")
    assert left_out(card) == {"malformed": 1} and card["read"] == 4 and card["rows"] == 3
    unquoted = words.partition(", but is ")[0].partition("; it has")[0]
    assert card["malformed_examples"][0].startswith(f"rows.jsonl, {unquoted}")
    assert str(tmp_path) not in (tmp_path / "out" / "card.md").read_text()


HIDDEN = "0049-170-5551234"


@pytest.mark.parametrize(
    "line",
    [
        '{"messages": "Call me: ' + HIDDEN,
        json.dumps(row("a", toxic=HIDDEN)),
        json.dumps(row("a", openai_moderation=HIDDEN)),
        json.dumps({HIDDEN: "x"}),
        json.dumps({"messages": [{"role": HIDDEN, "content": "x"}]}),
        json.dumps({"messages": [{"role": "user", "content": [{"type": HIDDEN}]}]}),
    ],
    ids=["line", "label", "moderation", "key", "role", "content"],
)
def test_what_a_malformed_row_holds_is_not_published(tmp_path, capsys, line):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row("good")) + "\n" + line + "\n")
    assert main(command(tmp_path / "out", [file]), source="messages") == 1
    assert HIDDEN in capsys.readouterr().err
    _, card = prepared(tmp_path / "out", [file], "--skip_malformed")
    assert card["malformed_examples"][0].startswith("rows.jsonl, ") and left_out(card) == {"malformed": 1}
    for name in ("card.json", "card.md"):
        assert HIDDEN not in (tmp_path / "out" / name).read_text()


def test_defects_in_an_array_and_of_a_moderation(tmp_path, capsys):
    def one(number, **changes):
        return {
            "conversation_id": f"{number}",
            "conversation": turns_of(prompt(number)),
            "language": "English",
            "openai_moderation": [{"flagged": False}],
            "redacted": False,
        } | changes

    rows = [one(1), 7, one(2, openai_moderation={"flagged": False}), one(3, openai_moderation=[None]), one(4)]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    names, card = prepared(tmp_path / "out", [file], "--skip_malformed", source="lmsys")
    assert names == {"1", "4"} and left_out(card) == {"toxic": 1, "malformed": 2}
    assert [text.partition(":")[0] for text in card["malformed_examples"]] == [
        "rows.json, row 2",
        "rows.json, row 3, openai_moderation",
    ]
    # The same row as Parquet: a null among moderations is no clean bill there either.
    parquet = write(tmp_path / "rows.parquet", [rows[0], rows[3]], LMSYS)
    assert prepared(tmp_path / "two", [parquet], source="lmsys")[0] == {"1"}


def test_defects_of_parquet_rows(tmp_path, capsys):
    texts = [b"Write about the river Nile.", b"Write \xff\xfe about nothing.", b"Write about the lake Ladoga."]
    contents = pa.array(texts, pa.binary()).view(pa.string())
    turns = pa.StructArray.from_arrays([contents, pa.array(["user"] * 3)], ["content", "role"])
    column = pa.concat_arrays([pa.ListArray.from_arrays([0, 1, 2, 3], turns), pa.array([None], turns_type(turns))])
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": ["1", "2", "3", "4"], "messages": column}), file)
    assert main(command(tmp_path / "no", [file]), source="messages") == 1
    assert f"{file}, row 2: holds text that cannot be read" in capsys.readouterr().err
    names, card = prepared(tmp_path / "out", [file], "--skip_malformed")
    assert names == {"1", "3"} and left_out(card) == {"malformed": 2}
    assert [text.partition(":")[0] for text in card["malformed_examples"]] == [
        "rows.parquet, row 2",
        "rows.parquet, row 4",
    ]


def turns_type(turns):
    return pa.list_(turns.type)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_a_missing_column_is_refused_though_rows_may_be_skipped(tmp_path, capsys, suffix):
    rows = [json.loads(without("redacted")) for _ in range(3)]
    bad = tmp_path / f"b{suffix}"
    if suffix == ".json":
        bad.write_text(json.dumps(rows))
    else:
        write(bad, [{name: one[name] for name in ("conversation", "language", "toxic")} for one in rows])
    files = [write(tmp_path / "a.jsonl", GOOD), bad]
    assert main(command(tmp_path / "out", files, "--skip_malformed"), source="wildchat") == 1
    assert f"{bad}" in (error := capsys.readouterr().err) and "has no column redacted" in error
    assert not list((tmp_path / "out").glob(".work/unit-*"))


def test_ids_that_cannot_be_written_are_mended(tmp_path):
    names, _ = prepared(tmp_path / "out", [write(tmp_path / "rows.jsonl", [row("a") | {"id": "x\ud800"}])])
    assert names == {"x?"}


# --- arrays behind addresses


def batches_of(address):
    source = SOURCES["messages"]
    return [batch for unit in plan_units([address], source, 2) for batch in read_unit(unit, source)]


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_behind_an_address_is_read_like_a_local_one(indent):
    address = f"memory://array{indent}.json"
    with fsspec.open(address, "wt") as file:
        json.dump(MIXED[:1] * 3, file, indent=indent)
    assert sum(batch.size for batch in batches_of(address)) == 3
    assert [number for number, _ in numbered_rows(address)] == [1, 2, 3]


def test_defects_behind_an_address_have_its_name():
    for name, text, words in [
        ("cut", '[{"messages": "x"}', "line 1: not valid JSON"),
        ("seven", "[7]", "row 1: a row"),
    ]:
        with fsspec.open(f"memory://{name}.json", "wt") as file:
            file.write(text)
        with pytest.raises(DatasetError, match=f"memory://{name}.json, {words}"):
            list(numbered_rows(f"memory://{name}.json"))
