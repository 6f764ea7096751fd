"""The documents a server has open: found in the allowed folders or fetched, read in isolation, kept by content.

Owns the way from a name to parsed text, and the memory of it: a document is known by the hash of its bytes, so the
same content under two names is read once, and a changed file is read anew.
"""

import base64
import hashlib
import os
import re
import stat
import tempfile
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import anyio.to_thread

from memento_documents.cache import DocumentCache
from memento_documents.isolation import Isolation, OnProgress
from memento_documents.kinds import MEMBER_MARK, Unreadable
from memento_documents.office_pages import OfficePages, no_office
from memento_documents.reading import Document, Section
from memento_documents.text_format import TextFormat
from memento_kit import AllowedPaths

if TYPE_CHECKING:
    from memento_kit.safe_http import SafeHttp

__all__ = ["Library"]

_HASHED_AT_ONCE_BYTES = 1 << 20


@dataclass(frozen=True)
class _Opened:
    name: str
    """The file's own name, and after it the members to go into: `data.zip!/table.csv`."""
    members: str
    descriptor: int
    status: os.stat_result


class Library:
    """Reads documents by path. `cache_chars` bounds the text kept in memory, `max_file_bytes` what is opened."""

    def __init__(
        self,
        paths: AllowedPaths,
        isolation: Isolation,
        *,
        max_file_bytes: int,
        cache_chars: int,
        layout: Isolation | None = None,
        cache: DocumentCache | None = None,
        office: OfficePages | None = None,
        web: "SafeHttp | None" = None,
    ) -> None:
        self._cache = cache
        self._web = web
        self._pages: OrderedDict[str, bytes] = OrderedDict()
        self._paths = paths
        self._layout = layout
        self._office = office
        self._printed: tuple[tuple[str, ...], bytes] | None = None
        """The last Office file that was printed, so that looking through its pages prints it once."""
        self._isolation = isolation
        self._max_file_bytes = max_file_bytes
        self._cache_chars = cache_chars
        self._documents: OrderedDict[tuple[str, ...], Document] = OrderedDict()
        self._hashes: OrderedDict[tuple[int, int, int, int], str] = OrderedDict()

    async def read(
        self,
        source: str,
        *,
        sheet: str | None = None,
        cells: str | None = None,
        whole: bool = False,
        text_format: TextFormat = "markdown",
        on_progress: OnProgress | None = None,
    ) -> Document:
        """Return the document, from memory or disk when its content has been read before.

        Raises:
            PathNotAllowed: the path is outside the allowed folders, or not there.
            Unreadable: it is no readable document; one line says why.
        """
        async with self._opened(source) as opened:
            suffix = PurePath(opened.name).suffix.lower()
            key = (await self._hash(opened), opened.members, suffix, sheet or "", cells or "", str(whole), text_format)
            known = self._documents.get(key)
            if known is not None:
                self._documents.move_to_end(key)
                return known
            raw = None if self._cache is None else await anyio.to_thread.run_sync(self._cache.get, key)
            if raw is None:
                raw = await self._isolation.run(
                    "memento_documents.jobs:read_document",
                    [opened.name, sheet, cells, whole, text_format],
                    opened.descriptor,
                    on_progress=on_progress,
                )
                if self._cache is not None:
                    await anyio.to_thread.run_sync(self._cache.put, key, raw)
        document = _document(raw)
        self._documents[key] = document
        self._forget()
        return document

    async def run(self, job: str, source: str, arguments: list[Any], *, on_progress: OnProgress | None = None) -> Any:
        """Run one of `jobs` on `source`, in a child, and return its JSON answer. Nothing of it is kept.

        Raises:
            PathNotAllowed, Unreadable: as for `read`.
        """
        async with self._opened(source) as opened:
            return await self._isolation.run(
                f"memento_documents.jobs:{job}",
                [opened.name, *arguments],
                opened.descriptor,
                on_progress=on_progress,
            )

    async def page_picture(self, source: str, page: int, region: list[float] | None, max_pixels: int) -> dict[str, Any]:
        """`jobs.page_picture`; an Office file is printed to PDF first, and the PDF kept like parsed text.

        Raises:
            PathNotAllowed, Unreadable: as for `read`, and where there is no LibreOffice.
        """
        job, how = "memento_documents.jobs:page_picture", [page, region, max_pixels]
        async with self._opened(source) as opened:
            raw: dict[str, Any] = await self._isolation.run(job, [opened.name, *how], opened.descriptor)
            if "office" not in raw:
                return raw
            pdf = await self._print(opened, raw["office"])
        with tempfile.TemporaryFile() as file:
            file.write(pdf)
            file.flush()
            return await self._isolation.run(job, ["document.pdf", *how], file.fileno())

    async def _print(self, opened: _Opened, kind: str) -> bytes:
        if self._office is None:
            raise no_office(kind)
        version = await anyio.to_thread.run_sync(self._office.version)
        key = (await self._hash(opened), opened.members, kind, version)
        if self._printed is not None and self._printed[0] == key:
            return self._printed[1]
        kept = None if self._cache is None else await anyio.to_thread.run_sync(self._cache.get, key)
        if kept is None:
            pdf = await self._office.to_pdf(kind, await self._writer(opened))
            if self._cache is not None:
                await anyio.to_thread.run_sync(self._cache.put, key, base64.b64encode(pdf).decode())
        else:
            pdf = base64.b64decode(kept)
        self._printed = key, pdf
        return pdf

    async def _writer(self, opened: _Opened) -> Callable[[Path], None]:
        """What puts the document's bytes at a path. What is in an archive is unpacked in isolation."""
        if opened.members:
            packed: str = await self._isolation.run("memento_documents.jobs:content", [opened.name], opened.descriptor)
            return lambda path: _write(path, base64.b64decode(packed))
        return lambda path: _copy(opened.descriptor, path)

    async def tables(
        self, source: str, pages: str | None, *, on_progress: OnProgress | None = None
    ) -> tuple[str, list[dict[str, Any]], list[str]]:
        """A document's kind, its tables as {page, rows, engine} with `box` (PDF) or `heading` (others), and notes on
        what went wrong on the way.

        The layout model looks only at a PDF's pages that may have tables and whose tables are not tagged.

        Raises:
            PathNotAllowed, Unreadable: as for `read`, and for what has no tables in it.
        """
        quick: dict[str, Any] = await self.run("tables", source, [pages], on_progress=on_progress)
        kind: str = quick["kind"]
        tables: list[dict[str, Any]] = quick["tables"]
        uncertain: list[int] = quick["uncertain"]
        if self._layout is None or not uncertain:
            return kind, tables, []
        try:
            async with self._opened(source) as opened:
                raw = await self._layout.run(
                    "memento_documents.jobs:layout_tables",
                    [opened.name, uncertain],
                    opened.descriptor,
                    on_progress=on_progress,
                )
        except Unreadable as exc:
            return kind, tables, [f"The layout model did not finish ({exc}) These are the quick recogniser's tables."]
        surer: list[dict[str, Any]] = [{**table, "engine": "layout"} for table in raw]
        both = [table for table in tables if table["page"] not in uncertain] + surer
        return kind, sorted(both, key=lambda table: (table["page"], table["box"][1])), []

    @asynccontextmanager
    async def _opened(self, source: str) -> AsyncGenerator[_Opened]:
        """Open once: what is checked, hashed and parsed is then one and the same file."""
        outer, mark, members = source.partition(MEMBER_MARK)
        members = mark + members
        if re.match(r"https?://", source, re.IGNORECASE):
            content = await self._fetched(outer)
            with tempfile.TemporaryFile() as file:
                file.write(content)
                file.flush()
                name = unquote(PurePosixPath(urlsplit(outer).path).name) or "page"
                yield _Opened(name + members, members, file.fileno(), os.fstat(file.fileno()))
            return
        path = self._paths.resolve(outer)
        if path.is_dir():
            names = sorted(child.name for child in path.iterdir() if not child.name.startswith("."))
            listed = ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
            raise Unreadable(f"This is a folder; it holds: {listed or 'nothing'}. Name one of its files.")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)  # no wait on a pipe
        except OSError as exc:
            raise Unreadable(f"The file cannot be opened: {exc.strerror}.") from exc
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable("This is a device, socket or pipe, not a file.")
            if status.st_size > self._max_file_bytes:
                limit = f"up to {self._max_file_bytes / 1e6:.0f} MB are read here"
                raise Unreadable(f"The file has {status.st_size / 1e6:.0f} MB; {limit}.")
            yield _Opened(path.name + members, members, descriptor, status)
        finally:
            os.close(descriptor)

    async def _fetched(self, url: str) -> bytes:
        """What is at an address; the last few are kept, so that reading on fetches nothing anew."""
        if self._web is None:
            raise Unreadable("Addresses are not fetched here; name a file in the allowed folders.")
        if url not in self._pages:
            from memento_kit.safe_http import SafeHttpError

            try:
                answer = await self._web.fetch(url)
            except SafeHttpError as exc:
                raise Unreadable(str(exc)) from exc
            if answer.status >= 400:
                raise Unreadable(f"The address answered with HTTP {answer.status}.")
            self._pages[url] = answer.body
            while len(self._pages) > 1 and sum(map(len, self._pages.values())) > self._max_file_bytes:
                self._pages.popitem(last=False)
        self._pages.move_to_end(url)
        return self._pages[url]

    async def _hash(self, opened: _Opened) -> str:
        status = opened.status
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if identity not in self._hashes:
            self._hashes[identity] = await anyio.to_thread.run_sync(_sha256, opened.descriptor)
            if len(self._hashes) > 10_000:
                self._hashes.popitem(last=False)
        return self._hashes[identity]

    def _forget(self) -> None:
        """Let the longest unused go until the rest fits; the newest stays whatever its size."""
        while len(self._documents) > 1 and sum(map(_chars, self._documents.values())) > self._cache_chars:
            self._documents.popitem(last=False)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _copy(descriptor: int, path: Path) -> None:
    with path.open("wb") as file:
        while piece := os.pread(descriptor, _HASHED_AT_ONCE_BYTES, file.tell()):
            file.write(piece)


def _chars(document: Document) -> int:
    return sum(len(section.text) for section in document.sections)


def _sha256(descriptor: int) -> str:
    digest = hashlib.sha256()
    at = 0
    while piece := os.pread(descriptor, _HASHED_AT_ONCE_BYTES, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def _document(raw: Any) -> Document:
    sections = [Section(**section) for section in raw["sections"]]
    return Document(**{**raw, "sections": cast(Any, sections)})
