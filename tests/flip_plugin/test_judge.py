import asyncio
import json
import pickle
import sqlite3
import subprocess
import sys
import time
from typing import Any

import pytest

from flip_plugin.judge.client import JudgeClient
from flip_plugin.judge.event_loop import run_sync
from flip_plugin.judge.litellm_setup import import_litellm

ASK = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("flip_plugin.judge.retries.FIRST_PAUSE_S", 0.01)


def client(base, **given):
    options: dict[str, Any] = {"timeout": 5, "max_attempts": 3, **given}
    return JudgeClient("hosted_vllm/m", base, **options)


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


async def test_thinking_and_other_providers_send_no_template_options(judge):
    await client(judge.base, thinking=True).complete(ASK)
    other = JudgeClient("openai/m", judge.base, api_key="k", timeout=5)
    await other.complete(ASK)
    assert all("chat_template_kwargs" not in body for body in judge.requests)


@pytest.mark.parametrize(
    ("answer", "kind", "attempts"),
    [
        ((500, "boom"), "server", 3),
        ((503, "busy"), "server", 3),
        ((429, "slow down"), "rate_limit", 3),
        ((400, "no such field"), "bad_request", 1),
        ((401, "who are you"), "bad_request", 1),
        ((404, "no such model"), "bad_request", 1),
        ((400, "This model's maximum context length is 10 tokens"), "context_overflow", 1),
        ({"garbage": "<html>not json"}, "server", 3),
        ({"garbage": "{}"}, "server", 3),
    ],
)
async def test_failure_kinds_and_attempts(judge, answer, kind, attempts):
    judge.answers = [answer]
    ask = client(judge.base)
    reply = await ask.complete(ASK)
    assert (reply.text, reply.error_kind, reply.attempts) == (None, kind, attempts)
    assert len(judge.requests) == attempts
    assert reply.error
    assert ask.stats()[f"error_{kind}"] == 1


async def test_recovers_after_failures(judge):
    judge.answers = [(500, "a"), (429, "b"), "fine"]
    reply = await client(judge.base).complete(ASK)
    assert (reply.text, reply.attempts) == ("fine", 3)


async def test_deadline_holds_for_the_whole_call(judge):
    judge.answers = [{"text": "late", "delay": 2}]
    started = time.monotonic()
    reply = await client(judge.base, timeout=0.6).complete(ASK)
    assert reply.error_kind == "timeout"
    assert "0.6 s" in reply.error
    assert time.monotonic() - started < 2.5


async def test_waiting_for_a_slot_is_not_on_the_clock(judge):
    judge.answers = [{"text": "x", "delay": 0.3}]
    ask = client(judge.base, timeout=2.0, max_concurrency=1)
    await ask.complete(ASK)  # LiteLLM's import is not what is timed here
    replies = await asyncio.gather(*(ask.complete(ASK) for _ in range(8)))
    assert [reply.error for reply in replies] == [None] * 8
    assert judge.most_open == 1


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


async def test_cache_keeps_successes_only(judge, tmp_path):
    path = tmp_path / "deep" / "cache.sqlite"
    judge.answers = [(400, "no"), "first", "second"]
    ask = client(judge.base, cache_path=path)
    assert (await ask.complete(ASK)).error_kind == "bad_request"
    first, again = await ask.complete(ASK), await ask.complete(ASK)
    assert (first.text, first.cached, again.text, again.cached) == ("first", False, "first", True)
    # Another process's client finds it, another sampling does not.
    assert (await pickle.loads(pickle.dumps(ask)).complete(ASK)).cached
    assert (await client(judge.base, cache_path=path, temperature=0.7).complete(ASK)).text == "second"
    stored = sqlite3.connect(path).execute("SELECT reply FROM replies").fetchall()
    assert sorted(json.loads(row[0])["text"] for row in stored) == ["first", "second"]
    assert ask.stats()["cached"] == 1


async def test_like_requests_under_way_share_one(judge, tmp_path):
    judge.answers = [{"text": "x", "delay": 0.2}]
    ask = client(judge.base, cache_path=tmp_path / "cache.sqlite")
    replies = await asyncio.gather(*(ask.complete(ASK) for _ in range(8)))
    assert [reply.text for reply in replies] == ["x"] * 8
    assert len(judge.requests) == 1
    assert sorted(reply.cached for reply in replies) == [False] + [True] * 7
    other = await ask.complete([{"role": "user", "content": "something else"}])
    assert (other.cached, len(judge.requests)) == (False, 2)


async def test_samples_are_not_shared(judge, tmp_path):
    judge.answers = [{"text": "x", "delay": 0.05}]
    ask = client(judge.base, cache_path=tmp_path / "cache.sqlite", temperature=1.0)
    await asyncio.gather(*(ask.complete(ASK) for _ in range(4)))
    assert len(judge.requests) == 4


