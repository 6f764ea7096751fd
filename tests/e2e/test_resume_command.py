"""`memento resume` and `memento runs` as a person uses them: after Ctrl-C, after kill -9, with wrong input."""

import json
import os
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.command import Memento

QUESTION = ("How long in km is the Po?", "652")


@pytest.fixture
def memento(tmp_path: Path) -> Memento:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "rivers.md").write_text("# Rivers\n\nThe Po is 652 km long.\n", encoding="utf-8")
    documents = {"command": "memento-documents", "env": {"MEMENTO_DOCUMENTS_FOLDERS": "${MEMENTO_FOLDERS:-.}"}}
    servers = {"documents": documents, "casebank": {"command": "memento-casebank"}}
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    return Memento(tmp_path / "home", folder)


def interrupted(memento: Memento, at: str, number: int) -> "tuple[str, subprocess.Popen[str], str]":
    """Ask, send the signal `number` as soon as an event of the kind `at` is told; returns the run id and stderr."""
    process = memento.start("ask", "--model", "offline", "--file", "rivers.md", "--json", QUESTION[0])
    assert process.stderr is not None
    told: list[str] = []
    for line in process.stderr:
        told.append(line)
        record: dict[str, Any] = json.loads(line)
        if record["event"]["type"] == at:
            break
    os.kill(process.pid, number)
    _, rest = process.communicate(timeout=60)
    return json.loads(told[0])["run_id"], process, rest


@pytest.mark.slow
@pytest.mark.parametrize("at", ["tool_called", "answered"])
def test_a_killed_run_is_listed_as_interrupted_and_resume_gives_the_answer(memento: Memento, at: str) -> None:
    run_id, process, _ = interrupted(memento, at, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    (row,) = json.loads(memento.run("runs", "list", "--json").stdout)["runs"]
    assert (row["run_id"], row["status"]) == (run_id, "interrupted")
    done = memento.run("resume", run_id[-6:], "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["answer"], told["run_id"]) == (0, QUESTION[1], run_id)
    assert json.loads(memento.run("runs", "list", "--json").stdout)["runs"][0]["status"] == "answered"
    stats = json.loads(memento.run("cases", "stats", "--json").stdout)
    assert stats["records"]["cases"] == 1
    again = memento.run("resume", "last")
    assert (again.returncode, again.stderr) == (
        2, f"memento: run {run_id} has come to its end: memento runs show {run_id}\n",
    )  # fmt: skip


def test_ctrl_c_in_the_middle_ends_with_130_and_the_command_that_goes_on(memento: Memento) -> None:
    run_id, process, rest = interrupted(memento, "plan_made", signal.SIGINT)
    assert process.returncode == 130
    assert rest.splitlines()[-1] == f"Interrupted. To go on: memento resume {run_id}"
    assert "Traceback" not in rest
    assert json.loads(memento.run("runs", "list", "--json").stdout)["runs"][0]["status"] == "cancelled"
    done = memento.run("runs", "resume", run_id, "--quiet")
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, QUESTION[1], "")


def test_runs_are_exported_and_deleted_and_wrong_input_loses_nothing(memento: Memento) -> None:
    first = memento.run("ask", "--model", "offline", "--file", "rivers.md", "--json", "--quiet", QUESTION[0])
    run_id = json.loads(first.stdout)["run_id"]
    exported = memento.run("runs", "export", "last")
    assert exported.stdout.strip() == f"{run_id}.zip"
    with zipfile.ZipFile(memento.folder / f"{run_id}.zip") as archive:
        lines = archive.read(f"{run_id}/events.jsonl").decode().splitlines()
    assert lines == (memento.home / "runs" / run_id / "events.jsonl").read_text(encoding="utf-8").splitlines()
    for wrong, told in [
        (("runs", "export", "nope"), "There is no run 'nope'."),
        (("runs", "export", "last", "--out", "no/such/folder/x.zip"), "the export cannot be written to"),
        (("runs", "rm", "last"), "this deletes 1 run(s) for good; add --yes to do it."),
        (("runs", "rm", "--yes", "last", "nope"), "There is no run 'nope'."),
        (("resume", "nope"), "There is no run 'nope'."),
    ]:
        done = memento.run(*wrong)
        assert done.returncode == 2, wrong
        assert done.stderr.startswith(f"memento: {told}"), done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert len(json.loads(memento.run("runs", "list", "--json").stdout)["runs"]) == 1
    gone = memento.run("runs", "rm", "--yes", "last")
    assert gone.stdout == f"deleted {run_id}\n"
    assert json.loads(memento.run("runs", "list", "--json").stdout)["runs"] == []
    assert not (memento.home / "runs" / run_id).exists()
