"""The evaluation sets: the real sets' schemas, what the subsets mean, and one seed gives one set."""

import json
import random

import pytest

from datasets_prep.tiny_world import eval_sets
from datasets_prep.tiny_world.eval_sets import (
    COUNTS,
    LENGTHS,
    SUBSETS,
    best_of_n_rows,
    rewardbench2_features,
    rewardbench2_rows,
)
from datasets_prep.tiny_world.language.grammar import (
    constraints_satisfied,
    draw_from_split,
    parse_instruction,
    render_instruction,
    satisfied,
    shown,
    split_of,
    write_response,
)
from datasets_prep.tiny_world.language.variants import draw_candidates, some_errors, write_with
from datasets_prep.tiny_world.wildchat_sample import wildchat_features, wildchat_rows


@pytest.fixture(scope="module")
def rows():
    return rewardbench2_rows(7, dict.fromkeys(COUNTS, 12))


# --- responses of other lengths


def test_short_responses_show_less_and_long_ones_no_more():
    rng = random.Random(1)
    attributes = draw_from_split("eval", rng) | {"sentences": "two"}
    instruction = render_instruction(attributes, rng)
    plain = write_response(attributes, rng)
    short = write_with(attributes, rng, without=("tone", "audience", "word"))
    long = write_with(attributes, rng, twice=("topic", "tone", "audience", "word"))
    assert len(short) < len(plain) < len(long)
    assert constraints_satisfied(instruction, plain) == constraints_satisfied(instruction, long) == 1.0
    assert constraints_satisfied(instruction, short) == pytest.approx(4 / 7)
    assert shown(short)["tone"] == shown(short)["word"] == set()


@pytest.mark.parametrize("sentences", ["two", "three", "four"])
def test_leaving_out_never_costs_the_number_of_sentences(sentences):
    rng = random.Random(2)
    attributes = draw_from_split("eval", rng) | {"sentences": sentences}
    text = write_with(attributes, rng, without=("tone", "audience", "word"))
    assert shown(text)["sentences"] == {sentences}


def test_candidates_have_one_best():
    rng = random.Random(3)
    for count in (2, 4, 8):
        attributes = draw_from_split("train", rng)
        instruction = render_instruction(attributes, rng)
        responses, best = draw_candidates(instruction, attributes, count, rng)
        shares = [constraints_satisfied(instruction, one) for one in responses]
        assert len(shares) == count and shares[best] == max(shares) and shares.count(max(shares)) == 1


def test_errors_are_as_many_as_asked_for():
    rng = random.Random(4)
    attributes = draw_from_split("train", rng)
    for count in range(8):
        changed = some_errors(attributes, count, rng)
        assert sum(changed[name] != value for name, value in attributes.items()) == count


# --- RewardBench 2


def test_rows_have_the_schema_of_rewardbench2_and_load(rows, tmp_path):
    datasets = pytest.importorskip("datasets")
    eval_sets.write_parquet(rows, rewardbench2_features(), tmp_path / "test.parquet")
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "test.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert loaded.features == rewardbench2_features()
    assert list(loaded.features) == [
        "id",
        "prompt",
        "chosen",
        "rejected",
        "num_correct",
        "num_incorrect",
        "total_completions",
        "models",
        "subset",
        "additional_metadata",
    ]
    assert loaded.to_list() == rows


def test_counts_in_a_row_agree(rows):
    for row in rows:
        assert row["num_correct"] == len(row["chosen"]) and row["num_incorrect"] == len(row["rejected"])
        assert row["total_completions"] == len(row["models"]) == row["num_correct"] + row["num_incorrect"]
        assert len({*row["chosen"], *row["rejected"]}) == row["total_completions"]
        if row["subset"] != "Ties":
            assert (row["num_correct"], row["num_incorrect"]) == (1, 3)
    assert len({row["id"] for row in rows}) == len(rows)


def test_every_right_response_is_better_than_every_wrong_one(rows):
    for row in rows:
        right, wrong = (
            [constraints_satisfied(row["prompt"], text) for text in row[name]] for name in ("chosen", "rejected")
        )
        assert min(right) > max(wrong)


