"""SIGTERM and Ctrl-C: the first asks the run to end its step and save, a second one ends it at once.

Slurm sends SIGTERM and, 30 s later by default, SIGKILL; `--stop_patience` is what the run takes of that.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self


class StopSignals:
    """Within the block a first signal sets `requested`; after `patience` seconds, or by a second, `error` is raised.

    Outside the main thread, where Python takes no signals, nothing is changed.
    """

    def __init__(self, patience: int) -> None:
        self._patience, self._signal = patience, 0
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._signal != 0

    def error(self) -> BaseException:
        """How the run ends: as it would without this block."""
        return KeyboardInterrupt() if self._signal == signal.SIGINT else SystemExit(128 + self._signal)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number, handler in (
                (signal.SIGINT, self._on_signal),
                (signal.SIGTERM, self._on_signal),
                (signal.SIGALRM, self._on_alarm),
            ):
                self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self._signal = self.requested, number
        if again or self._patience <= 0:
            raise self.error()
        signal.setitimer(signal.ITIMER_REAL, self._patience)
        # Not print: the signal may have come in the middle of one.
        os.write(2, f"stopping: at most {self._patience} s to save a state (again: at once)\n".encode())

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        raise self.error()
