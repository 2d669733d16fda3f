import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_plugin.parsing import LONGEST_REPLY, after_thinking, parse_flip_reply, parse_score_reply

GOOD = json.dumps({"REASONING": "because", "INFERRED INSTRUCTION": "Write it"})
PIECES = st.sampled_from(
    [
        *("{", "}", "[", "]", '"', "'", ":", ",", "\n", "\\", "```json", "```", "<think>", "</think>", "null", "1e999"),
        *("INFERRED INSTRUCTION", '"INSTRUCTION":', '"SCORE":', "SCORE", "10", GOOD, "\ud800", "a"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join)))
def test_no_text_raises_and_every_reply_is_value_or_problem(text):
    reply, score = parse_flip_reply(text), parse_score_reply(text)
    assert (reply.instruction is None) == (reply.problem is not None)
    assert reply.instruction is None or reply.instruction.strip() == reply.instruction != ""
    assert (score.score is None) == (score.problem is not None)
    assert score.score is None or 1 <= score.score <= 10


@settings(max_examples=100, deadline=None)
@given(
    st.text(min_size=1).filter(str.strip),
    st.sampled_from(["", "Sure: ", "```json\n", "so {x} </think>", "<think>a</think>"]),
)
def test_any_instruction_survives_its_wrapping(instruction, before):
    # A surviving tag inside the string could not be told from a real one behind prose.
    instruction = instruction.replace("<", "(")
    reply = before + json.dumps({"REASONING": "r", "INFERRED INSTRUCTION": instruction})
    assert parse_flip_reply(reply).instruction == instruction.strip()


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="{}")))
def test_text_without_an_object_is_never_an_instruction(text):
    assert parse_flip_reply(text).instruction is None


@pytest.mark.parametrize(
    "reply",
    [
        "{" * 90_000,
        '{"a":' * 15_000,
        '{"INFERRED INSTRUCTION":' * 3_000,
        "[" * 90_000,
        "{'INSTRUCTION': {" * 4_000 + "'",
    ],
)
def test_hostile_replies_cost_little(reply):
    started = time.monotonic()
    parse_flip_reply(reply)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("reply", "instruction"),
    [
        (GOOD + ' {"INFERRED INSTRUCTION": "Second"}', "Second"),
        (GOOD + ' {"INFERRED INSTRUCTION": 3}', "Write it"),
        (GOOD + ' {"note": "done"}', "Write it"),
        ("{" + GOOD + "}", "Write it"),
        ('{"result": ' + GOOD + "}", "Write it"),
        (f"Example: {{foo}} then {GOOD[:-1]},}}", "Write it"),
        ('{"REASONING": "it has {braces}", "INFERRED INSTRUCTION": "Write', "Write"),
        ('{"INSTRUCTION": "short", "INFERRED INSTRUCTION": "exact"}', "exact"),
        (f"{GOOD} and then <think>more", "Write it"),
    ],
)
def test_which_object_counts(reply, instruction):
    assert parse_flip_reply(reply).instruction == instruction


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (None, "no text"),
        ("   ", "no text"),
        ("Write it", "no JSON object"),
        ("INFERRED INSTRUCTION: Write it", "no JSON object"),
        ('{"REASONING": "the instruction: was', "no readable"),
        ('{"SCORE": 3}', "no readable"),
        ("<think>" + GOOD, "inside its thinking"),
        ("<think>a</think><think>" + GOOD, "inside its thinking"),
        ('{"INFERRED INSTRUCTION": null}', "NoneType"),
        ('{"INFERRED INSTRUCTION": " "}', "empty"),
        ("x" * (LONGEST_REPLY + 1), "characters"),
    ],
)
def test_problems_are_named(reply, problem):
    parsed = parse_flip_reply(reply)
    assert parsed.instruction is None
    assert problem in (parsed.problem or "")


def test_reasoning_is_kept():
    assert parse_flip_reply(GOOD).reasoning == "because"
    assert parse_flip_reply('{"REASONING": "r", "INFERRED INSTRUCTION": ""}').reasoning == "r"


@pytest.mark.parametrize(
    ("value", "score"),
    [("8", 8), ("1", 1), ("10", 10), ("7.5", 7.5), ('"8"', 8), ('"8/10"', 8), ('" 9 / 10 "', 9)]
    + [(bad, None) for bad in ("0", "11", "-3", "NaN", "1e999", "true", "null", "[8]", '"good"', "9" * 5000)],
)
def test_scores(value, score):
    parsed = parse_score_reply(f'{{"REASONING": "r", "SCORE": {value}}}')
    assert parsed.score == score
    assert (parsed.problem is None) == (score is not None)


def test_after_thinking():
    assert after_thinking("a</think>b") == "b"
    assert after_thinking("<THINK>x") is None
    assert after_thinking("plain") == "plain"
