"""`JudgeClient`: one question to a judge model in, one `JudgeReply` out; it does not raise.

Every request goes through ``litellm.acompletion``, so a judge is any model name that
LiteLLM knows; ``hosted_vllm/NAME`` is a vLLM server of one's own. On top of it:

- a bound on requests in flight, and the least busy of several servers for each;
  a server that cannot be reached is left alone for a while;
- one deadline a call (its retries included, waiting for a free slot not), and
  retries with jitter for what may pass: timeout, connection, 429, 5xx. A 4xx is
  the request's own fault and is sent once;
- an optional cache on disk and counters.

A client holds no loop, lock or connection of its own until it is used, so that it
can be pickled into another process, and it works from several event loops.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import random
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError as FutureCancelled
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from flip_plugin.records import ReplyCache

T = TypeVar("T")
Messages = Sequence[dict[str, Any]]

# Kinds of failure: "timeout", "connection", "rate_limit", "server", "bad_request", "context_overflow".
RETRIED = frozenset({"timeout", "connection", "rate_limit", "server"})
COOL_DOWN_S = 10.0
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0


@dataclass(frozen=True)
class JudgeReply:
    """What came back. `text` is None when `error` is set, or when the judge sent no content.

    `usage` counts tokens (``prompt_tokens``, ``completion_tokens``); `seconds` runs
    from the first request to the end; `attempts` is the number of requests sent.
    """

    text: str | None = None
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 0
    api_base: str | None = None
    cached: bool = False
    error: str | None = None
    error_kind: str | None = None


class JudgeClient:
    """A judge model behind one or more servers. See the module's text for its promises.

    `api_base`: a URL (commas separate several), a list of them, or None: then
    ``HOSTED_VLLM_API_BASE`` for ``hosted_vllm/`` models, and LiteLLM's own choice for
    others. `timeout` is in seconds, for a call with its retries. `thinking=False`
    asks a vLLM server's chat template not to think. `extra_body` is added to the
    request's body. `record` is called with (messages, reply) after every call.
    """

    def __init__(
        self,
        model: str,
        api_base: str | list[str] | None = None,
        *,
        api_key: str | None = None,
        temperature: float = 0.0,
        max_tokens: int = 512,
        timeout: float = 60.0,
        max_concurrency: int = 64,
        max_attempts: int = 4,
        seed: int | None = None,
        thinking: bool = False,
        extra_body: dict[str, Any] | None = None,
        cache_path: str | os.PathLike[str] | None = None,
        record: Callable[[Messages, JudgeReply], None] | None = None,
    ) -> None:
        if max_attempts < 1 or max_concurrency < 1 or timeout <= 0:
            raise ValueError("max_attempts and max_concurrency must be at least 1, and timeout above 0")
        self.model = model
        self.api_bases = _split_bases(api_base) or self._bases_from_environment(model)
        self._api_key = api_key
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.timeout = timeout
        self.max_concurrency = max_concurrency
        self.max_attempts = max_attempts
        self.seed = seed
        self.thinking = thinking
        self.extra_body = dict(extra_body or {})
        self.cache_path = os.fspath(cache_path) if cache_path else None
        self.record = record
        self._reset()

    def _reset(self) -> None:
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState]
        self._loops = weakref.WeakKeyDictionary()
        self._cache: ReplyCache | None = None
        self._counts: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=10_000)

    def __getstate__(self) -> dict[str, Any]:
        left = ("_loops", "_cache", "_counts", "_latencies")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __repr__(self) -> str:  # never the key
        return f"JudgeClient({self.model!r}, {self.api_bases!r})"

    @property
    def sampling(self) -> dict[str, Any]:
        """What decides the judge's sample, as sent; part of the cache key and of records."""
        body = dict(self.extra_body)
        if not self.thinking and self.model.startswith("hosted_vllm/"):
            kwargs = {"enable_thinking": False, **body.get("chat_template_kwargs", {})}
            body["chat_template_kwargs"] = kwargs
        sampling = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        if self.seed is not None:
            sampling["seed"] = self.seed
        return {**sampling, "extra_body": body} if body else sampling

    async def complete(self, messages: Messages, *, response_format: Mapping[str, Any] | None = None) -> JudgeReply:
        """Ask once. A judge's failure comes back as `error` and `error_kind`, not as an exception."""
        request = {"model": self.model, "messages": [_sendable(turn) for turn in messages], **self.sampling}
        if response_format is not None:
            request["response_format"] = dict(response_format)
        reply = await self._from_cache(request)
        if reply is None:
            state = self._loop_state()
            async with state.slots:
                self._counts["in_flight"] += 1
                try:
                    reply = await self._ask(request, state)
                finally:
                    self._counts["in_flight"] -= 1
            if self.cache_path and reply.error is None:
                await asyncio.to_thread(self._open_cache().put, request, asdict(reply))
        self._count(reply)
        if self.record is not None:
            self.record(messages, reply)
        return reply

    async def _ask(self, request: dict[str, Any], state: _LoopState) -> JudgeReply:
        if not state.replicas:
            text = f"no server for {self.model!r}: give api_base or set HOSTED_VLLM_API_BASE"
            return JudgeReply(error=text, error_kind="bad_request")
        # Never on the loop: it may be an engine's.
        litellm = _litellm or await asyncio.to_thread(import_litellm)
        from openai import OpenAIError

        started = time.monotonic()
        for attempt in range(1, self.max_attempts + 1):
            replica = state.pick(time.monotonic())
            left = started + self.timeout - time.monotonic()
            replica.outstanding += 1
            try:
                # LiteLLM's own timeout is per read; a server that trickles would outlive it.
                async with asyncio.timeout(left):
                    raw = await litellm.acompletion(
                        **request,
                        api_base=replica.url,
                        api_key=self._api_key,
                        timeout=left,
                        num_retries=0,
                        max_retries=0,
                        drop_params=True,
                    )
                replica.rests_until = 0.0
                return _reply(raw, time.monotonic() - started, attempt, replica.url)
            except (OpenAIError, TimeoutError, OSError, json.JSONDecodeError) as error:
                kind, text = error_kind(error), self._describe(error)
            finally:
                replica.outstanding -= 1
            if kind == "connection":
                replica.rests_until = time.monotonic() + COOL_DOWN_S
            pause = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S) * random.uniform(0.5, 1.5)
            now = time.monotonic()
            if kind not in RETRIED or attempt == self.max_attempts or now + pause > started + self.timeout:
                break
            await asyncio.sleep(pause)
        return JudgeReply(
            seconds=time.monotonic() - started,
            attempts=attempt,
            api_base=replica.url,
            error=text,
            error_kind=kind,
        )

    def stats(self) -> dict[str, Any]:
        """Counters since the start (or unpickling) and latency percentiles in seconds.

        Keys: calls, ok, cached, retries, in_flight, prompt_tokens, completion_tokens,
        ``error_<kind>`` for kinds that occurred, seconds_p50/p90/p99/max.
        """
        numbers: dict[str, Any] = dict.fromkeys(
            ("calls", "ok", "cached", "retries", "in_flight", "prompt_tokens", "completion_tokens"), 0
        )
        numbers.update(self._counts)
        ranked = sorted(self._latencies)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
            at = min(int(share * len(ranked)), len(ranked) - 1)
            numbers[f"seconds_{name}"] = ranked[at] if ranked else None
        return numbers

    def _count(self, reply: JudgeReply) -> None:
        self._counts["calls"] += 1
        self._counts["retries"] += max(reply.attempts - 1, 0)
        if reply.cached:
            self._counts["cached"] += 1
        elif reply.error is None:
            self._latencies.append(reply.seconds)
            self._counts.update(reply.usage)
        self._counts["ok" if reply.error is None else f"error_{reply.error_kind}"] += 1

    def _describe(self, error: BaseException) -> str:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, TimeoutError):
            text = f"no reply within {self.timeout:g} s"
        return text.replace(self._api_key, "[key]")[:600] if self._api_key else text[:600]

    def _loop_state(self) -> _LoopState:
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            bases = self.api_bases or self._bases_from_environment(self.model)
            if not bases and not self.model.startswith("hosted_vllm/"):
                bases = [None]
            slots = asyncio.Semaphore(self.max_concurrency)
            self._loops[loop] = _LoopState(slots, [_Replica(url) for url in bases])
        return self._loops[loop]

    async def _from_cache(self, request: dict[str, Any]) -> JudgeReply | None:
        if not self.cache_path:
            return None
        found = await asyncio.to_thread(self._open_cache().get, request)
        return replace(JudgeReply(**found), cached=True, attempts=0, seconds=0.0) if found else None

    def _open_cache(self) -> ReplyCache:
        # A forked child must not go on with its parent's connection.
        if self._cache is None or self._cache.pid != os.getpid():
            assert self.cache_path is not None
            self._cache = ReplyCache(self.cache_path)
        return self._cache

    @staticmethod
    def _bases_from_environment(model: str) -> list[str | None]:
        hosted = model.startswith("hosted_vllm/")
        return _split_bases(os.environ.get("HOSTED_VLLM_API_BASE")) if hosted else []


