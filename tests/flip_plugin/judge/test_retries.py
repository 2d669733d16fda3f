"""What is asked again, when, and when a question is given up."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from judge_cases import ASK, client


@pytest.mark.usefixtures("short_pauses")
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


@pytest.mark.usefixtures("short_pauses")
async def test_recovers_after_failures(judge):
    judge.answers = [(500, "a"), (429, "b"), "fine"]
    reply = await client(judge.base).complete(ASK)
    assert (reply.text, reply.attempts) == ("fine", 3)


@pytest.mark.usefixtures("short_pauses")
async def test_deadline_holds_for_the_whole_call(judge):
    judge.answers = [{"text": "late", "delay": 2}]
    started = time.monotonic()
    reply = await client(judge.base, timeout=0.6).complete(ASK)
    assert reply.error_kind == "timeout"
    assert "0.6 s" in reply.error
    assert time.monotonic() - started < 2.5


@pytest.mark.usefixtures("short_pauses")
async def test_waiting_for_a_slot_is_not_on_the_clock(judge):
    judge.answers = [{"text": "x", "delay": 0.3}]
    ask = client(judge.base, timeout=2.0, max_concurrency=1)
    await ask.complete(ASK)  # LiteLLM's import is not what is timed here
    replies = await asyncio.gather(*(ask.complete(ASK) for _ in range(8)))
    assert [reply.error for reply in replies] == [None] * 8
    assert judge.most_open == 1


async def test_unbounded_attempts_end_at_the_deadline(judge, short_pauses):
    judge.answers = [(500, "boom")] * 12 + ["at last"]
    reply = await client(judge.base, max_attempts=None, timeout=30).complete(ASK)
    assert (reply.text, reply.attempts) == ("at last", 13)
    judge.answers = [(500, "boom")]
    started = time.monotonic()
    reply = await client(judge.base, max_attempts=None, timeout=0.5).complete(ASK)
    assert reply.error_kind == "server"
    assert reply.attempts > 3
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(judge, short_pauses, status):
    judge.answers = [(status, "later", {"Retry-After": "1"}), "fine"]
    started = time.monotonic()
    reply = await client(judge.base).complete(ASK)
    assert (reply.text, reply.attempts) == ("fine", 2)
    assert 0.95 < time.monotonic() - started < 3


async def test_retry_after_as_a_date(judge, short_pauses):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    judge.answers = [(429, "later", {"Retry-After": date}), "fine"]
    started = time.monotonic()
    assert (await client(judge.base, timeout=10).complete(ASK)).text == "fine"
    assert 1.5 < time.monotonic() - started < 5


async def test_a_wait_beyond_the_deadline_is_not_waited(judge):
    judge.answers = [(429, "later", {"Retry-After": "60"})]
    started = time.monotonic()
    reply = await client(judge.base, timeout=5).complete(ASK)
    assert (reply.error_kind, reply.attempts) == ("rate_limit", 1)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("header", ["soon", "nan", "-5", "inf", "", "Thu, 99 Foo 2020"])
async def test_odd_retry_after_is_no_obstacle(judge, short_pauses, header):
    judge.answers = [(429, "later", {"Retry-After": header}), "fine"]
    assert (await client(judge.base).complete(ASK)).text == "fine"
