"""How a Memento server is started: command line, transports, token, allowed hosts, logging.

Owns everything between `main()` and the first MCP message. It does not know what the server does.
HTTP follows the MCP specification's transport security rules: on loopback by default, DNS-rebinding
protection always on, off loopback only with a bearer token (RFC 6750).
"""

import argparse
import hmac
import importlib.metadata
import ipaddress
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import anyio

from memento_kit.server import Server
from memento_kit.settings import StartupError
from memento_kit.stdio import exit_on_signals

__all__ = ["BearerToken", "serve"]

TOKEN_VARIABLE = "MEMENTO_TOKEN"
_USAGE_ERROR = 2
_HOST_HEADER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_MIN_TOKEN_CHARS = 16
_GRACE_SECONDS = 3
"""How long a stopping HTTP server waits for the answers that are on their way."""


@dataclass(frozen=True)
class _Endpoint:
    transport: str
    host: str
    port: int
    token: str | None
    allowed_hosts: tuple[str, ...]


def serve(distribution: str, build: Callable[[], Server[Any]], argv: Sequence[str] | None = None) -> None:
    """Parse the command line, build the server and run it until its client leaves or the process is told to stop.

    Returns, so that the process ends with exit code 0, when stdin is closed, when the client stops reading,
    and on SIGTERM or SIGINT (a second one kills at once).

    Args:
        distribution: the installed package's name, also the name of the command.
        build: makes the server; called once, after logging is set up. It may raise `StartupError`, as settings do.
        argv: the arguments; default `sys.argv[1:]`.

    Raises:
        SystemExit: code 2 when the operator must change something, with one line on stderr; 0 on a signal.
    """
    options = _parser(distribution).parse_args(argv)
    # Before the SDK does: it would install rich's handler. stdout belongs to the protocol.
    logging.basicConfig(
        level=options.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    try:
        endpoint = _endpoint(options)
        with exit_on_signals(_leave):
            with _without_rich():
                server = build()
            server.default_version(importlib.metadata.version(distribution))
            anyio.run(_run, server, endpoint)
    except StartupError as exc:
        _exit_with(distribution, str(exc))
    except BaseExceptionGroup as group:
        if (startup := _only(StartupError, group)) is not None:
            _exit_with(distribution, str(startup))
        if _only(SystemExit, group) is not None:  # `_leave`, raised inside somebody's task group
            raise SystemExit(0) from None
        if _only((BrokenPipeError, ConnectionResetError), group) is None:
            raise
        # The client stopped reading before it closed our stdin: it has left, and nobody is there to be told.


@contextmanager
def _without_rich() -> Generator[None]:
    """Keep `MCPServer()` from importing rich for a log handler that our own, already there, makes it throw away.

    That import is 13 ms of a start of 500 (benchmarks/startup).
    """
    module = "rich.console"
    if module in sys.modules:
        yield
        return
    sys.modules[module] = cast(Any, None)  # the import statement's own way to say "there is none"
    try:
        yield
    finally:
        del sys.modules[module]


def _leave() -> NoReturn:
    raise SystemExit(0)


def _only(kind: type[BaseException] | tuple[type[BaseException], ...], group: BaseException) -> BaseException | None:
    """The first exception of `kind` in `group`, or None when anything else is in there too."""
    if not isinstance(group, BaseExceptionGroup):
        return group if isinstance(group, kind) else None
    found = [_only(kind, inner) for inner in cast(BaseExceptionGroup[BaseException], group).exceptions]
    return found[0] if all(found) else None


def _exit_with(distribution: str, problem: str) -> NoReturn:
    sys.stderr.write(f"{distribution}: {problem}\n")
    raise SystemExit(_USAGE_ERROR)


def _parser(distribution: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=distribution, description=importlib.metadata.metadata(distribution)["Summary"]
    )
    parser.add_argument(
        "--version", action="version", version=f"{distribution} {importlib.metadata.version(distribution)}"
    )
    parser.add_argument(
        "--transport",
        choices=["stdio", "streamable-http", "sse"],
        default="stdio",
        help="stdio (default), streamable-http at /mcp, or the deprecated sse at /sse",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (HTTP only; default 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on (HTTP only; default 8000; 0 picks one)"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        help=f"file holding the bearer token that HTTP clients must send (or set {TOKEN_VARIABLE})",
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME[:PORT]",
        help="Host header to accept besides the bound one, may be given several times (HTTP only)",
    )
    parser.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="warning",
        help="log to stderr from here up",
    )
    return parser


def _endpoint(options: argparse.Namespace) -> _Endpoint:
    if options.transport == "stdio":  # a pipe needs no token: whoever holds it started this process
        return _Endpoint("stdio", options.host, options.port, None, ())
    if not 0 <= options.port <= 65535:
        raise StartupError(f"--port {options.port} is not a port: choose one from 1 to 65535, or 0 for any free one")
    token = _token(options.token_file)
    if not _is_loopback(options.host) and token is None:
        raise StartupError(
            f"--host {options.host} is reachable from other machines, so a bearer token is needed: "
            f"pass --token-file FILE or set {TOKEN_VARIABLE} (or listen on 127.0.0.1)"
        )
    allowed_hosts = tuple(_allowed_host(given) for given in options.allowed_host)
    return _Endpoint(options.transport, options.host, options.port, token, allowed_hosts)


def _allowed_host(given: str) -> str:
    if not _HOST_HEADER.fullmatch(given):
        raise StartupError(
            f"--allowed-host {given} is not a Host header: give a name or address as clients write it in the URL, "
            "such as mcp.example.com, mcp.example.com:8443 or [::1] (no scheme, no path, no wildcard)"
        )
    return given.lower()


def _token(file: Path | None) -> str | None:
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        source = TOKEN_VARIABLE
    else:
        source = f"--token-file {file}"
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise StartupError(f"{source} cannot be read: {exc}") from exc
        if not token:
            raise StartupError(f"{source} is empty: put the token on its first line")
    if token and (len(token) < _MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token):
        raise StartupError(
            f"{source} must be at least {_MIN_TOKEN_CHARS} printable ASCII characters without spaces; "
            "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token or None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: it may resolve to anything


async def _run(server: Server[Any], endpoint: _Endpoint) -> None:
    if endpoint.transport == "stdio":
        await server.run_stdio_async()
        return
    import uvicorn
    from mcp.server.transport_security import TransportSecuritySettings

    # Loopback names are safe for every bound address: a rebinding page sends the attacker's name, not these.
    accepted = dict.fromkeys([_host_header(endpoint.host), *_LOOPBACK_NAMES, *endpoint.allowed_hosts])
    forms = [form for name in accepted for form in _with_any_port(name)]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=forms,
        allowed_origins=[f"{scheme}://{form}" for scheme in ("http", "https") for form in forms],
    )
    make_app = server.sse_app if endpoint.transport == "sse" else server.streamable_http_app
    starlette = make_app(host=endpoint.host, transport_security=security)
    app: Any = starlette if endpoint.token is None else BearerToken(starlette, endpoint.token)
    with _listen(endpoint.host, endpoint.port) as listener:
        # log_config=None: uvicorn's own would write the access log to stdout. Its lifespan is ours to run, so
        # that a failing start raises here instead of being logged there.
        config = uvicorn.Config(
            app, log_config=None, timeout_graceful_shutdown=_GRACE_SECONDS, server_header=False, lifespan="off"
        )
        async with starlette.router.lifespan_context(starlette):
            _announce(server.name, endpoint, port=listener.getsockname()[1])
            # uvicorn handles the signals itself while it serves, and raises them again afterwards.
            with exit_on_signals(lambda: None):
                await uvicorn.Server(config).serve(sockets=[listener])


def _announce(name: str, endpoint: _Endpoint, *, port: int) -> None:
    path = "/sse" if endpoint.transport == "sse" else "/mcp"
    sys.stderr.write(f"{name}: listening on http://{_host_header(endpoint.host)}:{port}{path}\n")
    if _is_wildcard(endpoint.host) and not endpoint.allowed_hosts:
        sys.stderr.write(f"{name}: other machines will get 421: name this one as they do, with --allowed-host NAME\n")
    sys.stderr.flush()


def _is_wildcard(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """Bind before uvicorn does, so that a taken port is one clear line and port 0 can be announced."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as exc:
        # asyncio and socket add words of their own to strerror; a name that does not resolve has no errno.
        reason = exc.strerror if isinstance(exc, socket.gaierror) or exc.errno is None else os.strerror(exc.errno)
        raise StartupError(f"cannot listen on {host}:{port} ({reason}); choose another --host or --port") from exc
    # asyncio sets this only on sockets made with an explicit protocol; without it each answer waits 40 ms (Nagle).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _host_header(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _with_any_port(name: str) -> list[str]:
    """`name` as a Host header may spell it: as it stands, and with any port unless one is given."""
    bare = name.rpartition("]")[2] if name.startswith("[") else name
    return [name] if ":" in bare else [name, f"{name}:*"]


class BearerToken:
    """ASGI middleware: every HTTP request must carry `Authorization: Bearer TOKEN` (RFC 6750 §2.1, §3)."""

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._expected = token.encode("ascii")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._is_allowed(scope["headers"])):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"www-authenticate", b'Bearer realm="memento"'), (b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b"A valid bearer token is required.\n"})
        else:  # no server here speaks WebSocket; what cannot show a token is not let through
            await send({"type": "websocket.close", "code": 1008})

    def _is_allowed(self, headers: list[tuple[bytes, bytes]]) -> bool:
        sent = [value for name, value in headers if name == b"authorization"]
        scheme, _, token = (sent[0] if len(sent) == 1 else b"").partition(b" ")
        return hmac.compare_digest(token.strip(), self._expected) and scheme.lower() == b"bearer"
