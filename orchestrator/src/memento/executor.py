"""The executor: one subtask, a conversation of its own, tools, and an end.

Owns the tool loop of a subtask and its tool memory, which is discarded afterwards (spec/memento.md §2.2). It
sees the question, what is known and its subtask; it never sees the cases (defect 21).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, cast

import anyio

from memento.budget import Budget, BudgetSpent
from memento.events import Emit, ModelCalled, ToolCalled, ToolReturned
from memento.model import Message, Model, Reply, ToolRequest
from memento.plan import Subtask, strip_thinking
from memento.prompts import EXECUTOR, LAST_TURN, empty_reply, executor_task
from memento.results import READ_RESULT, ResultStore
from memento.toolbox import ToolBox, ToolOutcome, ToolSpec, parse_arguments

__all__ = ["Executor", "SubtaskReport"]

_SOURCE_ARGUMENTS = ("source", "url", "path", "file")


@dataclass(frozen=True)
class SubtaskReport:
    """What came of a subtask. A failed one says why in `text`, for the planner."""

    text: str
    failed: bool = False
    tools: list[str] = field(default_factory=list[str])
    """Tools that were called, in order."""
    sources: list[str] = field(default_factory=list[str])
    """Files and addresses that calls which worked were made on."""


@dataclass
class _ToolMemory:
    subtask: Subtask
    cycle: int
    messages: list[Message]
    tools: list[str] = field(default_factory=list[str])
    sources: dict[str, None] = field(default_factory=dict[str, None])

    def report(self, text: str, *, failed: bool = False) -> SubtaskReport:
        return SubtaskReport(text, failed, self.tools, list(self.sources))


@dataclass(frozen=True, kw_only=True)
class Executor:
    model: Model
    toolbox: ToolBox
    specs: list[ToolSpec]
    store: ResultStore
    budget: Budget
    emit: Emit
    max_turns: int

    async def run(
        self,
        *,
        question: str,
        files: Sequence[str],
        folders: Sequence[str],
        known: Sequence[tuple[str, str]],
        subtask: Subtask,
        cycle: int,
        earlier: Sequence[str] = (),
    ) -> SubtaskReport:
        """Do one subtask in at most `max_turns` model turns; the last of them has to answer.

        Raises:
            ModelError: the model cannot be used.
        """
        task = executor_task(question, files, folders, known, subtask.description, earlier)
        memory = _ToolMemory(
            subtask, cycle, [{"role": "system", "content": EXECUTOR}, {"role": "user", "content": task}]
        )
        was_empty = False
        for turn in range(1, self.max_turns + 1):
            last = turn == self.max_turns
            try:
                reply = await self._ask(memory, last=last)
            except BudgetSpent as exc:
                return memory.report(f"stopped: {exc}", failed=True)
            if reply.tool_requests and not last:
                await self._call_tools(memory, reply)
                continue
            text = strip_thinking(reply.text)
            if text:
                return memory.report(text)
            if reply.refusal:
                return memory.report(f"the model refused: {reply.refusal}", failed=True)
            if was_empty:
                break
            was_empty = True
            memory.messages.append({"role": "user", "content": empty_reply()})
        return memory.report("the model gave no result for this subtask", failed=True)

    async def _ask(self, memory: _ToolMemory, *, last: bool) -> Reply:
        self.budget.take_model_call()
        if last and self.max_turns > 1:
            memory.messages.append({"role": "user", "content": LAST_TURN})
        tools = [*(spec.as_function() for spec in self.specs), self.store.tool]
        reply = await self.model.complete(memory.messages, tools=tools, use_tools=not last)
        self.budget.spent(reply.usage)
        memory.messages.append(reply.message)
        self.emit(
            ModelCalled(
                role="executor",
                model=self.model.name,
                seconds=reply.seconds,
                usage=reply.usage,
                cycle=memory.cycle,
                subtask_id=memory.subtask.id,
                finish_reason=reply.finish_reason,
            )
        )
        return reply

    async def _call_tools(self, memory: _ToolMemory, reply: Reply) -> None:
        """Run the calls of one turn at once, and put one tool message per call into the history, in their order.

        Every call gets its message, also one that was not executed: the API refuses a history without it.
        """
        outcomes: dict[int, str] = {}

        async def one(index: int, request: ToolRequest) -> None:
            outcomes[index] = await self._call_tool(memory, request)

        async with anyio.create_task_group() as group:
            for index, request in enumerate(reply.tool_requests):
                group.start_soon(one, index, request)
        for index, request in enumerate(reply.tool_requests):
            memory.messages.append({"role": "tool", "tool_call_id": request.id, "content": outcomes[index]})

    async def _call_tool(self, memory: _ToolMemory, request: ToolRequest) -> str:
        if not self.budget.take_tool_call():
            limit = self.budget.max_tool_calls
            return f"Not executed: the limit of {limit} tool calls for this run is reached. Answer with what you have."
        arguments = parse_arguments(request.arguments)
        number = self.budget.tool_calls
        call_id = f"{memory.cycle}.{memory.subtask.id}.{number}"
        self.emit(
            ToolCalled(
                cycle=memory.cycle,
                subtask_id=memory.subtask.id,
                call_id=call_id,
                tool=request.name,
                arguments=request.arguments if isinstance(arguments, ToolOutcome) else arguments,
            )
        )
        memory.tools.append(request.name)
        started = monotonic()
        if isinstance(arguments, ToolOutcome):
            outcome = arguments
        elif request.name == READ_RESULT:
            outcome = self.store.read(arguments)
        else:
            outcome = await self._call_server_tool(request.name, arguments)
        text, stored_as = outcome.text, None
        if not outcome.is_error and request.name != READ_RESULT:
            text, stored_as = self.store.fit(text, source=request.name, name=f"{number:04}-{request.name}")
            if isinstance(arguments, dict):
                memory.sources.update(dict.fromkeys(_sources(arguments)))
        self.emit(
            ToolReturned(
                cycle=memory.cycle,
                subtask_id=memory.subtask.id,
                call_id=call_id,
                tool=request.name,
                seconds=monotonic() - started,
                is_error=outcome.is_error,
                text=text,
                stored_as=stored_as,
            )
        )
        return f"Error: {text}" if outcome.is_error and not text.startswith("Error") else text

    async def _call_server_tool(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        spec = next((spec for spec in self.specs if spec.name == name), None)
        if spec is None:
            return self.toolbox.unknown_tool(name, [*(spec.name for spec in self.specs), READ_RESULT])
        return await self.toolbox.call(spec, arguments)


def _sources(arguments: dict[str, Any]) -> list[str]:
    found = [cast(object, arguments.get(key)) for key in _SOURCE_ARGUMENTS]
    return [value for value in found if isinstance(value, str) and value]
