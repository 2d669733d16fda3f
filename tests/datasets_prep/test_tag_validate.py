"""`tag` changes the column `dataset` alone; `validate` and the trainer refuse the same rows in the same words."""

import json
from importlib.metadata import EntryPoint

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prep_cases import TINY_TOKENIZER, prompt, read_rows, wildchat, write

from datasets_prep import tag, validate
from datasets_prep.prepare import main as prepare
from datasets_prep.tiny_world.rows import make_rows
from flip_plugin import plugins
from flip_plugin.plugins import VERIFIER_GROUP
from flip_plugin.rows.checks import DatasetError
from flip_plugin.rows.verifier_names import BUILT_IN, dataset_of, known_verifiers
from open_instruct.data.rows import load_dataset_mixer
from open_instruct.data.templates import get_tokenizer
from open_instruct.data.transform import prepare_dataset
from open_instruct.rewards.registry import build_all_verifiers


def row(text="Write a haiku.", **changes):
    return {
        "messages": [{"role": "user", "content": text}],
        "ground_truth": text,
        "dataset": "general-flip",
    } | changes


def without_tag(rows):
    return [{name: value for name, value in row.items() if name != "dataset"} for row in rows]


# --- tag


def test_judge_types_are_names_of_data_sets():
    assert [dataset_of(name) for name in ("flip", "general-flip", "Quality", "mine")] == [
        "general-flip",
        "general-flip",
        "general-quality",
        "general-mine",
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_only_the_tag_changes_and_back_again(tmp_path, suffix):
    rows = [row(prompt(number) + " ünï 漢", score=0.1, extra=[1, None]) for number in range(2500)]
    first = write(tmp_path / f"a{suffix}", rows)
    second, third = tmp_path / f"b{suffix}", tmp_path / f"c{suffix}"
    assert tag.main(["--judge_type", "general-quality", "--input", str(first), "--output", str(second)]) == 0
    assert tag.main(["--judge_type", "flip", "--input", str(second), "--output", str(third)]) == 0

    def read(path):
        return read_rows(path) if suffix == ".jsonl" else pq.read_table(path).to_pylist()

    assert {found["dataset"] for found in read(second)} == {"general-quality"}
    assert without_tag(read(second)) == without_tag(rows) and read(third) == rows
    if suffix == ".parquet":
        assert pq.read_schema(second).equals(pq.read_schema(first), check_metadata=True)


def test_other_verifiers_keep_their_rows(tmp_path):
    rows = [
        row(),
        row(dataset="gsm8k", ground_truth="3"),
        row(dataset=["general-flip", "ifeval"], ground_truth=["a", "b"]),
    ]
    file = write(tmp_path / "a.jsonl", rows)
    tag.tag(str(file), tmp_path / "b.jsonl", "general-quality")
    assert [found["dataset"] for found in read_rows(tmp_path / "b.jsonl")] == [
        "general-quality",
        "gsm8k",
        ["general-quality", "ifeval"],
    ]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(), row(dataset=None)], "row 2 of .*a.jsonl, dataset: must be a verifier's name"),
        ([row(dataset=["general-flip", "general-quality"])], "row 1 of .*would name general-quality twice"),
        ([row(dataset="gsm8k")], "no row names a judge"),
    ],
)
def test_rows_that_cannot_be_tagged(tmp_path, rows, words):
    file = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(DatasetError, match=words):
        tag.tag(str(file), tmp_path / "b.jsonl", "general-quality")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    older = write(tmp_path / "b.jsonl", [row("older")])
    with pytest.raises(DatasetError, match=words):
        tag.tag(str(file), older, "general-quality")
    assert read_rows(older) == [row("older")]


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    write(source / "train-0.jsonl", [row("new 0")])
    write(source / "train-1.jsonl", [row("new 1", dataset="gsm8k")])
    older = [write(target / f"train-{n}.jsonl", [row(f"old {n}", dataset="general-quality")]) for n in (0, 1)]
    with pytest.raises(DatasetError, match="no row names a judge"):
        tag.tag(str(source), target, "general-quality")
    assert [read_rows(file)[0]["ground_truth"] for file in older] == ["old 0", "old 1"]
    assert sorted(target.iterdir()) == older
    write(source / "train-1.jsonl", [row("new 1")])
    tag.tag(str(source), target, "general-quality")
    assert [read_rows(file)[0]["ground_truth"] for file in older] == ["new 0", "new 1"]
    assert sorted(target.iterdir()) == older


def test_the_input_is_not_overwritten_and_the_format_stays(tmp_path):
    file = write(tmp_path / "a.jsonl", [row()])
    with pytest.raises(DatasetError, match="is the input itself"):
        tag.tag(str(file), file, "general-quality")
    with pytest.raises(DatasetError, match="the format stays"):
        tag.tag(str(file), tmp_path / "b.parquet", "general-quality")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "c.parquet")
    with pytest.raises(DatasetError, match="lacks the column dataset; it has x"):
        tag.tag(str(tmp_path / "c.parquet"), tmp_path / "d.parquet", "general-quality")


def test_a_prepared_folder_with_its_card(tmp_path, capsys):
    data = write(tmp_path / "a.jsonl", [wildchat(number) for number in range(30)])
    argv = ["--data", str(data), "--tokenizer", TINY_TOKENIZER, "--workers", "1"]
    assert prepare([*argv, "--judge_type", "flip", "--output", str(tmp_path / "flip")], source="wildchat") == 0
    assert prepare([*argv, "--judge_type", "quality", "--output", str(tmp_path / "made")], source="wildchat") == 0
    tag.tag(str(tmp_path / "flip"), tmp_path / "tagged", "general-quality")
    for name in ("train.jsonl", "card.md"):
        assert (tmp_path / "tagged" / name).read_bytes() == (tmp_path / "made" / name).read_bytes()
    assert validate.main([str(tmp_path / "flip"), str(tmp_path / "tagged")]) == 0
    assert capsys.readouterr().out.count("30 rows, all good") == 2


