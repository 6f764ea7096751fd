"""What a run says about itself: the one record from which the terminal, the journal and the tests are fed.

Owns the vocabulary. A run *is* its list of events (DESIGN.md, "One record"); nothing else stores run state.
Each event is small: long tool results lie in the run's folder and are named here.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from memento.plan import Plan

__all__ = [
    "Answered",
    "CaseShown",
    "CaseWritten",
    "CasesRead",
    "Emit",
    "Event",
    "ModelCalled",
    "ModelUse",
    "Nudged",
    "OutcomeRecorded",
    "PlanMade",
    "Record",
    "RunEnded",
    "RunResumed",
    "RunStarted",
    "RunStatus",
    "ServerStateChanged",
    "StoredFile",
    "SubtaskDone",
    "SubtaskStarted",
    "ToolCalled",
    "ToolReturned",
    "Usage",
    "Warned",
    "parse_record",
    "reported_count",
]

Role = Literal["planner", "executor", "judge"]
RunStatus = Literal["answered", "no_answer", "failed", "cancelled"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True)


class Usage(BaseModel):
    """Tokens of one model call, or of many. `None` is unknown: the server did not say, and it is not zero."""

    model_config = ConfigDict(frozen=True)

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    """Part of `input_tokens` that the server took from its prompt cache."""
    reasoning_tokens: int | None = None
    """Part of `output_tokens` that the model thought with, where the server tells."""
    audio_tokens: int | None = None
    """Part of `input_tokens` and `output_tokens` that were sound, where the server tells."""
    image_tokens: int | None = None
    """Part of `input_tokens` that were images, where the server tells."""
    cost_usd: float | None = None
    """`None` when nobody knows the price of this model."""
    is_estimated: bool = False
    """The server told no tokens: they were counted here, about."""


def reported_count(value: object) -> int | None:
    """A token count as a server reported it; unknown when what it sent is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class ModelUse(BaseModel):
    """A model that a server used for one call (embeddings, pictures, speech, …): its cost is the run's too."""

    model_config = ConfigDict(frozen=True)

    model: str
    usage: Usage


class RunStarted(_Event):
    type: Literal["run_started"] = "run_started"
    question: str
    files: list[str] = []
    folders: list[str] = []
    planner_model: str
    executor_model: str
    memory: Literal["on", "read-only", "off"] = "on"
    limits: dict[str, Any] = {}
    seed: int | None = None
    exclude_task: bool = False
    """Evaluation mode: cases of this very question are not shown."""


class RunResumed(_Event):
    """A run that was interrupted goes on; what the events before this one tell is not done again."""

    type: Literal["run_resumed"] = "run_resumed"
    elapsed_seconds: float
    """How long the run had been at work before, over all its sittings."""


class ServerStateChanged(_Event):
    """A tool server became ready, failed, or is being started again."""

    type: Literal["server_state_changed"] = "server_state_changed"
    server: str
    state: Literal["starting", "ready", "restarting", "failed"]
    tools: int | None = None
    detail: str = ""


class CaseShown(BaseModel):
    """One case as the planner saw it."""

    model_config = ConfigDict(frozen=True)

    case_id: str
    question: str
    plan: dict[str, Any]
    reward: float | None = None
    answer: str | None = None
    similarity: float | None = None
    lesson: str | None = None


class CasesRead(_Event):
    """The case bank was asked. `state` tells an empty memory from one that could not be read."""

    type: Literal["cases_read"] = "cases_read"
    cycle: int
    state: Literal["on", "void", "off", "unavailable"]
    subtask_id: str | None = None
    """Set when the cases were read for one subtask, not for a plan."""
    decision_id: str | None = None
    cases: list[CaseShown] = []
    evidence: list[str] = []
    """How ways of working compare on similar tasks, in words."""
    detail: str = ""
    models: list[ModelUse] = []


class PlanMade(_Event):
    type: Literal["plan_made"] = "plan_made"
    cycle: int
    plan: Plan


class SubtaskStarted(_Event):
    type: Literal["subtask_started"] = "subtask_started"
    cycle: int
    subtask_id: str
    description: str


