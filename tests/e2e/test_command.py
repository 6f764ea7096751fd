"""The command as a person uses it: real processes, real servers, no key, no network."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from memento.events import parse_record
from support.command import Memento
from support.document_files import make_pdf


@pytest.fixture
def memento(tmp_path: Path) -> Memento:
    folder = tmp_path / "work"
    folder.mkdir()
    return Memento(tmp_path / "home", folder)


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    return lines[0]


def config(folder: Path, **servers: Any) -> str:
    path = folder / "servers.json"
    path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    return str(path)


SEARCH = {"command": "memento-search", "env": {"MEMENTO_SEARCH_FOLDERS": "${MEMENTO_FOLDERS:-.}"}}
CASEBANK = {"command": "memento-casebank"}
DOCUMENTS = {"command": "memento-documents", "env": {"MEMENTO_DOCUMENTS_FOLDERS": "${MEMENTO_FOLDERS:-.}"}}


def test_a_question_about_a_pdf_it_has_never_seen_is_answered_with_source_cost_and_run(memento: Memento) -> None:
    pdf = memento.folder / "Lighthouses.PDF"
    make_pdf(pdf, ["The Eddystone Lighthouse was rebuilt by John Smeaton.", "The Bell Rock was lit in 1811."])
    done = memento.run(
        "ask", "--model", "offline", "--file", str(pdf), "--json", "Who rebuilt the Eddystone Lighthouse?"
    )
    assert done.returncode == 0, done.stderr
    events = [parse_record(line).event.type for line in done.stderr.splitlines()]
    assert (events[0], events[-1]) == ("run_started", "run_ended"), "the events, as they happened, and nothing else"
    told = json.loads(done.stdout)
    assert (told["answer"], told["status"], told["cost"]) == ("John Smeaton", "answered", 0.0)
    assert told["sources"] == [f"{pdf} page 1"]
    assert told["cases_used"] == []
    shown = memento.run("runs", "show", told["run_id"])
    assert "answer: John Smeaton" in shown.stdout


def test_a_spreadsheet_is_summed(memento: Memento) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in [("Town", "Inhabitants"), ("Ahausen", 1200), ("Bedorf", 800)]:
        sheet.append(row)
    book.save(memento.folder / "towns.xlsx")
    path = config(memento.folder, documents=DOCUMENTS, search=SEARCH)
    args = ("--model", "offline", "--config", path, "--memory", "off", "--file", "towns.xlsx", "--json")
    told = json.loads(memento.run("ask", *args, "What is the total of inhabitants?").stdout)
    assert (told["answer"], told["sources"]) == ("2000", [str(memento.folder / "towns.xlsx")])


def test_feedback_turns_into_the_outcome_and_the_next_question_is_planned_from_it(memento: Memento) -> None:
    text = "# Rivers\n\nThe Po is 652 km long.\n\nThe Rhine is 1233 km long.\n"
    (memento.folder / "rivers.md").write_text(text, encoding="utf-8")
    path = config(memento.folder, documents=DOCUMENTS, search=SEARCH, casebank=CASEBANK)
    ask = ("ask", "--model", "offline", "--config", path, "--json")
    always = {"MEMENTO_CASEBANK_POLICY": "similarity"}  # the default policy goes without cases now and then

    first = json.loads(
        memento.run(*ask, "--file", "rivers.md", "How long is the Po, says rivers.md?", environ=always).stdout
    )
    assert (first["answer"], first["cases_shown"]) == ("652", [])
    verdict = memento.run("feedback", first["run_id"][-6:], "good", "--config", path)
    assert (verdict.returncode, verdict.stdout.count("is marked good")) == (0, 1)

    second = json.loads(
        memento.run(*ask, "--folder", ".", "How long is the Rhine, says rivers.md?", environ=always).stdout
    )
    assert second["answer"] == "1233"
    assert len(second["cases_used"]) == 1
    plan = memento.run("runs", "show", second["run_id"]).stdout
    assert "1.1 Read the document that is attached or named" in plan, "its first plan is the one that worked before"
    runs = json.loads(memento.run("runs", "list", "--json").stdout)["runs"]
    assert [run["run_id"] for run in runs if run["reward"] == 1.0] == [first["run_id"]]


OFFLINE = ("ask", "--model", "offline")


@pytest.mark.parametrize(
    ("args", "environ", "told"),
    [
        pytest.param(("ask", " "), {}, "memento: the question is empty", id="empty question"),
        pytest.param(("ask", "--model", "gpt-4.1", "Q?"), {}, "needs a key, and OPENAI_API_KEY", id="no key"),
        pytest.param(("ask", "Q?"), {"OPENAI_API_KEY": "k"}, "memento: no model is named", id="a key but no model"),
        pytest.param((*OFFLINE, "--file", "none.pdf", "Q?"), {}, "none.pdf is not there", id="missing file"),
        pytest.param((*OFFLINE, "--file", ".", "Q?"), {}, ". is not a file", id="folder as file"),
        pytest.param((*OFFLINE, "--folder", "none", "Q?"), {}, "none is not there", id="missing folder"),
        pytest.param((*OFFLINE, "--config", "none.json", "Q?"), {}, "cannot be read", id="missing config"),
        pytest.param((*OFFLINE, "Q?"), {"MEMENTO_MAX_PLANS": "0"}, "MEMENTO_MAX_PLANS: Input", id="wrong setting"),
        pytest.param(
            ("ask", "--planner-model", "offline", "--executor-model", "x", "Q?"), {}, "every role or none", id="mixed"
        ),
        pytest.param(("feedback", "nothing", "good"), {}, "There is no run 'nothing'", id="no such run"),
        pytest.param(("runs", "show", "last"), {}, "no run has been kept under", id="no run at all"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    memento: Memento, args: tuple[str, ...], environ: dict[str, str], told: str
) -> None:
    done = memento.run(*args, environ=environ)
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.startswith("memento: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("ask", "--model", "offline", "Q?"), ("tools",), ("runs", "list"), ("demo",)])
def test_a_home_that_cannot_be_written_is_one_clear_line(memento: Memento, command: tuple[str, ...]) -> None:
    (memento.folder / "file").touch()
    done = memento.run(*command, environ={"MEMENTO_HOME": str(memento.folder / "file" / "home")})
    assert done.returncode == 2
    told = one_line(done.stderr)
    assert told.startswith("memento: MEMENTO_HOME ")
    assert told.endswith("set it to a folder you can write.")


def test_doctor_names_a_home_that_cannot_be_written(memento: Memento) -> None:
    (memento.folder / "file").touch()
    done = memento.run("doctor", environ={"MEMENTO_HOME": str(memento.folder / "file" / "home")})
    assert done.returncode == 1
    assert "✗ MEMENTO_HOME" in done.stdout
    assert "Traceback" not in done.stderr


def test_no_key_and_no_model_shows_the_three_ways_to_go_on(memento: Memento) -> None:
    done = memento.run("ask", "Q?")
    assert done.returncode == 2
    for way in ("OPENAI_API_KEY", "--base-url http://localhost:11434/v1", "--model offline"):
        assert way in done.stderr


def test_an_endpoint_nobody_serves_ends_with_one_line_and_the_run_is_kept(memento: Memento) -> None:
    path = config(memento.folder, documents=DOCUMENTS)
    args = ("--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--config", path, "--memory", "off", "--quiet")
    done = memento.run("ask", *args, "Q?", environ={"MEMENTO_MODEL_RETRIES": "0"})
    assert done.returncode == 1
    assert "No answer: m at http://127.0.0.1:9/v1/ cannot be reached" in done.stdout
    assert "(memento resume " in done.stdout, "it can go on when the endpoint is there"
    assert "Traceback" not in done.stderr
    assert json.loads(memento.run("runs", "list", "--json").stdout)["runs"][0]["status"] == "failed"


def test_an_unreadable_pdf_and_broken_servers_do_not_stop_a_run(memento: Memento) -> None:
    (memento.folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnot really")
    servers = {
        "documents": DOCUMENTS,
        "gone": {"command": "no-such-command"},
        "dies": {"command": sys.executable, "args": ["-c", "raise SystemExit('no licence')"]},
        "garbage": {"command": sys.executable, "args": ["-c", "print('hello')"]},
    }
    path = config(memento.folder, **servers)
    done = memento.run(
        "ask", "--model", "offline", "--config", path, "--memory", "off", "--file", "broken.pdf", "Who wrote it?"
    )
    assert done.returncode == 0
    assert "I could not find it." in done.stdout
    assert "! The gone server is not available: the command 'no-such-command' is not installed" in done.stderr
    assert "! The dies server is not available: Connection closed; it said: no licence" in done.stderr
    assert "! The garbage server is not available: Connection closed" in done.stderr
    assert "broken.pdf" in done.stderr
    assert "Traceback" not in done.stderr


def test_only_what_nobody_says_otherwise_is_logged_of_a_forgotten_failure() -> None:
    program = """