# --- validate


CASES = {
    "no messages": row(messages=None),
    "empty messages": row(messages=[]),
    "messages as text": row(messages="Write"),
    "role of another": row(messages=[{"role": "human", "content": "x"}]),
    "unknown role": row(messages=[{"role": "wizard", "content": "x"}]),
    "no role": row(messages=[{"content": "x"}]),
    "turn as text": row(messages=["x"]),
    "number as content": row(messages=[{"role": "user", "content": 3}]),
    "no content": row(messages=[{"role": "user"}]),
    "picture": row(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
    "blank prompt": row(" \n"),
    "no user turn": row(messages=[{"role": "system", "content": "x"}]),
    "no dataset": row(dataset=None),
    "empty dataset": row(dataset=[]),
    "unknown verifier": row(dataset="general-flop"),
    "no label": row(ground_truth=None),
    "blank label": row(ground_truth="  "),
    "list as label": row(ground_truth=["a"]),
    "fewer labels than verifiers": row(dataset=["general-flip", "gsm8k"]),
    "a label that its verifier cannot use": row(dataset="gsm8k", ground_truth="no number"),
    "half a surrogate pair": row("Hi \ud83d there", dataset="general-\udfff"),
    "half a pair as a key of a column that nobody reads": row(extra=[{"\ud800": 1}]),
}


def words_of_trainer(path, known):
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(
            [str(path), "1.0"],
            ["train"],
            get_tokenizer(TINY_TOKENIZER),
            max_prompt_token_length=500,
            known_verifiers=known,
            seed=1,
        )
    return str(caught.value)


@pytest.fixture(scope="module")
def known():
    return build_all_verifiers(None)


def words_of_validator(path, known):
    with pytest.raises(DatasetError) as caught:
        validate.validate_file(str(path), known)
    return str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_the_trainer_refuses_the_same_row_in_the_same_words(tmp_path, known, name):
    path = write(tmp_path / "rows.jsonl", [row(), CASES[name]])
    words = words_of_validator(path, known)
    assert words == words_of_trainer(path, known)
    assert f"row 2 of {path}" in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"messages": [\n', "line 1: not valid JSON"),
        ("[1, 2]\n", "row 1: a row must be an object, not list"),
        (
            '{"prompt": "x", "dataset": "general-flip"}\n',
            "lacks the columns messages, ground_truth; it has prompt, dataset",
        ),
        ("\n", "holds no rows"),
    ],
)
def test_files_are_refused_in_the_same_words(tmp_path, known, text, words):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    assert words in words_of_validator(path, known)
    assert words_of_validator(path, known) == words_of_trainer(path, known)


def test_a_parquet_row_is_refused_in_the_same_words(tmp_path, known):
    path = write(tmp_path / "rows.parquet", [row(), row(), row(ground_truth="")])
    assert words_of_validator(path, known) == words_of_trainer(path, known)
    assert f"row 3 of {path}, ground_truth: is missing or empty" in words_of_validator(path, known)


def test_the_command_names_row_and_reason(tmp_path, capsys):
    good, bad = write(tmp_path / "a.jsonl", [row()]), write(tmp_path / "b.jsonl", [row(), row(dataset="nope")])
    assert validate.main([str(good), str(bad)]) == 1
    printed = capsys.readouterr()
    assert f"{good}: 1 rows, all good" in printed.out
    assert f"row 2 of {bad}, dataset: no verifier is called 'nope'" in printed.err
    assert validate.main([str(bad), "--verifiers", "nope", "general-flip"]) == 0


def test_a_label_that_is_no_turn_is_told_but_passes(tmp_path, capsys):
    system = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Hi there."}]
    rows = [
        row(),
        row(ground_truth="Something else."),
        row(messages=system, ground_truth="Rhyme."),
        row(messages=system, ground_truth="Hi there."),
        row(dataset="string_f1", ground_truth="Paris"),
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    assert validate.main([str(path)]) == 0
    assert "the ground_truth of 1 rows is no turn of their messages: 2" in capsys.readouterr().out


def test_without_the_trainer_its_names_are_known(monkeypatch):
    def load(point):
        missing = ModuleNotFoundError("No module named 'open_instruct'", name="open_instruct")
        raise plugins.PluginError("cannot be imported") from missing

    # Not EntryPoint.load: a package may have put the backport of importlib.metadata in its place.
    monkeypatch.setattr(plugins, "load", load)
    assert set(known_verifiers()) == set(BUILT_IN)


def test_a_broken_package_of_a_verifier_is_named(monkeypatch, tmp_path, capsys):
    point = EntryPoint("mine", "no_such_module:verify", VERIFIER_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == VERIFIER_GROUP else [])
    assert validate.main([str(write(tmp_path / "rows.jsonl", [row()]))]) == 1
    assert "entry point 'mine' = 'no_such_module:verify'" in capsys.readouterr().err


def test_names_and_label_checks_are_the_trainers(known):
    here = known_verifiers()
    assert set(here) == set(known)
    assert here["gsm8k"] is not None and here["constraints_satisfied"] is None


def test_rows_of_the_tiny_world_pass_and_load(tmp_path, known):
    path = write(tmp_path / "rows.jsonl", make_rows("train", 20, "flip", seed=1))
    assert validate.validate_file(str(path), known) == (20, [])
    assert len(load_dataset_mixer([str(path), "1.0"], ["train"], seed=1)) == 20
    assert json.loads(path.read_text().splitlines()[0])["dataset"] == "general-flip"
