"""The one HTTP client for addresses that somebody else chose: a model, a web page, a search result.

Owns which addresses may be reached and how much of an answer is read. It knows nothing of what the answer means,
keeps no cookies, and ignores proxies from the environment.

How a request cannot be talked into the private network (server-side request forgery): one parser reads the URL,
the name is resolved once, *every* answer must be a public address, and the connection goes to the very address
that was checked, so a second DNS answer is never asked for. TLS and the Host header keep the name. Each redirect
starts from the beginning. Measured with the probes of guides/web.md §5: no client on PyPI refuses all of them.

    SafeHttpError
      ├─ UrlRefused        not allowed: another URL, or the operator's permission, is needed
      ├─ HttpUnavailable   no answer: the same request may work later
      │    └─ HttpTimedOut
      └─ AnswerRefused     an answer, but too large, in an unknown compression, or one redirect too many
"""

import contextlib
import ipaddress
import re
import socket
import zlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Annotated, Any, Self, cast

import anyio
import httpcore2
import httpx2
from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

__all__ = [
    "AddressGuard",
    "AnswerRefused",
    "HostList",
    "HttpAnswer",
    "HttpLimits",
    "HttpStream",
    "HttpTimedOut",
    "HttpUnavailable",
    "Resolver",
    "SafeHttp",
    "SafeHttpError",
    "UrlRefused",
]


_ENTRY = re.compile(r"(?:\[[0-9a-f:.]+\]|[^\s/:@?#\[\]]+)(?::\d{1,5})?|[0-9a-f:.]+", re.IGNORECASE)


def _split_hosts(value: object) -> object:
    return tuple(entry for part in value.split(",") if (entry := part.strip())) if isinstance(value, str) else value


def _check_hosts(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        host, port = _host_and_port(entry)
        is_host = _ENTRY.fullmatch(entry) and (_HOST.fullmatch(host) or _literal(host))
        if not is_host or (port is not None and not 0 < port < 65536):
            raise ValueError(f"{entry!r} is not a host or host:port, without a scheme or path")
    return entries


HostList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_hosts), AfterValidator(_check_hosts)]
"""A settings field that takes hosts, or `host:port`, joined by commas."""

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Turns a host name and port into IP addresses; raises `OSError` when there are none."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,252})", re.IGNORECASE)


class SafeHttpError(Exception):
    """The request gave nothing usable. The message is written for the model to read."""


class UrlRefused(SafeHttpError):
    """This URL, or one that it led to, may not be fetched."""


class HttpUnavailable(SafeHttpError):
    """No such host, no connection, or one that broke: the same request may work later."""


class HttpTimedOut(HttpUnavailable):
    """Not done in the time the operator allows."""


class AnswerRefused(SafeHttpError):
    """The server answered with more than is taken, or with something that cannot be read safely."""


@dataclass(frozen=True)
class HttpLimits:
    """What one request may cost, its redirects included."""

    total_seconds: float = 20.0
    connect_seconds: float = 5.0
    max_body_bytes: int = 10_000_000
    """Counted after decompression: a bomb is stopped at this size, not at its own."""
    max_redirects: int = 5


@dataclass(frozen=True)
class HttpAnswer:
    """A whole answer. `body` is decompressed, not decoded."""

    url: str
    """Where the answer came from: the last address of the redirects."""
    status: int
    headers: httpx2.Headers
    body: bytes
    redirects: list[str] = field(default_factory=list[str])
    """The URLs that led here, in order; empty without redirects."""

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


# --- which addresses ------------------------------------------------------------------------------------------------

# IANA special-purpose registries (RFC 6890 and later entries), written out: the tables of `ipaddress` differ between
# Python versions (3.11.7 calls some of these global). Whatever routes to another address by design is refused as a
# whole and never unwrapped: nothing on the public web needs it.
_SPECIAL_V4 = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "carrier-grade NAT",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "cloud metadata",  # Azure's, in public space
    "169.254.0.0/16": "link-local and cloud metadata",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "IETF protocol",  # 192.0.0.192 is Oracle's metadata
    "192.0.2.0/24": "documentation",
    "192.52.193.0/24": "AMT relay",
    "192.88.99.0/24": "6to4 relay",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
