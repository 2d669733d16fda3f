import doctest

import pytest

from flip_plugin.errors import CommandError
from flip_plugin.evals.judges import spec as judges
from flip_plugin.evals.judges.spec import JudgeSpec, parse_judges


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("hosted_vllm/Qwen/Qwen3-4B", JudgeSpec("Qwen3-4B", "hosted_vllm/Qwen/Qwen3-4B")),
        ("a=openai/gpt-x", JudgeSpec("a", "openai/gpt-x")),
        ("openai/m@https://h:1/v1", JudgeSpec("m", "openai/m", "https://h:1/v1")),
        ("ollama/qwen3:4b", JudgeSpec("qwen3-4b", "ollama/qwen3:4b")),
        ("vllm:models/judge/", JudgeSpec("judge", "models/judge/", offline=True)),
        ("x=vllm:Q/m?max_model_len=8192", JudgeSpec("x", "Q/m?max_model_len=8192", offline=True)),
        ("vllm:Q/m?max_model_len=8192", JudgeSpec("m", "Q/m?max_model_len=8192", offline=True)),
    ],
)
def test_a_judge_is_parsed(text, spec):
    assert JudgeSpec.parse(text) == spec


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no model"),
        ("a=", "names no model"),
        ("=hosted_vllm/m", "name '' must be"),
        ("../x=hosted_vllm/m", "name"),
        ("m@127.0.0.1:8000", "must be a URL"),
        ("vllm:m@http://127.0.0.1/v1", "has no URL"),
    ],
)
def test_a_judge_of_no_use_is_refused(text, reason):
    with pytest.raises(CommandError, match=reason):
        JudgeSpec.parse(text)


def test_two_judges_of_one_name_are_refused():
    with pytest.raises(CommandError, match="two judges are called 'm'"):
        parse_judges(["hosted_vllm/m", "openai/m"])
    assert [spec.name for spec in parse_judges(["hosted_vllm/m", "b=openai/m"])] == ["m", "b"]


def test_examples():
    assert doctest.testmod(judges).failed == 0
