"""Processes that check responses, from the caller's side: bounded in CPU time, memory and number.

A response can make a checker run for ever (a tower of powers, a regular expression without end), and a thread
cannot be stopped; so checks run in a few worker processes, and one that uses up its CPU time is replaced.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

# CPU seconds of one check: that of an ordinary answer takes milliseconds.
CPU_SECONDS = 5.0
# Wall seconds, the library's import included: met only where a worker gets no CPU at all.
WALL_SECONDS = 120.0


@dataclass(frozen=True)
class Reply:
    """`value` is what the check returned where `status` is "ok"; else `error` says what happened.

    status: ok, timeout, missing_library (`error` is the module's name), checker_error.
    """

    status: str
    value: Any = None
    error: str | None = None


class WorkerPool:
    """Up to `size` workers, each started by the first check that finds the others busy."""

    def __init__(self, size: int, cpu_seconds: float = CPU_SECONDS, wall_seconds: float = WALL_SECONDS) -> None:
        self.cpu_seconds, self.wall_seconds = cpu_seconds, wall_seconds
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="verifier")
        self._mine = threading.local()
        self._workers: list[_Worker] = []

    def submit(self, operation: str, **arguments: Any) -> Future[Reply]:
        """Start a check (an operation of `worker_process`); it waits its turn, not on the caller's thread."""
        return self._threads.submit(self._ask, operation, arguments)

    def call(self, operation: str, **arguments: Any) -> Reply:
        """The same, blocking."""
        return self.submit(operation, **arguments).result()

    def close(self) -> None:
        """End the workers; checks that wait are cancelled, those under way fail."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()

    def _ask(self, operation: str, arguments: dict[str, Any]) -> Reply:
        worker = getattr(self._mine, "worker", None)
        if worker is None:
            worker = self._mine.worker = _Worker()
            self._workers.append(worker)
        request = {"operation": operation, "arguments": arguments, "cpu_seconds": self.cpu_seconds}
        return worker.ask(json.dumps(request).encode() + b"\n", self.cpu_seconds, self.wall_seconds)


class _Worker:
    """One process, started when it is asked, and again after it was killed. For one thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, line: bytes, cpu_seconds: float, wall_seconds: float) -> Reply:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = _start()
        assert process.stdin and process.stdout
        try:
            _write(process.stdin.fileno(), line)
            reply = json.loads(_read_line(process.stdout.fileno(), wall_seconds))
        except TimeoutError:
            self.kill()
            return Reply("timeout", error=f"no reply within {wall_seconds:g} s")
        except (BrokenPipeError, EOFError):
            self.kill()
            if process.returncode == -signal.SIGPROF:
                return Reply("timeout", error=f"the check took more than {cpu_seconds:g} s of CPU")
            return Reply("checker_error", error=f"the checking process ended with code {process.returncode}")
        if "missing" in reply:
            return Reply("missing_library", error=reply["missing"])
        if "error" in reply:
            return Reply("checker_error", error=reply["error"])
        return Reply("ok", reply["value"])

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()  # does nothing to one that has ended by itself
            self._process.wait()


def _start() -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # whatever this process can import
        "LOCAL_RANK": "1",  # lm-eval fetches NLTK's data on rank 0, when it is imported
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-P", "-m", "flip_plugin.answers.worker_process"]
    # Unbuffered: nothing is left to be flushed into the pipe of a process that was killed.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment)


def _write(descriptor: int, line: bytes) -> None:
    sent = 0
    while sent < len(line):
        sent += os.write(descriptor, line[sent : sent + (1 << 16)])


def _read_line(descriptor: int, seconds: float) -> bytes:
    """Up to the next newline. TimeoutError, or EOFError where the other side has ended."""
    deadline, line = time.monotonic() + seconds, bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while not line.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            raise EOFError
        line += chunk
    return bytes(line)


_pool: tuple[int, WorkerPool] | None = None
_lock = threading.Lock()


def shared_pool() -> WorkerPool:
    """This process's pool: as many workers as cores, at most four."""
    global _pool
    with _lock:
        if _pool is None or _pool[0] != os.getpid():  # threads do not survive a fork
            _pool = os.getpid(), WorkerPool(min(4, os.cpu_count() or 1))
            atexit.register(_pool[1].close)
        return _pool[1]


def close_shared_pool() -> None:
    """End this process's workers; the next check starts new ones."""
    global _pool
    with _lock:
        if _pool is not None and _pool[0] == os.getpid():
            _pool[1].close()
        _pool = None
