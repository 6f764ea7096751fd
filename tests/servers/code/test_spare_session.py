"""memento_code: one session is started ahead; it is nobody's until it is given away, and it is given away once."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from memento_code.server import Settings, build_server

pytestmark = pytest.mark.anyio

STARTED = """
import os
was_clean = 'mark' not in globals() and not os.path.exists('mark')
mark = 1
open('mark', 'w').close()
with open('/proc/self/stat') as file:
    ticks = int(file.read().rpartition(')')[2].split()[19])
[was_clean, ticks / os.sysconf('SC_CLK_TCK')]
"""


async def started(client: Client, name: str) -> tuple[bool, float]:
    """Whether a new session was clean, and when its process began, in seconds since the machine did."""
    result = await client.call_tool("run_python", {"code": STARTED, "session": name})
    told: dict[str, Any] = result.structured_content or {}
    assert told["state"] == "new", result.content
    clean, seconds = eval(told["value"])
    return clean, seconds


async def test_a_new_session_was_there_before_it_was_asked_for_and_every_one_is_clean() -> None:
    ahead = 0
    async with Client(build_server(Settings(isolation="namespace"))) as client:
        with anyio.fail_after(60):
            for number in range(1_000):
                now = time.clock_gettime(time.CLOCK_BOOTTIME)
                clean, began = await started(client, f"s{number}")
                assert clean
                ahead += began < now - 0.02
                if ahead == 3:
                    break
                await client.call_tool("reset_session", {"session": f"s{number}"})


async def test_without_it_a_session_begins_when_it_is_asked_for() -> None:
    async with Client(build_server(Settings(isolation="namespace", spare_session=False))) as client:
        await client.call_tool("sandbox_info", {})
        for name in ("a", "b", "c"):
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            _, began = await started(client, name)
            assert began > now - 0.02


async def test_a_spare_session_that_died_is_not_given_away() -> None:
    async with Client(build_server(Settings(isolation="namespace"))) as client:
        info = await client.call_tool("sandbox_info", {})
        assert info.structured_content is not None
        assert info.structured_content["sessions"] == [], "the spare is nobody's"
        with anyio.fail_after(30):
            while not (spares := children()):  # noqa: ASYNC110 - nothing tells that it was started
                await anyio.sleep(0.01)
        for pid in spares:
            os.kill(pid, signal.SIGKILL)
        result = await client.call_tool("run_python", {"code": "6 * 7"})
    assert result.structured_content is not None
    assert (result.structured_content["value"], result.structured_content.get("lost")) == ("42", None)
    assert children() == []


def children() -> list[int]:
    """The sandboxes below this process."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            with suppress(OSError):  # it has just ended
                if b"bwrap" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found
