"""What a run has done so far, and the one way to do more: nothing that the record tells is done a second time.

Owns the meeting of the event list with the work. A fresh run begins with an empty record; a resumed one with the
events of its earlier sittings, and then goes through the same steps again: what is on record is answered from it,
at no cost, and the first step that is not on record goes out (the idea is that of durable execution engines, such
as Temporal's event history). It does not know in which order a run does things.
"""

from collections.abc import Callable, Hashable, Sequence

import anyio
import anyio.lowlevel
from openai.types.chat import ChatCompletionFunctionToolParam

from memento.budget import Budget
from memento.events import (
    Answered,
    CasesRead,
    CaseWritten,
    Emit,
    Event,
    ModelCalled,
    Nudged,
    OutcomeRecorded,
    PlanMade,
    Role,
    RunEnded,
    RunResumed,
    RunStarted,
    ServerStateChanged,
    SubtaskDone,
    SubtaskStarted,
    ToolCalled,
    ToolReturned,
    Usage,
    Warned,
)
from memento.model import Message, Model, Reply, read_message
from memento.prices import price_usd

__all__ = ["RunRecord"]

_ASSUMED_REPLY_TOKENS = 16_384
"""The longest reply to reckon with where `max_output_tokens` is not set."""


class RunRecord:
    """One run's events, by what they are about.

    Args:
        emit: takes each new event.
        budget: what the run may use; what its earlier sittings used is counted here.
        earlier: the events of the earlier sittings, in order.
    """

    def __init__(self, emit: Emit, budget: Budget, earlier: Sequence[Event] = ()) -> None:
        self.budget = budget
        self._emit = emit
        self._known: dict[Hashable, Event] = {}
        self._when_live: Callable[[], None] | None = None
        self._is_live = not earlier
        self.half_case: str | None = None
        """The case that a sitting which failed has kept: this sitting's case takes its place."""
        for event in _still_true(earlier):
            self._known[_about(event)] = event
        for event in earlier:
            if isinstance(event, ModelCalled):
                budget.model_calls += 1
                budget.add(event.usage)
            elif isinstance(event, ToolCalled):
                budget.tool_calls += 1
            elif isinstance(event, ToolReturned):
                budget.tool_calls -= event.cached
            self._count(event)
        if any(isinstance(event, Answered) for event in earlier) and self.answered is None:
            self.half_case = next((event.case_id for event in earlier if isinstance(event, CaseWritten)), None)

    # --- what is known -----------------------------------------------------------------------------------

    @property
    def events(self) -> list[Event]:
        """What is on record, in order."""
        return list(self._known.values())

    @property
    def answered(self) -> Answered | None:
        known = self._known.get(("answered",))
        return known if isinstance(known, Answered) else None

    @property
    def has_case(self) -> bool:
        return ("case_written",) in self._known

    @property
    def has_outcome(self) -> bool:
        return any(isinstance(event, OutcomeRecorded) for event in self._known.values())

    def cases_read(self, cycle: int, subtask_id: str | None = None) -> CasesRead | None:
        known = self._known.get(("cases_read", cycle, subtask_id))
        return known if isinstance(known, CasesRead) else None

    def subtask_done(self, cycle: int, subtask_id: str) -> SubtaskDone | None:
        known = self._known.get(("subtask_done", cycle, subtask_id))
        return known if isinstance(known, SubtaskDone) else None

    def tool_called(self, call_id: str) -> ToolCalled | None:
        """The call, also one that was under way when the run was interrupted."""
        known = self._known.get(("tool_called", call_id))
        return known if isinstance(known, ToolCalled) else None

    def tool_returned(self, call_id: str) -> ToolReturned | None:
        known = self._known.get(("tool_returned", call_id))
        return known if isinstance(known, ToolReturned) else None

    # --- doing more --------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Add `event`, unless the record tells it already."""
        about = _about(event)
        if about not in self._known:
            self._known[about] = event
            self._count(event)
            self._emit(event)

    def _count(self, event: Event) -> None:
        """Count what servers told that they spent; what the run's own models use, the budget counts as it is used."""
        if isinstance(event, ToolReturned):
            self.budget.spend(event.cost_usd)
        if isinstance(event, ToolReturned | CasesRead | CaseWritten):
            for use in event.models:
                self.budget.spend_usage(use.usage)

    def when_live(self, action: Callable[[], None]) -> None:
        """Call `action` once, as soon as the run does something that is not on record: now, for a fresh run."""
        self._when_live = action
        if self._is_live:
            self._begin()

    async def go_live(self) -> None:
        """Say that something is about to be done that is not on record; a run whose time is over ends here."""
        self._is_live = True
        self._begin()
        await anyio.lowlevel.checkpoint()

    def _begin(self) -> None:
        action, self._when_live = self._when_live, None
        if action is not None:
            action()

    async def ask(
        self,
        model: Model,
        messages: Sequence[Message],
        *,
        role: Role,
        cycle: int,
        turn: int,
        subtask_id: str | None = None,
        tools: Sequence[ChatCompletionFunctionToolParam] = (),
        use_tools: bool = True,
        is_final: bool = False,
    ) -> Reply:
        """Ask a model for the next message, inside the budget, and put its reply on record.

        Raises:
            BudgetSpent: the budget does not allow it.
            ModelError: there is no usable reply.
        """
        known = self._known.get(("model_called", role, cycle, subtask_id, turn))
        if isinstance(known, ModelCalled):
            return read_message(known.message, known.finish_reason, known.usage, known.seconds)
        await self.go_live()
        async with self.budget.model_call(_at_most(model, messages, tools, self.budget), is_final=is_final) as spent:
            reply = await model.complete(messages, tools=tools, use_tools=use_tools)
            spent(reply.usage)
        self.emit(
            ModelCalled(
                role=role,
                model=model.name,
                seconds=reply.seconds,
                usage=reply.usage,
                cycle=cycle,
                subtask_id=subtask_id,
                turn=turn,
                finish_reason=reply.finish_reason,
                message=reply.message,
            )
        )
        return reply


