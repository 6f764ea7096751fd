"""memento_documents: files of every kind, made by real writers, and hostile ones, made here byte by byte."""

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent

from memento_documents.archive import open_member
from memento_documents.html import html_to_text
from memento_documents.kinds import Unreadable, detect_kind
from memento_documents.reading import Document, read_file
from memento_documents.server import Settings, build_server
from memento_kit import unfence
from support.document_files import zip_bytes
from support.office_files import (
    docx_bytes,
    eml_bytes,
    epub_bytes,
    macro_docx_bytes,
    make_folder,
    odt_bytes,
    png_bytes,
    pptx_bytes,
    raised_pptx_bytes,
    tar_gz_bytes,
    xls_bytes,
)

pytestmark = pytest.mark.anyio

Ask = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncGenerator[Ask]:
    """One server over `tmp_path`: `await ask(tool, **arguments)` gives the structured answer, or {"error": …}."""
    async with Client(build_server(Settings(folders=(tmp_path,)))) as client:

        async def call(tool: str, /, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(tool, arguments)
            assert isinstance(result.content[0], TextContent)
            if result.is_error:
                return {"error": result.content[0].text.removeprefix(f"Error executing tool {tool}: ")}
            assert result.structured_content is not None
            return {**result.structured_content, "shown": unfence(result.content[0].text)}

        yield call


def read(content: bytes, name: str = "file") -> Document:
    return read_file(*open_member(io.BytesIO(content), name))


WHAT_IS_IN_IT = {
    "paper.pdf": "The pier was opened by Queen Maud.",
    "report.DOCX": "The bridge was designed by Ida Holm.",
    "deck.pdf": "The ferry was built in Turku.",
    "ports.XLSX": "| Turku | 12 |",
    "ports.doc": "| Turku | 12 |",
    "ports.ods": "| Turku | 12 |",
    "letter.odt": "The organ was restored by Nils Berg.",
    "tides.zip": "The lighthouse was kept by Jon Vik.",
    "ports.csv": "| Turku | 12 |",
    "ports.tsv": "| Turku | 12 |",
    "page.txt": "The crane was made by Olav Moe.",
    "ports.json": '"Turku"',
    "ports.jsonl": '"Turku"',
    "ports.xml": "<port>Turku</port>",
    "ports.yaml": "- Turku",
    "notes.md": "The buoy was laid by Per Dahl.",
    "code.PY": "SHIPS = {'Turku': 12}",
    "dues.eml": "The dues were set by Karin Lund.",
    "photo.PNG": "64 × 48 pixels",
    "tone.wav": "2.0 seconds",
    "ferry.mkv": "64 × 48 pixels",
    "data.tar": "- deep/ports.csv (20 bytes)",
    "ports.csv.gz": "| Turku | 12 |",
    "data.zip": "- in/ports.csv (30 bytes)",
}


async def test_a_folder_of_files_of_every_kind_is_read_each_by_its_content(tmp_path: Path, ask: Ask) -> None:
    kinds = make_folder(tmp_path)
    assert kinds.keys() == WHAT_IS_IN_IT.keys()
    for name, kind in kinds.items():
        document = await ask("read_document", source=name)
        assert document.get("kind") == kind, (name, document)
        assert WHAT_IS_IN_IT[name] in document["text"], name
        assert document["total"] == len(document["text"])
        outline = await ask("document_outline", source=name)
        assert outline["kind"] == kind, name
    for member, text in {
        "data.zip!/in/ports.csv": "| Bergen | 30 |",
        "data.zip!/inner.tgz!/deep/ports.csv": "| Turku | 12 |",
        "data.zip!/d.eml!/ports.xls": "| Bergen | 30 |",
        "dues.eml!/ports.xls": "| Bergen | 30 |",
        "deck.pdf!/ppt/media/image1.png": "The harbour of Bergen in winter",
    }.items():
        assert text in (await ask("read_document", source=member))["text"], member
    for source in [
        "ports.XLSX", "ports.doc", "ports.ods", "ports.csv", "ports.tsv", "ports.jsonl", "ports.csv.gz",
        "data.zip!/in/ports.csv",
    ]:  # fmt: skip
        tables = (await ask("query_table", source=source, sql="SELECT 1"))["tables"]
        sql = f"SELECT sum(ships), max(port) FROM {tables[0]['name']}"
        assert (await ask("query_table", source=source, sql=sql))["rows"] == [[42, "Turku"]], source
    rows = (await ask("query_table", source="ports.json", sql="SELECT ships FROM ports WHERE port = 'Turku'"))["rows"]
    assert rows == [[12]]
    found = await ask("search_document", source="tides.zip", query="who kept the lighthouse")
    assert (found["passages"][0]["page"], found["total"]) == (1, 1)
    assert (await ask("read_document", source="deck.pdf", pages="2"))["text"].startswith("[slide 2]\n# Numbers")


def test_a_presentation_comes_slide_by_slide_with_notes_tables_charts_and_pictures() -> None:
    first, second = read(pptx_bytes()).sections
    assert (first.page, first.title) == (1, "Plan of 2024")
    assert first.text == ("# Plan of 2024\n\n- The ferry was built in Turku.\n  - By night\n\nNotes: Thank the yard\n")
    assert "10<sup>2</sup> m, H<sub>2</sub>O" in read(raised_pptx_bytes()).sections[0].text
    assert second.text == (
        "# Numbers\n\n| Port | Ships |\n| --- | --- |\n| Turku | 12 |\n\nChart\n\n|  | Passengers |\n| --- | --- |\n"
        "| 2023 | 1.5 |\n| 2024 | 2 |\n\n![image.png](ppt/media/image1.png)\n"
    )


def test_the_main_part_of_a_presentation_may_have_any_name() -> None:
    with zipfile.ZipFile(io.BytesIO(pptx_bytes())) as show:
        members = {name: show.read(name) for name in show.namelist()}
    renamed = {
        name.replace("presentation.xml", "show.xml"): content.replace(b"ppt/presentation.xml", b"ppt/show.xml")
        for name, content in members.items()
    }
    assert "ppt/_rels/show.xml.rels" in renamed
    document = read(zip_bytes(renamed))
    assert (document.kind, [slide.title for slide in document.sections]) == ("pptx", ["Plan of 2024", "Numbers"])


def test_a_word_document_comes_with_lists_pictures_comments_and_page_headers() -> None:
    (section,) = read(docx_bytes()).sections
    assert section.text == (
        "# Report\n\nThe bridge was designed by Ida Holm.\n\n1. first\n2. second\n- point\n\n"
        "| Span | Metres |\n| --- | --- |\n| Main | 420 |\n\n![Picture 1](word/media/image1.png)\n\n"
        "Comments:\n\n- Ann: Are we sure?\n\nPage headers:\n\n- Confidential\n"
    )


def test_an_opendocument_text_comes_with_heading_footnote_list_and_table() -> None:
    (section,) = read(odt_bytes()).sections
    assert section.text == (
        "# Letter\n\nThe organ was restored by Nils Berg.[^1]\n\n- pipes\n\n"
        "| Stop | Feet |\n| --- | --- |\n| Principal | 8 |\n\n[^1]: In 1911.\n"
    )


def test_a_book_comes_by_chapter_with_the_titles_of_its_table_of_contents() -> None:
    book = read(epub_bytes())
    assert book.title == "Tides (M. Vik)"
    assert [(chapter.page, chapter.title) for chapter in book.sections] == [(1, "Ebb"), (2, "Flood")]
    assert book.sections[1].text == "## Flood\n\n- one\n"  # not under the title of the book once more


def test_a_mail_shows_headers_text_once_and_its_attachments() -> None:
    mail = read(eml_bytes({"a.csv": b"x,y\n1,2\n", "b/../c": b"z"}))
    assert mail.title == "Harbour dues"
    assert mail.sections[0].text == (
        "From: Ann Lee <ann@example.org>\nTo: bob@example.org\nDate: Fri, 01 Mar 2024 10:00:00 +0000\n"
        "Subject: Harbour dues\n\nThe dues were set by Karin Lund.\n\n## Attachments\n\n"
        "- a.csv (application/octet-stream, 8 bytes)\n- b_.._c (application/octet-stream, 1 bytes)\n"
    )


def test_html_keeps_lists_tables_links_and_code_and_drops_what_is_not_seen() -> None:
    page = (
        "<html><head><title>T</title><script>x</script></head><body><ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"
        "<table><tr><th>A<th>B<tr><td>1<td><table><tr><td>in</td></tr></table></table>"
        "<p>See <a href='https://x.org/'>this</a> and <a href='#y'>that</a></p><pre>x = 1\n  y</pre></body></html>"
    )
    assert html_to_text(page) == (
        "# T\n\n1. a\n  - b\n2. c\n\n| A | B |\n| --- | --- |\n| 1 | in |\n\n"
        "See [this](https://x.org/) and that\n\n```\nx = 1\n  y\n```\n"
    )


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<title>Tides - Site</title><h1>Tides</h1><h2>Ebb</h2>", "# Tides\n\n## Ebb\n"),
        ("<title>Tides - Site</title><h1></h1><h2>Ebb</h2>", "# Tides - Site\n\n## Ebb\n"),
        ("10<sup>2</sup> of H<sub>2</sub>O<sup></sup>", "10<sup>2</sup> of H<sub>2</sub>O\n"),
        ("<table><td>10<sup>2</sup><td>m</table>", "|  |  |\n| --- | --- |\n| 10<sup>2</sup> | m |\n"),
        ("<pre>a<sup>2</sup></pre>", "```\na2\n```\n"),
    ],
)
def test_a_page_has_one_title_and_raised_text_is_told_from_the_line(page: str, text: str) -> None:
    assert html_to_text(page) == text


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [
        (b'{"a": 1}', "x", "json"),
        (b'{"a": 1}\n{"a": 2}\n', "x", "jsonl"),
        (b"[1, 2]", "x.txt", "text"),
        (b"<svg xmlns='x'/>", "x", "xml"),
        (b"<?xml version='1.0'?><html xmlns='x'/>", "x", "html"),
        (b"From: a@b.c\nTo: b@c.d\nSubject: s\n\nx", "x", "eml"),
        (b"Note: this is no mail\nat all", "x", "text"),
        (b"BMW is a car maker.", "x", "text"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "x", "image"),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(8), "x.mp4", "audio"),
        (b"\xff\xfeH\x00i\x00", "x", "text"),
    ],
)
def test_kinds_without_a_binary_mark_are_told_by_how_they_begin(content: bytes, name: str, kind: str) -> None:
    assert detect_kind(io.BytesIO(content), name) == kind


