"""One process at a time writes a run: `hold` keeps the others out, until `let_go` or the end of the process.

The lock is the system's (`flock` on a file that stays), so that no kill leaves one behind. Its file says who holds it.
Within a process `hold` may be called again: a command holds its folder as soon as it writes, and so does `open_run`.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import IO

from flip_plugin.errors import CommandError
from flip_plugin.files.logins import without_logins

LOCK = ".lock"

_held: dict[tuple[int, Path], IO[str]] = {}


def hold(place: str | Path) -> None:
    """Keep other processes out of `place`, a run's folder; one that is not there is made.

    Raises `CommandError`, with who holds it and what to do, where another process does.
    """
    folder = Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    _hold(folder / LOCK, folder)


def let_go(place: str | Path) -> None:
    """Let the next process in."""
    _let_go(Path(place) / LOCK)


def hold_file(path: str | Path) -> None:
    """The same for an output that is a file: its lock is beside it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    _hold(_beside(Path(path)), Path(path))


def let_go_file(path: str | Path) -> None:
    """Let the next process in."""
    _let_go(_beside(Path(path)))


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}{LOCK}")


def _hold(lock: Path, place: Path) -> None:
    key = os.getpid(), lock.resolve()  # a fork holds nothing of its own
    if key in _held:
        if lock.exists() and os.fstat(_held[key].fileno()).st_ino == lock.stat().st_ino:
            return
        _held.pop(key).close()  # the folder was removed meanwhile, and its lock with it
    file = lock.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _told(file)
        file.close()
        raise CommandError(
            f"{place}: another run is under way there{holder}. Wait for it, end it, or name another --output"
        ) from None
    except OSError:  # a file system without locks
        file.close()
        return
    file.truncate(0)
    command = without_logins(shlex.join(["flip", *sys.argv[1:]]))
    own = {"pid": os.getpid(), "host": platform.node(), "command": command}
    file.write(json.dumps(own) + "\n")
    file.flush()
    _held[key] = file


def _let_go(lock: Path) -> None:
    file = _held.pop((os.getpid(), lock.resolve()), None)
    if file is not None:
        fcntl.flock(file, fcntl.LOCK_UN)  # to close it is not enough where a fork has it open, too
        file.close()


def _told(file: IO[str]) -> str:
    """Who holds it, in brackets; nothing where its file does not say (a holder that has just begun)."""
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f" (process {holder['pid']} on {holder['host']}: {holder['command']})"
    except (ValueError, KeyError, TypeError):
        return ""
