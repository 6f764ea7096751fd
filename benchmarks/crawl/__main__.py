"""Pages per second and CPU per page over MCP, beside the raw fetch, HTTP with the extractor, and mcp-server-fetch.

    python -m benchmarks.crawl [--pages 500] [--rendered 40] [--fetch-server /path/to/mcp-server-fetch]

Every contender reads the same pages from one loopback server in a process of its own. CPU is what client and server
used with all their children, less what a start without pages uses. The pages are made here: they say nothing about
quality.
"""

import argparse
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx2
from mcp import Client, StdioServerParameters

Contender = Callable[[list[str]], Awaitable[list[float]]]
Read = Callable[[str], Awaitable[None]]
WORDS = ("tide", "sea", "bay", "river", "level", "gauge", "metre", "coast", "moon", "survey", "depth", "chart")
SERVE = """
import http.server, sys
sys.path.insert(0, sys.argv[1])
from benchmarks.crawl.__main__ import page
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = page(self.path).encode()
        self.send_response(404 if self.path == '/robots.txt' else 200)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
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
    cpu_ms: float | None


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


async def measured(contender: Contender, urls: list[str], *, cpu: bool) -> Cost:
    before = cpu_seconds()
    await contender([])
    start_only = cpu_seconds() - before
    before = cpu_seconds()
    times = await contender(urls)
    used = cpu_seconds() - before - start_only
    return Cost(len(times) / sum(times), statistics.median(times) * 1000, used / len(urls) * 1000 if cpu else None)


async def each(read: Read, urls: list[str]) -> list[float]:
    times: list[float] = []
    for url in urls:
        started = time.perf_counter()
        await read(url)
        times.append(time.perf_counter() - started)
    return times


async def floor(urls: list[str]) -> list[float]:
    async with httpx2.AsyncClient() as client:

        async def read(url: str) -> None:
            (await client.get(url)).raise_for_status()

        return await each(read, urls)


async def plain(urls: list[str]) -> list[float]:
    from trafilatura import extract

    async with httpx2.AsyncClient() as client:

        async def read(url: str) -> None:
            found = extract((await client.get(url)).text, output_format="markdown", include_links=True)
            assert found
            assert "Report" in found

        return await each(read, urls)


def over_mcp(command: list[str], tool: str, arguments: dict[str, object], environment: dict[str, str]) -> Contender:
    async def contender(urls: list[str]) -> list[float]:
        parameters = StdioServerParameters(command=command[0], args=command[1:], env=environment)
        async with Client(parameters) as client:

            async def read(url: str) -> None:
                result = await client.call_tool(tool, {"url": url, **arguments})
                assert not result.is_error, result
                assert "Report" in str(result.content), result

            return await each(read, urls)

    return contender


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crawl", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pages", type=int, default=500, help="static pages for each contender")
    parser.add_argument("--rendered", type=int, default=40, help="pages that a script fills; 0 for none")
    parser.add_argument("--fetch-server", default=None, help="the peer's command, mcp-server-fetch")
    options = parser.parse_args()
    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", SERVE, root], stdout=subprocess.PIPE, text=True, cwd=root) as web:
        assert web.stdout is not None
        try:
            anyio.run(run, options, f"http://127.0.0.1:{int(web.stdout.readline())}")
        finally:
            web.kill()


async def run(options: argparse.Namespace, base: str) -> None:
    host = base.removeprefix("http://")
    ours = [str(Path(sys.executable).with_name("memento-crawl"))]
    environment = {"MEMENTO_CRAWL_ALLOW_PRIVATE": host, "PATH": os.environ["PATH"]}
    contenders: dict[str, Contender] = {
        "memento-crawl": over_mcp(ours, "read_page", {"max_chars": 50_000}, environment),
        "raw fetch (floor)": floor,
        "HTTP and trafilatura": plain,
    }
    if options.fetch_server:
        # Without node on its PATH: with it, each page costs it a process of its own (1,223 CPU-ms, guides/web.md §4).
        command = [options.fetch_server, "--ignore-robots-txt", "--allow-private-ips"]
        contenders["mcp-server-fetch"] = over_mcp(command, "fetch", {"max_length": 50_000}, {"PATH": "/nowhere"})
    print(f"{platform.platform()}, {os.cpu_count()} cores, {options.pages} static pages, one at a time\n")
    print(f"{'contender':28}{'pages/s':>10}{'p50 ms':>10}{'CPU-ms':>10}{'CPU, memento = 1':>19}")
    urls = [f"{base}/static/{number}" for number in range(options.pages)]
    ours_ms = 0.0
    for name, contender in contenders.items():
        cost = await measured(contender, urls, cpu=True)
        cpu_ms = cost.cpu_ms or 0.0
        ours_ms = cpu_ms if name == "memento-crawl" else ours_ms
        ratio = f"{cpu_ms / ours_ms:19.2f}" if ours_ms else f"{'':19}"
        print(f"{name:28}{cost.pages_per_second:10.1f}{cost.p50_ms:10.1f}{cpu_ms:10.1f}{ratio}", flush=True)
    if options.rendered:
        rendered = over_mcp(ours, "read_page", {"render": "always", "max_chars": 50_000}, environment)
        urls = [f"{base}/script/{number}" for number in range(options.rendered)]
        cost = await measured(rendered, urls, cpu=False)
        print(f"\nrendered by memento-crawl: {cost.pages_per_second:.1f} pages/s, p50 {cost.p50_ms:.0f} ms")


if __name__ == "__main__":
    main()