async def test_whoever_shares_survives_the_one_who_asked(judge, tmp_path):
    judge.answers = [{"text": "x", "delay": 0.3}]
    ask = client(judge.base, cache_path=tmp_path / "cache.sqlite")
    await client(judge.base).complete(ASK)  # LiteLLM's import
    first = asyncio.create_task(ask.complete(ASK))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(ask.complete(ASK))
    await asyncio.sleep(0.1)
    first.cancel()
    assert (await second).text == "x"
    with pytest.raises(asyncio.CancelledError):
        await first


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


async def test_tokens_are_counted_by_the_server(judge):
    judge.tokens = 41
    ask = client(judge.base, api_key="sk-secret-2")
    assert await ask.count_tokens(ASK) == 41
    asked = judge.counted[0]
    assert (asked["model"], asked["messages"], asked["add_generation_prompt"]) == ("m", ASK, True)
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}
    assert asked["headers"]["Authorization"] == "Bearer sk-secret-2"


@pytest.mark.parametrize("answer", ["many", -1, True, [1], {}])
async def test_a_count_that_is_none(judge, answer):
    judge.tokens = lambda body: answer
    assert await client(judge.base).count_tokens(ASK) is None


async def test_a_server_that_cannot_count_is_asked_once(judge):
    ask = client(judge.base)
    assert [await ask.count_tokens(ASK) for _ in range(3)] == [None] * 3
    assert len(judge.counted) == 1
    judge.tokens = 5
    assert await JudgeClient("openai/m", judge.base).count_tokens(ASK) is None
    assert await client("http://127.0.0.1:9/v1").count_tokens(ASK) is None
    assert await client(None).count_tokens(ASK) is None
    assert len(judge.counted) == 1


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


def test_one_client_serves_several_loops(judge):
    ask = client(judge.base)
    assert asyncio.run(ask.complete(ASK)).error is None
    assert asyncio.run(ask.complete(ASK)).error is None
    assert run_sync(ask.complete(ASK)).error is None


async def test_run_sync_inside_a_running_loop():
    async def answer():
        await asyncio.sleep(0)
        return 42

    assert run_sync(answer()) == 42


def test_run_sync_refuses_to_wait_for_itself():
    async def inner():
        return 1

    async def outer():
        return run_sync(inner())

    with pytest.raises(RuntimeError, match="own loop"):
        run_sync(outer())


def test_options_are_checked():
    with pytest.raises(ValueError, match="max_attempts"):
        JudgeClient("openai/x", max_attempts=0)


async def test_the_callers_loop_only_waits(judge):
    """LiteLLM's milliseconds are spent elsewhere: nothing of it runs on the loop that asks."""
    judge.answers = [{"text": "x", "delay": 0.02}]
    ask = client(judge.base, max_concurrency=64)
    await ask.complete(ASK)
    spent = time.thread_time()
    await asyncio.gather(*(ask.complete(ASK) for _ in range(64)))
    assert (time.thread_time() - spent) / 64 < 0.001


def test_litellm_keeps_quiet_only_where_nobody_listens(judge, monkeypatch):
    import litellm

    heard = []
    ask = client(judge.base)
    assert run_sync(ask.complete(ASK)).error is None

    async def listen(kwargs, response, start, end):
        heard.append(kwargs["model"])

    monkeypatch.setattr(litellm, "success_callback", [listen])
    monkeypatch.setattr(litellm, "_async_success_callback", [])
    assert run_sync(ask.complete(ASK)).error is None
    deadline = time.monotonic() + 5
    while not heard and time.monotonic() < deadline:
        time.sleep(0.02)
    assert heard == ["m"]


def test_a_judge_of_ones_own_has_a_price_so_that_litellm_need_not_search_for_it(judge):
    litellm = import_litellm()
    litellm.register_model({"hosted_vllm/dear": {"litellm_provider": "hosted_vllm", "input_cost_per_token": 2.0}})
    for name in ("hosted_vllm/dear", "hosted_vllm/tmp/a folder"):
        assert run_sync(JudgeClient(name, judge.base, timeout=5).complete(ASK)).error is None
    assert litellm.model_cost["hosted_vllm/tmp/a folder"]["input_cost_per_token"] == 0
    assert litellm.model_cost["hosted_vllm/dear"]["input_cost_per_token"] == 2


QUIET = """
import asyncio, sys
from flip_plugin import FlipReward
reward = FlipReward("hosted_vllm/m", sys.argv[1], timeout=5)
assert reward.score_batch(["a prompt"] * 3, ["a response"] * 3)[0].status == "ok"
async def mine():
    return await asyncio.gather(*(reward.score("a prompt", "a response") for _ in range(3)))
assert asyncio.run(mine())[0].status == "ok"
async def left_alone():
    task = asyncio.ensure_future(reward.score("a prompt", "slow"))
    await asyncio.sleep(0.3)
asyncio.run(left_alone())
"""


def test_nothing_is_said_at_the_end_of_a_script(judge):
    judge.handler = lambda body: {
        "text": '{"INFERRED INSTRUCTION": "guess"}',
        "delay": 20 if "slow" in str(body["messages"]) else 0,
    }
    done = subprocess.run(
        [sys.executable, "-c", QUIET, judge.base],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
