"""One process at a time writes a folder or a file: the lock file beside it keeps the others out.

The lock is the system's, taken with the library `filelock`, so that it goes with its process, however that ends. The
lock file stays, and says who holds it: process, machine and command. A forked child holds nothing.

`hold` and `let_go` are for commands: a process may hold a place that it holds already, so that a command can hold its
folder as soon as it writes, and the code that it calls can do so again. A `PlaceLock` belongs to one object: a second
one is refused in the same process, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from flip_plugin.errors import CommandError
from flip_plugin.files.redaction import without_logins

LOCK = ".lock"

#: What `hold` has locked, by process and lock file: a forked child finds nothing of its own here.
_held: dict[tuple[int, Path], PlaceLock] = {}


class InUseError(Exception):
    """Somebody else holds the lock; `holder` says who, as " (process ...)", or is empty where that is not known."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"in use{holder}")
        self.holder = holder


class PlaceLock:
    """The lock of a place that only one may write: a folder's is inside it, a file's beside it (`file_lock`)."""

    def __init__(self, file: Path) -> None:
        self.file = file
        # Not thread-local: whichever thread ends the work lets go. A file system without locks is an OSError, not
        # a file whose existence is the lock and which a kill would leave behind.
        self._lock = FileLock(file, thread_local=False, fallback_to_soft=False)
        self._inode: tuple[int, int] | None = None

    def acquire(self) -> None:
        """Take the lock, at once or not at all; on a file system without locks, go on without one.

        Raises `InUseError` where somebody else holds it, and OSError where its file cannot be written.
        """
        if self._lock.is_locked:
            raise InUseError(_holder_text(self.file))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.open("a").close()
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise InUseError(_holder_text(self.file)) from None
        except OSError:
            return
        self._inode = _inode(self.file)
        own = {"pid": os.getpid(), "host": platform.node(), "command": _command()}
        with contextlib.suppress(OSError):  # Windows: nobody can write to a locked file, and the text is a courtesy
            self.file.write_text(json.dumps(own) + "\n", encoding="utf-8")

    def release(self) -> None:
        """Let the next one in; nothing where the lock is not held."""
        self._lock.release()

    @property
    def is_lost(self) -> bool:
        """True when the lock's file was removed, with its folder perhaps: it keeps nobody out any more."""
        return self._lock.is_locked and _inode(self.file) != self._inode


def folder_lock(folder: str | Path) -> PlaceLock:
    """The lock of a folder."""
    return PlaceLock(Path(folder) / LOCK)


def file_lock(path: str | Path) -> PlaceLock:
    """The lock of an output that is a file."""
    path = Path(path)
    return PlaceLock(path.with_name(f".{path.name}{LOCK}"))


def hold(folder: str | Path) -> None:
    """Keep other processes out of `folder`, which is made if need be, until `let_go` or the end of the process.

    Raises `CommandError`, with who holds it and what to do, where another process does.
    """
    _hold(folder_lock(folder), folder)


def let_go(folder: str | Path) -> None:
    """Let the next process in."""
    _let_go(folder_lock(folder))


def hold_file(path: str | Path) -> None:
    """As `hold`, for an output that is a file."""
    _hold(file_lock(path), path)


def let_go_file(path: str | Path) -> None:
    """Let the next process in."""
    _let_go(file_lock(path))


def _key(lock: PlaceLock) -> tuple[int, Path]:
    return os.getpid(), lock.file.resolve()


def _hold(lock: PlaceLock, place: str | Path) -> None:
    held = _held.get(_key(lock))
    if held is not None and not held.is_lost:
        return
    _let_go(lock)
    try:
        lock.acquire()
    except InUseError as error:
        raise CommandError(
            f"{place}: another run is under way there{error.holder}. Wait for it, end it, or name another --output"
        ) from None
    _held[_key(lock)] = lock


def _let_go(lock: PlaceLock) -> None:
    held = _held.pop(_key(lock), None)
    if held is not None:
        held.release()


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _command() -> str:
    """How this process was started, without its folder and the logins in addresses."""
    return without_logins(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def _holder_text(file: Path) -> str:
    """Who holds the lock, in brackets; empty where its file does not say (a holder that has just begun)."""
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        return f" (process {holder['pid']} on {holder['host']}: {holder['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
