"""What a misbehaving server's answers become: always a `JudgeReply` with an error kind, or one without text."""

import json
import time
from typing import Any

import httpx
import pytest

from flip_plugin.judge.client import JudgeClient
from flip_plugin.judge.errors import Failure, classify
from flip_plugin.judge.litellm_setup import import_litellm

ASK = [{"role": "user", "content": "hello"}]
MESSAGE = {"role": "assistant", "content": "hi"}
CHOICE = {"index": 0, "finish_reason": "stop", "message": MESSAGE}
WHOLE = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE]}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("flip_plugin.judge.retries.FIRST_PAUSE_S", 0.01)


def client(base, model="hosted_vllm/m", **given):
    options: dict[str, Any] = {"timeout": 5, "max_attempts": 2, "api_key": "sk-secret-3", **given}
    return JudgeClient(model, base, **options)


def http(body: bytes, *, length: int | None = None, headers: str = "Content-Type: application/json") -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 200 OK\r\n{headers}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode() + body


def choice(**changed: Any) -> dict[str, Any]:
    return {"json": {**WHOLE, "choices": [{**CHOICE, **changed}]}}


BODY = json.dumps(WHOLE).encode()
# (answer, kind): two requests each, since it may pass, unless the kind says otherwise.
BROKEN = {
    "no choices": ({"json": {"id": "x"}}, "server"),
    "choices null": ({"json": {**WHOLE, "choices": None}}, "server"),
    "choices of text": ({"json": {**WHOLE, "choices": ["hi"]}}, "server"),
    "choices of null": ({"json": {**WHOLE, "choices": [None]}}, "server"),
    "no message": ({"json": {**WHOLE, "choices": [{"index": 0}]}}, "server"),
    "message null": (choice(message=None), "server"),
    "message text": (choice(message="hi"), "server"),
    "content a number": (choice(message={"role": "assistant", "content": 7}), "server"),
    "content a list": (choice(message={"role": "assistant", "content": [1]}), "server"),
    "tool calls text": (choice(message={**MESSAGE, "tool_calls": "hi"}), "server"),
    "usage text": ({"json": {**WHOLE, "usage": "much"}}, "server"),
    "usage of text": ({"json": {**WHOLE, "usage": {"prompt_tokens": "many"}}}, "server"),
    "list": ({"json": []}, "server"),
    "null": ({"json": None}, "server"),
    "number": ({"json": 5}, "server"),
    "text": ({"json": "hi"}, "server"),
    "not a number": ({"garbage": "NaN"}, "server"),
    "deep": ({"garbage": "[" * 100_000}, "server"),
    "empty body": ({"garbage": ""}, "server"),
    "half a body": ({"garbage": BODY[:40].decode()}, "server"),
    "html": ({"wire": http(b"<html>busy</html>", headers="Content-Type: text/html")}, "server"),
    "bad bytes": ({"wire": http(b'{"id": "\xff\xfe"}')}, "server"),
    "not gzip": ({"wire": http(BODY, headers="Content-Encoding: gzip")}, "server"),
    "error with 200": ({"json": {"error": {"message": "boom", "code": 500}}}, "server"),
    "error text with 200": ({"json": {"error": "boom"}}, "bad_request"),
    "error null with 200": ({"json": {"error": None}}, "server"),
    "vLLM's error with 200": ({"json": {"object": "error", "message": "boom"}}, "server"),
    "not HTTP": ({"wire": b"hello\r\n\r\n"}, "server"),
    "bad header": ({"wire": b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"}, "server"),
    "bad chunk": ({"wire": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}, "server"),
    "cut chunk": ({"wire": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc"}, "connection"),
    "body cut": ({"wire": http(BODY[:40], length=500)}, "connection"),
    "reset in the body": ({"wire": http(BODY[:40], length=500), "then": "reset"}, "connection"),
    "closed": ({"wire": b""}, "connection"),
    "reset": ({"wire": b"", "then": "reset"}, "connection"),
    "502": ((502, "bad gateway"), "server"),
    "504": ((504, "late"), "timeout"),
    "408": ((408, "late"), "timeout"),
    "529": ((529, "overloaded"), "server"),
    "429": ((429, "slow down"), "rate_limit"),
} | {
    str(status): ((status, "no"), "bad_request")
    for status in (400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 418, 422, 425, 431, 451)
}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("model", ["hosted_vllm/m", "openai/m"])
@pytest.mark.parametrize("name", BROKEN)
async def test_broken_answers(judge, name, model):
    answer, kind = BROKEN[name]
    judge.answers = [answer]
    reply = await client(judge.base, model).complete(ASK)
    assert (reply.text, reply.error_kind) == (None, kind), reply.error
    assert reply.attempts == (1 if kind == "bad_request" else 2)
    assert len(judge.requests) >= reply.attempts  # LiteLLM itself sends again after some resets
    assert reply.error
    assert len(reply.error) <= 600
    assert "Traceback" not in reply.error


USABLE = {
    "no choice": ({"json": {**WHOLE, "choices": []}}, None),
    "content null": (choice(message={"role": "assistant", "content": None}), None),
    "no content": (choice(message={"role": "assistant"}), None),
    "finish reason a number": (choice(finish_reason=7), "hi"),
    "finish reason null": (choice(finish_reason=None), "hi"),
    "no usage": ({"json": {**WHOLE, "usage": None}}, "hi"),
    "negative usage": ({"json": {**WHOLE, "usage": {"prompt_tokens": -3, "completion_tokens": None}}}, "hi"),
    "model a number": ({"json": {**WHOLE, "model": 3}}, "hi"),
    "text type": ({"wire": http(BODY, headers="Content-Type: text/plain")}, "hi"),
    "unknown charset": ({"wire": http(BODY, headers="Content-Type: application/json; charset=none")}, "hi"),
    "lone surrogate": (choice(message={"role": "assistant", "content": "\ud800"}), "\ud800"),
}


@pytest.mark.parametrize("name", USABLE)
async def test_odd_answers_that_can_be_used(judge, name):
    answer, text = USABLE[name]
    judge.answers = [answer]
    ask = client(judge.base)
    reply = await ask.complete(ASK)
    assert (reply.text, reply.error, reply.attempts) == (text, None, 1)
    assert all(count >= 0 for count in reply.usage.values())
    assert ask.stats()["prompt_tokens"] >= 0


async def test_a_trickle_ends_at_the_deadline(judge):
    judge.answers = [{"wire": http(b" " * 200 + BODY), "then": 0.05}]
    started = time.monotonic()
    reply = await client(judge.base, timeout=0.7).complete(ASK)
    assert (reply.error_kind, reply.error) == ("timeout", "no reply within 0.7 s")
    assert time.monotonic() - started < 2.5


async def test_reasoning_tokens_are_reported(judge):
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    judge.answers = [{"json": {**WHOLE, "usage": usage}}]
    reply = await client(judge.base).complete(ASK)
    assert reply.usage == {"prompt_tokens": 5, "completion_tokens": 9, "reasoning_tokens": 4}


@pytest.mark.parametrize("model", ["no-such-provider/m", "m", "anthropic/m", "gemini/m"])
async def test_an_unusable_provider_is_an_error(model, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    reply = await client("http://127.0.0.1:9", model, timeout=3, max_attempts=1, api_key=None).complete(ASK)
    assert reply.error_kind in {"bad_request", "connection", "server", "timeout"}
    assert reply.error


async def test_keys_never_reach_an_error(judge, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "sk-from-the-environment")
    judge.answers = [(401, "wrong keys sk-secret-3 and sk-from-the-environment")]
    reply = await client(judge.base).complete(ASK)
    assert "wrong keys [key] and [key]" in reply.error


def test_refused_and_broken_connections_differ():
    litellm = import_litellm()

    def raised(cause: Exception) -> Failure:
        error = litellm.InternalServerError("boom", "hosted_vllm", "m")
        error.__cause__ = cause
        return classify(error, timeout=1.0)

    request = httpx.Request("POST", "http://127.0.0.1:9")
    assert raised(httpx.ConnectError("refused", request=request)) == Failure(
        "connection", "InternalServerError: litellm.InternalServerError: boom", unreachable=True
    )
    assert raised(ConnectionRefusedError()).unreachable
    assert not raised(httpx.ReadError("reset", request=request)).unreachable
    assert raised(httpx.ConnectTimeout("late", request=request)).unreachable
    assert raised(ValueError("odd")).kind == "server"
