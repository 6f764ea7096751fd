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
TABLES = ["ports.XLSX", "ports.doc", "ports.ods", "ports.tsv"]


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
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_over_each_kind_of_document_is_answered(memento: Memento, name: str) -> None:
    make_folder(memento.folder)
    question, answer = QUESTIONS[name]
    assert ask(memento, name, question) == answer


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_each_kind_of_table_is_summed(memento: Memento, name: str) -> None:
    make_folder(memento.folder)
    # The stand-in knows a table by its name; the server tells XLS, ODS and TSV by what is in them.
    named = f"{Path(name).stem}-{Path(name).suffix[1:]}.xlsx"
    (memento.folder / name).rename(memento.folder / named)
    assert ask(memento, named, "What is the total of ships?") == "42"
