"""Promises that are easily broken: found by using the package in ways that its other tests do not."""

import json

import pytest

from flip_plugin.prompts.target import Target
from flip_plugin.prompts.templates import DEFAULT_FOLDER, PromptSet
from flip_plugin.replies.parsing import parse_flip_reply
from flip_plugin.reward.flip import FlipReward
from flip_plugin.text.echo import echo_share, penalty, strip_echo

ASKED = "Write a haiku about autumn leaves in Kyoto"


def flip(judge, **options):
    return FlipReward("hosted_vllm/m", judge.base, **{"timeout": 5, "max_attempts": 1, **options})


def test_paths_of_no_use_are_errors_at_the_start(judge, tmp_path):
    (tmp_path / "notes").write_text("no database " * 100)
    with pytest.raises(ValueError, match="notes cannot be used as a cache"):
        flip(judge, cache_path=tmp_path / "notes")
    with pytest.raises(ValueError, match="judge calls cannot be kept in"):
        flip(judge, record=tmp_path / "notes" / "calls")


@pytest.mark.parametrize("answer", ["...", "<the instruction>", "<instruction>", "[...your answer...]", "…"])
def test_a_judge_that_repeats_the_format_gave_no_answer(answer):
    reply = f"Use this form: {json.dumps({'REASONING': '...', 'INFERRED INSTRUCTION': answer})}"
    assert "placeholder" in (parse_flip_reply(reply).problem or "")
    both = f'{{"INFERRED INSTRUCTION": "Write a poem"}}\nThe form was {reply}'
    assert parse_flip_reply(both).instruction == "Write a poem"


def test_the_key_as_asked_for_goes_before_a_looser_one():
    reply = '{"INFERRED INSTRUCTION": "Write a poem"}\n{"instruction": "draft"}'
    assert parse_flip_reply(reply).instruction == "Write a poem"
    assert parse_flip_reply(reply.partition("\n")[2]).instruction == "draft"


def test_a_similarity_that_fails_costs_its_own_row_alone(judge):
    judge.handler = lambda body: json.dumps({"INFERRED INSTRUCTION": "bad" if "row 3" in str(body) else "guess"})

    def similarity(prediction, reference):
        return 1 / (prediction != "bad")

    results = flip(judge, similarity=similarity).score_batch(["guess"] * 6, [f"row {i}" for i in range(6)])
    assert [result.score for result in results] == [1.0, 1.0, 1.0, None, 1.0, 1.0]
    assert "ZeroDivisionError" in (results[3].error or "")


async def test_an_empty_target_is_none(judge):
    assert (await flip(judge).score(Target("  "), "x")).status == "no_target"
    assert judge.requests == []


def test_a_restatement_nested_in_itself_is_stripped():
    nested = "write haiku about write haiku about autumn autumn leaves leaves in Kyoto in Kyoto"
    assert echo_share(ASKED, strip_echo(ASKED, nested)) == 0.0
    assert strip_echo(ASKED, nested) == "leaves in Kyoto in Kyoto"


def test_echo_without_spaces():
    target = "请写一首关于秋天落叶的俳句"
    said = f"你说：{target}。好的，红叶"
    assert (echo_share(target, said), penalty(target, 1.0)) == (1.0, 0.0)
    assert strip_echo(target, said) == "你说：。好的，红叶"
    assert echo_share(target, "秋天的落叶很美") == 0.0
    assert penalty("写一首诗", 1.0) == 1.0  # two words


def test_the_same_prompts_from_another_folder_are_equal(tmp_path):
    for file in DEFAULT_FOLDER.glob("*.prompt"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert PromptSet.load(tmp_path) == PromptSet.load()
