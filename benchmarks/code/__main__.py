"""What the sandbox costs beside a bare interpreter and its peers, and which attacks each level stops.

    .venv/bin/python -m benchmarks.code [--rounds 7] [--json] [--peers PYTHON] [--srt PATH] [--analysis PYTHON]
    .venv/bin/python -m benchmarks.code --escapes [--json]

Each round takes every measure once, in turn; the first round warms the caches and is thrown away. Reported are medians,
and the median of the ratio to the bare interpreter (`python -c pass`) of the same round. `--peers` names a Python that
has any of ipykernel with jupyter_client (a Jupyter kernel, without isolation), pydantic-monty and sandlock; `--srt` the
command of Anthropic's sandbox-runtime; `--analysis` a Python with matplotlib, for the round trip of a figure.
`--escapes` measures nothing, and runs the attacks of `tests/support/escapes.py` at each level that holds here: as
whoever runs this and, when that is root, once more as a user without privileges.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from benchmarks.code.escapes import as_unprivileged_user, attack_all, show
from memento_code.sandbox import Level, Limits, NoSandbox, Sandbox, find_sandbox
from memento_code.session import Session

LIMITS = Limits(1 << 30, 3 << 29, 48, 256, 64 << 20, 256 << 20, 600)
LEVELS: tuple[Level, ...] = ("namespace", "landlock", "none")
BARE = "bare interpreter, start to end"
PEERS = """
import json, sys, time
seconds = {}
def timed(name, do):
    began = time.perf_counter()
    done = do()
    seconds[name] = time.perf_counter() - began
    return done
def jupyter():
    from jupyter_client.manager import start_new_kernel
    def run():
        client.execute_interactive("1 + 1", output_hook=lambda message: None)
    def start():
        global client
        manager, client = start_new_kernel(kernel_name="python3")
        run()
        return manager
    manager = timed("Jupyter kernel: new session, first result", start)
    timed("Jupyter kernel: warm result", run)
    client.stop_channels()
    manager.shutdown_kernel(now=True)
def monty():
    import pydantic_monty
    with pydantic_monty.Monty() as pool, pool.checkout() as warming:
        warming.feed_run("1 + 1")
        def start():
            session = pool.checkout().__enter__()
            session.feed_run("1 + 1")
            return session
        session = timed("monty: new session, first result", start)
        timed("monty: warm result", lambda: session.feed_run("1 + 1"))
        session.__exit__(None, None, None)
def sandlock():
    import sandlock as s
    readable = ["/usr", "/lib", "/lib64", "/bin", "/etc", sys.base_prefix, sys.prefix]
    box = s.Sandbox(fs_readable=readable, clean_env=True)
    done = timed("sandlock: python -c pass", lambda: box.run([sys.executable, "-c", "pass"]))
    if not done.success:
        del seconds["sandlock: python -c pass"]
        print(done, file=sys.stderr)
for peer in (jupyter, monty, sandlock):
    try: peer()
    except Exception as exc: print(f"{peer.__name__}: {exc!r}", file=sys.stderr)
print(json.dumps(seconds))
"""
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()"


def main() -> None:
    options = argparse.ArgumentParser(prog="benchmarks.code", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options.add_argument("--peers", help="a Python that has ipykernel, pydantic-monty, sandlock")
    options.add_argument("--srt", help="the command of sandbox-runtime")
    options.add_argument("--analysis", type=Path, help="a Python that has matplotlib")
    options.add_argument("--escapes", action="store_true", help="run the attacks, and measure nothing")
    chosen = options.parse_args()
    anyio.run(_escapes if chosen.escapes else _benchmark, chosen)


async def _escapes(chosen: argparse.Namespace) -> None:
    user = "root" if os.getuid() == 0 else f"user {os.getuid()}"
    tried: dict[str, Any] = {user: {}}
    for level, sandbox in (await _levels()).items():
        print(f"attacking {level} as {user} …", file=sys.stderr, flush=True)
        tried[user][level] = await attack_all(sandbox)
    if os.getuid() == 0:
        tried["without privileges"] = as_unprivileged_user()
    if chosen.json:
        print(json.dumps({"escapes": tried}))
    else:
        show(tried)


async def _benchmark(chosen: argparse.Namespace) -> None:
    sandboxes = await _levels()
    seconds = await _measure(sandboxes, chosen)
    memory = {level: await _idle_bytes(sandbox) for level, sandbox in sandboxes.items()}
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, uid {os.getuid()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    if chosen.json:
        print(json.dumps({"machine": machine, "seconds": seconds, "idle_bytes": memory}))
        return
    print(machine)
    floor = seconds[BARE]
    for name, values in seconds.items():
        ratio = statistics.median(value / bare for value, bare in zip(values, floor, strict=False))
        print(f"{name:45} {statistics.median(values) * 1000:9.1f} ms   {ratio:7.2f} x bare")
    for level, size in memory.items():
        print(f"{level + ': memory of an idle session':45} {size / 1e6:9.1f} MB (proportional, all its processes)")


async def _levels() -> dict[Level, Sandbox]:
    found: dict[Level, Sandbox] = {}
    for level in LEVELS:
        try:
            found[level] = await find_sandbox(LIMITS, wanted=level, allow_none=True)
        except NoSandbox as exc:
            print(f"{level} does not hold here: {exc}", file=sys.stderr)
    return found


async def _measure(sandboxes: dict[Level, Sandbox], chosen: argparse.Namespace) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {}

    def note(name: str, began: float, per: int = 1) -> None:
        seconds.setdefault(name, []).append((time.perf_counter() - began) / per)

    for _ in range(chosen.rounds + 1):
        began = time.perf_counter()
        await anyio.run_process([sys.executable, "-c", "pass"])
        note(BARE, began)
        for level, sandbox in sandboxes.items():
            began = time.perf_counter()
            async with await _started(sandbox) as session:
                await session.run("1 + 1", timeout_seconds=30)
                note(f"{level}: new session, first result", began)
                began = time.perf_counter()
                for _ in range(100):
                    await session.run("1 + 1", timeout_seconds=30)
                note(f"{level}: warm result (mean of 100)", began, per=100)
            async with await _started(sandbox) as spare:  # as the server keeps one ahead of its callers
                began = time.perf_counter()
                await spare.run("1 + 1", timeout_seconds=30)
                note(f"{level}: new session kept ahead, first result", began)
            began = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(_start_run_end, sandbox)
            note(f"{level}: 20 sessions at once, start to end", began)
        for name, taken in (await _peers(chosen)).items():
            seconds.setdefault(name, []).append(taken)
    return {name: values[1:] for name, values in seconds.items()}


async def _peers(chosen: argparse.Namespace) -> dict[str, float]:
    taken: dict[str, float] = {}
    if chosen.peers is not None:
        done = await anyio.run_process([chosen.peers, "-c", PEERS], stderr=None)
        taken |= json.loads(done.stdout)
    if chosen.srt is not None:
        began = time.perf_counter()
        await anyio.run_process([chosen.srt, "-c", f"{sys.executable} -c pass"])  # it takes one text for a shell
        taken["sandbox-runtime: python -c pass"] = time.perf_counter() - began
    if chosen.analysis is not None:
        sandbox = await find_sandbox(LIMITS, wanted=None, allow_none=False, python=chosen.analysis)
        async with await _started(sandbox) as session:
            for name in ("first figure of a session", "next figure"):
                began = time.perf_counter()
                drawn = await session.run(FIGURE, timeout_seconds=120)
                assert len(drawn.images) == 1, drawn
                taken[f"{sandbox.level}: {name}"] = time.perf_counter() - began
    return taken


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
