"""From a URL to a page that can be read: fetched once, turned into text once, kept for a while.

Owns what is done with each kind of content and which failures a model reads about. How a connection is made safe
is `memento_kit.safe_http`'s; what matters on a page is `extraction`'s.
"""

import hashlib
import importlib.util
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import anyio
from anyio import to_thread

from memento_crawl.browser import Browser, BrowserProblem, NotAPage, Rendered
from memento_crawl.charset import decode_page
from memento_crawl.extraction import EXTRACT, Content, Format
from memento_kit import strip_invisible
from memento_kit.safe_http import HttpAnswer, HttpLimits, SafeHttp, SafeHttpError
from memento_kit.worker_process import WorkerCrashed, WorkerFailed, WorkerPool, WorkerTimedOut

__all__ = ["Link", "Page", "PageProblem", "Pages", "PagesLimits", "Render", "check_status"]

Render = Literal["auto", "always", "never"]

READ_DOCUMENT = "memento_crawl.documents:read_document"

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download"})
_TEXT_TYPES = frozenset(
    {
        "application/json",
        "application/ld+json",
        "application/xml",
        "application/javascript",
        "application/x-javascript",
        "application/yaml",
        "application/x-yaml",
        "application/toml",
        "application/sql",
        "application/x-ndjson",
        "application/x-sh",
        "application/csv",
        "message/rfc822",
    }
)
_DOCUMENT_TYPES = {
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/epub+zip": ".epub",
    "application/msword": ".doc",
    "application/vnd.ms-excel": ".xls",
    "application/vnd.ms-powerpoint": ".ppt",
}
_STATUS_ADVICE = {
    400: "The server does not understand this URL: check it.",
    401: "It needs a login, which this tool has not. Try another source.",
    402: "It wants payment. Try another source.",
    403: "It is closed to programs or to this country. Try another source, or an archived copy.",
    404: "There is no such page: check the URL, or search for the page again.",
    410: "The page was removed: try an archived copy or another source.",
    429: "It asks for fewer requests: wait, or try another source.",
    451: "It is withheld for legal reasons. Try another source.",
}


class PageProblem(Exception):
    """There is nothing to read. The message is written for the model: what happened and what to try next."""


@dataclass(frozen=True)
class PagesLimits:
    http: HttpLimits
    extract_seconds: float
    extract_memory_bytes: int
    worker_processes: int
    cache_seconds: float
    cache_chars: int
    language: str


@dataclass(frozen=True)
class Link:
    url: str
    text: str


@dataclass(frozen=True)
class Page:
    """A page as text. What is not known about it is `None`."""

    url: str
    """Where the text came from, redirects followed."""
    status: int
    content_type: str
    text: str
    sha256: str
    """Of the bytes that were served."""
    fetched_at: str
    """UTC, ISO 8601."""
    title: str | None = None
    author: str | None = None
    published: str | None = None
    site: str | None = None
    language: str | None = None
    hidden_chars: int = 0
    forwards_to: str | None = None
    warnings: tuple[str, ...] = ()
    rendered: bool = False
    """A browser showed the page and its scripts ran."""
    render_reason: str = "Its HTML holds the text."
    """Why a browser was used or not."""
    needs_script: bool = False
    links: tuple[Link, ...] = ()
    """All links of the page that a reader sees and could follow, each address once, in their order on the page."""

    @property
    def kept_chars(self) -> int:
        """What keeping the page costs."""
        return len(self.text) + sum(len(link.url) + len(link.text) for link in self.links)