@dataclass
class _Replica:
    url: str | None
    outstanding: int = 0
    rests_until: float = 0.0


@dataclass
class _LoopState:
    slots: asyncio.Semaphore
    replicas: list[_Replica]

    def pick(self, now: float) -> _Replica:
        """The least busy replica that is not resting; if all rest, the first to wake."""
        awake = [replica for replica in self.replicas if replica.rests_until <= now]
        if awake:
            return min(awake, key=lambda replica: (replica.outstanding, random.random()))
        return min(self.replicas, key=lambda replica: replica.rests_until)


def error_kind(error: BaseException) -> str:
    """The class of a failed request: see `RETRIED` for those worth another try."""
    import litellm
    from openai import APIConnectionError, APITimeoutError

    if isinstance(error, litellm.ContextWindowExceededError):
        return "context_overflow"
    # LiteLLM reports a refused connection as a server error; the causes tell.
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    status = getattr(error, "status_code", None)
    if isinstance(error, (TimeoutError, APITimeoutError)) or status in (408, 504):
        return "timeout"
    if status == 429:
        return "rate_limit"
    if isinstance(status, int) and 400 <= status < 500:
        text = str(error).lower()
        return "context_overflow" if "context length" in text or "context window" in text else "bad_request"
    unreachable = (ConnectionError, APIConnectionError)
    if any(isinstance(one, unreachable) or "Connect" in type(one).__name__ for one in chain):
        return "connection"
    return "server"


