"""`memento ask --file` over every kind of file, with the offline stand-in: real processes, no key, no network."""

import json
from pathlib import Path

import pytest

from support.command import Memento
from support.office_files import make_folder

QUESTIONS = {
    "report.DOCX": ("Who designed the bridge?", "Ida Holm"),
    "deck.pdf": ("Where was the ferry built?", "Turku"),
    "letter.odt": ("Who restored the organ?", "Nils Berg"),
    "tides.zip": ("Who kept the lighthouse?", "Jon Vik"),
    "page.txt": ("Who made the crane?", "Olav Moe"),
    "dues.eml": ("Who set the dues?", "Karin Lund"),
    "notes.md": ("Who laid the buoy?", "Per Dahl"),
}
TABLES = ["ports.XLSX", "ports.doc", "ports.ods", "ports.csv", "ports.tsv", "ports.jsonl"]


@pytest.fixture
def memento(tmp_path: Path) -> Memento:
    folder = tmp_path / "work"
    folder.mkdir()
    return Memento(tmp_path / "home", folder)


def ask(memento: Memento, name: str, question: str) -> str:
    config = memento.folder / "servers.json"
    if not config.exists():
        documents = {"command": "memento-documents", "env": {"MEMENTO_DOCUMENTS_FOLDERS": "${MEMENTO_FOLDERS:-.}"}}
        config.write_text(json.dumps({"mcpServers": {"documents": documents}}), encoding="utf-8")
    options = ("--model", "offline", "--config", str(config), "--memory", "off", "--json")
    done = memento.run("ask", *options, "--file", str(memento.folder / name), question)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["answer"])


@pytest.mark.slow
def test_a_question_over_each_kind_of_document_is_answered(memento: Memento) -> None:
    make_folder(memento.folder)
    answers = {name: ask(memento, name, question) for name, (question, _) in QUESTIONS.items()}
    assert answers == {name: answer for name, (_, answer) in QUESTIONS.items()}


@pytest.mark.slow
def test_each_kind_of_table_is_summed(memento: Memento) -> None:
    make_folder(memento.folder)
    assert {name: ask(memento, name, "What is the total of ships?") for name in TABLES} == dict.fromkeys(TABLES, "42")
