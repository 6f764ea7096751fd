"""The planner's two replies, a plan or a final answer, and the tolerant reading of both.

Owns the shape of a plan (a DAG of subtasks) and the parser. It does not call a model: on `PlanUnreadable`
the agent asks for a repair once, and then gives up with an outcome that is *unknown* (spec/memento.md, defect 14).
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from memento.dialects import strip_thinking

__all__ = [
    "FinalAnswer",
    "Plan",
    "PlanUnreadable",
    "Subtask",
    "parse_planner_reply",
    "ready_subtasks",
]

_MAX_SUBTASKS = 24
_FINAL_ANSWER = re.compile(r"^\s*\**\s*FINAL\s+ANSWER\s*\**\s*:\s*\**", re.IGNORECASE | re.MULTILINE)


class PlanUnreadable(Exception):
    """The reply is neither a plan nor a final answer. The message tells the model what was wrong with it."""


class Subtask(BaseModel):
    """One step for the executor. It may start when every subtask in `depends_on` is done."""

    model_config = ConfigDict(frozen=True)

    id: str
    description: str = Field(min_length=1)
    depends_on: list[str] = []
    kind: str | None = None
    """What kind of work it is, where the operator has a model for each."""
    builds_on: list[str] = []
    """Labels of results of earlier plans, such as `1.2`, that the planner named in `depends_on`."""

    @field_validator("id", mode="before")
    @classmethod
    def _number_to_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @field_validator("depends_on", mode="before")
    @classmethod
    def _numbers_to_text(cls, value: object) -> object:
        if value is None:
            return []
        return [str(item) for item in cast(list[object], value)] if isinstance(value, list) else value


class Plan(BaseModel):
    """Subtasks in the planner's order; `depends_on` makes them a directed acyclic graph."""

    model_config = ConfigDict(frozen=True)

    subtasks: list[Subtask]
    cases_used: list[str] = []
    """Ids of the shown cases that the planner says it followed or avoided."""


class FinalAnswer(BaseModel):
    model_config = ConfigDict(frozen=True)

    answer: str
    sources: list[str] = []
    cases_used: list[str] = []


def parse_planner_reply(reply: str, done: Collection[str] = ()) -> Plan | FinalAnswer:
    """Read a planner's reply: JSON on its own, in a fence or inside prose, or the paper's `FINAL ANSWER:` line.

    Args:
        done: labels of what earlier plans have done, which a subtask may build on.

    Raises:
        PlanUnreadable: neither is there, or the plan is not a DAG.
    """
    text = strip_thinking(reply)
    if not text:
        raise PlanUnreadable("The reply is empty.")
    problem = ""
    for found in _json_objects(text):
        try:
            parsed = _from_json(found, done)
        except PlanUnreadable as exc:
            problem = problem or str(exc)
            continue
        if parsed is not None:
            return parsed
    marker = list(_FINAL_ANSWER.finditer(text))
    if marker:
        answer = text[marker[-1].end() :].strip().strip("*").strip()
        if answer:
            return FinalAnswer(answer=answer)
    raise PlanUnreadable(problem or 'There is no JSON object with "plan" or "final_answer" in the reply.')


def _from_json(found: dict[str, Any], done: Collection[str]) -> Plan | FinalAnswer | None:
    cited = [str(case) for case in _list(found.get("cases_used"))]
    answer = found.get("final_answer")
    if answer is not None and not isinstance(answer, dict | list) and str(answer).strip():
        sources = [str(source) for source in _list(found.get("sources"))]
        return FinalAnswer(answer=str(answer).strip(), sources=sources, cases_used=cited)
    steps = found.get("plan")
    if not isinstance(steps, list):
        return None
    return _checked_plan(cast(list[Any], steps), cited, done)


def _checked_plan(steps: list[Any], cited: list[str], done: Collection[str]) -> Plan:
    if not steps:
        raise PlanUnreadable('"plan" is empty: give at least one subtask, or a "final_answer".')
    if len(steps) > _MAX_SUBTASKS:
        raise PlanUnreadable(f"The plan has {len(steps)} subtasks; give at most {_MAX_SUBTASKS}.")
    try:
        subtasks = [Subtask.model_validate({"id": str(number), **_step(step)}) for number, step in enumerate(steps, 1)]
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PlanUnreadable(f"A subtask is malformed: {where}: {first['msg']}.") from exc
    ids = [subtask.id for subtask in subtasks]
    if len(set(ids)) != len(ids):
        raise PlanUnreadable("Two subtasks have the same id.")
    subtasks = [_split_dependencies(subtask, ids, done) for subtask in subtasks]
    for subtask in subtasks:
        unknown = [needed for needed in subtask.depends_on if needed not in ids]
        if unknown:
            raise PlanUnreadable(f"Subtask {subtask.id!r} depends on {unknown[0]!r}, which is not in the plan.")
    plan = Plan(subtasks=subtasks, cases_used=cited)
    _refuse_cycles(plan)
    return plan


def _split_dependencies(subtask: Subtask, ids: Collection[str], done: Collection[str]) -> Subtask:
    """Tell apart what a subtask waits for in its own plan, and what earlier plans have done for it."""
    earlier = [needed for needed in subtask.depends_on if needed not in ids and needed in done]
    if not earlier:
        return subtask
    own = [needed for needed in subtask.depends_on if needed not in earlier]
    return subtask.model_copy(update={"depends_on": own, "builds_on": earlier})


def _step(step: Any) -> dict[str, Any]:
    if isinstance(step, str):
        return {"description": step}
    if isinstance(step, dict):
        return cast(dict[str, Any], step)
    raise PlanUnreadable("Each subtask must be an object with id, description and depends_on.")


def _refuse_cycles(plan: Plan) -> None:
    done: set[str] = set()
    while True:
        ready = ready_subtasks(plan, done)
        if not ready:
            break
        done.update(subtask.id for subtask in ready)
    stuck = [subtask.id for subtask in plan.subtasks if subtask.id not in done]
    if stuck:
        raise PlanUnreadable(f"The subtasks {', '.join(stuck)} wait for each other: depends_on must not form a cycle.")


def ready_subtasks(plan: Plan, done: Iterable[str]) -> list[Subtask]:
    """Subtasks that are not in `done` and wait for nothing outside it, in the plan's order."""
    finished = set(done)
    return [
        subtask
        for subtask in plan.subtasks
        if subtask.id not in finished and all(needed in finished for needed in subtask.depends_on)
    ]


def _list(value: object) -> list[Any]:
    if isinstance(value, list):
        return cast(list[Any], value)
    return [] if value is None else [value]


def _json_objects(text: str) -> Iterator[dict[str, Any]]:
    """Every outermost JSON object in `text`, in order."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at != -1:
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            at = text.find("{", at + 1)
            continue
        if isinstance(value, dict):
            yield cast(dict[str, Any], value)
        at = text.find("{", end)