_litellm: Any = None
_sync_loop: tuple[int, asyncio.AbstractEventLoop] | None = None
_sync_lock = threading.Lock()


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, waited for; also where an event loop is running already.

    It runs on one long-lived loop in a background thread of this process: LiteLLM
    pools connections per loop, and a loop a call would leak them.
    """
    global _sync_loop
    with _sync_lock:
        if _sync_loop is None or _sync_loop[0] != os.getpid():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="flip-judge", daemon=True)
            thread.start()
            _sync_loop = (os.getpid(), loop)
            atexit.register(_wind_down, os.getpid(), loop, thread)
        loop = _sync_loop[1]
    if threading.current_thread().name == "flip-judge":
        coroutine.close()
        raise RuntimeError("run_sync was called from its own loop: await the coroutine there")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except (KeyboardInterrupt, FutureCancelled):
        future.cancel()
        raise


def _wind_down(pid: int, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """End what still runs on the loop (LiteLLM's logger, at least) before the interpreter complains."""
    if pid != os.getpid():  # a fork inherits the hook, not the thread
        return

    async def cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=2) if tasks else None
        asyncio.get_running_loop().stop()

    asyncio.run_coroutine_threadsafe(cancel_all(), loop)
    thread.join(timeout=3)


def import_litellm() -> Any:
    """LiteLLM, quiet and without its look at the network; 2-3 s the first time in a process."""
    global _litellm
    # Without this the import fetches a price list from the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.suppress_debug_info = True
    _litellm = litellm
    return litellm


def _sendable(turn: dict[str, Any]) -> dict[str, Any]:
    """The message without lone surrogates, which no HTTP body can hold."""
    content = turn.get("content")
    if not isinstance(content, str) or content.isascii():
        return dict(turn)
    return {**turn, "content": content.encode("utf-8", "replace").decode("utf-8")}


def _reply(raw: Any, seconds: float, attempts: int, url: str | None) -> JudgeReply:
    choice = raw.choices[0] if raw.choices else None
    usage = getattr(raw, "usage", None)
    names = ("prompt_tokens", "completion_tokens")
    return JudgeReply(
        text=choice.message.content if choice else None,
        finish_reason=choice.finish_reason if choice else None,
        usage={name: getattr(usage, name, 0) or 0 for name in names} if usage else {},
        seconds=seconds,
        attempts=attempts,
        api_base=url,
    )


def _split_bases(api_base: str | list[str] | None) -> list[str | None]:
    parts = api_base.split(",") if isinstance(api_base, str) else api_base or []
    return [part.strip().rstrip("/") for part in parts if part.strip()]
