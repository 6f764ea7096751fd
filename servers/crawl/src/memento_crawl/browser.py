"""Pages as a browser shows them: one Chromium, a fresh context for each page.

Owns the browser's life (found, started when first needed, restarted after a crash, closed when idle), how long a page
is waited for, and what its text is. Which addresses may be reached is `filtering_proxy`'s. Nothing is kept between
pages: no cookie, no storage, no cache.

Why a fresh context and not a kept page: reuse is 1.6 times faster, but grew to 1 GB in 200 pages and let one page
disturb the next (guides/web.md §2.1).
"""

import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.abc
import httpx2

from memento_crawl.filtering_proxy import FilteringProxy, filtering_proxy, origin
from memento_kit.safe_http import AddressGuard, SafeHttpError

if TYPE_CHECKING:
    from playwright.async_api import Browser as Chromium
    from playwright.async_api import BrowserContext, CDPSession, Playwright
    from playwright.async_api import Page as Tab

__all__ = ["Browser", "BrowserChoice", "BrowserLimits", "BrowserProblem", "Rendered", "find_browser"]

logger = logging.getLogger(__name__)

_NAMES = (
    "chromium-headless-shell",  # a context costs it a third of what it costs the full browser (guides/web.md §2.1)
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "msedge",
)
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
_FLAGS = (
    "--disable-quic",
    # Whatever does not go through the proxy finds no name, and no UDP leaves at all (DNS, WebRTC).
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--force-webrtc-ip-handling-policy",
    # Frames of other sites share their page's process, so that one session reads them all. What site isolation guards,
    # one site's cookies and storage from another's script, no context here has.
    "--disable-site-isolation-trials",
    "--disable-gpu",
    "--mute-audio",
)
_NOWHERE = "http://127.0.0.1:9"
"""The browser's own proxy: a closed port. Each page's context has a real one."""
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "SYSTEMROOT", "TEMP", "TMP")
_CLOSE_SECONDS = 5.0
_ENOUGH_CHARS = 250
_QUIET_MS = 40
_QUIET_WITH_LITTLE_TEXT_MS = 500
_MAX_SCROLLS = 5
_MAX_FRAMES = 20
_WIDTH, _HEIGHT = 1280, 800
_CONTENT_KINDS = frozenset({"document", "script", "xhr", "fetch", "stylesheet"})
_NOT_READ = ("png", "jpg", "jpeg", "gif", "webp", "avif", "ico", "woff", "woff2", "ttf", "mp4", "webm", "mp3")

