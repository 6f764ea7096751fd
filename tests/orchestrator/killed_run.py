"""Run by test_resume.py: forks runs, kills each with SIGKILL at one event number, and lets others go on with them.

A script of its own, because a fork wants a process without threads. The model is rules behind the real client, the
tools and the case bank are real MCP servers in memory; what reaches any of them is noted in a file before it answers,
so that the notes outlive the process. Prints one JSON object per event number.
"""

import json
import logging
import os
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp.server import MCPServer
from mcp.types import ToolAnnotations
from openai import AsyncOpenAI
from pydantic import BaseModel

from memento.agent import Agent
from memento.events import Event, ModelCalled, ToolCalled
from memento.executor import never_repeat
from memento.journal import Journal, elapsed_seconds
from memento.memory import CaseMemory
from memento.model import Model
from memento.settings import Settings
from memento.toolbox import open_toolbox
from support.scripted_model import answers, calls, completion, says

STEPS: list[dict[str, Any]] = [
    {"id": "a", "description": "write alpha", "depends_on": []},
    {"id": "b", "description": "look at beta", "depends_on": []},
    {"id": "c", "description": "write gamma", "depends_on": ["a", "b"]},
]
MORE: list[dict[str, Any]] = [{"id": "d", "description": "look at delta", "depends_on": ["1.c"]}]
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


class Row(BaseModel):
    model_config = {"extra": "allow"}


def note(folder: Path, name: str, line: str) -> None:
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def noted(folder: Path, name: str) -> Counter[str]:
    path = folder / name
    return Counter(path.read_text(encoding="utf-8").splitlines() if path.exists() else [])


def key_of(body: dict[str, Any]) -> str:
    """What a request is about: the role, the subtask and the turn, as the record names them."""
    messages = body["messages"]
    turn = sum(message["role"] == "assistant" for message in messages) + 1
    if body["model"] == "executor":
        return f"executor {messages[1]['content'].rsplit('Your subtask: ')[-1]} {turn}"
    return f"{body['model']} {turn}"


def reply_to(body: dict[str, Any]) -> dict[str, Any]:
    messages = body["messages"]
    if body["model"] == "judge":
        return says('{"judgement": "correct", "confidence": 0.9}')
    if body["model"] == "planner":
        turn = sum(message["role"] == "assistant" for message in messages)
        plan = [{"plan": STEPS}, {"plan": MORE}]
        return {"content": json.dumps(plan[turn])} if turn < 2 else answers("alpha and gamma are written")
    verb, *_, what = messages[1]["content"].rsplit("Your subtask: ")[-1].split()
    if messages[-1]["role"] == "tool":
        return says(f"{what} is done")
    look = ("notes__look", {"at": what})
    return calls(look, ("notes__write", {"text": what})) if verb == "write" else calls(look)


def client(folder: Path) -> AsyncOpenAI:
    def handle(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        note(folder, "paid", key_of(body))
        return completion(reply_to(body), USAGE)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(handle))
    return AsyncOpenAI(api_key="k", base_url="http://model.test/v1", http_client=http, max_retries=0)


def servers(folder: Path) -> dict[str, MCPServer[Any]]:
    notes: MCPServer[Any] = MCPServer("notes")

    @notes.tool(annotations=ToolAnnotations(read_only_hint=True))
    def look(at: str) -> str:
        """Look."""
        note(folder, "looked", at)
        return f"saw {at}"

    @notes.tool()
    def write(text: str) -> str:
        """Write."""
        note(folder, "written", text)
        return f"wrote {text}"

    bank: MCPServer[Any] = MCPServer("casebank")

    @bank.tool()
    def retrieve_cases(query: str, run_id: str) -> Row:
        """Cases."""
        note(folder, "retrieved", query)
        case: dict[str, Any] = {"case_id": "c1", "question": "Earlier?", "plan": {"plan": []}, "reward": 1.0}
        return Row.model_validate({"decision_id": "d1", "memory": "on", "cases": [case]})

    @bank.tool()
    def retain_case(question: str, run_id: str, plan: dict[str, Any], cost: dict[str, Any]) -> Row:
        """Keep."""
        note(folder, "kept", json.dumps([[step["id"] for step in plan["plan"]], cost], sort_keys=True))
        return Row.model_validate({"case_id": "new"})

    @bank.tool()
    def record_outcome(run_id: str, reward: float) -> Row:
        """Outcome."""
        note(folder, "outcomes", str(reward))
        return Row.model_validate({"updated": 1})

    return {"notes": notes, "casebank": bank}


