"""A network of its own in which every address is this machine: run by `probes` inside `unshare --net --mount`.

Loopback carries public, private, metadata and transition addresses; a DNS server answers for all names, differently
the second time for `rebind*`; a server on all of them notes each connection. So that an address was *reached* is a
fact, and not what a client says. Prints one JSON object of results.
"""

import asyncio
import contextlib
import gzip
import importlib
import ipaddress
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

from benchmarks.crawl.pages import Household

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # the probes are the tests'
_fetch_probes: Any = importlib.import_module("support.fetch_probes")
_browser_probes: Any = importlib.import_module("support.browser_probes")
NAMES: dict[str, list[str]] = _fetch_probes.NAMES
MUST_BE_REFUSED: list[str] = _fetch_probes.MUST_BE_REFUSED
CONTROLS: list[str] = _fetch_probes.CONTROLS
PUBLIC_V4: str = _fetch_probes.PUBLIC_V4
PUBLIC_V6: str = _fetch_probes.PUBLIC_V6
PAGES: dict[str, str] = {**_browser_probes.EMBEDDED, **_browser_probes.DIRECT}

PUBLIC = {PUBLIC_V4, PUBLIC_V6}
WEB_PORTS = (80, 443, 8443)
PORTS = (*WEB_PORTS, 22, 6379, 8080)
CALL_SECONDS = 30.0
SITE = "http://public.test"
REDIRECTS = {
    "302": "http://127.0.0.1/",
    "307": "http://10.1.2.3/",
    "302 without a scheme": "//127.0.0.1/",
    "302 to a name": "http://loop.test/",
    "302 to metadata": "http://169.254.169.254/latest/",
    "302 to a file": "file:///etc/passwd",
    "302 to gopher": "gopher://127.0.0.1:80/",
}
ATTACKS = ("bomb", "huge", "endless", "drip", "slow-header", "big-header", "loop", "binary")
MAX_GROWTH_MEGABYTES = 100.0
Call = Callable[[str], Awaitable[bool]]


class Lab:
    """Notes who was connected to, and serves what the probes need from the public address."""

    def __init__(self) -> None:
        self.reached: set[tuple[str, int]] = set()
        self.pages: dict[str, str] = {}
        self._asked: dict[str, int] = {}
        self._bomb = gzip.compress(b"\0" * 300_000_000, compresslevel=1)

    def start(self) -> None:
        addresses = {address for found in NAMES.values() for address in found} | {PUBLIC_V4, PUBLIC_V6}
        for url in MUST_BE_REFUSED:
            addresses |= set(re.findall(r"//\[?([0-9a-f.:]+)\]?/", url))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for address in sorted(addresses):
            with contextlib.suppress(ValueError):
                version = ipaddress.ip_address(address).version
                command = ["ip", f"-{version}", "addr", "add", f"{address}/{32 if version == 4 else 128}", "dev", "lo"]
                subprocess.run([*command, *(["nodad"] if version == 6 else [])], check=False, capture_output=True)
        with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as file:
            file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        loop = asyncio.get_running_loop()
        lab = self

        class Names(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self._transport = transport

            def datagram_received(self, data: bytes, addr: Any) -> None:
                self._transport.sendto(lab.answer_name(data), addr)

        transport, _ = await loop.create_datagram_endpoint(Names, local_addr=("127.0.0.1", 53))
        servers = [await asyncio.start_server(self._serve, host, port) for port in PORTS for host in ("0.0.0.0", "::")]
        yield
        transport.close()
        for server in servers:
            server.close()

    def answer_name(self, query: bytes) -> bytes:
        labels: list[str] = []
        at = 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
            at += 1 + query[at]
        kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
        name = ".".join(labels).lower()
        found = NAMES.get(name, [])
        if name.startswith("rebind"):
            if kind == 1:
                self._asked[name] = self._asked.get(name, 0) + 1
            found = [PUBLIC_V4] if self._asked.get(name, 0) < 2 else ["127.0.0.1"]
        packed = [
            socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
            for address in found
            if (":" in address) == (kind == 28) and kind in (1, 28)
        ]
        records = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(each)) + each for each in packed)
        flags = 0x8180 if found else 0x8183
        return query[:2] + struct.pack("!HHHHH", flags, 1, len(packed), 0, 0) + query[12 : at + 5] + records

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = writer.get_extra_info("sockname")[:2]
        self.reached.add((host.removeprefix("::ffff:"), port))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1")
            await self._reply(head.split()[1], writer)
        writer.close()

    async def _reply(self, path: str, writer: asyncio.StreamWriter) -> None:
        name = path.strip("/")
        if name.startswith("to/"):
            status, _, target = name[3:].partition("/")
            writer.write(f"HTTP/1.1 {status} Found\r\nLocation: {bytes.fromhex(target).decode()}\r\n".encode())
            writer.write(b"Content-Length: 0\r\n\r\n")
        elif name == "bomb":
            head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(self._bomb)}\r\n"
            writer.write(f"{head}Content-Type: text/html\r\n\r\n".encode() + self._bomb)
        elif name == "huge":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 10000000000\r\n\r\n")
            await self._go_on(writer, b"x" * 65536, 0)
        elif name == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
            await self._go_on(writer, b"<p>tide</p>" * 6000, 0)
        elif name == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100000\r\n\r\n")
            await self._go_on(writer, b"x", 1)
        elif name == "slow-header":
            writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            await self._go_on(writer, b"x", 1)
        elif name == "big-header":
            writer.write(b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 5_000_000 + b"\r\nContent-Length: 1\r\n\r\nx")
        elif name == "loop":
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n")
        else:
            is_binary = name == "binary"
            body = bytes(range(256)) * 40 if is_binary else self.pages.get(name, "<p>Public.</p>").encode()
            kind = "application/x-executable" if is_binary else "text/html"
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body)
        await writer.drain()

    async def _go_on(self, writer: asyncio.StreamWriter, chunk: bytes, pause_seconds: float) -> None:
        until = time.monotonic() + 2 * CALL_SECONDS
        while time.monotonic() < until:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    def forbidden(self) -> bool:
        """Whether something was reached since the last time this was asked that may not be."""
        found = any(host not in PUBLIC or port not in WEB_PORTS for host, port in self.reached)
        self.reached.clear()
        return found


