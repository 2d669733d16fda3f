"""Rows for a run: splits kept apart, one difference between judge types, files written whole."""

import json
from itertools import islice

import pytest

from datasets_prep.tiny_world.language.grammar import parse_instruction, split_of
from datasets_prep.tiny_world.rows import main, make_rows
from datasets_prep.tiny_world.training.examples import flip_examples, pointwise_examples, policy_examples
from datasets_prep.writing.files import write_rows
from flip_plugin.prompts.templates import PromptSet


def split_in(instruction):
    attributes = parse_instruction(instruction)
    assert attributes is not None
    return split_of(attributes)


def test_a_row():
    row = make_rows("train", 1, "flip", seed=3)[0]
    assert set(row) == {"messages", "ground_truth", "dataset"}
    assert row["messages"] == [{"role": "user", "content": row["ground_truth"]}]
    assert row["dataset"] == "general-flip"
    assert parse_instruction(row["ground_truth"])


def test_rows_are_distinct_and_follow_the_seed():
    rows = make_rows("train", 300, "flip", seed=3)
    assert len({row["ground_truth"] for row in rows}) == 300
    assert rows == make_rows("train", 300, "flip", seed=3)
    assert rows[:50] == make_rows("train", 50, "flip", seed=3)
    assert rows != make_rows("train", 300, "flip", seed=4)


def test_judge_types_differ_in_the_dataset_column_alone():
    flip, quality = (make_rows("eval", 50, judge_type, seed=1) for judge_type in ("flip", "quality"))
    assert {row.pop("dataset") for row in flip} == {"general-flip"}
    assert {row.pop("dataset") for row in quality} == {"general-quality"}
    assert flip == quality


@pytest.mark.parametrize("split", ["train", "eval"])
def test_rows_stay_in_their_split(split):
    assert {split_in(row["ground_truth"]) for row in make_rows(split, 200, "flip", 1)} == {split}


def test_the_models_learn_from_the_pretraining_split_alone():
    for example in islice(policy_examples(1, 0.5), 100):
        assert split_in(example.messages[-1]["content"]) == "pretraining"
    prompts = PromptSet.load()
    for example in islice(pointwise_examples(1, prompts), 100):
        instruction = example.messages[-1]["content"].split("<instruction>\n")[1].split("\n</instruction>")[0]
        assert split_in(instruction) == "pretraining"
    inferred = [json.loads(e.reply)["INFERRED INSTRUCTION"] for e in islice(flip_examples(1, prompts), 300)]
    # A damaged response leaves the judge to guess, and a guess may fall into another split.
    share = sum(split_in(text) == "pretraining" for text in inferred) / len(inferred)
    assert share > 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", 1, "flip", 1), "split"),
        (("train", 1, "rubric", 1), "judge type"),
        (("train", 0, "flip", 1), "at least"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_rows(*arguments)


def test_the_command_writes_json_lines(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    main(["--judge_type", "quality", "--split", "eval", "--num_prompts", "5", "--seed", "2", "--output", str(path)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == make_rows("eval", 5, "quality", seed=2)
    assert [file.name for file in path.parent.iterdir()] == ["rows.jsonl"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_rows([{"good": 1}, {"bad": object()}], path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]
