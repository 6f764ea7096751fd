"""A site, page by page: what its sitemap and its links lead to, politely, and kept so that it can be gone on with.

Owns which pages belong to a crawl, the order and pace of reading them, and the record on disk. A crawl *is* its
record, one JSON line per page: what is still to be read follows from it, so that nothing else needs saving, and a
record whose last line is torn has lost that page only. How a page is read is `pages`'s.

robots.txt as RFC 9309 has it: none or forbidden (4xx) allows, out of order (5xx) or silence disallows.
"""

import contextlib
import hashlib
import html
import json
import re
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urldefrag, urlsplit

import anyio
from anyio import to_thread

from memento_crawl.pages import PageProblem, Pages
from memento_kit.safe_http import HttpLimits, SafeHttp, SafeHttpError

if TYPE_CHECKING:
    from protego import Protego

__all__ = ["CrawledPage", "Plan", "Site", "SiteCrawler", "SiteLimits"]

Pause = Callable[[float], Awaitable[None]]
Tell = Callable[[int, int, str], Awaitable[None]]

_MAX_FOUND = 5000
_MAX_SITEMAPS = 5
_MAX_SITEMAP_BYTES = 50_000_000
_LOCATION = re.compile(r"<loc>\s*(?:<!\[CDATA\[)?\s*([^<\]]+?)\s*(?:\]\]>)?\s*</loc>", re.IGNORECASE)
_NOT_PAGES = re.compile(r"\.(?:png|jpe?g|gif|webp|svg|ico|css|js|mp[34]|webm|zip|t?gz|exe|dmg|woff2?)$", re.IGNORECASE)


@dataclass(frozen=True)
class SiteLimits:
    pause_seconds: float
    """Between two requests to the site; its `Crawl-delay` counts where it is longer."""
    max_pause_seconds: float
    total_seconds: float
    """One call reads on for no longer than this."""
    ask_robots: bool


@dataclass(frozen=True)
class Plan:
    """Which pages belong to a crawl. The globs match the whole address; `*` also matches `/`."""

    start: str
    depth: int
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def crawl_id(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]

    def takes(self, url: str) -> bool:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and parts.netloc == urlsplit(self.start).netloc
            and not _NOT_PAGES.search(parts.path)
            and (not self.include or any(fnmatchcase(url, glob) for glob in self.include))
            and not any(fnmatchcase(url, glob) for glob in self.exclude)
        )


@dataclass(frozen=True)
class CrawledPage:
    """One line of the record. `problem` says why there is no text."""

    url: str
    depth: int
    answered_by: str | None = None
    """Where its text came from, redirects followed."""
    title: str | None = None
    text: str = ""
    problem: str | None = None
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Site:
    """What a crawl holds by now."""

    crawl_id: str
    pages: Sequence[CrawledPage]
    waiting: int
    """Addresses that are known and not read yet."""
    notes: tuple[str, ...] = ()


@dataclass
class _Rules:
    robots: "Protego | None" = None
    closed: str | None = None
    sitemaps: list[str] = field(default_factory=list[str])
    pause_seconds: float = 0.0


