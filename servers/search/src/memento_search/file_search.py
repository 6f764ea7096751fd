"""Searching the operator's folders: bring the index up to date, then ask it.

Owns the order of work (what is read where, for how long) and which files were left out and why. Small text is
read in a thread; PDF and office files in worker processes, which can be killed.
"""

import importlib.metadata
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from memento_kit.worker_process import WorkerCrashed, WorkerFailed, WorkerPool, WorkerTimedOut
from memento_search.document_text import READ_SECTIONS, can_read_documents
from memento_search.embeddings import EmbeddingFailed, Embeddings
from memento_search.file_index import FileIndex, Hit, Hits, ReadFile, digest
from memento_search.folder_scan import FoundFile, Scan, scan_folders
from memento_search.passages import (
    PARSED_ELSEWHERE,
    Kind,
    NotText,
    Passage,
    file_kind,
    file_passages,
    file_suffix,
    section_passages,
)

__all__ = ["FileSearch", "FileSearchResult", "Limits", "Progress"]

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], Awaitable[None]]
"""Called with files done, files to do, and what is going on."""

_BATCH_SECONDS = 0.25
"""How long one hop into a thread reads and writes: short enough to report progress and to share the index."""
_BATCH_BYTES = 8_000_000
_QUICK_LOOK_SECONDS = 0.05
"""A look at the folders that took no longer is taken at every call."""
_LOOK_PAUSE = 20
"""How many times longer than it took a slow look is believed: looking then takes a twentieth of the time."""

_REORDERED = 50
"""So many of the best passages by words are compared with the question by meaning: one request, a page or five."""
_RANK_CONSTANT = 60
"""Of Cormack et al. (SIGIR 2009), counted from 1. Not tuned: no embedding model could be had where this was written."""

_NEEDS_DOCUMENTS = "needs the memento-documents package, which is not installed beside this server"


@dataclass(frozen=True)
class Limits:
    max_files: int
    max_file_bytes: int
    include_hidden: bool
    index_seconds: float
    document_seconds: float
    document_memory_bytes: int
    document_processes: int


@dataclass(frozen=True)
class FileSearchResult:
    hits: Hits
    indexed_files: int
    left_out: dict[str, str]
    pending_files: int
    """Files that the time limit did not let in; the next call goes on with them."""
    warning: str | None = None
    """Why passages were ranked by words alone, though by meaning too was asked for."""


@dataclass(frozen=True)
class _Look:
    """What the last look at the folders found, when all of it was in the index."""

    roots: Sequence[Path]
    reader: str | None
    scan: Scan
    index_version: int
    fresh_until: float


