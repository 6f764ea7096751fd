"""Rendering through the crawl server with a real Chromium, over pages on loopback."""

import base64
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from mcp import Client
from mcp.types import CallToolResult, ImageContent, TextContent

from memento_crawl.browser import Browser, BrowserLimits, BrowserProblem, find_browser
from memento_crawl.server import Settings, build_server
from memento_kit.safe_http import AddressGuard
from support.browser_probes import DIRECT, EMBEDDED
from support.hiding import HIDDEN_FROM_PARSERS, HIDING
from support.loopback import LoopbackServer, answer, loopback_server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(find_browser(None) is None, reason="no Chromium, Chrome or Edge here; scripts/setup offers it"),
]

WORDS = "The tide at Burntcoat Head rises by sixteen metres twice a day, and falls again. "
PROSE = f"<main><h1>Tides</h1><p>{WORDS * 6}</p></main>"


@pytest.fixture
async def web() -> AsyncGenerator[LoopbackServer]:
    async with loopback_server() as server:
        yield server


@asynccontextmanager
async def crawl(web: LoopbackServer, **settings: Any) -> AsyncGenerator[Client]:
    settings = {"allow_private": (web.host,), **settings}
    async with Client(build_server(Settings(**settings))) as client:
        yield client


def html(page: str) -> bytes:
    return answer(page.encode(), "Content-Type: text/html; charset=utf-8")


