"""The full-text index of files: one SQLite file with FTS5, shared by all processes that search.

Owns the tables, what is stored about a file, and ranking. It does not walk folders, and reads no file itself.
Everything in it can be made again from the files, so a damaged index is thrown away and rebuilt.

Figures behind the choices (guides/web.md §1.5, 100,000 short documents): FTS5 with porter stemming, words
joined by OR without stop words, ordered by the built-in `rank`: build 1.5 s, p95 14-39 ms, 20 MB.
"""

import hashlib
import itertools
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from memento_kit.question import extra_terms, match_query, terms
from memento_search.folder_scan import FoundFile, Scan
from memento_search.passages import Passage

__all__ = ["FileIndex", "Hit", "Hits", "ReadFile"]

logger = logging.getLogger(__name__)

_FORMAT = 2
"""Raise when tables or passages change: an index of another format is left alone and a new one is built."""
_BUSY_SECONDS = 30.0
"""How long to wait for another process that writes. Each write lasts well under a second."""
_RACY_NS = 2_000_000_000
"""A file changed this shortly before it was read may change again within its clock's grain: look again."""
_ID_BITS = 20
"""A passage's id is its file's id and its number in the file, so that filters by file need no join."""
_SNIPPET_CHARS = 420
_MANY_PASSAGES = 5000
"""In a smaller index the ranking takes a few milliseconds, whatever the words."""
_ENOUGH_PASSAGES = 2500
"""In a larger one only passages with the rarest words of a question are ranked: so many words as find no more."""
_MANY_WORDS = 20_000
"""So many words' counts are kept at most: about 2 MB."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS file (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, read_at_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL, problem TEXT, reader TEXT
);
CREATE TABLE IF NOT EXISTS passage (
    id INTEGER PRIMARY KEY, heading TEXT NOT NULL, text TEXT NOT NULL, extra TEXT NOT NULL,
    first_line INTEGER, last_line INTEGER, page INTEGER, sheet TEXT
);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    heading, text, extra, content='passage', content_rowid='id', tokenize='porter unicode61 remove_diacritics 2'
);
CREATE TRIGGER IF NOT EXISTS passage_added AFTER INSERT ON passage BEGIN
    INSERT INTO words(rowid, heading, text, extra) VALUES (new.id, new.heading, new.text, new.extra);
END;
CREATE TRIGGER IF NOT EXISTS passage_removed AFTER DELETE ON passage BEGIN
    INSERT INTO words(words, rowid, heading, text, extra)
    VALUES ('delete', old.id, old.heading, old.text, old.extra);
END;
INSERT INTO words(words, rank) VALUES ('rank', 'bm25(2.0, 1.0, 1.0)');
CREATE INDEX IF NOT EXISTS file_with_text ON file(path, kind) WHERE problem IS NULL;
CREATE INDEX IF NOT EXISTS file_with_problem ON file(path, problem) WHERE problem IS NOT NULL;
CREATE TABLE IF NOT EXISTS state (version INTEGER NOT NULL);
INSERT INTO state VALUES (abs(random()) / 2);
"""


@dataclass(frozen=True)
class ReadFile:
    """A file as it was read.

    `problem` says why it has no passages, and `reader` who found so: another one may do better.
    """

    path: str
    found: FoundFile
    read_at_ns: int
    sha256: str
    passages: Sequence[Passage] = ()
    unchanged: bool = False
    """The index holds this content already; only the file's time is new."""
    problem: str | None = None
    reader: str | None = None


@dataclass(frozen=True)
class Hit:
    path: str
    passage: Passage
    snippet: str


@dataclass(frozen=True)
class Hits:
    hits: list[Hit]
    total: int
    """How many passages match: they hold a word of the question, in a large index one that is not too common."""