def test_an_empty_title_or_heading_makes_no_heading_of_what_follows() -> None:
    page = "<html><head><title></title></head><body><p>one</p><h2> </h2><p>two</p><h2>three</h2>four</body></html>"
    assert html_to_text(page) == "one\n\ntwo\n\n## three\n\nfour\n"


def test_a_paragraph_that_looks_like_a_heading_or_a_table_is_neither() -> None:
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in ("# a comment", "| x |", "#1 of all"))
    content = zip_bytes({"word/document.xml": f"<w:document {w}><w:body>{body}</w:body></w:document>".encode()})
    assert read(content).sections[0].text == "\\# a comment\n\n\\| x |\n\n#1 of all\n"


def deep(start: bytes, end: bytes, depth: int = 200_000) -> bytes:
    return start * depth + end * depth


def bomb_zip() -> bytes:
    return zip_bytes({"zeros": bytes(250_000_000)})


def nested_zip(depth: int) -> bytes:
    content = zip_bytes({"a.txt": b"x"})
    for _ in range(depth):
        content = zip_bytes({"z.zip": content})
    return content


def tar_bomb() -> bytes:
    content = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=content, mode="wb", compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        info = tarfile.TarInfo("zeros")
        info.size = 250_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return content.getvalue()


ENTITIES = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><x>&b;</x>'


