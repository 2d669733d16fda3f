"""One event loop for a process's judge calls, in a background thread.

Why not the caller's loop: a LiteLLM call costs milliseconds of Python, and importing LiteLLM seconds, while that loop
may drive an engine or a trainer. So it only waits. LiteLLM pools connections per loop, so one long-lived loop also
keeps them open between calls, whatever loops come and go.

`on_judge_loop` is for coroutines: it awaits one on the judge's loop. `run_sync` is for plain functions: it blocks.
`in_worker` runs slow work of ours in a thread, off both loops.

Why not ``asyncio.run_coroutine_threadsafe`` for the first: see `_Bridge`.
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

# Each with the process that made it: a fork inherits the variables, not the threads.
_running: tuple[int, asyncio.AbstractEventLoop] | None = None
_workers: tuple[int, ThreadPoolExecutor] | None = None
_has_many_threads = False
_lock = threading.Lock()
_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Bridge] = weakref.WeakKeyDictionary()


def judge_loop() -> asyncio.AbstractEventLoop:
    """This process's loop for judge calls, started when first asked for. A fork starts its own."""
    global _running, _has_many_threads
    with _lock:
        if _running is None or _running[0] != os.getpid():
            _has_many_threads = False
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
    global _has_many_threads
    if not _has_many_threads:
        _has_many_threads = True
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32, "flip-litellm"))


async def in_worker(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` in a thread; for slow work of ours, next to LiteLLM's single thread."""
    global _workers
    if _workers is None or _workers[0] != os.getpid():
        _workers = (os.getpid(), ThreadPoolExecutor(4, "flip-worker"))
    return await asyncio.get_running_loop().run_in_executor(_workers[1], function, *arguments)


async def on_judge_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await the coroutine on the judge's loop; cancelling this cancels it."""
    judges, callers = judge_loop(), asyncio.get_running_loop()
    if callers is judges:
        return await coroutine
    bridge = _bridges.get(callers)
    if bridge is None or bridge.judges is not judges:
        with _lock:
            bridge = _bridges[callers] = _Bridge(callers, judges)
    return await bridge.send(coroutine)


@dataclass(eq=False)
class _Job:
    """A coroutine for the judge's loop, its task there, and the future on the caller's loop that waits for it."""

    coroutine: Coroutine[Any, Any, Any]
    future: asyncio.Future[Any]
    context: contextvars.Context
    task: asyncio.Task[Any] | None = None
    cancelled: bool = False


class _Bridge:
    """From a caller's loop to the judge's and back, a batch at a time.

    Waking another loop is a system call, and after each the thread queues for the interpreter lock behind the
    judge's thread, 5 ms at worst: 256 calls that start at once would hold up their loop for a second. So what gathers
    during one turn of a loop crosses together. The way of a job:

    1. `send`, on the caller's loop: the job joins `_to_judge`; the first of a batch schedules 2.
    2. `_hand_over`: one wake-up takes the whole batch to the judge's loop.
    3. `_start`, on the judge's loop: a task for each job.
    4. `_task_ended`: the job joins `_to_caller`; the first of a batch schedules 5.
    5. `_hand_back`: one wake-up takes the batch to the caller's loop.
    6. `_deliver`, on the caller's loop: results and exceptions go into the futures.

    `_to_judge` is touched by the caller's thread alone, `_to_caller` by the judge's alone, so neither needs a lock.
    """

    def __init__(self, callers: asyncio.AbstractEventLoop, judges: asyncio.AbstractEventLoop) -> None:
        self._callers = weakref.ref(callers)  # bridges are kept by loop: this must not keep the loop alive
        self.judges = judges
        self._to_judge: list[_Job] = []
        self._to_caller: list[_Job] = []

    def send(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """On the caller's loop: a future for the coroutine's result; cancelling it cancels the coroutine."""
        loop = asyncio.get_running_loop()
        job = _Job(coroutine, loop.create_future(), contextvars.copy_context())
        job.future.add_done_callback(lambda future: self._cancel_on_judges_loop(job) if future.cancelled() else None)
        if not self._to_judge:
            loop.call_soon(self._hand_over)
        self._to_judge.append(job)
        return job.future

    def _hand_over(self) -> None:
        batch, self._to_judge = self._to_judge, []
        self.judges.call_soon_threadsafe(self._start, batch)

    def _cancel_on_judges_loop(self, job: _Job) -> None:
        self.judges.call_soon_threadsafe(self._cancel, job)

    def _start(self, batch: list[_Job]) -> None:
        for job in batch:
            job.task = self.judges.create_task(job.coroutine, context=job.context)
            if job.cancelled:
                job.task.cancel()
            job.task.add_done_callback(lambda _, job=job: self._task_ended(job))

    def _cancel(self, job: _Job) -> None:
        job.cancelled = True  # a job cancelled before it starts: `_start` sees to it
        if job.task is not None:
            job.task.cancel()

    def _task_ended(self, job: _Job) -> None:
        if not self._to_caller:
            self.judges.call_soon(self._hand_back)
        self._to_caller.append(job)

    def _hand_back(self) -> None:
        batch, self._to_caller = self._to_caller, []
        callers = self._callers()
        with contextlib.suppress(RuntimeError):  # that loop was closed: nobody waits
            if callers is not None:
                callers.call_soon_threadsafe(_deliver, batch)


def _deliver(batch: list[_Job]) -> None:
    for job in batch:
        future, task = job.future, job.task
        assert task is not None
        # Asked for even where nobody waits any more: asyncio complains of an exception that was never looked at.
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
