"""The judges of the evaluations: what they learn from, how they are built, and how the shipped ones do."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from datasets_prep.tiny_world.build_judges import DEFAULT_OUTPUT, SIZES, TRAINED_ON
from datasets_prep.tiny_world.language.grammar import parse_instruction, split_of
from datasets_prep.tiny_world.training.examples import judge_streams, listwise_examples, pairwise_examples
from datasets_prep.tiny_world.training.judge_report import Item, evaluate_judge, held_out_items, picked
from datasets_prep.tiny_world.training.judging import (
    listwise_messages,
    listwise_reply,
    pairwise_messages,
    pairwise_reply,
    pointwise_reply,
)
from flip_plugin.prompts.target import Target
from flip_plugin.prompts.templates import PromptSet
from flip_plugin.replies.parsing import parse_best_index, parse_better, parse_flip_reply, parse_score_reply
from flip_plugin.reward.listwise import ListwiseJudge
from flip_plugin.reward.pairwise import PairwiseJudge

INSTRUCTION = (
    "Write a gloomy poem about honey bees for old sailors: two sentences, mention the anchor, end with a warm thanks."
)
GOOD = (
    "O muse, the swarm danced over clover, all hope seemed gone, grey seafarers know it well, and I kept the anchor. "
    "Thank you for listening."
)
BAD = "O muse, warm loaves left the oven. Joy was everywhere. Ask timid scholars. I kept the anchor. Do you agree?"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def prompts():
    return PromptSet.load()


# --- what they learn from


def test_replies_by_hand():
    assert json.loads(pointwise_reply(INSTRUCTION, BAD)) == {
        "REASONING": "gloomy: cheerful no, poem: poem yes, honey bees: fresh bread no, old sailors: shy students no, "
        "two: mixed no, anchor: anchor yes, warm thanks: direct question no.",
        "SCORE": 3,
    }
    better = json.loads(pairwise_reply(INSTRUCTION, BAD, GOOD))
    assert better["BETTER_RESPONSE"] == "B"
    assert better["REASONING"].startswith("cheerful gloomy B, poem poem both, fresh bread honey bees B")
    best = json.loads(listwise_reply(INSTRUCTION, [BAD, GOOD, BAD], 1))
    assert best["BEST_RESPONSE_INDEX"] == 1
    assert best["REASONING"].startswith("gloomy 1, poem 0 1 2, honey bees 1")
    with pytest.raises(ValueError, match="neither"):
        pairwise_reply(INSTRUCTION, GOOD, GOOD)


def test_questions_are_those_of_the_judges(prompts):
    pairwise, listwise = (kind("hosted_vllm/x", "http://127.0.0.1:1/v1") for kind in (PairwiseJudge, ListwiseJudge))
    target = Target(INSTRUCTION)
    assert pairwise_messages(prompts, INSTRUCTION, GOOD, BAD) == pairwise._filled(target, [GOOD, BAD])
    assert listwise_messages(prompts, INSTRUCTION, [GOOD, BAD, GOOD]) == listwise._filled(target, [GOOD, BAD, GOOD])


def test_replies_fit_the_parsers_and_the_schemas(prompts):
    parsers = (
        lambda text: parse_flip_reply(text).instruction,
        lambda text: parse_score_reply(text).score,
        lambda text: parse_better(text).index,
        lambda text: parse_best_index(text, 8).index,
    )
    for stream, parse in zip(judge_streams(5, prompts), parsers, strict=True):
        for example in islice(stream, 60):
            assert parse(example.reply) is not None
            assert len(json.loads(example.reply)["REASONING"]) <= 300


def test_no_one_answer_is_always_right(prompts):
    better = [parse_better(one.reply).index for one in islice(pairwise_examples(6, prompts), 200)]
    assert 60 < better.count(1) < 140 and set(better) == {0, 1}
    best = [parse_best_index(one.reply, 8).index for one in islice(listwise_examples(6, prompts), 200)]
    assert set(best) == set(range(8))


def test_streams_of_every_prompt_from_the_pretraining_split(prompts):
    four = judge_streams(1, prompts, 4)
    systems = [next(stream).messages[0]["content"] for stream in four]
    assert len(four) == len(set(systems)) == 4
    asked = [next(stream).messages[1]["content"].partition("</instruction>")[0] for stream in four[1:]]
    for text in asked:
        attributes = parse_instruction(text.removeprefix("<instruction>\n").strip())
        assert attributes is not None and split_of(attributes) == "pretraining"


def test_a_listwise_batch_has_one_number_of_responses(prompts):
    counts = [one.messages[1]["content"].count("<response_") for one in islice(listwise_examples(1, prompts, 4), 40)]
    assert all(len(set(counts[start : start + 4])) == 1 for start in range(0, 40, 4)) and len(set(counts)) > 3


# --- the report


def test_picks_by_hand():
    items = [Item("i", ["a", "b"], 0), Item("i", ["a", "b"], 1)]
    assert picked([[1.0, 0.0], [1.0, 0.0]], items) == 0.5
    assert picked([[0.5, 0.5], [None, 0.1]], items) == 0.75
    assert picked([[None, None], [None, None]], items) == 0.5


def test_report_items_are_held_out():
    for item in held_out_items(5, 1):
        assert split_of(parse_instruction(item.instruction) or {}) == "eval"


# --- as shipped


@pytest.fixture(scope="module")
def report():
    return json.loads((DEFAULT_OUTPUT / "build_report.json").read_text())


def test_shipped_files_are_complete_and_small(report):
    assert list(report) == list(SIZES)
    for name, (layers, hidden) in SIZES.items():
        folder = DEFAULT_OUTPUT / name
        assert {file.name for file in folder.iterdir()} == {
            "config.json",
            "model.safetensors",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "build_report.json",
        }
        config = json.loads((folder / "config.json").read_text())
        assert (config["num_hidden_layers"], config["hidden_size"]) == (layers, hidden)
        assert config["tie_word_embeddings"] is False and config["dtype"] == "bfloat16"
        assert (folder / "model.safetensors").stat().st_size < 2_200_000
        assert json.loads((folder / "build_report.json").read_text()) == report[name]


def test_shipped_judges_were_trained_on_todays_prompts(report):
    """A changed prompt asks for rebuilt judges: python -m datasets_prep.tiny_world.build_judges"""
    now = PromptSet.load().hashes()
    for name in SIZES:
        assert report[name]["prompts"] == {prompt: now[prompt] for prompt in TRAINED_ON}
    same = ("seed", "steps", "examples_of_each_prompt", "prompts")
    assert all(report[name][key] == report["small"][key] for name in SIZES for key in same)


def test_shipped_judges_infer_and_larger_ones_grade_better(report):
    """What the evaluations rest on, on the report's held-out items."""
    flip, pointwise = (
        [report[name]["report"][method]["accuracy"] for name in SIZES] for method in ("flip", "pointwise")
    )
    assert min(flip) > 0.9
    assert sorted(pointwise) == pointwise and min(pointwise) > 0.5


@pytest.mark.parametrize("size", ["small", pytest.param("medium", marks=pytest.mark.slow), "large"])
def test_shipped_judges_answer_in_all_four_formats(size):
    judge = AutoModelForCausalLM.from_pretrained(DEFAULT_OUTPUT / size, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(DEFAULT_OUTPUT / size)
    found = evaluate_judge(judge, tokenizer, seed=99, num_items=4)
    for method in ("flip", "pointwise", "pairwise", "listwise"):
        assert found[method]["invalid"] <= 0.25, method


@pytest.mark.slow
def test_a_build_end_to_end(tmp_path):
    command = [sys.executable, "-m", "datasets_prep.tiny_world.build_judges", "--output", str(tmp_path / "judges")]
    small = ["--sizes", "small", "--steps", "2", "--batch", "2", "--report_items", "2"]
    subprocess.run([*command, *small], check=True, cwd=Path(__file__).parents[3], timeout=280)
    assert sorted(file.name for file in (tmp_path / "judges").iterdir()) == ["build_report.json", "small"]
