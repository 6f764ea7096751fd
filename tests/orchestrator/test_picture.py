"""What a person sees of a run: made from its records alone, within the room there is."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from memento.events import (
    CaseShown,
    CasesRead,
    Event,
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
from memento.picture import RunPicture
from memento.plan import Plan, Subtask
from memento.terminal import RunView

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIMITS = {"max_seconds": 600, "max_tool_calls": 40, "max_model_calls": 80, "max_total_tokens": 200_000}
USED = Usage(input_tokens=40_000, output_tokens=1_000, cached_tokens=0, cost_usd=0.07)


def called(tool: str, call_id: str, subtask: str = "2") -> ToolCalled:
    return ToolCalled(cycle=1, subtask_id=subtask, call_id=call_id, tool=tool, arguments={})


def started(subtask: str) -> SubtaskStarted:
    return SubtaskStarted(cycle=1, subtask_id=subtask, description="")


PLAN = Plan(
    subtasks=[
        Subtask(id="1", description="find the list of papers"),
        Subtask(id="2", description="get the tables of each", depends_on=["1"]),
        Subtask(id="3", description="compare them", depends_on=["1", "2"]),
    ],
    cases_used=["case-aaaaaa"],
)
EVENTS: list[Event] = [
    RunStarted(question="Q?", planner_model="m", executor_model="m", limits=LIMITS),
    CasesRead(
        cycle=1,
        state="on",
        cases=[
            CaseShown(case_id="case-aaaaaa", question="q", plan={}, reward=1.0),
            CaseShown(case_id="case-bbbbbb", question="q", plan={}, reward=0.0),
            CaseShown(case_id="case-cccccc", question="q", plan={}),
        ],
    ),
    ModelCalled(role="planner", model="m", seconds=1, usage=USED, cycle=1, turn=1, message={}),
    PlanMade(cycle=1, plan=PLAN),
    started("1"),
    SubtaskDone(cycle=1, subtask_id="1", status="done", result="four\npapers"),
    started("2"),
    called("crawl__read_page", "a"),
    called("crawl__read_page", "b"),
    ToolReturned(
        cycle=1, subtask_id="2", call_id="b", tool="crawl__read_page", seconds=1, is_error=False, text="x"
    ),
    Warned(text="The code server is not available: it did not answer within 30 s"),
]  # fmt: skip


def picture(events: list[Event]) -> RunPicture:
    drawn = RunPicture()
    for number, event in enumerate(events, 1):
        drawn.add(Record(run_id="r", number=number, time=NOON + timedelta(seconds=number), event=event))
    return drawn


def text(drawn: RunPicture, **room: Any) -> list[str]:
    return [line.plain.rstrip() for line in drawn.lines(now=NOON + timedelta(seconds=50), **room)]


def test_the_picture_shows_cases_used_and_avoided_the_plan_what_is_waited_for_and_what_is_left() -> None:
    assert text(picture(EVENTS)) == [
        "memory  3 shown  aaaaaa won (used)  bbbbbb lost, avoid  cccccc unknown",
        "plan 1  ✓ 1 find the list of papers           four papers",
        "        ▸ 2 get the tables of each (after 1)  waiting for crawl__read_page, 42 s",
        "        · 3 compare them (after 1, 2)",
        "! The code server is not available: it did not answer within 30 s",
        "budget  0:49 ░░░░░ tools 2 ░░░░░ calls 1 ░░░░░ tokens 41k █░░░░ $0.07",
    ]


def test_an_unknown_price_is_shown_as_unknown() -> None:
    unknown = ModelCalled(
        role="judge",
        model="m",
        seconds=1,
        usage=USED.model_copy(update={"cost_usd": None}),
        cycle=1,
        turn=1,
        message={},
    )
    assert text(picture([*EVENTS, unknown]))[-1].endswith("$?")


def test_a_run_that_goes_on_counts_the_time_of_its_earlier_sittings_and_waits_for_nothing_from_before() -> None:
    lines = text(picture([*EVENTS, RunResumed(elapsed_seconds=300)]), width=120)
    assert "5:38" in lines[-1]
    assert not any("waiting" in line for line in lines)


def test_the_last_of_a_limit_is_drawn_full() -> None:
    calls = [called("t", str(number)) for number in range(40)]
    assert "tools 40 █████" in text(picture([EVENTS[0], EVENTS[3], *calls]))[-1]


@given(
    count=st.integers(1, 24),
    done=st.integers(0, 24),
    width=st.integers(20, 200),
    height=st.integers(3, 40),
    words=st.text(max_size=200),
)
def test_it_never_takes_more_than_the_room_there_is(count: int, done: int, width: int, height: int, words: str) -> None:
    plan = Plan(subtasks=[Subtask(id=str(n), description=f"x {words}") for n in range(count)])
    ends = [SubtaskDone(cycle=1, subtask_id=str(n), status="done", result=words) for n in range(min(done, count))]
    events: list[Event] = [*EVENTS[:3], PlanMade(cycle=1, plan=plan), *ends, called("crawl__x", "a", "0"), EVENTS[-1]]
    lines = picture(events).lines(width=width, height=height)
    assert len(lines) <= height
    assert all(cell_len(line.plain) <= width and "\n" not in line.plain for line in lines)


def test_when_there_is_little_room_what_is_done_folds_and_what_runs_stays() -> None:
    plan = Plan(subtasks=[Subtask(id=str(n), description=f"task {n}") for n in range(12)])
    ends = [SubtaskDone(cycle=1, subtask_id=str(n), status="done", result="r") for n in range(10)]
    lines = text(picture([EVENTS[0], PlanMade(cycle=1, plan=plan), *ends, started("10")]), height=6)
    assert lines[0].endswith("… 8 done before")
    assert any("▸ 10 task 10" in line for line in lines)
    assert len(lines) == 6


@pytest.mark.parametrize(("terminal", "expected"), [(True, "budget"), (False, "plan 1:")])
def test_a_terminal_gets_the_picture_and_anything_else_plain_lines(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, expected: str
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80, height=24, legacy_windows=False)
    with RunView(console) as view:
        for number, event in enumerate(EVENTS, 1):
            view.watch(Record(run_id="r", number=number, time=NOON, event=event))
    assert expected in out.getvalue()
    assert ("\x1b" in out.getvalue()) is terminal
    assert "\x1b[3" not in out.getvalue(), "no colour was asked for"


def test_quiet_shows_nothing() -> None:
    out = io.StringIO()
    with RunView(Console(file=out, force_terminal=True, width=80), quiet=True) as view:
        for number, event in enumerate(EVENTS, 1):
            view.watch(Record(run_id="r", number=number, time=NOON, event=event))
    assert out.getvalue() == ""
