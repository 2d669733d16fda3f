"""Child processes that cannot outlive us, and ports that stay ours.

A killed driver (``kill -9`` included) takes Ray's raylet and workers with it, but a worker's own
children, such as vLLM's engine core, would be left behind. Linux can tie a child's life to that
of its parent (``prctl(PR_SET_PDEATHSIG)``); elsewhere these functions do nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flip_plugin.serving.guard import PATIENCE_S, members

#: Set in the environment of vLLM processes that we start; read by `open_instruct.engines.vllm_plugin`.
DIE_WITH_PARENT = "FLIP_DIE_WITH_PARENT"

_PR_SET_PDEATHSIG = 1
#: `tail` reads no more than this from the end of a log, which may be large after days.
_TAIL_BYTES = 2**18


def die_with_parent(sig: int | None = None) -> None:
    """Ask the kernel to send `sig` (SIGKILL, if none is given) to this process when the thread that started it ends."""
    if sys.platform.startswith("linux"):
        sig = signal.SIGKILL if sig is None else sig  # not as a default: Windows, which imports this, has none
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, sig, 0, 0, 0)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free on `host` a moment ago. `reserve_port` gives one that stays free."""
    with reserve_port(host) as probe:
        return probe.getsockname()[1]


def reserve_port(host: str, port: int = 0) -> socket.socket:
    """Keep a TCP port for a server that sets SO_REUSEADDR (all common ones do); 0: any free port.

    As long as the socket is open, the kernel hands the port to nobody who asks for any free one, while our
    server can bind it, end, and bind it again. Clients are refused in between: the socket does not listen.
    Raises OSError (EADDRINUSE) when another process listens there.
    """
    keeper = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind((host, port))
    except OSError:
        keeper.close()
        raise
    return keeper


def start_child(
    command: list[str], *, env: dict[str, str], log_path: Path, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start `command` in a process group of its own, output appended to `log_path`. It inherits `pass_fds`.

    The kernel kills the child when the calling thread ends, so call this from a thread that stays. When the
    child ends, however it does, a guard ends what it leaves in its group (`flip_plugin.serving.guard`).
    """
    if sys.platform.startswith("linux"):
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), *command]
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock
        )


def guard_children() -> None:
    """Leave a guard that ends whatever this process started when this process ends, however it does.

    For a process that lets others start children, as a Ray worker lets vLLM. It becomes the leader of a process
    group of its own, which its children then belong to; call it before there are any. Linux only.
    """
    if not sys.platform.startswith("linux"):
        return
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    guard = Path(__file__).with_name("guard.py")
    # In our group, like the others: it ends the group that it is in.
    subprocess.Popen([sys.executable, "-I", "-S", str(guard)], stdin=subprocess.DEVNULL)


def freeze_heap() -> None:
    """Keep the garbage collector from what this process has loaded; for one that will hold it to its end.

    After torch, vLLM and LiteLLM that is half a million objects and more, and a process that makes many new ones has
    them looked through again and again. What is made later is collected as ever.
    """
    gc.collect()
    gc.freeze()


def stop_child(child: subprocess.Popen[bytes], grace: float = 5.0) -> None:
    """End `child` and everything in its process group: politely, then after `grace` seconds by force.

    Works for a child that has ended, too: what it left in its group goes.
    """
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sig)
        except ProcessLookupError:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
            # Its children are not ours to wait for. They may still be cleaning up, or hold a GPU's memory.
            _await_end(child.pid, 2 * PATIENCE_S)
    child.wait(grace)


def _await_end(group: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.02)


def tail(path: Path, lines: int = 20, start: int = 0) -> str:
    """The last `lines` lines of a log from byte `start` on, or an empty string where there is none."""
    try:
        with path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(start, end - _TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
