"""Replies on disk: what is kept, what is shared, and that no trouble with the file costs a reward."""

import asyncio
import json
import multiprocessing
import pickle
import sqlite3
from typing import Any

import pytest
from judge_cases import ASK, client

from flip_plugin.judge.cache import ReplyCache
from flip_plugin.reward.flip import FlipReward

pytestmark = pytest.mark.usefixtures("short_pauses")


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


async def test_a_shared_question_survives_its_asker(judge, tmp_path):
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


def open_at_once(path, barrier, problems):
    barrier.wait()
    try:
        ReplyCache(path).put({"n": 1}, {"text": "x"})
    except (ValueError, sqlite3.Error) as error:
        problems.put(str(error))


def test_many_processes_open_a_fresh_cache_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    for number in range(5):
        barrier, problems = context.Barrier(8), context.Queue()
        path = str(tmp_path / f"{number}.sqlite")
        workers = [context.Process(target=open_at_once, args=(path, barrier, problems)) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert problems.empty(), problems.get()


def flip(judge, **options):
    settings: dict[str, Any] = {"timeout": 5, "max_attempts": 1, **options}
    return FlipReward("hosted_vllm/m", judge.base, **settings)


async def test_a_cache_that_goes_away_costs_no_reward(judge, tmp_path):
    reward = flip(judge, cache_path=tmp_path / "c.sqlite")
    reward.client._open_cache()._db.close()
    assert (await reward.score("guess", "x")).score == 1.0
    assert reward.client.stats()["cache_errors"] == 2


async def test_an_empty_reply_is_not_kept(judge, tmp_path):
    judge.answers = [None, '{"INFERRED INSTRUCTION": "guess"}']
    reward = flip(judge, cache_path=tmp_path / "c.sqlite")
    assert [(await reward.score("guess", "x")).status for _ in range(3)] == ["unparsed", "ok", "ok"]
    assert len(judge.requests) == 2
