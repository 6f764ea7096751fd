"""What the bank keeps: cases, decisions, outcomes and edits, as they stand in its log.

Owns the words of the domain and their rules (which outcome is in force, what makes two plans alike). It stores
nothing and needs no numpy, so that the server can name these types before anything heavy is imported.
"""

import hashlib
import json
import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = [
    "BankError",
    "BankLocked",
    "Case",
    "CaseStatus",
    "Cost",
    "DecisionRecord",
    "Edit",
    "EditAction",
    "EmbedderError",
    "InForce",
    "OutcomeKind",
    "OutcomeRecord",
    "Step",
    "UnknownId",
    "check_reward",
    "checked",
    "first_problem",
    "new_id",
    "outcome_in_force",
    "plan_signature",
    "plan_steps",
    "task_key",
]

Reward = Annotated[float, Field(ge=0.0, le=1.0)]
OutcomeKind = Literal["verifier", "judge", "human", "self"]
CaseStatus = Literal["active", "disabled", "quarantined", "archived"]
EditAction = Literal["disable", "enable", "quarantine", "release", "archive", "restore", "revise", "undo"]

_RANK: Mapping[str, int] = {"self": 0, "judge": 1, "verifier": 2, "human": 3}


class BankError(Exception):
    """The bank cannot do what was asked; the message says what to do. Nothing was changed."""


class BankLocked(BankError):
    """Another process has this bank open."""


class UnknownId(BankError):
    """There is no case, decision, run or edit of that id in this bank."""


class EmbedderError(BankError):
    """No vectors could be made. The message says what the operator can do; nothing was stored."""


class _Record(BaseModel):
    # NaN and infinity are no JSON: they are refused instead of read back as something else.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")


class Step(_Record):
    """One subtask as it was done."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # agents note more about their steps than we need

    subtask: str = Field(max_length=10_000, description="What was to be done")
    tools: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        default=(), max_length=1_000, description="Tools called, in order"
    )
    status: str | None = Field(default=None, max_length=100, description="How it ended, in the agent's words")
    reward: Reward | None = Field(default=None, description="How well this step went, 0..1; absent: unknown")


Cost = dict[Annotated[str, Field(max_length=40)], float]
"""What an attempt cost, by unit (`tokens`, `seconds`, `usd`, `tool_calls`, …). An absent unit is unknown, not 0."""


class Case(_Record):
    """One attempt at a task, as it was retained. It never changes; edits and outcomes are kept beside it."""

    id: str
    namespace: str = "default"
    created: float
    """Seconds since 1970."""
    question: str
    plan: dict[str, Any]
    answer: str | None = None
    lesson: str | None = None
    steps: tuple[Step, ...] = ()
    tags: tuple[str, ...] = ()
    cost: Cost | None = None
    model: str | None = None
    run_id: str | None = None
    decision_id: str | None = None
    parents: tuple[str, ...] = ()
    """Cases that were shown when this one was made: taint and credit travel along these."""
    source: str | None = None
    """Where the text came from when not from this agent's own run: an import file, a URL."""
    kind: Literal["episode", "strategy"] = "episode"
    members: tuple[str, ...] = ()
    """A strategy's episodes."""
    valid_until: float | None = None
    """Seconds since 1970; absent: does not expire."""
    group: str = ""
    """Id of the first case of its near-duplicate group; its own id when it is the first."""
    quarantine: str | None = None
    """Why the case was quarantined when it came in; absent: it was not."""


class DecisionRecord(_Record):
    """One retrieval: what was asked, who could have been shown, who was."""

    id: str
    namespace: str = "default"
    created: float
    query: str
    run_id: str | None = None
    policy: str
    seed: int
    k: int
    shown: tuple[int, ...]
    """Candidate rows in rank order; empty: no case was shown."""
    candidates: int
    """How many candidates there were (the numbers about them lie in the log as one binary table)."""
    void_probability: float
    scale: Literal["lift", "score"] = "score"
    forced: str = ""
    success: tuple[float, float, float] | None = None
    without_memory: tuple[float, float, float] | None = None
    lift: tuple[float, float, float] | None = None
    evaluation: bool = False
    """Self-retrieval was excluded."""
    fallback: str = ""
    """Why a simpler rule than the bank's policy chose; empty: the policy chose."""


