"""E2B's API on loopback, for their real SDK: control plane, code interpreter and envd on one port.

Written to what the SDK's client sends (e2b 2.63, e2b-code-interpreter 2.11); the RPC services are its generated
classes. Code runs in sessions of `memento_code` at level `landlock`, so what the SDK brings back has really happened.
"""

import json
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.filesystem import filesystem_pb
from e2b.envd.filesystem.filesystem_connect import Filesystem, FilesystemASGIApplication
from e2b.envd.process import process_pb
from e2b.envd.process.process_connect import Process, ProcessASGIApplication
from protobuf import Oneof
from protobuf.wkt.google.protobuf.timestamp_pb import Timestamp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from memento_code.sandbox import Limits, Sandbox, find_sandbox
from memento_code.session import Session

__all__ = ["E2BServer", "e2b_server"]

_LIMITS = Limits(1 << 30, 3 << 29, 48, 256, 64 << 20, 256 << 20, 600)


@dataclass
class _Machine:
    session: Session
    folder: Path

    def path(self, given: str) -> Path:
        return Path(os.path.normpath(self.folder / given))

    @contextmanager
    def listened_to(self) -> Generator[list[bytes]]:
        """Each line that comes through the session's pipe of events meanwhile."""
        lines: list[bytes] = []
        session: Any = self.session
        next_line = session._next_line

        async def heard() -> bytes | None:
            line: bytes | None = await next_line()
            if line is not None:
                lines.append(line)
            return line

        session._next_line = heard
        try:
            yield lines
        finally:
            del session._next_line


