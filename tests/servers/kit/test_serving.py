"""memento_kit.serving: real processes, over all three transports, told to start, serve and stop.

The program they run is `support/probe_server.py`.
"""

import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from memento_kit.serving import BearerToken
from support import probe_server
from support.server_process import (
    INITIALIZE,
    INITIALIZED,
    ServerProcess,
    http_server_process,
    server_process,
    tool_call,
)

pytestmark = pytest.mark.anyio

PROGRAM = [sys.executable, str(Path(probe_server.__file__))]
TOKEN = "a-token-that-is-long-enough"
MCP_HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


@contextmanager
def probe(*options: str, **variables: str) -> Generator[ServerProcess]:
    with server_process([*PROGRAM, *options], variables) as running:
        yield running


@contextmanager
def http_probe(*options: str, **variables: str) -> Generator[tuple[ServerProcess, str]]:
    with http_server_process([*PROGRAM, *options], variables) as (running, url):
        yield running, url


# --- stdio ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_stdio_serves_tools_and_what_they_print_stays_off_the_wire(era: Any, tmp_path: Path) -> None:
    with anyio.fail_after(60), (tmp_path / "log").open("w+") as log:
        parameters = StdioServerParameters(command=PROGRAM[0], args=PROGRAM[1:])
        async with Client(stdio_client(parameters, errlog=log), mode=era) as client:
            result = await client.call_tool("add", {"a": 2, "b": 3})
            assert result.structured_content == {"result": 5}
        log.seek(0)
        written = log.read()
    assert "a stray write" in written
    assert "a stray child" in written
    assert "resources closed" in written


def test_a_closed_stdin_ends_the_server_with_exit_code_0() -> None:
    with probe() as running:
        running.send(INITIALIZE)
        assert running.receive()["result"]["serverInfo"] == {"name": "probe", "version": version("memento-kit")}
        running.stdin.close()
        assert running.end() == (0, [], ["resources opened", "resources closed"])


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_waiting_server_with_exit_code_0(number: signal.Signals) -> None:
    """Its stdin stays open: nothing but the signal tells it to stop."""
    with probe() as running:
        running.send(INITIALIZE)
        running.receive()
        running.process.send_signal(number)
        assert running.end() == (0, [], ["resources opened", "resources closed"])


@POSIX
def test_a_signal_ends_a_server_in_the_middle_of_a_call() -> None:
    with probe() as running:
        running.send(INITIALIZE, INITIALIZED, tool_call("wait"))
        running.wait_for("waiting")
        running.process.send_signal(signal.SIGTERM)
        code, _, log = running.end()
        assert (code, log) == (0, ["resources closed"])


