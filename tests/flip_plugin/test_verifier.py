import os
import pickle
import time
from dataclasses import dataclass
from types import SimpleNamespace

import cloudpickle
import pytest

from flip_plugin import verifier as module
from flip_plugin.judge.call_log import read_calls
from flip_plugin.reward import environment_variables as settings
from flip_plugin.reward.flip import FlipReward
from flip_plugin.verifier import FlipVerifier
from open_instruct.rewards.judge_verifier import LMJudgeVerifierConfig

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
    assert result.details.keys() >= {"inferred_instruction", "echo", "usage", "seconds", "error", "target"}
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


async def test_options_come_from_our_trainer_not_the_environment(judge, monkeypatch):
    judge.infers(ASKED)
    for variable, value in (("SIMILARITY", "nonsense"), ("MAX_TOKENS", "many"), ("MISSING_SCORE", "nan")):
        monkeypatch.setenv(f"FLIP_{variable}", value)
    options = SimpleNamespace(
        llm_judge_model="hosted_vllm/m",
        llm_judge_api_base=judge.base,
        llm_judge_thinking=True,
        flip_similarity="rouge_l",
        flip_echo="penalise",
        flip_reasoning=False,
        flip_target="user",
    )
    flip = FlipVerifier(FlipVerifier.get_config_class().from_args(options))
    assert (await flip.async_call([], ASKED, ASKED, None)).score == 0.0  # the echo costs all
    state = {"messages": [{"role": "system", "content": "Be terse."}, {"role": "user", "content": ASKED}]}
    result = await flip.async_call([], "Leaves", None, rollout_state=state)
    assert (result.details or {})["target"] == ASKED
    body = judge.requests[0]
    assert "REASONING" not in str(body["response_format"])
    assert "enable_thinking" not in str(body)
    with pytest.raises(ValueError, match="nonsense"):
        FlipVerifier(LMJudgeVerifierConfig(flip_similarity="nonsense"))


@dataclass
class UpstreamResult:
    score: float
    cost: float = 0.0
    reasoning: str | None = None


@dataclass
class UpstreamConfig:
    llm_judge_model: str = "hosted_vllm/m"
    llm_judge_max_tokens: int = 99
    llm_judge_max_context_length: int = 8192
    llm_judge_temperature: float = 1.0
    llm_judge_timeout: float = 5
    seed: int = 7


@pytest.fixture
def upstream(judge, monkeypatch):
    monkeypatch.setattr(module, "VerificationResult", UpstreamResult)
    monkeypatch.setattr(module, "CAN_BE_MISSING", False)
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", judge.base)
    monkeypatch.setenv("FLIP_MISSING_SCORE", "0.3")
    judge.infers(ASKED)
    return FlipVerifier(UpstreamConfig())


ODD = [
    ("", ASKED, None),
    (None, ASKED, f"user: {ASKED}"),
    (7, ASKED, f"user: {ASKED}"),
    ("<think>hm", ASKED, None),
    ("Leaves", None, None),
    ("Leaves", "  ", "user: x"),
    ("Leaves", [ASKED], "user: x"),
    ("Leaves", {"instruction": ASKED}, ["user", 3]),
]


@pytest.mark.parametrize("copied", [False, True])
async def test_upstream_cannot_abstain(upstream, copied, monkeypatch, caplog):
    flip = upstream
    if copied:  # as into a Ray worker, whose environment may be another
        monkeypatch.delenv("FLIP_MISSING_SCORE")
        monkeypatch.delenv("HOSTED_VLLM_API_BASE")
        flip = pickle.loads(cloudpickle.dumps(upstream))
    for rollout_state in (None, {}, {"rewards": [], "done": True}, 3):
        assert (await flip.async_call([], "Leaves", ASKED, [7], rollout_state=rollout_state)).score == 1.0
    for prediction, label, query in ODD:
        result = await flip.async_call([], prediction, label, query, rollout_state={"messages": None})
        assert (result.score, result.reasoning == "ok") == (0.3, False)
    counts = {"ok": 4, "empty_response": 3, "truncated": 1, "no_target": 4}
    assert flip.tally.statuses == counts
    assert flip.tally.missing == 8
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.split()[1] for text in warned if "missing so far" in text] == ["1", "2", "4", "8"]
    assert "each replaced by 0.3; now empty_response" in warned[0]


