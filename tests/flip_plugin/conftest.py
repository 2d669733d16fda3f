"""A judge server on loopback that misbehaves on demand: real HTTP, real LiteLLM, no model."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

# What a handler may answer with: text, (status, body[, headers]), or a dict of
# text, finish_reason, delay (seconds), garbage (raw body), json (the whole reply),
# wire (bytes as they are, headers included; then: "close", "reset", or seconds between single bytes).
Answer = str | None | tuple[int, Any] | tuple[int, Any, dict[str, str]] | dict[str, Any]


class StubJudge:
    """Answers each request with the next of `answers` (the last one for ever), or with `handler(body)`."""

    def __init__(self) -> None:
        self.answers: list[Answer] = ['{"REASONING": "r", "INFERRED INSTRUCTION": "guess"}']
        self.handler: Callable[[dict[str, Any]], Answer] | None = None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.open = self.most_open = 0
        # Answers of POST /tokenize; None is a server without it.
        self.tokens: int | Callable[[dict[str, Any]], Any] | None = None
        self.counted: list[dict[str, Any]] = []
        self.counting = self.most_counting = 0
        self.ports: list[int] = []  # of the clients, one a request
        self._port = 0
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
        app.router.add_post("/tokenize", self._tokenize)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        host, self._port = self._runner.addresses[0][:2]
        return f"http://{host}:{self._port}/v1"

    def die(self) -> None:
        """Cut every connection and refuse new ones."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()

    def revive(self) -> None:
        """Answer again, on the same port."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.counted.append({**body, "headers": dict(request.headers)})
        self.counting += 1
        self.most_counting = max(self.most_counting, self.counting)
        await asyncio.sleep(0.005)
        self.counting -= 1
        count = self.tokens(body) if callable(self.tokens) else self.tokens
        if count is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        return web.json_response({"count": count, "max_model_len": 4096, "tokens": []})

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        if request.transport is not None:
            self.ports.append(request.transport.get_extra_info("peername")[1])
        answer = (
            self.handler(body) if self.handler else self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        )
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if isinstance(answer, tuple):
                headers = answer[2] if len(answer) > 2 else {}
                return web.json_response({"error": {"message": answer[1]}}, status=answer[0], headers=headers)
            options = answer if isinstance(answer, dict) else {"text": answer}
            await asyncio.sleep(options.get("delay", 0))
            if "garbage" in options:
                return web.Response(text=options["garbage"])
            if "json" in options:
                return web.json_response(options["json"])
            if "wire" in options:
                return await _by_hand(request, options["wire"], options.get("then", "close"))
            return web.json_response(completion(options.get("text"), options.get("finish_reason", "stop")))
        finally:
            self.open -= 1

    def close(self) -> None:
        async def end() -> None:
            await self._runner.cleanup()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}  # answers that nobody waits for any more
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _by_hand(request: web.Request, wire: bytes, then: str | float) -> web.Response:
    """Write `wire` to the socket, past aiohttp, and end the connection as `then` says."""
    transport = request.transport
    assert transport is not None
    for piece in [wire] if isinstance(then, str) else (wire[i : i + 1] for i in range(len(wire))):
        transport.write(piece)
        await asyncio.sleep(0.02 if isinstance(then, str) else then)
    if then == "reset":
        linger = struct.pack("ii", 1, 0)  # a RST instead of a FIN
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        transport.close()
    return web.Response()


def completion(text: str | None, finish_reason: str) -> dict[str, Any]:
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
