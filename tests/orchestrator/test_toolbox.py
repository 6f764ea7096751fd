"""Supervision of tool servers: real processes that work, die, hang, print garbage, and come back."""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from memento.events import ServerStateChanged
from memento.server_list import ServerEntry
from memento.toolbox import ServerUnavailable, ToolBox, ToolLimits, ToolSpec, open_toolbox

pytestmark = pytest.mark.anyio

QUICK = ToolLimits(connect_timeout_seconds=15, call_timeout_seconds=10, restart_delay_seconds=0.01)

SERVER = '''
import os, sys, time
from pathlib import Path
from mcp.server import MCPServer
from mcp.types import ToolAnnotations

mcp = MCPServer("real", log_level="ERROR")
state = Path(sys.argv[1])

@mcp.tool(annotations=ToolAnnotations(read_only_hint=True))
def pid() -> int:
    """The server's process id."""
    return os.getpid()

@mcp.tool(annotations=ToolAnnotations(read_only_hint=True))
def die_once() -> str:
    """Die in the first call, answer in the second."""
    if state.exists():
        return "alive"
    state.touch()
    os._exit(1)

@mcp.tool()
def die_with_effect() -> str:
    """Do something, then die."""
    with state.open("a") as file:
        file.write("x")
    os._exit(1)

@mcp.tool()
def environment() -> dict[str, str]:
    """What the server was given."""
    return dict(os.environ)

@mcp.tool()
async def sleep() -> str:
    """Never answer."""
    import anyio
    await anyio.sleep_forever()

mcp.run()
'''


def python(code: str, *args: str, **more: Any) -> ServerEntry:
    return ServerEntry(command=sys.executable, args=["-c", code, *args], **more)


def spec(box: ToolBox, name: str) -> ToolSpec:
    return next(spec for spec in box.specs() if spec.name == name)


async def test_a_server_that_dies_during_a_call_that_may_be_repeated_is_started_again_and_asked_again(
    tmp_path: Path,
) -> None:
    states: list[ServerStateChanged] = []
    with anyio.fail_after(60):
        async with open_toolbox(
            {"r": python(SERVER, str(tmp_path / "s"))}, limits=QUICK, on_state=states.append
        ) as box:
            outcome = await box.call(spec(box, "r__die_once"), {})
    assert (outcome.text, outcome.is_error) == ("alive", False)
    assert [event.state for event in states] == ["ready", "restarting", "ready"]


async def test_a_call_with_effects_is_never_repeated_and_the_next_call_finds_a_new_server(tmp_path: Path) -> None:
    state = tmp_path / "s"
    with anyio.fail_after(60):
        async with open_toolbox({"r": python(SERVER, str(state))}, limits=QUICK) as box:
            outcome = await box.call(spec(box, "r__die_with_effect"), {})
            again = await box.call(spec(box, "r__pid"), {})
    assert outcome.is_error
    assert outcome.text == "The r server stopped during the call of die_with_effect."
    assert state.read_text(encoding="utf-8") == "x"
    assert not again.is_error


async def test_a_server_that_dies_every_time_is_given_up_and_says_so(tmp_path: Path) -> None:
    limits = ToolLimits(restart_delay_seconds=0.01, max_restarts=1)
    with anyio.fail_after(60):
        async with open_toolbox({"r": python(SERVER, str(tmp_path / "s"))}, limits=limits) as box:
            die = spec(box, "r__die_with_effect")
            outcomes = [await box.call(die, {}) for _ in range(3)]
            assert box.problems == {"r": "the connection was lost"}
            assert box.specs() == [], "tools of a failed server are not offered"
    assert outcomes[2].text == "The r server is not available: the connection was lost"


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        pytest.param(lambda: ServerEntry(command="no-such-command-here"), "is not installed", id="no such command"),
        pytest.param(
            lambda: python("raise SystemExit('the key is missing')"), "it said: the key is missing", id="dies"
        ),
        pytest.param(lambda: python("print('hello'); print('{}')"), "Connection closed", id="prints garbage and ends"),
        pytest.param(lambda: python("import sys; sys.stdin.read()"), "did not answer within 2 s", id="says nothing"),
        pytest.param(
            lambda: python("import sys, time\nwhile True: print('garbage', flush=True); time.sleep(.01)"),
            "did not answer within 2 s",
            id="prints garbage for ever",
        ),
        pytest.param(lambda: ServerEntry(type="http", url="http://127.0.0.1:9/mcp"), "", id="http, nobody there"),
        pytest.param(lambda: ServerEntry(type="sse", url="http://127.0.0.1:9/sse"), "", id="sse, nobody there"),
    ],
)
async def test_a_server_that_does_not_come_up_never_stops_the_others(
    tmp_path: Path, entry: Callable[[], ServerEntry], told: str
) -> None:
    limits = ToolLimits(connect_timeout_seconds=2 if "2 s" in told else 20)
    good = python(SERVER, str(tmp_path / "s"))
    with anyio.fail_after(60):
        # The good one has its own limit: a busy machine may take longer than the two seconds of the bad one.
        async with (
            open_toolbox({"bad": entry()}, limits=limits, log_folder=tmp_path / "logs") as bad,
            open_toolbox({"good": good}, limits=QUICK) as box,
        ):
            outcome = await box.call(spec(box, "good__pid"), {})
            problem = bad.problems["bad"]
            with pytest.raises(ServerUnavailable, match="The bad server is not available"):
                await bad.call_server("bad", "any", {})
    assert not outcome.is_error
    assert told in problem
    assert problem
    assert "\n" not in problem