@pytest.mark.parametrize(
    ("response", "missing"),
    [("hm</think>Leaves", {}), ("They say: write a haiku", {"truncated": 1}), ("", {"empty_response": 1})],
)
async def test_a_thought_that_the_template_opened(upstream, response, missing, monkeypatch):
    monkeypatch.setenv("FLIP_PROMPT_OPENS_THINK", "true")
    flip = FlipVerifier(UpstreamConfig())
    assert (await flip.async_call([], response, ASKED)).score == (0.3 if missing else 1.0)
    assert flip.tally.statuses == (missing or {"ok": 1})


async def test_upstream_never_sees_an_exception(upstream, monkeypatch, tmp_path, caplog):
    calls = tmp_path / "calls"
    monkeypatch.setenv("FLIP_RECORD_CALLS_TO", str(calls))
    verifier = FlipVerifier(UpstreamConfig())
    calls.rmdir()
    calls.touch()  # the folder went away between the driver and the worker
    assert (await verifier.async_call([], "Leaves", ASKED)).score == 0.3
    assert "judge_error: ValueError: judge calls cannot be kept" in caplog.text
    assert caplog.records[0].exc_info
    monkeypatch.setattr(upstream, "_reward", FlipReward("hosted_vllm/m", similarity=lambda *_: float("nan")))
    result = await upstream.async_call([], "Leaves", ASKED)
    assert (result.score, result.reasoning) == (0.3, "unparsed")


async def test_upstream_asks_until_the_timeout(upstream, judge, monkeypatch):
    monkeypatch.setattr("flip_plugin.judge.retries.LONGEST_PAUSE_S", 0.2)
    judge.answers = [(503, "busy")] * 8 + judge.answers
    assert (await upstream.async_call([], "Leaves", ASKED)).score == 1.0
    assert len(judge.requests) == 9
    judge.answers = [(503, "busy")]
    started = time.monotonic()
    assert (await FlipVerifier(UpstreamConfig(llm_judge_timeout=1)).async_call([], "Leaves", ASKED)).score == 0.3
    assert time.monotonic() - started < 2


async def test_the_environment_goes_before_upstreams_flags(upstream, monkeypatch):
    assert upstream._options["max_tokens"] == 99
    monkeypatch.setenv("FLIP_PRESET", "paper")
    monkeypatch.setenv("FLIP_MAX_TOKENS", "55")
    reward = FlipReward(**module.upstream_options(UpstreamConfig()))
    assert (reward.client.max_tokens, reward.client.timeout, reward.schema) == (55, 3600, False)
    assert reward.client.max_attempts == module.UNTIL_DEADLINE


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("FLIP_MISSING_SCORE", "none", "FLIP_MISSING_SCORE='none'"),
        ("FLIP_PROMPT_OPENS_THINK", "maybe", "FLIP_PROMPT_OPENS_THINK='maybe'"),
        ("FLIP_ECHO", "loud", "loud"),
        ("FLIP_SIMILARITY", "vibes", "vibes"),
        ("FLIP_TIMEOUT", "soon", "FLIP_TIMEOUT='soon'"),
        ("HOSTED_VLLM_API_BASE", "", "set HOSTED_VLLM_API_BASE"),
    ],
)
def test_bad_options_end_an_upstream_run_at_once(upstream, monkeypatch, variable, value, problem):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=problem):
        FlipVerifier(UpstreamConfig())


async def test_upstreams_log_has_what_its_metrics_lack(upstream, monkeypatch, caplog):
    caplog.set_level("INFO")
    for number in range(5):
        await upstream.async_call([], f"Leaves {number}", ASKED, f"user: {ASKED}\n")
    summaries = [text for text in caplog.messages if "in this process" in text]
    assert len(summaries) == 1
    start = "general-flip in this process: 1 judged, mean score 1.000, mean echo 0.000, 0 missing"
    assert summaries[0].startswith(start)
    assert "judge p50" in summaries[0]
    monkeypatch.setattr(module, "SUMMARY_EVERY_S", 0.0)
    await upstream.async_call([], "", ASKED, None)
    await upstream.async_call([], "Leaves", "a reference answer", "user: x")
    assert "6 judged, mean score" in caplog.messages[-1]
    assert "1 missing (empty_response 1)" in caplog.messages[-1]
    assert "1 ground_truths not in their prompt" in caplog.messages[-1]
    assert "now 'a reference answer'. It must be the exact instruction" in caplog.text


def test_the_environment_is_looked_up_when_it_is_asked_for(monkeypatch):
    # `datasets` puts a copy in the place of os.environ after a map in several processes.
    monkeypatch.setattr(os, "environ", {"FLIP_MISSING_SCORE": "0.3", "FLIP_MAX_TOKENS": "9"})
    assert settings.missing_score() == 0.3
    assert settings.options_from_env() == {"max_tokens": 9}
