import pytest

from flip_plugin.prompts.target import NoTarget, Target, find_target, render_context, target_from_query

USER = {"role": "user", "content": "Write a haiku.\nuser: not a turn"}
SYSTEM = {"role": "system", "content": "Be terse."}
EARLIER = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize(
    ("messages", "choice", "instruction", "context"),
    [
        ("One\ntwo", "auto", "One\ntwo", []),
        ([USER], "auto", USER["content"], []),
        ([USER, {"role": "assistant", "content": "done"}], "auto", USER["content"], []),
        ([*EARLIER, USER], "auto", USER["content"], EARLIER),
        ([SYSTEM, USER], "auto", "Be terse.", [USER]),
        ([SYSTEM, *EARLIER, USER], "auto", "Be terse.", [*EARLIER, USER]),
        ([SYSTEM, *EARLIER, USER], "user", USER["content"], EARLIER),
        ([SYSTEM, USER], "system", "Be terse.", [USER]),
        ([{"role": "system", "content": " "}, USER], "auto", USER["content"], []),
        ([{"role": "Developer", "content": "Be terse."}, USER], "auto", "Be terse.", [USER]),
        ([USER, {"role": "tool", "content": "42"}], "auto", USER["content"], []),
    ],
)
def test_which_turn_is_recovered(messages, choice, instruction, context):
    assert find_target(messages, choice) == Target(instruction, context)


@pytest.mark.parametrize(
    ("messages", "choice", "words"),
    [
        ("  ", "auto", "empty"),
        ([], "auto", "empty"),
        (None, "auto", "NoneType"),
        ([SYSTEM], "user", "no user turn"),
        ([USER], "system", "no system prompt"),
        ([EARLIER[1]], "auto", "no user turn"),
        ([USER, "x"], "auto", "message 2"),
        ([{"content": "x"}], "auto", "message 1 has no role"),
        ([{"role": "user", "content": 3}], "auto", "message 1 has content of type int"),
        ([{"role": "user", "content": [3]}], "auto", "part of type int"),
        ([*EARLIER, {"role": "user", "content": None}], "auto", "turn 3 of 3"),
    ],
)
def test_what_is_wrong_is_said(messages, choice, words):
    with pytest.raises(NoTarget, match=words):
        find_target(messages, choice)


def test_unknown_choice():
    with pytest.raises(ValueError, match="'assistant'"):
        find_target("x", "assistant")  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize(
    ("query", "label", "context"),
    [
        ("user: Write", "Write", ""),
        ("user: Hi\nassistant: Hello\nuser: Write\nuser: it", "Write\nuser: it", "user: Hi\nassistant: Hello"),
        ("system: Be terse.\nuser: Write", "Write", "system: Be terse."),
        ("system: Be terse.\nuser: Write", "Be terse.", "user: Write"),
        ("user: something else", "Write", ""),
        (None, "Write", ""),
        ("user: \nWrite", "\nWrite", ""),
        ("user: go\nassistant: ok\nuser: go", "go", "user: go\nassistant: ok"),
    ],
)
def test_from_text_the_label_decides(query, label, context):
    found = target_from_query(query, label)
    assert found.instruction == label.strip()
    assert render_context(found.context) == context


@pytest.mark.parametrize("label", [None, "", " \n", ["x"]])
def test_from_text_without_a_label(label):
    with pytest.raises(NoTarget, match="ground_truth"):
        target_from_query("user: x", label)


def test_context_as_text():
    assert render_context([*EARLIER, SYSTEM]) == "user: Hi\n\nassistant: Hello\n\nsystem: Be terse."
    assert render_context([]) == ""
