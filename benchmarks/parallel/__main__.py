"""How near a plan's run comes to its critical path, beside the same plan with one subtask at a time.

    .venv/bin/python -m benchmarks.parallel [--unit-seconds .2] [--rounds 5] [--json]

The plan is a fixed graph of nine subtasks, each of which calls one tool once; the tool waits as many units as the
subtask is worth. The longest way through the graph, its critical path, is known, and no order of work can be faster.
The tool is on a real stdio server; the model's replies cost nothing. The ratio to the critical path holds all that the
agent adds: planning, starting subtasks, tool calls over MCP, the journal.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import httpx2
from openai import AsyncOpenAI

from memento.agent import Agent
from memento.journal import Journal
from memento.memory import CaseMemory
from memento.model import Model
from memento.server_list import ServerEntry
from memento.settings import Settings
from memento.toolbox import open_toolbox

SERVER = '''
import anyio
from mcp.server import MCPServer
mcp = MCPServer("clock", log_level="ERROR")
@mcp.tool()
async def wait(seconds: float) -> str:
    """Wait."""
    await anyio.sleep(seconds)
    return "waited"
mcp.run()
'''

GRAPH: dict[str, tuple[int, list[str]]] = {
    "a": (2, []), "b": (3, []), "c": (1, []),
    "d": (2, ["a"]), "e": (2, ["a", "b"]), "f": (4, ["c"]),
    "g": (3, ["d", "e"]), "h": (1, ["f"]), "i": (2, ["g", "h"]),
}  # fmt: skip
"""Subtask to what it is worth, in units, and what it waits for."""


def critical_path() -> int:
    """Units on the longest way through the graph."""
    ends: dict[str, int] = {}
    for name, (units, needs) in GRAPH.items():  # each stands after what it needs
        ends[name] = units + max((ends[needed] for needed in needs), default=0)
    return max(ends.values())


def scripted(unit_seconds: float) -> httpx2.MockTransport:
    plan = [{"id": name, "description": name, "depends_on": needs} for name, (_, needs) in GRAPH.items()]

    def reply(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        messages = body["messages"]
        if not body.get("tools"):
            content = {"plan": plan} if len(messages) <= 3 else {"final_answer": "done"}
            return completion({"content": json.dumps(content)})
        if messages[-1]["role"] == "tool":
            return completion({"content": "waited"})
        units, _ = GRAPH[messages[1]["content"][-1]]
        function = {"name": "clock__wait", "arguments": json.dumps({"seconds": units * unit_seconds})}
        return completion({"tool_calls": [{"id": "c", "type": "function", "function": function}]})

    return httpx2.MockTransport(reply)


def completion(message: dict[str, Any]) -> httpx2.Response:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None} | message}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "scripted", "choices": [choice]}
    return httpx2.Response(200, json=body)


async def measure(unit_seconds: float, rounds: int) -> dict[str, Any]:
    shortest = critical_path() * unit_seconds
    wide: list[float] = []
    narrow: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            httpx2.AsyncClient(transport=scripted(unit_seconds)) as http,
            AsyncOpenAI(api_key="k", base_url="http://model.test/v1", http_client=http, max_retries=0) as openai,
            open_toolbox({"clock": ServerEntry(command=sys.executable, args=["-c", SERVER])}) as toolbox,
        ):
            model = Model(openai, "scripted", is_free=True)

            async def one(width: int) -> float:
                settings = Settings(home=Path(folder), memory="off", parallel_subtasks=width)
                memory = CaseMemory(toolbox=toolbox, mode="off")
                agent = Agent(planner=model, executor=model, toolbox=toolbox, memory=memory, settings=settings)
                log = Journal(settings.home).new_run()
                started = time.perf_counter()
                result = await agent.run("How long?", log=log, emit=log.append)
                log.close()
                assert (result.status, result.tool_calls) == ("answered", len(GRAPH)), result
                return time.perf_counter() - started

            await one(len(GRAPH))  # warms everything
            for number in range(1, rounds + 1):
                wide.append(await one(len(GRAPH)))
                narrow.append(await one(1))
                sys.stderr.write(f"round {number} of {rounds}: {wide[-1]:.2f} s, one at a time {narrow[-1]:.2f} s\n")
    return {
        "subtasks": len(GRAPH),
        "critical_path_seconds": shortest,
        "seconds": round(statistics.median(wide), 3),
        "one_at_a_time_seconds": round(statistics.median(narrow), 3),
        "to_critical_path": round(statistics.median(wide) / shortest, 3),
        "speed_up": round(statistics.median(narrow) / statistics.median(wide), 2),
        "possible_speed_up": round(sum(units for units, _ in GRAPH.values()) / critical_path(), 2),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, {platform.system()}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.parallel", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--unit-seconds", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = anyio.run(measure, options.unit_seconds, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['subtasks']} subtasks, medians of {options.rounds} rounds ({found['machine']})")
    print(f"critical path          {found['critical_path_seconds']:7.2f} s")
    print(f"the run                {found['seconds']:7.2f} s   {found['to_critical_path']:.3f} × (goal ≤ 1.15)")
    print(f"one subtask at a time  {found['one_at_a_time_seconds']:7.2f} s")
    print(f"speed-up               {found['speed_up']:7.2f}     of {found['possible_speed_up']:.2f} possible")


if __name__ == "__main__":
    main()