def _still_true(events: Sequence[Event]) -> list[Event]:
    """The events but for endings that a resumed run takes back: it was cancelled, or a model could not be used."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, RunEnded):
            if event.status == "failed":
                kept = [known for known in kept if not isinstance(known, Answered | CaseWritten)]
            continue
        kept.append(event)
    return kept


def _about(event: Event) -> Hashable:
    """What an event tells: two events about the same thing are the same step of a run."""
    kind = event.type
    match event:
        case CasesRead() | SubtaskStarted() | SubtaskDone():
            return kind, event.cycle, event.subtask_id
        case ModelCalled():
            return kind, event.role, event.cycle, event.subtask_id, event.turn
        case PlanMade():
            return kind, event.cycle
        case ToolCalled() | ToolReturned():
            return kind, event.call_id
        case Nudged():
            return kind, event.cycle, event.subtask_id, event.reason
        case Warned():
            return kind, event.text
        case OutcomeRecorded():
            return kind, event.kind, event.reward
        case ServerStateChanged():
            return kind, event.server, event.state, event.detail
        case RunResumed():
            return kind, event.elapsed_seconds
        case RunStarted() | Answered() | CaseWritten() | RunEnded():
            return (kind,)


def _at_most(
    model: Model, messages: Sequence[Message], tools: Sequence[ChatCompletionFunctionToolParam], budget: Budget
) -> Usage:
    """The most that a call can use: no tokenizer makes more tokens of a text than it has bytes."""
    size = len(str([*messages, *tools]).encode())
    most = Usage(input_tokens=size, output_tokens=model.max_output_tokens or _ASSUMED_REPLY_TOKENS, cached_tokens=0)
    if model.is_free or not any(limited.limits.cost_usd for limited in budget.chain()):
        return most
    return most.model_copy(update={"cost_usd": price_usd(model.name, str(model.client.base_url), most)})