class OutcomeRecord(_Record):
    """How something turned out, said by someone, once. Later records amend earlier ones."""

    id: str
    created: float
    reward: Reward | None
    """0..1; None: unknown (it takes back what the same kind said before)."""
    kind: OutcomeKind
    confidence: Reward = 1.0
    decisions: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    run_id: str | None = None
    cited: tuple[str, ...] | None = None
    """Cases the agent says it used; None: it did not say."""


class Edit(_Record):
    """A change of a case's standing or text. Nothing is overwritten: undoing one is another edit."""

    id: str
    created: float
    case_id: str
    action: EditAction
    reason: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)
    """For `revise`: the new values of the fields that change."""
    undoes: str | None = None
    batch: str | None = None
    """Edits made by one command share this, and are undone together."""


class InForce(NamedTuple):
    """The outcome that counts now."""

    reward: float | None
    kind: OutcomeKind | None
    confidence: float
    cited: tuple[str, ...] | None
    created: float


R = TypeVar("R", bound=BaseModel)


def checked(model: type[R], /, **values: Any) -> R:
    """A record of these values.

    Raises:
        BankError: one of them does not fit; the message names it.
    """
    try:
        return model(**values)
    except ValidationError as exc:
        raise BankError(f"{first_problem(exc)}.") from exc


def check_reward(reward: float | None, kind: OutcomeKind) -> None:
    """Check an outcome that belongs to something not yet written.

    Raises:
        BankError: it is none.
    """
    checked(OutcomeRecord, id="", created=0.0, reward=reward, kind=kind)


def first_problem(exc: ValueError) -> str:
    """One line about why a record could not be made, written or read."""
    if isinstance(exc, ValidationError):
        problem = exc.errors(include_url=False, include_input=False)[0]
        return ": ".join(part for part in (".".join(map(str, problem["loc"])), problem["msg"]) if part)
    return str(exc).splitlines()[0]


UNKNOWN = InForce(None, None, 1.0, None, 0.0)


def outcome_in_force(outcomes: Iterable[OutcomeRecord]) -> InForce:
    """Of each kind the latest word counts, and the highest kind that has a word wins: human, verifier, judge, self.

    An unknown takes back its own kind's word and nobody else's: a verifier that could not run does not silence
    the judge. Citations are kept from whoever named them last.
    """
    latest: dict[str, OutcomeRecord] = {}
    cited: tuple[str, ...] | None = None
    for outcome in outcomes:
        latest[outcome.kind] = outcome
        cited = outcome.cited if outcome.cited is not None else cited
    known = [outcome for outcome in latest.values() if outcome.reward is not None]
    if not known:
        return UNKNOWN._replace(cited=cited)
    best = max(known, key=lambda outcome: _RANK[outcome.kind])
    return InForce(best.reward, best.kind, best.confidence, cited, best.created)


def new_id(prefix: str) -> str:
    """A short id that a model can repeat without mistakes: a prefix and 60 random bits in base 32."""
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    bits = secrets.randbits(60)
    return prefix + "_" + "".join(alphabet[(bits >> shift) & 31] for shift in range(0, 60, 5))


_SPACE = re.compile(r"[\W_]+")


def task_key(question: str) -> str:
    """The same for questions that differ only in case, punctuation and spacing."""
    normal = _SPACE.sub(" ", unicodedata.normalize("NFKC", question).casefold()).strip()
    return hashlib.blake2b(normal.encode(), digest_size=12).hexdigest()


def plan_steps(plan: Mapping[str, Any]) -> list[str]:
    """The steps of a plan as texts, whatever its shape: the first list in it, else its texts."""
    lists = [cast(list[Any], value) for value in plan.values() if isinstance(value, list)]
    return [_step_text(item) for item in lists[0]] if lists else [v for v in plan.values() if v and isinstance(v, str)]


def _step_text(item: object) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    step = cast(Mapping[str, Any], item)
    named = next((step[key] for key in ("description", "subtask", "task", "step", "action") if key in step), None)
    return json.dumps(step, sort_keys=True, default=str) if named is None else str(named)


def plan_signature(plan: Mapping[str, Any], steps: Sequence[Step], answer: str | None) -> str:
    """What makes two attempts the same way of doing it: the tools in order, else the answer, else the plan's text."""
    tools = [tool for step in steps for tool in step.tools]
    if tools:
        shortened = [tool for i, tool in enumerate(tools) if i == 0 or tool != tools[i - 1]]
        return "tools " + " ".join(shortened)
    if answer:
        return "answer " + " ".join(answer.casefold().split())
    return "plan " + json.dumps(plan, sort_keys=True, ensure_ascii=False, default=str)
