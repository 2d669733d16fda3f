"""`JudgeClient`: one question to a judge model in, one `JudgeReply` out; it does not raise.

Every request goes through ``litellm.acompletion``, so a judge is any model name that
LiteLLM knows; ``hosted_vllm/NAME`` is a vLLM server of one's own. On top of it:

- all calls of a process run on one loop in a background thread (`flip_plugin.judge.event_loop`), so that no
  caller's loop waits for LiteLLM's Python; any loop or thread may ask;
- a bound on requests in flight, and the least busy of several servers for each; one that cannot
  be reached is left out and taken back (`flip_plugin.judge.replicas`);
- one deadline a call (its retries included, waiting for a free slot not), and
  retries with jitter for what may pass: timeout, connection, 429, 5xx. A 4xx is
  the request's own fault and is sent once (`flip_plugin.judge.errors`);
- an optional cache on disk, and counters.

A client holds no loop, lock or connection of its own until it is used, so that it
can be pickled into another process.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from flip_plugin.judge.cache import ReplyCache
from flip_plugin.judge.errors import RETRIED, Failure, classify, error_kind
from flip_plugin.judge.event_loop import allow_blocking_calls, in_worker, judge_loop, on_judge_loop, run_sync
from flip_plugin.judge.litellm_setup import free_of_charge, import_litellm, imported, unlogged
from flip_plugin.judge.replicas import Replica, ReplicaPool, percentiles
from flip_plugin.judge.reply import JudgeReply, read_reply
from flip_plugin.judge.tokens import TokenCounter

__all__ = ["RETRIED", "JudgeClient", "JudgeReply", "Messages", "error_kind", "import_litellm", "run_sync"]

Messages = Sequence[dict[str, Any]]

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0
# Of a call's first request LiteLLM's own time-out comes first, and says what it waited for; ours ends all others.
GRACE_S = 0.1
HOSTED = "hosted_vllm/"
# Models that this package runs itself (`flip_plugin.evals.judges.offline`).
OFFLINE = "vllm:"


class JudgeClient:
    """A judge model behind one or more servers. See the module's text for its promises.

    `api_base`: a URL (commas separate several), a list of them, or None: then
    ``HOSTED_VLLM_API_BASE`` for ``hosted_vllm/`` models, and LiteLLM's own choice for
    others. `timeout` is in seconds, for a call with its retries; `max_attempts=None`
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
        self._state: _State | None = None
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
        state = self._get_state()
        up = [replica.url for replica in state.pool.replicas if not replica.down and replica.url]
        if not up:
            return None
        template = self.sampling.get("extra_body", {}).get("chat_template_kwargs", {})
        async with state.slots:
            return await state.tokens.count(random.choice(up), [sendable(turn) for turn in messages], template)

    async def _complete(
        self, messages: Messages, response_format: Mapping[str, Any] | None, seed: int | None
    ) -> JudgeReply:
        request = {"model": self.model, "messages": [sendable(turn) for turn in messages], **self.sampling}
        if seed is not None:
            request["seed"] = seed
        if response_format is not None:
            request["response_format"] = dict(response_format)
        state = self._get_state()
        if self.cache_path is None:
            reply = await self._in_turn(request, state)
        elif self.temperature == 0:
            reply = await self._shared(request, state)
        else:
            reply = await self._from_cache(request) or await self._into_cache(request, state)
        self._count(reply)
        return reply

    async def _in_turn(self, request: dict[str, Any], state: _State) -> JudgeReply:
        async with state.slots:
            self._counts["in_flight"] += 1
            try:
                return await self._ask(request, state.pool)
            finally:
                self._counts["in_flight"] -= 1

    async def _shared(self, request: dict[str, Any], state: _State) -> JudgeReply:
        """From the cache, or from a like request that is under way, or asked."""
        key = ReplyCache.key(request)
        while (under_way := state.shared.get(key)) is not None:
            reply = await asyncio.shield(under_way)
            if reply is not None:  # else whoever asked was cancelled
                return replace(reply, cached=reply.error is None, attempts=0, seconds=0.0)
        state.shared[key] = asyncio.get_running_loop().create_future()
        reply = None
        try:
            reply = await self._from_cache(request) or await self._into_cache(request, state)
            return reply
        finally:
            state.shared.pop(key).set_result(reply)

    async def _ask(self, request: dict[str, Any], pool: ReplicaPool) -> JudgeReply:
        if not pool.replicas:
            text = f"no server for {self.model!r}: give api_base or set HOSTED_VLLM_API_BASE"
            return JudgeReply(error=text, error_kind="bad_request")
        if not imported():
            await in_worker(import_litellm)
        if self.model.startswith(HOSTED):
            free_of_charge(self.model)
        started = time.monotonic()
        deadline = started + self.timeout
        sent = tries = 0
        outage, failure, last = pool.outage, pool.last_outage, None
        while True:
            replica = pool.take(avoid=last)
            if replica is None:
                outage = min(outage, pool.outage)
                # A server that has answered before is most likely being restarted: it is waited for.
                hopeless = not pool.has_answered and self._tried_enough(tries + pool.outage - outage)
                if hopeless or time.monotonic() >= deadline:
                    break
                await pool.wait(deadline - time.monotonic())
                failure = pool.last_outage
                continue
            sent, last, began = sent + 1, replica, time.monotonic()
            # A call that tries one that was gone keeps time for another: it may still be gone.
            until = began + (deadline - began) / 2 if replica.trying and pool.idle_other(replica) else deadline
            try:
                outcome = await self._send(request, replica, until)
                if isinstance(outcome, JudgeReply):
                    seconds = time.monotonic() - started
                    pool.worked(replica, outcome.seconds)
                    return replace(outcome, seconds=seconds, attempts=sent)
                failure = outcome
                backoff = min(FIRST_PAUSE_S * 2.0 ** min(tries, 30), LONGEST_PAUSE_S) * random.uniform(0.5, 1.5)
                pool.failed(replica, failure, max(backoff, failure.retry_after or 0.0), FIRST_PAUSE_S, began)
            finally:
                pool.give_back(replica)
            if failure.kind not in RETRIED:
                break
            if failure.unreachable:
                continue  # to another at once, or to wait with all the others
            tries += 1
            # Elsewhere at once, or here after as long as the server asks for.
            elsewhere = failure.kind in ("rate_limit", "connection") and pool.idle_other(replica)
            pause = 0.0 if elsewhere else max(backoff, (failure.retry_after or 0.0) + 0.1 * backoff)
            if self._tried_enough(tries) or time.monotonic() + pause >= deadline:
                break
            await asyncio.sleep(pause)
        assert failure is not None
        return JudgeReply(
            seconds=time.monotonic() - started,
            attempts=sent,
            api_base=last.url if last else None,
            error=failure.text,
            error_kind=failure.kind,
        )

    def _tried_enough(self, tries: int) -> bool:
        return self.max_attempts is not None and tries >= self.max_attempts

    async def _send(self, request: dict[str, Any], replica: Replica, deadline: float) -> JudgeReply | Failure:
        """One request. What LiteLLM raises derives from OpenAI's error, whatever the server did."""
        from openai import OpenAIError

        litellm, sent = import_litellm(), time.monotonic()
        left = max(deadline - sent, 0.001)
        try:
            # LiteLLM's own timeout is per read; a server that trickles would outlive it. And it must be the same for
            # all calls: older LiteLLMs keep a client, with its connections, for each value that they have seen.
            async with asyncio.timeout(left + GRACE_S):
                with unlogged():
                    raw = await litellm.acompletion(
                        **request,
                        api_base=replica.url,
                        api_key=self._api_key,
                        timeout=self.timeout,
                        num_retries=0,
                        max_retries=0,
                        drop_params=True,
                    )
        except (OpenAIError, TimeoutError, OSError) as error:
            return classify(error, timeout=self.timeout, keys=[self._api_key])
        return read_reply(raw, time.monotonic() - sent, replica.url)

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

    def _get_state(self) -> _State:
        if self._state is None or self._state.pid != os.getpid() or not self._state.pool.replicas:
            bases = self.api_bases or self._bases_from_environment(self.model)
            if not bases and not self.model.startswith(HOSTED):
                bases = [None]
            if not self.model.startswith((HOSTED, "openai/")):
                allow_blocking_calls()
            slots = asyncio.Semaphore(self.max_concurrency)
            self._state = _State(os.getpid(), slots, ReplicaPool(bases), TokenCounter(self.model, self._api_key))
        return self._state

    async def _from_cache(self, request: dict[str, Any]) -> JudgeReply | None:
        try:
            found = await in_worker(lambda: self._open_cache().get(request))
        except sqlite3.Error:  # a full disk, a file that went away: the judge can still be asked
            self._counts["cache_errors"] += 1
            return None
        return replace(JudgeReply(**found), cached=True, attempts=0, seconds=0.0) if found else None

    async def _into_cache(self, request: dict[str, Any], state: _State) -> JudgeReply:
        reply = await self._in_turn(request, state)
        if reply.error is None and reply.text:
            try:
                await in_worker(lambda: self._open_cache().put(request, asdict(reply)))
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
class _State:
    """What a client has on the judge's loop of one process."""

    pid: int
    slots: asyncio.Semaphore
    pool: ReplicaPool
    tokens: TokenCounter
    shared: dict[str, asyncio.Future[JudgeReply | None]] = field(default_factory=dict)


def sendable(turn: dict[str, Any]) -> dict[str, Any]:
    """The message without lone surrogates, which no HTTP body can hold."""
    content = turn.get("content")
    if not isinstance(content, str) or content.isascii():
        return dict(turn)
    return {**turn, "content": content.encode("utf-8", "replace").decode("utf-8")}


def _split_bases(api_base: str | list[str] | None) -> list[str | None]:
    parts = api_base.split(",") if isinstance(api_base, str) else api_base or []
    return [part.strip().rstrip("/") for part in parts if part.strip()]
