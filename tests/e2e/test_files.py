"""`memento ask --file` over every kind of file, with the offline stand-in: real processes, no key, no network.

No file's name says what it is, and each answer stands in the file alone: it can only come from what the tools returned.
"""

import io
import json
import tarfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from memento_documents.pdf import find_tessdata
from support.command import Memento
from support.document_files import make_xlsx, pdf_bytes, zip_bytes
from support.office_files import ROWS, docx_bytes, eml_bytes, epub_bytes, ods_bytes, odt_bytes, pptx_bytes, xls_bytes
from support.signals import model_server, picture_of, sound_of, video_of
from support.xlsb_file import xlsb_bytes

MILL = "The mill was built by Ane Ris."
WHO = "Who built the mill?"
TOTAL = "What is the total of ships?"


def xlsx_bytes(folder: Path) -> bytes:
    return make_xlsx(folder / "made.xlsx", {"Ports": ROWS}).read_bytes()


def tar_bytes(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def written_image(text: str) -> bytes:
    """Letters as dots: only OCR gets the text out of it."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (900, 120), "white")
    ImageDraw.Draw(image).text((30, 30), text, "black", ImageFont.load_default(44))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def squares(text: str) -> bytes:
    content = io.BytesIO()
    picture_of(text).save(content, "PNG")
    return content.getvalue()


def code(text: str) -> bytes:
    return f"def mill():\n    '''Grind.\n\n    {text}\n    '''\n    return {{'grain': [1, 2]}}\n".encode()


CASES: dict[str, tuple[Callable[[Path], bytes], str, str]] = {
    "PDF": (lambda _: pdf_bytes(["Wind.", MILL]), WHO, "Ane Ris"),
    "DOCX": (lambda _: docx_bytes(), "Who designed the bridge?", "Ida Holm"),
    "PPTX": (lambda _: pptx_bytes(), "Where was the ferry built?", "Turku"),
    "ODT": (lambda _: odt_bytes(), "Who restored the organ?", "Nils Berg"),
    "EPUB": (lambda _: epub_bytes(), "Who kept the lighthouse?", "Jon Vik"),
    "HTML": (lambda _: f"<!DOCTYPE html><body><h1>Wind</h1><p>{MILL}</p>".encode(), WHO, "Ane Ris"),
    "Markdown": (lambda _: f"# Wind\n\n- one\n\n{MILL}\n".encode(), WHO, "Ane Ris"),
    "text": (lambda _: f"Wind and water.\n\n{MILL}\n".encode("utf-16"), WHO, "Ane Ris"),
    "code": (lambda _: code(MILL), WHO, "Ane Ris"),
    "JSON": (lambda _: json.dumps({"wind": {"note": MILL, "sails": [4, 4]}}).encode(), WHO, "Ane Ris"),
    "JSON Lines": (lambda _: b'{"note": "Wind."}\n' + json.dumps({"note": MILL}).encode() + b"\n", WHO, "Ane Ris"),
    "XML": (lambda _: f"<?xml version='1.0'?><a><b c='4'><note>{MILL}</note></b></a>".encode(), WHO, "Ane Ris"),
    "YAML": (lambda _: f"wind:\n  sails: 4\n  note: {MILL}\n".encode(), WHO, "Ane Ris"),
    "EML": (lambda _: eml_bytes({}), "Who set the dues?", "Karin Lund"),
    "EML attachment": (lambda _: eml_bytes({"a.bin": pdf_bytes([MILL])}), WHO, "Ane Ris"),
    "ZIP": (lambda _: zip_bytes({"a/x": b"Wind.", "a/y": docx_bytes()}), "Who designed the bridge?", "Ida Holm"),
    "TAR": (lambda _: tar_bytes({"x": b"Wind.", "y": MILL.encode()}), WHO, "Ane Ris"),
    "image, by its text": (lambda _: written_image(MILL), WHO, "Ane Ris"),
    "image, by the model": (lambda _: squares(MILL), WHO, "Ane Ris"),
    "video, by the model": (lambda _: video_of(MILL), WHO, "Ane Ris"),
    "audio, by the model": (lambda _: sound_of(MILL), WHO, "Ane Ris"),
    "XLSX": (xlsx_bytes, TOTAL, "42"),
    "XLS": (lambda _: xls_bytes(ROWS), TOTAL, "42"),
    "XLSB": (lambda _: xlsb_bytes(ROWS), TOTAL, "42"),
    "ODS": (lambda _: ods_bytes(ROWS), TOTAL, "42"),
    "CSV": (lambda _: b"Port;Ships\nTurku;12\nBergen;30\n", TOTAL, "42"),
    "TSV": (lambda _: b"Port\tShips\nTurku\t12\nBergen\t30\n", TOTAL, "42"),
}  # fmt: skip


@pytest.fixture(scope="module")
def models() -> Generator[str]:
    with model_server() as base_url:
        yield base_url


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_a_question_over_each_kind_of_file_is_answered_from_what_is_in_it(
    kind: str, models: str, tmp_path: Path
) -> None:
    if kind == "image, by its text" and find_tessdata() is None:
        pytest.skip("no Tesseract language data is installed (apt-get install tesseract-ocr-eng)")
    make, question, answer = CASES[kind]
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "attachment").write_bytes(make(tmp_path))
    environment = {"MEMENTO_DOCUMENTS_FOLDERS": "${MEMENTO_FOLDERS:-.}"}
    for what in ("VISION", "TRANSCRIPTION"):
        environment |= {f"MEMENTO_DOCUMENTS_{what}_BASE_URL": models, f"MEMENTO_DOCUMENTS_{what}_MODEL": "reader"}
    config = folder / "servers.json"
    config.write_text(json.dumps({"mcpServers": {"documents": {"command": "memento-documents", "env": environment}}}))
    memento = Memento(tmp_path / "home", folder)
    options = ("--model", "offline", "--config", str(config), "--memory", "off", "--json")
    done = memento.run("ask", *options, "--file", str(folder / "attachment"), question)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answer"] == answer
