"""Pages per second, CPU and memory of a page over MCP, beside the raw fetch, HTTP with the extractor, and the peers.

Every contender reads the same pages, one at a time, from one loopback server. It runs in processes of its own; CPU is
theirs and this client's, less what a run of one page uses, so that starting is not counted. Memory is the highest sum
of their proportional set sizes. Peers that are no MCP servers are driven over a pipe, which costs them less.
"""

import ctypes
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client, StdioServerParameters

Read = Callable[[str], Awaitable[bool]]
"""Reads the page at a URL; false where it found no text there, which the table counts."""
Contender = Callable[[], AbstractAsyncContextManager[Read]]
PEER = str(Path(__file__).with_name("peer.py"))
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER (prctl(2))
_SAMPLE_SECONDS = 0.3
_LINE_BYTES = 2**26
WORDS = ("tide", "sea", "bay", "river", "level", "gauge", "metre", "coast", "moon", "survey", "depth", "chart")
SERVE = """
import http.server, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from benchmarks.crawl.pages import page
files = sorted(Path(sys.argv[2]).glob('*.htm*')) if sys.argv[2] else []
stored = [file.read_bytes() for file in files]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        number = self.path.rpartition('/')[2].partition('?')[0]
        is_stored = stored and self.path.startswith('/static/') and number.isdecimal()
        body = stored[int(number) % len(stored)] if is_stored else page(self.path).encode()
        self.send_response(200 if number.isdecimal() else 404)
        self.send_header('Content-Type', 'text/html' if is_stored else 'text/html; charset=utf-8')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, sum(map(len, stored)) // len(stored) if stored else len(page('/static/1')), flush=True)
server.serve_forever()
"""


def page(path: str) -> str:
    """An article of about 20 kB with a frame around it; under /script/ one that a script fills."""
    dice = random.Random(path)
    paragraphs = [" ".join(dice.choices(WORDS, k=60)).capitalize() + "." for _ in range(40)]
    article = f"<h1>Report {path}</h1>" + "".join(f"<p>{text}</p>" for text in paragraphs)
    links = "".join(f'<li><a href="/n{number}">{" ".join(dice.choices(WORDS, k=3))}</a></li>' for number in range(60))
    if path.startswith("/data/"):
        return article
    if path.startswith("/script/"):
        script = f"fetch('/data{path}').then(r => r.text()).then(t => document.getElementById('root').innerHTML = t)"
        return (
            f"<html><head><title>{path}</title></head><body><div id=root></div><script>{script}</script></body></html>"
        )
    frame = f"<nav><ul>{links}</ul></nav>"
    return f"<html><head><title>{path}</title></head><body>{frame}<main>{article}</main>{frame}</body></html>"


@dataclass(frozen=True)
class Cost:
    pages_per_second: float
    p50_ms: float
    p95_ms: float
    cpu_ms: float
    peak_megabytes: float
    without_text: int
    """Pages, of those measured, that gave no text."""


def over_mcp(command: list[str], tool: str, arguments: dict[str, object], environment: dict[str, str]) -> Contender:
    @asynccontextmanager
    async def contender() -> AsyncGenerator[Read]:
        parameters = StdioServerParameters(command=command[0], args=command[1:], env=environment)
        async with Client(parameters) as client:

            async def read(url: str) -> bool:
                result = await client.call_tool(tool, {"url": url, **arguments})
                return not result.is_error

            yield read

    return contender


def over_pipe(python: str, peer: str) -> Contender:
    @asynccontextmanager
    async def contender() -> AsyncGenerator[Read]:
        async with await anyio.open_process([python, PEER, peer], stderr=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            stdin, lines = process.stdin, BufferedByteReceiveStream(process.stdout)
            assert await lines.receive_until(b"\n", _LINE_BYTES) == b"ready", f"{peer} did not start"

            async def read(url: str) -> bool:
                await stdin.send(url.encode() + b"\n")
                return bool(json.loads(await lines.receive_until(b"\n", _LINE_BYTES))["text"])

            yield read
            await stdin.aclose()
            await process.wait()

    return contender


class Household:
    """All processes below this one but one (the web server): what they use, the orphans among them included."""

    def __init__(self, stranger: int) -> None:
        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
        self._stranger = stranger
        self._sampling_seconds = 0.0

    def living(self) -> set[int]:
        found: set[int] = set()
        waiting = [os.getpid()]
        while waiting:
            for place in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
                try:
                    children = {int(child) for child in place.read_text().split()} - {self._stranger}
                except OSError:
                    continue
                found |= children
                waiting += children
        return found

    def bury(self) -> None:
        """Wait for what is left, so that its CPU counts."""
        until = time.monotonic() + 10
        while (left := self.living()) and time.monotonic() < until:
            for process in left:
                try:
                    os.waitpid(process, os.WNOHANG)
                except ChildProcessError:
                    continue
            time.sleep(0.05)

    def cpu_seconds(self) -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used) - self._sampling_seconds

    def megabytes(self) -> float:
        total = 0
        for process in self.living():
            try:
                rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
        return total / 1000

    def watch(self, done: threading.Event, peaks: list[float]) -> None:
        while not done.wait(_SAMPLE_SECONDS):
            peaks.append(self.megabytes())
        self._sampling_seconds += time.thread_time()