_QUIET_THEN_SCROLL = """
(quiet_ms, little_ms, enough, chars_before) => new Promise(done => {
  let timer, is_late = false;
  const chars = () => document.body ? document.body.innerText.length : 0;
  const quiet = () => {
    if (!is_late && chars() < enough) {
      is_late = true;
      timer = setTimeout(quiet, little_ms - quiet_ms);
      return;
    }
    watch.disconnect();
    const height = document.documentElement.scrollHeight;
    const is_below = height > innerHeight + scrollY + 1;
    const now = chars();
    if (is_below && now > chars_before) scrollTo(0, height);
    done([now, is_below]);
  };
  const restart = () => { clearTimeout(timer); is_late = false; timer = setTimeout(quiet, quiet_ms); };
  const watch = new MutationObserver(restart);
  watch.observe(document, {childList: true, subtree: true, characterData: true});
  restart();
})
"""
_SOURCE = """
is_frame => {
  for (const details of document.querySelectorAll('details')) details.open = true;  // one click away, not hidden
  const MACHINE = new Set(['SCRIPT', 'STYLE', 'NOSCRIPT', 'TEMPLATE', 'TEXTAREA', 'OPTION', 'TITLE']);
  const numbers = color => (color.match(/[\\d.]+/g) || []).map(Number);
  const alpha = color => { const n = numbers(color); return n.length > 3 ? n[3] : n.length ? 1 : 0; };
  // What an element is drawn inside of: its slot, its parent, or the host of its shadow tree.
  const around = element => element.assignedSlot || element.parentElement
    || (element.getRootNode() instanceof ShadowRoot ? element.getRootNode().host : null);
  const known = new Map();
  const grounds = new Map();
  const ground = element => {
    if (!element) return 'rgb(255, 255, 255)';
    if (grounds.has(element)) return grounds.get(element);
    const style = getComputedStyle(element);
    const found = style.backgroundImage !== 'none' ? null
      : alpha(style.backgroundColor) > 0.1 ? style.backgroundColor : ground(around(element));
    grounds.set(element, found);
    return found;
  };
  const near = (one, other) => {
    const a = numbers(one), b = numbers(other);
    return a.length > 2 && b.length > 2 && [0, 1, 2].every(i => Math.abs(a[i] - b[i]) < 12);
  };
  // Hidden by this element or by one around it, in a way that its children cannot undo.
  const covered = element => {
    if (!element || element === document.body) return false;
    if (known.has(element)) return known.get(element);
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    const cut = style.overflowX !== 'visible' || style.overflowY !== 'visible' || style.clipPath !== 'none';
    const inset = /inset\\(\\s*(\\d+(?:\\.\\d+)?)%/.exec(style.clipPath);
    const found = style.display === 'none' || Number(style.opacity) < 0.1
      || style.contentVisibility === 'hidden' || element.getAttribute('aria-hidden') === 'true'
      || (cut && style.display !== 'contents' && (box.width <= 2 || box.height <= 2) && style.display !== 'inline')
      || (inset && Number(inset[1]) >= 50) || /circle\\(\\s*0(?:px|%)?\\b/.test(style.clipPath)
      || /polygon\\(\\s*0(?:px|%)? 0(?:px|%)?(?:\\s*,\\s*0(?:px|%)? 0(?:px|%)?)+\\)/.test(style.clipPath)
      || (style.clip !== 'auto' && /^rect\\((?:0px|1px)/.test(style.clip) && style.position !== 'static'
          && /rect\\((\\d+)px,? (\\d+)px,? \\1px,? /.test(style.clip))
      || /opacity\\(0(?:\\.0\\d*)?%?\\)/.test(style.filter)
      || covered(around(element));
    known.set(element, !!found);
    return !!found;
  };
  const hidden = node => {
    const element = node.parentElement || node.parentNode.host;
    if (covered(element)) return true;
    const style = getComputedStyle(element);
    if (style.visibility !== 'visible' || parseFloat(style.fontSize) < 4) return true;
    const fill = style.webkitTextFillColor || style.color;
    if (alpha(fill) < 0.1) return style.webkitBackgroundClip !== 'text';
    const below = ground(element);
    if (below && near(fill, below) && style.textShadow === 'none') return true;
    const range = document.createRange();
    range.selectNodeContents(node);
    const boxes = [...range.getClientRects()];
    return !boxes.some(box => box.width > 0.5 && box.height > 1 && box.right + scrollX > 0
      && box.bottom + scrollY > 0 && box.left + scrollX < 4 * Math.max(innerWidth, document.body.scrollWidth || 0)
      && box.left + scrollX < 20000);
  };
  const gone = [];
  const roots = [];
  const search = top => {
    const nodes = document.createTreeWalker(top, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    while (nodes.nextNode()) {
      const node = nodes.currentNode;
      if (node.nodeType === Node.ELEMENT_NODE) {
        if (node.shadowRoot && roots.length < 1000) { roots.push(node.shadowRoot); search(node.shadowRoot); }
      } else if (node.data.trim() && !MACHINE.has(node.parentElement?.tagName) && hidden(node)) gone.push(node);
    }
  };
  search(document.body || document);
  // Shadow trees come as <template shadowrootmode>, as they would be served.
  const serialized = element => element.getHTML ? element.getHTML({shadowRoots: roots}) : element.innerHTML;
  let chars = 0;
  for (const node of gone) { chars += node.data.replace(/\\s/g, '').length; node.data = ' '; }
  const whole = document.documentElement;
  if (is_frame) for (const link of document.querySelectorAll('a[href]')) link.setAttribute('href', link.href);
  if (is_frame) return {html: document.body ? serialized(document.body) : '', hidden_chars: chars};
  const open = whole.cloneNode(false).outerHTML.replace(/<[/]html>$/, '');
  return {html: '<!doctype html>' + open + serialized(whole) + '</html>', hidden_chars: chars};
}
"""
_PLACE_OF_FRAME = """
function (mark) {
  const box = this.getBoundingClientRect();
  if (box.width < 50 || box.height < 20 || !this.parentNode) return false;
  const place = document.createElement('div');
  place.textContent = mark;
  this.replaceWith(place);
  return true;
}
"""


