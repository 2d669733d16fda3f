"""One event loop for a process's judge calls, in a background thread.

A LiteLLM call costs milliseconds of Python, and importing LiteLLM seconds. The caller's
loop may drive an engine or a trainer, so none of that runs on it: it only waits. LiteLLM pools connections per
loop, so one long-lived loop also keeps them open between calls, whatever loops come and go.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_running: tuple[int, asyncio.AbstractEventLoop] | None = None
_workers: tuple[int, ThreadPoolExecutor] | None = None
_wide = False
_lock = threading.Lock()
_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Bridge] = weakref.WeakKeyDictionary()


def judge_loop() -> asyncio.AbstractEventLoop:
    """This process's loop for judge calls, started when first asked for. A fork starts its own."""
    global _running, _wide
    with _lock:
        if _running is None or _running[0] != os.getpid():
            _wide = False
            loop = asyncio.new_event_loop()
            loop.set_default_executor(ThreadPoolExecutor(1, "flip-litellm"))
            thread = threading.Thread(target=loop.run_forever, name="flip-judge", daemon=True)
            thread.start()
            _running = (os.getpid(), loop)
            atexit.register(_wind_down, os.getpid(), loop, thread)
        return _running[1]


def allow_blocking_calls() -> None:
    """Let LiteLLM's threads block for long: some of its providers know no other way.

    Called on the judge's loop. LiteLLM prepares each call in a thread of the loop's pool. One
    thread does for that, and more would all compete with the callers' loops for the interpreter.
    """
    global _wide
    if not _wide:
        _wide = True
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32, "flip-litellm"))


async def in_worker(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` in a thread; for slow work of ours, next to LiteLLM's single thread."""
    global _workers
    if _workers is None or _workers[0] != os.getpid():
        _workers = (os.getpid(), ThreadPoolExecutor(4, "flip-worker"))
    return await asyncio.get_running_loop().run_in_executor(_workers[1], function, *arguments)


async def on_judge_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await the coroutine on the judge's loop; cancelling this cancels it."""
    loop, here = judge_loop(), asyncio.get_running_loop()
    if here is loop:
        return await coroutine
    bridge = _bridges.get(here)
    if bridge is None or bridge.there is not loop:
        with _lock:
            bridge = _bridges[here] = _Bridge(here, loop)
    return await bridge.send(coroutine)


class _Bridge:
    """From one loop to the judge's and back, a batch at a time.

    Waking the other loop is a system call, and after each the thread queues for the interpreter
    lock behind the judge's thread, 5 ms at worst: 256 calls that start at once would hold up their
    loop for a second. So what gathers during one turn of a loop crosses together.
    """

    def __init__(self, here: asyncio.AbstractEventLoop, there: asyncio.AbstractEventLoop) -> None:
        self._here, self.there = weakref.ref(here), there
        self._leaving: list[_Errand] = []
        self._returning: list[_Errand] = []

    def send(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Called here: a future for the coroutine's result."""
        here = asyncio.get_running_loop()
        errand = _Errand(coroutine, here.create_future(), contextvars.copy_context())
        errand.future.add_done_callback(lambda future: self._cancel(errand) if future.cancelled() else None)
        if not self._leaving:
            here.call_soon(self._cross)
        self._leaving.append(errand)
        return errand.future

    def _cross(self) -> None:
        leaving, self._leaving = self._leaving, []
        self.there.call_soon_threadsafe(self._start, leaving)

    def _cancel(self, errand: _Errand) -> None:
        self.there.call_soon_threadsafe(errand.cancel)

    def _start(self, errands: list[_Errand]) -> None:
        for errand in errands:
            errand.start(self.there)
            assert errand.task is not None
            errand.task.add_done_callback(lambda _, errand=errand: self._finished(errand))

    def _finished(self, errand: _Errand) -> None:
        if not self._returning:
            self.there.call_soon(self._cross_back)
        self._returning.append(errand)

    def _cross_back(self) -> None:
        returning, self._returning = self._returning, []
        here = self._here()
        with contextlib.suppress(RuntimeError):  # that loop was closed: nobody waits
            if here is not None:
                here.call_soon_threadsafe(_deliver, returning)


@dataclass(eq=False)
class _Errand:
    """A coroutine for the judge's loop, and the future that its sender waits for."""

    coroutine: Coroutine[Any, Any, Any]
    future: asyncio.Future[Any]
    context: contextvars.Context
    task: asyncio.Task[Any] | None = None
    cancelled: bool = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.task = loop.create_task(self.coroutine, context=self.context)
        if self.cancelled:
            self.task.cancel()

    def cancel(self) -> None:
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()


def _deliver(errands: list[_Errand]) -> None:
    for errand in errands:
        future, task = errand.future, errand.task
        assert task is not None
        error = None if task.cancelled() else task.exception()
        if future.done():
            continue
        if task.cancelled():
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, waited for; also where an event loop is running already.

    Raises RuntimeError when called on the judge's own loop, where it would wait for itself.
    """
    loop = judge_loop()
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
    """End what still runs on the loop, and its connections, before the interpreter complains."""
    if pid != os.getpid():  # a fork inherits the hook, not the thread
        return

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2)
        litellm = sys.modules.get("litellm")
        if litellm is not None:
            await asyncio.wait_for(litellm.close_litellm_async_clients(), timeout=2)
        asyncio.get_running_loop().stop()

    asyncio.run_coroutine_threadsafe(end(), loop)
    thread.join(timeout=5)
    if not thread.is_alive():
        loop.close()
