"""memento_kit.safe_http: the probes of guides/web.md §5 as tables, and a real server on loopback."""

import gzip
import json
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_kit.safe_http import (
    AddressGuard,
    AnswerRefused,
    HttpLimits,
    HttpStream,
    HttpTimedOut,
    HttpUnavailable,
    SafeHttp,
    SafeHttpError,
    UrlRefused,
)
from support.fetch_probes import CONTROLS, MUST_BE_REFUSED, NAMES, PUBLIC_V4, PUBLIC_V6
from support.loopback import LoopbackServer, answer, loopback_server

pytestmark = pytest.mark.anyio


class Dialled(Exception):
    """The client was about to open a connection; nothing further is needed to know where to."""


class Network:
    """Stands where the sockets are: notes each address that would have been connected to, and refuses the call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dialled: list[tuple[str, int]] = []
        self.asked: list[str] = []
        monkeypatch.setattr("anyio.connect_tcp", self.connect_tcp)

    async def connect_tcp(self, remote_host: str, remote_port: int, **_: object) -> anyio.abc.SocketStream:
        self.dialled.append((remote_host, remote_port))
        raise ConnectionRefusedError

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        found = NAMES.get(host.rstrip(".").lower())
        if found is None:
            raise OSError(f"no such name {host}")
        return found


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


@pytest.mark.parametrize("url", MUST_BE_REFUSED)
async def test_no_connection_is_opened_to_an_address_that_is_not_public(url: str, network: Network) -> None:
    async with SafeHttp(AddressGuard(resolver=network.resolve)) as http:
        with pytest.raises(UrlRefused):
            await http.fetch(url)
    assert network.dialled == []


@pytest.mark.parametrize("url", CONTROLS)
async def test_a_public_address_is_dialled_by_its_number_after_one_look_up(url: str, network: Network) -> None:
    async with SafeHttp(AddressGuard(resolver=network.resolve)) as http:
        with pytest.raises(HttpUnavailable):  # the network of this test refuses every call
            await http.fetch(url)
    assert {host for host, _ in network.dialled} <= {PUBLIC_V4, PUBLIC_V6}
    assert len(network.dialled) == (2 if "both" in url else 1)
    assert len(network.asked) == (0 if url[7].isdigit() or "[" in url else 1)


async def test_a_name_that_answers_differently_the_second_time_gets_no_second_time(network: Network) -> None:
    """DNS rebinding: the first answer is public, every later one is not."""
    answers = iter([[PUBLIC_V4], ["127.0.0.1"]])

    async def resolve(host: str, port: int) -> Sequence[str]:
        return next(answers)

    async with SafeHttp(AddressGuard(resolver=resolve)) as http:
        with pytest.raises(HttpUnavailable):
            await http.fetch("http://rebind.test/")
    assert network.dialled == [(PUBLIC_V4, 80)]


@given(
    st.ip_addresses(v=4).filter(lambda ip: not ip.is_global) | st.ip_addresses(v=6).filter(lambda ip: not ip.is_global)
)
def test_nothing_that_python_calls_local_is_taken_for_public(address: object) -> None:
    async def check() -> None:
        with pytest.raises(UrlRefused):
            await AddressGuard().addresses(str(address), 80)

    anyio.run(check)


# --- what the operator allows and denies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.1", 8080),
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]:8080", "::1", 8080),
        ("::1", "::1", 1234),
        ("localhost:8080", "localhost", 8080),
        ("Ten.Test", "ten.test", 80),
        ("169.254.169.254", "169.254.169.254", 80),
    ],
)
async def test_a_private_host_that_the_operator_names_is_reachable(
    allowed: str, host: str, port: int, network: Network
) -> None:
    guard = AddressGuard(allow_private=[allowed], resolver=network.resolve)
    assert await guard.addresses(host, port) == NAMES.get(host, [host])


@pytest.mark.parametrize(
    ("allowed", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8081),
        ("ten.test", "loop.test", 80),
        ("ten.test", "10.1.2.3", 80),
        ("10.1.2.3:81", "ten.test", 80),
        ("meta.test", "meta.test", 80),
        ("azure.test", "azure.test", 80),
    ],
)
async def test_the_leave_covers_that_host_and_port_only_and_no_name_covers_metadata(
    allowed: str, host: str, port: int, network: Network
) -> None:
    with pytest.raises(UrlRefused):
        await AddressGuard(allow_private=[allowed], resolver=network.resolve).addresses(host, port)


@pytest.mark.parametrize(
    ("lists", "url", "passes"),
    [
        ({"deny_hosts": ["evil.test"]}, "http://evil.test/", False),
        ({"deny_hosts": ["evil.test"]}, "http://www.EVIL.test./", False),
        ({"deny_hosts": ["evil.test"]}, "http://notevil.test/", True),
        ({"allow_hosts": ["good.test"]}, "http://docs.good.test/", True),
        ({"allow_hosts": ["good.test"]}, "http://other.test/", False),
        ({"allow_hosts": ["good.test"], "deny_hosts": ["bad.good.test"]}, "http://bad.good.test/", False),
    ],
)
def test_the_operators_lists_hold_for_a_host_and_its_subdomains(
    lists: dict[str, list[str]], url: str, passes: bool
) -> None:
    guard = AddressGuard(**lists)  # pyright: ignore[reportArgumentType] - the table mixes keyword sets
    if passes:
        guard.check_url(httpx2.URL(url))
    else:
        with pytest.raises(UrlRefused):
            guard.check_url(httpx2.URL(url))


# --- answers: a real server on loopback ------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncGenerator[LoopbackServer]:
    async with loopback_server() as running:
        yield running


@asynccontextmanager
async def client(server: LoopbackServer, **limits: float) -> AsyncGenerator[SafeHttp]:
    guard = AddressGuard(allow_private=[server.base.removeprefix("http://")])
    async with SafeHttp(guard, limits=HttpLimits(**limits), user_agent="probe/1") as http:  # pyright: ignore[reportArgumentType]
        yield http


async def test_a_page_arrives_with_its_address_status_headers_and_body(server: LoopbackServer) -> None:
    server.answers["/p"] = answer(b"caf\xc3\xa9", "Content-Type: Text/HTML; charset=utf-8", status="404 Not Found")
    async with client(server) as http:
        page = await http.fetch(f"{server.base}/p")
    assert (page.url, page.status, page.content_type, page.body) == (
        f"{server.base}/p",
        404,
        "text/html",
        b"caf\xc3\xa9",
    )
    head = server.requests[0].lower()
    assert "user-agent: probe/1" in head
    assert "accept-encoding: gzip, deflate\r\n" in head
    assert "cookie" not in head
    assert "authorization" not in head


async def test_no_cookie_is_kept_for_the_next_request(server: LoopbackServer) -> None:
    server.answers["/"] = answer(b"", "Set-Cookie: id=1; Path=/")
    async with client(server) as http:
        for _ in range(2):
            await http.fetch(f"{server.base}/")
    assert "cookie" not in server.requests[1].lower()


async def test_a_redirect_is_followed_and_its_way_is_told(server: LoopbackServer) -> None:
    server.answers["/a"] = answer(b"", "Location: b?x=1", status="302 Found")
    server.answers["/b?x=1"] = answer(b"here")
    async with client(server) as http:
        page = await http.fetch(f"{server.base}/a")
    assert (page.url, page.body, page.redirects) == (f"{server.base}/b?x=1", b"here", [f"{server.base}/a"])


@pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.2:9/", "//127.0.0.2/", "http://[::1]/", "file:///etc/passwd", "gopher://x/", "http://[bad"],
)
async def test_a_redirect_into_the_private_network_is_refused(
    server: LoopbackServer, status: str, location: str
) -> None:
    server.answers["/"] = answer(b"", f"Location: {location}", status=status)
    async with client(server) as http:
        with pytest.raises(UrlRefused):
            await http.fetch(f"{server.base}/")


async def test_redirects_end(server: LoopbackServer) -> None:
    server.answers["/"] = answer(b"", "Location: /", status="302 Found")
    async with client(server, max_redirects=3) as http:
        with pytest.raises(AnswerRefused, match="more than 3 times"):
            await http.fetch(f"{server.base}/")
    assert len(server.requests) == 4


async def test_a_key_does_not_travel_to_another_server() -> None:
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(httpx2.Request(request.method, request.url, headers=request.headers))
        if request.url.host == "api.test":
            return httpx2.Response(307, headers={"location": "https://other.test/x"})
        return httpx2.Response(200, content=b"ok")

    async with SafeHttp(transport=httpx2.MockTransport(handle)) as http:
        await http.fetch("https://api.test/", method="POST", headers={"X-Api-Key": "k"}, json={"q": 1})
    first, second = seen
    assert first.headers["x-api-key"] == "k"
    assert (second.method, second.headers["host"]) == ("POST", "other.test")
    assert "x-api-key" not in second.headers


async def test_a_post_that_is_redirected_with_303_becomes_a_get(server: LoopbackServer) -> None:
    server.answers["/in"] = answer(b"", "Location: /out", status="303 See Other")
    server.answers["/out"] = answer(b"ok")
    async with client(server) as http:
        assert (await http.fetch(f"{server.base}/in", method="POST", json={"q": 1})).body == b"ok"
    assert server.requests[1].startswith("GET /out ")
    assert "content-length" not in server.requests[1].lower()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b"tide " * 1000)),
        ("gzip", gzip.compress(b"tide " * 500) + gzip.compress(b"tide " * 500)),
        ("deflate", zlib.compress(b"tide " * 1000)),
        ("deflate", zlib.compress(b"tide " * 1000)[2:-4]),
        ("identity", b"tide " * 1000),
    ],
    ids=["gzip", "gzip twice", "zlib", "deflate", "identity"],  # bytes in an id hold the time, and workers differ
)
async def test_compressed_answers_are_unpacked(server: LoopbackServer, encoding: str, packed: bytes) -> None:
    server.answers["/"] = answer(packed, f"Content-Encoding: {encoding}")
    async with client(server) as http:
        assert (await http.fetch(f"{server.base}/")).body == b"tide " * 1000


async def endless(stream: anyio.abc.ByteStream) -> None:
    await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await stream.send(b"x" * 65536)


async def one_byte_at_a_time(stream: anyio.abc.ByteStream) -> None:
    await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        await stream.send(b"x")
        await anyio.sleep(0.05)


async def slow_header(stream: anyio.abc.ByteStream) -> None:
    await stream.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        await stream.send(b"x")
        await anyio.sleep(0.05)


async def silent(stream: anyio.abc.ByteStream) -> None:
    await anyio.sleep(600)


ATTACKS: dict[str, tuple[bytes | Callable[[anyio.abc.ByteStream], Awaitable[None]], type[SafeHttpError]]] = {
    "gzip bomb": (answer(gzip.compress(b"\x00" * 50_000_000), "Content-Encoding: gzip"), AnswerRefused),
    "10 GB announced": (b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\nx", AnswerRefused),
    "endless body": (endless, AnswerRefused),
    "a byte now and then": (one_byte_at_a_time, HttpTimedOut),
    "a header byte now and then": (slow_header, HttpTimedOut),
    "silence": (silent, HttpTimedOut),
    "5 MB of header": (b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 5_000_000 + b"\r\n\r\n", HttpUnavailable),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", HttpUnavailable),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", HttpUnavailable),
    "an encoding nobody asked for": (answer(b"x", "Content-Encoding: br"), AnswerRefused),
    "broken gzip": (answer(b"not gzip at all", "Content-Encoding: gzip"), AnswerRefused),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_answer_meant_to_exhaust_the_client_is_bounded(server: LoopbackServer, attack: str) -> None:
    server.answers["/"], error = ATTACKS[attack]
    async with client(server, total_seconds=1.0, max_body_bytes=1_000_000) as http:
        with anyio.fail_after(10), pytest.raises(error):
            await http.fetch(f"{server.base}/")


async def test_a_bomb_unfolds_in_small_pieces_and_only_up_to_the_limit(server: LoopbackServer) -> None:
    """50 MB of zeros arrive in one chunk of 50 kB: unpacked at once they would all be in memory."""
    server.answers["/"] = answer(gzip.compress(b"\x00" * 50_000_000), "Content-Encoding: gzip")
    sizes: list[int] = []

    async def read(stream: HttpStream) -> None:
        sizes.extend([len(chunk) async for chunk in stream.chunks()])

    async with client(server, max_body_bytes=60_000_000) as http, http.stream(f"{server.base}/") as stream:
        await read(stream)
    assert (sum(sizes), max(sizes) <= 65_536) == (50_000_000, True)
    async with client(server, max_body_bytes=1_000_000) as http, http.stream(f"{server.base}/") as stream:
        with pytest.raises(AnswerRefused, match="larger than the 1000000 bytes"):
            await read(stream)


async def test_the_callers_own_timeout_stays_the_callers(server: LoopbackServer) -> None:
    server.answers["/"] = answer(b"ok")
    async with client(server) as http:
        with pytest.raises(TimeoutError) as raised:
            async with http.stream(f"{server.base}/"):
                raise TimeoutError("mine")
    assert not isinstance(raised.value, SafeHttpError)


async def test_a_closed_port_is_unavailable_and_says_so(server: LoopbackServer) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with SafeHttp(AddressGuard(allow_private=["127.0.0.1"])) as http:
        with pytest.raises(HttpUnavailable, match=r"refused|failed"):
            await http.fetch(f"http://127.0.0.1:{port}/")


async def test_an_unknown_name_is_unavailable_and_a_slow_resolver_times_out() -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise OSError("Name or service not known")

    async def never(host: str, port: int) -> Sequence[str]:
        await anyio.sleep(600)
        return []

    async with SafeHttp(AddressGuard(resolver=nowhere)) as http:
        with pytest.raises(HttpUnavailable, match=r"no host named 'gone\.test'"):
            await http.fetch("http://gone.test/")
    async with SafeHttp(AddressGuard(resolver=never, resolve_seconds=0.1)) as http:
        with pytest.raises(HttpTimedOut, match="not resolved"):
            await http.fetch("http://slow.test/")


async def test_parameters_and_json_go_out_as_given() -> None:
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"ok": True})

    async with SafeHttp(transport=httpx2.MockTransport(handle)) as http:
        got = await http.fetch("https://api.test/s?a=1", params={"q": "tides & waves"}, method="POST", json={"n": 2})
    assert dict(seen[0].url.params) == {"a": "1", "q": "tides & waves"}
    assert json.loads(seen[0].content) == {"n": 2}
    assert json.loads(got.body) == {"ok": True}


async def test_proxies_of_the_environment_are_not_used(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    server.answers["/"] = answer(b"direct")
    async with client(server) as http:
        assert (await http.fetch(f"{server.base}/")).body == b"direct"


def test_a_url_without_a_scheme_is_answered_with_how_to_write_it() -> None:
    with pytest.raises(UrlRefused, match=r"'example\.com/tides' is not a whole URL.*https://"):
        AddressGuard().check_url(httpx2.URL("example.com/tides"))
