"""Child processes that cannot outlive us: the kernel ends them when their parent dies.

A killed driver (``kill -9`` included) takes Ray's raylet and workers with it, but a worker's own
children, such as vLLM's engine core, would be left behind. Linux can tie a child's life to that
of its parent (``prctl(PR_SET_PDEATHSIG)``); elsewhere these functions do nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

#: Set in the environment of vLLM processes that we start; read by `open_instruct.vllm_plugin`.
DIE_WITH_PARENT = "FLIP_DIE_WITH_PARENT"

_PR_SET_PDEATHSIG = 1


def die_with_parent(sig: int = signal.SIGKILL) -> None:
    """Ask the kernel to send `sig` to this process when the thread that started it ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, sig, 0, 0, 0)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free on `host` a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def start_child(command: list[str], *, env: dict[str, str], log_path: Path) -> subprocess.Popen[bytes]:
    """Start `command` in a process group of its own, output appended to `log_path`.

    The kernel kills the child when the calling thread ends, so call this from a thread that stays.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )


def stop_child(child: subprocess.Popen[bytes], grace: float = 5.0) -> None:
    """End `child` and everything in its process group: politely, then after `grace` seconds by force."""
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sig)
        except ProcessLookupError:
            break
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            continue
    child.wait(grace)


def tail(path: Path, lines: int = 20) -> str:
    """The last `lines` lines of a log, or an empty string where there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
