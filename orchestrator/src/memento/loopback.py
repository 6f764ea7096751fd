"""An ASGI app on a free port of this machine, for as long as a block lasts.

Owns starting and stopping uvicorn inside our own task group. Used by the offline stand-in and by the demo's pages.
"""

import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import anyio
from starlette.types import ASGIApp

from memento.background import background_tasks

__all__ = ["serve_on_loopback"]

_STOP_SECONDS = 3.0


@asynccontextmanager
async def serve_on_loopback(app: ASGIApp) -> AsyncGenerator[str]:
    """Serve `app`; yields its origin, such as `http://127.0.0.1:40123`. Requests in flight at the end are dropped."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield  # Ctrl-C belongs to the command, not to a server inside it

    with socket.create_server(("127.0.0.1", 0)) as listener:
        # asyncio sets this only on sockets made with an explicit protocol; without it each answer waits 40 ms (Nagle).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The socket listens from here on: a request sent before uvicorn is up waits in its queue.
        server = Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        stopped = anyio.Event()

        async def serve() -> None:
            await server.serve([listener])
            stopped.set()

        async with background_tasks() as tasks:
            tasks.start_soon(serve)
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = server.force_exit = True  # uvicorn closes its connections within a tick
                with anyio.move_on_after(_STOP_SECONDS, shield=True):
                    await stopped.wait()
