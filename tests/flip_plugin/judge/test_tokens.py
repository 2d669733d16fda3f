"""Tokens of a prompt, as the judge's server counts them."""

import asyncio
from typing import Any

import pytest
from judge_cases import ASK, client

from flip_plugin.judge.client import JudgeClient
from flip_plugin.reward.flip import FlipReward

pytestmark = pytest.mark.usefixtures("short_pauses")


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


def flip(judge, **options):
    settings: dict[str, Any] = {"timeout": 5, "max_attempts": 1, **options}
    return FlipReward("hosted_vllm/m", judge.base, **settings)


ASKED = "Write a haiku about autumn leaves in Kyoto"


async def test_token_counts_are_bounded_like_calls(judge):
    judge.tokens = 5_000
    reward = flip(judge, max_context_length=700, max_tokens=64, max_concurrency=3)
    results = await asyncio.gather(*(reward.score("guess", "word " * 2_000) for _ in range(20)))
    assert {result.status for result in results} <= {"ok", "context_overflow"}
    assert judge.counted and judge.most_counting <= 3


async def test_without_a_window_the_servers_own_is_used(judge):
    """The stub says 4096 with each count, and refuses more; it counts a token a character."""

    def tokens(body):
        return sum(len(turn["content"]) for turn in body["messages"])

    judge.tokens = tokens
    judge.handler = lambda body: (
        '{"INFERRED INSTRUCTION": "guess"}'
        if tokens(body) <= 4096 - 64
        else ((400, "This model's maximum context length is 4096 tokens"))
    )
    result = await flip(judge, max_tokens=64).score("guess", "START " + "word " * 40_000 + "END")
    assert (result.score, len(judge.requests)) == (1.0, 2)
    assert 4096 - 64 - 200 < tokens(judge.requests[1]) <= 4096 - 64


async def test_without_a_count_halves_are_tried_until_one_fits(judge):
    judge.handler = lambda body: (
        '{"INFERRED INSTRUCTION": "guess"}'
        if len(str(body)) < 5_000
        else ((400, "This model's maximum context length is 4096 tokens"))
    )
    assert (await flip(judge).score("guess", "START " + "word " * 30_000 + "END")).score == 1.0
