"""The offline judge: the parent's side with an engine by script, real processes and no model; the slow one is real."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from flip_plugin import FlipReward
from flip_plugin.errors import CommandError
from flip_plugin.evals.judges.offline import (
    OfflineClient,
    OfflineEngine,
    OfflineEngineError,
    engine_arguments,
    offline_options,
)
from flip_plugin.evals.judges.offline_process import Lines
from flip_plugin.serving.options import ServerOptions

# Answers what it was asked, in the reverse order of each batch of lines; dies or refuses when message to.
STUB = """
import json, os, socket, sys, time
connection = socket.socket(fileno=int(sys.argv[1]))
file, out = connection.makefile("r"), connection.makefile("w")
def say(message):
    out.write(json.dumps(message) + "\\n"); out.flush()
start = json.loads(file.readline())
if start["llm"]["model"] == "missing":
    sys.exit("OSError: no such model: missing")
say({"window": 64})
print("loaded", flush=True)
held = []
for line in file:
    request = json.loads(line)
    if "count" in request:
        say({"id": request["id"], "tokens": sum(len(turn["content"].split()) for turn in request["count"])})
        continue
    text = request["messages"][-1]["content"]
    if text == "die":
        print("Segmentation fault in the engine", flush=True)
        os._exit(3)
    if "too long" in text:
        say({"id": request["id"], "error": "maximum context length is 64 tokens", "kind": "context_overflow"})
        continue
    held.append(request)
    if len(held) >= int(os.environ.get("STUB_BATCH", "1")):
        for one in reversed(held):
            echoed = {k: one.get(k) for k in ("temperature", "max_tokens", "seed", "extra_body", "response_format")}
            say({"id": one["id"], "text": json.dumps({"heard": one["messages"][-1]["content"], **echoed}),
                 "finish_reason": "stop", "prompt_tokens": 5, "completion_tokens": 2})
        held = []
