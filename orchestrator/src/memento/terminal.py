"""What a person sees while the agent works: a live tree on a terminal, plain lines elsewhere.

Owns drawing, from events alone. Progress goes to stderr, so that stdout holds the answer and nothing else.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from memento.agent import RunResult
from memento.estimate import Estimate
from memento.events import (
    Answered,
    CasesRead,
    CaseWritten,
    Nudged,
    OutcomeRecorded,
    PlanMade,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
    ServerStateChanged,
    SubtaskDone,
    ToolCalled,
    ToolReturned,
    Usage,
    Warned,
)
from memento.picture import MARKS, RunPicture, case_word
from memento.prices import price_source

__all__ = ["RunView", "cost_text", "estimate_lines", "event_line", "print_result"]

_MAX_LINE_CHARS = 110
_MAX_ERROR_CHARS = 300


class RunView(AbstractContextManager["RunView"]):
    """Give `watch` every record of a run. On a terminal it redraws one picture, elsewhere it prints lines."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._picture = RunPicture()
        self._opened = monotonic()
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

    @contextmanager
    def paused(self) -> Generator[None]:
        """Leave the terminal to a question for as long as the block lasts."""
        if self._is_live:
            self._live.stop()
        try:
            yield
        finally:
            if self._is_live:
                self._live.start()

    @property
    def _is_live(self) -> bool:
        return self._console.is_terminal and not self._quiet

    def server_changed(self, event: ServerStateChanged) -> None:
        """Servers start before the run does, so this comes as an event without a record."""
        self._show_line(event_line(event))

    def recall(self, records: Sequence[Record]) -> None:
        """Take in the earlier sittings of a run that goes on."""
        for record in records:
            self._picture.add(record)

    def watch(self, record: Record) -> None:
        self._has_begun = True
        self._picture.add(record)
        self._show_line(event_line(record.event))

    def _show_line(self, line: str | None) -> None:
        if line and not self._quiet and not self._is_live:
            self._console.print(escape(line), highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        if not self._has_begun:
            return Text(f"starting the tool servers, {monotonic() - self._opened:.0f} s", style="dim")
        size = self._console.size
        return Group(*self._picture.lines(width=size.width, height=max(3, size.height - 1)))


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
        case ToolReturned() if event.cached:
            return _cut(f"  {event.cycle}.{event.subtask_id} ← {event.tool} (cached)")
        case SubtaskDone():
            return _cut(f"  {event.cycle}.{event.subtask_id} {MARKS[event.status]} {event.result}")
        case RunResumed():
            return f"going on, after {event.elapsed_seconds:.0f} s of work"
        case Nudged():
            where = "the planner" if event.subtask_id is None else f"{event.cycle}.{event.subtask_id}"
            return _cut(f"  {where} was nudged: it {event.reason}")
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
    return f"memory: {len(event.cases)} cases shown ({'; '.join(map(case_word, event.cases))})"


def print_result(console: Console, result: RunResult) -> None:
    """The answer and what it rests on."""
    if result.answer is None:
        console.print(Text(f"No answer: {result.reason}", style="bold red"))
    else:
        console.print(Text(result.answer, style="bold"))
        if result.reason:
            console.print(Text(f"(best answer so far: {result.reason})", style="yellow"))
    can_go_on = result.status == "failed"
    then = f"resume {result.run_id}" if can_go_on else f"feedback {result.run_id} good|bad"
    rows = [
        ("sources", ", ".join(map(_place, result.sources)) or "none"),
        ("cases", f"{len(result.cases_shown)} shown, {len(result.cases_used)} used"),
        ("cost", f"{cost_text(result.usage)}, {result.model_calls} model calls, {result.tool_calls} tool calls"),
        ("run", f"{result.run_id}   (memento {then})"),
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
    about = "about " if usage.is_estimated else ""
    return f"{money} ({about}{usage.input_tokens:,} + {usage.output_tokens:,} tokens)"


def estimate_lines(found: Estimate) -> list[str]:
    """An estimate in words."""

    def money(cost: float | None) -> str:
        return "cost unknown" if cost is None else f"${cost:.4f}"

    lines = [f"at least   {found.least_tokens:,} tokens, {money(found.least_cost_usd)}: one plan and one answer"]
    if found.likely_tokens is None:
        lines.append(f"probably   not known: {found.runs} runs of these models are kept, and three are needed")
    else:
        low, middle, high = found.likely_tokens
        costs = found.likely_cost_usd
        price = "cost unknown" if costs is None else f"${costs[0]:.4f} to ${costs[2]:.4f}"
        lines.append(f"probably   {low:,} to {high:,} tokens (half under {middle:,}), {price}, by {found.runs} runs")
    most = "no limit on tokens" if found.most_tokens is None else f"{found.most_tokens:,} tokens"
    limit = "no limit on money" if found.most_cost_usd is None else f"${found.most_cost_usd:.2f}"
    return [*lines, f"at most    {most}, {limit}"]


def _shown(arguments: dict[str, Any] | str) -> str:
    if isinstance(arguments, str):
        return arguments
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def _place(source: str) -> str:
    """A source as a person would write it: relative to where they are, when it lies below."""
    return source.removeprefix(f"{Path.cwd()}{os.sep}")


def _cut(text: str, limit: int = _MAX_LINE_CHARS) -> str:
    line = " ".join(text.split()) if not text.startswith(" ") else "  " + " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