def test_prompts_are_held_out(rows):
    for row in rows:
        assert split_of(parse_instruction(row["prompt"]) or {}) == "eval"


def wrong_names(row, response):
    """What a response gets wrong that the right one gets right."""
    best = satisfied(row["prompt"], row["chosen"][0])
    return {name for name, right in satisfied(row["prompt"], response).items() if best[name] and not right}


def test_the_subsets_test_what_they_say(rows):
    wrong = {subset: set() for subset in SUBSETS}
    for row in rows:
        if row["subset"] in wrong:
            wrong[row["subset"]] |= set().union(*(wrong_names(row, one) for one in row["rejected"]))
    assert wrong["Math"] == {"sentences"}
    assert wrong["Factuality"] == {"topic", "audience"}
    assert wrong["Precise IF"] == {"word", "closing", "sentences"}
    assert len(wrong["Focus"]) == 7


def test_ties_come_in_two_rows(rows):
    ties = {row["id"]: row for row in rows if row["subset"] == "Ties"}
    assert len(ties) == 24
    for number in range(12):
        ref, tied = ties[f"ref:{number}"], ties[f"tied:{number}"]
        assert ref["prompt"] == tied["prompt"] and ref["rejected"] == tied["rejected"]
        assert ref["chosen"] == tied["chosen"][:1] and len(tied["chosen"]) > 1


def test_lengths_do_not_tell_right_from_wrong(rows):
    words = {length: [] for length in LENGTHS}
    gap = []
    for row in rows:
        right, wrong = (sum(len(t.split()) for t in row[name]) / len(row[name]) for name in ("chosen", "rejected"))
        words[row["additional_metadata"]["subcategory"]].append(right)
        gap.append(right - wrong)
    mean = {length: sum(found) / len(found) for length, found in words.items()}
    assert mean["short"] + 4 < mean["plain"] < mean["long"] - 8
    assert abs(sum(gap) / len(gap)) < 1.5


# --- WildChat, best of N


def test_conversations_have_the_schema_of_wildchat_and_load(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = wildchat_rows(1, 150)
    eval_sets.write_parquet(rows, wildchat_features(), tmp_path / "train.parquet")
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "train.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert loaded.features == wildchat_features()
    for row in loaded:
        turns = row["conversation"]
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * row["turn"]
        assert len(row["openai_moderation"]) == len(row["detoxify_moderation"]) == len(turns)
        assert row["toxic"] == any(turn["toxic"] for turn in turns)
        assert row["redacted"] == any(turn["redacted"] for turn in turns)


def test_there_is_something_for_every_filter():
    rows = wildchat_rows(1, 400)
    first = [row["conversation"][0]["content"] for row in rows]
    assert {row["language"] for row in rows} > {"English", "German"}
    assert any(row["toxic"] for row in rows) and any(row["redacted"] for row in rows)
    assert any(row["turn"] > 1 for row in rows)
    assert len(set(first)) < len(first) - 10  # exact duplicates
    assert any(text.removeprefix("Please: ") in first for text in first if text.startswith("Please: "))
    assert "" in first and "hi" in first and max(map(len, first)) > 5000


def test_one_seed_one_set():
    assert wildchat_rows(3, 30) == wildchat_rows(3, 30) != wildchat_rows(4, 30)
    assert best_of_n_rows(3, 10) == best_of_n_rows(3, 10) != best_of_n_rows(4, 10)


def test_the_command_writes_all_sets(tmp_path, capsys):
    eval_sets.main(["--output", str(tmp_path), "--num_items", "2", "--num_conversations", "5", "--num_prompts", "3"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"] == {"rewardbench2": 12, "wildchat": 5, "best_of_n": 3}
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "best_of_n.jsonl",
        "rewardbench2.jsonl",
        "rewardbench2.parquet",
        "wildchat.parquet",
    ]
    prompts = [json.loads(line) for line in (tmp_path / "best_of_n.jsonl").read_text().splitlines()]
    assert all(constraints_satisfied(row["ground_truth"], row["prompt"]) < 1 for row in prompts)