import asyncio, gc
from memento import cli

async def forget(error):
    asyncio.get_running_loop().create_future().set_exception(error)
    gc.collect()

def app():
    asyncio.run(forget(BrokenPipeError("the server is gone")))
    asyncio.run(forget(ValueError("a mistake of ours")))

cli.app = app
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "a mistake of ours" in done.stderr
    assert "the server is gone" not in done.stderr


def test_doctor_checks_what_is_used_and_names_each_fix(memento: Memento) -> None:
    path = config(memento.folder, casebank=CASEBANK, gone={"command": "no-such-command"})
    done = memento.run("doctor", "--model", "offline", "--config", path, "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    checks = {check["name"]: check for check in told["checks"]}
    assert told["ok"] is False
    assert [name for name, check in checks.items() if not check["ok"]] == ["server gone"]
    assert checks["server gone"]["fix"].startswith("install it (pip install no-such-command)")
    assert checks["case memory"]["ok"]
    assert checks["model offline"]["ok"]


def test_doctor_on_the_shipped_list_finds_everything_in_order(memento: Memento) -> None:
    done = memento.run("doctor", "--model", "offline")
    assert done.returncode == 0, done.stdout
    assert "✗" not in done.stdout
    assert done.stdout.count("✓ server ") == 5


def test_doctor_probes_a_model_and_reads_the_dialect_that_it_names(memento: Memento) -> None:
    path = config(memento.folder, casebank=CASEBANK)
    done = memento.run("doctor", "--model", "offline", "--config", path, "--probe", "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True), "the stand-in needs no probe"
    wrong = {"MEMENTO_DIALECT": "tools=no"}
    done = memento.run("doctor", "--model", "offline", "--config", path, "--json", environ=wrong)
    (check,) = [check for check in json.loads(done.stdout)["checks"] if not check["ok"]]
    assert (check["name"], check["found"].partition(";")[0]) == ("MEMENTO_DIALECT", "there is no capability 'tools'")


def test_doctor_says_the_three_ways_when_there_is_no_model(memento: Memento) -> None:
    done = memento.run("doctor", "--config", config(memento.folder, casebank=CASEBANK))
    assert done.returncode == 1
    assert "✗ model: no model is set up" in done.stdout
    assert "--model offline" in done.stdout


def test_tools_lists_what_the_executor_is_offered_and_why_a_server_is_missing(memento: Memento) -> None:
    documents = {**DOCUMENTS, "denyTools": ["query_*"]}
    gone, off = {"command": "no-such-command"}, {"command": "x", "disabled": True}
    path = config(memento.folder, casebank=CASEBANK, documents=documents, gone=gone, off=off)
    told = json.loads(memento.run("tools", "--config", path, "--json").stdout)
    names = {tool["name"] for tool in told["tools"]}
    assert "documents__read_document" in names
    assert "documents__query_table" not in names
    assert not any(tool["name"].startswith("casebank") for tool in told["tools"])
    assert list(told["missing"]) == ["gone", "off"]
    states = {name: (server["state"], server["hidden"]) for name, server in told["servers"].items()}
    assert states == {"casebank": ("ready", 0), "documents": ("ready", 1), "gone": ("failed", 0)}
    shown = memento.run("tools", "--config", path).stdout
    assert re.search(r"^ready: documents \S+: \d+ tools, 1 hidden by mcp.json$", shown, re.MULTILINE)
    assert "for the case memory, not offered to models" in shown
    assert "missing: gone: the command 'no-such-command' is not installed" in shown
    assert "missing: off: disabled in mcp.json" in shown


def test_cases_is_the_command_of_the_case_bank(memento: Memento) -> None:
    done = memento.run("cases", "stats")
    assert done.returncode == 0, done.stderr
    assert "cases" in done.stdout.lower()


def test_ctrl_c_ends_at_once_with_exit_code_130_and_leaves_no_process_behind(memento: Memento) -> None:
    slow = "import time, sys; sys.stdin.readline(); time.sleep(600)"
    path = config(memento.folder, slow={"command": sys.executable, "args": ["-c", slow]})
    process = memento.start("ask", "--model", "offline", "--config", path, "--memory", "off", "Q?")
    assert process.stderr is not None
    log = memento.home / "logs" / "slow.log"
    while not log.exists():  # the server is being started; the test's own time limit bounds the wait
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Interrupted." in stderr
    assert "Traceback" not in stderr


def test_two_at_once_both_answer_and_the_one_without_memory_says_so(memento: Memento) -> None:
    (memento.folder / "rivers.md").write_text("# Rivers\n\nThe Po is 652 km long.\n", encoding="utf-8")
    args = ("ask", "--model", "offline", "--file", "rivers.md", "How long in km is the Po?")
    both = [memento.start(*args) for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    without = [stderr for _, stderr in ended if "Case memory could not be read" in stderr]
    assert len(without) <= 1
    done = memento.run(*args)
    assert done.returncode == 0
    stats = json.loads(memento.run("cases", "stats", "--json").stdout)
    assert stats["records"]["cases"] == 3, "what waited in the outbox was delivered by the next run"


def test_nothing_is_written_outside_the_home_and_no_key_reaches_a_server(memento: Memento) -> None:
    show = "import os, sys; sys.stderr.write(repr(dict(os.environ))); sys.exit(1)"
    path = config(memento.folder, spy={"command": sys.executable, "args": ["-c", show]})
    memento.run(
        "ask", "--model", "offline", "--config", path, "--memory", "off", "Q?", environ={"OPENAI_API_KEY": "sk-secret"}
    )
    told = (memento.home / "logs" / "spy.log").read_text(encoding="utf-8")
    assert "PATH" in told
    assert "sk-secret" not in told
    assert sorted(entry.name for entry in memento.folder.iterdir()) == ["servers.json"]
