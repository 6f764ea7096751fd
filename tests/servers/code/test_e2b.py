"""memento_code at E2B: the real SDK against its API on loopback, through the server; with --live, E2B itself."""

# ruff: noqa: E501 - code for the sandbox reads best on one line

import os
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import ImageContent
from starlette.responses import JSONResponse

from memento_code.server import Settings, build_server
from memento_kit import StartupError
from support.e2b_server import E2BServer, e2b_server

pytestmark = pytest.mark.anyio

KEY = "e2b_0123456789"


@pytest.fixture
async def e2b(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[E2BServer]:
    async with e2b_server(KEY) as server:
        monkeypatch.setenv("E2B_API_KEY", KEY)
        monkeypatch.setenv("E2B_API_URL", server.url)
        monkeypatch.setenv("E2B_SANDBOX_URL", server.url)
        yield server


def code_server(**settings: Any) -> Client:
    return Client(build_server(Settings(isolation="e2b", **settings)))


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    with anyio.fail_after(30):
        result = await client.call_tool(tool, arguments)
    assert result.structured_content is not None, result.content
    return result.structured_content


async def test_a_machine_is_asked_for_without_internet_and_killed_at_the_end(e2b: E2BServer) -> None:
    async with code_server() as client:
        await ask(client, "run_python", code="1")
    assert [name for name, _ in e2b.asked] == ["create", "kill"]
    assert e2b.asked[0][1]["allow_internet_access"] is False
    assert e2b.machines == {}


async def test_variables_files_and_the_shell_share_one_machine(e2b: E2BServer) -> None:
    async with code_server() as client:
        first = await ask(client, "run_python", code="x = 20\nopen('made.txt', 'w').write('kept')\nprint('out')")
        second = await ask(client, "run_python", code="x + 22")
        shell = await ask(client, "run_shell", command="cat made.txt; echo oops >&2; exit 3")
        written = await ask(client, "write_file", path="d/in.csv", content="a,b\n")
        read = await ask(client, "read_file", path="d/in.csv", offset=2)
        listed = await ask(client, "list_files")
    assert (first["stdout"], first["state"], first["files"]) == ("out\n", "new", [{"path": "made.txt", "bytes": 4}])
    assert (second["value"], second["state"], second.get("files")) == ("42", "kept", None)
    assert (shell["stdout"], shell["stderr"], shell["value"]) == ("kept", "oops\n", "3")
    assert written["bytes"] == 4
    assert (read["content"], read["total_bytes"]) == ("b\n", 4)
    assert [entry["path"] for entry in listed["entries"]] == ["d/in.csv", "made.txt"]
    assert len(e2b.machines) == 0


async def test_an_error_a_picture_and_a_long_output_arrive(e2b: E2BServer) -> None:
    picture = "class P:\n    def _repr_png_(self): return b'\\x89PNG\\r\\n\\x1a\\n' + bytes(9)\ndisplay(P())\nprint('x' * 9000)"
    async with code_server(output_kilobytes=2) as client:
        failed = await ask(client, "run_python", code="1 / 0")
        shown = await client.call_tool("run_python", {"code": picture})
        missing = await client.call_tool("read_file", {"path": "nothing"})
    assert failed["error"]["name"] == "ZeroDivisionError"
    assert isinstance(shown.content[1], ImageContent)
    assert shown.structured_content is not None
    assert shown.structured_content["dropped_bytes"] == 9001 - 2048
    assert missing.is_error
    assert "does not exist. Paths are relative" in str(missing.content)


async def test_code_over_its_time_ends_its_machine_at_the_time_asked_for(e2b: E2BServer) -> None:
    """E2B's own time limit comes back after twice the time, and its kernel may hang afterwards."""
    async with code_server() as client:
        await ask(client, "run_python", code="x = 1")
        slow = await ask(client, "run_python", code="import time\ntime.sleep(50)", timeout_seconds=0.5)
        after = await ask(client, "run_python", code="'x' in globals()")
    assert (slow["limit"], slow["state"]) == ("time limit of 0.5 s", "lost")
    assert slow["seconds"] < 0.9  # theirs would be 1.0
    assert (after["value"], after["state"]) == ("False", "new")
    assert "cannot be relied on to interrupt it" in after["lost"]
    assert [name for name, _ in e2b.asked] == ["create", "kill", "create", "kill"]


async def test_a_busy_control_plane_is_asked_again(e2b: E2BServer) -> None:
    e2b.refusals = [JSONResponse({"code": 429, "message": "slow down"}, 429, {"Retry-After": "0"})]
    async with code_server() as client:
        assert (await ask(client, "run_python", code="6 * 7"))["value"] == "42"
    assert [name for name, _ in e2b.asked] == ["create", "create", "kill"]


async def test_a_wrong_key_is_told_and_the_server_goes_on(e2b: E2BServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2B_API_KEY", "e2b_wrong")
    async with code_server() as client:
        refused = await client.call_tool("run_python", {"code": "1"})
        info = await ask(client, "sandbox_info")
    assert refused.is_error
    assert "No session could be had: E2B gave no machine: 401" in str(refused.content)
    assert info["isolation"] == "e2b"


@pytest.mark.parametrize(
    "garbage", [b"not json\n", b"[1]\n", b'{"type": "result", "png": 5}\n', b'{"type": "error"}\n']
)
async def test_an_answer_that_makes_no_sense_ends_the_session_and_not_the_server(
    e2b: E2BServer, garbage: bytes
) -> None:
    async with code_server() as client:
        await ask(client, "run_python", code="1")
        e2b.garbage = garbage
        odd = await client.call_tool("run_python", {"code": "1"})
        e2b.garbage = None
        after = await ask(client, "run_python", code="1 + 1")
    assert odd.structured_content is not None, odd.content
    assert after["value"] == "2"


async def test_a_machine_that_is_gone_is_told_and_replaced(e2b: E2BServer) -> None:
    async with code_server() as client:
        await ask(client, "run_python", code="x = 1")
        for machine in list(e2b.machines.values()):
            await machine.session.end("gone")
        e2b.machines.clear()
        gone = await ask(client, "run_python", code="x")
        after = await ask(client, "run_python", code="'x' in globals()")
    assert gone["state"] == "lost"
    assert (after["value"], after["state"]) == ("False", "new")


async def test_without_a_key_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with code_server() as client:
            await client.call_tool("run_python", {"code": "1"})
    found = caught.value.subgroup(StartupError)
    assert found is not None
    assert "needs a key of E2B in E2B_API_KEY" in repr(found)


@pytest.mark.live
async def test_live_e2b_runs_code_and_keeps_variables() -> None:
    if not os.environ.get("E2B_API_KEY"):
        pytest.skip("set E2B_API_KEY to run this against E2B")
    async with code_server() as client:
        await ask(client, "run_python", code="x = 20")
        assert (await ask(client, "run_python", code="x + 22"))["value"] == "42"
