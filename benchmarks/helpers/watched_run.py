"""Run a training command and read the clock and the CPU time of its processes between two of its steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from helpers.run_processes import TAG, processes

#: What both trainers print when a step is over.
STEP = re.compile(r"step\s+(\d+)/\d+")
#: Seconds of silence after which a run is taken to hang.
LONGEST_SILENCE = 240.0


class RunFailed(RuntimeError):
    """The command ended early, hung or failed; the text holds the end of its log."""


#: pid: (role, CPU seconds so far)
Processes = dict[int, tuple[str, float]]


@dataclass
class Watched:
    """What was read between step `first` and step `last`.

    Seconds of each step; CPU seconds a step by role, of the judge's server, and of everything else on the machine
    (above a tenth of a core the figures are disturbed).
    """

    first: int
    last: int
    step_seconds: list[float] = field(default_factory=list)
    cpu_by_role: dict[str, float] = field(default_factory=dict)
    judge_cpu: float = 0.0
    foreign_cpu: float = 0.0

    @property
    def seconds(self) -> float:
        """Mean seconds a step: what throughput follows from."""
        return sum(self.step_seconds) / len(self.step_seconds)


@dataclass(frozen=True)
class Mark:
    """What was read when a step was over; seconds."""

    clock: float
    processes: Processes
    judge: float
    machine: float


def cpu_of_machine() -> float:
    """CPU seconds so far of everything on this machine, time stolen by other machines included."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def cpu_of_tree(pid: int | None) -> float:
    """CPU seconds so far of a process and all of its descendants; 0 for None."""
    if pid is None:
        return 0.0
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def watch(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    first: int,
    last: int,
    judge_pid: int | None,
    at_first: Callable[[Processes], None] | None = None,
    silence: float = LONGEST_SILENCE,
) -> Watched:
    """Run `command` to its end and return what was read between its steps `first` and `last`.

    `at_first` gets the processes when the measured steps begin. Raises `RunFailed`.
    """
    tag = uuid.uuid4().hex
    marks: dict[int, Mark] = {}
    times: dict[int, float] = {}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as errors:
        child = subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **env, TAG: tag},
            start_new_session=True,
        )
        guard = _Guard(child, silence)
        assert child.stdout
        try:
            for line in child.stdout:
                guard.heard()
                errors.write(line)
                found = STEP.match(line)
                if not found:
                    continue
                number = int(found[1])
                times[number] = time.perf_counter()
                if number in (first, last):
                    marks[number] = Mark(times[number], processes(tag), cpu_of_tree(judge_pid), cpu_of_machine())
                if number == first and at_first is not None:
                    at_first(marks[first].processes)
            code = child.wait()
        finally:
            guard.stop()
            _end(child, tag)
    if code or len(marks) < 2:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RunFailed(f"the run ended with code {code} after {len(times)} of {last} steps; {log} ends with:\n{tail}")
    return _between(first, last, times, marks)


def _between(first: int, last: int, times: dict[int, float], marks: dict[int, Mark]) -> Watched:
    before, after, steps = marks[first], marks[last], last - first
    watched = Watched(first, last, judge_cpu=(after.judge - before.judge) / steps)
    watched.step_seconds = [times[n + 1] - times[n] for n in range(first, last)]
    for pid, (role, seconds) in after.processes.items():
        used = (seconds - before.processes.get(pid, ("", 0.0))[1]) / steps
        watched.cpu_by_role[role] = watched.cpu_by_role.get(role, 0.0) + used
    ours = sum(watched.cpu_by_role.values()) + watched.judge_cpu
    watched.foreign_cpu = max((after.machine - before.machine) / steps - ours, 0.0)
    return watched


class _Guard:
    """Ends a child that says nothing for too long, so that a hung run cannot hold up the benchmark."""

    def __init__(self, child: subprocess.Popen[str], silence: float) -> None:
        self._silence = silence
        self._child, self._last, self._over = child, time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def heard(self) -> None:
        """The child has said something."""
        self._last = time.monotonic()

    def stop(self) -> None:
        """No more watching."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(5.0):
            if time.monotonic() - self._last > self._silence:
                print(f"no step for {self._silence:.0f} s: the run is ended", file=sys.stderr)
                self._child.terminate()
                if not self._over.wait(20.0):
                    self._child.kill()
                return


def _end(child: subprocess.Popen[str], tag: str) -> None:
    """End the child and whatever carries its tag: nothing of one round may run during the next."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
    left = [psutil.Process(pid) for pid in processes(tag) if psutil.pid_exists(pid)]
    for process in left:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    for process in psutil.wait_procs(left, timeout=10)[1]:
        process.kill()


def profile(folder: Path, found: Processes, seconds: int = 15) -> None:
    """Sample the stacks of every busy process of a run with py-spy: ROLE_PID.txt, a stack with its count a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for pid, (role, used) in found.items():
        if used < 2.0:
            continue
        name = "".join(c if c.isalnum() else "_" for c in role)[:40]
        subprocess.Popen(
            [
                str(Path(sys.executable).parent / "py-spy"),
                "record",
                "--pid",
                str(pid),
                "--duration",
                str(seconds),
                "--rate",
                "50",
                "--format",
                "raw",
                "--threads",
                "--output",
                str(folder / f"{name}_{pid}.txt"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
