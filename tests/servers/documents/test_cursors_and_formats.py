"""memento_documents: one cursor for all tools, and the three forms of a document's text."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client
from mcp.types import CallToolResult, TextContent

from memento_documents.cursor import position_of, to_cursor
from memento_documents.kinds import Unreadable
from memento_documents.server import Settings, build_server
from memento_documents.text_format import blocks
from support.document_files import make_pdf, make_xlsx
from support.office_files import docx_bytes, video_bytes

pytestmark = pytest.mark.anyio

NEEDED = {
    "read_cells": {"range": "A1:A3"},
    "search_document": {"query": "x"},
    "query_table": {"sql": "SELECT 1"},
    "describe_media": {"question": "What?"},
}
TOOLS = [
    "read_document", "document_outline", "search_document", "extract_tables", "query_table", "read_cells", "view_page",
    "describe_media", "transcribe_audio",
]  # fmt: skip


async def call(folder: Path, tool: str, **arguments: Any) -> CallToolResult:
    async with Client(build_server(Settings(folders=(folder,), layout_megabytes=0))) as client:
        return await client.call_tool(tool, arguments)


async def answer(folder: Path, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await call(folder, tool, **arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def said(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


@given(st.integers(0, 2**48 - 1), st.lists(st.one_of(st.text(), st.none(), st.integers()), max_size=4))
def test_a_cursor_gives_its_position_back_and_only_to_its_own_question(position: int, question: list[Any]) -> None:
    cursor = to_cursor(position, *question)
    assert position_of(cursor, *question) == position
    assert len(cursor) <= 14
    with pytest.raises(Unreadable, match="belongs to another call"):
        position_of(cursor, *question, "more")


@given(st.text(max_size=40))
def test_no_text_that_somebody_makes_up_breaks_the_cursor(text: str) -> None:
    with pytest.raises(Unreadable, match="cursor"):
        position_of(text, "read_document", "a.pdf")


async def test_every_tool_takes_a_cursor_and_promises_total_and_next_cursor(tmp_path: Path) -> None:
    async with Client(build_server(Settings(folders=(tmp_path,)))) as client:
        tools = (await client.list_tools()).tools
    assert sorted(tool.name for tool in tools) == sorted(TOOLS)
    for tool in tools:
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint
        assert "cursor" in tool.input_schema["properties"], tool.name
        assert tool.output_schema is not None
        assert {"total", "next_cursor"} <= tool.output_schema["properties"].keys(), tool.name


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_cursor_of_another_call_is_refused_with_the_way_out(tmp_path: Path, tool: str) -> None:
    make_pdf(tmp_path / "a.pdf", ["Words"])
    arguments = {"source": "a.pdf", "cursor": to_cursor(1, tool, "b.pdf"), **NEEDED.get(tool, {})}
    result = await call(tmp_path, tool, **arguments)
    assert result.is_error
    assert "leave it out to begin anew" in said(result)


async def test_each_tool_reads_on_where_its_answer_ended(tmp_path: Path) -> None:
    make_pdf(tmp_path / "ten.pdf", [f"Chapter {at} tells of sheep. " + "More words. " * 90 for at in range(1, 11)])
    make_xlsx(tmp_path / "book.xlsx", {"Data": [["n", "square"], *([n, n * n] for n in range(1, 8))]})
    (tmp_path / "ferry.mkv").write_bytes(video_bytes(4))

    async def both(tool: str, what: str, **arguments: Any) -> tuple[list[Any], list[Any], Any]:
        first = await answer(tmp_path, tool, **arguments)
        second = await answer(tmp_path, tool, **arguments, cursor=first["next_cursor"])
        assert first["total"] == second["total"]
        return first[what], second[what], first["total"]

    first, second, total = await both("search_document", "passages", source="ten.pdf", query="sheep", limit=4)
    assert ([hit["page"] for hit in first + second], total) == ([1, 2, 3, 4, 5, 6, 7, 8], 10)
    first, second, total = await both("document_outline", "entries", source="ten.pdf", limit=6)
    assert ([entry["page"] for entry in first + second], total) == (list(range(1, 11)), 10)
    sql = "SELECT square FROM data ORDER BY n"
    first, second, total = await both("query_table", "rows", source="book.xlsx", sql=sql, max_rows=4)
    assert (first + second, total) == ([[n * n] for n in range(1, 8)], 7)
    first, second, total = await both("read_cells", "cells", source="book.xlsx", range="A1:B3", limit=4)
    assert ([cell["cell"] for cell in first + second], total) == (["A1", "B1", "A2", "B2", "A3", "B3"], 6)
    view = await answer(tmp_path, "view_page", source="ten.pdf", page=9)
    assert (view["page"], view["total"]) == (9, 10)
    last = await answer(tmp_path, "view_page", source="ten.pdf", cursor=view["next_cursor"])
    assert last["page"] == 10
    assert "next_cursor" not in last
    seen = {"source": "ferry.mkv", "question": "What?", "frames": 2}
    first, second, total = await both("describe_media", "frame_seconds", **seen, end_seconds=2.0)
    assert all(0 <= at <= 2 for at in first)
    assert total == pytest.approx(4.0, abs=0.3)


async def test_an_outline_entry_reads_on_from_its_heading(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One\n\nfirst\n\n# Two\n\nsecond\n", encoding="utf-8")
    entries = (await answer(tmp_path, "document_outline", source="a.md"))["entries"]
    piece = await answer(tmp_path, "read_document", source="a.md", cursor=entries[1]["cursor"])
    assert piece["text"] == "# Two\n\nsecond\n"


async def test_a_query_of_billions_of_rows_answers_without_counting_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n" + "\n".join(map(str, range(3_000))), encoding="utf-8")
    result = await answer(
        tmp_path, "query_table", source="a.csv", sql="SELECT 1 FROM data a, data b, data c", max_rows=2
    )
    assert result["rows"] == [[1], [1]]
    assert "total" not in result
    assert "next_cursor" in result


async def test_a_word_document_comes_as_text_without_marks(tmp_path: Path) -> None:
    (tmp_path / "report.docx").write_bytes(docx_bytes())
    plain = await answer(tmp_path, "read_document", source="report.docx", format="text")
    assert plain["text"] == (
        "Report\n\nThe bridge was designed by Ida Holm.\n\n- first\n- second\n- point\n\nSpan\tMetres\nMain\t420\n\n"
        "Picture 1\n\nComments:\n\n- Ann: Are we sure?\n\nPage headers:\n\n- Confidential\n"
    )


async def test_as_json_each_line_is_one_thing_with_its_place(tmp_path: Path) -> None:
    make_pdf(tmp_path / "two.pdf", ["First words", "Second words"])
    make_xlsx(tmp_path / "book.xlsx", {"Data": [["n", "square"], [1, 1], [2, 4]]})
    (tmp_path / "report.docx").write_bytes(docx_bytes())

    async def lines(source: str) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for line in (await answer(tmp_path, "read_document", source=source, format="json"))["text"].splitlines()
        ]

    assert await lines("two.pdf") == [{"page": 1, "text": "First words"}, {"page": 2, "text": "Second words"}]
    assert await lines("book.xlsx") == [
        {"sheet": "Data", "table": 1, "header": ["n", "square"]},
        {"sheet": "Data", "table": 1, "row": ["1", "1"]},
        {"sheet": "Data", "table": 1, "row": ["2", "4"]},
    ]
    document = await lines("report.docx")
    assert document[0] == {"heading": "Report", "level": 1}
    assert {"item": "first", "level": 0} in document
    assert {"table": 1, "row": ["Main", "420"]} in document


async def test_pieces_of_json_are_whole_lines_and_join_to_the_whole(tmp_path: Path) -> None:
    make_pdf(tmp_path / "long.pdf", [f"Chapter {at} goes on. " * 60 for at in range(12)])
    arguments: dict[str, Any] = {"source": "long.pdf", "format": "json", "max_chars": 6_000}
    found: list[Any] = []
    while True:
        piece = await answer(tmp_path, "read_document", **arguments)
        found += [json.loads(line) for line in piece["text"].splitlines()]
        if "next_cursor" not in piece:
            break
        arguments["cursor"] = piece["next_cursor"]
    whole = await answer(tmp_path, "read_document", source="long.pdf")
    assert {line["page"] for line in found} == set(range(1, 13))
    assert len("".join(line["text"] for line in found)) == pytest.approx(whole["total"], rel=0.05)


async def test_code_is_never_taken_for_markdown(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# a comment\nx = '| y |'\n", encoding="utf-8")
    for text_format in ("markdown", "text"):
        text = (await answer(tmp_path, "read_document", source="a.py", format=text_format))["text"]
        assert text == "# a comment\nx = '| y |'\n"


def test_the_pieces_of_a_markdown_text_are_told_apart() -> None:
    text = "# A\npara\nmore\n- one\n  - two\n\n|  |  |\n| --- | --- |\n| x \\| y | z |\n\n```\n# no heading\n```\n"
    assert [(block.kind, block.text, block.level, block.rows) for block in blocks(text)] == [
        ("heading", "A", 1, []),
        ("paragraph", "para\nmore", 0, []),
        ("item", "one", 0, []),
        ("item", "two", 1, []),
        ("table", "", 0, [["x | y", "z"]]),
        ("code", "# no heading", 0, []),
    ]