class SiteCrawler:
    """Crawls sites into `folder`, which is made with the first one. `pause` is a seam for tests."""

    def __init__(
        self,
        pages: Pages,
        http: SafeHttp,
        folder: Path,
        limits: SiteLimits,
        *,
        user_agent: str,
        pause: Pause = anyio.sleep,
    ) -> None:
        self._pages = pages
        self._http = http
        self._folder = folder
        self._limits = limits
        self._user_agent = user_agent
        self._pause = pause
        self._at_work = anyio.Lock()

    async def crawl(self, plan: Plan, limit: int, *, again: bool, tell: Tell) -> Site:
        """Read until `limit` pages are kept, none are left, or time is up; pages kept by an earlier call count.

        Raises:
            PageProblem: robots.txt closes the start, or cannot be read.
            OSError: the record cannot be written.
        """
        record = self._folder / f"{plan.crawl_id}.jsonl"
        async with self._at_work:  # one crawl at a time: politeness first, and one writer for each record
            await anyio.Path(self._folder).mkdir(parents=True, exist_ok=True, mode=0o700)
            if again:
                await anyio.Path(record).unlink(missing_ok=True)
            kept = await to_thread.run_sync(_read, record)
            rules = await self._rules(plan)
            if rules.closed:
                raise PageProblem(rules.closed)
            listed = [] if kept else await self._listed(plan, rules)
            notes: list[str] = []
            first = not kept
            with anyio.move_on_after(self._limits.total_seconds) as time:
                while len(kept) < limit and (following := next(_waiting(plan, kept, listed), None)):
                    url, depth = following
                    if not first:
                        await self._pause(rules.pause_seconds)
                    await tell(len(kept), limit, url)
                    page = await self._read_page(plan, rules, url, depth)
                    if first and listed:  # on record, so that going on needs no second look at the sitemap
                        page = replace(page, links=tuple(dict.fromkeys([*page.links, *listed])))
                    first = False
                    with anyio.CancelScope(shield=True):
                        await to_thread.run_sync(_append, record, page)
                    kept.append(page)
            if time.cancelled_caught:
                notes.append(f"Stopped after {self._limits.total_seconds:g} seconds; call again to go on.")
            waiting = sum(1 for _ in _waiting(plan, kept, listed))
            return Site(plan.crawl_id, kept, waiting, tuple(notes))

    async def page(self, crawl_id: str, number: int) -> CrawledPage | None:
        """Return a kept page, counted from 1, or `None` if there is none."""
        if not re.fullmatch(r"[0-9a-f]{12}", crawl_id):
            return None
        kept = await to_thread.run_sync(_read, self._folder / f"{crawl_id}.jsonl")
        return kept[number - 1] if 0 < number <= len(kept) else None

    async def _read_page(self, plan: Plan, rules: _Rules, url: str, depth: int) -> CrawledPage:
        if rules.robots is not None and not rules.robots.can_fetch(url, self._user_agent):
            return CrawledPage(url, depth, problem="robots.txt does not allow it.")
        try:
            page = await self._pages.read(url, "main", "markdown")
        except PageProblem as exc:
            return CrawledPage(url, depth, problem=str(exc))
        if urlsplit(page.url).netloc != urlsplit(plan.start).netloc:
            return CrawledPage(url, depth, problem=f"It leads to another site: {page.url}")
        links = dict.fromkeys(urldefrag(link.url).url for link in page.links)
        taken = tuple(link for link in links if plan.takes(link)) if depth < plan.depth else ()
        return CrawledPage(url, depth, page.url, page.title, page.text, None, taken)

    async def _rules(self, plan: Plan) -> _Rules:
        rules = _Rules(pause_seconds=self._limits.pause_seconds)
        if not self._limits.ask_robots:
            return rules
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(plan.start))
        try:
            answer = await self._http.fetch(f"{origin}/robots.txt", limits=HttpLimits(max_body_bytes=500_000))
        except SafeHttpError as exc:
            rules.closed = f"{origin}/robots.txt could not be read, so the site is not crawled: {exc}"
            return rules
        if answer.status >= 500:
            rules.closed = f"{origin}/robots.txt answered HTTP {answer.status}, so the site is not crawled. Try later."
        if answer.status != 200:
            return rules
        from protego import Protego

        robots = Protego.parse(answer.body.decode("utf-8", "replace"))
        rules.robots = robots
        rules.sitemaps = list(robots.sitemaps)
        wanted = float(robots.crawl_delay(self._user_agent) or 0)
        rules.pause_seconds = max(rules.pause_seconds, min(wanted, self._limits.max_pause_seconds))
        if not robots.can_fetch(plan.start, self._user_agent):
            rules.closed = f"robots.txt of {origin} does not allow {plan.start}. Read single pages with read_page."
        return rules

    async def _listed(self, plan: Plan, rules: _Rules) -> list[str]:
        """The addresses that the site's sitemaps list; a missing or broken one lists none."""
        if plan.depth == 0:
            return []
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(plan.start))
        waiting = rules.sitemaps or [f"{origin}/sitemap.xml"]
        found: dict[str, None] = {}
        for asked in range(_MAX_SITEMAPS):
            if asked >= len(waiting):
                break
            if urlsplit(waiting[asked]).netloc != urlsplit(plan.start).netloc:
                continue
            try:
                answer = await self._http.fetch(waiting[asked])
            except SafeHttpError:
                continue
            body = _unpacked(answer.body)
            locations = [html.unescape(url) for url in _LOCATION.findall(body.decode("utf-8", "replace"))]
            if answer.status == 200 and b"<sitemapindex" in body[:2000]:
                waiting.extend(locations)
            elif answer.status == 200:
                found |= dict.fromkeys(url for url in locations[:_MAX_FOUND] if plan.takes(url))
        return list(found)


def _waiting(plan: Plan, kept: list[CrawledPage], listed: Sequence[str]) -> Iterator[tuple[str, int]]:
    """What is still to be read, nearest to the start first, each with its distance from there."""
    asked = {_plain(url) for page in kept for url in (page.url, page.answered_by) if url}
    if not kept:
        yield plan.start, 0
    asked.add(_plain(plan.start))
    beside = [(url, 1) for url in listed]
    linked = [(url, page.depth + 1) for page in sorted(kept, key=lambda page: page.depth) for url in page.links]
    for url, depth in [*linked, *beside][:_MAX_FOUND]:
        if _plain(url) not in asked:
            asked.add(_plain(url))
            yield url, depth


def _unpacked(body: bytes) -> bytes:
    """A sitemap out of its gzip file, as far as it is whole and no longer than one may be (sitemaps.org: 50 MB)."""
    if not body.startswith(b"\x1f\x8b"):
        return body
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    with contextlib.suppress(zlib.error):
        return unpack.decompress(body, _MAX_SITEMAP_BYTES)
    return b""


def _plain(url: str) -> str:
    return urldefrag(url).url.rstrip("/")


def _read(record: Path) -> list[CrawledPage]:
    if not record.exists():
        return []
    kept: list[CrawledPage] = []
    for line in record.read_text("utf-8").splitlines():
        try:
            values: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            continue  # torn when the server was killed: that page is read again
        values["links"] = tuple(values["links"])
        kept.append(CrawledPage(**values))
    return kept


def _append(record: Path, page: CrawledPage) -> None:
    torn = record.exists() and not record.read_bytes().endswith(b"\n")
    with record.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(asdict(page)) + "\n")
