"""memento_documents: extract_tables and view_page, through the server, on real PDFs."""

import base64
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult, ImageContent, TextContent

from memento_documents.isolation import Isolation
from memento_documents.pdf import find_tessdata, import_pymupdf
from memento_documents.pdf_layout import is_installed
from memento_documents.server import Settings, build_server
from support.document_files import make_pdf

pytestmark = pytest.mark.anyio

ROWS = [
    ["City", "People", "Founded"],
    ["Lisbon", "545,000", "1147"],
    ["Porto", "231,000", "1123"],
    ["Faro", "61,000", "1249"],
]


def pdf_with_tables(path: Path, count: int = 1, *, ruled: bool = True) -> Path:
    """One page per table; each has a sentence before and after it."""
    pymupdf = import_pymupdf()
    document = pymupdf.open()
    for number in range(1, count + 1):
        page = document.new_page()
        page.insert_text((60, 80), f"This is what is known of table {number}, and it is not much.")
        for y, row in enumerate(ROWS):
            for x, text in enumerate(row):
                page.insert_text((66 + 120 * x, 116 + 22 * y), text, fontsize=10)
        if ruled:
            for y in range(len(ROWS) + 1):
                page.draw_line((60, 100 + 22 * y), (420, 100 + 22 * y))
            for x in range(4):
                page.draw_line((60 + 120 * x, 100), (60 + 120 * x, 100 + 22 * len(ROWS)))
        page.insert_text((60, 260), "After the table the text goes on for a while and then it stops.")
    document.save(path)
    return path


async def call(folder: Path, tool: str, settings: dict[str, Any] | None = None, **arguments: object) -> CallToolResult:
    async with Client(build_server(Settings(folders=(folder,), **(settings or {})))) as client:
        return await client.call_tool(tool, arguments)