class BrowserProblem(Exception):
    """The page could not be shown. The message is written for the model."""


class NotAPage(BrowserProblem):
    """The address holds a file, which a browser would download."""


@dataclass(frozen=True)
class BrowserLimits:
    render_seconds: float
    """A page may take this long in all."""
    settle_seconds: float
    """Once its text is there, a page that keeps changing is waited for no longer than this."""
    connect_seconds: float
    contexts: int
    """Pages shown at once."""
    max_bytes: int
    """What one page may load in all."""
    idle_seconds: float
    """An unused browser is closed after this time."""
    pages_per_browser: int = 200


@dataclass(frozen=True)
class Rendered:
    """A page after its scripts have run."""

    url: str
    status: int
    content_type: str
    html: str
    hidden_chars: int
    """Characters taken out of `html` because the browser does not show them."""
    refused: tuple[str, ...]
    """Hosts that parts of the page were not loaded from."""


BrowserChoice = Path | Literal["none"] | None
"""A browser's path, none at all, or (`None`) whichever is found."""


def find_browser(path: BrowserChoice) -> str | None:
    """Return the browser to start: `path`, one of the system's, else Playwright's own; `None` if there is none."""
    if path == "none" or importlib.util.find_spec("playwright") is None:
        return None
    if path is not None:
        return str(path) if path.is_file() else None
    found = next((place for name in _NAMES if (place := shutil.which(name))), None)
    found = found or next((place for place in _PLACES if Path(place).is_file()), None)
    return found or _own_browser()


def _own_browser() -> str | None:
    """Playwright's download, newest first; looked for without starting its driver."""
    home = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    names = ("chrome-headless-shell", "headless_shell", "chrome", "chrome.exe", "chrome-headless-shell.exe")
    places = [place for name in names for place in sorted(home.glob(f"chromium*/*/{name}"), reverse=True)]
    return str(places[0]) if places else None


