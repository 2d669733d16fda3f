"""A judge without a server: vLLM's `LLM` in a child process, behind `JudgeClient`'s interface.

    with open_engine("Qwen/Qwen3-4B?max_model_len=8192") as client:
        reward = FlipReward("", client=client(seed=1, temperature=0.7))

For sweeps over many judges: no port, no HTTP, no LiteLLM, and the memory of one judge is free when the next one's
turn comes. Requests join the running batch as they come, so ask for many at once (`max_concurrency`). Replies are
those of a server with the same model and options: the same chat template, defaults of the model's
generation_config.json, structured output; too long a prompt is a ``context_overflow``.

The model's name may carry options, ``?max_model_len=8192&tensor_parallel_size=2``: those of `OPTIONS`. On a build of
vLLM for CPUs the engine is set up as `flip_plugin.serving.options` sets up a server.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.judge.client import OFFLINE, JudgeClient, Messages, OnLoop
from flip_plugin.judge.event_loop import in_worker, on_judge_loop, run_sync
from flip_plugin.judge.http_request import sendable
from flip_plugin.judge.replicas import ReplicaPool
from flip_plugin.judge.reply import JudgeReply
from flip_plugin.judge.tokens import TokenCounter
from flip_plugin.serving.options import ServerOptions, built_for_cpu
from flip_plugin.serving.processes import start_child, stop_child, tail

# What may follow a model's name; values as for `ServerOptions`.
OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "max_model_len": int,
    "max_num_seqs": int,
    "tensor_parallel_size": int,
    "gpu_memory_utilization": float,
    "kv_cache_memory_bytes": int,
    "dtype": str,
    "omp_threads": int,
}
MAX_NUM_SEQS = 256
# Requests handed to the engine at a time: enough to keep its batch full while replies are read and new ones asked.
MAX_CONCURRENCY = 1024
LONGEST_LINE = 2**28


class OfflineEngineError(CommandError):
    """The engine did not come up, or ended; the message ends with its last lines."""


class OfflineEngine:
    """One model in one child process. `start` blocks until it is loaded; `close` ends it and frees its memory.

    Safe to ask from any loop. After `close`, or when the process has ended, `ask` raises `OfflineEngineError`.
    """

    def __init__(self, options: ServerOptions, log_path: Path) -> None:
        self.options = options
        self.log_path = log_path
        self.window: int | None = None
        self._child: Any = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._ended: str | None = "the offline judge was not started"

    def command(self, descriptor: int) -> list[str]:
        """The child's command line; it inherits the socket `descriptor`."""
        return [sys.executable, "-m", "flip_plugin.evals.judges.offline_process", str(descriptor)]

    def start(self) -> None:
        """Start the process and load the model. Raises `OfflineEngineError` with the log's last lines."""
        run_sync(self._start())

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # From the judge's loop, whose thread lives as long as this process: the child ends with it.
            self._child = start_child(
                self.command(theirs.fileno()),
                env=self.options.environment(),
                log_path=self.log_path,
                pass_fds=[theirs.fileno()],
            )
        reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE)
        self._writer.write(_line({"llm": engine_arguments(self.options)}))
        first = await reader.readline()
        if not first:
            self._ended = await in_worker(self._last_words, f"the offline judge {self.options.model!r} did not start")
            raise OfflineEngineError(self._ended)
        self.window, self._ended = json.loads(first)["window"], None
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The engine's reply to one request, as `flip_plugin.evals.judges.offline_process` describes both."""
        return await on_judge_loop(self._ask(request))

    async def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._ended is not None:
            raise OfflineEngineError(self._ended)
        assert self._writer is not None
        self._count += 1
        number = self._count
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(_line({**request, "id": number}))
            return await future
        finally:
            self._waiting.pop(number, None)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hand out replies until the process closes its end."""
        try:
            while line := await reader.readline():
                reply = json.loads(line)
                future = self._waiting.get(reply["id"])  # None: whoever asked was cancelled
                if future is not None and not future.done():
                    future.set_result(reply)
        except (ConnectionError, ValueError):  # reset; a line cut off by its death
            pass
        if self._ended is None:
            self._ended = await in_worker(self._last_words, f"the offline judge {self.options.model!r} ended")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(OfflineEngineError(self._ended))

    def _last_words(self, what: str) -> str:
        stop_child(self._child)
        return f"{what} (exit status {self._child.returncode}, log {self.log_path}):\n{tail(self.log_path, lines=3)}"

    def close(self) -> None:
        """End the process and everything it started; returns when it is gone. Requests under way fail."""
        if self._ended is None:
            self._ended = f"the offline judge {self.options.model!r} was closed"
        if self._child is not None:
            stop_child(self._child)
            run_sync(self._hang_up())

    async def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            await self._reading


class OfflineClient(JudgeClient):
    """A `JudgeClient` whose requests go to an `OfflineEngine`. Clients of one engine share it, with other sampling.

    Keywords as for `JudgeClient`; the time for a call is not bounded, since it waits for its place in the batch.
    `complete` and `count_tokens` raise `OfflineEngineError` when the engine has ended: no further question can be put.
    """

    def __init__(self, engine: OfflineEngine, *, max_concurrency: int = MAX_CONCURRENCY, **options: Any) -> None:
        super().__init__(f"{OFFLINE}{engine.options.model}", max_concurrency=max_concurrency, **options)
        self.engine = engine

    async def window(self, messages: Messages) -> int | None:
        """The model's window in tokens."""
        return self.engine.window

    async def _count_tokens(self, messages: Messages) -> int | None:
        template = self.sampling.get("extra_body", {}).get("chat_template_kwargs", {})
        reply = await self.engine.ask({"count": [sendable(turn) for turn in messages], "template": template})
        return reply.get("tokens")

    async def _ask(self, body: dict[str, Any]) -> JudgeReply:
        started = time.monotonic()
        reply = await self.engine.ask({name: value for name, value in body.items() if name != "model"})
        seconds = time.monotonic() - started
        if "error" in reply:
            return JudgeReply(seconds=seconds, attempts=1, error=reply["error"], error_kind=reply["kind"])
        return JudgeReply(
            text=reply["text"],
            finish_reason=reply["finish_reason"],
            usage={name: reply[name] for name in ("prompt_tokens", "completion_tokens")},
            seconds=seconds,
            attempts=1,
        )

    def _make_state(self) -> OnLoop:
        return OnLoop(
            os.getpid(), asyncio.Semaphore(self.max_concurrency), ReplicaPool([]), TokenCounter(self.model, None)
        )

    def _servers(self) -> list[str | None]:
        return []


