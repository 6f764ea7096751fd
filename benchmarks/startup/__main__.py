"""How long our servers take from spawn to tools listed, beside a bare mcp server in the same run.

    .venv/bin/python -m benchmarks.startup [--rounds 9] [--json] [--imports]

Each round starts every server once, one after another, in an order that rotates, then as many bare servers as
there are of ours at once, then ours at once. The first round only warms the file cache and the bytecode and is
thrown away. Reported are medians over the rounds, of the ratio to the bare server of the same round too; processor
time counts the whole life of a server, exit included.
`--imports` shows instead what each server imports that the bare one does not, and what that costs.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

from memento.server_list import load_server_list

ROOT = Path(__file__).parents[2]
BARE = "bare mcp server"
BARE_TOGETHER = "as many bare, together"
TOGETHER = "ours, together"
GOAL_EACH = 1.15
GOAL_TOGETHER = 1.6
"""Ratios to the bare server, from issue 2."""
START_SECONDS = 60

MESSAGES = [
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "benchmark", "version": "1"},
        },
    },
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
]


@dataclass(frozen=True)
class Command:
    """How one server is started."""

    argv: Sequence[str]
    env: dict[str, str]


@dataclass(frozen=True)
class Start:
    """One start: seconds on the clock from spawn to tools listed, and seconds of processor time until exit."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Row:
    """Medians over the rounds, in milliseconds, and of the ratios to the bare server of the same round."""

    name: str
    wall_ms: float
    wall_min_ms: float
    cpu_ms: float
    ratio: float
    cpu_ratio: float
    goal: float | None


def commands(home: str) -> dict[str, Command]:
    """The bare server and every stdio server of mcp.json, all from this interpreter's environment."""
    # The servers may write their bytecode, as they do when `scripts/setup` installed them.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"MEMENTO_HOME": home}
    bare = Command([sys.executable, str(Path(__file__).with_name("bare_server.py"))], env)
    ours = load_server_list(ROOT / "mcp.json", environ={}).servers
    return {BARE: bare} | {
        f"memento-{name}": Command([entry.command, *entry.args], env | entry.env) for name, entry in ours.items()
    }


def start(command: Command, cwd: str) -> Start:
    """Spawn a server, list its tools, close its stdin and wait for it.

    Raises:
        RuntimeError: it did not answer within the time limit, or ended badly.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        command.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=command.env, cwd=cwd
    )
    guard = threading.Timer(START_SECONDS, process.kill)
    guard.start()
    stdin, stdout, stderr = (cast(IO[bytes], each) for each in (process.stdin, process.stdout, process.stderr))
    try:
        stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in MESSAGES))
        stdin.flush()
        for line in stdout:
            if json.loads(line).get("id") == 2:
                break
        wall = time.perf_counter() - began
        stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        guard.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    complaint = stderr.read().decode(errors="replace")
    stdout.close()
    stderr.close()
    if process.returncode != 0:
        raise RuntimeError(f"{command.argv[0]} ended with {process.returncode}: {complaint[-2000:]}")
    return Start(wall, usage.ru_utime + usage.ru_stime)


def start_together(those: Sequence[Command], cwd: str) -> Start:
    """Start all of `those` at once; the wall time is that of the last one to be ready."""
    done: list[Start] = []

    def one(command: Command) -> None:
        done.append(start(command, cwd))

    threads = [threading.Thread(target=one, args=[command]) for command in those]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(done) != len(threads):
        raise RuntimeError("a server did not start; its error is above")
    return Start(max(each.wall for each in done), sum(each.cpu for each in done))


def measure(rounds: int) -> list[Row]:
    starts: dict[str, list[Start]] = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "work").mkdir()
        cwd = str(Path(folder) / "work")
        all_commands = commands(home=str(Path(folder) / "home"))
        ours = [command for name, command in all_commands.items() if name != BARE]
        names = list(all_commands)
        for number in range(rounds + 1):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                starts.setdefault(name, []).append(start(all_commands[name], cwd))
            starts.setdefault(BARE_TOGETHER, []).append(start_together([all_commands[BARE]] * len(ours), cwd))
            starts.setdefault(TOGETHER, []).append(start_together(ours, cwd))
            print(f"round {number} of {rounds}", file=sys.stderr)
    return rows({name: found[1:] for name, found in starts.items()})


def rows(starts: dict[str, list[Start]]) -> list[Row]:
    goals = {BARE: None, BARE_TOGETHER: None, TOGETHER: GOAL_TOGETHER}
    found: list[Row] = []
    for name, each in starts.items():
        wall = statistics.median(one.wall for one in each)
        cpu = statistics.median(one.cpu for one in each)
        fastest = min(one.wall for one in each)
        # Round by round: what else the machine was doing then hit both.
        ratio = statistics.median(one.wall / bare.wall for one, bare in zip(each, starts[BARE], strict=True))
        cpu_ratio = statistics.median(one.cpu / bare.cpu for one, bare in zip(each, starts[BARE], strict=True))
        goal = goals.get(name, GOAL_EACH)
        found.append(Row(name, wall * 1e3, fastest * 1e3, cpu * 1e3, ratio, cpu_ratio, goal))
    return found


def extra_imports(least_ms: float = 2.0) -> dict[str, list[tuple[str, float]]]:
    """The modules that a server imports at start and the bare one does not, with milliseconds each."""
    with tempfile.TemporaryDirectory() as folder:
        all_commands = commands(home=folder)
        times = {name: _import_times(command, folder) for name, command in all_commands.items()}
    bare = {module for module, _ in times.pop(BARE)}
    return {
        name: [(module, ms) for module, ms in found if module not in bare and ms >= least_ms]
        for name, found in times.items()
    }


def _import_times(command: Command, cwd: str) -> list[tuple[str, float]]:
    """Each imported module and its milliseconds, with all that it imports in turn, as `-X importtime` lists them."""
    script = [part for part in command.argv if part != sys.executable]
    argv = [sys.executable, "-X", "importtime", *script]
    text = "".join(json.dumps(message) + "\n" for message in MESSAGES)

    def run() -> str:
        return subprocess.run(
            argv, env=command.env, cwd=cwd, input=text, timeout=60, check=True, capture_output=True, encoding="utf-8"
        ).stderr

    run()  # the first time the bytecode may not be there yet
    matches = (re.fullmatch(r"import time: +\d+ \| +(\d+) \| *(\S+)", line) for line in run().splitlines())
    return [(match[2], int(match[1]) / 1e3) for match in matches if match]


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "load": [round(each, 1) for each in os.getloadavg()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.startup", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9, help="how often each server is started (default 9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--imports", action="store_true", help="show what each server imports beyond the bare one")
    options = parser.parse_args()
    if options.imports:
        for name, modules in extra_imports().items():
            print(f"\n{name}")
            for module, ms in modules:
                print(f"  {ms:8.1f} ms  {module}")
        return
    found = measure(options.rounds)
    if options.json:
        print(json.dumps({"machine": machine(), "rounds": options.rounds, "rows": [asdict(row) for row in found]}))
        return
    print(f"{'':24}{'median':>10}{'fastest':>10}{'CPU':>10}{'ratio':>8}{'of CPU':>8}{'goal':>10}")
    for row in found:
        goal = "" if row.goal is None else f"<= {row.goal}" + (" " if row.ratio <= row.goal else " !")
        times = "".join(f"{ms:7.0f} ms" for ms in (row.wall_ms, row.wall_min_ms, row.cpu_ms))
        print(f"{row.name:24}{times}{row.ratio:8.2f}{row.cpu_ratio:8.2f}{goal:>10}")
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine().items()))


if __name__ == "__main__":
    main()
