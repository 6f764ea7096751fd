"""The record of runs: what is on disk after a crash, finding a run, and an index that can be made again."""

from pathlib import Path

import pytest

from memento.events import Answered, OutcomeRecorded, RunEnded, RunStarted, Usage, Warned
from memento.journal import Journal, RunNotFound

STARTED = RunStarted(question="Q?", planner_model="m", executor_model="m")
USAGE = Usage(input_tokens=1, output_tokens=1, cost_usd=0.5)
ENDED = RunEnded(status="answered", seconds=1.5, model_calls=2, tool_calls=1, usage=USAGE)


def write_run(journal: Journal, *events: object) -> str:
    log = journal.new_run()
    for event in events:
        log.append(event)  # pyright: ignore[reportArgumentType]
    log.close()
    return log.run_id


def test_records_are_numbered_without_gaps_and_come_back_as_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    run = write_run(journal, STARTED, Warned(text="¡cuidado! 桥"), Answered(answer="42"), ENDED)
    records = list(journal.records(run))
    assert [record.number for record in records] == [1, 2, 3, 4]
    assert [record.event for record in records] == [STARTED, Warned(text="¡cuidado! 桥"), Answered(answer="42"), ENDED]


def test_each_record_is_on_disk_before_append_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    log = journal.new_run()
    log.append(STARTED)
    assert journal.events(log.run_id) == [STARTED]
    log.close()


def test_a_last_line_cut_off_by_a_crash_is_left_out_and_a_broken_middle_is_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    run = write_run(journal, STARTED, ENDED)
    path = journal.run_folder(run) / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert journal.events(run) == [STARTED]
    path.write_bytes(b'{"run_id"\n' + whole)
    with pytest.raises(ValueError, match="validation error"):
        journal.events(run)


def test_an_index_that_is_gone_is_made_again_from_the_event_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    write_run(journal, STARTED, Answered(answer="a"), OutcomeRecorded(reward=1.0, kind="human"), ENDED)
    write_run(journal, STARTED)
    before = journal.runs()
    (tmp_path / "runs.sqlite3").unlink()
    assert journal.runs() == before
    assert journal.rebuild_index() == 2
    finished = next(run for run in before if run.status == "answered")
    assert (finished.answer, finished.reward, finished.cost_usd, finished.tool_calls) == ("a", 1.0, 0.5, 1)
    assert {run.status for run in before} == {"answered", "interrupted"}


def test_a_run_is_found_by_its_id_its_end_and_the_word_last(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(RunNotFound, match="no run has been kept"):
        journal.find("last")
    first, second = sorted(write_run(journal, STARTED) for _ in range(2))
    assert journal.find(first) == first
    assert journal.find(second[-6:]) == second
    assert journal.find("last") == second
    for wrong in ("nothing", ""):
        with pytest.raises(RunNotFound, match="There is no run"):
            journal.find(wrong)
    with pytest.raises(RunNotFound, match="fits 2 runs"):
        journal.find(first[:8])


def test_a_run_opened_again_goes_on_with_the_numbers(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    run = write_run(journal, STARTED, ENDED)
    log = journal.reopen(run)
    record = log.append(OutcomeRecorded(reward=0.0, kind="human"))
    log.close()
    assert record.number == 3
    assert journal.runs()[0].reward == 0.0


def test_an_unknown_outcome_stays_unknown_in_the_index(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    write_run(journal, STARTED, OutcomeRecorded(reward=None, kind="judge"), ENDED)
    assert journal.runs()[0].reward is None
