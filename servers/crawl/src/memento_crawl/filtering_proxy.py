"""The browser's only way out: a proxy on loopback that lets through what the safe HTTP client would fetch.

Owns the check of every connection the browser opens, whatever opened it: a page, a redirect, a form, a frame, a
worker, a WebSocket, a preconnect. Names are resolved here and nowhere else, every answer must be a public address,
and the connection goes to the checked one. Intercepting requests inside the browser is not enough: redirects and
changing DNS answers pass it by (guides/web.md §5.3: 5 of 36 probes; through a proxy 0 of 36).

Encrypted connections are tunnelled, not opened. One proxy serves one page, so that its limits are that page's.
"""

import contextlib
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import httpx2
from anyio.streams.buffered import BufferedByteReceiveStream

from memento_kit.safe_http import AddressGuard, SafeHttpError, UrlRefused

__all__ = ["FilteringProxy", "filtering_proxy", "origin"]

_MAX_HEAD_BYTES = 65_536
_HOP_BY_HOP = re.compile(rb"(?:proxy-[\w-]+|connection|keep-alive|te|trailer|upgrade-insecure-requests)\s*:", re.I)
_HEAD_SECONDS = 10.0
_STREAM_ENDS = (
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.DelimiterNotFound,
    TimeoutError,
)
"""Ways in which a peer, or the browser, ends a connection: nobody's error."""


class FilteringProxy:
    """What one page asked for. `refused` maps `host:port` to why it was not let through."""

    def __init__(self, guard: AddressGuard, *, connect_seconds: float, max_bytes: int) -> None:
        self.url = ""
        self.refused: dict[str, str] = {}
        self.connections = 0
        self.bytes_left = max_bytes
        self._guard = guard
        self._connect_seconds = connect_seconds

    async def serve(self, browser: anyio.abc.SocketStream) -> None:
        async with browser:
            with contextlib.suppress(*_STREAM_ENDS):
                await self._serve(browser)

    async def _serve(self, browser: anyio.abc.SocketStream) -> None:
        reader = BufferedByteReceiveStream(browser)
        with anyio.fail_after(_HEAD_SECONDS):
            head = await reader.receive_until(b"\r\n\r\n", _MAX_HEAD_BYTES)
        request, *headers = head.split(b"\r\n")
        method, _, rest = request.partition(b" ")
        target = rest.rpartition(b" ")[0].decode("ascii", "replace")
        is_tunnel = method == b"CONNECT"
        try:
            url = httpx2.URL(f"https://{target}/" if is_tunnel else target)
            site = await self._connect(url)
        except (SafeHttpError, httpx2.InvalidURL) as exc:
            self.refused[origin(target, is_tunnel=is_tunnel)] = str(exc)
            await browser.send(_answer("403 Forbidden" if isinstance(exc, UrlRefused) else "502 Bad Gateway", str(exc)))
            return
        except (OSError, TimeoutError):
            message = f"{target} gave no connection."
            self.refused[origin(target, is_tunnel=is_tunnel)] = message
            await browser.send(_answer("502 Bad Gateway", message))
            return
        async with site:
            if is_tunnel:
                await browser.send(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                kept = [line for line in headers if line and not _HOP_BY_HOP.match(line)]
                first = b"%s %s HTTP/1.1" % (method, url.raw_path)
                await site.send(b"\r\n".join([first, *kept, b"Connection: close", b"", b""]))
            async with anyio.create_task_group() as both_ways:
                both_ways.start_soon(_copy, reader, site)
                with contextlib.suppress(*_STREAM_ENDS):
                    await self._answer_back(site, browser, rewrite=not is_tunnel)
                both_ways.cancel_scope.cancel()

    async def _connect(self, url: httpx2.URL) -> anyio.abc.SocketStream:
        """Connect to one of the checked addresses, tried in turn."""
        self._guard.check_url(url)
        port = url.port or (443 if url.scheme == "https" else 80)
        if self.bytes_left <= 0:
            raise UrlRefused("This page has loaded as much as one page may.")
        addresses = await self._guard.addresses(url.raw_host.decode("ascii"), port)
        self.connections += 1
        with anyio.fail_after(self._connect_seconds):
            for address in addresses[:-1]:
                with contextlib.suppress(OSError):
                    return await anyio.connect_tcp(address, port)
            return await anyio.connect_tcp(addresses[-1], port)

    async def _answer_back(self, site: anyio.abc.SocketStream, browser: anyio.abc.SocketStream, rewrite: bool) -> None:
        """Carry the answer to the browser. `rewrite` says that the connection is over after it.

        A browser that kept the connection would send its next request, for another host, to this site.
        """
        reader = BufferedByteReceiveStream(site)
        if rewrite:
            head = await reader.receive_until(b"\r\n\r\n", _MAX_HEAD_BYTES)
            first, *headers = head.split(b"\r\n")
            kept = [line for line in headers if line and not _HOP_BY_HOP.match(line)]
            await browser.send(b"\r\n".join([first, *kept, b"Connection: close", b"", b""]))
        while self.bytes_left > 0:
            chunk = await reader.receive()
            self.bytes_left -= len(chunk)
            await browser.send(chunk)


@asynccontextmanager
async def filtering_proxy(
    guard: AddressGuard, *, connect_seconds: float, max_bytes: int
) -> AsyncGenerator[FilteringProxy]:
    """Open a proxy on a free port of 127.0.0.1; when the block ends, its connections are cut.

    Args:
        max_bytes: what all answers together may hold; then connections are cut and further ones refused.
    """
    proxy = FilteringProxy(guard, connect_seconds=connect_seconds, max_bytes=max_bytes)
    failure: Exception | None = None
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        proxy.url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.start_soon(listener.serve, proxy.serve)
        try:
            yield proxy
        except Exception as exc:  # noqa: BLE001 - raised again below, where the task group cannot wrap it
            failure = exc
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def origin(url: str, *, is_tunnel: bool = False) -> str:
    """`host:port` of a URL or of a CONNECT target, as `refused` has it."""
    try:
        parsed = httpx2.URL(f"https://{url}/" if is_tunnel else url)
    except httpx2.InvalidURL:
        return url
    return f"{parsed.host}:{parsed.port or (443 if parsed.scheme == 'https' else 80)}"


async def _copy(source: BufferedByteReceiveStream, target: anyio.abc.SocketStream) -> None:
    with contextlib.suppress(*_STREAM_ENDS):
        while True:
            await target.send(await source.receive())


def _answer(status: str, message: str) -> bytes:
    body = message.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
