import pytest

from flip_plugin.text.reasoning import (
    after_last_close,
    after_thinking,
    answer_of,
    opens_thinking,
    thinking_start,
    with_opening,
    without_answer_frame,
)


def test_after_thinking():
    assert after_thinking("a</think>b") == "b"
    assert after_thinking("<THINK>x") is None
    assert after_thinking("plain") == "plain"
    assert after_thinking("<thinking>a</thinking> b </think>c") == "c"
    assert after_thinking("a</think>b<think>c") is None
    assert answer_of("<think>a</think> b ") == "b" and answer_of("<think>a") == "" == answer_of(None)


def test_where_thinking_starts():
    assert thinking_start("ab<Thinking>c<think>") == 2
    assert thinking_start("a</think>") is None


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("user: Hi\nassistant: <think>\n", True),
        ("Hi<think>", True),
        ("<think></think>", False),
        ("Hi", False),
        ("", False),
    ],
)
def test_prompts_that_open_the_thinking(prompt, opens):
    assert opens_thinking(prompt) is opens


def test_the_tag_of_the_prompt_is_put_back():
    assert after_thinking(with_opening("cut off in the middle") or "") is None
    assert after_thinking(with_opening("thoughts</think>answer") or "") == "answer"
    assert [with_opening(nothing) for nothing in ("", " \n", None)] == ["", " \n", None]


def test_the_verifiers_rule_is_literal():
    assert after_last_close("a</think>b</think>c<think>d") == "c<think>d"
    assert after_last_close("a</THINK>b") == "a</THINK>b"


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("<answer> 4 </answer>", "4"),
        ("<answer></answer>", ""),
        ("<answer>4</answer> or so", "<answer>4</answer> or so"),
        ("<answer>4</answer><answer>5</answer>", "<answer>4</answer><answer>5</answer>"),
        ("<answer>", "<answer>"),
    ],
)
def test_answer_tags_around_the_whole_text(text, inner):
    assert without_answer_frame(text) == inner