_SPECIAL_V6 = {
    "::1/128": "loopback",
    "::/128": "unspecified",
    "::ffff:0:0/96": "IPv4-mapped",
    "::/96": "IPv4-compatible",
    "64:ff9b::/96": "NAT64",
    "64:ff9b:1::/48": "NAT64",
    "100::/64": "discard",
    "2001::/32": "Teredo",
    "2001::/23": "IETF protocol",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fd00:ec2::/32": "cloud metadata",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}
_SPECIAL = [(ipaddress.ip_network(net), kind) for net, kind in {**_SPECIAL_V4, **_SPECIAL_V6}.items()]
_GLOBAL_UNICAST_V6 = ipaddress.ip_network("2000::/3")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""RFC 5214: these 32 bits before the last 32 say that an IPv4 address follows, under any prefix."""
_PERMITTED_WITH_LEAVE = frozenset({"private", "loopback", "carrier-grade NAT"})
"""What a *name* on the operator's list may resolve to. Anything else (metadata above all) only if listed by address."""

_NOT_WEB_PORTS = (
    "22 23 25 53 110 111 135 139 143 389 445 465 514 587 636 873 993 995 1433 1521 2049 2375 2376 3306 3389"
)
_MORE_PORTS = "5432 5900 6000 6379 6667 9200 9300 10250 11211 27017"
_REFUSED_PORTS = frozenset(map(int, f"{_NOT_WEB_PORTS} {_MORE_PORTS}".split()))
"""Other protocols that a forged HTTP request could reach. Browsers refuse most of these (fetch.spec.whatwg.org)."""


class AddressGuard:
    """Decides which hosts and addresses may be reached, and resolves names no more than once per connection.

    Args:
        allow_private: hosts in private or loopback space that the operator opens, as `host` or `host:port`.
        allow_hosts: if not empty, only these hosts (and their subdomains) may be reached.
        deny_hosts: hosts that may not be reached, nor their subdomains; wins over everything else.
    """

    def __init__(
        self,
        *,
        allow_private: Iterable[str] = (),
        allow_hosts: Iterable[str] = (),
        deny_hosts: Iterable[str] = (),
        resolver: Resolver | None = None,
        resolve_seconds: float = 5.0,
    ) -> None:
        self._allow_private = {_host_and_port(entry) for entry in allow_private}
        self._allow_hosts = tuple(_plain(host) for host in allow_hosts)
        self._deny_hosts = tuple(_plain(host) for host in deny_hosts)
        self._resolve = resolver or _system_resolver
        self._resolve_seconds = resolve_seconds

    def check_url(self, url: httpx2.URL) -> None:
        """Refuse what can be refused by looking.

        Raises:
            UrlRefused: the scheme, the host's spelling, the port, a password, or the operator's lists.
        """
        if not url.scheme:
            raise UrlRefused(
                f"{str(url)!r} is not a whole URL. Give it with its scheme, as in https://example.com/page."
            )
        if url.scheme not in _DEFAULT_PORTS:
            raise UrlRefused(f"Only http and https URLs are fetched, not {url.scheme!r}.")
        if url.userinfo:
            raise UrlRefused("A URL with a user name or password is not fetched; leave that part out.")
        host = url.raw_host.decode("ascii")
        if not (_HOST.fullmatch(host) or _literal(host)):
            raise UrlRefused(f"{str(url)!r} has no valid host name.")
        port = url.port or _DEFAULT_PORTS[url.scheme]
        if not 0 < port < 65536 or (port in _REFUSED_PORTS and not self._is_private_allowed(host, port)):
            raise UrlRefused(f"Port {port} is not a web port, so {str(url)!r} is not fetched.")
        self._check_lists(host)

    def _check_lists(self, host: str) -> None:
        name = _plain(host)
        if any(name == entry or name.endswith(f".{entry}") for entry in self._deny_hosts):
            raise UrlRefused(f"The operator does not allow the host {name!r}. Try another source.")
        if self._allow_hosts and not any(name == entry or name.endswith(f".{entry}") for entry in self._allow_hosts):
            raise UrlRefused(f"The operator allows only these hosts: {', '.join(self._allow_hosts)}.")

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of `host`, all of them checked, in the order to try them.

        Raises:
            UrlRefused: at least one of them is not public, and the operator has not allowed it.
            HttpUnavailable: the name does not resolve, or not in time.
        """
        if _literal(host):
            found: Sequence[str] = [host]
        else:
            try:
                with anyio.fail_after(self._resolve_seconds):
                    found = await self._resolve(host, port)
            except TimeoutError as exc:
                raise HttpTimedOut(f"The name {host!r} was not resolved in {self._resolve_seconds:g} seconds.") from exc
            except (OSError, UnicodeError) as exc:
                raise HttpUnavailable(f"There is no host named {host!r}, or it cannot be looked up here.") from exc
        if not found:
            raise HttpUnavailable(f"There is no host named {host!r}.")
        for address in found:
            kind = _special_kind(address)
            if kind is not None and not self._is_leave_given(host, port, address, kind):
                raise UrlRefused(
                    f"{host!r} is not on the public internet ({kind} address), so it is not fetched. The operator can "
                    "allow a private host in the settings."
                )
        return list(found)

    def _is_leave_given(self, host: str, port: int, address: str, kind: str) -> bool:
        by_name = kind in _PERMITTED_WITH_LEAVE and self._is_private_allowed(host, port)
        return by_name or self._is_private_allowed(address, port)

    def _is_private_allowed(self, host: str, port: int) -> bool:
        name = _plain(host)
        return (name, None) in self._allow_private or (name, port) in self._allow_private


def _special_kind(address: str) -> str | None:
    """Say what makes `address` not a plain public one, or `None`."""
    parsed = ipaddress.ip_address(address)
    for network, kind in _SPECIAL:
        if parsed in network:
            return kind
    if parsed.version == 6:
        if parsed not in _GLOBAL_UNICAST_V6 or getattr(parsed, "scope_id", None) is not None:
            return "reserved"
        if (int(parsed) >> 32) & 0xFFFFFFFF in _ISATAP:
            return "ISATAP"
    return None


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _plain(host: str) -> str:
    """A host as lists compare it: lower case, no final dot, no brackets, addresses in their one spelling."""
    name = host.strip().strip("[]").rstrip(".").lower()
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(name))
    with contextlib.suppress(httpx2.InvalidURL):
        return httpx2.URL(f"http://{name}/").raw_host.decode("ascii")
    return name


def _host_and_port(entry: str) -> tuple[str, int | None]:
    host, colon, port = entry.strip().rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.endswith("]")):
        return _plain(host), int(port)
    return _plain(entry), None


async def _system_resolver(host: str, port: int) -> list[str]:
    answers = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in answers))


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to a name by connecting to one of its checked addresses: no second look-up in between."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        # httpcore2 defines the class twice, for when anyio is missing; a type checker sees the empty one.
        self._network = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._guard.addresses(host, port)
        for address in addresses[:-1]:
            with contextlib.suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise UrlRefused("Local sockets are not fetched from.")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _GuardedTransport(httpx2.AsyncBaseTransport):
    """httpx2's transport interface over a connection pool that uses the guarded backend."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._pool: httpcore2.AsyncConnectionPool | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._pool is None:
            # Reading the certificates takes tens of milliseconds, so it waits for the first request.
            context = await anyio.to_thread.run_sync(httpx2.create_ssl_context)
            self._pool = self._pool or httpcore2.AsyncConnectionPool(
                ssl_context=context,
                max_connections=20,
                max_keepalive_connections=5,
                keepalive_expiry=5.0,
                network_backend=_GuardedBackend(self._guard),
            )
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        answer = await self._pool.handle_async_request(
            httpcore2.Request(
                request.method,
                url,
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx2.Response(answer.status, headers=answer.headers, stream=_PoolStream(answer))

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()


class _PoolStream(httpx2.AsyncByteStream):
    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._answer.aiter_stream():
            yield chunk

    async def aclose(self) -> None:
        await self._answer.aclose()


# --- the client -----------------------------------------------------------------------------------------------------


class HttpStream:
    """An answer whose body is still on its way. Read `chunks()` at most once, inside the block that opened it."""

    def __init__(self, response: httpx2.Response, url: httpx2.URL, redirects: list[str], max_body_bytes: int) -> None:
        self.url = str(url)
        self.status = response.status_code
        self.headers = response.headers
        self.redirects = redirects
        self._response = response
        self._max_body_bytes = max_body_bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the decompressed body.

        Raises:
            AnswerRefused: the body is too large, or its compression is broken or unknown.
            HttpUnavailable: the connection broke.
        """
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise self._too_large()
        inflate = _inflater(self.headers.get("content-encoding", ""))
        read = 0
        stream = self._response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        with _translated(self.url):
            async for raw in stream:
                for chunk in inflate(raw):
                    read += len(chunk)
                    if read > self._max_body_bytes:
                        raise self._too_large()
                    yield chunk

    async def body(self) -> bytes:
        """Return the whole body; raises as `chunks` does."""
        return b"".join([chunk async for chunk in self.chunks()])

    def _too_large(self) -> AnswerRefused:
        return AnswerRefused(f"{self.url} is larger than the {self._max_body_bytes} bytes that are fetched at most.")


class SafeHttp:
    """The client. Open it with `async with`; one per server, any number of requests at once.

    Args:
        transport: what carries the requests; tests replace it. The default checks and pins every address.
    """

    def __init__(
        self,
        guard: AddressGuard | None = None,
        *,
        limits: HttpLimits | None = None,
        user_agent: str = "memento/0.1",
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._guard = guard or AddressGuard()
        self._limits = limits or HttpLimits()
        self._user_agent = user_agent
        self._transport = transport or _GuardedTransport(self._guard)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        limits: HttpLimits | None = None,
    ) -> HttpAnswer:
        """Send a request and read the whole answer, whatever its status.

        Raises:
            UrlRefused: this URL, or one it redirects to, may not be fetched.
            HttpUnavailable: no answer, or not in time (`HttpTimedOut`).
            AnswerRefused: too large, too many redirects, or an unknown compression.
        """
        async with self.stream(url, method=method, headers=headers, params=params, json=json, limits=limits) as answer:
            return HttpAnswer(answer.url, answer.status, answer.headers, await answer.body(), answer.redirects)

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        limits: HttpLimits | None = None,
    ) -> AsyncGenerator[HttpStream]:
        """Send a request and hand out the answer before its body is read; the time limit covers the whole block.

        Raises:
            SafeHttpError: as for `fetch`.
        """
        limits = limits or self._limits
        scope: anyio.CancelScope | None = None
        try:
            with anyio.fail_after(limits.total_seconds) as scope:
                request = self._request(method, _parsed(url, params), headers, json)
                response, redirects = await self._send(request, limits)
                try:
                    yield HttpStream(response, request.url, redirects, limits.max_body_bytes)
                finally:
                    with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                        await response.aclose()
        except TimeoutError as exc:
            if scope is None or not scope.cancelled_caught:
                raise  # the caller's own
            raise HttpTimedOut(f"{url} was not there after {limits.total_seconds:g} seconds.") from exc

    def _request(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str] | None, json: Any = None
    ) -> httpx2.Request:
        own = {"user-agent": self._user_agent, "accept": "*/*", "accept-encoding": "gzip, deflate"}
        return httpx2.Request(method, url, headers={**own, **(headers or {})}, json=json)

    async def _send(self, request: httpx2.Request, limits: HttpLimits) -> tuple[httpx2.Response, list[str]]:
        """Follow redirects to an answer. `request` is changed to the last one that was sent."""
        came_by: list[str] = []
        while True:
            self._guard.check_url(request.url)
            request.extensions["timeout"] = {"connect": limits.connect_seconds, "pool": limits.total_seconds}
            with _translated(str(request.url)):
                response = await self._transport.handle_async_request(request)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or not location:
                return response, came_by
            await response.aclose()
            came_by.append(str(request.url))
            if len(came_by) > limits.max_redirects:
                raise AnswerRefused(f"{came_by[0]} redirects more than {limits.max_redirects} times.")
            _redirect(request, response.status_code, location)


def _parsed(url: str, params: Mapping[str, str] | None = None) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url.strip())
        return parsed.copy_merge_params(dict(params)) if params else parsed
    except (httpx2.InvalidURL, UnicodeError) as exc:
        raise UrlRefused(f"{url!r} is not a valid URL: {exc}.") from exc


def _redirect(request: httpx2.Request, status: int, location: str) -> None:
    """Point `request` where its answer says, without what was meant for the first server only."""
    before = request.url
    try:
        target = before.join(_parsed(location)).copy_with(fragment=None)
    except httpx2.InvalidURL as exc:
        raise UrlRefused(f"{before} redirects to an invalid URL: {exc}.") from exc
    if status == 303 or (status in (301, 302) and request.method == "POST"):
        method, stream = "GET" if request.method != "HEAD" else "HEAD", httpx2.ByteStream(b"")
        dropped = {"content-length", "content-type", "transfer-encoding", "host"}
    else:
        method, stream, dropped = request.method, request.stream, {"host"}
    if (target.scheme, target.raw_host, target.port) != (before.scheme, before.raw_host, before.port):
        kept = {"user-agent", "accept", "accept-encoding", "accept-language", "content-length", "content-type"}
        dropped |= {name for name in request.headers if name not in kept}
    headers = [(name, value) for name, value in request.headers.items() if name not in dropped]
    request.method, request.url, request.stream = method, target, stream
    request.headers = httpx2.Headers([("host", target.netloc.decode("ascii")), *headers])


@contextlib.contextmanager
def _translated(url: str) -> Generator[None]:
    """The libraries' failures in this module's words. Both, because a test's transport raises httpx2's."""
    try:
        yield
    except (httpx2.TimeoutException, httpcore2.TimeoutException) as exc:
        raise HttpTimedOut(f"{url} did not answer in time.") from exc
    except (httpx2.TransportError, httpcore2.NetworkError, httpcore2.ProtocolError) as exc:
        raise HttpUnavailable(f"{url} gave no proper answer ({_reason(exc)}).") from exc


def _reason(exc: BaseException) -> str:
    """The deepest cause, since the libraries wrap it: `Connection refused` says more than `ConnectError`."""
    while (inner := exc.__cause__ or exc.__context__) is not None and not isinstance(inner, anyio.EndOfStream):
        exc = inner
    return " ".join(str(exc).split())[:200] or type(exc).__name__


_CHUNK_BYTES = 65_536


def _inflater(encoding: str) -> Callable[[bytes], Iterator[bytes]]:
    """Return what turns compressed chunks into plain ones, none larger than 64 KiB: no bomb unfolds at once.

    Only what was asked for: brotli and zstd unfold without such a bound in the libraries at hand.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return lambda raw: iter([raw])
    if name not in ("gzip", "x-gzip", "deflate"):
        raise AnswerRefused(f"The answer is compressed with {name!r}, which was not asked for.")
    return _Inflater(may_lack_header=name == "deflate").feed


class _Inflater:
    """gzip or zlib, told apart by zlib itself (the 32); `deflate` without zlib's header is sent by some servers too."""

    def __init__(self, *, may_lack_header: bool) -> None:
        self._unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._may_lack_header = may_lack_header

    def feed(self, raw: bytes) -> Iterator[bytes]:
        while True:
            try:
                chunk = self._unpack.decompress(raw, _CHUNK_BYTES)
            except zlib.error as exc:
                if not self._may_lack_header:
                    raise AnswerRefused("The answer's compression is broken.") from exc
                self._unpack, self._may_lack_header = zlib.decompressobj(wbits=-zlib.MAX_WBITS), False
                continue
            if chunk:
                self._may_lack_header = False
                yield chunk
            if self._unpack.eof:
                raw = self._unpack.unused_data
                if not raw:
                    return
                self._unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip files may be several in a row
            elif chunk:
                raw = self._unpack.unconsumed_tail
            else:
                return
