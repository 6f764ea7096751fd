"""The tools of every MCP server, supervised: started side by side, called with a time limit, restarted when lost.

Owns one long-lived client per server. Each client is entered and left by a task of its own (anyio's cancel
scopes demand it), and calls come from other tasks. It does not know what a tool is for, nor who asks:
the agent offers `specs` to a model and gives `call` what the model wrote.
"""

import difflib
import hashlib
import json
import math
import os
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, cast

import anyio
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.server import MCPServer
from mcp.types import (
    CallToolResult,
    ReadResourceResult,
    Tool,
    ToolListChangedNotification,
)
from openai.types.chat import ChatCompletionFunctionToolParam

from memento.background import background_tasks
from memento.events import ServerStateChanged
from memento.outcomes import ToolOutcome, read_contents, read_result
from memento.server_list import ServerEntry

__all__ = [
    "ServerUnavailable",
    "ToolBox",
    "ToolLimits",
    "ToolSpec",
    "open_toolbox",
]

_Result = TypeVar("_Result")

_CONNECTION_CLOSED = -32000
_REQUEST_TIMEOUT = -32001
_SEPARATOR = "__"
_MAX_NAME_CHARS = 64
_LOG_TAIL_BYTES = 4_000
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


class ServerUnavailable(Exception):
    """The server could not be started or reached, or was lost during the call. The message says which and why."""


@dataclass(frozen=True)
class ToolLimits:
    connect_timeout_seconds: float = 30.0
    call_timeout_seconds: float = 120.0
    health_timeout_seconds: float = 5.0
    """How long a server that let a call time out may take to list its tools, before it is started again."""
    max_concurrent_calls: int = 8
    """Per server."""
    max_restarts: int = 3
    """In a row, without a call in between that worked."""
    restart_delay_seconds: float = 0.5
    """Before the first restart; doubles each time, with jitter."""


@dataclass(frozen=True)
class ToolSpec:
    """One tool as the model is offered it."""

    name: str
    """`server__tool`, at most 64 characters, unique."""
    server: str
    tool: str
    description: str
    input_schema: dict[str, Any]
    may_repeat: bool
    """The server says that calling twice does no more than calling once."""
    is_read_only: bool = False
    """The server says that calling it changes nothing."""
    is_open_world: bool = True
    """It looks at things outside the server's own keeping; so unless the server says otherwise."""
    server_version: str = ""
    server_digest: str = ""
    """Of how the server is started or reached and set up: two projects may each have another `web`."""

    def as_function(self) -> ChatCompletionFunctionToolParam:
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.input_schema},
        }


@dataclass(frozen=True)
class ServerState:
    """How a server is doing, for people."""

    name: str
    state: Literal["starting", "ready", "restarting", "failed"]
    detail: str
    """Why it is not ready."""
    version: str
    tools: int
    """That it lists; of these, `hidden` are kept from models by `allowTools` and `denyTools`."""
    hidden: int


@dataclass
class _Server:
    name: str
    target: ServerEntry | MCPServer[Any]
    limiter: anyio.CapacityLimiter
    state: Literal["starting", "ready", "restarting", "failed"] = "starting"
    detail: str = ""
    version: str = ""
    client: Client | None = None
    tools: list[Tool] = field(default_factory=list[Tool])
    changed: anyio.Event = field(default_factory=anyio.Event)
    lost: anyio.Event = field(default_factory=anyio.Event)
    failures: int = 0

    def offers(self, tool: str) -> bool:
        return not isinstance(self.target, ServerEntry) or self.target.offers(tool)