def said(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


async def read(client: Client, url: str, render: str = "always") -> dict[str, Any]:
    result = await client.call_tool("read_page", {"url": url, "render": render, "max_chars": 50_000})
    assert not result.is_error, said(result)
    assert result.structured_content is not None
    return result.structured_content


async def test_a_page_that_a_script_fills_is_rendered_without_being_asked_and_says_why(web: LoopbackServer) -> None:
    script = "fetch('/data').then(r => r.text()).then(t => document.getElementById('root').innerHTML = t)"
    web.answers["/"] = html(f'<body><div id="root"></div><script>{script}</script></body>')
    web.answers["/data"] = answer(PROSE.encode())
    async with crawl(web) as client:
        page = await read(client, web.base, "auto")
        plain = await read(client, web.base, "never")
    assert WORDS.strip() in page["text"]
    assert (page["rendered"], page["render_reason"]) == (True, "Its HTML holds little text and runs scripts.")
    assert WORDS not in plain["text"]
    assert (plain["rendered"], plain["render_reason"]) == (False, "It was not to be rendered.")


async def test_a_page_whose_html_holds_its_text_opens_no_browser(web: LoopbackServer) -> None:
    web.answers["/"] = html(f"<body>{PROSE}<script>document.title = 'x'</script></body>")
    async with crawl(web) as client:
        page = await read(client, web.base, "auto")
    assert (page["rendered"], page["render_reason"]) == (False, "Its HTML holds the text.")
    assert len(web.requests) == 1


async def test_nothing_is_kept_between_two_pages(web: LoopbackServer) -> None:
    keep = "document.cookie = 'a=1'; localStorage.a = 1; document.body.append(document.cookie + localStorage.a)"
    show = "document.body.append('cookie:' + document.cookie + ' storage:' + localStorage.a)"
    web.answers["/one"] = html(f"<body>{PROSE}<script>{keep}</script></body>")
    web.answers["/two"] = html(f"<body>{PROSE}<script>{show}</script></body>")
    async with crawl(web) as client:
        await read(client, f"{web.base}/one")
        page = await read(client, f"{web.base}/two")
        full = await client.call_tool("read_page", {"url": f"{web.base}/two", "render": "always", "content": "full"})
    assert "a=1" not in page["text"]
    assert "cookie: storage:undefined" in said(full)
    assert not any("cookie:" in request.lower() for request in web.requests)


async def test_dialogs_popups_permissions_and_service_workers_do_not_hold_a_page_up(web: LoopbackServer) -> None:
    script = (
        "alert(1); confirm(2); onbeforeunload = () => 'stay'; open('/popup');"
        "const say = text => { const p = document.createElement('p'); p.textContent = text; document.body.append(p); };"
        "navigator.geolocation.getCurrentPosition(() => say('place known'), () => say('place refused'));"
        "navigator.serviceWorker.register('/sw.js').then(() => say('worker'), () => say('no worker'));"
    )
    web.answers["/"] = html(f"<body>{PROSE}<script>{script}</script></body>")
    web.answers["/sw.js"] = answer(b"self.x = 1", "Content-Type: text/javascript")
    async with crawl(web) as client:
        page = await client.call_tool("read_page", {"url": web.base, "render": "always", "content": "full"})
    assert "Tides" in said(page)
    assert "place known" not in said(page)
    assert not any(request.startswith("GET /sw.js") for request in web.requests)


async def test_a_page_that_grows_as_it_is_scrolled_is_read_on_and_ends(web: LoopbackServer) -> None:
    script = """let n = 0; const more = () => { const p = document.createElement('p'); n += 1;
        p.textContent = 'Part ' + n + ' of a list that has no end at all. '; p.style.height = '900px';
        document.querySelector('main').append(p); };
        more(); onscroll = more;"""
    web.answers["/"] = html(f"<body>{PROSE}<script>{script}</script></body>")
    async with crawl(web) as client:
        page = await read(client, web.base)
    assert "Part 3 of a list" in page["text"]
    assert "Part 40 of a list" not in page["text"]


async def test_a_file_is_read_as_a_file_though_a_browser_was_asked_for(web: LoopbackServer) -> None:
    web.answers["/a.csv"] = answer(
        b"place,metres\nBurntcoat,16\n", "Content-Type: text/csv", "Content-Disposition: attachment"
    )
    async with crawl(web) as client:
        page = await read(client, f"{web.base}/a.csv")
    assert page["text"].startswith("place,metres")
    assert (page["rendered"], page["render_reason"]) == (False, "It is a file, not a page.")


async def test_an_error_status_is_an_error_in_the_browser_too(web: LoopbackServer) -> None:
    async with crawl(web) as client:
        result = await client.call_tool("read_page", {"url": f"{web.base}/nothing", "render": "always"})
    assert result.is_error
    assert "HTTP 404" in said(result)


async def test_what_the_browser_does_not_show_is_left_out_and_counted(web: LoopbackServer) -> None:
    """All ways of hiding on one page, each with a word of its own."""
    names = list(HIDING)
    tricks = "\n".join(HIDING[name].format(*[f"SECRET{index}X"] * 3) for index, name in enumerate(names))
    web.answers["/"] = html(f"<html><body>{PROSE}{tricks}<p>The end.</p></body></html>")
    async with crawl(web) as client:
        result = await client.call_tool(
            "read_page", {"url": web.base, "render": "always", "content": "full", "max_chars": 50_000}
        )
    leaks = [name for index, name in enumerate(names) if f"SECRET{index}X" in said(result)]
    assert leaks == []
    assert "The end." in said(result)
    assert result.structured_content is not None
    assert result.structured_content["hidden_chars"] > 100


async def test_hiding_that_only_a_browser_sees_is_seen_and_its_eyes_cannot_be_changed(web: LoopbackServer) -> None:
    blind = "window.getComputedStyle = () => ({}); Element.prototype.getBoundingClientRect = () => { throw 1 }"
    tricks = "".join(HIDDEN_FROM_PARSERS[name].replace("SECRET", f"SECRET-{name}") for name in HIDDEN_FROM_PARSERS)
    web.answers["/"] = html(f"<body>{PROSE}{tricks}<script>{blind}</script></body>")
    web.answers["/hide.css"] = answer(b".far{position:absolute;left:-5000px}", "Content-Type: text/css")
    async with crawl(web) as client:
        result = await client.call_tool("read_page", {"url": web.base, "render": "always", "content": "full"})
    assert "Tides" in said(result)
    assert [name for name in HIDDEN_FROM_PARSERS if f"SECRET-{name}" in said(result)] == []


async def test_frames_and_open_shadow_trees_are_read_where_they_stand(web: LoopbackServer) -> None:
    """With another site's frame, one in a frame, text hidden in both, and a frame that nobody sees."""
    other = web.base.replace("127.0.0.1", "localhost")
    shadow = (
        "const root = document.getElementById('host').attachShadow({mode: 'open'});"
        'root.innerHTML = \'<p>Above the slot.</p><slot></slot><p style="opacity:0">SECRET-shadow</p>'
        "<b-b></b-b><slot name=end>No end given.</slot>';"
        "root.querySelector('b-b').attachShadow({mode: 'open'}).innerHTML = '<p>In a tree within.</p>';"
    )
    web.answers["/"] = html(
        f"<body>{PROSE}<p>Before.</p><iframe src='{other}/inner' width=500 height=300></iframe><p>After.</p>"
        "<iframe src='/unseen' style='display:none'></iframe><iframe src='/unseen' width=1 height=1></iframe>"
        f"<div style='opacity:0'><iframe src='/unseen' width=500></iframe></div>"
        f"<div id=host><p>Slotted.</p><p slot=none>SECRET-unslotted</p></div><script>{shadow}</script></body>"
    )
    web.answers["/inner"] = html(
        "<body><p>The frame says <a href='sub'>this</a>.</p><p style='display:none'>SECRET-frame</p>"
        f"<iframe src='{web.base}/innermost' width=300></iframe></body>"
    )
    web.answers["/innermost"] = html("<body><p>The frame in the frame says that.</p></body>")
    web.answers["/unseen"] = html("<body><p>SECRET-unseen</p></body>")
    async with crawl(web, allow_private=(web.host, other.removeprefix("http://"))) as client:
        arguments = {"url": web.base, "render": "always", "content": "full"}
        result = await client.call_tool("read_page", arguments)
    text = said(result)
    assert "SECRET" not in text
    parts = ["Before.", f"The frame says [this]({other}/sub).", "The frame in the frame says that.", "After."]
    parts += ["Above the slot.", "Slotted.", "In a tree within.", "No end given."]
    assert [part for part in parts if part not in text] == []
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


async def test_a_page_that_never_rests_costs_its_call_and_no_other(web: LoopbackServer) -> None:
    web.answers["/hung"] = html(f"<body>{PROSE}<script>while (true) {{}}</script></body>")
    web.answers["/good"] = html(f"<body>{PROSE}</body>")
    async with crawl(web, render_seconds=4, cache_seconds=0) as client:
        await read(client, f"{web.base}/good")
        hung = await client.call_tool("read_page", {"url": f"{web.base}/hung", "render": "always"})
        good = await read(client, f"{web.base}/good")
    assert hung.is_error
    assert "was not shown after 4 seconds" in said(hung)
    assert good["rendered"]


def limits(**changed: Any) -> BrowserLimits:
    values: dict[str, Any] = {
        "render_seconds": 20,
        "settle_seconds": 5,
        "connect_seconds": 2,
        "contexts": 2,
        "max_bytes": 10_000_000,
        "idle_seconds": 60,
    }
    return BrowserLimits(**{**values, **changed})


@asynccontextmanager
async def browser(guard: AddressGuard, **changed: Any) -> AsyncGenerator[Browser]:
    async with Browser(guard, limits(**changed), path=None, user_agent="test/1", language="en") as opened:
        yield opened


def children(process_id: int | None = None) -> set[int]:
    """All living descendants of this process."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc")
    found: set[int] = set()
    for place in Path(f"/proc/{process_id or os.getpid()}/task").glob("*/children"):
        for child in map(int, place.read_text().split()):
            found |= {child}
            if Path(f"/proc/{child}/task").is_dir():
                found |= children(child)
    return found


async def test_a_killed_browser_is_started_again_and_none_is_left_behind(web: LoopbackServer) -> None:
    web.answers["/"] = html(f"<body>{PROSE}</body>")
    before = children()
    async with browser(AddressGuard(allow_private=[web.host])) as opened:
        await opened.render(web.base)
        started = children() - before
        killed = [
            pid for pid in started if b"--type=" not in (line := cmdline(pid)) and b"chrom" in line.split(b"\0")[0]
        ]
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        shown = None
        for _ in range(3):  # the first may meet the dying browser
            try:
                shown = await opened.render(web.base)
                break
            except BrowserProblem:
                continue
        assert shown is not None
    assert not {pid for pid in children() - before if cmdline(pid)}


def cmdline(process_id: int) -> bytes:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes()
    except OSError:
        return b""


async def test_cancelling_a_page_leaves_the_browser_fit_for_the_next(web: LoopbackServer) -> None:
    asked = anyio.Event()

    async def never(_: anyio.abc.ByteStream) -> None:
        asked.set()
        await anyio.sleep_forever()

    web.answers["/slow"] = never
    web.answers["/"] = html(f"<body>{PROSE}</body>")
    async with browser(AddressGuard(allow_private=[web.host])) as opened:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(opened.render, f"{web.base}/slow")
            await asked.wait()
            tasks.cancel_scope.cancel()
        assert "Tides" in (await opened.render(web.base)).html


async def test_the_context_kept_ready_is_a_fresh_one_with_limits_of_its_own(web: LoopbackServer) -> None:
    """Pages one after another: each but the first opens in the context that was made ready during the one before."""
    keep = "if (document.cookie + localStorage.a !== 'undefined') document.title = 'ke' + 'pt'; document.cookie = 'a=1'"
    script = f"{keep}; localStorage.a = 1; fetch('/large'); fetch('http://127.0.0.1:8099/')"
    web.answers["/"] = html(f"<body>{PROSE}<script>{script}</script></body>")
    web.answers["/large"] = answer(b"x" * 700_000)
    web.answers["/plain"] = html(f"<body>{PROSE}</body>")
    async with browser(AddressGuard(allow_private=[web.host]), max_bytes=1_000_000) as opened:
        for _ in range(3):
            shown = await opened.render(web.base)
            assert "kept" not in shown.html
            assert shown.refused == ("127.0.0.1:8099",)
        assert (await opened.render(f"{web.base}/plain")).refused == ()
    assert sum(request.startswith("GET /large") for request in web.requests) == 3


async def test_a_page_may_load_only_so_much(web: LoopbackServer) -> None:
    web.answers["/"] = html(f"<body>{PROSE}<script>fetch('/large').then(() => document.title = 'all')</script></body>")
    web.answers["/large"] = answer(b"x" * 3_000_000)
    async with browser(AddressGuard(allow_private=[web.host]), max_bytes=1_000_000) as opened:
        assert "Tides" in (await opened.render(web.base)).html


async def test_a_screenshot_is_a_picture_no_larger_than_allowed(web: LoopbackServer) -> None:
    web.answers["/"] = html(f'<body>{PROSE}<div style="height:9000px;background:teal"></div></body>')
    async with crawl(web, max_screenshot_pixels=800_000) as client:
        result = await client.call_tool("take_screenshot", {"url": web.base, "full_page": True, "width": 800})
    picture = result.content[0]
    assert isinstance(picture, ImageContent)
    assert picture.mime_type == "image/jpeg"
    assert jpeg_size(base64.b64decode(picture.data)) == (800, 1000)


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height, from the start-of-frame marker."""
    at = 2
    while data[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")


# --- the way out is the proxy's alone ---------------------------------------------------------------------------------


class Canary:
    """A server that may not be reached: it counts connections, and knows what was asked when it is allowed."""

    def __init__(self) -> None:
        self.connections = 0
        self.paths: set[str] = set()
        self.port = 0

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        self.connections += 1
        async with stream:
            try:
                request = await stream.receive()
                self.paths.add(request.split()[1].decode("ascii", "replace"))
                await stream.send(answer(b"reached", "Access-Control-Allow-Origin: *"))
            except (anyio.EndOfStream, anyio.BrokenResourceError, IndexError):
                return


@asynccontextmanager
async def canary() -> AsyncGenerator[Canary]:
    server = Canary()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        server.port = listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.start_soon(listener.serve, server.serve)
        yield server
        tasks.cancel_scope.cancel()


def put(web: LoopbackServer, name: str, probe: str, target: str) -> str:
    body = probe.replace("TARGET", target).replace("ME", web.base).replace("HOST", target.removeprefix("http://"))
    path = f"/{name.replace(' ', '-')}"
    web.answers[path] = html(f"<html><body>{PROSE}{body}</body></html>")
    for to in ("redirected-fetch", "redirected-script", "redirected-frame", "redirect"):
        web.answers[f"/to/{to}"] = answer(b"", f"Location: {target}/{to}", status="302 Found")
    return f"{web.base}{path}"


async def test_no_part_of_a_page_reaches_a_private_address(web: LoopbackServer) -> None:
    async def resolver(name: str, _: int) -> Sequence[str]:
        return ["127.0.0.1"]

    guard = AddressGuard(allow_private=[web.host], resolver=resolver)
    everything = "\n".join(EMBEDDED.values())
    async with canary() as target, browser(guard) as opened:
        for host in ("127.0.0.1", "localhost", "inside.test"):
            shown = await opened.render(put(web, "everything", everything, f"http://{host}:{target.port}"))
            assert "Tides" in shown.html
            assert f"{host}:{target.port}" in shown.refused
        base = f"http://inside.test:{target.port}"
        for name, probe in DIRECT.items():
            with contextlib.suppress(BrowserProblem):
                await opened.render(put(web, name, probe, base))
        put(web, "redirect", "", base)
        with pytest.raises(BrowserProblem, match="not on the public internet"):
            await opened.render(f"{web.base}/to/redirect")
        with pytest.raises(BrowserProblem, match="not on the public internet"):
            await opened.render(base)
    assert target.connections == 0


async def test_the_same_probes_reach_an_address_that_is_allowed(web: LoopbackServer) -> None:
    """The control: without it, a page that tries nothing would pass the test above."""
    async with canary() as target:
        guard = AddressGuard(allow_private=[web.host, f"127.0.0.1:{target.port}"])
        async with browser(guard) as opened:
            await opened.render(put(web, "everything", "\n".join(EMBEDDED.values()), f"http://127.0.0.1:{target.port}"))
            for name, probe in DIRECT.items():
                await opened.render(put(web, name, probe, f"http://127.0.0.1:{target.port}"))
    embedded = {"/script", "/iframe", "/css", "/fetch", "/xhr", "/event-source", "/redirected-fetch", "/object"}
    assert embedded <= target.paths
    assert {"/navigation", "/refresh", "/form"} <= target.paths


async def test_a_name_that_changes_its_answer_is_resolved_once_for_each_connection(web: LoopbackServer) -> None:
    """Rebinding: what was checked is what is connected to, however the name answers the next time."""
    answers = [["127.0.0.1"]] * 2
    asked: list[str] = []

    async def resolver(name: str, _: int) -> Sequence[str]:
        asked.append(name)
        return answers.pop(0) if answers else ["169.254.169.254"]

    port = web.host.partition(":")[2]
    web.answers["/"] = html(f"<body>{PROSE}</body>")
    async with browser(AddressGuard(allow_private=[f"turns.test:{port}"], resolver=resolver)) as opened:
        assert "Tides" in (await opened.render(f"http://turns.test:{port}/")).html
        answers.clear()
        with pytest.raises(BrowserProblem, match="link-local"):
            await opened.render(f"http://turns.test:{port}/")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "chrome://version", "view-source:http://a.test/", "data:text/html,x"]
)
async def test_only_web_addresses_are_opened(web: LoopbackServer, url: str) -> None:
    async with browser(AddressGuard()) as opened:
        with pytest.raises(BrowserProblem, match="Only http and https"):
            await opened.render(url)
