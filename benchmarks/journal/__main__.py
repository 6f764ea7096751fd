"""What the record costs: writing an event, and going on with a run of 10,000 events, each beside its floor.

    .venv/bin/python -m benchmarks.journal [--events 10000] [--json]

Writing is measured on the events of a real run, beside writing and flushing the same bytes with nothing else. Going on
is measured from opening the record to the first model call that is not on it, beside reading the same file as plain
JSON. The run has plans of 24 subtasks, each of which calls five tools in each of twelve turns; its end is cut off, in
the middle of a subtask, as a crash would.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp.server import MCPServer
from openai import AsyncOpenAI

from memento.agent import Agent
from memento.events import Event
from memento.journal import Journal, elapsed_seconds
from memento.memory import CaseMemory
from memento.model import Model
from memento.settings import Settings
from memento.toolbox import open_toolbox

CALLS_PER_TURN = 5
TURNS = 12
SUBTASKS = 24
"""Per plan."""
EVENTS_PER_PLAN = SUBTASKS * (TURNS * (1 + 2 * CALLS_PER_TURN) + 3) + 3


class Endpoint:
    """A model whose executors keep calling tools. Notes when it is first called after `is_resumed` is set."""

    def __init__(self, plans: int) -> None:
        self.plans = plans
        self.is_resumed = False
        self.first_live_call: float | None = None

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if self.is_resumed and self.first_live_call is None:
            self.first_live_call = time.perf_counter()
        body = json.loads(request.content)
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        if not body.get("tools"):
            steps = [{"id": str(n), "description": f"add in plan {turn}, {n}"} for n in range(SUBTASKS)]
            said = {"plan": steps} if turn < self.plans else {"final_answer": "done"}
            return completion({"content": json.dumps(said)})
        if turn == TURNS:
            return completion({"content": "all added"})
        arguments = [json.dumps({"a": turn, "b": n}) for n in range(CALLS_PER_TURN)]
        calls = [
            {"id": f"c{turn}-{n}", "type": "function", "function": {"name": "calc__add", "arguments": text}}
            for n, text in enumerate(arguments)
        ]
        return completion({"tool_calls": calls})


def completion(message: dict[str, Any]) -> httpx2.Response:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None} | message}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "scripted", "choices": [choice]}
    return httpx2.Response(200, json=body | {"usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}})


def calculator() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("calc", log_level="ERROR")

    @server.tool()
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        return f"{a} + {b} = {a + b}" + " and some words as a result has them" * 5

    return server


async def measure(events: int) -> dict[str, Any]:
    plans = max(1, round(events / EVENTS_PER_PLAN))
    endpoint = Endpoint(plans)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = Settings(
            home=home, memory="off", max_plans=plans + 1, max_turns_per_subtask=TURNS + 2, max_model_calls=10 * events,
            max_tool_calls=10 * events, max_total_tokens=None, max_seconds=3_600,
        )  # fmt: skip
        journal = Journal(home)
        async with (
            httpx2.AsyncClient(transport=httpx2.MockTransport(endpoint)) as http,
            AsyncOpenAI(api_key="k", base_url="http://model.test/v1", http_client=http, max_retries=0) as openai,
            open_toolbox({"calc": calculator()}) as toolbox,
        ):
            model = Model(openai, "scripted", is_free=True)
            memory = CaseMemory(toolbox=toolbox, mode="off")
            agent = Agent(planner=model, executor=model, toolbox=toolbox, memory=memory, settings=settings)
            log = journal.new_run()
            await agent.run("How much?", log=log, emit=log.append)
            log.close()
            path = log.folder / "events.jsonl"
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(lines[:-40]))
            endpoint.is_resumed = True
            started = time.perf_counter()
            again = journal.reopen(log.run_id)
            records = list(journal.records(log.run_id))
            await agent.run(
                "How much?", log=again, emit=again.append, earlier=[record.event for record in records],
                elapsed_seconds=elapsed_seconds(records),
            )  # fmt: skip
            again.close()
        assert endpoint.first_live_call is not None
        resume_seconds = endpoint.first_live_call - started
        started = time.perf_counter()
        for line in path.read_bytes().splitlines():
            json.loads(line)
        read_seconds = time.perf_counter() - started
        mine, floor = write_cost([record.event for record in records], home)
    return {
        "events": len(records),
        "megabytes": round(sum(map(len, lines)) / 1e6, 2),
        "write_microseconds": round(mine * 1e6, 1),
        "bare_write_microseconds": round(floor * 1e6, 1),
        "write_ratio": round(mine / floor, 2),
        "resume_seconds": round(resume_seconds, 3),
        "read_as_json_seconds": round(read_seconds, 3),
        "resume_ratio": round(resume_seconds / read_seconds, 1),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, {platform.system()}",
    }


def write_cost(events: list[Event], home: Path) -> tuple[float, float]:
    """Median seconds per event: through the journal, and the same bytes into a file that is flushed each time."""
    log = Journal(home / "again").new_run()
    mine: list[float] = []
    for event in events:
        started = time.perf_counter()
        log.append(event)
        mine.append(time.perf_counter() - started)
    log.close()
    floor: list[float] = []
    with (home / "floor").open("a", encoding="utf-8") as file:
        for line in (log.folder / "events.jsonl").read_text(encoding="utf-8").splitlines(keepends=True):
            started = time.perf_counter()
            file.write(line)
            file.flush()
            floor.append(time.perf_counter() - started)
    return statistics.median(mine), statistics.median(floor)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.journal", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = anyio.run(measure, options.events)
    if options.json:
        print(json.dumps(found))
        return
    print(f"a run of {found['events']:,} events, {found['megabytes']} MB ({found['machine']})")
    print(f"write an event    {found['write_microseconds']:8.1f} µs   bare write and flush "
          f"{found['bare_write_microseconds']:6.1f} µs   {found['write_ratio']:.2f} ×")  # fmt: skip
    print(f"go on with it     {found['resume_seconds']:8.3f} s    the file read as JSON "
          f"{found['read_as_json_seconds']:6.3f} s    {found['resume_ratio']:.1f} ×")  # fmt: skip


if __name__ == "__main__":
    main()
