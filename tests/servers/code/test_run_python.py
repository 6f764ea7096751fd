"""memento_code: run_python, reset_session and sandbox_info through the server, at each level this machine gives."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import Client
from mcp.types import CallToolResult, TextContent

from memento_code.sandbox import Level, Limits, find_sandbox
from memento_code.server import Settings, build_server
from support.escapes import PROTOCOL_ATTACKS, ending
from support.processes import running_with

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["namespace", "landlock", "none"])
def level(request: pytest.FixtureRequest) -> Level:
    return request.param


@asynccontextmanager
async def server(level: Level | None = None, **settings: Any) -> AsyncGenerator[Client]:
    async with Client(build_server(Settings(isolation=level, allow_unsandboxed=level == "none", **settings))) as client:
        yield client


async def call(client: Client, code: str, **arguments: Any) -> CallToolResult:
    return await client.call_tool("run_python", {"code": code, **arguments})


async def run(client: Client, code: str, **arguments: Any) -> dict[str, Any]:
    result = await call(client, code, **arguments)
    assert result.structured_content is not None, result.content
    return result.structured_content


# --- the contract: what holds at every level -------------------------------------------------------------------------


async def test_variables_imports_and_files_live_on(level: Level) -> None:
    async with server(level) as client:
        first = await run(client, "import math\nx = [1, 2]\nopen('note.txt', 'w').write('kept')")
        second = await run(client, "x.append(math.floor(3.7)); print(open('note.txt').read()); x")
    assert (first["state"], first["value"]) == ("new", "4")
    assert (second["state"], second["value"], second["stdout"]) == ("kept", "[1, 2, 3]", "kept\n")
    assert second["isolation"] == level


async def test_both_streams_and_those_of_child_processes_are_seen(level: Level) -> None:
    async with server(level) as client:
        ran = await run(client, "import sys, os\nprint('out')\nprint('err', file=sys.stderr)\nos.system('echo child')")
    assert sorted(ran["stdout"].split()) == ["child", "out"]
    assert (ran["stderr"], ran["value"]) == ("err\n", "0")


async def test_an_exception_is_an_error_with_a_short_traceback_and_the_session_lives(level: Level) -> None:
    async with server(level) as client:
        result = await call(client, "y = 5\ndef f():\n    return 1 / 0\nf()")
        after = await run(client, "y")
    assert result.is_error
    assert result.structured_content is not None
    assert result.structured_content["error"] == {
        "name": "ZeroDivisionError",
        "message": "division by zero",
        "traceback": '  File "<cell 1>", line 4, in <module>\n    f()\n  File "<cell 1>", line 3, in f\n'
        "    return 1 / 0\n           ~~^~~\nZeroDivisionError: division by zero\n",
    }
    assert after["value"] == "5"


async def test_bad_syntax_is_shown_by_its_own_line_alone() -> None:
    async with server("landlock") as client:
        ran = await run(client, "y = 1\nx = = 1")
    assert ran["error"]["traceback"].startswith('  File "<cell 1>", line 2\n    x = = 1\n'), ran


async def test_code_over_its_time_is_interrupted_and_its_variables_stay(level: Level) -> None:
    async with server(level) as client:
        result = await call(client, "z = 7\nimport time\ntime.sleep(60)", timeout_seconds=0.3)
        after = await run(client, "z")
    assert result.is_error
    assert result.structured_content is not None
    assert result.structured_content["limit"] == "time limit of 0.3 s"
    assert "the variables are still there" in str(result.content)
    assert (after["state"], after["value"]) == ("kept", "7")


async def test_code_that_cannot_be_interrupted_is_killed_and_the_loss_is_told(level: Level) -> None:
    stubborn = (
        "w = 1\nimport time\nwhile True:\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass"
    )
    async with server(level) as client:
        result = await call(client, stubborn, timeout_seconds=0.3)
        after = await call(client, "w")
    assert result.structured_content is not None
    assert result.structured_content["state"] == "lost"
    assert result.structured_content["lost"] == "the code ran over its time limit of 0.3 s and could not be interrupted"
    assert after.structured_content is not None
    assert after.structured_content["error"]["name"] == "NameError"
    assert "the earlier variables of this session are gone" in str(after.content)


async def test_a_process_that_ends_itself_is_told_with_how(level: Level) -> None:
    async with server(level) as client:
        left = await run(client, "import os\nprint('last words', flush=True)\nos._exit(3)")
        crashed = await run(client, "import ctypes\nctypes.string_at(0)")
        after = await run(client, "1 + 1")
    assert (left["lost"], left["stdout"]) == ("the Python process ended with exit code 3", "last words\n")
    assert crashed["lost"] == "the Python process died of SIGSEGV"
    assert (after["value"], after["state"]) == ("2", "new")


async def test_output_is_bounded_and_what_is_dropped_is_counted(level: Level) -> None:
    async with server(level, output_kilobytes=8) as client:
        ran = await run(client, "print('first')\nfor _ in range(3000): print('x' * 999)\nprint('last')")
    assert ran["stdout"].startswith("first\n")
    assert ran["stdout"].endswith("last\n")
    assert len(ran["stdout"]) < 9_000
    assert ran["dropped_bytes"] == 3_000_000 + 11 - 8_192
    assert f"… {ran['dropped_bytes']} bytes left out …" in ran["stdout"]


async def test_a_huge_value_is_cut_in_the_middle(level: Level) -> None:
    async with server(level, max_value_chars=300) as client:
        ran = await run(client, "'a' * 1_000_000 + 'END'")
    assert len(ran["value"]) < 400
    assert ran["value"].startswith("'aaa")
    assert ran["value"].endswith("END'")


async def test_sessions_are_apart_and_one_can_be_reset(level: Level) -> None:
    async with server(level) as client:
        await run(client, "x = 1", session="one")
        other = await run(client, "'x' in globals()", session="two")
        reset = await client.call_tool("reset_session", {"session": "one"})
        again = await client.call_tool("reset_session", {"session": "one"})
        after = await run(client, "'x' in globals()", session="one")
    assert other["value"] == after["value"] == "False"
    assert reset.structured_content == {"session": "one", "had_variables": True}
    assert again.structured_content == {"session": "one", "had_variables": False}


async def test_sessions_run_side_by_side(level: Level) -> None:
    """Each waits for a file that only the other's end lets the test write: in turn, they would wait for ever."""
    done: list[str] = []
    async with server(level) as client, anyio.create_task_group() as tasks:

        async def wait_in(name: str) -> None:
            await run(client, "import time\ntime.sleep(60)", session=name, timeout_seconds=0.5)
            done.append(name)

        tasks.start_soon(wait_in, "a")
        tasks.start_soon(wait_in, "b")
        quick = await run(client, "'quick'", session="c")
        assert (quick["value"], done) == ("'quick'", [])
    assert sorted(done) == ["a", "b"]


