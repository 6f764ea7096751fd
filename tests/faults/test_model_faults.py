"""A misbehaving endpoint over real HTTP: the stand-in with faults, through the same client as a real model.

Each case ends inside its limits, with one line or with an answer, and its record is whole.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from memento.events import RunEnded, SubtaskDone, ToolReturned
from memento.offline import Fault, StandIn
from memento.server_list import ServerEntry, ServerList, find_command
from memento.session import Session, open_session
from memento.settings import Settings

pytestmark = pytest.mark.anyio

QUESTION = "How long in km is the Po, says rivers.md?"


@asynccontextmanager
async def session_with(tmp_path: Path, *faults: Fault, **settings: Any) -> AsyncGenerator[tuple[Session, StandIn]]:
    """The stand-in with faults, the real documents server, and one file to read."""
    file = tmp_path / "rivers.md"
    file.write_text("# Rivers\n\nThe Po is 652 km long.\n", encoding="utf-8")
    given: dict[str, Any] = {"model_retries": 0} | settings
    chosen = Settings(home=tmp_path / "home", model="offline", memory="off", **given)
    documents = ServerEntry(command=find_command("memento-documents"), env={"MEMENTO_DOCUMENTS_FOLDERS": str(tmp_path)})
    stand_in = StandIn(faults=list(faults), keep_requests=True)
    with anyio.fail_after(90):
        async with open_session(
            chosen, files=[file], server_list=ServerList(None, {"documents": documents}), stand_in=stand_in
        ) as session:
            yield session, stand_in


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("401"), "refused the request (HTTP 401): Error code: 401"),
        (Fault("429"), "too many requests or no quota (429)"),
        (Fault("500"), "failed with HTTP 500"),
        (Fault("html"), "without any choice"),
        (Fault("no_choices"), "without any choice"),
        (Fault("broken_json"), "something that is not JSON"),
    ],
    ids=lambda value: f"{value.kind}-{value.role}" if isinstance(value, Fault) else "",
)
async def test_an_endpoint_that_fails_is_one_line_and_a_failed_run(tmp_path: Path, fault: Fault, told: str) -> None:
    async with session_with(tmp_path, fault) as (session, _):
        result = await session.ask(QUESTION)
        ended = session.journal.events(result.run_id)[-1]
    assert (result.status, result.answer) == ("failed", None)
    assert told in result.reason
    assert "\n" not in result.reason
    assert isinstance(ended, RunEnded)
    assert ended.status == "failed"


async def test_an_endpoint_that_never_answers_is_given_up_after_its_time_limit(tmp_path: Path) -> None:
    async with session_with(tmp_path, Fault("hang"), model_timeout_seconds=0.5) as (session, _):
        result = await session.ask(QUESTION)
    assert result.status == "failed"
    assert result.reason.endswith("/v1/ gave no answer in time.")


@pytest.mark.parametrize("kind", ["429", "500", "hang"])
async def test_a_passing_failure_is_retried_and_the_run_goes_on(tmp_path: Path, kind: Any) -> None:
    async with session_with(tmp_path, Fault(kind), model_retries=1, model_timeout_seconds=5.0) as (session, stand_in):
        result = await session.ask(QUESTION)
    assert result.answer == "652"
    assert stand_in.requests[0] == stand_in.requests[1]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("prose", role="planner"),
        Fault("empty", role="planner"),
        Fault("thinking", role="planner"),
        Fault("thinking", role="executor"),
        Fault("empty", role="executor"),
        Fault("text_and_tools", role="executor"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.role}",
)
async def test_an_odd_reply_is_put_right_and_the_answer_is_the_same(tmp_path: Path, fault: Fault) -> None:
    async with session_with(tmp_path, fault) as (session, stand_in):
        result = await session.ask(QUESTION)
    assert result.answer == "652"
    assert stand_in.faults == [], "the fault was used"


@pytest.mark.parametrize("kind", ["unknown_tool", "bad_arguments"])
async def test_a_call_that_cannot_be_made_is_told_to_the_model_with_what_there_is(tmp_path: Path, kind: Any) -> None:
    async with session_with(tmp_path, Fault(kind, role="executor")) as (session, stand_in):
        result = await session.ask(QUESTION)
        returned = [e for e in session.journal.events(result.run_id) if isinstance(e, ToolReturned)]
    assert returned[0].is_error
    answered = [body for body in stand_in.requests if body["messages"][-1].get("role") == "tool"]
    assert answered[0]["messages"][-1]["content"].startswith("Error: ")
    assert json.dumps(answered[0])
    assert result.status in {"answered", "no_answer"}


async def test_one_refusal_earns_a_nudge_and_the_second_fails_the_subtask(tmp_path: Path) -> None:
    async with session_with(tmp_path, Fault("refusal", role="executor")) as (session, _):
        result = await session.ask(QUESTION)
    assert result.answer == "652"
    refusals = [Fault("refusal", role="executor"), Fault("refusal", role="executor")]
    async with session_with(tmp_path, *refusals) as (session, _):
        result = await session.ask(QUESTION)
        done = [e for e in session.journal.events(result.run_id) if isinstance(e, SubtaskDone)]
    assert (done[0].status, done[0].result) == ("failed", "the model refused: I cannot help with that.")
    assert done[0].lesson == "the model refused"
    assert len(done) > 1
    assert result.status == "answered"