class FileSearch:
    """One index for the life of the server. Several calls at once share the work of bringing it up to date."""

    def __init__(self, index: FileIndex, limits: Limits, embeddings: Embeddings | None = None) -> None:
        self._index = index
        self._embeddings = embeddings
        self._limits = limits
        self._refreshing = anyio.Lock()
        self._looks: dict[tuple[Path, ...], _Look] = {}
        self._workers = WorkerPool(
            READ_SECTIONS,
            size=limits.document_processes,
            timeout_seconds=limits.document_seconds,
            max_memory_bytes=limits.document_memory_bytes,
        )

    async def __aenter__(self) -> "FileSearch":
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._workers.__aexit__(*exc_info)

    async def search(
        self,
        question: str,
        *,
        roots: Sequence[Path],
        kinds: Sequence[Kind],
        limit: int,
        offset: int,
        progress: Progress,
    ) -> FileSearchResult:
        """Index what is new or changed under `roots`, then search it.

        Raises:
            sqlite3.OperationalError: the index cannot be written or read.
        """
        scan, pending = await self._refresh(roots, progress)
        hits, warning = await self._ranked(question, roots, kinds, limit, offset)
        count, problems = await to_thread.run_sync(self._index.overview, roots, kinds)
        left_out = {
            path: why for path, why in {**scan.left_out, **problems}.items() if not kinds or file_kind(path) in kinds
        }
        return FileSearchResult(hits, count, left_out, pending, warning)

    async def _ranked(
        self, question: str, roots: Sequence[Path], kinds: Sequence[Kind], limit: int, offset: int
    ) -> tuple[Hits, str | None]:
        """Find by words; with embeddings put the best of what was found in an order that meaning has a say in."""

        def by_words(limit: int, offset: int) -> Hits:
            return self._index.search(question, roots=roots, kinds=kinds, limit=limit, offset=offset)

        if self._embeddings is None or offset >= _REORDERED:
            return await to_thread.run_sync(by_words, limit, offset), None
        found = await to_thread.run_sync(by_words, max(_REORDERED, offset + limit), 0)
        best, rest = found.hits[:_REORDERED], found.hits[_REORDERED:]
        warning = None
        if best:
            texts = [f"{hit.passage.heading}\n{hit.passage.text}".strip() for hit in best]
            try:
                best = _fused(best, await self._embeddings.similarities(question, texts))
            except EmbeddingFailed as exc:
                warning = f"Ranked by words alone: the embeddings endpoint {exc}."
        return Hits([*best, *rest][offset : offset + limit], found.total), warning

    async def _refresh(self, roots: Sequence[Path], progress: Progress) -> tuple[Scan, int]:
        """Return what is there, and how many files there was no time to read."""
        limits = self._limits
        deadline = time.monotonic() + limits.index_seconds
        async with self._refreshing:
            look, outdated = await to_thread.run_sync(self._look, tuple(roots))
            scan, reader = look.scan, look.reader
            if not outdated:
                self._looks = {tuple(roots): look}
                return scan, 0
            texts = [path for path in outdated if file_suffix(path) not in PARSED_ELSEWHERE]
            documents = [path for path in outdated if file_suffix(path) in PARSED_ELSEWHERE]
            done = 0
            while done < len(texts) and time.monotonic() < deadline:
                await progress(done, len(outdated), "reading text files")
                done += await to_thread.run_sync(self._index_texts, texts[done:], outdated, scan)
            waiting = documents[::-1]

            async def read_documents() -> None:
                while waiting and time.monotonic() < deadline:
                    path = waiting.pop()
                    count = done + len(documents) - len(waiting) - 1
                    await progress(count, len(outdated), f"reading {os.path.basename(path)}")
                    await self._index_document(path, outdated[path], reader, scan)

            async with anyio.create_task_group() as tasks:
                for _ in range(min(limits.document_processes, len(documents))):
                    tasks.start_soon(read_documents)
        return scan, len(texts) - done + len(waiting)

    def _look(self, roots: tuple[Path, ...]) -> tuple[_Look, dict[str, str | None]]:
        """Look at the folders and say which files are to be read; blocking.

        A look at many files takes long (100,000: half a second). So one that did is believed for `_LOOK_PAUSE` times as
        long; and when it finds what the last one found, and nobody changed the index, the two need no comparison.
        """
        started = time.monotonic()
        reader = _documents_reader()
        last = self._looks.get(roots)
        if last and (last.reader, last.index_version) != (reader, self._index.version()):
            last = None
        if last and started < last.fresh_until:
            return last, {}
        limits = self._limits
        scan = scan_folders(
            roots,
            max_files=limits.max_files,
            max_file_bytes=limits.max_file_bytes,
            include_hidden=limits.include_hidden,
        )
        if reader is None:
            for path in [path for path in scan.files if file_suffix(path) in PARSED_ELSEWHERE]:
                del scan.files[path]
                scan.left_out[path] = _NEEDS_DOCUMENTS
        is_known = last is not None and last.scan.files == scan.files
        outdated = {} if is_known else self._index.outdated(scan, roots, reader=reader)
        now = time.monotonic()
        pause = (now - started) * _LOOK_PAUSE if now - started > _QUICK_LOOK_SECONDS else 0.0
        return _Look(roots, reader, scan, self._index.version(), now + pause), outdated

    def _index_texts(self, paths: Sequence[str], outdated: dict[str, str | None], scan: Scan) -> int:
        """Read and store files for a quarter of a second; return how many that were, at least one."""
        until = time.monotonic() + _BATCH_SECONDS
        read: list[ReadFile] = []
        lost: list[str] = []
        size_bytes = 0
        for path in paths:
            if (read or lost) and (time.monotonic() > until or size_bytes > _BATCH_BYTES):
                break
            content = _content(path, self._limits.max_file_bytes, scan, lost)
            if content is not None:
                size_bytes += len(content.data)
                read.append(_read_text_file(path, content, outdated[path]))
        self._index.store(read, lost=lost)
        return len(read) + len(lost)

    async def _index_document(self, path: str, known_sha256: str | None, reader: str | None, scan: Scan) -> None:
        lost: list[str] = []
        content = await to_thread.run_sync(_content, path, self._limits.max_file_bytes, scan, lost)
        if content is None:
            await to_thread.run_sync(lambda: self._index.store([], lost=lost))
            return
        file = ReadFile(path, content.found, content.read_at_ns, digest(content.data), reader=reader)
        if file.sha256 == known_sha256:
            file = replace(file, unchanged=True)
        else:
            try:
                sections = await self._workers.call({"path": path})
                passages = await to_thread.run_sync(_document_passages, sections)
                file = replace(file, passages=passages, problem=None if passages else "holds no text")
            except WorkerFailed as exc:
                file = replace(
                    file, problem=f"cannot be read: {exc}" if exc.kind == "Unreadable" else "cannot be parsed"
                )
                if exc.kind != "Unreadable":
                    logger.warning("reading %s failed with %s: %s", path, exc.kind, exc)
            except WorkerTimedOut:
                file = replace(file, problem=f"took longer than {self._limits.document_seconds:g} seconds to read")
            except WorkerCrashed as exc:
                file = replace(file, problem=f"could not be read: {exc}")
        await to_thread.run_sync(lambda: self._index.store([file]))