class Browser:
    """Shows pages, any number of calls at once, `limits.contexts` of them at a time. Open with `async with`."""

    def __init__(
        self, guard: AddressGuard, limits: BrowserLimits, *, path: BrowserChoice, user_agent: str, language: str
    ) -> None:
        self._guard = guard
        self._limits = limits
        self._path: BrowserChoice = path
        self._user_agent = user_agent
        self._language = language
        self._slots = anyio.Semaphore(limits.contexts)
        self._starting = anyio.Lock()
        self._playwright: Playwright | None = None
        self._chromium: Chromium | None = None
        self._process_id: int | None = None
        self._spare: _Seat | None = None
        self._making: anyio.Event | None = None
        self._shown = 0
        self._in_use = 0
        self._last_used = 0.0
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def is_installed(self) -> bool:
        return find_browser(self._path) is not None

    async def __aenter__(self) -> "Browser":
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            # Cancelled halfway, the driver's process would stay (guides/web.md §6.4).
            with anyio.CancelScope(shield=True):
                await self._close()

    async def render(self, url: str) -> Rendered:
        """Show a page and return its source as it stands then, what is not shown left out.

        Raises:
            NotAPage: the address holds a file.
            BrowserProblem: it may not be reached, gave no answer, or not in time; or there is no browser.
        """
        async with self._tab(url, wants_pictures=False) as (tab, answer, world, proxy):
            try:
                source = await world.source()
            except _playwright_error() as exc:
                raise BrowserProblem(f"{url} does not hold still long enough to be read.") from exc
            return Rendered(
                url=tab.url,
                status=answer[0],
                content_type=answer[1],
                html=source.html,
                hidden_chars=source.hidden_chars,
                refused=tuple(proxy.refused),
            )

    async def screenshot(self, url: str, *, width: int, height: int, full_page: bool, max_height: int) -> bytes:
        """Return a JPEG of the page, `width` pixels wide and at most `max_height` high.

        Raises:
            BrowserProblem: as for `render`.
        """
        async with self._tab(url, wants_pictures=True, width=width, height=height) as (tab, _, world, _proxy):
            tall = await world.call("() => document.documentElement.scrollHeight") if full_page else height
            return await tab.screenshot(
                type="jpeg",
                quality=70,
                full_page=True,
                clip={"x": 0, "y": 0, "width": width, "height": max(1, min(int(tall), max_height))},
                scale="css",
                animations="disabled",
            )

    @asynccontextmanager
    async def _tab(
        self, url: str, *, wants_pictures: bool, width: int = _WIDTH, height: int = _HEIGHT
    ) -> "AsyncGenerator[tuple[Tab, tuple[int, str], _World, FilteringProxy]]":
        """Open the page in a context of its own and wait until its text is there."""
        try:
            self._guard.check_url(httpx2.URL(url))
        except (SafeHttpError, httpx2.InvalidURL) as exc:
            raise BrowserProblem(str(exc)) from exc
        assert self._tasks is not None
        scope: anyio.CancelScope | None = None
        try:
            with anyio.fail_after(self._limits.render_seconds) as scope:
                async with self._slots, self._seat(wants_pictures, width, height) as seat:
                    answer = await _open(seat.tab, url, seat.proxy)
                    self._tasks.start_soon(self._make_spare)  # while this page is waited for
                    await self._settle(seat.world, seat.waiting)
                    yield seat.tab, answer, seat.world, seat.proxy
        except TimeoutError as exc:
            if scope is None or not scope.cancelled_caught:
                raise
            raise BrowserProblem(
                f"{url} was not shown after {self._limits.render_seconds:g} seconds. Try render='never'."
            ) from exc
        except _playwright_error() as exc:
            first = str(exc).partition("\n")[0]
            raise BrowserProblem(f"{url} could not be shown ({first}). Try render='never'.") from exc

    async def _settle(self, world: "_World", waiting: "_Waiting") -> None:
        """Wait until nothing that makes text is on its way and the page has stopped changing; then scroll on.

        Endless pages end after a few scrolls, restless ones after `settle_seconds`.
        """
        with anyio.move_on_after(self._limits.settle_seconds):
            chars_before = -1
            for _ in range(_MAX_SCROLLS):
                chars, is_below = -1, True
                while chars < 0 or waiting.count:
                    await waiting.until_none()
                    chars, is_below = await world.call(
                        _QUIET_THEN_SCROLL, _QUIET_MS, _QUIET_WITH_LITTLE_TEXT_MS, _ENOUGH_CHARS, chars_before
                    )
                if chars <= chars_before or not is_below:
                    return
                chars_before = chars

    @asynccontextmanager
    async def _seat(self, wants_pictures: bool, width: int, height: int) -> "AsyncGenerator[_Seat]":
        """A fresh context for one page: the one kept ready, where it fits, else a new one."""
        assert self._tasks is not None
        self._in_use += 1
        seat: _Seat | None = None
        try:
            is_usual = not wants_pictures and (width, height) == (_WIDTH, _HEIGHT)
            seat = await self._take_spare() if is_usual else None
            if seat is None:
                seat = await self._tasks.start(self._keep_seat, wants_pictures, width, height)
            assert seat is not None
            yield seat
        finally:
            self._in_use -= 1
            self._shown += 1
            self._last_used = anyio.current_time()
            if seat is not None:
                seat.left.set()  # closing it is nothing that the caller has to wait for
            if self._shown >= self._limits.pages_per_browser and self._in_use == 0:
                with anyio.CancelScope(shield=True):
                    await self._close()

    async def _take_spare(self) -> "_Seat | None":
        if self._making is not None:
            await self._making.wait()
        spare, self._spare = self._spare, None
        if spare is None or (self._chromium is not None and self._chromium.is_connected() and spare.is_fit):
            return spare
        spare.left.set()
        return None

    async def _make_spare(self) -> None:
        """Have the next page's context ready: opening one takes a third of the time of showing a page."""
        if self._spare is not None or self._making is not None:
            return
        assert self._tasks is not None
        self._making = anyio.Event()
        try:
            with contextlib.suppress(_playwright_error(), BrowserProblem, TimeoutError):  # the next page makes its own
                with anyio.fail_after(self._limits.render_seconds):
                    self._spare = await self._tasks.start(self._keep_seat, False, _WIDTH, _HEIGHT)
        finally:
            self._making.set()
            self._making = None

    async def _keep_seat(
        self, wants_pictures: bool, width: int, height: int, *, task_status: "anyio.abc.TaskStatus[_Seat]"
    ) -> None:
        """Open a context with its own way out, hand it over, and close it when its page is done with it."""
        chromium = await self._started()
        context: BrowserContext | None = None
        async with filtering_proxy(
            self._guard, connect_seconds=self._limits.connect_seconds, max_bytes=self._limits.max_bytes
        ) as proxy:
            try:
                context = await chromium.new_context(
                    proxy={"server": proxy.url, "bypass": "<-loopback>"},
                    accept_downloads=False,
                    service_workers="block",
                    permissions=[],
                    user_agent=_user_agent(chromium.version, self._user_agent),
                    locale=self._language.partition(",")[0].strip() or "en",
                    viewport={"width": width, "height": height},
                )
                tab = await context.new_page()
                context.on("page", _close_popup)
                world = _World(tab, await context.new_cdp_session(tab))
                if not wants_pictures:
                    await world.block(_NOT_READ)
                seat = _Seat(tab, world, proxy, _Waiting(tab))
                task_status.started(seat)
                await seat.left.wait()
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS) as closing:
                    if context is not None:
                        with contextlib.suppress(_playwright_error()):  # crashed: nothing left to close
                            await context.close()
                if closing.cancelled_caught:
                    with anyio.CancelScope(shield=True):
                        await self._close()

    async def _started(self) -> "Chromium":
        async with self._starting:
            if self._chromium is not None and self._chromium.is_connected():
                return self._chromium
            await self._close()
            found = find_browser(self._path)
            if found is None:
                raise BrowserProblem(
                    "There is no browser here, so pages that scripts make cannot be read. The operator can install "
                    "chromium and memento-crawl[browser], or set MEMENTO_CRAWL_BROWSER_PATH."
                )
            from playwright.async_api import async_playwright

            with anyio.CancelScope(shield=True):  # half a start would leave a process that nobody knows
                self._playwright = await async_playwright().start()
                chromium = await self._playwright.chromium.launch(
                    executable_path=found,
                    args=list(_FLAGS),
                    proxy={"server": _NOWHERE, "bypass": "<-loopback>"},
                    chromium_sandbox=hasattr(os, "geteuid") and os.geteuid() != 0,
                    env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                    handle_sigint=False,
                    handle_sigterm=False,
                    handle_sighup=False,
                    timeout=self._limits.render_seconds * 1000,
                )
                self._chromium = chromium
                self._process_id = await _process_id(chromium)
                self._shown = 0
                logger.info("started %s %s", found, chromium.version)
                assert self._tasks is not None
                self._tasks.start_soon(self._close_when_idle, chromium)
                return chromium
        raise AssertionError("a shielded block ends or raises")

    async def _close_when_idle(self, chromium: "Chromium") -> None:
        self._last_used = anyio.current_time()
        while self._chromium is chromium:
            due = self._last_used + self._limits.idle_seconds
            if self._in_use == 0 and anyio.current_time() >= due:
                async with self._starting:
                    if self._in_use == 0 and self._chromium is chromium:
                        await self._close()
                return
            await anyio.sleep(max(due - anyio.current_time(), 1.0))

    async def _close(self) -> None:
        """End browser and driver; what does not end by itself is killed with all its children."""
        chromium, playwright, process_id = self._chromium, self._playwright, self._process_id
        self._chromium = self._playwright = self._process_id = None
        if self._spare is not None:
            self._spare.left.set()
            self._spare = None
        with anyio.move_on_after(_CLOSE_SECONDS), contextlib.suppress(_playwright_error()):
            if chromium is not None:
                await chromium.close()
        if process_id is not None and hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process_id, signal.SIGKILL)
        with anyio.move_on_after(_CLOSE_SECONDS):
            if playwright is not None:
                await playwright.stop()