@pytest.mark.parametrize("attack", PROTOCOL_ATTACKS)
async def test_whatever_the_code_does_to_its_own_process_the_server_answers_and_goes_on(attack: str) -> None:
    code, ends = PROTOCOL_ATTACKS[attack]
    async with server() as client:
        ran = await run(client, code, timeout_seconds=0.5 if ends in ("limit", "killed") else 60)
        with anyio.fail_after(20):
            await client.call_tool("reset_session", {})
            after = await run(client, "20 + 22")
    assert ending(ran) == ends, ran
    assert "FORGED" not in str(ran)
    assert after["value"] == "42"


async def test_awaiting_at_the_top_works() -> None:
    async with server() as client:
        ran = await run(client, "import asyncio\nawait asyncio.sleep(0, 'awaited')")
    assert ran["value"] == "'awaited'"


async def test_the_text_is_fenced_and_holds_no_terminal_sequence() -> None:
    async with server() as client:
        result = await call(client, "print('\\x1b[31mred\\x1b[0m')\n'value'")
    assert isinstance(result.content[0], TextContent)
    text = result.content[0].text
    assert "s, isolation namespace, session 'default' (new).\n<outside-text-" in text
    assert "\nred\nvalue: 'value'\n</outside-text-" in text


async def test_the_operators_time_limit_is_the_most_one_may_ask_for() -> None:
    async with server(timeout_seconds=0.3) as client:
        ran = await run(client, "import time\ntime.sleep(60)", timeout_seconds=3600)
    assert ran["limit"] == "time limit of 0.3 s"


async def test_the_longest_unused_session_makes_room_and_is_told_so() -> None:
    async with server(max_sessions=2) as client:
        for name in ("a", "b", "c"):
            await run(client, f"x = {name!r}", session=name)
        info = await client.call_tool("sandbox_info", {})
        back = await run(client, "'x' in globals()", session="a")
    assert info.structured_content is not None
    assert info.structured_content["sessions"] == ["c", "b"]
    assert (back["value"], back["state"]) == ("False", "new")
    assert back["lost"] == "its place was needed: at most 2 sessions live at once"


async def test_an_idle_session_ends_and_the_next_run_is_told_so() -> None:
    async with server(idle_minutes=0.005) as client:
        await run(client, "x = 1")
        with anyio.fail_after(10):
            while True:
                info = await client.call_tool("sandbox_info", {})
                assert info.structured_content is not None
                if not info.structured_content["sessions"]:
                    break
        after = await run(client, "'x' in globals()")
    assert after["lost"] == "it was idle for 0.005 minutes"


async def test_no_process_is_left_when_the_server_stops() -> None:
    async with server() as client:
        await run(client, f"import subprocess; subprocess.Popen(['sleep', '98765.{os.getpid():08}'])")
        assert len(running_with(f"98765.{os.getpid():08}")) == 1
    assert running_with(f"98765.{os.getpid():08}") == []


async def test_an_end_that_is_cancelled_half_way_leaves_no_process(level: Level) -> None:
    limits = Limits(1 << 30, 2 << 30, 64, 256, 1 << 20, 1 << 24, 60)
    sandbox = await find_sandbox(limits, wanted=level, allow_none=True)
    session = await sandbox.start(max_value_chars=100, output_bytes=1_000)
    process = Path(f"/proc/{session.process_id}")
    assert process.exists()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.end, "it was idle")
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert not process.exists()
    await session.end("the server stopped")
    assert session.ended == "it was idle"


async def test_the_sandbox_says_what_it_is() -> None:
    async with server() as client:
        info = (await client.call_tool("sandbox_info", {})).structured_content
    assert info is not None
    assert info["isolation"] == "namespace"
    assert info["network"] == "none"
    assert "open a TCP socket" in info["verified"]
    assert info["gaps"] == ["the kernel is shared with the host"]


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65])
async def test_a_session_name_is_a_plain_word(name: str) -> None:
    async with server() as client:
        result = await call(client, "1", session=name)
    assert result.is_error
    assert "Invalid arguments for run_python: session" in str(result.content)
