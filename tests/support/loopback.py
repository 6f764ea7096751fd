"""A web server on loopback that says exactly the bytes it is told to, which no HTTP library would."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.abc

__all__ = ["LoopbackServer", "answer", "loopback_server"]

Answer = bytes | Callable[[anyio.abc.ByteStream], Awaitable[None]]


class LoopbackServer:
    """`answers` maps a path, with its query, to what is sent; `requests` holds what was asked, body included."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.base = ""

    @property
    def host(self) -> str:
        return self.base.removeprefix("http://")

    async def handle(self, stream: anyio.abc.ByteStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                try:
                    request += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
            length = re.search(rb"content-length: *(\d+)", request, re.IGNORECASE)
            while length and len(request.partition(b"\r\n\r\n")[2]) < int(length[1]):
                request += await stream.receive()
            self.requests.append(request.decode())
            reply = self.answers.get(request.split()[1].decode(), answer(b"not here", status="404 Not Found"))
            try:
                if isinstance(reply, bytes):
                    await stream.send(reply)
                else:
                    await reply(stream)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # the client has seen enough


@asynccontextmanager
async def loopback_server() -> AsyncGenerator[LoopbackServer]:
    server = LoopbackServer()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        server.base = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.start_soon(listener.serve, server.handle)
        yield server
        tasks.cancel_scope.cancel()


def answer(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    """The bytes of an HTTP answer that says its length and closes the connection."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body