class FileIndex:
    """The index in `folder`. Every method opens and closes a connection of its own, so any thread may call it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / f"files-{_FORMAT}.sqlite3"
        self._held: tuple[int, dict[str, int]] = (-1, {})

    def version(self) -> int:
        """A number that is another one whenever anybody has changed the index."""
        with self._connection() as db:
            return db.execute("SELECT version FROM state").fetchone()[0]

    def outdated(self, scan: Scan, roots: Iterable[Path], *, reader: str | None) -> dict[str, str | None]:
        """Forget the files under `roots` that are gone, and return those to read: new, changed, once failed.

        The value is the SHA-256 of what the index holds for the file: if the file has it too, nothing changed.
        """
        with self._connection() as db:
            known: dict[str, tuple[int, int, int, str | None]] = {}
            for root in roots:
                where, values = _under(root)
                rows = db.execute(
                    f"SELECT path, size_bytes, mtime_ns, read_at_ns, sha256, problem, reader FROM file WHERE {where}",
                    values,
                )
                for path, size, mtime, read_at, sha256, problem, its_reader in rows:
                    again = problem is not None and its_reader != reader
                    known[path] = (-1, 0, 0, None) if again else (size, mtime, read_at, sha256)
            gone = [path for path in known if path not in scan.files]
            if gone:
                with _change(db):
                    for path in gone:
                        _forget(db, path)
        to_read: dict[str, str | None] = {}
        for path, found in scan.files.items():
            size, mtime, read_at, sha256 = known.get(path, (-1, 0, 0, None))
            if (size, mtime) != (found.size_bytes, found.mtime_ns) or read_at - mtime < _RACY_NS:
                to_read[path] = sha256
        return to_read

    def store(self, files: Iterable[ReadFile], *, lost: Iterable[str] = ()) -> None:
        """Put files in, replacing what was there for them, and forget those `lost`: all of it or nothing."""
        with self._connection() as db, _change(db):
            for path in lost:
                _forget(db, path)
            for file in files:
                if file.unchanged:
                    db.execute(
                        "UPDATE file SET size_bytes = ?, mtime_ns = ?, read_at_ns = ? WHERE path = ? AND sha256 = ?",
                        (file.found.size_bytes, file.found.mtime_ns, file.read_at_ns, file.path, file.sha256),
                    )
                    continue
                _forget(db, file.path)
                row = (
                    file.path,
                    file.found.kind,
                    file.found.size_bytes,
                    file.found.mtime_ns,
                    file.read_at_ns,
                    file.sha256,
                    file.problem,
                    file.reader,
                )
                columns = "path, kind, size_bytes, mtime_ns, read_at_ns, sha256, problem, reader"
                file_id = db.execute(f"INSERT INTO file({columns}) VALUES (?,?,?,?,?,?,?,?)", row).lastrowid
                assert file_id is not None
                stem = os.path.splitext(os.path.basename(file.path))[0]
                name = " ".join([stem, extra_terms(stem)])
                db.executemany(
                    "INSERT INTO passage VALUES (?,?,?,?,?,?,?,?)",
                    (
                        (
                            (file_id << _ID_BITS) | number,
                            f"{name} · {passage.heading}",
                            passage.text,
                            extra_terms(f"{passage.heading} {passage.text}"),
                            passage.first_line,
                            passage.last_line,
                            passage.page,
                            passage.sheet,
                        )
                        for number, passage in enumerate(file.passages)
                        if number < 1 << _ID_BITS
                    ),
                )

    def overview(self, roots: Iterable[Path], kinds: Sequence[str] = ()) -> tuple[int, dict[str, str]]:
        """Return how many files under `roots` are indexed with text, and why each of the others could not be read."""
        where, values = _restriction(roots, kinds)
        with self._connection() as db:
            files = db.execute(f"SELECT count(*) FROM file WHERE problem IS NULL AND {where}", values).fetchone()[0]
            rows = db.execute(f"SELECT path, problem FROM file WHERE problem IS NOT NULL AND {where}", values)
            return files, dict(rows.fetchall())

    def search(
        self, question: str, *, roots: Iterable[Path], kinds: Sequence[str] = (), limit: int, offset: int = 0
    ) -> Hits:
        """Return the passages that answer best, best first; an empty list means no word was found."""
        query = match_query(question)
        if query is None:
            return Hits([], 0)
        where, values = _restriction(roots, kinds)
        with self._connection() as db:
            db.execute("BEGIN")  # one state of the index for all that follows, whatever other processes write
            everything = db.execute(f"SELECT NOT EXISTS (SELECT 1 FROM file WHERE NOT ({where}))", values).fetchone()[0]
            inside = "" if everything else f" AND (rowid >> {_ID_BITS}) IN (SELECT id FROM file WHERE {where})"
            bound = [] if everything else values

            def count(expression: str, most: int = -1) -> int:
                matching = f"SELECT 1 FROM words WHERE words MATCH ?{inside} LIMIT ?"
                return db.execute(f"SELECT count(*) FROM ({matching})", [expression, *bound, most]).fetchone()[0]

            # FTS5 keeps a short row for each passage here: far less to go through than the passages themselves.
            passages = db.execute("SELECT count(*) FROM words_docsize").fetchone()[0]
            if passages > _MANY_PASSAGES:
                held = self._held_at(db) if everything else {}

                def held_by(word: str) -> int:
                    if word not in held:
                        held[word] = count(word, passages // 2 + 1)
                    return held[word]

                query = _narrowed(question, passages, held_by) or query
            # `ORDER BY rank` sorts inside FTS5, so only the winners are highlighted.
            best = db.execute(
                f"SELECT rowid, highlight(words, 1, '{_MARK_ON}', '{_MARK_OFF}') FROM words "
                f"WHERE words MATCH ?{inside} ORDER BY rank LIMIT ? OFFSET ?",
                [query, *bound, limit, offset],
            ).fetchall()
            return Hits([_hit(db, rowid, marked) for rowid, marked in best], count(query))

    def _held_at(self, db: sqlite3.Connection) -> dict[str, int]:
        """How many passages hold a word, as far as was asked before in this version: common words are asked often."""
        version = db.execute("SELECT version FROM state").fetchone()[0]
        known, held = self._held
        if known != version or len(held) > _MANY_WORDS:
            held = {}
            self._held = (version, held)
        return held

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        """A connection to a sound index; a damaged one is removed first, since it can be made again.

        Raises:
            sqlite3.OperationalError: the index folder cannot be written, or another process held it for too long.
        """
        try:
            db = self._open()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            logger.warning("the index %s is damaged; building it anew", self._file)
            self.discard()
            db = self._open()
        try:
            yield db
        finally:
            db.close()

    def _open(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # it holds the text of private files
        db = sqlite3.connect(self._file, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last writes, never the index
            if db.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
                with _transaction(db):
                    if db.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
                        for statement in _statements(_SCHEMA):
                            db.execute(statement)
                        db.execute(f"PRAGMA user_version = {_FORMAT}")
        except BaseException:
            db.close()
            raise
        return db

    def discard(self) -> None:
        """Remove the index. Other processes keep what they have open until their call ends."""
        for suffix in ("", "-wal", "-shm"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _transaction(db: sqlite3.Connection) -> Generator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.rollback()
        raise
    db.commit()


@contextmanager
def _change(db: sqlite3.Connection) -> Generator[None]:
    """A transaction that changes what is stored, and lets everybody know."""
    with _transaction(db):
        yield
        db.execute("UPDATE state SET version = version + 1")


def _statements(script: str) -> Generator[str]:
    """`executescript` would commit the transaction it runs in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _forget(db: sqlite3.Connection, path: str) -> None:
    row = db.execute("SELECT id FROM file WHERE path = ?", (path,)).fetchone()
    if row is not None:
        first = row[0] << _ID_BITS
        db.execute("DELETE FROM passage WHERE id >= ? AND id < ?", (first, first + (1 << _ID_BITS)))
        db.execute("DELETE FROM file WHERE id = ?", row)


