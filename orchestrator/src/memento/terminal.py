"""What a person sees while the agent works: a live tree on a terminal, plain lines elsewhere.

Owns drawing, from events alone. Progress goes to stderr, so that stdout holds the answer and nothing else.
"""

import os
from contextlib import AbstractContextManager
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from memento.agent import RunResult
from memento.events import (
    Answered,
    CasesRead,
    CaseWritten,
    ModelCalled,
    OutcomeRecorded,
    PlanMade,
    Record,
    RunEnded,
    RunStarted,
    ServerStateChanged,
    SubtaskDone,
    SubtaskStarted,
    ToolCalled,
    ToolReturned,
    Usage,
    Warned,
)
from memento.prices import price_source

__all__ = ["RunView", "cost_text", "event_line", "print_result"]

_MAX_LINE_CHARS = 110
_MAX_ERROR_CHARS = 300
_MARKS = {"done": "✓", "failed": "✗", "skipped": "–", "running": "▸", "waiting": "·"}
_STYLES = {"done": "green", "failed": "red", "skipped": "dim", "running": "cyan", "waiting": "dim"}


class RunView(AbstractContextManager["RunView"]):
    """Give `watch` every record of a run. On a terminal it redraws one picture, elsewhere it prints lines."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._cases = ""
        self._cycle = 0
        self._subtasks: dict[str, tuple[str, str, str]] = {}
        """Subtask id to (state, description, what it does or came to)."""
        self._in_flight: dict[str, tuple[str, float]] = {}
        self._counts = {"model calls": 0, "tool calls": 0, "tokens": 0}
        self._warnings: list[str] = []
        self._started = monotonic()
        self._has_begun = False
        self._live = Live(get_renderable=self._draw, console=console, transient=True, refresh_per_second=8)

    def __enter__(self) -> "RunView":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_live:
            self._live.stop()

    @property
    def _is_live(self) -> bool:
        return self._console.is_terminal and not self._quiet

    def server_changed(self, event: ServerStateChanged) -> None:
        """Servers start before the run does, so this comes as an event without a record."""
        self._show_line(event_line(event))

    def watch(self, record: Record) -> None:
        event = record.event
        self._has_begun = True
        match event:
            case CasesRead() if event.subtask_id is None:
                self._cases = event_line(event) or ""
            case PlanMade():
                self._cycle = event.cycle
                self._subtasks = {task.id: ("waiting", task.description, "") for task in event.plan.subtasks}
            case SubtaskStarted():
                self._set(event.subtask_id, "running", "")
            case ToolCalled():
                self._counts["tool calls"] += 1
                self._in_flight[event.call_id] = (event.tool, monotonic())
                self._set(event.subtask_id, "running", f"{event.tool} {_shown(event.arguments)}")
            case ToolReturned():
                self._in_flight.pop(event.call_id, None)
            case SubtaskDone():
                self._set(event.subtask_id, event.status, event.result)
            case ModelCalled():
                self._counts["model calls"] += 1
                self._counts["tokens"] += (event.usage.input_tokens or 0) + (event.usage.output_tokens or 0)
            case Warned():
                self._warnings.append(event.text)
            case _:
                pass
        self._show_line(event_line(event))

    def _set(self, subtask_id: str, state: str, text: str) -> None:
        description = self._subtasks.get(subtask_id, ("", "", ""))[1]
        self._subtasks[subtask_id] = (state, description, text)

    def _show_line(self, line: str | None) -> None:
        if line and not self._quiet and not self._is_live:
            self._console.print(escape(line), highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = []
        if not self._has_begun:
            return Text(f"starting the tool servers, {monotonic() - self._started:.0f} s", style="dim")
        if self._cases:
            parts.append(_one_line(self._cases, "magenta"))
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for subtask_id, (state, description, text) in self._subtasks.items():
            mark = Text(_MARKS[state], style=_STYLES[state])
            table.add_row(mark, Text(f"{self._cycle}.{subtask_id}"), Text(_folded(description)), Text(_folded(text)))
        parts.append(table)
        for tool, since in self._in_flight.values():
            parts.append(Text(f"  waiting for {tool}, {monotonic() - since:.0f} s", style="yellow"))
        for warning in self._warnings[-2:]:
            parts.append(_one_line(f"! {warning}", "yellow"))
        counts = "  ".join(f"{name} {count:,}" for name, count in self._counts.items())
        parts.append(Text(f"{counts}  {monotonic() - self._started:.0f} s", style="dim"))
        return Group(*parts)


def event_line(event: object) -> str | None:  # noqa: C901 - one flat case per kind of event
    """One plain line for an event, or `None` when it is of no interest by itself."""
    match event:
        case ServerStateChanged() if event.state != "ready":
            return f"server {event.server}: {event.state}" + (f" ({event.detail})" if event.detail else "")
        case RunStarted():
            return _cut(f"question: {event.question}")
        case CasesRead():
            return _cases_line(event)
        case PlanMade():
            steps = [_cut(f"  {event.cycle}.{task.id} {task.description}") for task in event.plan.subtasks]
            return "\n".join([f"plan {event.cycle}:", *steps])
        case ToolCalled():
            return _cut(f"  {event.cycle}.{event.subtask_id} → {event.tool} {_shown(event.arguments)}")
        case ToolReturned() if event.is_error:
            return _cut(f"  {event.cycle}.{event.subtask_id} ← error: {event.text}", _MAX_ERROR_CHARS)
        case SubtaskDone():
            return _cut(f"  {event.cycle}.{event.subtask_id} {_MARKS[event.status]} {event.result}")
        case Warned():
            return f"! {event.text}"
        case CaseWritten() if event.case_id:
            return f"memory: kept as case {event.case_id}"
        case Answered():
            return _cut(f"answer: {event.answer}" if event.answer is not None else f"no answer: {event.reason}")
        case OutcomeRecorded():
            return f"outcome: {'unknown' if event.reward is None else f'{event.reward:g}'} ({event.kind})"
        case RunEnded() if event.detail:
            return f"ended: {event.status}: {event.detail}"
        case _:
            return None


def _cases_line(event: CasesRead) -> str:
    if event.state == "off":
        return "memory: off"
    if event.state == "unavailable":
        return f"memory: not available ({event.detail})"
    if not event.cases:
        return "memory: no case shown"
    shown = ", ".join(f"{case.case_id[-6:]} {_OUTCOMES[_outcome(case.reward)]}" for case in event.cases)
    return f"memory: {len(event.cases)} cases shown ({shown})"


_OUTCOMES = {"success": "won", "failure": "lost", "unknown": "?"}


def _outcome(reward: float | None) -> str:
    return "unknown" if reward is None else "success" if reward >= 0.5 else "failure"


def print_result(console: Console, result: RunResult) -> None:
    """The answer and what it rests on."""
    if result.answer is None:
        console.print(Text(f"No answer: {result.reason}", style="bold red"))
    else:
        console.print(Text(result.answer, style="bold"))
        if result.reason:
            console.print(Text(f"(best answer so far: {result.reason})", style="yellow"))
    rows = [
        ("sources", ", ".join(map(_place, result.sources)) or "none"),
        ("cases", f"{len(result.cases_shown)} shown, {len(result.cases_used)} used"),
        ("cost", f"{cost_text(result.usage)}, {result.model_calls} model calls, {result.tool_calls} tool calls"),
        ("run", f"{result.run_id}   (memento feedback {result.run_id} good|bad)"),
    ]
    for name, text in rows:
        console.print(Text(f"{name:<8}", style="dim") + Text(text), soft_wrap=True)


def cost_text(usage: Usage) -> str:
    """Money and tokens in words; what is not known says so."""
    money = "cost unknown" if usage.cost_usd is None else f"${usage.cost_usd:.4f}"
    if usage.cost_usd:
        money += f" by {price_source()}"
    if usage.input_tokens is None or usage.output_tokens is None:
        return f"{money} (tokens unknown)"
    return f"{money} ({usage.input_tokens:,} + {usage.output_tokens:,} tokens)"


def _shown(arguments: dict[str, Any] | str) -> str:
    if isinstance(arguments, str):
        return arguments
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def _one_line(text: str, style: str) -> Text:
    return Text(_folded(text), style=style, no_wrap=True, overflow="ellipsis")


def _folded(text: str) -> str:
    return " ".join(text.split())


def _place(source: str) -> str:
    """A source as a person would write it: relative to where they are, when it lies below."""
    return source.removeprefix(f"{Path.cwd()}{os.sep}")


def _cut(text: str, limit: int = _MAX_LINE_CHARS) -> str:
    line = " ".join(text.split()) if not text.startswith(" ") else "  " + " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
