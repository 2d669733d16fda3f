"""What judges said, on disk: every call as a line of JSONL, and replies by request in SQLite.

A folder of JSONL files has one line a judged response, with the keys of `FIELDS`:
enough to see what was asked and answered, and to score it again with another
similarity, without a judge. Every process appends to its own file, so Ray actors can
share a folder. `ReplyCache` spares a judge the same question.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from flip_plugin.echo import penalty
from flip_plugin.metrics import Similarity
from flip_plugin.parsing import parse_flip_reply

# split, draw, training_step: where in a training run (see `call_context`). time: seconds since 1970.
# score: in the verifier's own 0..1, None unless status is "ok"; similarity: the same before the echo policy's penalty.
FIELDS = (
    "id",
    "time",
    "split",
    "draw",
    "training_step",
    "judge_type",
    "model",
    "api_base",
    "messages",
    "sampling",
    "reply",
    "finish_reason",
    "status",
    "score",
    "inferred_instruction",
    "target",
    "reasoning",
    "echo",
    "echo_policy",
    "similarity",
    "usage",
    "seconds",
    "attempts",
    "cached",
    "error",
)


#: What a trainer notes with every call that is judged in this context (fields of `FIELDS`): ``split`` "train" or
#: "eval", ``draw`` the number of the prompt's draw, ``training_step`` the step that it belongs to.
call_context: ContextVar[Mapping[str, Any]] = ContextVar("call_context", default=MappingProxyType({}))


class JudgeCallWriter:
    """Appends to ``folder/NNN-<pid>.jsonl``, flushed after every line.

    The file is opened at the first write; a pickled or forked copy opens its own.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self._file: TextIO | None = None
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])

    def write(self, call: dict[str, Any]) -> None:
        """Append one call; missing `FIELDS` become null. Raises ValueError for others."""
        unknown = call.keys() - set(FIELDS)
        if unknown:
            raise ValueError(f"not fields of a judge call: {', '.join(sorted(unknown))}")
        line = {**dict.fromkeys(FIELDS), "id": uuid.uuid4().hex, "time": time.time(), **call_context.get(), **call}
        file = self._open()
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()

    def check(self) -> None:
        """Make the folder. Raises ValueError when that, or a file in it, cannot be: at the start, not in mid-run."""
        try:
            os.makedirs(self.folder, exist_ok=True)
        except OSError as error:
            raise ValueError(f"judge calls cannot be kept in {self.folder!r}: {error.strerror or error}") from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise ValueError(f"judge calls cannot be kept in {self.folder!r}: no right to write there")

    def _open(self) -> TextIO:
        if self._file is None or self._pid != os.getpid():
            os.makedirs(self.folder, exist_ok=True)
            name, number = "", 0
            # A restarted process may get an old pid: never append to another run's file.
            while not name or os.path.exists(name):
                name = os.path.join(self.folder, f"{number:03d}-{os.getpid()}.jsonl")
                number += 1
            # A lone surrogate in a reply is written as its JSON escape instead of failing.
            self._file = open(name, "x", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            self._pid = os.getpid()
        return self._file

    def close(self) -> None:
        """Close the file, if it is open; a later write starts another."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None


class ReplyCache:
    """Replies by request: SQLite, JSON text, safe between threads and processes."""

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        # Every statement is its own transaction; a busy neighbour is waited for.
        self._db = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
        try:
            self._to_wal()
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} cannot be used as a cache of replies: {error}") from error

    def _to_wal(self) -> None:
        """SQLite does not wait for a neighbour that changes the mode of a new file at the same moment: we do."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @staticmethod
    def key(request: dict[str, Any]) -> str:
        """SHA-256 over all that the judge is sent: model, messages, sampling, schema."""
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def get(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The reply to this very request, or None."""
        with self._lock:
            row = self._db.execute("SELECT reply FROM replies WHERE key = ?", (self.key(request),)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, request: dict[str, Any], reply: dict[str, Any]) -> None:
        """Keep `reply` for the next time."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (self.key(request), json.dumps(reply)))


def read_calls(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The calls in a file, or in all ``*.jsonl`` files of a folder, in the order of their names.

    A last line that was cut off by a crash is left out; any other malformed line
    raises ValueError with its file and number.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"no judge calls at {str(root)!r}")
    for file in sorted(root.glob("*.jsonl")) if root.is_dir() else [root]:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    call = json.loads(line)
                except json.JSONDecodeError as error:
                    if not line.endswith("\n"):
                        break
                    raise ValueError(f"{file}:{number}: not JSON ({error})") from error
                if not isinstance(call, dict) or not call.keys() >= {"id", "judge_type", "status"}:
                    raise ValueError(f"{file}:{number}: not a judge call (those are what --record_calls_to keeps)")
                yield call


def rescore(call: dict[str, Any], similarity: Similarity, echo_policy: str | None = None) -> dict[str, Any]:
    """Score, status and inferred instruction of a FLIP call, read again from the judge's reply.

    No judge is asked. `echo_policy` is ``report`` or ``penalise``, by default that of the
    call. Calls without a usable reply keep their status and have no score.

    Raises ValueError where another policy would have shown the judge another text:
    ``strip`` cannot be put on afterwards, nor taken off.
    """
    recorded = call.get("echo_policy") or "report"
    policy = echo_policy or recorded
    if (policy == "strip") != (recorded == "strip"):
        raise ValueError(f"judged under echo policy {recorded!r}: {policy!r} would have shown the judge another text")
    names = ("score", "similarity", "status", "inferred_instruction", "error")
    kept = {**dict.fromkeys(names), "status": call["status"], "error": call["error"]}
    if call["status"] == "ok" and call["reply"] is None:
        # Scored without a judge: nothing was left of the response.
        return {name: call.get(name) for name in names}
    if call["status"] not in ("ok", "unparsed") or call["finish_reason"] == "length":
        return kept
    parsed = parse_flip_reply(call["reply"])
    if parsed.instruction is None:
        return {**kept, "status": "unparsed", "error": parsed.problem}
    alike = float(similarity(parsed.instruction, call["target"]))
    factor = penalty(call["target"], call["echo"] or 0.0) if policy == "penalise" else 1.0
    return {
        "score": alike * factor,
        "similarity": alike,
        "status": "ok",
        "inferred_instruction": parsed.instruction,
        "error": None,
    }