@dataclass
class E2BServer:
    """`asked` holds each request to the control plane and its body; `refusals` are answered first, in turn."""

    key: str
    sandbox: Sandbox
    url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    refusals: list[Response] = field(default_factory=list[Response])
    machines: dict[str, _Machine] = field(default_factory=dict[str, _Machine])
    garbage: bytes | None = None
    """What `POST /execute` answers instead of running anything."""

    def machine(self, headers: Any) -> _Machine | None:
        return self.machines.get(headers.get("e2b-sandbox-id", ""))

    # --- control plane

    async def create(self, request: Request) -> Response:
        self.asked.append(("create", await request.json()))
        if request.headers.get("x-api-key") != self.key:
            return JSONResponse({"code": 401, "message": "Invalid API key"}, 401)
        if self.refusals:
            return self.refusals.pop(0)
        session = await self.sandbox.start(max_value_chars=100_000, output_bytes=1 << 20)
        folder = (await session.run("import os; os.getcwd()", timeout_seconds=30)).value or ""
        name = secrets.token_hex(8)
        self.machines[name] = _Machine(session, Path(folder.strip("'")))
        made = {"templateID": "t", "sandboxID": name, "clientID": "c", "envdVersion": "0.6.7", "envdAccessToken": "a"}
        return JSONResponse(made, 201)

    async def kill(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.asked.append(("kill", {"sandboxID": name}))
        machine = self.machines.pop(name, None)
        if machine is None:
            return JSONResponse({"code": 404, "message": "not found"}, 404)
        await machine.session.end("killed")
        return Response(status_code=204)

    # --- code interpreter

    async def execute(self, request: Request) -> Response:
        if self.garbage is not None:
            return Response(self.garbage, media_type="application/x-ndjson")
        machine = self.machine(request.headers)
        if machine is None:
            return JSONResponse({"message": "The sandbox was not found"}, 502)
        code = (await request.json())["code"]
        return StreamingResponse(self._events(machine, code), media_type="application/x-ndjson")

    async def _events(self, machine: _Machine, code: str) -> AsyncIterator[bytes]:
        """The local worker's own stream, as it came out of its pipe: it is E2B's, but for what is printed."""
        with machine.listened_to() as lines:
            ran = await machine.session.run(code, timeout_seconds=60)
        for name, output in (("stdout", ran.stdout), ("stderr", ran.stderr)):
            if output.text:
                yield json.dumps({"type": name, "text": output.text, "timestamp": 0}).encode() + b"\n"
        for line in lines:
            yield line + b"\n"

    # --- envd

    async def files(self, request: Request) -> Response:
        machine = self.machine(request.headers)
        assert machine is not None
        path = machine.path(request.query_params["path"])
        if request.method == "GET":
            if not path.is_file():
                return JSONResponse({"code": 404, "message": f"path '{path}' does not exist"}, 404)
            return Response(path.read_bytes(), media_type="application/octet-stream")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(await request.body())
        path.chmod(0o666)
        return JSONResponse([{"name": path.name, "type": "file", "path": str(path)}])


class _Files(Filesystem):
    def __init__(self, server: E2BServer) -> None:
        self._server = server

    async def stat(self, request: Any, ctx: Any, /) -> filesystem_pb.StatResponse:
        path = _machine(self._server, ctx).path(request.path)
        if not path.exists():
            raise ConnectError(Code.NOT_FOUND, f"path '{path}' does not exist")
        return filesystem_pb.StatResponse(entry=_entry(path))

    async def list_dir(self, request: Any, ctx: Any, /) -> filesystem_pb.ListDirResponse:
        folder = _machine(self._server, ctx).path(request.path)
        if not folder.is_dir():
            raise ConnectError(Code.INVALID_ARGUMENT, f"path '{folder}' is not a directory")
        return filesystem_pb.ListDirResponse(
            entries=[_entry(path) for path in sorted(folder.rglob("*")) if path.parts[-1] != "tmp"]
        )


class _Processes(Process):
    def __init__(self, server: E2BServer) -> None:
        self._server = server

    def start(self, request: Any, ctx: Any, /) -> AsyncIterator[process_pb.StartResponse]:
        return self._run(request.process.args[-1], _machine(self._server, ctx))

    async def _run(self, command: str, machine: _Machine) -> AsyncIterator[process_pb.StartResponse]:
        event = process_pb.ProcessEvent
        yield _said(Oneof("start", event.StartEvent(pid=1)))
        ran = await machine.session.ask({"shell": command}, timeout_seconds=60)
        if ran.stdout.text:
            yield _said(Oneof("data", event.DataEvent(output=Oneof("stdout", ran.stdout.text.encode()))))
        if ran.stderr.text:
            yield _said(Oneof("data", event.DataEvent(output=Oneof("stderr", ran.stderr.text.encode()))))
        yield _said(Oneof("end", event.EndEvent(exit_code=int(ran.value or 1), exited=True, status="exit")))


def _said(event: Any) -> process_pb.StartResponse:
    return process_pb.StartResponse(event=process_pb.ProcessEvent(event=event))


def _machine(server: E2BServer, ctx: Any) -> _Machine:
    headers = ctx.request_headers() if callable(getattr(ctx, "request_headers", None)) else ctx.request_headers
    machine = server.machine(headers)
    if machine is None:
        raise ConnectError(Code.UNAVAILABLE, "the sandbox was not found")
    return machine


def _entry(path: Path) -> filesystem_pb.EntryInfo:
    status = path.lstat()
    kind = filesystem_pb.FileType.DIRECTORY if path.is_dir() else filesystem_pb.FileType.FILE
    changed = Timestamp.from_datetime(datetime.fromtimestamp(status.st_mtime, UTC))
    return filesystem_pb.EntryInfo(
        name=path.name, type=kind, path=str(path), size=status.st_size, modified_time=changed
    )


@asynccontextmanager
async def e2b_server(key: str) -> AsyncGenerator[E2BServer]:
    """Serve on a free port for as long as the block lasts; its machines end with it."""
    server = E2BServer(key, await find_sandbox(_LIMITS, wanted="landlock", allow_none=False))

    async def nothing(_: Request) -> Response:
        return Response(status_code=204)

    files, processes = FilesystemASGIApplication(_Files(server)), ProcessASGIApplication(_Processes(server))
    app = Starlette(
        routes=[
            Route("/sandboxes", server.create, methods=["POST"]),
            Route("/v2/sandboxes", server.create, methods=["POST"]),
            Route("/sandboxes/{name}", server.kill, methods=["DELETE"]),
            Route("/sandboxes/{name}/timeout", nothing, methods=["POST"]),
            Route("/execute", server.execute, methods=["POST"]),
            Route("/health", nothing),
            Route("/files", server.files, methods=["GET", "POST"]),
            Mount(files.path, app=files),
            Mount(processes.path, app=processes),
        ]
    )
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="none")
    running = uvicorn.Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.serve)
        with anyio.fail_after(20):
            while not running.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await anyio.sleep(0.01)
        server.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield server
        finally:
            with anyio.CancelScope(shield=True):
                for machine in server.machines.values():
                    await machine.session.end("the server stopped")
            running.should_exit = running.force_exit = True
