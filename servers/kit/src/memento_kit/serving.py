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
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import anyio
from mcp.server import MCPServer
from pydantic import ValidationError

__all__ = ["StartupError", "serve"]

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "MEMENTO_TOKEN"
_USAGE_ERROR = 2
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_MIN_TOKEN_CHARS = 16


class StartupError(Exception):
    """The operator must change something before this server can start. Shown as one line, without a traceback."""


@dataclass(frozen=True)
class _Endpoint:
    transport: str
    host: str
    port: int
    token: str | None
    allowed_hosts: tuple[str, ...]


def serve(distribution: str, build: Callable[[], MCPServer[Any]], argv: Sequence[str] | None = None) -> None:
    """Parse the command line, build the server and run it until its client leaves.

    Args:
        distribution: the installed package's name, also the name of the command.
        build: makes the server; called once, after logging is set up. It may raise `StartupError`, or
            pydantic's `ValidationError` from the settings.
        argv: the arguments; default `sys.argv[1:]`.

    Raises:
        SystemExit: code 2 when the operator must change something, with one line on stderr.
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
        server = build()
    except (StartupError, ValidationError) as exc:
        _exit_with(distribution, str(exc) if isinstance(exc, StartupError) else _settings_problem(exc))
    try:
        anyio.run(_run, server, endpoint)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except StartupError as exc:
        _exit_with(distribution, str(exc))
    except BaseExceptionGroup as group:
        startup, rest = group.split(StartupError)
        if startup is None or rest is not None:
            raise
        _exit_with(distribution, str(_first(startup)))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner  # pyright: ignore[reportUnknownArgumentType]


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
    add_transport_options(parser)
    return parser


def add_transport_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every server has alike."""
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


def _endpoint(options: argparse.Namespace) -> _Endpoint:
    token = _token(options.token_file)
    if options.transport != "stdio" and not _is_loopback(options.host) and token is None:
        raise StartupError(
            f"--host {options.host} is reachable from other machines, so a bearer token is needed: "
            f"pass --token-file FILE or set {TOKEN_VARIABLE} (or listen on 127.0.0.1)"
        )
    return _Endpoint(options.transport, options.host, options.port, token, tuple(options.allowed_host))


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


def _settings_problem(error: ValidationError) -> str:
    """Name each setting by its environment variable, so that the operator knows what to change."""
    from pydantic_settings import BaseSettings

    prefix = ""
    for settings in _subclasses(BaseSettings):
        if settings.__name__ == error.title:
            prefix = str(settings.model_config.get("env_prefix", ""))
    problems: list[str] = []
    for problem in error.errors(include_url=False, include_context=False):
        name = prefix + "_".join(str(part) for part in problem["loc"][:1]).upper()
        problems.append(f"{name}: {problem['msg']} (got {problem['input']!r})")
    return "wrong setting: " + "; ".join(problems)


def _subclasses(cls: type[Any]) -> list[type[Any]]:
    direct = cls.__subclasses__()
    return direct + [deeper for sub in direct for deeper in _subclasses(sub)]


async def _run(server: MCPServer[Any], endpoint: _Endpoint) -> None:
    if endpoint.transport == "stdio":
        await server.run_stdio_async()
        return
    import uvicorn
    from mcp.server.transport_security import TransportSecuritySettings

    hosts = (
        [_host_header(endpoint.host), *_LOOPBACK_NAMES]
        if _is_loopback(endpoint.host)
        else [_host_header(endpoint.host)]
    )
    accepted = [*dict.fromkeys([*hosts, *endpoint.allowed_hosts])]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[form for name in accepted for form in _with_any_port(name)],
        allowed_origins=[
            f"{scheme}://{form}" for scheme in ("http", "https") for name in accepted for form in _with_any_port(name)
        ],
    )
    make_app = server.sse_app if endpoint.transport == "sse" else server.streamable_http_app
    app: Any = make_app(host=endpoint.host, transport_security=security)
    if endpoint.token is not None:
        app = BearerToken(app, endpoint.token)
    # log_config=None: uvicorn's own would write the access log to stdout.
    config = uvicorn.Config(app, host=endpoint.host, port=endpoint.port, log_config=None, timeout_graceful_shutdown=3)
    with _listen(endpoint.host, endpoint.port) as listener:
        path = "/sse" if endpoint.transport == "sse" else "/mcp"
        port = listener.getsockname()[1]
        sys.stderr.write(f"{server.name}: listening on http://{_host_header(endpoint.host)}:{port}{path}\n")
        await uvicorn.Server(config).serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Bind before uvicorn does, so that a taken port is one clear line and port 0 can be announced."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as exc:
        raise StartupError(
            f"cannot listen on {host}:{port} ({exc.strerror or exc}); choose another --host or --port"
        ) from exc


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
        self._expected = f"Bearer {token}".encode("ascii")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            sent = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(sent, self._expected):
                headers = [(b"www-authenticate", b'Bearer realm="memento"'), (b"content-type", b"text/plain")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send({"type": "http.response.body", "body": b"A valid bearer token is required.\n"})
                return
        await self._app(scope, receive, send)
