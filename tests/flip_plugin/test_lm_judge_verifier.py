"""`LMJudgeVerifier` against a judge server; the registry is tested in tests/open_instruct."""

import json
import pickle
from types import SimpleNamespace

import pytest

from flip_plugin.prompts.templates import PromptSet
from open_instruct.rewards import judge_types as judge_utils
from open_instruct.rewards.judge_types import JudgeSpec, judge_specs
from open_instruct.rewards.judge_verifier import LMJudgeVerifier, LMJudgeVerifierConfig


def why_and_mark(content):
    return json.loads(content)["why"], json.loads(content)["mark"]


SPEC = JudgeSpec("tone", "Q: {input}\nA: {output}\nL: {label}", why_and_mark)


@pytest.fixture
def quality(judge, monkeypatch, tmp_path):
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", judge.base)
    args = SimpleNamespace(llm_judge_model="hosted_vllm/m", llm_judge_timeout=5, seed=9, record_calls_to=str(tmp_path))
    return LMJudgeVerifier(judge_specs()["quality"], LMJudgeVerifierConfig.from_args(args))


async def test_quality(quality, judge, tmp_path):
    judge.rates(8)
    state = {"messages": [{"role": "user", "content": "Write\nit"}], "finish_reason": "stop"}
    result = await quality.async_call([], "<think>x</think>Done", "label", "user: ignored", rollout_state=state)
    assert (result.score, result.status, result.reasoning) == (0.8, "ok", "r")
    body = judge.requests[0]
    assert body["messages"] == PromptSet.load().pointwise_messages("Write\nit", "Done")
    assert body["response_format"] == judge_utils.RESPONSE_FORMAT_MAP["quality"]
    assert body["seed"] == 9
    (file,) = tmp_path.glob("*.jsonl")
    assert json.loads(file.read_text())["judge_type"] == "quality"


async def test_servers_may_be_given_by_configuration(judge):
    config = LMJudgeVerifierConfig(llm_judge_model="hosted_vllm/m", llm_judge_api_base=judge.base)
    verifier = LMJudgeVerifier(judge_specs()["quality"], config)
    assert verifier.stats() == {}
    judge.rates(3)
    assert (await verifier.async_call([], "Done", None, "user: x")).score == 0.3
    assert verifier.stats()["ok"] == 1


async def test_quality_from_text_alone(quality, judge):
    judge.rates(10)
    assert (await quality.async_call([], "Done", None, "user: Write it")).score == 1.0
    assert judge.requests[0]["messages"] == PromptSet.load().pointwise_messages("Write it", "Done")


@pytest.mark.parametrize(
    ("answer", "prediction", "status"),
    [("no", "x", "unparsed"), ((400, "bad"), "x", "judge_error"), ("{}", "", "empty_response")],
)
async def test_quality_failures_are_missing(quality, judge, answer, prediction, status):
    judge.answers = [answer]
    result = await quality.async_call([], prediction, "l", "user: x")
    assert (result.score, result.status) == (None, status)
    assert result.details["error"]
    assert (await quality.async_call([], "x", "l", None)).status == "no_target"


async def test_a_judge_of_ones_own(judge, monkeypatch):
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", judge.base)
    verifier = pickle.loads(pickle.dumps(LMJudgeVerifier(SPEC, LMJudgeVerifierConfig(llm_judge_model="hosted_vllm/m"))))
    judge.answers = ['{"why": "w", "mark": 0.5}', '{"mark": 1}', '{"why": "w", "mark": NaN}']
    result = await verifier.async_call([], "out {label}", "lab", "user: in {output}")
    assert (result.score, result.reasoning) == (0.5, "w")
    assert judge.requests[0]["messages"] == [{"role": "user", "content": "Q: in {output}\nA: out {label}\nL: lab"}]
    assert "response_format" not in judge.requests[0]
    assert (await verifier.async_call([], "x", "l", "user: x")).status == "unparsed"
    assert (await verifier.async_call([], "x", "l", "user: x")).status == "unparsed"


async def test_blocking_call_inside_a_running_loop(quality, judge):
    judge.rates(5)
    assert quality([], "x", "l", "user: x").score == 0.5


@pytest.mark.parametrize("prediction", ["They want it short", "They want it short</think>Done"])
async def test_a_prompt_that_opens_the_thinking(quality, judge, prediction):
    # A template such as olmo_thinker's: without its closing tag, such a response is all thoughts.
    judge.rates(8)
    state = {"messages": [{"role": "user", "content": "Write it"}], "prompt_opens_think": True}
    result = await quality.async_call([], prediction, None, rollout_state=state)
    cut = "</think>" not in prediction
    assert (result.status, len(judge.requests)) == (("truncated", 0) if cut else ("ok", 1))
