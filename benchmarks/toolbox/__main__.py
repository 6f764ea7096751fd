"""What the toolbox and its cache cost a tool call, beside the bare SDK client of the same server in the same run.

    .venv/bin/python -m benchmarks.toolbox [--calls 1000] [--rounds 5] [--width 8] [--json]

A real stdio server with one tool is called `calls` times, one after another and `width` at a time: through the SDK's
client alone, through the toolbox (arguments read and checked as an executor does it), and through the toolbox with a
cache that has every answer and with one that has none. Each round measures all of them in turn; reported are medians of
the rounds, and the ratio of each to the bare client.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

from memento.arguments import read_arguments
from memento.server_list import ServerEntry
from memento.tool_cache import ToolCache, ToolCachePolicy
from memento.toolbox import ToolBox, ToolSpec, open_toolbox

SERVER = '''
from mcp.server import MCPServer
from mcp.types import ToolAnnotations
mcp = MCPServer("calc", log_level="ERROR")
@mcp.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b
mcp.run()
'''
BARE = "bare SDK client"

Call = Callable[[int], Awaitable[None]]


async def calls_per_second(call: Call, calls: int, width: int) -> float:
    numbers = iter(range(calls))

    async def worker() -> None:
        for number in numbers:
            await call(number)

    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(width):
            group.start_soon(worker)
    return calls / (time.perf_counter() - started)


def through_client(client: Client) -> Call:
    async def call(number: int) -> None:
        result = await client.call_tool("add", {"a": number, "b": 1})
        assert result.structured_content == {"result": number + 1}

    return call


def through_toolbox(toolbox: ToolBox, spec: ToolSpec, cache: ToolCache | None, *, is_cached: bool = False) -> Call:
    async def call(number: int) -> None:
        arguments = read_arguments(f'{{"a": {number}, "b": 1}}', spec.input_schema, tool=spec.name)

        async def send() -> Any:
            return await toolbox.call(spec, arguments)

        outcome = await (send() if cache is None else cache.call(spec, arguments, send))
        assert (outcome.text, outcome.cached) == (str(number + 1), is_cached)

    return call


async def measure(calls: int, rounds: int, width: int) -> dict[str, Any]:
    entry = ServerEntry(command=sys.executable, args=["-c", SERVER])
    rates: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Client(StdioServerParameters(command=sys.executable, args=["-c", SERVER])) as client,
            open_toolbox({"calc": entry}) as toolbox,
        ):
            (spec,) = toolbox.specs()
            await client.list_tools()
            for number in range(rounds + 1):
                for at_once in (1, width):
                    cache = ToolCache(Path(folder) / f"{number}-{at_once}.sqlite3", ToolCachePolicy())
                    ways = {
                        BARE: through_client(client),
                        "toolbox": through_toolbox(toolbox, spec, None),
                        "toolbox, cache that has none": through_toolbox(toolbox, spec, cache),
                        "toolbox, cache that has all": through_toolbox(toolbox, spec, cache, is_cached=True),
                    }
                    for way, call in ways.items():
                        rate = await calls_per_second(call, calls, at_once)
                        if number:  # the first round warms all
                            rates.setdefault((way, at_once), []).append(rate)
                    cache.close()
                sys.stderr.write(f"round {number} of {rounds}\n")
    rows = [
        {
            "way": way,
            "at_once": at_once,
            "calls_per_second": round(statistics.median(found)),
            "ratio": round(statistics.median(a / b for a, b in zip(found, rates[BARE, at_once], strict=True)), 2),
        }
        for (way, at_once), found in sorted(rates.items(), key=lambda item: item[0][1])
    ]
    machine = f"{platform.machine()}, Python {platform.python_version()}, {platform.system()}"
    return {"calls": calls, "rounds": rounds, "rows": rows, "machine": machine}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.toolbox", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=8, help="calls at once, beside one after another")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = anyio.run(measure, options.calls, options.rounds, options.width)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['calls']:,} calls, medians of {result['rounds']} rounds ({result['machine']})")
    print(f"{'':30} {'at once':>8} {'calls/s':>8} {'ratio':>6}")
    for row in result["rows"]:
        print(f"{row['way']:30} {row['at_once']:8} {row['calls_per_second']:8,} {row['ratio']:6.2f}")


if __name__ == "__main__":
    main()