class Pages:
    """Reads pages; one for the life of the server, any number of calls at once."""

    def __init__(
        self,
        http: SafeHttp,
        limits: PagesLimits,
        browser: Browser | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._browser = browser
        self._limits = limits
        self._clock = clock
        self._kept: OrderedDict[tuple[str, Content, Format, Render], tuple[float, Page]] = OrderedDict()
        self._kept_chars = 0
        self._extractors = self._workers(EXTRACT)
        self._document_readers = self._workers(READ_DOCUMENT)

    async def __aenter__(self) -> "Pages":
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._extractors.__aexit__(*exc_info)
        await self._document_readers.__aexit__(*exc_info)

    def _workers(self, function: str) -> WorkerPool:
        return WorkerPool(
            function,
            size=self._limits.worker_processes,
            timeout_seconds=self._limits.extract_seconds,
            max_memory_bytes=self._limits.extract_memory_bytes,
        )

    async def read(self, url: str, content: Content, format: Format, render: Render = "auto") -> Page:
        """Return the page at `url`: a kept one if it is young enough, so that reading on never fetches again.

        Raises:
            PageProblem: it cannot be fetched or read; the message says what to try.
        """
        key = (url.strip().partition("#")[0], content, format, render)
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept[0] < self._limits.cache_seconds:
            self._kept.move_to_end(key)
            return kept[1]
        page = await self._read(key[0], content, format, render)
        self._keep(key, page)
        return page

    async def _read(self, url: str, content: Content, format: Format, render: Render) -> Page:
        """Over HTTP first, since a browser costs ten times as much; with it where the page's text is not in its HTML.

        The main text decides, not all text: menus are long on pages whose content scripts bring (guides/web.md §2.4).
        """
        if render == "always":
            return await self._rendered_page(url, content, format, "It was asked for.")
        page = await self._fetch(url, content, format)
        if render == "never":
            return replace(page, render_reason="It was not to be rendered.")
        if not page.needs_script:
            return page
        if self._browser is None or not self._browser.is_installed:
            return replace(page, render_reason="There is no browser here.")
        try:
            return await self._rendered_page(url, content, format, "Its HTML holds little text and runs scripts.")
        except PageProblem as exc:
            return replace(
                page, warnings=(*page.warnings, f"Rendering failed: {exc}"), render_reason="Rendering failed."
            )

    async def _rendered_page(self, url: str, content: Content, format: Format, reason: str) -> Page:
        if self._browser is None:
            raise PageProblem("Rendering is switched off here. Try render='never'.")
        try:
            shown = await self._browser.render(url)
        except NotAPage:
            return replace(await self._fetch(url, content, format), render_reason="It is a file, not a page.")
        except BrowserProblem as exc:
            raise PageProblem(str(exc)) from exc
        check_status(shown.url, shown.status, "")
        page = Page(
            url=shown.url,
            status=shown.status,
            content_type=shown.content_type,
            text="",
            sha256=hashlib.sha256(shown.html.encode("utf-8", "surrogatepass")).hexdigest(),
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
            rendered=True,
            render_reason=reason,
        )
        return await self._markup_page(page, shown.html, content, format, [*_refusals(shown)], shown.hidden_chars)

    def _keep(self, key: tuple[str, Content, Format, Render], page: Page) -> None:
        replaced = self._kept.pop(key, None)
        self._kept[key] = (self._clock(), page)
        # A running sum: counting all that is kept took longer, after a few hundred pages, than reading one.
        self._kept_chars += page.kept_chars - (replaced[1].kept_chars if replaced else 0)
        while len(self._kept) > 1 and self._kept_chars > self._limits.cache_chars:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._kept_chars -= oldest.kept_chars

    async def _fetch(self, url: str, content: Content, format: Format) -> Page:
        headers = {
            "accept": "text/html,application/xhtml+xml,application/json;q=0.9,text/*;q=0.9,*/*;q=0.5",
            "accept-language": self._limits.language,
        }
        try:
            answer = await self._http.fetch(url, headers=headers)
        except SafeHttpError as exc:
            raise PageProblem(str(exc)) from exc
        check_status(answer.url, answer.status, answer.headers.get("retry-after", ""))
        kind = _kind(answer)
        fetched = Page(
            url=answer.url,
            status=answer.status,
            content_type=answer.content_type or "unknown",
            text="",
            sha256=hashlib.sha256(answer.body).hexdigest(),
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if kind == "html":
            return await self._html_page(fetched, answer, content, format)
        if kind == "text":
            return _text_page(fetched, answer)
        if kind.startswith("."):
            return await self._document_page(fetched, answer, kind)
        raise PageProblem(
            f"{answer.url} is {kind} ({len(answer.body)} bytes), not a page of text. Look for a page that describes it."
        )

    async def _html_page(self, page: Page, answer: HttpAnswer, content: Content, format: Format) -> Page:
        decoded = await to_thread.run_sync(decode_page, answer.body, answer.headers.get("content-type", ""))
        warnings: list[str] = []
        if decoded.is_guess:
            warnings.append(f"The page does not say its encoding truly; read as {decoded.encoding}.")
        read = await self._markup_page(page, decoded.text, content, format, warnings)
        declared = answer.headers.get("content-language", "").partition(",")[0].strip()
        return read if read.language else replace(read, language=declared or None)

    async def _markup_page(
        self, page: Page, markup: str, content: Content, format: Format, warnings: list[str], unseen_chars: int = 0
    ) -> Page:
        """Fill `page` with what its `markup` says. `unseen_chars` have been taken out of that already."""
        # Here, since the extractor drops some of these uncounted, and again below, since they may come as entities.
        source = await to_thread.run_sync(strip_invisible, markup)
        arguments = {"html": source, "url": page.url, "content": content, "format": format}
        found: dict[str, Any] = await self._call(self._extractors, arguments, page.url)
        text = strip_invisible(found["text"])
        hidden_chars = unseen_chars + found["hidden_chars"] + len(markup) - len(source) + len(found["text"]) - len(text)
        if hidden_chars:
            warnings.append(f"{hidden_chars} characters that a reader would not see were left out.")
        if found["method"] == "fallback":
            warnings.append("The main content could not be told apart, so this is all of the page but its frame.")
        if found["needs_script"] and not page.rendered:
            warnings.append("The page seems to be made by scripts, so little of it may be in this text.")
        if found["forwards_to"]:
            warnings.append("The page sends its readers on to another address.")
        if not text.strip():
            warnings.append(
                "The page holds no text. Try content='full'." if content == "main" else "The page holds no text."
            )
        return replace(
            page,
            text=text,
            title=found["title"],
            author=found["author"],
            published=found["published"],
            site=found["site"],
            language=found["language"],
            needs_script=found["needs_script"] and not page.rendered,
            hidden_chars=hidden_chars,
            forwards_to=found["forwards_to"],
            links=tuple(Link(url, strip_invisible(text)) for url, text in found["links"]),
            warnings=tuple(warnings),
        )

    async def _document_page(self, page: Page, answer: HttpAnswer, suffix: str) -> Page:
        if importlib.util.find_spec("memento_documents") is None:
            raise PageProblem(
                f"{answer.url} is a {suffix[1:].upper()} file, which this server cannot read alone. Use "
                "download_file, then read_document of the documents server; or ask the operator to install "
                "memento-crawl[documents]."
            )
        with tempfile.TemporaryDirectory(prefix="memento-crawl-") as folder:
            path = Path(folder) / f"document{suffix}"
            await anyio.Path(path).write_bytes(answer.body)
            text: str = await self._call(self._document_readers, {"path": str(path)}, answer.url)
        return replace(
            page, text=strip_invisible(text), title=answer.url.partition("?")[0].rstrip("/").rpartition("/")[2] or None
        )

    async def _call(self, workers: WorkerPool, arguments: dict[str, Any], url: str) -> Any:
        try:
            return await workers.call(arguments)
        except WorkerTimedOut as exc:
            seconds = self._limits.extract_seconds
            raise PageProblem(
                f"{url} took longer than {seconds:g} seconds to read. Try content='full' or another source."
            ) from exc
        except WorkerCrashed as exc:
            raise PageProblem(f"{url} could not be read: {exc}. Try content='full' or another source.") from exc
        except WorkerFailed as exc:
            if exc.kind == "Unreadable":  # the documents package's word for a file it knows it cannot read
                raise PageProblem(f"{url} could not be read: {exc}") from exc
            if exc.kind in {"MemoryError", "OSError"}:  # the limit on memory, wherever the worker met it
                raise PageProblem(f"{url} could not be read: {exc}. Try content='full' or another source.") from exc
            raise


def _refusals(shown: Rendered) -> list[str]:
    if not shown.refused:
        return []
    return [f"{len(shown.refused)} hosts that the page uses were not reached: {', '.join(shown.refused[:5])}."]


def check_status(url: str, status: int, retry_after: str) -> None:
    """Say what the model can do about an answer that is not the page.

    Raises:
        PageProblem: the status is an error.
    """
    if 200 <= status < 300:
        return
    if status >= 500:
        advice = "It is out of order: try again later, or another source."
    else:
        advice = _STATUS_ADVICE.get(status, "Try another source.")
    if retry_after.isdigit():
        advice += f" It says to wait {retry_after} seconds."
    raise PageProblem(f"{url} answered HTTP {status}. {advice}")


def _kind(answer: HttpAnswer) -> str:
    """Say what the body is: `html`, `text`, the suffix of a document, or in words what else.

    The declared type decides, as in browsers; an undeclared or meaningless one is looked at. Types that lie about
    text (a PDF served as text/plain) are found out by their first bytes.
    """
    declared, start = answer.content_type, answer.body[:1024].lstrip()
    if b"%PDF-" in answer.body[:1024]:
        return ".pdf"
    if declared in _DOCUMENT_TYPES:
        return _DOCUMENT_TYPES[declared]
    if declared in _HTML_TYPES:
        return "html" if not _is_binary(answer.body) else "binary data that says it is a page"
    if declared in _UNTYPED and start[:14].lower().startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "html"
    if declared.startswith("text/") or declared in _TEXT_TYPES or declared.endswith(("+json", "+xml")):
        return "text" if not _is_binary(answer.body) else "binary data that says it is text"
    if declared in _UNTYPED:
        suffix = "." + answer.url.partition("?")[0].rpartition("/")[2].rpartition(".")[2].lower()
        if start.startswith(b"PK\x03\x04") and suffix in _DOCUMENT_TYPES.values():
            return suffix
        return "text" if not _is_binary(answer.body) else "binary data"
    return f"of type {declared}"


def _is_binary(body: bytes) -> bool:
    return b"\x00" in body[:4096] and not body.startswith((b"\xff\xfe", b"\xfe\xff"))


def _text_page(page: Page, answer: HttpAnswer) -> Page:
    decoded = decode_page(answer.body, answer.headers.get("content-type", ""))
    warnings = (f"The text does not say its encoding truly; read as {decoded.encoding}.",) if decoded.is_guess else ()
    text = strip_invisible(decoded.text)
    return replace(page, text=text, hidden_chars=len(decoded.text) - len(text), warnings=warnings)
