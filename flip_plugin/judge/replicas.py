"""The servers of one judge: which to ask next, and when to ask one again that was gone.

A replica is *up*, *busy* or *down*. Busy ones (they answered 429 or 5xx, or not in time) are used when no other is
up. A replica that cannot be reached is down: it rests, then one single question tries it; the rest doubles with every
failure, and the first answer brings it back. While all are down the questions wait, and do not each try in turn.

For each request `flip_plugin.judge.retries` calls `take`, then `worked` or `failed`, then `give_back`.

Not safe between threads: everything here runs on the judge's loop (see `flip_plugin.judge.event_loop`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from flip_plugin.judge.errors import Failure

# Seconds between two tries at a replica that is down, at most.
LONGEST_REST_S = 10.0


@dataclass(eq=False)
class Replica:
    """One server. Times are of the monotonic clock, in seconds."""

    url: str | None
    outstanding: int = 0  # requests under way
    down: bool = False
    next_try: float = 0.0  # when it may be tried, while it is down
    trying: bool = False  # down, and a question is trying it right now
    failures: int = 0  # tries in a row without an answer
    busy_until: float = 0.0
    last_answer: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))


class ReplicaPool:
    """The replicas behind `urls`; None as a URL is LiteLLM's own choice of server."""

    def __init__(self, urls: Sequence[str | None]) -> None:
        self.replicas = [Replica(url) for url in urls]
        self.last_outage: Failure | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    def set_urls(self, urls: Sequence[str | None]) -> None:
        """Other servers from now on; those that stay keep what is known of them."""
        known = {replica.url: replica for replica in self.replicas}
        self.replicas = [known.get(url) or Replica(url) for url in urls]
        self._wake()

    @property
    def outage(self) -> int:
        """0 while any replica is up, else how often the one with the fewest failures was tried in vain."""
        return min((replica.failures for replica in self.replicas), default=0)

    @property
    def has_answered(self) -> bool:
        """True when any of the replicas has ever answered."""
        return any(replica.last_answer for replica in self.replicas)

    def take(self, avoid: Replica | None = None) -> Replica | None:
        """A replica for one request, to be given back; None when all are down and none is due for a try."""
        now = time.monotonic()
        up = [r for r in self.replicas if not r.down]
        # A question that has just tried one in vain leaves the next try to another, and gets an answer elsewhere.
        may_try = [r for r in self.replicas if r is not avoid or not up]
        due = [r for r in may_try if r.down and not r.trying and r.next_try <= now]
        if due:
            chosen = min(due, key=lambda replica: replica.next_try)
            chosen.trying = True
        elif up:
            idle = [r for r in up if r.busy_until <= now]
            others = [r for r in idle if r is not avoid] or [r for r in up if r is not avoid]
            chosen = min(others or up, key=lambda replica: (replica.outstanding, random.random()))
        else:
            return None
        chosen.outstanding += 1
        return chosen

    def give_back(self, replica: Replica) -> None:
        """The request is over, however it ended. `worked` or `failed` come before, if at all."""
        replica.outstanding -= 1
        if replica.trying:  # cancelled: somebody else may try
            replica.trying = False
            self._wake()

    def worked(self, replica: Replica, seconds: float) -> None:
        """The replica answered after `seconds`."""
        replica.counts["ok"] += 1
        replica.latencies.append(seconds)
        self._mark_up(replica)
        replica.busy_until = 0.0

    def failed(self, replica: Replica, failure: Failure, pause: float, first_rest: float, sent: float = 0.0) -> None:
        """A request failed. `pause`: seconds to prefer others for; `first_rest`: before the first try of one down."""
        replica.counts[f"error_{failure.kind}"] += 1
        # One that accepts and says nothing at all is as good as gone.
        silent = failure.ran_out and replica.last_answer < sent
        no_answer = failure.unreachable or silent
        if not no_answer:
            self._mark_up(replica)
            if failure.kind in ("rate_limit", "server", "timeout"):
                replica.busy_until = time.monotonic() + pause
        elif replica.trying or not replica.down:  # of a burst that was under way, the first counts
            self.last_outage = failure
            replica.failures += 1
            replica.down, replica.trying = True, False
            rest = min(first_rest * 2.0 ** min(replica.failures - 1, 30), LONGEST_REST_S)
            replica.next_try = time.monotonic() + rest * random.uniform(0.5, 1.5)
            self._wake()

    def idle_other(self, replica: Replica) -> bool:
        """True when a replica other than this one is up and not busy."""
        now = time.monotonic()
        return any(not r.down and r.busy_until <= now for r in self.replicas if r is not replica)

    async def wait(self, seconds: float) -> None:
        """Wait until it may be worth calling `take` again, at most `seconds`."""
        tries = [r.next_try for r in self.replicas if r.down and not r.trying]
        left = min([seconds, *(at - time.monotonic() for at in tries)])
        if left <= 0 and seconds > 0:
            return
        woken = asyncio.get_running_loop().create_future()
        self._waiting.add(woken)
        try:
            await asyncio.wait([woken], timeout=max(left, 0.0))
        finally:
            self._waiting.discard(woken)

    def stats(self) -> dict[str, dict[str, float | None]]:
        """Per server: requests that went well and wrong, in flight, down, latency percentiles in seconds."""
        return {
            replica.url or "default": {
                "ok": 0,
                **replica.counts,
                "in_flight": replica.outstanding,
                "down": int(replica.down),
                **percentiles(replica.latencies),
            }
            for replica in self.replicas
        }

    def _mark_up(self, replica: Replica) -> None:
        if replica.down:
            replica.down = replica.trying = False
            self._wake()
        replica.failures = 0
        replica.last_answer = time.monotonic()

    def _wake(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)


def percentiles(seconds: deque[float]) -> dict[str, float | None]:
    """``seconds_p50``, ``_p90``, ``_p99`` and ``_max`` of latencies; None where there are none."""
    ranked = sorted(seconds.copy())
    shares = {"seconds_p50": 0.5, "seconds_p90": 0.9, "seconds_p99": 0.99, "seconds_max": 1.0}
    return {
        name: ranked[min(int(share * len(ranked)), len(ranked) - 1)] if ranked else None
        for name, share in shares.items()
    }
