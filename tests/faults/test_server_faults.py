"""Tool servers that crash, hang, flood, babble and change, through the toolbox: nothing leaks, no call is lost."""

import asyncio
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from memento.events import ServerStateChanged
from memento.outcomes import ToolOutcome
from memento.server_list import ServerEntry
from memento.toolbox import ToolBox, ToolLimits, open_toolbox

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts processes and descriptors through /proc"),
]

CHAOS = Path(__file__).resolve().parents[1] / "support" / "chaos_server.py"
LIMITS = ToolLimits(call_timeout_seconds=30, restart_delay_seconds=0.02, max_restarts=5)


def entry(log: Path, **environ: str) -> ServerEntry:
    return ServerEntry(command=sys.executable, args=[str(CHAOS)], env={"CHAOS_LOG": str(log), **environ})


def noted(log: Path) -> Counter[str]:
    return Counter(log.read_text(encoding="utf-8").splitlines() if log.exists() else [])


def children() -> set[int]:
    """Processes whose parent is this one, but for those that have ended."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(path.parent.name))
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def call(toolbox: ToolBox, tool: str, **arguments: Any) -> ToolOutcome:
    spec = next(spec for spec in toolbox.specs() if spec.tool == tool)
    return await toolbox.call(spec, arguments)


@pytest.mark.slow
async def test_a_thousand_calls_against_a_chaotic_server_leave_nothing_behind_and_each_gets_its_answer(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    plan: list[tuple[str, dict[str, Any]]] = [("echo", {"n": n}) for n in range(700)]
    plan += [("act", {"n": n}) for n in range(250)]
    plan += [("garbage", {})] * 20 + [("big", {"megabytes": 10})] * 4 + [("hang", {})] * 18
    plan += [("crash", {"n": n}) for n in range(8)]
    assert len(plan) == 1_000
    order = sorted(range(1_000), key=lambda n: (n * 7919) % 1_000)  # mixed, and always the same
    outcomes: dict[int, ToolOutcome] = {}
    before = (children(), descriptors(), len(asyncio.all_tasks()))
    limits = replace(LIMITS, call_timeout_seconds=1.0, max_restarts=50)
    with anyio.fail_after(110):
        async with open_toolbox({"chaos": entry(log)}, limits=limits, log_folder=tmp_path / "logs") as toolbox:
            todo = iter(order)

            async def worker() -> None:
                for number in todo:
                    tool, arguments = plan[number]
                    outcomes[number] = await call(toolbox, tool, **arguments)

            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(worker)
            assert (await call(toolbox, "echo", n=-1)).text == "echo -1", "it is well again"
            assert len(children() - before[0]) == 1, "one process, whatever died before it"
    assert (children(), descriptors(), len(asyncio.all_tasks())) == before
    assert len(outcomes) == 1_000
    told: Counter[str] = Counter()
    for number, outcome in outcomes.items():
        tool, arguments = plan[number]
        told[f"{tool} {'error' if outcome.is_error else 'answer'}"] += 1
        if not outcome.is_error:
            wanted = {"echo": f"echo {arguments.get('n')}", "act": f"done {arguments.get('n')}"}.get(tool)
            assert wanted is None or outcome.text == wanted
        else:
            assert any(word in outcome.text for word in ("stopped during the call", "gave no result", "not available"))
    assert (told["hang answer"], told["crash answer"]) == (0, 0)
    assert told["echo error"] + told["act error"] < 100, told
    assert max(times for what, times in noted(log).items() if what.startswith(("act", "crash"))) == 1, "never twice"


async def test_a_read_only_call_that_a_crash_cut_off_is_sent_once_more_and_any_other_never(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with open_toolbox({"chaos": entry(log)}, limits=LIMITS) as toolbox:
        with anyio.fail_after(60):
            assert (await call(toolbox, "crash_once", flag=str(tmp_path / "flag"))).text == "alive"
            outcome = await call(toolbox, "crash", n=1)
    assert (outcome.is_error, outcome.may_be_kept) == (True, False)
    assert outcome.text == "The chaos server stopped during the call of crash."
    assert noted(log) == {"crash_once": 2, "crash 1": 1}


async def test_a_call_that_hangs_costs_its_time_limit_and_the_server_stays_usable(tmp_path: Path) -> None:
    states: list[ServerStateChanged] = []
    limits = replace(LIMITS, call_timeout_seconds=0.3)
    async with open_toolbox({"chaos": entry(tmp_path / "log")}, limits=limits, on_state=states.append) as toolbox:
        with anyio.fail_after(60):
            outcome = await call(toolbox, "hang")
            assert outcome.text == "chaos__hang gave no result within 0.3 s. Ask for less, or go another way."
            assert (await call(toolbox, "echo", n=1)).text == "echo 1"
    assert [state.state for state in states] == ["ready"], "it was not started again for that"


async def test_a_server_that_hangs_as_a_whole_is_started_again_and_calls_that_waited_their_turn_reach_the_new_one(
    tmp_path: Path,
) -> None:
    states: list[ServerStateChanged] = []
    limits = replace(LIMITS, call_timeout_seconds=1.0, health_timeout_seconds=0.2, max_concurrent_calls=1)
    outcomes: dict[int, ToolOutcome] = {}
    log = tmp_path / "log"
    async with open_toolbox({"chaos": entry(log)}, limits=limits, on_state=states.append) as toolbox:
        with anyio.fail_after(60):

            async def act(n: int) -> None:
                outcomes[n] = await call(toolbox, "act", n=n)

            async with anyio.create_task_group() as group:
                group.start_soon(lambda: call(toolbox, "freeze"))
                while not noted(log)["freeze"]:
                    await anyio.lowlevel.checkpoint()
                for n in range(3):
                    group.start_soon(act, n)
    assert {n: outcome.text for n, outcome in outcomes.items()} == {n: f"done {n}" for n in range(3)}
    assert [(state.state, state.detail) for state in states] == [
        ("ready", ""), ("restarting", "it stopped answering"), ("ready", ""),
    ]  # fmt: skip
    assert all(noted(log)[f"act {n}"] == 1 for n in range(3))


async def test_garbage_on_the_wire_and_ten_megabytes_do_no_harm(tmp_path: Path) -> None:
    async with open_toolbox({"chaos": entry(tmp_path / "log")}, limits=LIMITS) as toolbox:
        with anyio.fail_after(60):
            assert (await call(toolbox, "garbage")).text == "after garbage"
            assert len((await call(toolbox, "big", megabytes=10)).text) == 10_000_000


async def test_a_server_that_lists_its_tools_slowly_is_waited_for_up_to_the_limit(tmp_path: Path) -> None:
    slow = entry(tmp_path / "log", CHAOS_SLOW_LIST="30")
    limits = replace(LIMITS, connect_timeout_seconds=3.0)
    with anyio.fail_after(60):
        async with open_toolbox({"slow": slow, "chaos": entry(tmp_path / "log")}, limits=limits) as toolbox:
            assert toolbox.problems == {"slow": "it did not answer within 3 s"}
            assert (await call(toolbox, "echo", n=1)).text == "echo 1"


async def test_a_tool_that_a_server_adds_later_is_offered_from_then_on(tmp_path: Path) -> None:
    async with open_toolbox({"chaos": entry(tmp_path / "log")}, limits=LIMITS) as toolbox:
        before = [spec.name for spec in toolbox.specs()]
        assert "chaos__later" not in before
        with anyio.fail_after(60):
            assert (await call(toolbox, "grow")).text == "grown"
            while "chaos__later" not in [spec.name for spec in toolbox.specs()]:
                await anyio.lowlevel.checkpoint()
            assert (await call(toolbox, "later")).text == "here now"
        assert [spec.name for spec in toolbox.specs()] == [*before, "chaos__later"], "the others keep their places"


async def test_the_death_of_an_idle_server_is_noticed_and_it_is_started_again(tmp_path: Path) -> None:
    states: list[ServerStateChanged] = []
    before = children()
    async with open_toolbox({"chaos": entry(tmp_path / "log")}, limits=LIMITS, on_state=states.append) as toolbox:
        (pid,) = children() - before
        os.kill(pid, 9)
        with anyio.fail_after(60):
            while [state.state for state in states] != ["ready", "restarting", "ready"]:
                await anyio.lowlevel.checkpoint()
            assert (await call(toolbox, "echo", n=1)).text == "echo 1"


# --- over HTTP ------------------------------------------------------------------------------------------------


class Wire:
    """A way to the server that can be cut: every connection through it is closed, new ones are let through."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._target = port
        self._open: set[anyio.abc.SocketStream] = set()

    async def serve(self, listener: anyio.abc.Listener[anyio.abc.SocketStream]) -> None:
        await listener.serve(self._carry)

    async def _carry(self, near: anyio.abc.SocketStream) -> None:
        try:
            far = await anyio.connect_tcp("127.0.0.1", self._target)
        except OSError:
            await near.aclose()
            return
        self._open |= {near, far}

        async def pump(source: anyio.abc.SocketStream, sink: anyio.abc.SocketStream) -> None:
            try:
                async for data in source:
                    await sink.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                pass
            group.cancel_scope.cancel()

        async with near, far, anyio.create_task_group() as group:
            group.start_soon(pump, near, far)
            group.start_soon(pump, far, near)
        self._open -= {near, far}

    async def cut(self) -> None:
        for stream in list(self._open):
            await stream.aclose()