class ModelCalled(_Event):
    """A model replied. The reply is kept verbatim: a resumed run reads it here instead of paying for it again."""

    type: Literal["model_called"] = "model_called"
    role: Role
    model: str
    seconds: float
    usage: Usage
    cycle: int
    subtask_id: str | None = None
    turn: int
    """Counts from 1 within its role, cycle and subtask."""
    finish_reason: str | None = None
    message: dict[str, Any]
    """The assistant message, with whatever fields the server put in it."""


class ToolCalled(_Event):
    """Written before the call is sent, so that a killed run shows what was in flight."""

    type: Literal["tool_called"] = "tool_called"
    cycle: int
    subtask_id: str
    call_id: str
    tool: str
    arguments: dict[str, Any] | str
    """The arguments; the raw string when the model's JSON could not be parsed."""


class StoredFile(BaseModel):
    """A part of a tool result that is no text, in the run's folder."""

    model_config = ConfigDict(frozen=True)

    name: str
    mime_type: str
    size_bytes: int


class ToolReturned(_Event):
    type: Literal["tool_returned"] = "tool_returned"
    cycle: int
    subtask_id: str
    call_id: str
    tool: str
    seconds: float
    is_error: bool
    text: str
    """What the model was given."""
    stored_as: str | None = None
    """File in the run's folder that holds the whole result, when it was too long to give."""
    files: list[StoredFile] = []
    """Images and other parts that are no text."""
    cached: bool = False
    """Answered from an earlier call, of this run or another."""
    cost_usd: float = 0.0
    """What the server says that the call cost; a server that says nothing is taken to be free."""
    models: list[ModelUse] = []


class SubtaskDone(_Event):
    type: Literal["subtask_done"] = "subtask_done"
    cycle: int
    subtask_id: str
    status: Literal["done", "failed", "skipped"]
    result: str
    tools: list[str] = []
    """Tools that were called, in order."""
    sources: list[str] = []
    """Files and addresses that calls which worked were made on."""
    lesson: str | None = None
    """What a guard or a limit had to stop, for whoever does this again."""


class Nudged(_Event):
    """A guard told a model that it goes in circles."""

    type: Literal["nudged"] = "nudged"
    cycle: int
    subtask_id: str | None = None
    reason: str


class Warned(_Event):
    type: Literal["warned"] = "warned"
    text: str


class Answered(_Event):
    type: Literal["answered"] = "answered"
    answer: str | None
    reason: str = ""
    """Why there is no answer, or why the run had to stop here."""
    forced: bool = False
    sources: list[str] = []
    cases_used: list[str] = []


class CaseWritten(_Event):
    type: Literal["case_written"] = "case_written"
    case_id: str | None
    detail: str = ""
    models: list[ModelUse] = []


class OutcomeRecorded(_Event):
    type: Literal["outcome_recorded"] = "outcome_recorded"
    reward: float | None
    kind: Literal["verifier", "judge", "human", "self"]
    confidence: float = 1.0


class RunEnded(_Event):
    type: Literal["run_ended"] = "run_ended"
    status: RunStatus
    seconds: float
    model_calls: int
    tool_calls: int
    usage: Usage
    detail: str = ""


Event = (
    RunStarted
    | RunResumed
    | ServerStateChanged
    | CasesRead
    | PlanMade
    | SubtaskStarted
    | ModelCalled
    | ToolCalled
    | ToolReturned
    | SubtaskDone
    | Nudged
    | Warned
    | Answered
    | CaseWritten
    | OutcomeRecorded
    | RunEnded
)

Emit = Callable[[Event], object]
"""Takes an event and returns at once. A run has one, and hands it down."""


class Record(BaseModel):
    """An event with its place in the run: one line of `events.jsonl`."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    number: int
    """Counts from 1 without gaps."""
    time: datetime
    event: Annotated[Event, Field(discriminator="type")]


_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def parse_record(line: str | bytes) -> Record:
    """Read one line of `events.jsonl`.

    Raises:
        pydantic.ValidationError: the line is not a record, or is cut off.
    """
    return _RECORD.validate_json(line)
