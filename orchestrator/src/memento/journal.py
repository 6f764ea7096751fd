"""Where runs are kept: one folder per run with `events.jsonl`, and a SQLite index over all of them.

Owns the files under `MEMENTO_HOME/runs`, and that one process at a time adds to a run. The event file is the truth;
the index is made from it and can be made again. Records survive the death of the process, by `kill -9` too; a power
cut may take the last of them, for nothing waits for the disk. It does not interpret events: whoever reads a run reads
its records.
"""

import os
import secrets
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from memento.events import (
    Answered,
    CaseWritten,
    Event,
    OutcomeRecorded,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
    parse_record,
)

__all__ = ["Journal", "RunBusy", "RunLog", "RunNotFound", "RunSummary", "elapsed_seconds"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
    run_id TEXT PRIMARY KEY, started TEXT NOT NULL, question TEXT NOT NULL, model TEXT NOT NULL,
    status TEXT NOT NULL, answer TEXT, reward REAL, case_id TEXT, model_calls INTEGER, tool_calls INTEGER,
    cost_usd REAL, seconds REAL
)
"""
_LOCK_TIMEOUT_SECONDS = 10.0
_LOCK_NAME = "run.lock"
_TAIL_BYTES = 65_536


class RunNotFound(Exception):
    """There is no such run, or the beginning of an id fits several. The message says which runs there are."""


class RunBusy(Exception):
    """Another process is at work on the run."""


class RunSummary(BaseModel):
    """One row of the index. A run without an end that no process works on has the status `interrupted`."""

    run_id: str
    started: str
    question: str
    model: str
    status: str
    answer: str | None
    reward: float | None
    case_id: str | None
    model_calls: int | None
    tool_calls: int | None
    cost_usd: float | None
    seconds: float | None


class RunLog:
    """The event file of one run, open for appending and locked. Each record is flushed before `append` returns.

    Raises:
        RunBusy: another process has it open.
    """

    def __init__(self, journal: "Journal", run_id: str) -> None:
        self.run_id = run_id
        self.folder = journal.run_folder(run_id)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journal = journal
        self._lock = _lock(self.folder)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as exc:
            raise RunBusy(f"Run {run_id} is at work in another process; wait for its end, or stop it there.") from exc
        path = self.folder / "events.jsonl"
        _cut_torn_line(path)
        with path.open("a+b") as file:
            file.seek(0)
            self._number = sum(1 for _ in file)
        self._file = path.open("a", encoding="utf-8")

    def append(self, event: Event) -> Record:
        """Write `event` as the run's next record and return it."""
        self._number += 1
        record = Record(run_id=self.run_id, number=self._number, time=datetime.now(UTC), event=event)
        self._file.write(record.model_dump_json() + "\n")
        self._file.flush()
        if isinstance(event, RunStarted | RunResumed | RunEnded | Answered | CaseWritten | OutcomeRecorded):
            self._journal.index(record)
        return record

    def close(self) -> None:
        self._file.close()
        self._lock.release()


