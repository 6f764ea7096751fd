"""web_search over engines on loopback: asked side by side as the server does, and one after another."""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.abc

from memento_kit.safe_http import AddressGuard, HttpLimits, SafeHttp
from memento_search.engine import EngineError, WebQuery
from memento_search.web_cache import WebCache
from memento_search.web_engines import Searxng
from memento_search.web_search import WebLimits, WebSearch

__all__ = ["SCENES", "measure"]

SCENES: dict[str, Sequence[float | None]] = {
    "four engines, .1 .2 .3 .4 s": (0.1, 0.2, 0.3, 0.4),
    "the same and one that fails": (0.1, 0.2, 0.3, 0.4, None),
    "the same and one that takes 8 s": (0.1, 0.2, 0.3, 0.4, 8.0),
}
"""How long each engine takes; None is an engine that answers HTTP 503."""
_PATIENCE_SECONDS = 3.0
_LIMITS = HttpLimits(total_seconds=10.0)


class _Engine:
    """A SearXNG look-alike on loopback: the protocol is real, the waiting is its own."""

    def __init__(self, delay: float | None) -> None:
        self.delay = delay

    async def handle(self, stream: anyio.abc.ByteStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                try:
                    request += await stream.receive()
                except anyio.EndOfStream:
                    return
            host = urlsplit(f"//{request.split(b'ost: ')[1].split()[0].decode()}").port
            if self.delay is None:
                await stream.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            await anyio.sleep(self.delay)
            hits = [
                {"title": f"Page {number}", "url": f"https://{host}.test/{number}", "content": "text " * 30}
                for number in range(10)
            ]
            body = json.dumps({"results": hits}).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            try:
                await stream.send(head.encode() + body)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # nobody waited


async def measure(delays: Sequence[float | None], rounds: int) -> tuple[float, float]:
    """Seconds of one search, medians: side by side, and one after another."""
    async with AsyncExitStack() as stack:
        engines: list[Searxng] = []
        serving: list[tuple[anyio.abc.Listener[anyio.abc.SocketStream], _Engine]] = []
        hosts: list[str] = []
        for number, delay in enumerate(delays):
            listener = await stack.enter_async_context(await anyio.create_tcp_listener(local_host="127.0.0.1"))
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            serving.append((listener, _Engine(delay)))
            engine = Searxng(f"http://127.0.0.1:{port}")
            engine.name = engine.family = f"engine {number}"  # type: ignore[misc]  # five of one kind
            engines.append(engine)
            hosts.append(f"127.0.0.1:{port}")
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for listener, each in serving:
            tasks.start_soon(listener.serve, each.handle)
        http = await stack.enter_async_context(SafeHttp(AddressGuard(allow_private=hosts)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        limits = WebLimits(_LIMITS, 4.0, 0.5, _PATIENCE_SECONDS, 86_400.0)
        together: list[float] = []
        in_turn: list[float] = []
        for number in range(rounds):
            query = WebQuery(f"tides {number}", 8)
            # A new one each time: none has learned yet to leave the bad engine alone.
            search = WebSearch(engines, http, WebCache(folder / "web.sqlite3"), limits)
            started = time.perf_counter()
            await search.search(query)
            together.append(time.perf_counter() - started)
            started = time.perf_counter()
            for engine in engines:
                try:
                    await engine.search(http, query, _LIMITS)
                except EngineError:
                    continue
            in_turn.append(time.perf_counter() - started)
        tasks.cancel_scope.cancel()
    return statistics.median(together), statistics.median(in_turn)
