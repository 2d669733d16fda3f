"""Several servers of one judge: who is asked, who is left out, and how one comes back."""

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
from judge_cases import ASK, client

from flip_plugin.judge.errors import Failure
from flip_plugin.judge.replicas import ReplicaPool
from flip_plugin.reward.flip import FlipReward

REFUSED = Failure("connection", "refused", unreachable=True)


async def test_no_server_at_the_address(closed_port, short_pauses):
    reply = await client(closed_port).complete(ASK)
    assert (reply.error_kind, reply.attempts, reply.text) == ("connection", 3, None)
    assert "Cannot connect" in reply.error


async def test_many_calls_do_not_retry_a_closed_port_each(closed_port, short_pauses):
    ask = client(closed_port, max_concurrency=16)
    await ask.complete(ASK)
    replies = await asyncio.gather(*(ask.complete(ASK) for _ in range(64)))
    assert {reply.error_kind for reply in replies} == {"connection"}
    sent = sum(reply.attempts for reply in replies)
    assert sent <= 4 * 3 + 4, "64 calls in 4 waves of 16: one call a wave and pause tries, the others wait"


async def test_dead_replica_is_left_out(judge, closed_port):
    ask = client(f"{closed_port}, {judge.base}", max_attempts=1)
    started = time.monotonic()
    replies = [await ask.complete(ASK) for _ in range(20)]
    tries = sum(reply.attempts - 1 for reply in replies)
    assert all(reply.error is None for reply in replies), "finding it out costs no attempt"
    # Tried at 0.25, 0.5, 1, ... s, half of it at the earliest.
    assert tries <= 1 + (time.monotonic() - started) / 0.125
    assert ask.stats()["replicas"][closed_port]["down"] == 1
    assert ask.stats()["replicas"][judge.base]["ok"] == 20


async def test_one_call_finds_out_that_a_replica_is_back(two_judges, short_pauses):
    one, other = two_judges
    ask = client([one.base, other.base])
    other.die()
    assert all(r.error is None for r in await asyncio.gather(*(ask.complete(ASK) for _ in range(16))))
    assert ask.stats()["replicas"][other.base]["down"] == 1
    other.revive()
    before = len(other.requests)
    deadline = time.monotonic() + 10
    while ask.stats()["replicas"][other.base]["down"] and time.monotonic() < deadline:
        assert (await ask.complete(ASK)).error is None
    await asyncio.gather(*(ask.complete(ASK) for _ in range(16)))
    assert len(other.requests) >= before + 4, "it gets its share again"


async def test_calls_wait_for_the_only_replica_to_come_back(judge):
    ask = client(judge.base, timeout=20, max_attempts=None)
    await ask.complete(ASK)
    judge.die()
    waiting = [asyncio.create_task(ask.complete(ASK)) for _ in range(8)]
    await asyncio.sleep(1.0)
    judge.revive()
    replies = await asyncio.gather(*waiting)
    assert [reply.error for reply in replies] == [None] * 8


async def test_a_full_replica_is_left_for_another(two_judges):
    full, free = two_judges
    full.answers = [(429, "full", {"Retry-After": "30"})]
    ask = client([full.base, free.base], timeout=5)
    started = time.monotonic()
    replies = [await ask.complete(ASK) for _ in range(12)]
    assert [reply.error for reply in replies] == [None] * 12
    assert len(full.requests) <= 1
    assert time.monotonic() - started < 4


async def test_a_replica_that_fails_fast_draws_no_more_traffic(two_judges, short_pauses):
    bad, good = two_judges
    bad.answers, good.answers = [(500, "boom")], [{"text": "x", "delay": 0.02}]
    ask = client([bad.base, good.base], max_concurrency=4, max_attempts=6)
    replies = await asyncio.gather(*(ask.complete(ASK) for _ in range(40)))
    assert [reply.error for reply in replies] == [None] * 40


async def test_other_servers_while_running(two_judges):
    one, other = two_judges
    ask = client(one.base)
    await ask.complete(ASK)
    ask.set_api_bases([other.base])
    await ask.complete(ASK)
    assert (len(one.requests), len(other.requests)) == (1, 1)
    with pytest.raises(ValueError, match="at least one URL"):
        ask.set_api_bases([])


async def test_rests_grow_and_one_call_tries():
    pool = ReplicaPool(["a"])
    rests = []
    for _ in range(8):
        replica = pool.take()
        if replica is None:
            (replica,) = pool.replicas
            rests.append(replica.next_try - time.monotonic())
            replica.next_try = 0.0
            replica = pool.take()
            assert replica is not None
            assert pool.take() is None, "nobody else, while one tries"
        pool.failed(replica, REFUSED, 0.0, 0.25)
        pool.give_back(replica)
    for rest, nominal in zip(rests, [0.25, 0.5, 1, 2, 4, 8, 10], strict=True):
        assert 0.4 * nominal < rest <= 1.5 * nominal
    assert pool.outage == 8
    pool.replicas[0].next_try = 0.0
    replica = pool.take()
    assert replica is not None
    pool.worked(replica, 0.1)
    pool.give_back(replica)
    assert (pool.outage, pool.stats()["a"]["down"], pool.stats()["a"]["in_flight"]) == (0, 0, 0)


async def test_a_cancelled_try_can_be_made_by_another():
    pool = ReplicaPool(["a"])
    replica = pool.take()
    assert replica is not None
    pool.failed(replica, REFUSED, 0.0, 0.0)
    pool.give_back(replica)
    assert pool.take() is replica
    waiting = asyncio.create_task(pool.wait(5))
    await asyncio.sleep(0)
    pool.give_back(replica)  # cancelled: neither worked nor failed
    await asyncio.wait_for(waiting, 1)
    assert pool.take() is replica


def test_after_a_vain_try_another_replica_is_asked():
    pool = ReplicaPool(["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"])
    gone, up = pool.replicas
    gone.outstanding += 1
    pool.failed(gone, REFUSED, 0.1, 0.0)
    pool.give_back(gone)
    assert pool.take(avoid=gone) is up
    assert pool.take(avoid=up) is gone
    assert pool.take() is up


def flip(judge, **options):
    settings: dict[str, Any] = {"timeout": 5, "max_attempts": 1, **options}
    return FlipReward("hosted_vllm/m", judge.base, **settings)


def test_a_replica_that_hangs_is_left_out(judge):
    """It accepts and never answers: the calls of the first batch cannot know."""
    judge.answers = [{"text": '{"INFERRED INSTRUCTION": "guess"}', "delay": 0.02}]
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(100)
        bases = [judge.base, f"http://127.0.0.1:{mute.getsockname()[1]}/v1"]
        reward = FlipReward("hosted_vllm/m", bases, timeout=2, max_concurrency=8)
        lost = []
        for batch in range(3):
            results = reward.score_batch(["guess"] * 60, [f"{batch} {i}" for i in range(60)])
            assert all(result.score in (1.0, None) for result in results)
            lost.append(sum(result.score is None for result in results))
    assert lost[0] <= 8
    assert lost[1:] == [0, 0]


def test_a_server_that_is_started_again_is_waited_for(judge):
    reward = flip(judge, timeout=20, max_attempts=2)
    assert reward.score_batch(["guess"], ["x"])[0].score == 1.0
    judge.die()
    revival = threading.Timer(4, judge.revive)
    revival.start()
    try:
        assert [result.score for result in reward.score_batch(["guess"] * 5, ["x"] * 5)] == [1.0] * 5
    finally:
        revival.join()
