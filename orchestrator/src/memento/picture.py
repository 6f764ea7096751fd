"""A run as one picture of lines, made from its records alone: plan, what is waited for, cases, what is left.

Owns the layout and nothing of the terminal: `lines` is a pure function of the records, the time and the room there
is. Whoever shows it decides how often.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from memento.events import (
    CaseShown,
    CasesRead,
    CaseWritten,
    ModelCalled,
    PlanMade,
    Record,
    RunResumed,
    RunStarted,
    SubtaskDone,
    SubtaskStarted,
    ToolCalled,
    ToolReturned,
    Usage,
    Warned,
)
from memento.plan import Subtask

__all__ = ["MARKS", "RunPicture", "case_word"]

MARKS = {"done": "✓", "failed": "✗", "skipped": "–", "running": "▸", "waiting": "·"}
_STYLES = {"done": "green", "failed": "red", "skipped": "dim", "running": "cyan", "waiting": "dim"}
_LABEL_CELLS = 8
_BAR_CELLS = 5
_MAX_WARNINGS = 2


def case_word(case: CaseShown) -> str:
    """A shown case in a few words: one that failed is shown so that its way is avoided."""
    outcome = "unknown" if case.reward is None else "won" if case.reward >= 0.5 else "lost, avoid"
    return f"{case.case_id[-6:]} {outcome}"


@dataclass
class _Node:
    subtask: Subtask
    state: str = "waiting"
    result: str = ""
    since: datetime | None = None
    calls: int = 0
    in_flight: dict[str, tuple[str, datetime]] = field(default_factory=dict[str, tuple[str, datetime]])
    """Call id to tool and start."""


@dataclass
class RunPicture:
    """Give `add` every record; `lines` draws what they come to."""

    question: str = ""
    cases: list[CaseShown] = field(default_factory=list[CaseShown])
    memory: str = ""
    cited: set[str] = field(default_factory=set[str])
    cycle: int = 0
    nodes: dict[str, _Node] = field(default_factory=dict[str, _Node])
    warnings: list[str] = field(default_factory=list[str])
    limits: dict[str, Any] = field(default_factory=dict[str, Any])
    model_calls: int = 0
    tool_calls: int = 0
    tokens: int = 0
    cost_usd: float | None = 0.0
    began: datetime | None = None
    elapsed_before: float = 0.0
    """Seconds of earlier sittings."""

    def add(self, record: Record) -> None:  # noqa: C901 - one flat case per kind of event
        """Take in one record; records come in their order."""
        event, time = record.event, record.time
        match event:
            case RunStarted():
                self.question, self.limits, self.began = event.question, event.limits, time
            case RunResumed():
                self.began, self.elapsed_before = time, event.elapsed_seconds
                for node in self.nodes.values():
                    node.in_flight.clear()
            case CasesRead():
                self._spend([use.usage for use in event.models])
                if event.subtask_id is None:
                    self.cases, self.memory = event.cases, event.state
            case CaseWritten():
                self._spend([use.usage for use in event.models])
            case PlanMade():
                self.cycle, self.nodes = event.cycle, {task.id: _Node(task) for task in event.plan.subtasks}
                self.cited.update(event.plan.cases_used)
            case SubtaskStarted() if event.subtask_id in self.nodes:
                node = self.nodes[event.subtask_id]
                node.state, node.since = "running", time
            case SubtaskDone() if event.subtask_id in self.nodes:
                node = self.nodes[event.subtask_id]
                node.state, node.result = event.status, event.result
                node.in_flight.clear()
            case ToolCalled():
                self.tool_calls += 1
                if event.subtask_id in self.nodes:
                    node = self.nodes[event.subtask_id]
                    node.calls += 1
                    node.in_flight[event.call_id] = (event.tool, time)
            case ToolReturned():
                self.tool_calls -= event.cached  # a kept answer is no execution
                self._spend([use.usage for use in event.models])
                if self.cost_usd is not None:
                    self.cost_usd += event.cost_usd
                if event.subtask_id in self.nodes:
                    self.nodes[event.subtask_id].in_flight.pop(event.call_id, None)
            case ModelCalled():
                self.model_calls += 1
                self._spend([event.usage])
            case Warned():
                self.warnings.append(event.text)
            case _:
                pass

    def _spend(self, usages: Sequence[Usage]) -> None:
        for usage in usages:
            self.tokens += (usage.input_tokens or 0) + (usage.output_tokens or 0)
            cost = usage.cost_usd
            self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost

    def lines(self, *, now: datetime | None = None, width: int = 80, height: int = 24) -> list[Text]:
        """The picture in at most `height` lines of `width` cells. What does not fit is folded away, oldest first."""
        now = now or datetime.now(UTC)
        head = [self._memory_line(width)] if self.memory else []
        foot = [_fitted(f"! {_folded(text)}", width, "yellow") for text in self.warnings[-_MAX_WARNINGS:]]
        foot.append(self._budget_line(now, width))
        room = max(1, height - len(head) - len(foot))
        return [*head, *self._plan_lines(now, width, room), *foot][-height:]

    def _memory_line(self, width: int) -> Text:
        if not self.cases:
            said = {"off": "off", "unavailable": "not available"}.get(self.memory, "no case shown")
        else:
            said = f"{len(self.cases)} shown  " + "  ".join(
                case_word(case) + (" (used)" if case.case_id in self.cited else "") for case in self.cases
            )
        return _labelled("memory", Text(said, style="magenta"), width)

    def _plan_lines(self, now: datetime, width: int, room: int) -> list[Text]:
        if not self.nodes:
            return [_labelled("plan", Text("the planner is thinking", style="dim"), width)]
        nodes = list(self.nodes.values())
        folded = 0
        if len(nodes) > room:
            ended = [node for node in nodes if node.state in {"done", "skipped"}]
            folded = min(len(ended), len(nodes) - room + 1)
            for node in ended[:folded]:
                nodes.remove(node)
        lines = [self._node_line(node, now, width - _LABEL_CELLS) for node in nodes]
        if folded:
            lines.insert(0, Text(f"… {folded} done before", style="dim"))
        more = len(lines) - room
        if more > 0:
            lines = [*lines[: room - 1], Text(f"… {more + 1} more", style="dim")]
        label = f"plan {self.cycle}"
        return [_labelled(label if number == 0 else "", line, width) for number, line in enumerate(lines)]

    def _node_line(self, node: _Node, now: datetime, width: int) -> Text:
        needs = [*node.subtask.builds_on, *node.subtask.depends_on]
        after = f" (after {', '.join(needs)})" if needs else ""
        description = f"{node.subtask.id} {_folded(node.subtask.description)}{after}"
        left = max(12, width // 2 - 2)
        line = Text(f"{MARKS[node.state]} ", style=_STYLES[node.state])
        line.append(_cells(description, left), style="dim" if node.state == "waiting" else "")
        line.append("  ")
        line.append(_cut(self._doing(node, now), max(0, width - left - 4)), style="dim")
        return line

    def _doing(self, node: _Node, now: datetime) -> str:
        if node.in_flight:
            tool, since = next(iter(node.in_flight.values()))
            more = f" and {len(node.in_flight) - 1} more" if len(node.in_flight) > 1 else ""
            return f"waiting for {tool}{more}, {_seconds(since, now)} s"
        if node.state == "running":
            return f"thinking, {_seconds(node.since or now, now)} s, {node.calls} calls"
        return _folded(node.result)

    def _budget_line(self, now: datetime, width: int) -> Text:
        elapsed = self.elapsed_before + (_seconds(self.began, now) if self.began else 0)
        shares: list[tuple[str, str, float | None]] = [
            ("", _clock(elapsed), _share(elapsed, self.limits.get("max_seconds"))),
            ("tools", f"{self.tool_calls}", _share(self.tool_calls, self.limits.get("max_tool_calls"))),
            ("calls", f"{self.model_calls}", _share(self.model_calls, self.limits.get("max_model_calls"))),
            ("tokens", _short(self.tokens), _share(self.tokens, self.limits.get("max_total_tokens"))),
            ("", "$?" if self.cost_usd is None else f"${self.cost_usd:.2f}",
             _share(self.cost_usd or 0, self.limits.get("max_cost_usd"))),
        ]  # fmt: skip
        line = Text()
        for name, used, share in shares:
            line.append(f"{name} {used}".strip() + " ", style="dim")
            if share is not None:
                line.append_text(_bar(share))
            line.append(" ")
        return _labelled("budget", line, width)


def _share(used: float, limit: Any) -> float | None:
    return used / limit if isinstance(limit, int | float) and limit > 0 else None


def _bar(share: float) -> Text:
    """A share of a limit as a bar that reads without colour too."""
    filled = min(_BAR_CELLS, int(share * _BAR_CELLS + 0.5))
    style = "red" if share >= 0.95 else "yellow" if share >= 0.8 else "green"
    return Text("█" * filled, style=style) + Text("░" * (_BAR_CELLS - filled), style="dim")


def _labelled(label: str, text: Text, width: int) -> Text:
    line = Text(set_cell_size(label, _LABEL_CELLS), style="bold", no_wrap=True, overflow="ellipsis")
    line.append_text(text)
    line.truncate(width, overflow="ellipsis")
    return line


def _fitted(text: str, width: int, style: str) -> Text:
    line = Text(text, style=style, no_wrap=True)
    line.truncate(width, overflow="ellipsis")
    return line


def _cut(text: str, cells: int) -> str:
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, cells - 1) + "…" if cells > 0 else ""


def _cells(text: str, cells: int) -> str:
    return set_cell_size(_cut(text, cells), cells)


def _folded(text: str) -> str:
    return " ".join(text.split())


def _seconds(since: datetime, now: datetime) -> int:
    return max(0, int((now - since).total_seconds()))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _short(count: int) -> str:
    return f"{count}" if count < 1_000 else f"{count / 1_000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"
