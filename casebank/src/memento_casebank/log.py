"""The bank's log: one SQLite file that only grows, and from which everything else can be rebuilt.

Owns the schema, the order of things (`seq`, one sequence over all kinds of records) and durability. It knows
nothing of learning or searching. The tables of records refuse UPDATE and DELETE by trigger; `vectors` and
`snapshots` are derived (a vector may have cost money, so it is kept, but `reembed` may replace it).

A commit is acknowledged when the operating system has it, so a killed process loses nothing; `WalSync` brings it to the
disk within half a second, which is what a power cut can lose (synced commits wait for the disk instead). A process that
is killed in the middle of a write leaves a torn WAL tail, which SQLite drops at the next open: the unacknowledged
transaction is gone, the rest is whole.
"""

import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from memento_casebank.records import BankError, Case, DecisionRecord, Edit, OutcomeRecord, first_problem

__all__ = ["CaseRow", "DecisionRow", "Log", "WalSync", "check_record"]

logger = logging.getLogger(__name__)

Record = Case | DecisionRecord | OutcomeRecord | Edit
R = TypeVar("R", Case, DecisionRecord, OutcomeRecord, Edit)

SCHEMA_VERSION = 1

_RECORDS = ("cases", "decisions", "outcomes", "edits")

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cases (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL, run_id TEXT, decision_id TEXT,
    body TEXT NOT NULL);
