"""A judge server on loopback that misbehaves on demand: real HTTP, real LiteLLM, no model."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

# What a handler may answer with: text, (status, body), or a dict of
# text, finish_reason, delay (seconds), garbage (raw body).
Answer = str | None | tuple[int, Any] | dict[str, Any]


class StubJudge:
    """Answers each request with the next of `answers` (the last one for ever), or with `handler(body)`."""

    def __init__(self) -> None:
        self.answers: list[Answer] = ['{"REASONING": "r", "INFERRED INSTRUCTION": "guess"}']
        self.handler: Callable[[dict[str, Any]], Answer] | None = None
        self.requests: list[dict[str, Any]] = []
        self.open = self.most_open = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.base = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def infers(self, instruction: str) -> None:
        self.answers = [json.dumps({"REASONING": "r", "INFERRED INSTRUCTION": instruction})]

    def rates(self, score: Any) -> None:
        self.answers = [json.dumps({"REASONING": "r", "SCORE": score})]

    async def _start(self) -> str:
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        answer = (
            self.handler(body) if self.handler else self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        )
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if isinstance(answer, tuple):
                return web.json_response({"error": {"message": answer[1]}}, status=answer[0])
            options = answer if isinstance(answer, dict) else {"text": answer}
            await asyncio.sleep(options.get("delay", 0))
            if "garbage" in options:
                return web.Response(text=options["garbage"])
            return web.json_response(_completion(options.get("text"), options.get("finish_reason", "stop")))
        finally:
            self.open -= 1

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def _completion(text: str | None, finish_reason: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "stub",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


@pytest.fixture
def judge() -> Iterator[StubJudge]:
    stub = StubJudge()
    yield stub
    stub.close()


@pytest.fixture
def two_judges() -> Iterator[tuple[StubJudge, StubJudge]]:
    one, other = StubJudge(), StubJudge()
    yield one, other
    one.close()
    other.close()
