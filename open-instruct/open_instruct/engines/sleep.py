"""One GPU in turns: policy engine and judge sleep while the learner trains (`memory_plan.takes_turns`).

In vLLM's sleep mode, level 1, weights wait in main memory and the KV cache is dropped; waking takes the memory
again. It needs a GPU, so what is tested without one is who sleeps when.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from open_instruct.engines.pool import EnginePool

#: Seconds for a judge server to give its memory back, or take it.
PATIENCE_S = 120.0


class Turns:
    """Counts who uses engines and judge. `rest` lets the last of them finish and puts both to sleep."""

    def __init__(self, engines: EnginePool) -> None:
        self._engines, self._judges = engines, []
        self._users, self._idle = 0, asyncio.Event()
        self._idle.set()
        self._asleep = False

    def judged_by(self, urls: Sequence[str]) -> None:
        """Base URLs (``.../v1``) of the run's own judge servers, started with `ServerOptions.sleep_mode`."""
        self._judges = [url.removesuffix("/v1") for url in urls]

    @asynccontextmanager
    async def using(self) -> AsyncGenerator[None]:
        """Around whatever samples or judges."""
        self._users += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    async def rest(self) -> None:
        """Wait until nobody uses them, then put them to sleep."""
        await self._idle.wait()
        if not self._asleep:
            self._asleep = True
            await asyncio.gather(self._engines.sleep(), *self._ask_judges("/sleep?level=1"))

    async def wake(self) -> None:
        """Undo `rest`."""
        if self._asleep:
            await asyncio.gather(self._engines.wake_up(), *self._ask_judges("/wake_up"))
            self._asleep = False

    def _ask_judges(self, path: str) -> list[Coroutine[Any, Any, None]]:
        return [asyncio.to_thread(_post, url + path) for url in self._judges]


def _post(url: str) -> None:
    """Never by a proxy: the server is on this machine. Raises OSError when it does not do it."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method="POST")  # noqa: S310 - the run's own judge server, by http
    opener.open(request, timeout=PATIENCE_S).close()