CREATE INDEX cases_run ON cases (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX cases_decision ON cases (decision_id) WHERE decision_id IS NOT NULL;
CREATE TABLE decisions (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL, run_id TEXT,
    shown BLOB NOT NULL,      -- int64 seq of each case shown, in rank order
    candidates BLOB NOT NULL, -- see decisions.pack
    body TEXT NOT NULL);
CREATE INDEX decisions_run ON decisions (run_id) WHERE run_id IS NOT NULL;
CREATE TABLE outcomes (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE TABLE edits (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, case_id TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE vectors (
    embedder TEXT NOT NULL, seq INTEGER NOT NULL, vector BLOB NOT NULL, -- float32, of a case or a decision's query
    UNIQUE (embedder, seq));
CREATE TABLE snapshots (name TEXT PRIMARY KEY, seq INTEGER NOT NULL, state BLOB NOT NULL);
""" + "".join(
    f"CREATE TRIGGER {table}_never_{verb.lower()} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;\n"
    for table in _RECORDS
    for verb in ("UPDATE", "DELETE")
)


class CaseRow(NamedTuple):
    """A case with its place in the log."""

    seq: int
    case: Case


class DecisionRow(NamedTuple):
    """A decision with its place in the log and its binary columns."""

    seq: int
    record: DecisionRecord
    shown: bytes
    candidates: bytes


class Log:
    """One open SQLite file. Not thread-safe: the bank calls it from one thread at a time."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open or create the log at `path`.

        Raises:
            BankError: the file is not a case bank, or was made by a newer version.
        """
        self.path = path
        target = f"{path.absolute().as_uri()}?mode=ro" if read_only else str(path)
        try:
            self._db = sqlite3.connect(
                target, uri=read_only, isolation_level=None, check_same_thread=False, timeout=10.0
            )
            if not read_only:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._synced = True
            self._check_schema(create=not read_only)
        except sqlite3.DatabaseError as exc:
            raise BankError(
                f"{path} cannot be opened as a case bank ({exc}); name another folder or restore it"
            ) from exc
        self._next = 1 + max(
            self._db.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()[0] for table in _RECORDS
        )

    def _check_schema(self, *, create: bool) -> None:
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and create:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise BankError(
                f"{self.path} has schema {version}, this version of memento-casebank reads {SCHEMA_VERSION}; "
                "export it with the version that wrote it (`memento-casebank export`) and import it here"
            )

    def close(self) -> None:
        self._db.close()

    # Transactions

    def begin(self, *, synced: bool = True) -> None:
        """Start a transaction; without `synced` its commit reaches the operating system, but waits for no disk."""
        if synced != self._synced:
            self._db.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            self._synced = synced
        self._db.execute("BEGIN IMMEDIATE")

    def begin_reading(self) -> None:
        """From the first read on, see the log as it was then, until `rollback`."""
        self._db.execute("BEGIN")

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def savepoint(self) -> Generator[None]:
        """Undo what the block appended if it raises; the transaction around it goes on."""
        self._db.execute("SAVEPOINT one")
        before = self._next
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK TO one")
            self._next = before
            raise
        finally:
            self._db.execute("RELEASE one")

    @property
    def last_seq(self) -> int:
        """Place of the newest record; 0 in an empty log."""
        return self._next - 1

    def _take_seq(self) -> int:
        self._next += 1
        return self._next - 1

    # Appending

    def append_case(self, case: Case) -> int:
        body = _dump(case)
        seq = self._take_seq()
        self._db.execute(
            "INSERT INTO cases VALUES (?, ?, ?, ?, ?, ?)",
            (seq, case.id, case.namespace, case.run_id, case.decision_id, body),
        )
        return seq

    def append_decision(self, record: DecisionRecord, *, shown: bytes, candidates: bytes) -> int:
        body = _dump(record)
        seq = self._take_seq()
        self._db.execute(
            "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?)",
            (seq, record.id, record.namespace, record.run_id, shown, candidates, body),
        )
        return seq

    def append_outcome(self, record: OutcomeRecord) -> int:
        body = _dump(record)
        seq = self._take_seq()
        self._db.execute("INSERT INTO outcomes VALUES (?, ?, ?)", (seq, record.id, body))
        return seq

    def append_edit(self, record: Edit) -> int:
        body = _dump(record)
        seq = self._take_seq()
        self._db.execute("INSERT INTO edits VALUES (?, ?, ?, ?)", (seq, record.id, record.case_id, body))
        return seq

    def put_vectors(self, embedder: str, rows: Iterable[tuple[int, bytes]]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", ((embedder, seq, vector) for seq, vector in rows)
        )

    # Reading

    def case(self, case_id: str) -> CaseRow | None:
        row = self._db.execute("SELECT seq, body FROM cases WHERE id = ?", (case_id,)).fetchone()
        return None if row is None else CaseRow(row[0], _read(Case, row[0], row[1]))

    def cases_at(self, seqs: Sequence[int]) -> list[Case]:
        """The cases at these places in the log, in the given order."""
        marks = ", ".join("?" * len(seqs))
        bodies = dict(self._db.execute(f"SELECT seq, body FROM cases WHERE seq IN ({marks})", seqs))
        return [_read(Case, seq, bodies[seq]) for seq in seqs]

    def cases(self, *, after: int = 0) -> Iterator[CaseRow]:
        """All cases past a place in the log, oldest first."""
        for seq, body in self._db.execute("SELECT seq, body FROM cases WHERE seq > ? ORDER BY seq", (after,)):
            yield CaseRow(seq, _read(Case, seq, body))

    def case_ids(self) -> dict[int, str]:
        """The id of every case by its place in the log."""
        return dict(self._db.execute("SELECT seq, id FROM cases ORDER BY seq"))

    def cases_of_run(self, run_id: str, namespace: str) -> list[str]:
        return self._ids("SELECT id FROM cases WHERE run_id = ? AND namespace = ? ORDER BY seq", run_id, namespace)

    def cases_of_decision(self, decision_id: str) -> list[str]:
        return self._ids("SELECT id FROM cases WHERE decision_id = ? ORDER BY seq", decision_id)

    def namespaces_of_run(self, run_id: str) -> list[str]:
        """The namespaces in which cases or decisions name this run."""
        return self._ids(
            "SELECT namespace FROM decisions WHERE run_id = ? UNION SELECT namespace FROM cases WHERE run_id = ?",
            run_id,
            run_id,
        )

    def decision(self, decision_id: str) -> DecisionRow | None:
        row = self._db.execute(
            "SELECT seq, body, shown, candidates FROM decisions WHERE id = ?", (decision_id,)
        ).fetchone()
        return None if row is None else DecisionRow(row[0], _read(DecisionRecord, row[0], row[1]), row[2], row[3])

    def decisions(self, *, after: int = 0, namespace: str | None = None, limit: int = -1) -> Iterator[DecisionRow]:
        """Decisions past a place in the log, oldest first."""
        for seq, body, shown, candidates in self._db.execute(
            "SELECT seq, body, shown, candidates FROM decisions WHERE seq > ? AND (? IS NULL OR namespace = ?)"
            " ORDER BY seq LIMIT ?",
            (after, namespace, namespace, limit),
        ):
            yield DecisionRow(seq, _read(DecisionRecord, seq, body), shown, candidates)

    def decisions_of_run(self, run_id: str, namespace: str) -> list[str]:
        return self._ids("SELECT id FROM decisions WHERE run_id = ? AND namespace = ? ORDER BY seq", run_id, namespace)

    def shown(self) -> Iterator[tuple[str, str, bytes]]:
        """(id, namespace, seqs of the cases shown) of every decision, oldest first."""
        yield from self._db.execute("SELECT id, namespace, shown FROM decisions ORDER BY seq")

    def outcomes(self, *, after: int = 0) -> Iterator[tuple[int, OutcomeRecord]]:
        for seq, body in self._db.execute("SELECT seq, body FROM outcomes WHERE seq > ? ORDER BY seq", (after,)):
            yield seq, _read(OutcomeRecord, seq, body)

    def edits(self, *, after: int = 0) -> Iterator[tuple[int, Edit]]:
        for seq, body in self._db.execute("SELECT seq, body FROM edits WHERE seq > ? ORDER BY seq", (after,)):
            yield seq, _read(Edit, seq, body)

    def edit(self, edit_id: str) -> Edit | None:
        row = self._db.execute("SELECT seq, body FROM edits WHERE id = ?", (edit_id,)).fetchone()
        return None if row is None else _read(Edit, row[0], row[1])

    def vector(self, embedder: str, seq: int) -> bytes | None:
        row = self._db.execute("SELECT vector FROM vectors WHERE embedder = ? AND seq = ?", (embedder, seq)).fetchone()
        return None if row is None else row[0]

    def case_vectors(self, embedder: str) -> Iterator[tuple[int, bytes]]:
        """(seq, vector) of every case that `embedder` has embedded, oldest first."""
        yield from self._db.execute(
            "SELECT seq, vector FROM vectors JOIN cases USING (seq) WHERE embedder = ? ORDER BY seq", (embedder,)
        )

    def has(self, record_id: str) -> bool:
        """Whether a record of any kind has this id."""
        return any(
            self._db.execute(f"SELECT 1 FROM {table} WHERE id = ?", (record_id,)).fetchone() for table in _RECORDS
        )

    def texts_without_vector(self, embedder: str, *, after: int, limit: int) -> list[tuple[int, str]]:
        """(seq, text) of cases and decisions past a place in the log that `embedder` has not embedded, oldest first."""
        return self._db.execute(
            "SELECT seq, text FROM (SELECT seq, json_extract(body, '$.question') AS text FROM cases"
            " UNION ALL SELECT seq, json_extract(body, '$.query') FROM decisions) AS texts"
            " WHERE seq > ? AND NOT EXISTS (SELECT 1 FROM vectors WHERE embedder = ? AND vectors.seq = texts.seq)"
            " ORDER BY seq LIMIT ?",
            (after, embedder, limit),
        ).fetchall()

    def embedded(self, embedder: str) -> int:
        """How many cases and decisions `embedder` has embedded."""
        return self._db.execute("SELECT count(*) FROM vectors WHERE embedder = ?", (embedder,)).fetchone()[0]

    def drop_vectors_except(self, embedder: str) -> None:
        self._db.execute("DELETE FROM vectors WHERE embedder <> ?", (embedder,))

    def namespaces(self) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT DISTINCT namespace FROM cases ORDER BY namespace")]

    def counts(self) -> dict[str, int]:
        """Number of records of each kind."""
        return {table: self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _RECORDS}

    def _ids(self, sql: str, *values: str) -> list[str]:
        return [row[0] for row in self._db.execute(sql, values)]

    def sync_level(self) -> int:
        """SQLite's synchronous level now: 1 (NORMAL) or 2 (FULL)."""
        return self._db.execute("PRAGMA synchronous").fetchone()[0]

    # Meta and snapshots

    def meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def set_meta(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def snapshot(self, name: str) -> tuple[int, bytes] | None:
        """A saved state and the place in the log up to which it had read."""
        return self._db.execute("SELECT seq, state FROM snapshots WHERE name = ?", (name,)).fetchone()

    def put_snapshot(self, name: str, seq: int, state: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", (name, seq, state))

    def drop_snapshots(self) -> None:
        self._db.execute("DELETE FROM snapshots")


class WalSync:
    """Brings acknowledged commits to the disk soon, in a thread of its own, so that no caller waits for the disk."""

    WITHIN_SECONDS = 0.5

    def __init__(self, log: Path) -> None:
        self._wal = log.with_name(log.name + "-wal")
        self._wanted = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def request(self) -> None:
        """Have everything written so far on disk within half a second."""
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="casebank-sync", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread; closing the log afterwards syncs what is left."""
        self._stop.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            if self._stop.wait(self.WITHIN_SECONDS):
                return
            self._wanted.clear()
            try:
                self._sync()
            except OSError:
                logger.exception("%s could not be synced; a power cut could lose the last writes", self._wal)

    def _sync(self) -> None:
        try:
            file = os.open(self._wal, os.O_RDWR)
        except FileNotFoundError:
            return  # just moved into the database, which syncs it
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _dump(record: Record) -> str:
    """A record as JSON that can be read back: what goes into the log can never be taken out or mended.

    Raises:
        BankError: it holds what JSON cannot: NaN, half a character, an object of Python, or too many levels.
    """
    try:
        text = record.model_dump_json(exclude_defaults=True)
        if isinstance(record, Case | Edit):  # they hold values of any form
            type(record).model_validate_json(text)
        if "NaN" in text or "Infinity" in text:  # in a plan, pydantic lets them pass
            json.loads(text, parse_constant=_refuse_constant)
    except ValueError as exc:  # what pydantic raises for nearly all of these
        raise BankError(f"This cannot be kept: {first_problem(exc)}. Pass plain JSON values.") from exc
    except RecursionError as exc:
        raise BankError("This cannot be kept: it is nested too deeply. Pass plain JSON values.") from exc
    return text


def check_record(record: Record) -> None:
    """Check that a record can be kept, before anything is done with it.

    Raises:
        BankError: it cannot.
    """
    _dump(record)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _read(model: type[R], seq: int, body: str) -> R:
    """A record from its row.

    Raises:
        BankError: the row is not one that this version can read.
    """
    try:
        return model.model_validate_json(body)
    except ValueError as exc:
        problem = f"Record {seq} of the log cannot be read as {model.__name__}: {first_problem(exc)}"
        raise BankError(problem) from exc