def huge_png() -> bytes:
    """60,000² pixels promised, none there."""
    import struct
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def sparse_xlsx() -> bytes:
    """Two cells, A1 and XFD1048576: 17 billion when laid out."""
    import openpyxl

    book: Any = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = 1, 2
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def with_entities(content: bytes, part: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            new.writestr(name, ENTITIES if name == part else old.read(name))
    return packed.getvalue()


HOSTILE: list[tuple[str, Callable[[], bytes], str]] = [
    ("bomb.zip!/zeros", bomb_zip, "unpacks to 250 MB"),
    ("nested.zip" + "!/z.zip" * 6, lambda: nested_zip(6), "Archives are opened 4 deep at most."),
    ("bomb.tgz", tar_bomb, "unpacks to over 200 MB"),
    ("bomb.gz", lambda: gzip.compress(bytes(250_000_000), 1), "unpacks to over 200 MB"),
    ("out.tar!/way-out", lambda: tar_gz_bytes({"a": b"x"}), "There is no member 'way-out'"),
    ("entities.xml", lambda: ENTITIES, "declares entities"),
    ("laughs.xml", lambda: LAUGHS, "declares entities"),
    ("deep.json", lambda: deep(b"[", b"]"), "nested too deeply"),
    ("entities.docx", lambda: with_entities(docx_bytes(), "word/document.xml"), "declares XML entities"),
    ("entities.pptx", lambda: with_entities(pptx_bytes(), "ppt/slides/slide1.xml"), "declares XML entities"),
    ("entities.odt", lambda: with_entities(odt_bytes(), "content.xml"), "declares XML entities"),
    ("bomb.docx", lambda: zip_bytes({"word/document.xml": b"<x>" + b" " * 150_000_000}), "too large to be read"),
    ("cut.pptx", lambda: pptx_bytes()[:9_000], "its directory is damaged"),
    ("cut.xls", lambda: xls_bytes([["a", 1]])[:2_500], "an old Office"),
    ("huge.png", huge_png, "60000 × 60000 pixels"),
    ("noise.mp3", lambda: b"ID3" + bytes(range(256)) * 40, "The recording is damaged"),
    ("playlist.flac", lambda: b"fLaC\n#EXTM3U\nfile:///etc/passwd\n" + bytes(200), "The recording is damaged"),
    ("x.rar", lambda: b"Rar!\x1a\x07\x01\x00" + bytes(50), "This is a RAR archive"),
]


@pytest.mark.slow
async def test_each_hostile_file_gets_one_clear_line_and_the_server_lives(tmp_path: Path, ask: Ask) -> None:
    for source, make, reason in HOSTILE:
        (tmp_path / source.partition("!/")[0]).write_bytes(make())
        answer = await ask("read_document", source=source)
        assert reason in answer.get("error", ""), (source, answer)
        assert "\n" not in answer["error"]
        assert len(answer["error"]) < 500
    (tmp_path / "sparse.xlsx").write_bytes(sparse_xlsx())
    assert "nearly all empty" in (await ask("query_table", source="sparse.xlsx", sql="SELECT 1"))["error"]
    assert (await ask("read_document", source="sparse.xlsx", max_chars=200))["kind"] == "xlsx"
    (tmp_path / "aliases.yaml").write_bytes(
        b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 122))
    )
    assert (await ask("read_document", source="aliases.yaml"))["kind"] == "yaml"
    (tmp_path / "deep.xml").write_bytes(deep(b"<a>", b"</a>", 50_000))
    assert "error" not in await ask("document_outline", source="deep.xml")
    (tmp_path / "macros.doc").write_bytes(macro_docx_bytes())
    assert "It has macros, which were not run." in (await ask("read_document", source="macros.doc"))["notes"]
    (tmp_path / "fine.png").write_bytes(png_bytes())
    assert (await ask("read_document", source="fine.png"))["kind"] == "image"