class Journal:
    """All runs under one folder."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "runs"
        self._index = home / "runs.sqlite3"

    def run_folder(self, run_id: str) -> Path:
        return self.folder / run_id

    def count(self) -> int:
        """How many runs are kept."""
        return sum(1 for _ in self.folder.iterdir()) if self.folder.is_dir() else 0

    def new_run(self) -> RunLog:
        """Begin a run. Ids sort by time and can be told apart by their last part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return RunLog(self, f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}")

    def reopen(self, run_id: str) -> RunLog:
        """Open a past run to add to it, such as a verdict given later.

        Raises:
            RunNotFound: there is no such run.
            RunBusy: another process is at work on it.
        """
        return RunLog(self, self.find(run_id))

    def is_at_work(self, run_id: str) -> bool:
        """Whether some process has the run open."""
        lock = _lock(self.run_folder(run_id))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def remove(self, run_id: str) -> None:
        """Delete a run's events and results. What the case bank has learned from it stays.

        Raises:
            RunNotFound: there is no such run.
            RunBusy: it is at work.
        """
        full_id = self.find(run_id)
        self.reopen(full_id).close()
        shutil.rmtree(self.run_folder(full_id))
        with closing(self._connect()) as db, db:
            db.execute("DELETE FROM run WHERE run_id = ?", (full_id,))

    def export(self, run_id: str, path: Path) -> None:
        """Write everything that is kept of a run into a zip file: its events and its stored results.

        Raises:
            RunNotFound: there is no such run.
            OSError: the file cannot be written.
        """
        folder = self.run_folder(self.find(run_id))
        part = path.with_name(path.name + ".part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file() and file.name != _LOCK_NAME:
                    archive.write(file, Path(folder.name, file.relative_to(folder)))
        part.replace(path)

    def find(self, run_id: str) -> str:
        """Return the full id of the run that `run_id` (or `last`, or the end of an id) names.

        Raises:
            RunNotFound: none or several fit.
        """
        ids = sorted(path.name for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []
        if run_id == "last" and ids:
            return ids[-1]
        fits = [known for known in ids if known == run_id] or [
            k for k in ids if k.startswith(run_id) or k.endswith(run_id)
        ]
        if len(fits) == 1 and run_id:
            return fits[0]
        if not ids:
            raise RunNotFound(f"There is no run {run_id!r}: no run has been kept under {self.folder} yet.")
        if not fits or not run_id:
            raise RunNotFound(f"There is no run {run_id!r}. The newest is {ids[-1]!r}; `memento runs list` shows all.")
        raise RunNotFound(f"{run_id!r} fits {len(fits)} runs ({', '.join(fits[-3:])}); give more of the id.")

    def records(self, run_id: str) -> Iterator[Record]:
        """Read a run's records in order. A last line cut off by a crash is left out."""
        path = self.run_folder(run_id) / "events.jsonl"
        with path.open("rb") as lines:
            for line in lines:
                try:
                    yield parse_record(line)
                except ValidationError:
                    if line.endswith(b"\n"):
                        raise
                    return

    def events(self, run_id: str) -> list[Event]:
        return [record.event for record in self.records(run_id)]

    def runs(self, *, limit: int = 50) -> list[RunSummary]:
        """The newest runs first."""
        if not self._index.exists():
            self.rebuild_index()
        with closing(self._connect()) as db:
            rows = db.execute("SELECT * FROM run ORDER BY run_id DESC LIMIT ?", (limit,)).fetchall()
        found = [RunSummary.model_validate(dict(row)) for row in rows]
        return [
            row.model_copy(update={"status": "interrupted"})
            if row.status == "running" and not self.is_at_work(row.run_id)
            else row
            for row in found
        ]

    def rebuild_index(self) -> int:
        """Make the index again from the event files; returns the number of runs."""
        with closing(self._connect()) as db, db:
            db.execute("DELETE FROM run")
        kept = self.folder.glob("*/events.jsonl")
        ids = sorted(path.parent.name for path in kept)
        for run_id in ids:
            for record in self.records(run_id):
                self.index(record)
        return len(ids)

    def index(self, record: Record) -> None:
        """Bring the index up to `record`."""
        event = record.event
        changes: dict[str, Any] = {}
        if isinstance(event, RunStarted):
            row = (record.run_id, record.time.isoformat(), event.question, event.planner_model, "running")
            with closing(self._connect()) as db, db:
                db.execute(
                    "INSERT OR REPLACE INTO run(run_id, started, question, model, status) VALUES (?,?,?,?,?)", row
                )
        elif isinstance(event, RunResumed):
            changes = {"status": "running"}
        elif isinstance(event, Answered):
            changes = {"answer": event.answer}
        elif isinstance(event, CaseWritten):
            changes = {"case_id": event.case_id}
        elif isinstance(event, OutcomeRecorded):
            changes = {"reward": event.reward}
        elif isinstance(event, RunEnded):
            changes = {
                "status": event.status,
                "model_calls": event.model_calls,
                "tool_calls": event.tool_calls,
                "cost_usd": event.usage.cost_usd,
                "seconds": event.seconds,
            }
        if changes:
            assignments = ", ".join(f"{column} = ?" for column in changes)  # column names are ours, from above
            with closing(self._connect()) as db, db:
                db.execute(f"UPDATE run SET {assignments} WHERE run_id = ?", (*changes.values(), record.run_id))

    def _connect(self) -> sqlite3.Connection:
        self._index.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._index, timeout=_LOCK_TIMEOUT_SECONDS)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(_SCHEMA)
        return db


def elapsed_seconds(records: Sequence[Record]) -> float:
    """How long a run was at work, over all its sittings; the time between them does not count."""
    total = 0.0
    for record, following in pairwise(records):
        if not isinstance(following.event, RunResumed) and not isinstance(record.event, RunEnded):
            total += (following.time - record.time).total_seconds()
    return max(0.0, total)


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / _LOCK_NAME, thread_local=False)


def _cut_torn_line(path: Path) -> None:
    """Cut off a last line that a crash left unfinished, so that the next record begins on a line of its own."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        at = size
        while at > 0:
            start = max(0, at - _TAIL_BYTES)
            file.seek(start)
            newline = file.read(at - start).rfind(b"\n")
            if newline >= 0:
                at = start + newline + 1
                break
            at = start
        if at != size:
            file.truncate(at)