"""


class StubEngine(OfflineEngine):
    def command(self, descriptor):
        return [sys.executable, "-S", "-c", STUB, str(descriptor)]


@pytest.fixture
def engine(tmp_path):
    engine = StubEngine(ServerOptions("stub"), tmp_path / "engine.log")
    engine.start()
    yield engine
    engine.close()


def user(text):
    return [{"role": "user", "content": text}]


def heard(reply):
    return json.loads(reply.text)


async def all_of(client, texts, **options):
    return await asyncio.gather(*(client.complete(user(text), **options) for text in texts))


def test_requests_go_out_together_and_answers_find_their_way(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_BATCH", "200")  # nobody is answered before all have asked
    engine = StubEngine(ServerOptions("stub"), tmp_path / "engine.log")
    engine.start()
    client = OfflineClient(engine, temperature=0.7, max_tokens=9, seed=3)
    texts = [f"question {i}" for i in range(200)]
    replies = asyncio.run(all_of(client, texts))
    assert [heard(reply)["heard"] for reply in replies] == texts
    assert heard(replies[0]) == {
        "heard": "question 0",
        "temperature": 0.7,
        "max_tokens": 9,
        "seed": 3,
        "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
        "response_format": None,
    }
    assert replies[0].usage == {"prompt_tokens": 5, "completion_tokens": 2}
    assert client.stats()["ok"] == 200 and client.stats()["completion_tokens"] == 400
    engine.close()


def test_clients_share_an_engine_with_their_own_sampling(engine):
    first, second = OfflineClient(engine, seed=1), OfflineClient(engine, seed=2, thinking=True)
    assert heard(asyncio.run(first.complete(user("a"))))["seed"] == 1
    reply = heard(asyncio.run(second.complete(user("a"), response_format={"type": "json_object"})))
    assert (reply["seed"], reply["extra_body"], reply["response_format"]) == (2, None, {"type": "json_object"})
    assert heard(asyncio.run(first.complete(user("a"), seed=77)))["seed"] == 77


def test_a_reward_over_it(engine):
    result = asyncio.run(FlipReward("", client=OfflineClient(engine)).score("say hi", "hi there"))
    assert result.status == "unparsed" and result.usage["prompt_tokens"] == 5


def test_what_the_engine_counts(engine):
    client = OfflineClient(engine)
    assert asyncio.run(client.count_tokens(user("one two three"))) == 3
    assert asyncio.run(client.window(user("x"))) == 64


def test_too_long_a_prompt_is_one_overflow_among_answers(engine):
    replies = asyncio.run(all_of(OfflineClient(engine), ["a", "too long", "b"]))
    assert [reply.error_kind for reply in replies] == [None, "context_overflow", None]


def test_replies_are_cached_as_those_of_a_server(engine, tmp_path):
    client = OfflineClient(engine, seed=1, cache_path=tmp_path / "replies.sqlite")
    first = asyncio.run(client.complete(user("a")))
    again = asyncio.run(client.complete(user("a")))
    assert again.cached and again.text == first.text and not first.cached


def test_lone_surrogates_pass(engine):
    assert heard(asyncio.run(OfflineClient(engine).complete(user("a\ud800b"))))["heard"] == "a?b"


def test_a_dead_engine_says_its_last_words(engine):
    client = OfflineClient(engine)
    with pytest.raises(OfflineEngineError, match=r"(?s)ended \(exit status 3.*Segmentation fault in the engine"):
        asyncio.run(all_of(client, ["a", "die", "b"]))
    with pytest.raises(OfflineEngineError, match="ended"):
        asyncio.run(client.complete(user("c")))


def test_a_killed_engine_is_noticed_while_a_request_waits(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_BATCH", "2")
    engine = StubEngine(ServerOptions("stub"), tmp_path / "engine.log")
    engine.start()

    async def asks():
        waiting = asyncio.create_task(OfflineClient(engine).complete(user("a")))
        await asyncio.sleep(0.2)
        os.kill(engine._child.pid, signal.SIGKILL)
        return await waiting

    with pytest.raises(OfflineEngineError, match="exit status -9"):
        asyncio.run(asks())
    engine.close()


def test_a_model_that_does_not_load(tmp_path):
    engine = StubEngine(ServerOptions("missing"), tmp_path / "engine.log")
    with pytest.raises(OfflineEngineError, match=r"(?s)did not start.*no such model: missing"):
        engine.start()
    engine.close()


def test_close_ends_the_process_and_what_waits(engine):
    pid = engine._child.pid
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(OfflineEngineError, match="was closed"):
        asyncio.run(OfflineClient(engine).complete(user("a")))
    engine.close()  # twice does no harm


def test_the_engine_ends_with_its_parent(tmp_path):
    code = (
        f"import os, sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); from pathlib import Path;"
        "from test_offline_process import StubEngine; from flip_plugin.serving.options import ServerOptions;"
        f"e = StubEngine(ServerOptions('stub'), Path({str(tmp_path / 'log')!r})); e.start();"
        "print(e._child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")


def test_options_behind_the_model():
    options = offline_options("vllm:/models/judge?max_model_len=2048&dtype=float16&tensor_parallel_size=2")
    assert (options.model, options.max_model_len, options.dtype) == ("/models/judge", 2048, "float16")
    arguments = engine_arguments(options)
    assert arguments["tensor_parallel_size"] == 2
    assert "distributed_executor_backend" not in arguments
    for text, message in (
        ("m?colour=1", "'colour' is no option"),
        ("m?max_num_seqs=many", "no value"),
        ("vllm:", "names no"),
    ):
        with pytest.raises(CommandError, match=message):
            offline_options(text)


def test_the_child_reads_lines_as_they_come():
    ours, theirs = socket.socketpair()
    lines = Lines(theirs)
    assert lines.read(wait=False) == []
    ours.sendall(b'{"id": 1}\n{"id": 2}\n{"id"')
    assert lines.read(wait=True, most=1) == [{"id": 1}]
    assert lines.read(wait=True) == [{"id": 2}]
    ours.sendall(b": 3}\n")
    assert lines.read(wait=True) == [{"id": 3}]
    ours.close()
    assert lines.read(wait=True) == [] and not lines.open
    theirs.close()