def to(status: str, target: str) -> str:
    return f"{SITE}/to/{status}/{target.encode().hex()}"


def urls() -> list[str]:
    redirects = [to(name[:3], target) for name, target in REDIRECTS.items()]
    return [*MUST_BE_REFUSED, *redirects, to("302", to("302", "http://127.0.0.1/")), "http://rebind1.test/"]


async def ssrf(lab: Lab, call: Call) -> dict[str, Any]:
    through: list[str] = []
    for url in urls():
        lab.forbidden()
        await call(url)
        if lab.forbidden():
            through.append(url)
    passed = 0
    for url in CONTROLS:
        lab.reached.clear()
        await call(url)
        passed += bool(lab.reached & {(host, port) for host in PUBLIC for port in WEB_PORTS})
    return {"tried": len(urls()), "through": through, "controls": len(CONTROLS), "controls passed": passed}


async def exhaustion(call: Call, household: Household) -> dict[str, Any]:
    unbounded: list[str] = []
    for attack in ATTACKS:
        before = household.megabytes()
        peaks: list[float] = [before]
        done = threading.Event()
        watcher = threading.Thread(target=household.watch, args=(done, peaks))
        watcher.start()
        ended = await call(f"{SITE}/{attack}")
        done.set()
        watcher.join()
        if not ended or max(peaks) - before > MAX_GROWTH_MEGABYTES:
            unbounded.append(f"{attack} ({max(peaks) - before:+.0f} MB{'' if ended else ', did not end'})")
    return {"tried": len(ATTACKS), "through": unbounded}


async def through_browser(lab: Lab, call: Call) -> dict[str, Any]:
    """Every probe on a page of its own, against a private address by number."""
    through: list[str] = []
    target = "http://10.1.2.3"
    direct = {
        "a redirect": to("302", target),
        "a name": "http://ten.test/",
        "a name that turns": "http://rebind2.test/",
    }
    for name, probe in PAGES.items():
        page = name.replace(" ", "-")
        redirected = re.sub(r"ME/to/[\w-]+", to("302", target), probe)
        body = redirected.replace("TARGET", target).replace("HOST", target.removeprefix("http://"))
        lab.pages[page] = f"<html><body><p>{'Tides rise twice a day. ' * 20}</p>{body}</body></html>"
        direct[name] = f"{SITE}/{page}"
    for name, url in direct.items():
        lab.forbidden()
        await call(url)
        if lab.forbidden():
            through.append(name)
    lab.reached.clear()
    shown = await call(f"{SITE}/control")
    passed = shown and bool(lab.reached & {(PUBLIC_V4, 80)})
    return {"tried": len(direct), "through": through, "controls": 1, "controls passed": int(passed)}


@asynccontextmanager
async def server(command: list[str], tool: str, arguments: dict[str, object]) -> AsyncGenerator[Call]:
    """A call of `tool` over MCP; it returns whether it ended in time, whatever with."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", home), "MEMENTO_HOME": home}
        parameters = StdioServerParameters(command=command[0], args=command[1:], env=environment)
        async with Client(parameters) as client:

            async def call(url: str) -> bool:
                with anyio.move_on_after(CALL_SECONDS):
                    await client.call_tool(tool, {"url": url, **arguments})
                    return True
                return False

            yield call


async def run(peers: Path) -> dict[str, Any]:
    lab = Lab()
    lab.start()
    ours = [str(Path(sys.executable).with_name("memento-crawl"))]
    fetch = peers / "fetch/bin/mcp-server-fetch"
    household = Household(0)
    results: dict[str, Any] = {}
    async with lab.serving():
        async with server(ours, "read_page", {"render": "never"}) as call:
            results["memento-crawl, HTTP"] = {"addresses": await ssrf(lab, call)}
            results["memento-crawl, HTTP"]["attacks"] = await exhaustion(call, household)
        async with server(ours, "read_page", {"render": "always"}) as call:
            results["memento-crawl, browser"] = {"addresses": await ssrf(lab, call)}
            results["memento-crawl, browser"]["pages"] = await through_browser(lab, call)
        if fetch.exists():
            async with server([str(fetch), "--ignore-robots-txt"], "fetch", {}) as call:
                results["mcp-server-fetch"] = {"addresses": await ssrf(lab, call)}
                results["mcp-server-fetch"]["attacks"] = await exhaustion(call, household)
    return results


if __name__ == "__main__":
    print(json.dumps(anyio.run(run, Path(sys.argv[1]))))
