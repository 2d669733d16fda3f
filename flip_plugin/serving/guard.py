"""``python -I -S guard.py COMMAND...``: become COMMAND, and end all of its process group when it ends, however.
Without a command: guard the process that started this one, the leader of the group that both are in.

vLLM's server starts its engine as a child of its own, which outlives a killed server and keeps the GPU's
memory. The guard is a small child of COMMAND that the kernel wakes when COMMAND is gone. Run by path, without
the package: it has to be up in milliseconds. Linux only.
"""

import ctypes
import os
import signal
import sys
import time

#: Seconds that what is left of the group has to end by itself.
PATIENCE_S = 1.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Leave a guard behind and run the command in this very process."""
    command, group_leader = sys.argv[1:], os.getpid()
    if not command:
        guard(os.getpgrp())
    if os.fork() == 0:
        guard(group_leader)
    os.execvp(command[0], command)  # noqa: S606 - our own command, as a list


def guard(parent: int) -> None:
    """Sleep until `parent` is gone, then end this process group, this process included."""
    for number in (signal.SIGTERM, signal.SIGINT):  # meant for the command, which may take its time
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
    while os.getppid() == parent:
        signal.sigwait({signal.SIGUSR1})
    group = os.getpgrp()
    os.killpg(group, signal.SIGTERM)
    # A moment for Python's resource tracker, which removes the semaphores that others left in /dev/shm.
    deadline = time.monotonic() + PATIENCE_S
    while members(group) != [os.getpid()] and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)  # this process included: nothing below is reached


def members(group: int) -> list[int]:
    """Processes of a process group that run; one that waits to be reaped does not. Empty where there is no /proc."""
    # No pathlib: its import would take longer than all the rest.
    running = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:  # noqa: PTH112, PTH208
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", errors="replace") as stat:  # noqa: PTH123
                    state, _, its_group = stat.read().rpartition(")")[2].split()[:3]
            except OSError:  # it ended just now
                continue
            if int(its_group) == group and state != "Z":
                running.append(int(entry))
    return running


if __name__ == "__main__":
    main()
