"""Where runs are kept: one folder per run with `events.jsonl`, and a SQLite index over all of them.

Owns the files under `MEMENTO_HOME/runs`. The event file is the truth; the index is made from it and can be
made again. It does not interpret events: whoever reads a run reads its records.
"""

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from memento.events import (
    Answered,
    CaseWritten,
    Event,
    OutcomeRecorded,
    Record,
    RunEnded,
    RunStarted,
    parse_record,
)

__all__ = ["Journal", "RunLog", "RunNotFound", "RunSummary"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
    run_id TEXT PRIMARY KEY, started TEXT NOT NULL, question TEXT NOT NULL, model TEXT NOT NULL,
    status TEXT NOT NULL, answer TEXT, reward REAL, case_id TEXT, model_calls INTEGER, tool_calls INTEGER,
    cost_usd REAL, seconds REAL
)
"""
_LOCK_TIMEOUT_SECONDS = 10.0


class RunNotFound(Exception):
    """There is no such run, or the beginning of an id fits several. The message says which runs there are."""


class RunSummary(BaseModel):
    """One row of the index."""

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
    """The event file of one run, open for appending. Each record is flushed before `append` returns."""

    def __init__(self, journal: "Journal", run_id: str, *, number: int = 0) -> None:
        self.run_id = run_id
        self.folder = journal.run_folder(run_id)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journal = journal
        self._number = number
        self._file = (self.folder / "events.jsonl").open("a", encoding="utf-8")

    def append(self, event: Event) -> Record:
        """Write `event` as the run's next record and return it."""
        self._number += 1
        record = Record(run_id=self.run_id, number=self._number, time=datetime.now(UTC), event=event)
        self._file.write(record.model_dump_json() + "\n")
        self._file.flush()
        if isinstance(event, RunStarted | RunEnded | Answered | CaseWritten | OutcomeRecorded):
            self._journal.index(record)
        return record

    def store(self, name: str, text: str) -> str:
        """Keep a long text in the run's folder; returns the name under which `read_stored` finds it."""
        folder = self.folder / "results"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        return f"results/{name}"

    def close(self) -> None:
        self._file.close()


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
        """
        full_id = self.find(run_id)
        return RunLog(self, full_id, number=sum(1 for _ in self.records(full_id)))

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
        return [RunSummary.model_validate(dict(row)) for row in rows]

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