class _Seat:
    """A context that shows one page: its tab, our world in it, and its only way out."""

    def __init__(self, tab: "Tab", world: "_World", proxy: FilteringProxy, waiting: "_Waiting") -> None:
        self.tab = tab
        self.world = world
        self.proxy = proxy
        self.waiting = waiting
        self.left = anyio.Event()
        """Set by whoever is done with it; what opened the context then closes it."""

    @property
    def is_fit(self) -> bool:
        return not self.tab.is_closed() and not self.left.is_set()


class _World:
    """JavaScript of ours beside the page's, in a world whose built-ins the page cannot change."""

    def __init__(self, tab: "Tab", session: "CDPSession") -> None:
        self._tab = tab
        self._session = session
        self._context_id: int | None = None

    async def block(self, endings: tuple[str, ...]) -> None:
        await _send(self._session, "Network.enable")
        await _send(self._session, "Network.setBlockedURLs", {"urls": [f"*.{ending}*" for ending in endings]})

    async def call(self, function: str, *arguments: int) -> Any:
        """Call `function` in the page that is there now; once more if the page moves on meanwhile."""
        for attempt in range(3):
            try:
                return await self._call(function, arguments)
            except _playwright_error():
                self._context_id = None  # it ended with its document
                if attempt == 2 or self._tab.is_closed():
                    raise
                await self._tab.wait_for_load_state("domcontentloaded")
        raise AssertionError

    async def source(self) -> "_Source":
        """The page as it stands, what its frames show in their places."""
        tree = (await _send(self._session, "Page.getFrameTree"))["frameTree"]
        parts: list[tuple[str, _Source]] = []
        frames = _inner_frames(tree)[:_MAX_FRAMES]
        if frames:
            await _send(self._session, "DOM.enable")
        for frame, around in frames:
            with contextlib.suppress(_playwright_error(), BrowserProblem):  # it is gone, or holds no page
                inside = await self._evaluate(await self._world_of(frame), _SOURCE, (1,))
                mark = secrets.token_hex(16)
                if await self._replace_frame(frame, await self._world_of(around), mark):
                    parts.append((mark, _Source(inside["html"], inside["hidden_chars"])))
        page: dict[str, Any] = await self.call(_SOURCE, 0)
        html, hidden_chars = page["html"], page["hidden_chars"]
        for mark, part in reversed(parts):  # a frame's mark stands in the frame around it, which comes after it
            if mark in html:
                html = html.replace(mark, part.html)
                hidden_chars += part.hidden_chars
        return _Source(html, hidden_chars)

    async def _replace_frame(self, frame: str, world: int, mark: str) -> bool:
        """Put `mark` where a frame is that can be seen. The frame itself ends with that."""
        owner = await _send(self._session, "DOM.getFrameOwner", {"frameId": frame})
        node = {"backendNodeId": owner["backendNodeId"], "executionContextId": world}
        element = await _send(self._session, "DOM.resolveNode", node)
        placing = {
            "objectId": element["object"]["objectId"],
            "functionDeclaration": _PLACE_OF_FRAME.strip(),
            "arguments": [{"value": mark}],
            "returnByValue": True,
        }
        return (await _send(self._session, "Runtime.callFunctionOn", placing))["result"].get("value") is True

    async def _world_of(self, frame: str) -> int:
        world = {"frameId": frame, "worldName": "memento"}
        return (await _send(self._session, "Page.createIsolatedWorld", world))["executionContextId"]

    async def _call(self, function: str, arguments: tuple[int, ...]) -> Any:
        if self._context_id is None:
            tree = await _send(self._session, "Page.getFrameTree")
            self._context_id = await self._world_of(tree["frameTree"]["frame"]["id"])
        return await self._evaluate(self._context_id, function, arguments)

    async def _evaluate(self, world: int, function: str, arguments: tuple[int, ...]) -> Any:
        shown = ", ".join(map(str, arguments))
        asked = {
            "expression": f"({function.strip()})({shown})",
            "contextId": world,
            "awaitPromise": True,
            "returnByValue": True,
        }
        answer = await _send(self._session, "Runtime.evaluate", asked)
        if "exceptionDetails" in answer:
            raise BrowserProblem("The page could not be read as it stands. Try render='never'.")
        return answer["result"].get("value")