@contextmanager
def open_engine(
    model: str,
    *,
    max_concurrency: int = MAX_CONCURRENCY,
    cache_path: str | os.PathLike[str] | None = None,
    log_path: str | os.PathLike[str] | None = None,
) -> Generator[Callable[..., OfflineClient]]:
    """``with open_engine(model) as client: client(seed=1, temperature=0.7, max_tokens=512, thinking=False)``.

    `model` is a folder or a Hugging Face id, with or without ``vllm:`` before and ``?options`` behind it. The engine's
    log goes to `log_path`, else to a temporary file, which is kept. Raises `OfflineEngineError`, `CommandError`.
    """
    options = offline_options(model)
    if log_path is None:
        handle, log_path = tempfile.mkstemp(prefix="flip-judge-", suffix=".log")
        os.close(handle)
    engine = OfflineEngine(options, Path(log_path).resolve())
    shared: dict[str, Any] = {"max_concurrency": max_concurrency, "cache_path": cache_path}
    try:
        engine.start()
        yield lambda **sampling: OfflineClient(engine, **(shared | sampling))
    finally:
        engine.close()


def offline_options(model: str) -> ServerOptions:
    """``[vllm:]MODEL[?name=value&...]`` as options. Raises `CommandError` for a name or value that is none.

    >>> offline_options("vllm:Qwen/Qwen3-4B?max_model_len=8192").max_model_len
    8192
    """
    name, _, query = model.removeprefix(OFFLINE).partition("?")
    if not name:
        raise CommandError(f"{model!r} names no model: vllm:PATH or vllm:HF_ID, such as vllm:Qwen/Qwen3-4B")
    given: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        option, _, value = part.partition("=")
        if option not in OPTIONS:
            raise CommandError(f"{model!r}: {option!r} is no option; there are {', '.join(OPTIONS)}")
        try:
            given[option] = OPTIONS[option](value)
        except ValueError:
            raise CommandError(f"{model!r}: {option}={value!r} is no value of that option") from None
    options = ServerOptions(name, max_num_seqs=MAX_NUM_SEQS)
    if built_for_cpu():
        threads = max(1, (os.cpu_count() or 1) - 1)
        options = replace(options, on_cpu=True, kv_cache_memory_bytes=2**30, omp_threads=threads)
    return replace(options, **given)


def engine_arguments(options: ServerOptions) -> dict[str, Any]:
    """The keywords of ``vllm.LLM`` that `ServerOptions.command` says to a server."""
    arguments: dict[str, Any] = {
        "model": options.model,
        "dtype": options.dtype,
        "max_num_seqs": options.max_num_seqs,
        "tensor_parallel_size": options.tensor_parallel_size,
        "enforce_eager": options.enforce_eager or options.on_cpu,
        "gpu_memory_utilization": 0.05 if options.on_cpu else options.gpu_memory_utilization,
        "disable_log_stats": True,
    }
    if options.max_model_len:
        arguments["max_model_len"] = options.max_model_len
    if options.kv_cache_memory_bytes:
        arguments["kv_cache_memory_bytes"] = options.kv_cache_memory_bytes
    if options.on_cpu:
        arguments["block_size"] = 32
        arguments["enable_chunked_prefill"] = False  # a seeded prompt in two pieces ends a CPU engine
    if options.on_cpu and options.tensor_parallel_size == 1:
        arguments["distributed_executor_backend"] = "uni"
    return arguments


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
