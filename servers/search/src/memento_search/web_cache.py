"""Answers of web searches, kept on disk for a while: one SQLite file, shared by all servers of a user.

Owns what is kept and for how long. It does not know what an answer is: JSON goes in and comes out.
"""

import json
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["WebCache"]

_BUSY_SECONDS = 5.0
_MAX_ENTRIES = 5000


class WebCache:
    """Blocking: call it from a thread. Each call has a connection of its own."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get(self, key: str, now: float) -> Any | None:
        """Return what was kept under `key`, or `None` if nothing was or its time is over."""
        with self._connection() as db:
            row = db.execute("SELECT value FROM answer WHERE key = ? AND until > ?", (key, now)).fetchone()
            return None if row is None else json.loads(row[0])

    def put(self, key: str, value: Any, *, now: float, seconds: float) -> None:
        """Keep `value`, which is JSON, for `seconds`; what is over or too much is dropped."""
        with self._connection() as db:
            db.execute("INSERT OR REPLACE INTO answer VALUES (?, ?, ?)", (key, now + seconds, json.dumps(value)))
            db.execute("DELETE FROM answer WHERE until <= ?", (now,))
            db.execute(
                "DELETE FROM answer WHERE key IN (SELECT key FROM answer ORDER BY until DESC LIMIT -1 OFFSET ?)",
                (_MAX_ENTRIES,),
            )

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        db = sqlite3.connect(self._file, timeout=_BUSY_SECONDS)
        try:
            with db:
                db.execute("CREATE TABLE IF NOT EXISTS answer (key TEXT PRIMARY KEY, until REAL, value TEXT)")
                yield db
        finally:
            db.close()
