"""What the sandbox costs beside a bare interpreter and its peers, and which attacks each level stops.

    .venv/bin/python -m benchmarks.code [--rounds 7] [--json] [--peers PYTHON] [--srt PATH] [--analysis PYTHON]
    .venv/bin/python -m benchmarks.code --escapes [--levels LEVEL …] [--kernel FILE] [--json]

Each round takes every measure once, in turn; the first round warms the caches and is thrown away. Reported are medians,
and the medians of the ratios to the bare interpreter (`python -c pass`) and to a Jupyter kernel's new session in the
same round. New sessions are taken through `Sessions`, as the server does: *as shipped*, with the spare started ahead;
*at once after another*, when the spare was just given away; and *cold*, without it. `--peers` names a Python that has
any of ipykernel with jupyter_client (without isolation), pydantic-monty and sandlock; `--srt` the command of
Anthropic's sandbox-runtime; `--analysis` a Python with matplotlib, for the round trip of a figure. A peer that is
missing or fails is named with the reason. `--escapes` measures nothing, and runs the attacks of
`tests/support/escapes.py` at each level that holds here, or at those named: as whoever runs this and, when that is
root, once more as a user without privileges.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from benchmarks.code.escapes import as_unprivileged_user, attack_all, show
from benchmarks.code.peers import JUPYTER_NEW, Peers
from memento_code.callers import Caller
from memento_code.sandbox import Level, Limits, NoSandbox, Sandbox, find_sandbox
from memento_code.session import Session
from memento_code.sessions import Sessions

LIMITS = Limits(1 << 30, 3 << 29, 48, 256, 64 << 20, 256 << 20, 600)
LEVELS: tuple[Level, ...] = ("namespace", "landlock", "none")
ATTACKED: tuple[Level, ...] = ("microvm", "namespace", "landlock", "podman", "docker", "none")
BARE = "bare interpreter, start to end"
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()"


def main() -> None:
    options = argparse.ArgumentParser(prog="benchmarks.code", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options.add_argument("--peers", type=Path, help="a Python that has ipykernel, pydantic-monty, sandlock")
    options.add_argument("--srt", help="the command of sandbox-runtime")
    options.add_argument("--analysis", type=Path, help="a Python that has matplotlib")
    options.add_argument("--escapes", action="store_true", help="run the attacks, and measure nothing")
    options.add_argument("--levels", nargs="+", default=ATTACKED, choices=ATTACKED, help="which to attack")
    options.add_argument("--kernel", type=Path, help="of the virtual machines of microvm")
    chosen = options.parse_args()
    anyio.run(_escapes if chosen.escapes else _benchmark, chosen)


async def _escapes(chosen: argparse.Namespace) -> None:
    user = "root" if os.getuid() == 0 else f"user {os.getuid()}"
    tried: dict[str, Any] = {user: {}}
    for level, sandbox in (await _levels(chosen.levels, chosen.kernel)).items():
        print(f"attacking {level} as {user} …", file=sys.stderr, flush=True)
        tried[user][level] = await attack_all(sandbox)
    if os.getuid() == 0:
        tried["without privileges"] = as_unprivileged_user(chosen.levels, chosen.kernel)
    if chosen.json:
        print(json.dumps({"escapes": tried}))
    else:
        show(tried)


async def _benchmark(chosen: argparse.Namespace) -> None:
    sandboxes = await _levels(LEVELS)
    peers = Peers(chosen.peers, chosen.srt)
    rounds = [await _round(sandboxes, peers, chosen.analysis) for _ in range(chosen.rounds + 1)][1:]
    memory = {level: await _idle_bytes(sandbox) for level, sandbox in sandboxes.items()}
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, uid {os.getuid()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}, {chosen.rounds} rounds"
    )
    if chosen.json:
        report = {"machine": machine, "rounds": rounds, "idle_bytes": memory, "not_measured": peers.missing}
        print(json.dumps(report))
        return
    print(machine)
    for name in {name: None for taken in rounds for name in taken}:
        milliseconds = statistics.median(taken[name] for taken in rounds if name in taken) * 1000
        to_bare = f"{_ratio(rounds, name, BARE):9.3f} x bare"
        kernel = _ratio(rounds, JUPYTER_NEW, name) if "new session" in name or "-c pass" in name else 0.0
        print(f"{name:60} {milliseconds:9.1f} ms {to_bare}" + (f"   ipykernel's / {kernel:.1f}" if kernel else ""))
    for level, size in memory.items():
        print(f"{level + ': memory of an idle session':60} {size / 1e6:9.1f} MB (proportional, all its processes)")
    for name, reason in peers.missing.items():
        print(f"{name:60} not measured: {reason}")


def _ratio(rounds: list[dict[str, float]], above: str, below: str) -> float:
    """The median over the rounds that have both; 0 when none has."""
    ratios = [taken[above] / taken[below] for taken in rounds if above in taken and below in taken]
    return statistics.median(ratios) if ratios else 0.0


async def _levels(wanted: Sequence[Level], kernel: Path | None = None) -> dict[Level, Sandbox]:
    found: dict[Level, Sandbox] = {}
    for level in wanted:
        try:
            found[level] = await find_sandbox(LIMITS, wanted=level, allow_none=True, kernel=kernel)
        except NoSandbox as exc:
            print(f"{level} does not hold here: {exc}", file=sys.stderr)
    return found


async def _round(sandboxes: dict[Level, Sandbox], peers: Peers, analysis: Path | None) -> dict[str, float]:
    taken: dict[str, float] = {}

    def note(name: str, began: float, per: int = 1) -> None:
        taken[name] = (time.perf_counter() - began) / per

    began = time.perf_counter()
    await anyio.run_process([sys.executable, "-c", "pass"])
    note(BARE, began)
    for level, sandbox in sandboxes.items():
        async with _serving(level, keep_spare=False) as sessions:
            began = time.perf_counter()
            await _ask(sessions, "cold")
            note(f"{level}: new session, cold, first result", began)
            began = time.perf_counter()
            for _ in range(100):
                await _ask(sessions, "cold")
            note(f"{level}: warm result (mean of 100)", began, per=100)
        async with _serving(level, keep_spare=True) as sessions:
            await sessions.spare_is_ready()
            began = time.perf_counter()
            await _ask(sessions, "first")
            note(f"{level}: new session, as shipped, first result", began)
            began = time.perf_counter()
            await _ask(sessions, "second")
            note(f"{level}: new session, at once after another, first result", began)
        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(_start_run_end, sandbox)
        note(f"{level}: 20 sessions at once, start to end", began)
    if analysis is not None:
        sandbox = await find_sandbox(LIMITS, wanted=None, allow_none=False, python=analysis)
        async with await _started(sandbox) as session:
            for name in ("first figure of a session", "next figure"):
                began = time.perf_counter()
                drawn = await session.run(FIGURE, timeout_seconds=120)
                assert len(drawn.images) == 1, drawn
                note(f"{sandbox.level}: {name}", began)
    return taken | await peers.measure()


@asynccontextmanager
async def _serving(level: Level, *, keep_spare: bool) -> AsyncGenerator[Sessions]:
    """The sessions of a server of its own, its level found."""
    sessions = Sessions(
        LIMITS,
        wanted=level,
        allow_none=True,
        python=None,
        packages_folder=None,
        max_sessions=8,
        idle_seconds=1_800,
        outlive_clients=False,
        max_value_chars=10_000,
        output_bytes=100_000,
        keep_spare=keep_spare,
    )
    async with anyio.create_task_group() as background:
        background.start_soon(sessions.look_after)
        await sessions.sandbox()
        yield sessions
        await sessions.close()
        background.cancel_scope.cancel()


async def _ask(sessions: Sessions, name: str) -> None:
    ran = await sessions.ask(Caller(), name, {"code": "1 + 1"}, timeout_seconds=30)
    assert ran.outcome.value == "2", ran


async def _started(sandbox: Sandbox) -> Session:
    return await sandbox.start(max_value_chars=10_000, output_bytes=100_000)


async def _start_run_end(sandbox: Sandbox) -> None:
    async with await _started(sandbox) as session:
        await session.run("1 + 1", timeout_seconds=60)


async def _idle_bytes(sandbox: Sandbox) -> int:
    async with await _started(sandbox) as session:
        await session.run("1 + 1", timeout_seconds=30)
        return sum(_proportional_bytes(pid) for pid in _tree(session.process_id))


def _tree(root: int) -> list[int]:
    pids = [root]
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return pids


def _proportional_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
