"""What the sandbox costs beside a bare interpreter and a Jupyter kernel, and which attacks each level stops.

    .venv/bin/python -m benchmarks.code [--rounds 7] [--json] [--jupyter PYTHON] [--escapes]

Each round takes every measure once, in turn; the first round warms the caches and is thrown away. Reported are medians,
and the median of the ratio to the bare interpreter (`python -c pass`) of the same round. `--jupyter` names a
Python that has ipykernel and jupyter_client; it runs without any isolation. `--escapes` runs the attacks of
`tests/support/escapes.py` at each level that holds here, as the user who runs this; those that would do harm without
isolation are not run without.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from memento_code.sandbox import Level, Limits, NoSandbox, Sandbox, find_sandbox
from memento_code.session import Session

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
LIMITS = Limits(1 << 30, 3 << 29, 48, 256, 64 << 20, 256 << 20, 600)
LEVELS: tuple[Level, ...] = ("namespace", "landlock", "none")
BARE = "bare interpreter, start to end"
JUPYTER = """
import json, sys, time
from jupyter_client.manager import start_new_kernel
began = time.perf_counter()
manager, client = start_new_kernel(kernel_name="python3")
client.execute_interactive("1 + 1", output_hook=lambda message: None)
first = time.perf_counter() - began
began = time.perf_counter()
client.execute_interactive("1 + 1", output_hook=lambda message: None)
print(json.dumps([first, time.perf_counter() - began]))
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


def main() -> None:
    options = argparse.ArgumentParser(prog="benchmarks.code", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options.add_argument("--jupyter", help="a Python that has ipykernel and jupyter_client")
    options.add_argument("--escapes", action="store_true", help="run the attacks as well")
    chosen = options.parse_args()
    anyio.run(_benchmark, chosen)


async def _benchmark(chosen: argparse.Namespace) -> None:
    sandboxes = await _levels()
    seconds = await _measure(sandboxes, chosen.rounds, chosen.jupyter)
    memory = {level: await _idle_bytes(sandbox) for level, sandbox in sandboxes.items()}
    escapes = {level: await _escapes(sandbox) for level, sandbox in sandboxes.items()} if chosen.escapes else {}
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, uid {os.getuid()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    if chosen.json:
        print(json.dumps({"machine": machine, "seconds": seconds, "idle_bytes": memory, "escapes": escapes}))
        return
    print(machine)
    floor = seconds[BARE]
    for name, values in seconds.items():
        ratio = statistics.median(value / bare for value, bare in zip(values, floor, strict=True))
        print(f"{name:45} {statistics.median(values) * 1000:9.1f} ms   {ratio:7.2f} x bare")
    for level, size in memory.items():
        print(f"{level + ': memory of an idle session':45} {size / 1e6:9.1f} MB (proportional, all its processes)")
    for level, tried in escapes.items():
        worked = tried["worked"]
        print(f"{level + ': attacks that worked':45} {len(worked):4} of {tried['tried']} {', '.join(worked)}")


async def _levels() -> dict[Level, Sandbox]:
    found: dict[Level, Sandbox] = {}
    for level in LEVELS:
        try:
            found[level] = await find_sandbox(LIMITS, wanted=level, allow_none=True)
        except NoSandbox as exc:
            print(f"{level} does not hold here: {exc}", file=sys.stderr)
    return found


async def _measure(sandboxes: dict[Level, Sandbox], rounds: int, jupyter: str | None) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {}

    def note(name: str, began: float, per: int = 1) -> None:
        seconds.setdefault(name, []).append((time.perf_counter() - began) / per)

    for _ in range(rounds + 1):
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
            began = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(_start_run_end, sandbox)
            note(f"{level}: 20 sessions at once, start to end", began)
        if jupyter is not None:
            done = await anyio.run_process([jupyter, "-c", JUPYTER], stderr=subprocess.DEVNULL)
            first, warm = json.loads(done.stdout)
            seconds.setdefault("Jupyter kernel: new, first result", []).append(first)
            seconds.setdefault("Jupyter kernel: warm result", []).append(warm)
    return {name: values[1:] for name, values in seconds.items()}


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


async def _escapes(sandbox: Sandbox) -> dict[str, Any]:
    attacks: Any = importlib.import_module("support.escapes")
    os.environ["OPENAI_API_KEY"] = attacks.KEY
    names: list[str] = sorted(attacks.SAFE_UNCONFINED) if sandbox.level == "none" else list(attacks.ESCAPES)
    worked: list[str] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder, attacks.lay_out_prey(Path(folder)) as prey:
            said = await _attack(sandbox, attacks.prelude(prey.told) + attacks.ESCAPES[name])
            if "ESCAPED" in said or prey.was_reached():
                worked.append(name)
    return {"tried": len(names), "worked": worked}


async def _attack(sandbox: Sandbox, code: str) -> str:
    said = ""
    async with await _started(sandbox) as session, anyio.create_task_group() as beside:
        beside.start_soon(_watch, session)
        said = (await session.run(code, timeout_seconds=30)).stdout.text
        beside.cancel_scope.cancel()
    return said


async def _watch(session: Session) -> None:
    while True:
        await session.enforce_memory()
        await session.enforce_folder()
        await anyio.sleep(0.1)


if __name__ == "__main__":
    main()