async def sit(folder: Path, kill_at: int | None, *, go_on: bool, repeat: bool) -> dict[str, Any]:
    """One sitting of the run: the first, or one that goes on. Dies right after event `kill_at` is written."""
    journal = Journal(folder)
    settings = Settings(home=folder)
    log = journal.reopen("last") if go_on else journal.new_run()
    records = list(journal.records(log.run_id))

    def emit(event: Event) -> None:
        if log.append(event).number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def always(call: ToolCalled) -> bool:
        return True

    async with client(folder) as wire, open_toolbox(servers(folder)) as toolbox:
        agent = Agent(
            planner=Model(wire, "planner"),
            executor=Model(wire, "executor"),
            judge=Model(wire, "judge"),
            toolbox=toolbox,
            memory=CaseMemory(toolbox=toolbox),
            settings=settings,
        )
        result = await agent.run(
            "What is written?",
            log=log,
            emit=emit,
            earlier=[record.event for record in records],
            elapsed_seconds=elapsed_seconds(records),
            may_repeat=always if repeat else never_repeat,
        )
    log.close()
    return {
        "answer": result.answer,
        "model_calls": result.model_calls,
        "tool_calls": result.tool_calls,
        "input_tokens": result.usage.input_tokens,
        "cases_shown": result.cases_shown,
        "case_id": next((e["case_id"] for e in dumped(journal, log.run_id) if e["type"] == "case_written"), None),
    }


def dumped(journal: Journal, run_id: str) -> list[dict[str, Any]]:
    return [event.model_dump() for event in journal.events(run_id)]


def forked(folder: Path, kill_at: int | None, *, go_on: bool, repeat: bool = False) -> dict[str, Any] | None:
    """What a sitting in a process of its own came to, or `None` when it was killed."""
    out = folder / "result.json"
    child = os.fork()
    if child == 0:
        try:
            out.write_text(json.dumps(anyio.run(lambda: sit(folder, kill_at, go_on=go_on, repeat=repeat))))
        except BaseException:  # noqa: BLE001 - the edge of the forked process: its failure must be seen
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert os.WEXITSTATUS(status) == 0, f"the sitting in {folder} failed"
    return json.loads(out.read_text(encoding="utf-8"))


def recorded(folder: Path) -> list[str]:
    """The paid calls whose reply is on record, as `key_of` names them."""
    journal = Journal(folder)
    names = {step["id"]: str(step["description"]) for step in [*STEPS, *MORE]}
    planner_turns, keys = 0, list[str]()
    for event in journal.events(journal.find("last")):
        if isinstance(event, ModelCalled):
            planner_turns += event.role == "planner"
            turn = planner_turns if event.role == "planner" else event.turn
            keys.append(" ".join(filter(None, [event.role, names.get(event.subtask_id or ""), str(turn)])))
    return keys


def main(home: Path) -> None:
    logging.disable(logging.INFO)
    whole = home / "whole"
    whole.mkdir()
    reference = forked(whole, None, go_on=False)
    journal = Journal(whole)
    total = len(journal.events(journal.find("last")))
    tell({"reference": reference, "events": total, "paid": noted(whole, "paid")})
    for number in range(1, total + 1):
        folder = home / f"killed-{number}"
        folder.mkdir()
        assert forked(folder, number, go_on=False) is None
        on_record = recorded(folder)
        if number % 3 == 0:  # and once more, soon after it goes on
            forked(folder, number + 4, go_on=True)
            on_record = recorded(folder)
        is_over = any(event["type"] == "run_ended" for event in dumped(Journal(folder), Journal(folder).find("last")))
        result = forked(folder, None, go_on=True, repeat=number % 2 == 0) if not is_over else None
        events = dumped(Journal(folder), Journal(folder).find("last"))
        tell(
            {
                "number": number,
                "result": result,
                "over": is_over,
                "repeat": number % 2 == 0,
                "on_record": on_record,
                "paid": noted(folder, "paid"),
                "written": noted(folder, "written"),
                "kept": noted(folder, "kept"),
                "outcomes": noted(folder, "outcomes"),
                "answered": [event["answer"] for event in events if event["type"] == "answered"],
            }
        )


def tell(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