@asynccontextmanager
async def http_server(log: Path) -> AsyncGenerator[tuple[Wire, ServerEntry]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(  # noqa: ASYNC220 - starting it does not block
        [sys.executable, str(CHAOS), "http", str(port)],
        env={**os.environ, "CHAOS_LOG": str(log)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wire = Wire(port)
    try:
        with anyio.fail_after(30):
            while True:
                try:
                    await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    await anyio.lowlevel.checkpoint()
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            wire.port = listener.extra(anyio.abc.SocketAttribute.local_port)
            group.start_soon(wire.serve, listener)
            yield wire, ServerEntry(type="http", url=f"http://127.0.0.1:{wire.port}/mcp")
            group.cancel_scope.cancel()
    finally:
        process.kill()
        process.wait()


async def test_a_dropped_http_connection_repeats_read_only_calls_and_no_others(tmp_path: Path) -> None:
    log = tmp_path / "log"
    outcomes: dict[str, ToolOutcome] = {}
    async with http_server(log) as (wire, server), open_toolbox({"chaos": server}, limits=LIMITS) as toolbox:
        with anyio.fail_after(60):
            assert (await call(toolbox, "echo", n=0)).text == "echo 0"

            async def one(name: str, tool: str, **arguments: Any) -> None:
                outcomes[name] = await call(toolbox, tool, **arguments)

            async with anyio.create_task_group() as group:
                for n in range(3):
                    group.start_soon(lambda n=n: one(f"slow {n}", "slow", n=n, delay_seconds=1.0))
                    group.start_soon(lambda n=n: one(f"act {n}", "act", n=n, delay_seconds=1.0))
                while sum(noted(log).values()) < 7:
                    await anyio.lowlevel.checkpoint()
                await wire.cut()
            assert (await call(toolbox, "echo", n=1)).text == "echo 1"
    for n in range(3):
        assert outcomes[f"slow {n}"].text == f"slow {n}"
        assert outcomes[f"act {n}"].text == "The chaos server stopped during the call of act."
        assert (noted(log)[f"slow {n}"], noted(log)[f"act {n}"]) == (2, 1)


@pytest.mark.slow
async def test_many_cuts_of_the_wire_leave_nothing_behind(tmp_path: Path) -> None:
    async with http_server(tmp_path / "log") as (wire, server):
        await anyio.wait_all_tasks_blocked()  # the wire itself is up
        before = (descriptors(), len(asyncio.all_tasks()))
        limits = replace(LIMITS, max_restarts=50)
        outcomes: list[ToolOutcome] = []
        with anyio.fail_after(100):
            async with open_toolbox({"chaos": server}, limits=limits) as toolbox:
                for cut in range(12):

                    async def worker(cut: int = cut) -> None:
                        for n in range(10):
                            outcomes.append(await call(toolbox, "echo", n=cut * 100 + n))

                    async with anyio.create_task_group() as group:
                        for _ in range(4):
                            group.start_soon(worker)
                        await anyio.lowlevel.checkpoint()
                        await wire.cut()
                assert (await call(toolbox, "echo", n=-1)).text == "echo -1"
            while (descriptors(), len(asyncio.all_tasks())) != before:  # the wire's own ends close a moment later
                await anyio.lowlevel.checkpoint()
        assert len(outcomes) == 12 * 4 * 10
        assert sum(outcome.is_error for outcome in outcomes) < 48
