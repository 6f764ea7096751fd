"""A model endpoint that answers from a script, behind the real openai client; and an agent on top of it."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from mcp.server import MCPServer
from openai import AsyncOpenAI

from memento.agent import Agent, RunResult
from memento.events import Event
from memento.journal import Journal
from memento.memory import CaseMemory
from memento.model import Model
from memento.settings import Settings
from memento.toolbox import ToolLimits, open_toolbox

Answer = dict[str, Any] | httpx2.Response
"""A message to wrap up as a completion, or a whole HTTP response."""


@dataclass
class ScriptedModel:
    """Answers requests in turn; `sent` holds the request bodies. When the script is over, `forever` goes on."""

    script: list[Answer | Callable[[dict[str, Any]], Answer]]
    forever: Answer | None = None
    sent: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    finish_reason: str = "stop"
    usage: dict[str, int] | None = None

    def client(self) -> AsyncOpenAI:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self._handle))
        return AsyncOpenAI(api_key="k", base_url="http://model.test/v1", http_client=http, max_retries=0)

    def _handle(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        self.sent.append(body)
        answer = self.script.pop(0) if self.script else self.forever
        assert answer is not None, "the script is over"
        if callable(answer):
            answer = answer(body)
        return answer if isinstance(answer, httpx2.Response) else completion(answer, self.usage)


def completion(message: dict[str, Any], usage: dict[str, int] | None = None) -> httpx2.Response:
    """A message as a chat completion over HTTP."""
    full = {"role": "assistant", "content": None} | message
    reason = "tool_calls" if full.get("tool_calls") else "stop"
    choice = {"index": 0, "finish_reason": reason, "message": full}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return httpx2.Response(200, json=body | ({"usage": usage} if usage else {}))


def plans(*descriptions: str, **more: Any) -> dict[str, Any]:
    """A planner's message: independent subtasks, numbered from 1."""
    steps: list[dict[str, Any]] = [{"id": str(n), "description": text} for n, text in enumerate(descriptions, 1)]
    return {"content": json.dumps({"plan": steps, **more})}


def answers(text: str, **more: Any) -> dict[str, Any]:
    """A planner's final answer."""
    return {"content": json.dumps({"final_answer": text, **more})}


def says(text: str) -> dict[str, Any]:
    return {"content": text}


def calls(*requests: tuple[str, Any], content: str | None = None) -> dict[str, Any]:
    """An executor's message with tool calls: (name, arguments as a dict or as raw text) each."""
    return {
        "content": content,
        "tool_calls": [
            {
                "id": f"call_{n}",
                "type": "function",
                "function": {"name": name, "arguments": args if isinstance(args, str) else json.dumps(args)},
            }
            for n, (name, args) in enumerate(requests)
        ],
    }


@dataclass
class Scene:
    """What a test of the agent looks at."""

    agent: Agent
    journal: Journal
    model: ScriptedModel
    events: list[Event] = field(default_factory=list[Event])

    async def run(self, question: str = "What is it?", **more: Any) -> RunResult:
        log = self.journal.new_run()
        try:
            return await self.agent.run(
                question, log=log, emit=lambda event: (log.append(event), self.events.append(event))[1], **more
            )
        finally:
            log.close()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def scene(
    home: Path,
    script: list[Any],
    *,
    servers: dict[str, Any] | None = None,
    forever: Answer | None = None,
    limits: ToolLimits | None = None,
    usage: dict[str, int] | None = None,
    with_judge: bool = False,
    **settings: Any,
) -> AsyncGenerator[Scene]:
    """An agent with a scripted model and in-memory servers; memory is off unless a casebank server is given."""
    servers = {"calc": calculator()} if servers is None else servers
    chosen = Settings(home=home, memory="on" if "casebank" in servers else "off", **settings)
    model = ScriptedModel(script, forever, usage=usage)
    async with model.client() as client, open_toolbox(servers, limits=limits) as toolbox:
        memory = CaseMemory(toolbox=toolbox, mode=chosen.memory, outbox=home / "outbox")
        agent = Agent(
            planner=Model(client, "planner"),
            executor=Model(client, "executor"),
            toolbox=toolbox,
            memory=memory,
            settings=chosen,
            judge=Model(client, "judge") if with_judge else None,
        )
        yield Scene(agent, Journal(home), model)


def calculator() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("calc")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def shout(text: str) -> str:
        """Return the text in capitals."""
        return text.upper()

    return server