def test_a_client_that_stops_reading_ends_the_server_with_exit_code_0_and_no_traceback() -> None:
    with probe() as running:
        running.initialize()
        assert running.request("tools/call", {"name": "add", "arguments": {"a": 1}})["result"]
        running.stdout.close()
        running.send({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
        code, _, log = running.end()
    assert code == 0
    assert "Traceback" not in "\n".join(log)
    assert "Exception ignored" not in "\n".join(log)
    assert "resources closed" in log


def test_what_a_tool_printed_and_nobody_flushed_does_not_come_out_on_the_wire_at_the_end() -> None:
    with probe(PYTHONUNBUFFERED="") as running:
        running.initialize()
        assert running.request("tools/call", {"name": "add", "arguments": {"a": 1}})["result"]
        running.stdin.close()
        code, rest, log = running.end()
    assert (code, rest) == (0, [])
    assert "a stray print" in log


def test_lines_that_are_not_messages_are_survived() -> None:
    with probe() as running:
        running.stdin.write("not json\n\n[1, 2]\n{}\n\udcff\n".encode("utf-8", "replace").decode())
        running.send(INITIALIZE)
        assert running.receive()["id"] == 0
        running.stdin.close()
        assert running.end()[0] == 0


def test_a_message_longer_than_any_buffer_arrives_whole() -> None:
    with probe() as running:
        padded = {**INITIALIZE, "params": {**INITIALIZE["params"], "_meta": {"x": "y" * 2_000_000}}}
        running.send(padded)
        assert running.receive()["id"] == 0


# --- wrong start ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "variables", "told"),
    [
        pytest.param(
            [],
            {"MEMENTO_PROBE_LIMIT": "0"},
            "wrong setting: MEMENTO_PROBE_LIMIT: Input should be greater than or equal to 1 (got '0')",
            id="wrong setting",
        ),
        pytest.param(
            [],
            {"MEMENTO_PROBE_START": "refused"},
            "MEMENTO_PROBE_START: this server was told not to start",
            id="the lifespan refuses, over stdio with stdin left open",
        ),
        pytest.param(
            ["--transport", "streamable-http", "--port", "0"],
            {"MEMENTO_PROBE_START": "refused"},
            "MEMENTO_PROBE_START: this server was told not to start",
            id="the lifespan refuses, over HTTP",
        ),
        pytest.param(
            ["--transport", "streamable-http", "--host", "0.0.0.0"],
            {},
            "--host 0.0.0.0 is reachable from other machines, so a bearer token is needed: "
            "pass --token-file FILE or set MEMENTO_TOKEN (or listen on 127.0.0.1)",
            id="every address without a token",
        ),
        pytest.param(
            ["--transport", "sse", "--host", "::"],
            {},
            "--host :: is reachable from other machines, so a bearer token is needed: "
            "pass --token-file FILE or set MEMENTO_TOKEN (or listen on 127.0.0.1)",
            id="every IPv6 address without a token",
        ),
        pytest.param(
            ["--transport", "streamable-http", "--host", "some-name.test"],
            {},
            "--host some-name.test is reachable from other machines, so a bearer token is needed: "
            "pass --token-file FILE or set MEMENTO_TOKEN (or listen on 127.0.0.1)",
            id="a name, which may be anything",
        ),
        pytest.param(
            ["--transport", "streamable-http"],
            {"MEMENTO_TOKEN": "short"},
            "MEMENTO_TOKEN must be at least 16 printable ASCII characters without spaces; "
            "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            id="short token",
        ),
        pytest.param(
            ["--transport", "streamable-http", "--token-file", "/no/such/file"],
            {},
            "--token-file /no/such/file cannot be read: [Errno 2] No such file or directory: '/no/such/file'",
            id="no token file",
        ),
        pytest.param(
            ["--transport", "streamable-http", "--token-file", os.devnull],
            {},
            f"--token-file {os.devnull} is empty: put the token on its first line",
            id="empty token file",
        ),
        pytest.param(
            ["--transport", "streamable-http", "--port", "70000"],
            {},
            "--port 70000 is not a port: choose one from 1 to 65535, or 0 for any free one",
            id="no such port",
        ),
        pytest.param(
            ["--transport", "sse", "--allowed-host", "https://mcp.example.com"],
            {},
            "--allowed-host https://mcp.example.com is not a Host header: give a name or address as clients write it "
            "in the URL, such as mcp.example.com, mcp.example.com:8443 or [::1] (no scheme, no path, no wildcard)",
            id="a URL for a host",
        ),
    ],
)
def test_what_the_operator_must_change_is_one_line_and_exit_code_2(
    options: list[str], variables: dict[str, str], told: str
) -> None:
    with probe(*options, **variables) as running:
        assert running.end() == (2, [], [f"memento-kit: {told}"])


def test_a_taken_port_is_one_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with probe("--transport", "streamable-http", "--port", str(port)) as running:
            code, _, log = running.end()
    assert (code, log) == (
        2,
        [
            f"memento-kit: cannot listen on 127.0.0.1:{port} (Address already in use); choose another --host or --port",
        ],
    )


@pytest.mark.parametrize("options", [[], ["--transport", "streamable-http", "--port", "0"]])
def test_a_bug_at_start_is_a_traceback_and_exit_code_1(options: list[str]) -> None:
    """Not a line for the operator, who could not do anything about it, and not a hang."""
    with probe(*options, MEMENTO_PROBE_START="crashed") as running:
        code, out, log = running.end()
    assert (code, out) == (1, [])
    assert "RuntimeError: a bug in the lifespan" in "\n".join(log)


def test_version_and_help_print_and_exit() -> None:
    with probe("--version") as running:
        assert running.end() == (0, [f"memento-kit {version('memento-kit')}"], [])
    with probe("--help") as running:
        code, out, _ = running.end()
    assert code == 0
    text = "\n".join(out)
    for option in ("--transport", "--host", "--port", "--token-file", "--allowed-host", "--version", "--log-level"):
        assert option in text


def test_a_token_that_is_only_for_http_does_not_keep_stdio_from_starting() -> None:
    with probe(MEMENTO_TOKEN="short") as running:
        running.send(INITIALIZE)
        assert running.receive()["id"] == 0


# --- HTTP -------------------------------------------------------------------------------------------


@asynccontextmanager
async def http_client(url: str, era: Any = "auto") -> AsyncGenerator[Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    if url.endswith("/sse"):
        async with Client(sse_client(url, headers=headers), mode=era) as client:
            yield client
        return
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http), mode=era) as client,
    ):
        yield client


@pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")  # sse is deprecated, and asked for
@pytest.mark.parametrize("era", ["auto", "legacy"])
@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
async def test_http_serves_tools_and_stops_on_a_signal(transport: str, era: Any) -> None:
    with anyio.fail_after(60), http_probe("--transport", transport, MEMENTO_TOKEN=TOKEN) as (running, url):
        async with http_client(url, era) as client:
            assert (await client.call_tool("add", {"a": 2, "b": 3})).structured_content == {"result": 5}
        running.process.terminate()
        code, _, log = await anyio.to_thread.run_sync(running.end)
    assert code == 0
    assert "Traceback" not in "\n".join(log)
    if transport == "streamable-http":  # one lifespan for the process, and its end is not an accident
        assert log == ["resources closed"]


@POSIX
def test_http_stops_although_a_stream_is_open() -> None:
    with http_probe("--transport", "sse") as (running, url), httpx2.stream("GET", url, timeout=20) as stream:
        assert next(stream.iter_lines()) == "event: endpoint"
        running.process.send_signal(signal.SIGINT)
        code, _, log = running.end()
    assert code == 0
    assert "Traceback" not in "\n".join(log)


HOSTS = [
    pytest.param("127.0.0.1:{port}", 200, id="the bound address"),
    pytest.param("localhost:{port}", 200, id="localhost"),
    pytest.param("[::1]:{port}", 200, id="IPv6 loopback"),
    pytest.param("localhost", 200, id="no port"),
    pytest.param("mcp.example.com", 200, id="allowed name"),
    pytest.param("mcp.example.com:8443", 200, id="allowed name, any port"),
    pytest.param("one-port.example.com:9000", 200, id="allowed name with its port"),
    pytest.param("one-port.example.com:9001", 421, id="allowed name with another port"),
    pytest.param("evil.com", 421, id="another name"),
    pytest.param("evil.com:{port}", 421, id="another name with our port"),
    pytest.param("127.0.0.1.evil.com", 421, id="a name that starts like an address"),
    pytest.param("localhost.evil.com:{port}", 421, id="a name that starts like localhost"),
    pytest.param("evil.mcp.example.com", 421, id="a name under an allowed one"),
    pytest.param("", 421, id="none"),
]
ORIGINS = [
    pytest.param(None, 200, id="no browser"),
    pytest.param("http://localhost:3000", 200, id="a page on this machine"),
    pytest.param("http://127.0.0.1:{port}", 200, id="our own"),
    pytest.param("https://mcp.example.com", 200, id="allowed name"),
    pytest.param("https://evil.com", 403, id="another site"),
    pytest.param("http://localhost.evil.com", 403, id="a site that starts like localhost"),
    pytest.param("null", 403, id="a sandboxed page"),
    pytest.param("file://", 403, id="a file"),
]


@pytest.fixture(scope="module", params=["127.0.0.1", "0.0.0.0"])
def guarded(request: pytest.FixtureRequest) -> Generator[str]:
    """The URL of a server bound to one address, or to all of them, with a token and two allowed names."""
    allowed = ["--allowed-host", "mcp.example.com", "--allowed-host", "one-port.example.com:9000"]
    options = ["--transport", "streamable-http", "--host", request.param, *allowed]
    with http_probe(*options, MEMENTO_TOKEN=TOKEN) as (_, url):
        yield url.replace("0.0.0.0", "127.0.0.1")


def ask(url: str, **headers: str) -> int:
    right = {**MCP_HEADERS, "Authorization": f"Bearer {TOKEN}"}
    return httpx2.post(url, json=INITIALIZE, headers={**right, **headers}, timeout=20).status_code


@pytest.mark.parametrize(("host", "status"), HOSTS)
def test_only_names_of_this_server_are_answered_on_whatever_address_it_is_bound(
    guarded: str, host: str, status: int
) -> None:
    """DNS rebinding: a page's own name, made to resolve to us, arrives in the Host header."""
    assert ask(guarded, Host=host.format(port=httpx2.URL(guarded).port)) == status


