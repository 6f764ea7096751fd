"""What the agent itself costs per tool step, beside the bare SDK call of the same tool on the same server.

    .venv/bin/python -m benchmarks.overhead [--steps 100] [--rounds 7] [--json]

A run of the agent makes a plan with one subtask whose executor calls one tool in each of its turns, answered by a
scripted endpoint on loopback over real HTTP, and by a real stdio server. From the run's wall time its own record
takes out what was spent waiting for the model and for the tool; the rest, divided by the steps, is the overhead:
building requests, parsing replies, fencing, budgets, and the journal on disk. Each round measures the agent and
the bare calls in turn, on servers that both have warmed; reported are medians over rounds.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from openai import AsyncOpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from memento.agent import Agent
from memento.events import Event, ModelCalled, RunEnded, ToolReturned
from memento.journal import Journal
from memento.loopback import serve_on_loopback
from memento.memory import CaseMemory
from memento.model import Model
from memento.server_list import ServerEntry
from memento.settings import Settings
from memento.toolbox import open_toolbox

SERVER = '''
from mcp.server import MCPServer
mcp = MCPServer("calc", log_level="ERROR")
@mcp.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b
mcp.run()
'''


@asynccontextmanager
async def scripted_endpoint(steps: int) -> AsyncGenerator[str]:
    """A model that plans one subtask, calls the tool `steps` times in it, and answers."""

    async def complete(request: Request) -> JSONResponse:
        body = await request.json()
        messages = body["messages"]
        calls = sum(message["role"] == "tool" for message in messages)
        if not body.get("tools"):
            done = len(messages) > 3
            content = {"final_answer": "done"} if done else {"plan": [{"id": "1", "description": "add"}]}
            return completion({"content": json.dumps(content)})
        if calls == steps:
            return completion({"content": "all added"})
        function = {"name": "calc__add", "arguments": json.dumps({"a": calls, "b": 1})}
        return completion({"tool_calls": [{"id": f"c{calls}", "type": "function", "function": function}]})

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    async with serve_on_loopback(app) as origin:
        yield f"{origin}/v1"


def completion(message: dict[str, Any]) -> JSONResponse:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None} | message}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "scripted", "choices": [choice]}
    return JSONResponse(body | {"usage": usage})


async def agent_overhead_ms(agent: Agent, journal: Journal, steps: int) -> float:
    """One run; milliseconds per tool step that were spent neither in the model nor in the tool."""
    events: list[Event] = []
    log = journal.new_run()
    try:
        await agent.run("How much is it?", log=log, emit=lambda event: events.append(log.append(event).event))
    finally:
        log.close()
    ended = next(event for event in events if isinstance(event, RunEnded))
    assert (ended.status, ended.tool_calls) == ("answered", steps), ended
    waited = sum(event.seconds for event in events if isinstance(event, ModelCalled | ToolReturned))
    return 1e3 * (ended.seconds - waited) / steps


async def bare_call_ms(client: Client, steps: int) -> float:
    """Milliseconds per call of the same tool through the SDK alone."""
    started = time.perf_counter()
    for number in range(steps):
        await client.call_tool("add", {"a": number, "b": 1})
    return 1e3 * (time.perf_counter() - started) / steps


async def measure(steps: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            home=Path(folder), memory="off", max_turns_per_subtask=steps + 2, max_model_calls=steps + 10,
            max_tool_calls=steps, max_total_tokens=None,
        )  # fmt: skip
        journal = Journal(settings.home)
        overheads: list[float] = []
        bare: list[float] = []
        async with (
            scripted_endpoint(steps) as base_url,
            AsyncOpenAI(api_key="k", base_url=base_url, max_retries=0) as openai,
            open_toolbox({"calc": ServerEntry(command=sys.executable, args=["-c", SERVER])}) as toolbox,
            Client(StdioServerParameters(command=sys.executable, args=["-c", SERVER])) as client,
        ):
            model = Model(openai, "scripted", is_free=True)
            memory = CaseMemory(toolbox=toolbox, mode="off")
            agent = Agent(planner=model, executor=model, toolbox=toolbox, memory=memory, settings=settings)
            await client.list_tools()
            for number in range(rounds + 1):
                overhead, call = await agent_overhead_ms(agent, journal, steps), await bare_call_ms(client, steps)
                if number:  # the first round warms both
                    overheads.append(overhead)
                    bare.append(call)
                    sys.stderr.write(f"round {number} of {rounds}: {overhead:.2f} ms beside {call:.2f} ms\n")
    ratios = [mine / theirs for mine, theirs in zip(overheads, bare, strict=True)]
    return {
        "steps": steps,
        "rounds": rounds,
        "overhead_ms_per_step": round(statistics.median(overheads), 3),
        "bare_sdk_call_ms": round(statistics.median(bare), 3),
        "ratio": round(statistics.median(ratios), 2),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, {platform.system()}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.overhead", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=100, help="tool steps in one run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = anyio.run(measure, options.steps, options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['steps']} tool steps a run, medians of {result['rounds']} rounds ({result['machine']})")
    print(f"agent's own time per step   {result['overhead_ms_per_step']:8.2f} ms")
    print(f"bare SDK call of the tool   {result['bare_sdk_call_ms']:8.2f} ms")
    print(f"ratio                       {result['ratio']:8.2f}")


if __name__ == "__main__":
    main()
