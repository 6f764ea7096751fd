"""A run that was interrupted goes on where it was: nothing is paid for twice, nothing with side effects repeated."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from memento.budget import Budget, Limits
from memento.events import Answered, CaseWritten, ModelCalled, RunEnded, RunResumed, RunStarted, Usage
from memento.journal import Journal, RunBusy, elapsed_seconds
from memento.record import RunRecord
from support.scripted_model import answers, plans, says, scene

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def sittings(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The run that was left alone, and one run for each event number at which it was killed."""
    home = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_run.py"), home],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *others = [json.loads(line) for line in done.stdout.splitlines()]
    assert [other["number"] for other in others] == list(range(1, first["events"] + 1))
    assert first["events"] > 35
    return first, others


@pytest.mark.slow
@pytest.mark.timeout(420)  # half a minute alone
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_any_event_comes_to_the_same_answer_and_the_same_sums(
    sittings: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    first, others = sittings
    for other in others:
        assert other["answered"] == [first["reference"]["answer"]], other["number"]
        if not other["over"]:
            assert other["result"] == first["reference"], other["number"]


@pytest.mark.slow
@pytest.mark.timeout(420)  # half a minute alone
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_model_call_whose_reply_was_on_record_is_paid_for_again(
    sittings: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    first, others = sittings
    for other in others:
        assert set(other["paid"]) == set(first["paid"]), other["number"]
        twice = [key for key, times in other["paid"].items() if times > 1]
        assert not set(twice) & set(other["on_record"]), (other["number"], twice)


@pytest.mark.slow
@pytest.mark.timeout(420)  # half a minute alone
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_tool_with_side_effects_is_called_again_without_asking_and_with_a_yes_none_is_left_out(
    sittings: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    _, others = sittings
    for other in others:
        if other["repeat"]:
            assert set(other["written"]) == {"alpha", "gamma"}, other["number"]
        else:
            assert max(other["written"].values()) == 1, other["number"]


@pytest.mark.slow
@pytest.mark.timeout(420)  # half a minute alone
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_run_is_kept_and_judged_once_with_all_its_subtasks(
    sittings: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    for other in sittings[1]:
        (kept,) = other["kept"]
        assert json.loads(kept)[0] == ["1.a", "1.b", "1.c", "2.d"], other["number"]
        assert other["kept"][kept] == 1, other["number"]
        assert list(other["outcomes"]) == ["1.0"], other["number"]


async def resumed(play: Any, journal: Journal, run_id: str, **more: Any) -> Any:
    log = journal.reopen(run_id)
    try:
        return await play.agent.run("Q?", log=log, emit=log.append, earlier=journal.events(run_id), **more)
    finally:
        log.close()


@pytest.mark.anyio
async def test_a_run_that_a_model_failure_ended_goes_on_when_the_model_is_back(tmp_path: Path) -> None:
    down = httpx2.Response(500, json={"error": {"message": "down"}})
    async with scene(tmp_path, [plans("one"), says("r1"), down, answers("from r1")]) as play:
        failed = await play.run("Q?")
        result = await resumed(play, play.journal, failed.run_id)
    assert (failed.status, result.status, result.answer) == ("failed", "answered", "from r1")
    assert len(play.model.sent) == 4, "the plan and the subtask were not asked for again"
    assert "r1" in play.model.sent[-1]["messages"][-1]["content"]
    events = Journal(tmp_path).events(failed.run_id)
    assert [event.status for event in events if isinstance(event, RunEnded)] == ["failed", "answered"]
    assert [event.answer for event in events if isinstance(event, Answered)] == [None, "from r1"]
    assert (Journal(tmp_path).runs()[0].status, Journal(tmp_path).runs()[0].answer) == ("answered", "from r1")


@pytest.mark.anyio
async def test_the_time_of_earlier_sittings_counts_and_reading_the_record_takes_none(tmp_path: Path) -> None:
    script = [plans("one"), says("r1"), plans("two"), says("r2"), answers("the end")]
    async with scene(tmp_path, script, max_seconds=30.0) as play:
        whole = await play.run("Q?")
        path = play.journal.run_folder(whole.run_id) / "events.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        at = next(n for n, line in enumerate(lines) if b'"subtask_done"' in line)
        path.write_bytes(b"".join(lines[: at + 1]))
        play.model.script = [answers("in time")]
        result = await resumed(play, play.journal, whole.run_id, elapsed_seconds=29.0)
        assert (result.answer, result.reason) == ("in time", "")
        path.write_bytes(b"".join(lines[: at + 1]))
        play.model.script = [answers("as far as it came")]
        result = await resumed(play, play.journal, whole.run_id, elapsed_seconds=31.0)
    assert (result.answer, result.reason) == ("as far as it came", "the limit of 30 s is reached")
    assert "r1" in json.dumps(play.model.sent[-1]["messages"])
    assert "The work ends here" in play.model.sent[-1]["messages"][-1]["content"]


def test_a_run_that_is_at_work_cannot_be_opened_a_second_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    log = journal.new_run()
    log.append(RunStarted(question="Q?", planner_model="m", executor_model="m"))
    assert Journal(tmp_path).runs()[0].status == "running"
    with pytest.raises(RunBusy, match="is at work in another process"):
        Journal(tmp_path).reopen(log.run_id)
    with pytest.raises(RunBusy):
        Journal(tmp_path).remove(log.run_id)
    log.close()
    assert Journal(tmp_path).runs()[0].status == "interrupted"
    Journal(tmp_path).remove(log.run_id)
    assert Journal(tmp_path).runs() == []
    assert not log.folder.exists()


def test_the_next_record_begins_on_a_line_of_its_own_after_one_that_a_crash_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    log = journal.new_run()
    log.append(RunStarted(question="Q?", planner_model="m", executor_model="m"))
    log.close()
    path = log.folder / "events.jsonl"
    with path.open("ab") as file:
        file.write(b'{"run_id": "torn' + b"x" * 100_000)
    again = journal.reopen(log.run_id)
    again.append(RunResumed(elapsed_seconds=1.0))
    again.close()
    assert [record.number for record in journal.records(log.run_id)] == [1, 2]


def test_only_the_time_at_work_counts_as_elapsed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    log = journal.new_run()
    usage = Usage()
    started = log.append(RunStarted(question="Q?", planner_model="m", executor_model="m"))
    ended = log.append(RunEnded(status="cancelled", seconds=1, model_calls=0, tool_calls=0, usage=usage))
    resumed = log.append(RunResumed(elapsed_seconds=1.0))
    log.close()
    spread = [
        started,
        ended.model_copy(update={"time": started.time.replace(year=2030)}),
        resumed.model_copy(update={"time": started.time.replace(year=2031)}),
    ]
    expected = (spread[1].time - spread[0].time).total_seconds()
    assert elapsed_seconds(spread) == expected


def test_the_case_of_a_sitting_that_failed_gives_way_to_the_whole_one() -> None:
    usage = Usage()
    earlier = [
        RunStarted(question="Q?", planner_model="m", executor_model="m"),
        Answered(answer=None, reason="down"),
        CaseWritten(case_id="half"),
        RunEnded(status="failed", seconds=1, model_calls=0, tool_calls=0, usage=usage),
    ]
    record = RunRecord(lambda event: None, Budget(Limits()), earlier)
    assert (record.half_case, record.answered, record.has_case) == ("half", None, False)


def test_what_earlier_sittings_spent_counts_against_the_limits() -> None:
    used = Usage(input_tokens=90, output_tokens=10, cached_tokens=0, cost_usd=0.25)
    call = ModelCalled(role="planner", model="m", seconds=1, usage=used, cycle=1, turn=1, message={"role": "assistant"})
    record = RunRecord(lambda event: None, Budget(Limits(model_calls=1)), [call])
    assert (record.budget.model_calls, record.budget.known_tokens, record.budget.known_cost_usd) == (1, 100, 0.25)
