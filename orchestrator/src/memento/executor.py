"""The executor: one subtask, a conversation of its own, tools, and an end.

Owns the tool loop of a subtask and its tool memory, which is discarded afterwards (spec/memento.md §2.2). It
sees the question, what is known and its subtask; it never sees the cases (defect 21).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, cast

import anyio
import anyio.to_thread

from memento.arguments import BadArguments, read_arguments
from memento.budget import BudgetSpent
from memento.context import trimmed
from memento.dialects import strip_thinking
from memento.events import Nudged, StoredFile, ToolCalled, ToolReturned
from memento.guards import CallSeen, LoopGuard
from memento.model import Message, Model, Reply, ToolRequest
from memento.outcomes import ToolOutcome, links_to
from memento.plan import Subtask
from memento.prompts import (
    EXECUTOR,
    LAST_TURN,
    cut_reply,
    empty_reply,
    executor_task,
    loop_nudge,
    nearly_spent,
    refusal_nudge,
)
from memento.record import RunRecord
from memento.results import READ_RESULT, Given, ResultStore
from memento.tool_cache import ToolCache
from memento.toolbox import ToolBox, ToolSpec
from memento_kit import unfence

__all__ = ["Executor", "MayRepeat", "SubtaskReport", "never_repeat"]

_SOURCE_ARGUMENTS = ("source", "url", "path", "file")
_SHOWN_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_MAX_SHOWN_BYTES = 3_500_000
"""Of an image: the strictest provider takes 5 MB of base64. A larger one is stored and named like any file."""
_MAX_SHOWN_IMAGES = 8
"""Of one turn."""
_MAX_COMPARED_CHARS = 1_000
"""Of a result, when two are compared: what is cut further on names the call it came from."""

MayRepeat = Callable[[ToolCalled], Awaitable[bool]]
"""Asks whether a call with side effects, which was under way when the run was interrupted, may be sent again."""


async def never_repeat(call: ToolCalled) -> bool:
    return False


@dataclass(frozen=True)
class SubtaskReport:
    """What came of a subtask. A failed one says why in `text`, for the planner."""

    text: str
    failed: bool = False
    tools: list[str] = field(default_factory=list[str])
    """Tools that were called, in order."""
    sources: list[str] = field(default_factory=list[str])
    """Files and addresses that calls which worked were made on."""
    lesson: str | None = None
    """What a guard or a limit had to stop."""


@dataclass
class _ToolMemory:
    subtask: Subtask
    cycle: int
    messages: list[Message]
    guard: LoopGuard
    specs: list[ToolSpec]
    """The tools on offer, the same for the whole subtask: a provider's prompt cache depends on it."""
    turn: int = 0
    tools: list[str] = field(default_factory=list[str])
    sources: dict[str, None] = field(default_factory=dict[str, None])
    is_warned: bool = False

    def report(self, text: str, *, failed: bool = False, lesson: str | None = None) -> SubtaskReport:
        return SubtaskReport(text, failed, self.tools, list(self.sources), lesson)

    def say(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})


