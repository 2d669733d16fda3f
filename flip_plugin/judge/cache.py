"""Replies of a judge by request, in SQLite: the same question is asked once."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any


class ReplyCache:
    """Replies by request: SQLite, JSON text, safe between threads and processes."""

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
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
