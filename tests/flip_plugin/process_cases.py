"""Waiting for processes to begin and to end."""

import contextlib
import time
from pathlib import Path


def until(condition, patience=20):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def stat_fields(pid):
    """What /proc says after a process's name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def gone(pid):
    try:
        return stat_fields(pid)[0] == "Z"
    except FileNotFoundError:
        return True


def session_of(pid):
    """Processes that run in the session that `pid` began."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = stat_fields(folder.name)
            found += [folder.name] if fields[3] == str(pid) and fields[0] != "Z" else []
    return found