@dataclass(frozen=True, kw_only=True)
class Executor:
    model: Model
    toolbox: ToolBox
    hidden_servers: frozenset[str]
    store: ResultStore
    cache: ToolCache | None
    record: RunRecord
    max_turns: int
    max_stale_turns: int
    max_context_chars: int
    accepts_images: bool = False
    """The model takes images: those of a tool's result are shown to it."""
    may_repeat: MayRepeat = never_repeat

    @property
    def specs(self) -> list[ToolSpec]:
        """The tools that are on offer now."""
        return self.toolbox.specs(hidden_servers=self.hidden_servers)

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
        messages: list[Message] = [{"role": "system", "content": EXECUTOR}, {"role": "user", "content": task}]
        memory = _ToolMemory(subtask, cycle, messages, LoopGuard(self.max_stale_turns), self.specs)
        try:
            return await self._turns(memory)
        except BudgetSpent as exc:
            return memory.report(f"stopped: {exc}", failed=True, lesson=f"stopped because {exc}")

    async def _turns(self, memory: _ToolMemory) -> SubtaskReport:
        said_nothing = False
        while memory.turn < self.max_turns:
            memory.turn += 1
            last = memory.turn == self.max_turns
            reply = await self._ask(memory, last=last)
            if reply.tool_requests and not last:
                stopped = await self._call_tools(memory, reply)
                if stopped is not None:
                    return stopped
                continue
            text = strip_thinking(reply.text)
            is_cut = reply.finish_reason == "length" and not last and not said_nothing
            if text and not reply.refusal and not is_cut:
                return memory.report(text)
            if said_nothing:
                if reply.refusal:
                    return memory.report(f"the model refused: {reply.refusal}", failed=True, lesson="the model refused")
                break
            said_nothing = True
            memory.say(refusal_nudge() if reply.refusal else cut_reply() if is_cut else empty_reply())
            if reply.refusal:
                self._nudged(memory, f"refused: {reply.refusal}")
        return memory.report("the model gave no result for this subtask", failed=True, lesson="no result was given")

    async def _ask(self, memory: _ToolMemory, *, last: bool) -> Reply:
        if last and self.max_turns > 1:
            memory.say(LAST_TURN)
        elif not memory.is_warned:
            left = self.record.budget.nearly_spent()
            turns_left = self.max_turns - memory.turn + 1
            if turns_left == 3 and self.max_turns > 3:
                left.append(f"{turns_left} turns of {self.max_turns}")
            if left:
                memory.is_warned = True
                memory.say(nearly_spent(left))
        self._trim(memory)
        tools = [*(spec.as_function() for spec in memory.specs), self.store.tool]
        reply = await self.record.ask(
            self.model,
            memory.messages,
            role="executor",
            cycle=memory.cycle,
            subtask_id=memory.subtask.id,
            turn=memory.turn,
            tools=tools,
            use_tools=not last,
        )
        memory.messages.append(reply.message)
        return reply

    def _trim(self, memory: _ToolMemory) -> None:
        memory.messages[:] = trimmed(
            memory.messages,
            high_chars=self.max_context_chars,
            low_chars=self.max_context_chars // 2,
            put_away=self.store.put_away,
        )

    async def _call_tools(self, memory: _ToolMemory, reply: Reply) -> SubtaskReport | None:
        """Run the calls of one turn at once, and put one tool message per call into the history, in their order.

        Every call gets its message, also one that was not executed: the API refuses a history without it.
        Returns the end of the subtask when the guard says that it goes in circles.
        """
        seen: dict[int, CallSeen] = {}
        images: dict[int, list[StoredFile]] = {}

        async def one(index: int, request: ToolRequest) -> None:
            seen[index], files = await self._call_tool(memory, index, request)
            images[index] = [
                file for file in files if file.mime_type in _SHOWN_IMAGES and file.size_bytes <= _MAX_SHOWN_BYTES
            ]

        async with anyio.create_task_group() as group:
            for index, request in enumerate(reply.tool_requests):
                group.start_soon(one, index, request)
        for index, request in enumerate(reply.tool_requests):
            memory.messages.append({"role": "tool", "tool_call_id": request.id, "content": _told(seen[index])})
        shown = [file for _, files in sorted(images.items()) for file in files][:_MAX_SHOWN_IMAGES]
        if shown and self.accepts_images:
            memory.messages.append({"role": "user", "content": await self._image_parts(shown)})
        verdict = memory.guard.turn(
            [
                CallSeen(call.tool, call.arguments, unfence(call.result)[:_MAX_COMPARED_CHARS], call.is_error)
                for _, call in sorted(seen.items())
            ]
        )
        if verdict.action == "nudge":
            self._nudged(memory, verdict.reason)
            memory.say(loop_nudge(verdict.reason))
        if verdict.action == "stop":
            text = f"stopped, because it went in circles: it {verdict.reason}"
            return memory.report(text, failed=True, lesson=f"went in circles: {verdict.reason}")
        return None

    async def _image_parts(self, files: Sequence[StoredFile]) -> list[dict[str, Any]]:
        """Images as a model is shown them: in a message of their own, for a tool's message holds text alone."""
        parts: list[dict[str, Any]] = []
        for file in files:
            url = await anyio.to_thread.run_sync(self.store.data_url, file)
            parts += [{"type": "text", "text": f"{file.name}:"}, {"type": "image_url", "image_url": {"url": url}}]
        return parts

    def _nudged(self, memory: _ToolMemory, reason: str) -> None:
        self.record.emit(Nudged(cycle=memory.cycle, subtask_id=memory.subtask.id, reason=reason))

    async def _call_tool(
        self, memory: _ToolMemory, index: int, request: ToolRequest
    ) -> tuple[CallSeen, list[StoredFile]]:
        arguments = self._read_arguments(memory, request)
        written = request.arguments if isinstance(arguments, ToolOutcome) else arguments
        call_id = f"{memory.cycle}.{memory.subtask.id}.{memory.turn}.{index}"
        was_sent = self.record.tool_called(call_id) is not None
        if not was_sent:
            try:
                self.record.budget.take_tool_call()
            except BudgetSpent as exc:
                told = f"Not executed: {exc}. Answer with what you have."
                return CallSeen(request.name, written, told, is_error=True), []
        memory.tools.append(request.name)
        called = ToolCalled(
            cycle=memory.cycle, subtask_id=memory.subtask.id, call_id=call_id, tool=request.name, arguments=written
        )
        self.record.emit(called)
        returned = self.record.tool_returned(call_id)
        if returned is None:
            await self.record.go_live()
            started = monotonic()
            if isinstance(arguments, ToolOutcome):
                outcome = arguments
            elif request.name == READ_RESULT:
                outcome = await self._read_stored(arguments)
            else:
                outcome = await self._call_server_tool(memory, called, arguments, was_sent=was_sent)
            if outcome.cached:
                self.record.budget.give_back_tool_call()
            given = Given(outcome.text)
            if not outcome.is_error and (request.name != READ_RESULT or outcome.files):
                give = partial(self.store.give, outcome, source=request.name, name=f"{call_id}-{request.name}")
                given = await anyio.to_thread.run_sync(give)
            returned = ToolReturned(
                cycle=memory.cycle,
                subtask_id=memory.subtask.id,
                call_id=call_id,
                tool=request.name,
                seconds=monotonic() - started,
                is_error=outcome.is_error,
                text=given.text,
                stored_as=given.stored_as,
                files=list(given.files),
                cached=outcome.cached,
                cost_usd=outcome.cost_usd,
                models=list(outcome.models),
            )
            self.record.emit(returned)
        if not returned.is_error and request.name != READ_RESULT and isinstance(arguments, dict):
            memory.sources.update(dict.fromkeys(_sources(arguments)))
        return CallSeen(request.name, written, returned.text, returned.is_error), returned.files

    def _read_arguments(self, memory: _ToolMemory, request: ToolRequest) -> dict[str, Any] | ToolOutcome:
        """The arguments as they will be sent; where they cannot be, what the model is told instead of a result."""
        schemas: dict[str, dict[str, Any]] = {spec.name: spec.input_schema for spec in memory.specs}
        schemas[READ_RESULT] = self.store.tool["function"].get("parameters", {})
        try:
            return read_arguments(request.arguments, schemas.get(request.name, {}), tool=request.name)
        except BadArguments as exc:
            return ToolOutcome(str(exc), is_error=True)

    async def _read_stored(self, arguments: dict[str, Any]) -> ToolOutcome:
        """Answer a call of `READ_RESULT`; a resource that a server linked to is fetched at the first one."""
        uri = arguments.get("result")
        if not isinstance(uri, str) or "://" not in uri:
            return await anyio.to_thread.run_sync(self.store.read, arguments)
        stored = self.store.resource(uri)
        if stored is None:
            server = self._server_that_linked(uri)
            if server is None:
                return ToolOutcome(f"No tool of this run has linked to {uri}.", is_error=True)
            fetched = await self.toolbox.read_resource(server, uri)
            if fetched.is_error or fetched.files:
                return fetched
            stored = await anyio.to_thread.run_sync(self.store.keep_resource, uri, fetched.text)
        return await anyio.to_thread.run_sync(self.store.read, {**arguments, "result": stored})

    def _server_that_linked(self, uri: str) -> str | None:
        """Only what a server itself has linked to in this run is asked of it."""
        servers = {spec.name: spec.server for spec in self.specs}
        for event in self.record.events:
            if isinstance(event, ToolReturned) and event.tool in servers and links_to(event.text, uri):
                return servers[event.tool]
        return None

    async def _call_server_tool(
        self, memory: _ToolMemory, called: ToolCalled, arguments: dict[str, Any], *, was_sent: bool
    ) -> ToolOutcome:
        spec = next((spec for spec in memory.specs if spec.name == called.tool), None)
        if spec is None:
            return self.toolbox.unknown_tool(called.tool, [*(spec.name for spec in memory.specs), READ_RESULT])
        if was_sent and not spec.may_repeat and not await self.may_repeat(called):
            return ToolOutcome(
                "The run was interrupted during this call, and it was not sent again. Whether it took effect is not "
                "known: find that out before you call it once more.",
                is_error=True,
            )
        send = partial(self.toolbox.call, spec, arguments)
        return await (send() if self.cache is None else self.cache.call(spec, arguments, send))


def _told(call: CallSeen) -> str:
    is_marked = call.result.startswith(("Error", "Not executed"))
    return f"Error: {call.result}" if call.is_error and not is_marked else call.result


def _sources(arguments: dict[str, Any]) -> list[str]:
    found = [cast(object, arguments.get(key)) for key in _SOURCE_ARGUMENTS]
    return [value for value in found if isinstance(value, str) and value]
