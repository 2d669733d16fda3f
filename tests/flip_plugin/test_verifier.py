import pickle
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from flip_plugin import verifier as module
from flip_plugin.records import read_calls
from flip_plugin.verifier import FlipVerifier
from open_instruct.ground_truth_utils import LMJudgeVerifierConfig

ASKED = "Write a haiku\nabout user: root"


@pytest.fixture
def flip(judge, monkeypatch):
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", judge.base)
    judge.infers(ASKED)
    return FlipVerifier(LMJudgeVerifierConfig(llm_judge_model="hosted_vllm/m", llm_judge_timeout=5))


async def test_with_messages_as_our_trainer_has_them(flip, judge):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    state = {"messages": [*turns, {"role": "user", "content": ASKED}], "finish_reason": "stop"}
    result = await flip.async_call([1, 2], "Leaves", ASKED, "user: ignored", rollout_state=state)
    assert (result.score, result.status, result.reasoning) == (1.0, "ok", "r")
    assert result.details.keys() == {"inferred_instruction", "echo", "usage", "seconds", "error", "target"}
    shown = judge.requests[0]["messages"][1]["content"]
    assert "user: Hi\n\nassistant: Yes?" in shown
    assert ASKED not in shown


@pytest.mark.parametrize(
    ("label", "context"),
    [("Be terse.", "user: U"), ("U", ""), ("not in the messages", "")],
)
async def test_the_label_is_the_target(flip, judge, label, context):
    state = {"messages": [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "U"}]}
    result = await flip.async_call([], "Leaves", label, None, rollout_state=state)
    assert result.details["target"] == label
    shown = judge.requests[0]["messages"][1]["content"]
    assert (f"<conversation>\n{context}\n</conversation>" in shown) == bool(context)


async def test_with_text_as_upstream_has_it(flip, judge):
    result = await flip.async_call([], "Leaves", ASKED, f"user: Hi\nassistant: Yes?\nuser: {ASKED}")
    assert result.score == 1.0
    assert "<conversation>\nuser: Hi\nassistant: Yes?\n</conversation>" in judge.requests[0]["messages"][1]["content"]


@pytest.mark.parametrize(
    ("prediction", "label", "status"),
    [
        ("Leaves", None, "no_target"),
        ("Leaves", "", "no_target"),
        ("", ASKED, "empty_response"),
        (None, ASKED, "empty_response"),
        ("<think>hm", ASKED, "truncated"),
    ],
)
async def test_nothing_raises_and_nothing_is_zero(flip, prediction, label, status):
    result = await flip.async_call([], prediction, label, "user: x")
    assert (result.score, result.status) == (None, status)
    assert result.details["error"]


def test_name_pickle_and_blocking_call(flip):
    assert flip.name == "general-flip"
    assert flip([], "Leaves", ASKED, None).score == 1.0
    copy = pickle.loads(pickle.dumps(flip))
    assert copy([], "Leaves", ASKED, None).score == 1.0


async def test_options_reach_the_judge(judge, monkeypatch, tmp_path):
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", judge.base)
    options = SimpleNamespace(
        llm_judge_model="hosted_vllm/n",
        llm_judge_max_tokens=77,
        llm_judge_temperature=0.25,
        seed=5,
        llm_judge_structured_output=False,
        mask_truncated_completions=True,
        record_calls_to=str(tmp_path),
    )
    flip = FlipVerifier(FlipVerifier.get_config_class().from_args(options, None))
    await flip.async_call([], "Leaves", ASKED, None)
    body = judge.requests[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("n", 77, 0.25, 5)
    assert "response_format" not in body
    # Masked is not missing: a cut response has no loss, but its score stays in the group's statistics.
    cut = await flip.async_call([], "Leaves", ASKED, None, rollout_state={"finish_reason": "length"})
    assert cut.status == "ok"
    assert flip.stats()["calls"] == 2
    assert [call["status"] for call in read_calls(tmp_path)] == ["ok", "ok"]


async def test_upstream_cannot_abstain(flip, monkeypatch, caplog):
    @dataclass
    class UpstreamResult:
        score: float
        cost: float = 0.0
        reasoning: str | None = None

    monkeypatch.setattr(module, "VerificationResult", UpstreamResult)
    monkeypatch.setattr(module, "CAN_BE_MISSING", False)
    assert (await flip.async_call([], "Leaves", ASKED, None)).score == 1.0
    assert (await flip.async_call([], "", ASKED, None)).score == 0.0
    monkeypatch.setenv("FLIP_MISSING_SCORE", "0.3")
    assert (await flip.async_call([], "", ASKED, None)).score == 0.3
    assert flip.missing == 2
    assert "empty_response" in caplog.text