def test_a_member_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(Unreadable, match=r"There is no member 'b.csv' in 'x.zip'; it holds: in/a.csv."):
        read(zip_bytes({"in/a.csv": b"x"}), "x.zip!/b.csv")
    with pytest.raises(Unreadable, match="is no archive"):
        read(b"plain words", "x.txt!/b")


def docx_with_styles(styles: str) -> bytes:
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    body = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="{key}"/></w:pPr><w:r><w:t>{key} text</w:t></w:r></w:p>'
        for key in ("A", "B", "C")
    )
    document = f"<w:document {w}><w:body>{body}</w:body></w:document>"
    return zip_bytes({"word/document.xml": document.encode(), "word/styles.xml": styles.encode()})


@pytest.mark.parametrize("prefix", ["w", "other"])
def test_a_word_style_is_a_heading_by_its_name_or_by_what_it_is_based_on(prefix: str) -> None:
    styles = (
        '<w:styles xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        '<w:style w:type="paragraph" w:styleId="A"><w:name w:val="Heading 2"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="B"><w:name w:val="My &amp; own"/><w:basedOn w:val="A"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="C"><w:name w:val="ring"/><w:basedOn w:val="C"/></w:style></w:styles>'
    )
    if prefix != "w":
        styles = re.sub(r"\bw([:=])", rf"{prefix}\1", styles)
    assert read(docx_with_styles(styles)).sections[0].text == "## A text\n\n## B text\n\nC text\n"