@pytest.mark.parametrize(("origin", "status"), ORIGINS)
def test_only_pages_of_this_server_or_machine_are_answered(guarded: str, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"Origin": origin.format(port=httpx2.URL(guarded).port)}
    assert ask(guarded, **headers) == status


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        pytest.param(f"Bearer {TOKEN}", 200, id="right"),
        pytest.param(f"bearer {TOKEN}", 200, id="the scheme has no case"),
        pytest.param(None, 401, id="none"),
        pytest.param("", 401, id="empty"),
        pytest.param("Bearer", 401, id="scheme only"),
        pytest.param(TOKEN, 401, id="no scheme"),
        pytest.param(f"Basic {TOKEN}", 401, id="another scheme"),
        pytest.param("Bearer a-token-that-is-long-enougH", 401, id="one letter wrong"),
        pytest.param(f"Bearer {TOKEN}x", 401, id="one letter more"),
        pytest.param(f"Bearer {TOKEN[:-1]}", 401, id="one letter less"),
    ],
)
@pytest.mark.parametrize("path", ["/mcp", "/anything"])
def test_every_request_needs_the_token(guarded: str, path: str, authorization: str | None, status: int) -> None:
    headers = MCP_HEADERS if authorization is None else {**MCP_HEADERS, "Authorization": authorization}
    answer = httpx2.post(httpx2.URL(guarded).join(path), json=INITIALIZE, headers=headers, timeout=20)
    assert answer.status_code == (404 if status == 200 and path == "/anything" else status)
    if status == 401:
        assert answer.headers["www-authenticate"] == 'Bearer realm="memento"'
        assert TOKEN not in answer.text


def test_a_token_file_works_as_the_variable_does_and_wins_over_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    options = ["--transport", "streamable-http", "--token-file", str(file)]
    with http_probe(*options, MEMENTO_TOKEN="another-token-of-some-length") as (_, url):
        assert ask(url) == 200
        assert ask(url, Authorization="Bearer another-token-of-some-length") == 401


def test_an_address_for_everyone_without_a_name_says_that_others_will_be_refused() -> None:
    with http_probe("--transport", "streamable-http", "--host", "0.0.0.0", MEMENTO_TOKEN=TOKEN) as (running, _):
        assert "--allowed-host NAME" in running.wait_for("421")


def test_loopback_needs_no_token() -> None:
    with http_probe("--transport", "streamable-http") as (_, url):
        assert httpx2.post(url, json=INITIALIZE, headers=MCP_HEADERS, timeout=20).status_code == 200


async def test_the_token_is_asked_of_everything_but_the_start_of_the_app() -> None:
    """A WebSocket cannot slip past, and two Authorization headers are none."""
    reached: list[str] = []
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    right = (b"authorization", f"Bearer {TOKEN}".encode())
    guard = BearerToken(app, TOKEN)
    await guard({"type": "lifespan"}, None, send)
    await guard({"type": "websocket", "headers": [right]}, None, send)
    await guard({"type": "http", "headers": [right, (b"authorization", b"Bearer other")]}, None, send)
    assert reached == ["lifespan"]
    assert [message.get("status", message.get("code")) for message in sent] == [1008, 401, None]
    await guard({"type": "http", "headers": [(b"authorization", b"Bearer ")]}, None, send)
    assert reached == ["lifespan"]
    await guard({"type": "http", "headers": [right]}, None, send)
    assert reached == ["lifespan", "http"]


def test_a_server_starts_without_importing_what_only_draws(tmp_path: Path) -> None:
    """The SDK would import rich for a log handler; it stays importable for whoever wants it."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from mcp.server import MCPServer\n"
        "from memento_kit import Server, serve\n"
        "def build():\n"
        "    server = Server('plain')\n"
        "    sys.stderr.write(f'rich: {any(name.startswith(\"rich.\") for name, m in sys.modules.items() if m)}\\n')\n"
        "    return server\n"
        "serve('memento-kit', build)\n"
        "import rich.console\n"
        "sys.stderr.write('rich can be imported\\n')\n"
    )
    with server_process([sys.executable, str(program)]) as running:
        running.initialize()
        running.stdin.close()
        assert running.end() == (0, [], ["rich: False", "rich can be imported"])