async def test_a_call_that_takes_too_long_is_an_error_the_model_can_read_and_the_server_lives_on(
    tmp_path: Path,
) -> None:
    limits = ToolLimits(call_timeout_seconds=0.5)
    with anyio.fail_after(60):
        async with open_toolbox({"r": python(SERVER, str(tmp_path / "s"))}, limits=limits) as box:
            before = await box.call_server("r", "pid", {})
            outcome = await box.call(spec(box, "r__sleep"), {})
            after = await box.call_server("r", "pid", {})
    assert outcome.text == "r__sleep gave no result within 0.5 s. Ask for less, or go another way."
    assert before.structured_content == after.structured_content


async def test_a_server_sees_its_own_settings_and_no_key_of_ours(tmp_path: Path) -> None:
    environ = {
        "OPENAI_API_KEY": "sk-secret",
        "MEMENTO_API_KEY": "sk-secret",
        "MEMENTO_HOME": "/h",
        "MEMENTO_R_LIMIT": "7",
        "MEMENTO_OTHER_LIMIT": "8",
    }
    os.environ["OPENAI_API_KEY"] = "sk-secret"  # the autouse fixture restores the environment
    with anyio.fail_after(60):
        entry = python(SERVER, str(tmp_path / "s"), env={"OWN": "1"})
        async with open_toolbox({"r": entry}, limits=QUICK, environ=environ) as box:
            result = await box.call_server("r", "environment", {})
    given: dict[str, Any] = result.structured_content or {}
    assert (given["MEMENTO_HOME"], given["MEMENTO_R_LIMIT"], given["OWN"]) == ("/h", "7", "1")
    assert "sk-secret" not in str(given)
    assert "MEMENTO_OTHER_LIMIT" not in given


async def test_no_server_is_left_behind_however_the_block_ends(tmp_path: Path) -> None:
    pids: list[int] = []

    async def use_and_raise() -> None:
        async with open_toolbox({"r": python(SERVER, str(tmp_path / "s"))}, limits=QUICK) as box:
            content = (await box.call_server("r", "pid", {})).structured_content
            assert content is not None
            pids.append(content["result"])
            raise KeyError("the block's own")

    with anyio.fail_after(60), pytest.raises(KeyError, match="the block's own"):
        await use_and_raise()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


async def test_an_unknown_server_and_an_unknown_tool_are_told_apart(tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with open_toolbox({"r": python(SERVER, str(tmp_path / "s"))}, limits=QUICK) as box:
            with pytest.raises(ServerUnavailable, match="no server named 'x'"):
                await box.call_server("x", "pid", {})
            outcome = await box.call(dataclasses.replace(spec(box, "r__pid"), tool="nope"), {})
            assert outcome.is_error
            assert "Did you mean r__pid?" in box.unknown_tool("r_pid", ["r__pid"]).text


async def test_names_stay_within_64_characters_and_never_clash() -> None:
    from mcp.server import MCPServer

    def server(*tools: str) -> MCPServer[Any]:
        mcp: MCPServer[Any] = MCPServer("x")
        for tool in tools:
            mcp.add_tool(lambda: "", name=tool)
        return mcp

    long = "t" * 70
    async with open_toolbox({"a": server("b__c", long, long + "x"), "a__b": server("c")}) as box:
        names = [spec.name for spec in box.specs()]
    assert len(names) == len(set(names)) == 4
    assert all(len(name) <= 64 for name in names)
    assert names[0] == "a__b__c"
    assert names[3].startswith("a__b__c_")


async def test_a_servers_denied_tools_are_not_offered(tmp_path: Path) -> None:
    entry = python(SERVER, str(tmp_path / "s"), deny_tools=["die_*"])
    with anyio.fail_after(60):
        async with open_toolbox({"r": entry}, limits=QUICK) as box:
            names = [spec.tool for spec in box.specs()]
    assert names == ["pid", "environment", "sleep"]


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
async def test_servers_over_http_and_sse_work_with_headers(transport: str, tmp_path: Path) -> None:
    """One of our own servers, as a process, behind a bearer token."""
    token = "a-token-for-this-test"
    command = [sys.executable, "-m", "memento_search.server", "--transport", transport, "--port", "0"]
    process = await anyio.open_process(
        command, env={**os.environ, "MEMENTO_TOKEN": token, "MEMENTO_SEARCH_FOLDERS": str(tmp_path)}
    )
    (tmp_path / "note.txt").write_text("The needle lies in the hay.", encoding="utf-8")
    try:
        assert process.stderr is not None
        line = b""
        with anyio.fail_after(60):
            while b"listening on" not in line:
                line += await process.stderr.receive()
            url = line.decode().split("listening on ")[1].split()[0]
            kind = "sse" if transport == "sse" else "http"
            entry = ServerEntry.model_validate(
                {"type": kind, "url": url, "headers": {"Authorization": f"Bearer {token}"}}
            )
            async with open_toolbox({"s": entry}, limits=QUICK) as box:
                assert box.problems == {}
                outcome = await box.call(spec(box, "s__search_files"), {"query": "needle"})
            refused = entry.model_copy(update={"headers": {}})
            async with open_toolbox({"s": refused}, limits=QUICK) as box:
                assert "s" in box.problems
        assert "The needle lies in the hay." in outcome.text
    finally:
        process.terminate()
        with anyio.fail_after(20):
            await process.wait()
        await process.aclose()