async def _read_all(contender: Contender, urls: list[str]) -> list[tuple[float, bool]]:
    """The seconds each page took, and whether it gave text."""
    times: list[tuple[float, bool]] = []
    async with contender() as read:
        for url in urls:
            started = time.perf_counter()
            has_text = await read(url)
            times.append((time.perf_counter() - started, has_text))
    return times


async def measured(household: Household, contender: Contender, urls: list[str]) -> Cost:
    """The cost of each page but the first, which pays for the start."""
    before = household.cpu_seconds()
    await _read_all(contender, urls[:1])
    household.bury()
    start_only = household.cpu_seconds() - before
    peaks: list[float] = [0.0]
    done = threading.Event()
    watcher = threading.Thread(target=household.watch, args=(done, peaks))
    before = household.cpu_seconds()
    watcher.start()
    read = (await _read_all(contender, urls))[1:]
    times = [seconds for seconds, _ in read]
    done.set()
    watcher.join()
    household.bury()
    used = household.cpu_seconds() - before - start_only
    return Cost(
        len(times) / sum(times),
        statistics.median(times) * 1000,
        statistics.quantiles(times, n=20)[-1] * 1000,
        used / len(times) * 1000,
        max(peaks),
        sum(not has_text for _, has_text in read),
    )


def main(pages: int, rendered: int, folder: Path | None, peers: Path) -> None:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", SERVE, root, str(folder or "")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as web:
        assert web.stdout is not None
        try:
            port, size = map(int, web.stdout.readline().split())
            print(f"{platform.platform()}, {os.cpu_count()} cores; static pages of {size / 1000:.0f} kB in the mean")
            anyio.run(_run, pages, rendered, f"http://127.0.0.1:{port}", peers, Household(web.pid))
        finally:
            web.kill()


async def _run(pages: int, rendered: int, base: str, peers: Path, household: Household) -> None:
    ours = [str(Path(sys.executable).with_name("memento-crawl"))]
    environment = {"MEMENTO_CRAWL_ALLOW_PRIVATE": base.removeprefix("http://"), "PATH": os.environ["PATH"]}
    fetch, crawl4ai = peers / "fetch/bin/mcp-server-fetch", peers / "crawl4ai/bin/python"
    static = {
        "memento-crawl": over_mcp(ours, "read_page", {"max_chars": 50_000, "render": "never"}, environment),
        "raw fetch (floor)": over_pipe(sys.executable, "floor"),
        "HTTP and trafilatura": over_pipe(sys.executable, "trafilatura"),
    }
    shown = {"memento-crawl": over_mcp(ours, "read_page", {"render": "always", "max_chars": 50_000}, environment)}
    if fetch.exists():
        # With node on its PATH it starts one for each page, and its text is nearly as good as ours (F1 .949 in
        # guides/web.md §3); without, it falls back on code of its own (.702).
        command = [str(fetch), "--ignore-robots-txt", "--allow-private-ips"]
        if shutil.which("node"):
            whole = {"PATH": os.environ["PATH"]}
            static["mcp-server-fetch"] = over_mcp(command, "fetch", {"max_length": 50_000}, whole)
        static["the same without node"] = over_mcp(command, "fetch", {"max_length": 50_000}, {"PATH": "/nowhere"})
    if crawl4ai.exists():
        static["crawl4ai"] = over_pipe(str(crawl4ai), "crawl4ai")
        static["crawl4ai, no browser"] = over_pipe(str(crawl4ai), "crawl4ai-http")
        shown["crawl4ai"] = over_pipe(str(crawl4ai), "crawl4ai")
    if rendered:
        urls = [f"{base}/script/{n}" for n in range(rendered + 1)]
        await _table(f"{rendered} pages that a script fills", shown, urls, household)
    await _table(f"{pages} static pages", static, [f"{base}/static/{n}" for n in range(pages + 1)], household)
    missing = [name for name, place in (("mcp-server-fetch", fetch), ("crawl4ai", crawl4ai)) if not place.exists()]
    if missing:
        print(f"\nnot measured, since not in --peers: {', '.join(missing)}")


async def _table(title: str, contenders: dict[str, Contender], urls: list[str], household: Household) -> None:
    print(f"\n{title}, one at a time; ratios to memento-crawl")
    print(
        f"{'contender':24}{'pages/s':>9}{'p50 ms':>9}{'p95 ms':>9}{'CPU-ms':>9}{'peak MB':>9}{'p50 x':>8}{'CPU x':>8}"
        f"{'no text':>9}"
    )
    ours: Cost | None = None
    for name, contender in contenders.items():
        cost = await measured(household, contender, urls)
        ours = ours or cost
        print(
            f"{name:24}{cost.pages_per_second:9.1f}{cost.p50_ms:9.1f}{cost.p95_ms:9.1f}{cost.cpu_ms:9.1f}"
            f"{cost.peak_megabytes:9.0f}{cost.p50_ms / ours.p50_ms:8.2f}{cost.cpu_ms / ours.cpu_ms:8.2f}"
            f"{cost.without_text:9}",
            flush=True,
        )