@dataclass(frozen=True)
class _Source:
    html: str
    hidden_chars: int


def _inner_frames(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """All frames below the page, each with the one around it, the innermost first."""
    found: list[tuple[str, str]] = []
    for child in tree.get("childFrames", []):
        found += [*_inner_frames(child), (child["frame"]["id"], tree["frame"]["id"])]
    return found


class _Waiting:
    """Counts requests on their way that can still bring text."""

    def __init__(self, tab: "Tab") -> None:
        self._open: set[Any] = set()
        self._none = anyio.Event()
        self._none.set()
        tab.on("request", self._started)
        tab.on("requestfinished", self._ended)
        tab.on("requestfailed", self._ended)

    @property
    def count(self) -> int:
        return len(self._open)

    async def until_none(self) -> None:
        await self._none.wait()

    def _started(self, request: Any) -> None:
        if request.resource_type in _CONTENT_KINDS:
            self._open.add(request)
            if self._none.is_set():
                self._none = anyio.Event()

    def _ended(self, request: Any) -> None:
        self._open.discard(request)
        if not self._open:
            self._none.set()


async def _open(tab: "Tab", url: str, proxy: FilteringProxy) -> tuple[int, str]:
    """Go there; return the answer's status and content type."""
    try:
        answer = await tab.goto(url, wait_until="domcontentloaded", timeout=0)
    except _playwright_error() as exc:
        if proxy.refused:
            raise BrowserProblem(list(proxy.refused.values())[-1]) from exc
        if "Download is starting" in str(exc) or "ERR_ABORTED" in str(exc):
            raise NotAPage(f"{url} is a file, which a browser would download.") from exc
        raise
    if answer is None:
        raise BrowserProblem(f"{url} gave no answer.")
    if (refusal := proxy.refused.get(origin(answer.url))) is not None:
        raise BrowserProblem(refusal)
    content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return answer.status, content_type


async def _close_popup(tab: "Tab") -> None:
    with contextlib.suppress(_playwright_error()):
        await tab.close()


async def _send(session: Any, method: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """A command of the Chrome DevTools Protocol. Playwright types neither side of it."""
    return await session.send(method, arguments)


async def _process_id(chromium: "Chromium") -> int | None:
    session = await chromium.new_browser_cdp_session()
    told = await _send(session, "SystemInfo.getProcessInfo")
    await session.detach()
    return next((int(process["id"]) for process in told["processInfo"] if process["type"] == "browser"), None)


def _user_agent(version: str, name: str) -> str:
    """A browser's, since sites choose what to send by it, with our name at its end."""
    major = version.partition(".")[0]
    return (
        f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Safari/537.36 "
        f"{name}"
    )


def _playwright_error() -> type[Exception]:
    """Playwright's base class, which its closing and crashing errors share; imported when something has happened."""
    from playwright.async_api import Error

    return Error
