"""Asking until the judge answers: what is sent again, to which server, and after what pause.

A question has one deadline for all its requests. Each round takes a server from the `ReplicaPool` and sends one
request; how that ends decides what comes next:

- an answer: done;
- a 4xx: the request's own fault, given up at once (`flip_plugin.judge.errors` decides what is what);
- 429, 5xx, a time-out, a connection that broke: one of `max_attempts` is used up; then again, at once where another
  server is idle, else after a pause that doubles each time, or as long as the server's ``Retry-After`` says;
- nobody at the address: this counts for the server (it is *down*, see `flip_plugin.judge.replicas`), not for the
  question, which goes to another server at once.

While all servers are down, a question waits: until one is back, or its deadline. It does not wait for servers that
have never answered: those are tried `max_attempts` times, then the address is taken to be wrong.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from flip_plugin.judge.errors import RETRIED, Failure
from flip_plugin.judge.replicas import Replica, ReplicaPool
from flip_plugin.judge.reply import JudgeReply

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0

#: Sends one request to a server, which has to be over at a time of the monotonic clock.
Send = Callable[[Replica, float], Awaitable[JudgeReply | Failure]]


class Question:
    """One question on its way to an answer. `timeout` is in seconds; `max_attempts=None` tries until then."""

    def __init__(self, pool: ReplicaPool, send: Send, *, timeout: float, max_attempts: int | None) -> None:
        self._pool = pool
        self._send = send
        self._max_attempts = max_attempts
        self._started = time.monotonic()
        self._deadline = self._started + timeout
        self._requests = 0
        self._used_attempts = 0
        self._last_asked: Replica | None = None
        self._failure = pool.last_outage
        # How often all servers had been tried in vain when this question was best off.
        self._outage = pool.outage

    async def answer(self) -> JudgeReply:
        """The judge's answer, or the last failure where it gave none; does not raise."""
        while True:
            replica = self._pool.take(avoid=self._last_asked)
            if replica is None:  # all are down
                if self._waits_in_vain():
                    return self._give_up()
                await self._pool.wait(self._deadline - time.monotonic())
                self._failure = self._pool.last_outage
                continue
            outcome, backoff = await self._ask(replica)
            if isinstance(outcome, JudgeReply):
                return replace(outcome, seconds=time.monotonic() - self._started, attempts=self._requests)
            self._failure = outcome
            pause = self._pause_before_next(outcome, replica, backoff)
            if pause is None:
                return self._give_up()
            await asyncio.sleep(pause)

    async def _ask(self, replica: Replica) -> tuple[JudgeReply | Failure, float]:
        """Send one request and tell the pool how it went; what came of it, and after a failure the pause in seconds."""
        self._requests += 1
        self._last_asked = replica
        began, backoff = time.monotonic(), 0.0
        try:
            outcome = await self._send(replica, self._end_of_request(replica, began))
            if isinstance(outcome, JudgeReply):
                self._pool.worked(replica, outcome.seconds)
            else:
                backoff = min(FIRST_PAUSE_S * 2.0 ** min(self._used_attempts, 30), LONGEST_PAUSE_S)
                backoff *= random.uniform(0.5, 1.5)
                busy_for = max(backoff, outcome.retry_after or 0.0)
                self._pool.failed(replica, outcome, busy_for, FIRST_PAUSE_S, began)
        finally:
            self._pool.give_back(replica)
        return outcome, backoff

    def _end_of_request(self, replica: Replica, began: float) -> float:
        """When this request has to be over: who tries a server that was gone keeps time to ask another."""
        if replica.trying and self._pool.idle_other(replica):
            return began + (self._deadline - began) / 2
        return self._deadline

    def _pause_before_next(self, failure: Failure, replica: Replica, backoff: float) -> float | None:
        """Seconds until the next request; None where the failure is final."""
        if failure.kind not in RETRIED:
            return None
        if failure.unreachable:
            return 0.0  # to another server, or to wait with all the other questions
        self._used_attempts += 1
        retry_after = failure.retry_after or 0.0
        elsewhere = failure.kind in ("rate_limit", "connection") and self._pool.idle_other(replica)
        # A little more than the server asks for, and not the same for all, so that they do not come back together.
        pause = 0.0 if elsewhere else max(backoff, retry_after + 0.1 * backoff)
        out_of_time = time.monotonic() + pause >= self._deadline
        return None if out_of_time or self._are_enough(self._used_attempts) else pause

    def _waits_in_vain(self) -> bool:
        """While all servers are down: whether the time is over, or none ever answered and all were tried often enough.

        A server that has answered before is most likely being restarted, and waited for.
        """
        self._outage = min(self._outage, self._pool.outage)
        tried_in_vain = self._used_attempts + self._pool.outage - self._outage
        never_there = not self._pool.has_answered and self._are_enough(tried_in_vain)
        return never_there or time.monotonic() >= self._deadline

    def _are_enough(self, attempts: int) -> bool:
        return self._max_attempts is not None and attempts >= self._max_attempts

    def _give_up(self) -> JudgeReply:
        assert self._failure is not None
        return JudgeReply(
            seconds=time.monotonic() - self._started,
            attempts=self._requests,
            api_base=self._last_asked.url if self._last_asked else None,
            error=self._failure.text,
            error_kind=self._failure.kind,
        )
