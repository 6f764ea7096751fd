"""memento_documents: extract_tables on what is no PDF, through the server, on files made by real writers."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult, TextContent

from memento_documents.server import Settings, build_server
from support.document_files import make_xlsx, zip_bytes
from support.office_files import docx_bytes, epub_bytes, odt_bytes, png_bytes, pptx_bytes

pytestmark = pytest.mark.anyio

MARKDOWN = (
    "# Ports\n\n## North\n\n| Port | Ships |\n| --- | --- |\n| Turku | 12 |\n| a \\| b | 3 |\n\n"
    "```\n| no | table |\n```\n"
)
HTML = (
    "<!DOCTYPE html><html><body><h1>Quay</h1><p>Before.</p><table><tr><th>Crane</th><th>Tons</th></tr>"
    "<tr><td>Old</td><td>40</td></tr></table><h2>Yard</h2><table><tr><td>x</td><td>1</td></tr></table></body></html>"
)


async def call(
    folder: Path, source: str, settings: dict[str, Any] | None = None, **arguments: object
) -> CallToolResult:
    async with Client(build_server(Settings(folders=(folder,), **(settings or {})))) as client:
        return await client.call_tool("extract_tables", {"source": source, **arguments})


def told(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


async def tables(folder: Path, source: str, content: bytes, **arguments: Any) -> list[dict[str, Any]]:
    (folder / source).write_bytes(content)
    result = await call(folder, source, **arguments)
    assert not result.is_error, told(result)
    assert result.structured_content is not None
    assert result.structured_content["total"] == len(result.structured_content["tables"])
    return result.structured_content["tables"]


def book_with_a_table() -> bytes:
    with zipfile.ZipFile(io.BytesIO(epub_bytes())) as book:
        members = {name: book.read(name) for name in book.namelist()}
    members["OEBPS/b c.xhtml"] = (
        b"<html><body><h1>Flood</h1><table><tr><th>Hour</th><th>Feet</th></tr><tr><td>6</td><td>9</td></tr></table>"
    )
    return zip_bytes(members)


async def test_each_format_gives_its_tables_with_place_and_heading(tmp_path: Path) -> None:
    assert await tables(tmp_path, "report.docx", docx_bytes()) == [
        {"number": 1, "heading": "Report", "engine": "file", "rows": [["Span", "Metres"], ["Main", "420"]]}
    ]
    assert await tables(tmp_path, "letter.odt", odt_bytes()) == [
        {"number": 1, "heading": "Letter", "engine": "file", "rows": [["Stop", "Feet"], ["Principal", "8"]]}
    ]
    assert await tables(tmp_path, "tides.epub", book_with_a_table()) == [
        {"number": 1, "page": 2, "heading": "Flood", "engine": "file", "rows": [["Hour", "Feet"], ["6", "9"]]}
    ]
    assert await tables(tmp_path, "page.html", HTML.encode()) == [
        {"number": 1, "heading": "Quay", "engine": "file", "rows": [["Crane", "Tons"], ["Old", "40"]]},
        {"number": 2, "heading": "Yard", "engine": "file", "rows": [["x", "1"]]},
    ]
    assert await tables(tmp_path, "ports.md", MARKDOWN.encode()) == [
        {
            "number": 1,
            "heading": "North",
            "engine": "file",
            "rows": [["Port", "Ships"], ["Turku", "12"], ["a | b", "3"]],
        }
    ]


async def test_a_deck_gives_tables_and_the_numbers_of_charts_by_slide(tmp_path: Path) -> None:
    (tmp_path / "deck.pptx").write_bytes(pptx_bytes())
    result = await call(tmp_path, "deck.pptx", pages="2")
    assert result.structured_content is not None
    assert [(table["page"], table["heading"], table["rows"]) for table in result.structured_content["tables"]] == [
        (2, "Numbers", [["Port", "Ships"], ["Turku", "12"]]),
        (2, "Numbers", [["", "Passengers"], ["2023", "1.5"], ["2024", "2"]]),
    ]
    assert '[table 1, slide 2, under "Numbers", by file]\n| Port | Ships |' in told(result)
    assert await tables(tmp_path, "deck.pptx", pptx_bytes(), pages="1") == []
    assert "1-2" in told(await call(tmp_path, "deck.pptx", pages="3"))


async def test_many_tables_come_in_pieces_that_are_all_of_them(tmp_path: Path) -> None:
    one = "## Harbour {at}\n\n| Port | Ships |\n| --- | --- |\n| Turku number {at} | 12 |\n\n"
    (tmp_path / "many.md").write_text("".join(one.format(at=at) for at in range(1, 61)), encoding="utf-8")
    numbers: list[int] = []
    more: dict[str, str] | None = {}
    while more is not None:
        result = await call(tmp_path, "many.md", {"max_chars": 1_000}, **more)
        assert result.structured_content is not None
        assert result.structured_content["total"] == 60
        assert len(told(result)) < 2_500
        assert all(table["heading"] == f"Harbour {table['number']}" for table in result.structured_content["tables"])
        numbers += [table["number"] for table in result.structured_content["tables"]]
        following = result.structured_content.get("next_cursor")
        more = None if following is None else {"cursor": following}
    assert numbers == list(range(1, 61))


async def test_a_table_longer_than_an_answer_is_cut_and_says_so(tmp_path: Path) -> None:
    rows = "".join(f"| {at} | some words |\n" for at in range(2_000))
    (tmp_path / "long.md").write_text("| n | words |\n| --- | --- |\n" + rows, encoding="utf-8")
    result = await call(tmp_path, "long.md", {"max_chars": 1_000})
    assert result.structured_content is not None
    assert len(told(result)) < 3_000
    assert result.structured_content["notes"] == ["Table 1 is cut off: it has 2001 rows."]


async def test_what_has_no_tables_in_it_is_an_error_that_names_the_right_tool(tmp_path: Path) -> None:
    make_xlsx(tmp_path / "book.xlsx", {"Data": [["n"], [1]]})
    (tmp_path / "photo.png").write_bytes(png_bytes())
    (tmp_path / "code.py").write_text("x = '| y |'\n", encoding="utf-8")
    assert "query_table" in told(await call(tmp_path, "book.xlsx"))
    for source in ("photo.png", "code.py"):
        result = await call(tmp_path, source)
        assert result.is_error
        assert "Read it with read_document." in told(result)
    (tmp_path / "report.docx").write_bytes(docx_bytes())
    assert "has no pages" in told(await call(tmp_path, "report.docx", pages="1"))
