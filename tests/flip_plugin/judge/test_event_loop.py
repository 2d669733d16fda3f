"""The loop of all judge calls: the caller's only waits, and nothing is left at the end."""

import asyncio
import subprocess
import sys
import time

import pytest
from judge_cases import ASK, client

from flip_plugin.judge.event_loop import run_sync

pytestmark = pytest.mark.usefixtures("short_pauses")


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


async def test_the_callers_loop_only_waits(judge):
    """LiteLLM's milliseconds are spent elsewhere: nothing of it runs on the loop that asks."""
    judge.answers = [{"text": "x", "delay": 0.02}]
    ask = client(judge.base, max_concurrency=64)
    await ask.complete(ASK)
    spent = time.thread_time()
    await asyncio.gather(*(ask.complete(ASK) for _ in range(64)))
    assert (time.thread_time() - spent) / 64 < 0.001


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


def test_a_script_ends_without_complaints(judge):
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
