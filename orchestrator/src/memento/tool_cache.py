"""Answers of tools, kept over runs: the same question to the same tool is not asked twice.

Owns the SQLite file under `MEMENTO_HOME/cache` and who waits for whom. Only tools that say they are read-only are
cached, and by default only those that look at the open world (a search, a page): a tool of a closed world answers from
local state that no key can see. It does not call tools: it is given the call. A file that cannot be used costs the
saving and a warning, never a call.
"""

import base64
import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread

from memento.outcomes import FilePart, ToolOutcome
from memento.toolbox import ToolSpec

__all__ = ["ToolCache", "ToolCachePolicy"]

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answer (
    key TEXT PRIMARY KEY, tool TEXT NOT NULL, stored REAL NOT NULL, expires REAL NOT NULL, size INTEGER NOT NULL,
    outcome TEXT NOT NULL
)
"""
_LOCK_TIMEOUT_SECONDS = 5.0
_MAX_OUTCOME_BYTES = 5_000_000
"""A larger answer is not kept."""
_SWEEP_SHARE = 0.05
"""Of the room allowed: after so much was written, what is too old or too much goes."""
_FORMAT = 1
"""Of a kept answer; another one is not read."""


@dataclass(frozen=True)
class ToolCachePolicy:
    """How long answers hold. A time of 0 keeps nothing."""

    seconds: float = 86_400.0
    """Of tools that say they are read-only and of the open world."""
    error_seconds: float = 60.0
    """Of an answer that the tool itself called an error, such as a page that is not there."""
    seconds_by_tool: Mapping[str, float] = field(default_factory=dict[str, float])
    """`server__tool` to its own time, also for read-only tools of a closed world."""
    max_bytes: int = 200_000_000

    def seconds_for(self, spec: ToolSpec) -> float:
        if not spec.is_read_only:
            return 0.0
        return self.seconds_by_tool.get(spec.name, self.seconds if spec.is_open_world else 0.0)


@dataclass
class _UnderWay:
    """A call that somebody waits for, and what it brought: `None` while it lasts, and when it was cancelled."""

    done: anyio.Event = field(default_factory=anyio.Event)
    outcome: ToolOutcome | None = None


class ToolCache:
    """Answers by server, its version, tool and normalised arguments. Safe for several processes on one file."""

    def __init__(self, path: Path, policy: ToolCachePolicy, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._policy = policy
        self._clock = clock
        self._under_way: dict[str, _UnderWay] = {}
        self._db: sqlite3.Connection | None = None
        self._one_at_a_time = threading.Lock()
        self._unswept_bytes: int | None = None

    async def call(
        self, spec: ToolSpec, arguments: dict[str, Any], send: Callable[[], Awaitable[ToolOutcome]]
    ) -> ToolOutcome:
        """The kept answer, or what `send` brings. The same call under way is waited for, not sent a second time."""
        seconds = self._policy.seconds_for(spec)
        if seconds <= 0:
            return await send()
        key = _key(spec, arguments)
        while (other := self._under_way.get(key)) is not None:
            await other.done.wait()
            if other.outcome is not None:  # also one that is not kept: what failed for one would fail for all in turn
                return replace(other.outcome, cached=True, cost_usd=0.0, models=())
        mine = self._under_way[key] = _UnderWay()
        try:
            mine.outcome = await anyio.to_thread.run_sync(self._read, key)
            if mine.outcome is None:
                outcome = await send()
                holds = self._policy.error_seconds if outcome.is_error else seconds
                holds = holds if outcome.holds_seconds is None else min(holds, outcome.holds_seconds)
                if outcome.may_be_kept and holds > 0:
                    await anyio.to_thread.run_sync(self._write, key, spec.name, outcome, holds)
                mine.outcome = outcome
            return mine.outcome
        finally:
            del self._under_way[key]
            mine.done.set()

    def _read(self, key: str) -> ToolOutcome | None:
        if not self._path.exists():
            return None
        try:
            with self._one_at_a_time:
                row = (
                    self._connected()
                    .execute("SELECT outcome FROM answer WHERE key = ? AND expires > ?", (key, self._clock()))
                    .fetchone()
                )
        except (sqlite3.Error, OSError) as exc:
            self._unusable(exc)
            return None
        return None if row is None else _parsed(row[0])

    def _write(self, key: str, tool: str, outcome: ToolOutcome, holds: float) -> None:
        text = _dumped(outcome)
        if len(text) > _MAX_OUTCOME_BYTES:
            return
        now = self._clock()
        try:
            with self._one_at_a_time, self._connected() as db:
                db.execute(
                    "INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?, ?)",
                    (key, tool, now, now + holds, len(text), text),
                )
                if self._unswept_bytes is None or self._unswept_bytes > self._policy.max_bytes * _SWEEP_SHARE:
                    self._sweep(db, now)
                    self._unswept_bytes = 0
                self._unswept_bytes += len(text)
        except (sqlite3.Error, OSError) as exc:
            self._unusable(exc)

    def _unusable(self, exc: Exception) -> None:
        """Go on without what the file holds. A damaged one is thrown away: the next answer begins a new one."""
        logger.warning("the tool cache %s cannot be used now: %s", self._path, exc)
        self.close()
        if type(exc) is sqlite3.DatabaseError:  # not locked, not a full disk: no database, or not a whole one
            for ending in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)

    def _sweep(self, db: sqlite3.Connection, now: float) -> None:
        """Delete what no longer holds, and the oldest answers over the size that is allowed."""
        db.execute("DELETE FROM answer WHERE expires <= ?", (now,))
        db.execute(
            "DELETE FROM answer WHERE key IN (SELECT key FROM "
            "(SELECT key, SUM(size) OVER (ORDER BY stored DESC, key) AS total FROM answer) WHERE total > ?)",
            (self._policy.max_bytes,),
        )

    def _connected(self) -> sqlite3.Connection:
        """The one connection: to open and close it for each call would write the log back to the file each time."""
        if self._db is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_SECONDS, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                db.execute(_SCHEMA)
            except sqlite3.Error:
                db.close()
                raise
            self._db = db
        return self._db

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        with self._one_at_a_time:
            if self._db is not None:
                self._db.close()
                self._db = None


def _key(spec: ToolSpec, arguments: dict[str, Any]) -> str:
    """What makes two calls the same. An argument that says what would hold without it is as good as not given."""
    found = spec.input_schema.get("properties")
    properties = cast(dict[str, Any], found) if isinstance(found, dict) else {}
    given = {name: value for name, value in arguments.items() if not _says_nothing(value, properties.get(name))}
    server = [spec.server, spec.server_version, spec.server_digest]
    told = json.dumps([_FORMAT, server, spec.tool, given], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def _says_nothing(value: Any, schema: Any) -> bool:
    """Whether an argument is its default: null where the schema names none, for a null that matters has another."""
    default = cast(dict[str, Any], schema).get("default") if isinstance(schema, dict) else None
    return json.dumps(value, sort_keys=True) == json.dumps(default, sort_keys=True)


def _dumped(outcome: ToolOutcome) -> str:
    files = [[part.mime_type, base64.b64encode(part.data).decode()] for part in outcome.files]
    return json.dumps([outcome.text, outcome.is_error, outcome.structured, files])


def _parsed(text: str) -> ToolOutcome:
    told, is_error, structured, files = cast(tuple[str, bool, dict[str, Any] | None, list[Any]], json.loads(text))
    parts = tuple(FilePart(mime_type, base64.b64decode(data)) for mime_type, data in files)
    return replace(ToolOutcome(told, is_error, structured, parts), cached=True)