def text_of(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


async def test_a_table_comes_with_its_page_its_place_and_its_cells(tmp_path: Path) -> None:
    pdf_with_tables(tmp_path / "a.pdf", 2)
    result = await call(tmp_path, "extract_tables", {"layout_megabytes": 0}, source="a.pdf", pages="2")
    assert result.structured_content is not None
    (table,) = result.structured_content["tables"]
    assert (table["page"], table["rows"], table["engine"]) == (2, ROWS, "lines")
    x0, y0, x1, y1 = table["box"]
    assert 55 < x0 < 70
    assert 95 < y0 < 120
    assert 300 < x1 < 425
    assert 170 < y1 < 200
    assert "| Lisbon | 545,000 | 1147 |" in text_of(result)


@pytest.mark.slow
@pytest.mark.skipif(not is_installed(), reason="the layout model is not installed (pymupdf 2 and onnxruntime)")
async def test_the_layout_model_finds_a_table_without_rules(tmp_path: Path) -> None:
    pdf_with_tables(tmp_path / "a.pdf", ruled=False)
    result = await call(tmp_path, "extract_tables", source="a.pdf")
    assert result.structured_content is not None, text_of(result)
    (table,) = result.structured_content["tables"]
    assert (table["engine"], table["rows"]) == ("layout", ROWS)


@pytest.mark.slow
@pytest.mark.skipif(not is_installed(), reason="the layout model is not installed (pymupdf 2 and onnxruntime)")
async def test_when_the_layout_model_crashes_the_quick_tables_come_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Isolation.run

    async def crashing(self: Isolation, function: str, arguments: list[Any], *more: Any, **named: Any) -> Any:
        if function.endswith(":layout_tables"):
            return await run(self, "ctypes:string_at", [0])
        return await run(self, function, arguments, *more, **named)

    monkeypatch.setattr(Isolation, "run", crashing)
    pdf_with_tables(tmp_path / "a.pdf")
    result = await call(tmp_path, "extract_tables", source="a.pdf")
    assert result.structured_content is not None, text_of(result)
    assert [table["engine"] for table in result.structured_content["tables"]] == ["lines"]
    assert "layout model did not finish" in result.structured_content["notes"][0]


async def test_many_tables_come_in_pieces_and_the_pieces_are_all_of_them(tmp_path: Path) -> None:
    pdf_with_tables(tmp_path / "many.pdf", 20)
    settings = {"layout_megabytes": 0, "max_chars": 1_000}
    pages: list[int] = []
    more: dict[str, str] | None = {}
    while more is not None:
        result = await call(tmp_path, "extract_tables", settings, source="many.pdf", **more)
        assert result.structured_content is not None
        assert result.structured_content["total"] == 20
        assert len(text_of(result)) < 3_000
        pages += [table["page"] for table in result.structured_content["tables"]]
        following = result.structured_content.get("next_cursor")
        more = None if following is None else {"cursor": following}
    assert pages == list(range(1, 21))


async def test_a_pdf_without_tables_has_none_and_that_is_no_error(tmp_path: Path) -> None:
    make_pdf(tmp_path / "prose.pdf", ["Only words here. " * 30])
    result = await call(tmp_path, "extract_tables", source="prose.pdf")
    assert result.structured_content == {"source": "prose.pdf", "tables": [], "total": 0}


@pytest.mark.parametrize("tool", ["extract_tables", "view_page"])
async def test_what_is_no_pdf_is_an_error_that_names_the_right_tool(tmp_path: Path, tool: str) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    result = await call(tmp_path, tool, source="a.csv")
    assert result.is_error
    assert "query_table" in text_of(result)


async def test_pages_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    make_pdf(tmp_path / "a.pdf", ["One"])
    assert "pages 1-1" in text_of(await call(tmp_path, "extract_tables", source="a.pdf", pages="2"))
    assert "pages 1-1" in text_of(await call(tmp_path, "view_page", source="a.pdf", page=2))


@pytest.mark.skipif(find_tessdata() is None, reason="no Tesseract language data (apt-get install tesseract-ocr-eng)")
async def test_a_scanned_page_is_read_by_ocr_in_a_confined_child(tmp_path: Path) -> None:
    pymupdf = import_pymupdf()
    words = pymupdf.open(make_pdf(tmp_path / "words.pdf", ["Readable by machine"]))
    scan = pymupdf.open()
    scan.new_page().insert_image((0, 0, 595, 842), pixmap=words[0].get_pixmap(dpi=150))
    scan.save(tmp_path / "scan.pdf")
    result = await call(tmp_path, "read_document", source="scan.pdf")
    assert "Readable by machine" in text_of(result)
    assert result.structured_content is not None
    assert result.structured_content["notes"] == ["Read by OCR, may hold mistakes: page 1."]


async def test_reading_many_pages_tells_how_far_it_is(tmp_path: Path) -> None:
    make_pdf(tmp_path / "long.pdf", ["A page with a few words on it."] * 600)
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with Client(build_server(Settings(folders=(tmp_path,)))) as client:
        await client.call_tool("read_document", {"source": "long.pdf"}, progress_callback=hear)
    assert heard
    assert all(total == 600 and message == f"page {done:.0f} of 600" for done, total, message in heard)
    assert heard == sorted(heard)


def pixels(result: CallToolResult) -> Any:
    assert not result.is_error, result.content
    picture = result.content[1]
    assert isinstance(picture, ImageContent)
    return import_pymupdf().Pixmap(base64.b64decode(picture.data))


async def test_a_page_is_shown_as_a_picture_of_bounded_size(tmp_path: Path) -> None:
    make_pdf(tmp_path / "a.pdf", ["One", "Two"])
    result = await call(tmp_path, "view_page", {"max_megapixels": 0.25}, source="a.pdf", page=2)
    picture = pixels(result)
    assert result.structured_content is not None
    assert (picture.width, picture.height) == (result.structured_content["width"], result.structured_content["height"])
    assert 0.2e6 < picture.width * picture.height < 0.26e6
    assert not picture.is_unicolor


async def test_a_region_is_enlarged_and_shows_that_part(tmp_path: Path) -> None:
    make_pdf(tmp_path / "a.pdf", ["Words at the top"])
    upper = pixels(await call(tmp_path, "view_page", source="a.pdf", region=[0, 0, 1, 0.1]))
    lower = pixels(await call(tmp_path, "view_page", source="a.pdf", region=[0, 0.9, 1, 1]))
    assert not upper.is_unicolor
    assert lower.is_unicolor
    assert upper.width > 5 * upper.height


@pytest.mark.parametrize("region", [[0.5, 0, 0.5, 1], [0, 0, 2, 1], [-1, 0, 1, 1], [1, 1, 0, 0]])
async def test_a_region_that_is_none_is_an_error_that_says_how(tmp_path: Path, region: list[float]) -> None:
    make_pdf(tmp_path / "a.pdf", ["One"])
    result = await call(tmp_path, "view_page", source="a.pdf", region=region)
    assert result.is_error
    assert "[0, 0, 1, 0.5]" in text_of(result) or "region" in text_of(result)


async def test_a_page_of_two_hundred_inches_costs_no_more_than_another(tmp_path: Path) -> None:
    pymupdf = import_pymupdf()
    document = pymupdf.open()
    document.new_page(width=14_400, height=14_400).draw_circle((7_000, 7_000), 3_000)
    document.save(tmp_path / "huge.pdf")
    picture = pixels(await call(tmp_path, "view_page", {"memory_megabytes": 512}, source="huge.pdf"))
    assert 1.4e6 < picture.width * picture.height < 1.51e6