def _under(root: Path) -> tuple[str, list[str]]:
    """An SQL condition on `path`: the file `root` itself, or anything inside the folder `root`.

    One range first, so that an index serves it: names as `root-2` are between a folder and what is in it.
    """
    inside = str(root).rstrip(os.sep) + os.sep
    after = inside[:-1] + chr(ord(inside[-1]) + 1)
    return "(path >= ? AND path < ? AND (path = ? OR path >= ?))", [str(root), after, str(root), inside]


def _restriction(roots: Iterable[Path], kinds: Sequence[str]) -> tuple[str, list[str]]:
    parts = [_under(root) for root in roots]
    where = "(" + (" OR ".join(condition for condition, _ in parts) or "FALSE") + ")"
    values = [value for _, bound in parts for value in bound]
    if kinds:
        where += f" AND kind IN ({','.join('?' * len(kinds))})"
        values += kinds
    return where, values


def _narrowed(question: str, passages: int, held_by: Callable[[str], int]) -> str | None:
    """Ask for a word that is not nearly everywhere: ranking every passage that holds a common word is what takes time.

    `held_by` says how many of `passages` hold a word; past the half it may stop counting. A word that more than half
    hold is not asked for at all beside others: BM25 gives it no weight, and yet FTS5 reads the whole list of its
    places more than once. Figures: docs/log.md, 2026-11-26.
    """
    held = {word: found for word in terms(question)[0] if (found := held_by(word))}
    weighty = {word: found for word, found in held.items() if found <= passages // 2}
    if not weighty:
        return None
    rarest = sorted(weighty, key=weighty.__getitem__)
    together = itertools.accumulate(weighty[word] for word in rarest)
    telling = [word for word, so_far in zip(rarest, together, strict=True) if so_far <= _ENOUGH_PASSAGES] or rarest[:1]
    return match_query(
        question, telling=telling if len(telling) < len(weighty) else (), left_out=held.keys() - weighty.keys()
    )


_MARK_ON, _MARK_OFF = "\x02", "\x03"


def _hit(db: sqlite3.Connection, rowid: int, marked: str) -> Hit:
    path = db.execute("SELECT path FROM file WHERE id = ?", (rowid >> _ID_BITS,)).fetchone()[0]
    heading, text, *place = db.execute(
        "SELECT heading, text, first_line, last_line, page, sheet FROM passage WHERE id = ?", (rowid,)
    ).fetchone()
    return Hit(path, Passage(text, heading.partition(" · ")[2], *place), _snippet(text, marked))


def _snippet(text: str, marked: str) -> str:
    """The stretch of `text` that holds the most different matched words, cut at words."""
    if len(text) <= _SNIPPET_CHARS:
        return text.strip()
    places: list[tuple[int, str]] = []
    plain = 0
    for piece in re.split(f"({_MARK_ON}[^{_MARK_OFF}]*{_MARK_OFF})", marked):
        word = piece.strip(_MARK_ON + _MARK_OFF)
        if piece.startswith(_MARK_ON):
            places.append((plain, word.lower()))
        plain += len(word) if piece.startswith(_MARK_ON) else len(piece)
    start, most = 0, 0
    for at, _ in places:
        found = len({word for place, word in places if at <= place < at + _SNIPPET_CHARS * 3 // 4})
        if found > most:
            start, most = at, found
    start = max(0, min(start - _SNIPPET_CHARS // 5, len(text) - _SNIPPET_CHARS))
    end = min(len(text), start + _SNIPPET_CHARS)
    if start > 0:
        start = next((at + 1 for at in range(start, min(start + 40, end)) if text[at].isspace()), start)
    if end < len(text):
        end = next((at for at in range(end, max(end - 40, start), -1) if text[at].isspace()), end)
    return ("…" if start > 0 else "") + text[start:end].strip() + ("…" if end < len(text) else "")