class _Changes:
    """Whether a server's tools changed: told by a notification before protocol 2026-07-28, by a stream since."""

    def __init__(self) -> None:
        self._changed = anyio.Event()

    async def wait(self) -> None:
        await self._changed.wait()
        self._changed = anyio.Event()

    async def take_message(self, message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._changed.set()

    async def listen(self, client: Client) -> None:
        """Hold the stream of changes open. Its sudden end is how the death of an idle server is noticed."""
        try:
            async with client.listen(tools_list_changed=True) as stream:
                self._changed.set()  # what changed before the stream was open is not told
                async for _ in stream:
                    self._changed.set()
        except (ListenNotSupportedError, TimeoutError):
            return
        except (MCPError, SubscriptionLost):
            self._changed.set()


@asynccontextmanager
async def open_toolbox(
    servers: Mapping[str, ServerEntry | MCPServer[Any]],
    *,
    limits: ToolLimits | None = None,
    environ: Mapping[str, str] | None = None,
    log_folder: Path | None = None,
    on_state: Callable[[ServerStateChanged], None] = lambda event: None,
) -> AsyncGenerator["ToolBox"]:
    """Start or reach every server at once; stop them all when the block ends, however it ends.

    Yields when each server is ready or has failed: a broken one never keeps the others waiting longer than
    the connect limit, and is found in `ToolBox.problems`.

    Args:
        environ: where a server's own `MEMENTO_<NAME>_…` settings are taken from; nothing else of it is passed on.
        log_folder: takes each server's stderr as `<name>.log`; without it stderr is discarded.
    """
    box = ToolBox(servers, limits or ToolLimits(), environ or {}, log_folder, on_state)
    async with background_tasks() as owners:
        for server in box.servers.values():
            owners.start_soon(box.own, server)
        for server in box.servers.values():
            await box.settled(server)
        yield box


class ToolBox:
    """Open one with `open_toolbox`."""

    def __init__(
        self,
        servers: Mapping[str, ServerEntry | MCPServer[Any]],
        limits: ToolLimits,
        environ: Mapping[str, str],
        log_folder: Path | None,
        on_state: Callable[[ServerStateChanged], None],
    ) -> None:
        self._limits = limits
        self._environ = environ
        self._log_folder = log_folder
        self._on_state = on_state
        self.servers = {
            name: _Server(name, target, anyio.CapacityLimiter(limits.max_concurrent_calls))
            for name, target in servers.items()
            if not (isinstance(target, ServerEntry) and target.disabled)
        }

    # --- what there is -----------------------------------------------------------------------------------

    def specs(self, *, hidden_servers: frozenset[str] = frozenset()) -> list[ToolSpec]:
        """The tools on offer, in a fixed order (a provider's prompt cache depends on it)."""
        specs: list[ToolSpec] = []
        taken: set[str] = set()
        for server in self.servers.values():
            if server.name in hidden_servers or server.state == "failed":
                continue
            digest = _set_up(server, self._environ)
            for tool in server.tools:
                if not server.offers(tool.name):
                    continue
                name = _full_name(server.name, tool.name, taken)
                taken.add(name)
                hints = tool.annotations
                specs.append(
                    ToolSpec(
                        name=name,
                        server=server.name,
                        tool=tool.name,
                        description=tool.description or tool.title or "",
                        input_schema=tool.input_schema,
                        may_repeat=bool(hints and (hints.read_only_hint or hints.idempotent_hint)),
                        is_read_only=bool(hints and hints.read_only_hint),
                        is_open_world=not (hints and hints.open_world_hint is False),
                        server_version=server.version,
                        server_digest=digest,
                    )
                )
        return specs

    def states(self) -> list[ServerState]:
        """How each server is doing."""
        return [
            ServerState(
                name=server.name,
                state=server.state,
                detail=server.detail,
                version=server.version,
                tools=len(server.tools),
                hidden=sum(not server.offers(tool.name) for tool in server.tools),
            )
            for server in self.servers.values()
        ]

    @property
    def problems(self) -> dict[str, str]:
        """Servers that cannot be used now, and why."""
        return {server.name: server.detail for server in self.servers.values() if server.state == "failed"}

    # --- calling -----------------------------------------------------------------------------------------

    async def call(self, spec: ToolSpec, arguments: dict[str, Any]) -> ToolOutcome:
        """Call a tool that was offered. Whatever went wrong comes back in words for the model, never as a raise."""
        name = spec.name
        try:
            result = await self.call_server(spec.server, spec.tool, arguments, may_repeat=spec.may_repeat)
        except ServerUnavailable as exc:
            return ToolOutcome(str(exc), is_error=True, may_be_kept=False)
        except MCPError as exc:
            text = f"{name} could not be called: {exc}"
            if exc.code == _REQUEST_TIMEOUT:
                limit = self._limits.call_timeout_seconds
                text = f"{name} gave no result within {limit:g} s. Ask for less, or go another way."
            return ToolOutcome(text, is_error=True, may_be_kept=False)
        return read_result(result)

    @staticmethod
    def unknown_tool(name: str, known: list[str]) -> ToolOutcome:
        """Tell a model that called a tool which was not offered."""
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else f" There are: {', '.join(known)}."
        return ToolOutcome(f"There is no tool named {name!r}.{hint}", is_error=True)

    async def call_server(
        self, server_name: str, tool: str, arguments: dict[str, Any], *, may_repeat: bool = False
    ) -> CallToolResult:
        """Call a tool of one server. A server lost during a call that may be repeated is asked once more.

        Raises:
            ServerUnavailable: there is no such server, it has failed, or it was lost.
            MCPError: the server refused the call, or the call took too long (-32001).
        """
        server = self.servers.get(server_name)
        if server is None:
            raise ServerUnavailable(f"There is no server named {server_name!r} in mcp.json.")

        async def ask(client: Client) -> CallToolResult:
            return await client.call_tool(tool, arguments, read_timeout_seconds=self._limits.call_timeout_seconds)

        return await self._asked(server, ask, f"the call of {tool}", may_repeat=may_repeat)

    async def read_resource(self, server_name: str, uri: str) -> ToolOutcome:
        """Read a resource that a server linked to. Whatever went wrong comes back in words for the model."""
        server = self.servers.get(server_name)
        if server is None:
            return ToolOutcome(f"There is no server named {server_name!r} any more.", is_error=True)
        limit = self._limits.call_timeout_seconds

        async def ask(client: Client) -> ReadResourceResult:
            with anyio.fail_after(limit):  # the SDK has no time limit of its own for it
                return await client.read_resource(uri, cache_mode="refresh")

        try:
            result = await self._asked(server, ask, f"the reading of {uri}", may_repeat=True)
        except (ServerUnavailable, MCPError) as exc:
            return ToolOutcome(f"{uri} could not be read: {exc}", is_error=True)
        except TimeoutError:
            return ToolOutcome(f"{uri} was not there within {limit:g} s.", is_error=True)
        return read_contents(result.contents)

    async def _asked(
        self, server: _Server, ask: Callable[[Client], Awaitable[_Result]], what: str, *, may_repeat: bool
    ) -> _Result:
        try:
            return await self._ask_once(server, ask, what)
        except ServerUnavailable:
            if not may_repeat or server.state == "failed":
                raise
            return await self._ask_once(server, ask, what)

    async def _ask_once(self, server: _Server, ask: Callable[[Client], Awaitable[_Result]], what: str) -> _Result:
        async with server.limiter:  # first, so that what waited for its turn goes to the server that is there then
            await self.settled(server)
            client, lost = server.client, server.lost
            if client is None:
                raise ServerUnavailable(f"The {server.name} server is not available: {server.detail}")
            try:
                result = await ask(client)
            except MCPError as exc:
                if exc.code == _REQUEST_TIMEOUT:
                    await self._see_whether_it_lives(server, client, lost)
                if exc.code != _CONNECTION_CLOSED:
                    raise
                self._lose(server, lost)
                raise ServerUnavailable(f"The {server.name} server stopped during {what}.") from exc
            except (anyio.ClosedResourceError, anyio.BrokenResourceError) as exc:
                self._lose(server, lost)
                raise ServerUnavailable(f"The {server.name} server stopped during {what}.") from exc
        server.failures = 0
        return result

    async def _see_whether_it_lives(self, server: _Server, client: Client, lost: anyio.Event) -> None:
        """A call took too long: that was the tool, or the whole server hangs, and then it is started again."""
        try:
            with anyio.fail_after(self._limits.health_timeout_seconds):
                await client.list_tools(cache_mode="refresh")
        except (MCPError, TimeoutError, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._lose(server, lost, "it stopped answering")

    def _lose(self, server: _Server, lost: anyio.Event, why: str = "the connection was lost") -> None:
        if server.lost is lost and not lost.is_set():  # not one that was started since
            self._set_state(server, "restarting", why)
            lost.set()

    async def settled(self, server: _Server) -> None:
        """Wait until the server is ready or has failed for good; its owner's time limits bound the wait."""
        while server.state in {"starting", "restarting"}:
            await server.changed.wait()

    # --- owning ------------------------------------------------------------------------------------------

    async def own(self, server: _Server) -> None:
        """Keep one server running until cancelled: the only task that enters and leaves its client."""
        was_ready = False
        while True:
            server.lost = anyio.Event()
            problem = await self._serve_once(server)
            server.client = None
            was_ready = was_ready or server.state in {"ready", "restarting"}
            server.failures += 1
            if not was_ready or server.failures > self._limits.max_restarts:
                self._set_state(server, "failed", problem)
                return
            self._set_state(server, "restarting", problem)
            delay = self._limits.restart_delay_seconds * 2 ** (server.failures - 1)
            await anyio.sleep(delay * random.uniform(0.75, 1.25))

    async def _serve_once(self, server: _Server) -> str:
        """Connect, list the tools, and hold the client until it is lost. Returns what ended it."""
        limit = self._limits.connect_timeout_seconds
        log = self._open_log(server.name)
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + limit) as scope:
                changes = _Changes()
                async with Client(
                    _transport(server, self._environ, log), message_handler=changes.take_message
                ) as client:
                    tools = await _list_tools(client)
                    scope.deadline = math.inf
                    server.client, server.tools = client, tools
                    server.version = client.server_info.version if client.server_info else ""
                    self._set_state(server, "ready", "", tools=len(tools))
                    async with background_tasks() as watchers:
                        watchers.start_soon(changes.listen, client)
                        watchers.start_soon(self._keep_current, server, client, changes)
                        await server.lost.wait()
        except Exception as exc:  # noqa: BLE001 - the edge to a foreign process: whatever it is, there is no server
            return _explain(server, exc, log)
        finally:
            log.close()
        if scope.cancelled_caught:
            return f"it did not answer within {limit:g} s"
        return server.detail or "the connection was lost"

    async def _keep_current(self, server: _Server, client: Client, changes: "_Changes") -> None:
        """List the tools again whenever the server says that they changed, or goes quiet."""
        lost = server.lost
        while True:
            await changes.wait()
            try:
                with anyio.fail_after(self._limits.connect_timeout_seconds):
                    server.tools = await _list_tools(client)
            except (MCPError, TimeoutError, anyio.ClosedResourceError, anyio.BrokenResourceError):
                self._lose(server, lost)
                return

    def _set_state(
        self, server: _Server, state: Literal["ready", "restarting", "failed"], detail: str, tools: int | None = None
    ) -> None:
        if (server.state, server.detail) == (state, detail):
            return
        server.state, server.detail = state, detail
        server.changed.set()
        server.changed = anyio.Event()
        self._on_state(ServerStateChanged(server=server.name, state=state, detail=detail, tools=tools))

    def _open_log(self, name: str) -> IO[str]:
        if self._log_folder is None:
            return open(os.devnull, "w", encoding="utf-8")
        self._log_folder.mkdir(parents=True, exist_ok=True)
        path = self._log_folder / f"{name}.log"
        path.unlink(missing_ok=True)  # a run beside this one keeps writing to the file it has open
        return path.open("w+", encoding="utf-8", errors="replace")


def _explain(server: _Server, error: BaseException, log: IO[str]) -> str:
    """Why a server is not there, in one line, with the last it said."""
    cause = _innermost(error)
    if isinstance(cause, FileNotFoundError) and isinstance(server.target, ServerEntry):
        return f"the command {server.target.command!r} is not installed or not on the PATH"
    if isinstance(cause, PermissionError) and isinstance(server.target, ServerEntry):
        return f"the command {server.target.command!r} may not be run: {cause.strerror}"
    reason = " ".join(str(cause).split()) or type(cause).__name__
    said = _last_line(log)
    return f"{reason}; it said: {said}" if said else reason


def _last_line(log: IO[str]) -> str:
    if not log.readable():
        return ""
    log.seek(max(0, os.fstat(log.fileno()).st_size - _LOG_TAIL_BYTES))
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _transport(
    server: _Server, environ: Mapping[str, str], log: IO[str]
) -> AbstractAsyncContextManager[Any] | MCPServer[Any]:
    entry = server.target
    if isinstance(entry, MCPServer):
        return entry
    if entry.type == "stdio":
        return stdio_client(
            StdioServerParameters(
                command=entry.command,
                args=entry.args,
                env=_own_settings(server.name, environ) | entry.env,
                cwd=entry.cwd,
                encoding_error_handler="replace",  # else one stray byte ends the reader, and every call waits in vain
            ),
            errlog=cast(Any, log),
        )
    if entry.type == "sse":
        from mcp.client.sse import sse_client

        return sse_client(entry.url, headers=entry.headers)
    return _http(entry)


@asynccontextmanager
async def _http(entry: ServerEntry) -> AsyncGenerator[Any]:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    # retries: with the SDK's default transport one refused connection kills the whole client (guides/mcp.md §0.3).
    transport = httpx2.AsyncHTTPTransport(retries=2)
    timeout = httpx2.Timeout(30.0, read=300.0)
    async with (
        httpx2.AsyncClient(headers=entry.headers, transport=transport, timeout=timeout) as http,
        streamable_http_client(entry.url, http_client=http, max_sse_event_size=None) as streams,
    ):
        yield streams


def _own_settings(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """A server named X sees `MEMENTO_HOME` and `MEMENTO_X_…`, and no other variable of ours (keys stay here)."""
    prefix = f"MEMENTO_{name.upper().replace('-', '_')}_"
    return {key: value for key, value in environ.items() if key == "MEMENTO_HOME" or key.startswith(prefix)}


def _set_up(server: _Server, environ: Mapping[str, str]) -> str:
    """A digest of everything that decides what a server is and sees; keys are part of it, and cannot be read back."""
    if isinstance(server.target, MCPServer):
        return ""
    told = [server.target.model_dump(), _own_settings(server.name, environ)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]


async def _list_tools(client: Client) -> list[Tool]:
    tools: list[Tool] = []
    page = await client.list_tools(cache_mode="refresh")
    tools.extend(page.tools)
    while page.next_cursor:
        page = await client.list_tools(cursor=page.next_cursor, cache_mode="refresh")
        tools.extend(page.tools)
    return tools


def _full_name(server: str, tool: str, taken: set[str]) -> str:
    """`server__tool` within what providers allow; cut and told apart by a hash where it would not fit or clash."""
    plain = f"{_NOT_IN_A_NAME.sub('-', server)}{_SEPARATOR}{_NOT_IN_A_NAME.sub('-', tool)}"
    if len(plain) <= _MAX_NAME_CHARS and plain not in taken:
        return plain
    digest = hashlib.sha256(f"{server}\0{tool}".encode()).hexdigest()[:8]
    return f"{plain[: _MAX_NAME_CHARS - 9]}_{digest}"


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast(BaseExceptionGroup[BaseException], error).exceptions[0]
    return error
