"""Many long prompts, each with a seed, at once, on a CPU: a prompt that vLLM reads in two pieces ended its engine."""

import asyncio

import pytest
from tiny_run import JUDGE

from flip_plugin.judge.client import JudgeClient
from flip_plugin.serving.options import ServerOptions
from flip_plugin.serving.server import JudgeServer

WORDS = "write a short cheerful poem about the sea for children and end it with a question . "


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_seeded_requests_of_more_tokens_than_a_batch_holds(tmp_path):
    options = ServerOptions(str(JUDGE), on_cpu=True, max_model_len=1024, kv_cache_memory_bytes=2**28)
    server = JudgeServer(options, tmp_path / "judge.log")
    try:
        client = JudgeClient(
            f"hosted_vllm/{JUDGE}",
            server.wait_ready(280),
            seed=1,
            temperature=0.7,
            max_tokens=8,
            max_attempts=1,
            timeout=120,
        )

        async def ask() -> list:
            # Each prompt is another one from its first word on, so that no cache makes it short.
            prompts = [f"{number} " + WORDS * 30 for number in range(24)]
            return await asyncio.gather(*(client.complete([{"role": "user", "content": one}]) for one in prompts))

        replies = asyncio.run(ask())
    finally:
        server.stop()
    assert [reply.error for reply in replies] == [None] * 24
    # Several batches, or this shows nothing.
    assert sum(reply.usage["prompt_tokens"] for reply in replies) > 3 * 2048