def _fused(hits: Sequence[Hit], similarities: Sequence[float]) -> list[Hit]:
    """Reciprocal rank fusion of the order that `hits` come in with the order by similarity."""
    by_meaning = sorted(range(len(hits)), key=lambda at: -similarities[at])
    place = {at: rank for rank, at in enumerate(by_meaning)}
    score = [1 / (_RANK_CONSTANT + at) + 1 / (_RANK_CONSTANT + place[at]) for at in range(len(hits))]
    return [hits[at] for at in sorted(range(len(hits)), key=lambda at: -score[at])]


@dataclass(frozen=True)
class _Content:
    data: bytes
    found: FoundFile
    read_at_ns: int


_OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
"""No link that took the file's place since it was found is followed, and no pipe waited for."""


def _content(path: str, max_bytes: int, scan: Scan, lost: list[str]) -> _Content | None:
    """Read a file with the size and time it has while open; note it as `lost` when that cannot be done."""
    read_at_ns = time.time_ns()
    try:
        with open(os.open(path, _OPEN_FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(max_bytes + 1)
    except OSError as exc:
        lost.append(path)
        if not isinstance(exc, FileNotFoundError):
            scan.left_out[path] = f"cannot be opened ({exc.strerror})"
        return None
    if len(data) > max_bytes:  # it grew since it was found, or its size was a lie, as those in /proc are
        lost.append(path)
        scan.left_out[path] = f"larger than {max_bytes} bytes"
        return None
    return _Content(data, FoundFile(file_kind(path), status.st_size, status.st_mtime_ns), read_at_ns)


def _read_text_file(path: str, content: _Content, known_sha256: str | None) -> ReadFile:
    file = ReadFile(path, content.found, content.read_at_ns, digest(content.data))
    if file.sha256 == known_sha256:
        return replace(file, unchanged=True)
    try:
        return replace(file, passages=file_passages(content.data, content.found.kind))
    except NotText as exc:
        return replace(file, problem=str(exc), reader=_documents_reader())


def _document_passages(sections: list[dict[str, Any]]) -> list[Passage]:
    return [
        passage
        for section in sections
        for passage in section_passages(section["text"], page=section["page"], sheet=section["sheet"])
    ]


def _documents_reader() -> str | None:
    """The reader of PDF and office files by name and version, or `None` when there is none."""
    if not can_read_documents():
        return None
    return f"memento-documents {importlib.metadata.version('memento-documents')}"
