"""One question in, one reply out: what is sent, and what comes back."""

import asyncio
import pickle

import pytest
from judge_cases import ASK, client

from flip_plugin.judge.client import JudgeClient
from flip_plugin.reward.flip import FlipReward

pytestmark = pytest.mark.usefixtures("short_pauses")


async def test_reply_and_request_body(judge):
    judge.answers = ["hi"]
    ask = client(judge.base, seed=3, temperature=0.5, max_tokens=9, extra_body={"top_k": 4})
    reply = await ask.complete(ASK, response_format={"type": "json_object"})
    assert (reply.text, reply.finish_reason, reply.attempts, reply.error) == ("hi", "stop", 1, None)
    assert reply.usage == {"prompt_tokens": 7, "completion_tokens": 3}
    body = judge.requests[0]
    assert (body["model"], body["seed"], body["temperature"], body["max_tokens"]) == ("m", 3, 0.5, 9)
    assert body["response_format"] == {"type": "json_object"}
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["top_k"] == 4


async def test_only_hosted_models_get_template_options(judge):
    await client(judge.base, thinking=True).complete(ASK)
    other = JudgeClient("openai/m", judge.base, api_key="k", timeout=5)
    await other.complete(ASK)
    assert all("chat_template_kwargs" not in body for body in judge.requests)


async def test_bounded_concurrency(judge):
    judge.answers = [{"text": "x", "delay": 0.05}]
    ask = client(judge.base, max_concurrency=4)
    await asyncio.gather(*(ask.complete(ASK) for _ in range(20)))
    assert judge.most_open == 4


async def test_load_is_spread_and_a_slow_replica_gets_less(two_judges):
    quick, slow = two_judges
    quick.answers, slow.answers = [{"text": "q", "delay": 0.02}], [{"text": "s", "delay": 0.4}]
    ask = client([quick.base, slow.base], max_concurrency=4)
    await asyncio.gather(*(ask.complete(ASK) for _ in range(24)))
    assert len(slow.requests) >= 1
    assert len(quick.requests) > 2 * len(slow.requests)


async def test_base_from_the_environment(judge, monkeypatch):
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", judge.base)
    assert (await client(None).complete(ASK)).error is None
    monkeypatch.delenv("HOSTED_VLLM_API_BASE")
    reply = await client(None).complete(ASK)
    assert reply.error_kind == "bad_request"
    assert "HOSTED_VLLM_API_BASE" in reply.error


async def test_key_never_reaches_an_error(judge):
    judge.answers = [(401, "wrong key sk-secret-1")]
    ask = client(judge.base, api_key="sk-secret-1")
    reply = await ask.complete(ASK)
    assert "sk-secret-1" not in reply.error
    assert "sk-secret-1" not in repr(ask)


async def test_lone_surrogates_can_be_sent(judge):
    reply = await client(judge.base).complete([{"role": "user", "content": "bad \ud800 text é"}])
    assert reply.error is None
    assert judge.requests[0]["messages"][0]["content"] == "bad ? text é"


async def test_cancelling_passes_and_leaves_the_counters_right(judge):
    judge.answers = [{"text": "late", "delay": 30}]
    ask = client(judge.base, timeout=60, max_concurrency=2)
    tasks = [asyncio.create_task(ask.complete(ASK)) for _ in range(4)]
    while len(judge.requests) < 2:
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in done)
    judge.answers = ["now"]
    assert (await ask.complete(ASK)).text == "now"  # the slots are free again
    stats = ask.stats()
    assert (stats["in_flight"], stats["calls"], stats["replicas"][judge.base]["in_flight"]) == (0, 1, 0)


async def test_used_clients_pickle(judge):
    ask = client(judge.base, seed=1)
    await ask.complete(ASK)
    copy = pickle.loads(pickle.dumps(ask))
    assert copy.stats()["calls"] == 0
    assert (await copy.complete(ASK)).error is None


async def test_stats_and_record_hook(judge):
    seen = []
    judge.answers = [(500, "x"), "ok"]
    ask = client(judge.base, record=lambda messages, reply: seen.append((messages, reply.text)))
    await ask.complete(ASK)
    stats = ask.stats()
    assert (stats["calls"], stats["ok"], stats["retries"], stats["in_flight"]) == (1, 1, 1, 0)
    assert stats["completion_tokens"] == 3
    assert stats["seconds_p50"] == stats["seconds_max"] > 0
    assert seen == [(ASK, "ok")]


def test_options_are_checked():
    with pytest.raises(ValueError, match="max_attempts"):
        JudgeClient("openai/x", max_attempts=0)


@pytest.mark.parametrize("provider", ["hosted_vllm", "openai"])
def test_connections_are_used_again(judge, provider):
    reward = FlipReward(f"{provider}/m", judge.base, api_key="none", timeout=10, max_concurrency=2)
    for i in range(20):
        assert reward.score_batch(["guess"], [str(i)])[0].score == 1.0
    assert len(judge.ports) == 20
    assert len(set(judge.ports)) <= 2


def test_an_address_from_the_environment_must_be_a_url_too(monkeypatch):
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", "http://127.0.0.1:8000/v1,127.0.0.1:8001")
    with pytest.raises(ValueError, match=r"'127\.0\.0\.1:8001' is no URL"):
        FlipReward("hosted_vllm/m")
