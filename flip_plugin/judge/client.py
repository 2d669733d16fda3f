"""`JudgeClient`: one question to a judge model in, one `JudgeReply` out; it does not raise.

A judge is any model name that LiteLLM knows; ``hosted_vllm/NAME`` is a vLLM server of one's own. A question goes

    JudgeClient.complete   from the caller's loop to the judge's loop   `flip_plugin.judge.event_loop`
     -> cache              answered before?                             `flip_plugin.judge.cache`
     -> slots              at most `max_concurrency` at a time
     -> Question           until it is answered or out of time          `flip_plugin.judge.retries`
         -> ReplicaPool    which server                                 `flip_plugin.judge.replicas`
         -> send           one HTTP request                             `flip_plugin.judge.http_request`

The time for a question runs from its first request; waiting for a free slot is not on the clock. All questions of a
process run on one loop in a background thread, so that no caller's loop waits for LiteLLM's Python; any loop or
thread may ask.

A client holds no loop, lock or connection of its own until it is used, so that it can be pickled into another process.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from flip_plugin.judge.cache import ReplyCache
from flip_plugin.judge.errors import Failure
from flip_plugin.judge.event_loop import allow_blocking_calls, in_worker, judge_loop, on_judge_loop
from flip_plugin.judge.http_request import send, sendable
from flip_plugin.judge.litellm_setup import free_of_charge, import_litellm, imported
from flip_plugin.judge.replicas import Replica, ReplicaPool, percentiles
from flip_plugin.judge.reply import JudgeReply
from flip_plugin.judge.retries import Question
from flip_plugin.judge.tokens import TokenCounter

Messages = Sequence[dict[str, Any]]

#: The start of a model's name: a vLLM server of one's own.
HOSTED = "hosted_vllm/"
#: The start of a model's name: one that this package runs itself (`flip_plugin.evals.judges.offline`).
OFFLINE = "vllm:"


class JudgeClient:
    """A judge model behind one or more servers. See the module's text for its promises.

    `api_base`: a URL (commas separate several), a list of them, or None: then
    ``HOSTED_VLLM_API_BASE`` for ``hosted_vllm/`` models, and LiteLLM's own choice for
    others. `timeout` is in seconds, for a question with its retries; `max_attempts=None`
    tries until then. `max_concurrency` bounds the requests in flight from this process.
    `thinking=False` asks a vLLM server's chat template not to think. `extra_body` is added
    to the request's body. `record` is called with (messages, reply) after every call.
    Raises ValueError for a number out of range, an `api_base` that is no URL, a `cache_path` that is no cache.
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
        max_attempts: int | None = 4,
        seed: int | None = None,
        thinking: bool = False,
        extra_body: dict[str, Any] | None = None,
        cache_path: str | os.PathLike[str] | None = None,
        record: Callable[[Messages, JudgeReply], None] | None = None,
    ) -> None:
        if (max_attempts is not None and max_attempts < 1) or max_concurrency < 1 or timeout <= 0:
            raise ValueError("max_attempts and max_concurrency must be at least 1, and timeout above 0")
        self.model = model
        self.api_bases = _split_bases(api_base) or self._bases_from_environment(model)
        for base in self.api_bases:
            if not str(base).startswith(("http://", "https://")):
                raise ValueError(f"the judge's address {base!r} is no URL: it must look like http://127.0.0.1:8000/v1")
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
        if self.cache_path:
            self._open_cache()  # a path of no use is an error here, not in the middle of a run

    def _reset(self) -> None:
        self._state: OnLoop | None = None
        self._cache: ReplyCache | None = None
        self._counts: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=10_000)

    def __getstate__(self) -> dict[str, Any]:
        left = ("_state", "_cache", "_counts", "_latencies")
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
        if not self.thinking and self.model.startswith((HOSTED, OFFLINE)):
            kwargs = {"enable_thinking": False, **body.get("chat_template_kwargs", {})}
            body["chat_template_kwargs"] = kwargs
        sampling = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        if self.seed is not None:
            sampling["seed"] = self.seed
        return {**sampling, "extra_body": body} if body else sampling

    def set_api_bases(self, api_base: str | list[str]) -> None:
        """Ask these servers from now on. Requests under way end where they are. Raises ValueError for none."""
        bases = _split_bases(api_base)
        if not bases:
            raise ValueError("set_api_bases needs at least one URL")
        self.api_bases = bases
        state = self._state
        if state is not None and state.pid == os.getpid():
            judge_loop().call_soon_threadsafe(state.pool.set_urls, self.api_bases)

    async def complete(
        self, messages: Messages, *, response_format: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> JudgeReply:
        """Ask once. A judge's failure comes back as `error` and `error_kind`, not as an exception.

        `seed` is for this request alone, in place of the client's.
        """
        reply = await on_judge_loop(self._complete(messages, response_format, seed))
        if self.record is not None:
            self.record(messages, reply)
        return reply

    async def window(self, messages: Messages) -> int | None:
        """The longest prompt with reply that the judge's vLLM server takes, in tokens; None when it does not say."""
        await self.count_tokens(messages)
        return self._state.tokens.window if self._state else None

    async def count_tokens(self, messages: Messages) -> int | None:
        """Tokens of `messages` as the judge's vLLM server counts them, ready for its reply.

        None when it cannot say: other providers, servers without ``/tokenize``, errors.
        """
        return await on_judge_loop(self._count_tokens(messages))

    async def _count_tokens(self, messages: Messages) -> int | None:
        state = self._on_loop()
        up = [replica.url for replica in state.pool.replicas if not replica.down and replica.url]
        if not up:
            return None
        template = self.sampling.get("extra_body", {}).get("chat_template_kwargs", {})
        async with state.slots:
            return await state.tokens.count(random.choice(up), [sendable(turn) for turn in messages], template)

    async def _complete(
        self, messages: Messages, response_format: Mapping[str, Any] | None, seed: int | None
    ) -> JudgeReply:
        """`complete` on the judge's loop."""
        body = {"model": self.model, "messages": [sendable(turn) for turn in messages], **self.sampling}
        if seed is not None:
            body["seed"] = seed
        if response_format is not None:
            body["response_format"] = dict(response_format)
        if self.cache_path is None:
            reply = await self._ask_in_turn(body)
        elif self.temperature == 0:
            reply = await self._ask_once_for_all(body)
        else:
            reply = await self._from_cache(body) or await self._into_cache(body)
        self._count(reply)
        return reply

    async def _ask_once_for_all(self, body: dict[str, Any]) -> JudgeReply:
        """From the cache, or from the same question that is under way, or asked."""
        shared, key = self._on_loop().shared, ReplyCache.key(body)
        while (under_way := shared.get(key)) is not None:
            reply = await asyncio.shield(under_way)
            if reply is not None:  # else whoever asked was cancelled
                return replace(reply, cached=reply.error is None, attempts=0, seconds=0.0)
        shared[key] = asyncio.get_running_loop().create_future()
        reply = None
        try:
            reply = await self._from_cache(body) or await self._into_cache(body)
            return reply
        finally:
            shared.pop(key).set_result(reply)

    async def _ask_in_turn(self, body: dict[str, Any]) -> JudgeReply:
        """Ask when one of the `max_concurrency` slots is free."""
        async with self._on_loop().slots:
            self._counts["in_flight"] += 1
            try:
                return await self._ask(body)
            finally:
                self._counts["in_flight"] -= 1

    async def _ask(self, body: dict[str, Any]) -> JudgeReply:
        """Ask until there is an answer, or no more time."""
        pool = self._on_loop().pool
        if not pool.replicas:
            text = f"no server for {self.model!r}: give api_base or set HOSTED_VLLM_API_BASE"
            return JudgeReply(error=text, error_kind="bad_request")
        if not imported():
            await in_worker(import_litellm)
        if self.model.startswith(HOSTED):
            free_of_charge(self.model)

        async def send_to(replica: Replica, deadline: float) -> JudgeReply | Failure:
            return await send(body, replica.url, api_key=self._api_key, timeout=self.timeout, deadline=deadline)

        return await Question(pool, send_to, timeout=self.timeout, max_attempts=self.max_attempts).answer()

    def stats(self) -> dict[str, Any]:
        """Counters since the start (or unpickling) and latency percentiles in seconds.

        Keys: calls, ok, cached, retries, in_flight, prompt_tokens, completion_tokens,
        ``error_<kind>`` for kinds that occurred, cache_errors, seconds_p50/p90/p99/max of calls that went
        well, and `replicas`: the same by server and request (`ReplicaPool.stats`).
        """
        numbers: dict[str, Any] = dict.fromkeys(
            ("calls", "ok", "cached", "retries", "in_flight", "prompt_tokens", "completion_tokens"), 0
        )
        numbers.update(self._counts)
        numbers.update(percentiles(self._latencies))
        numbers["replicas"] = self._state.pool.stats() if self._state else {}
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

    def _on_loop(self) -> OnLoop:
        """What this client has on the judge's loop of this process; a fork makes its own."""
        state = self._state
        if state is None or state.pid != os.getpid() or (not state.pool.replicas and self._servers()):
            state = self._state = self._make_state()
        return state

    def _make_state(self) -> OnLoop:
        if not self.model.startswith((HOSTED, "openai/")):
            allow_blocking_calls()
        slots = asyncio.Semaphore(self.max_concurrency)
        return OnLoop(os.getpid(), slots, ReplicaPool(self._servers()), TokenCounter(self.model, self._api_key))

    def _servers(self) -> list[str | None]:
        """The URLs to ask, where the environment may have them by now; None is LiteLLM's own choice."""
        bases = self.api_bases or self._bases_from_environment(self.model)
        return bases if bases or self.model.startswith(HOSTED) else [None]

    async def _from_cache(self, body: dict[str, Any]) -> JudgeReply | None:
        try:
            found = await in_worker(lambda: self._open_cache().get(body))
        except sqlite3.Error:  # a full disk, a file that went away: the judge can still be asked
            self._counts["cache_errors"] += 1
            return None
        return replace(JudgeReply(**found), cached=True, attempts=0, seconds=0.0) if found else None

    async def _into_cache(self, body: dict[str, Any]) -> JudgeReply:
        reply = await self._ask_in_turn(body)
        if reply.error is None and reply.text:
            try:
                await in_worker(lambda: self._open_cache().put(body, asdict(reply)))
            except sqlite3.Error:
                self._counts["cache_errors"] += 1
        return reply

    def _open_cache(self) -> ReplyCache:
        # A forked child must not go on with its parent's connection.
        if self._cache is None or self._cache.pid != os.getpid():
            assert self.cache_path is not None
            self._cache = ReplyCache(self.cache_path)
        return self._cache

    @staticmethod
    def _bases_from_environment(model: str) -> list[str | None]:
        return _split_bases(os.environ.get("HOSTED_VLLM_API_BASE")) if model.startswith(HOSTED) else []


@dataclass
class OnLoop:
    """What a client has on the judge's loop of one process.

    `slots` bounds the questions in flight; `shared` has those under way that others wait for, by key of the cache.
    """

    pid: int
    slots: asyncio.Semaphore
    pool: ReplicaPool
    tokens: TokenCounter
    shared: dict[str, asyncio.Future[JudgeReply | None]] = field(default_factory=dict)


def _split_bases(api_base: str | list[str] | None) -> list[str | None]:
    parts = api_base.split(",") if isinstance(api_base, str) else api_base or []
    return [part.strip().rstrip("/") for part in parts if part.strip()]
