"""The tools for parts of a document: its tables, and the picture of a page."""

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from memento_documents.calls import CURSOR, NEXT_CURSOR, going_on, progress_to, told_to_model
from memento_documents.cells import markdown_table
from memento_documents.cursor import position_of, to_cursor
from memento_documents.library import Library
from memento_documents.marked_text import place
from memento_kit import Server, untrusted_result

__all__ = ["ExtractedTables", "PageView", "add_page_tools"]


class ExtractedTable(BaseModel):
    """One table, and where it stands."""

    number: int = Field(description="Which of all tables found, from 1")
    page: int | None = Field(default=None, description="Page, slide or chapter, where the document has them")
    heading: str | None = Field(default=None, description="What it stands under; of all but PDF")
    box: list[float] | None = Field(
        default=None, description="Of a PDF: x0, y0, x1, y1 on the page, in points from its upper left corner"
    )
    engine: str = Field(
        description="file (a table by its format), tags (by a PDF's tags), layout (model), lines (rules and columns)"
    )
    rows: list[list[str]]


class ExtractedTables(BaseModel):
    """Tables in the document's order; an empty list means none was found."""

    source: str
    tables: list[ExtractedTable]
    total: int = Field(description="How many tables there are in what was asked for")
    next_cursor: str | None = NEXT_CURSOR
    notes: list[str] | None = None


class PageView(BaseModel):
    """What the picture shows."""

    source: str
    page: int
    total: int = Field(description="How many pages there are")
    next_cursor: str | None = Field(
        default=None, description="Pass as `cursor` to see the next page; absent on the last"
    )
    width: int = Field(description="Pixels")
    height: int


def add_page_tools(server: Server[Library], *, max_chars: int, max_pixels: int) -> None:
    """Register `extract_tables` and `view_page`."""
    read_only = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    source_field = Field(min_length=1, max_length=4_000, description="Path, as for read_document")

    @server.tool(title="Extract the tables of a document", annotations=read_only)
    async def extract_tables(
        ctx: Context[Library],
        source: Annotated[str, source_field],
        pages: Annotated[
            str | None,
            Field(max_length=200, description="Pages, slides or chapters: '3' or '1-4,9'; all when left out"),
        ] = None,
        cursor: Annotated[str | None, CURSOR] = None,
    ) -> Annotated[CallToolResult, ExtractedTables]:
        """Find the tables of a PDF, Word, PowerPoint, OpenDocument, EPUB, HTML or Markdown file: cells, page, heading.

        A presentation's charts come as the tables of their numbers. In a PDF slower and surer than the tables in
        read_document's text: a fifth of a second for a page that has any. A spreadsheet is for query_table.
        """
        question = ("extract_tables", source, pages)
        with told_to_model(source):
            first = position_of(cursor, *question)
            kind, found, notes = await ctx.request_context.lifespan_context.tables(
                source, pages, on_progress=progress_to(ctx)
            )
        shown: list[ExtractedTable] = []
        room = max_chars
        for number, raw in enumerate(found[first:], start=first + 1):
            table = ExtractedTable(number=number, **raw)
            size = len(_mark(table, kind)) + sum(len(cell) + 3 for row in table.rows for cell in row)
            if shown and size > room:
                break
            if size > max_chars:
                notes.append(f"Table {number} is cut off: it has {len(table.rows)} rows.")
                table.rows = _first_rows(table.rows, max_chars)
            shown.append(table)
            room -= size
        after = first + len(shown)
        result = ExtractedTables(
            source=source,
            tables=shown,
            total=len(found),
            next_cursor=to_cursor(after, *question) if after < len(found) else None,
            notes=notes or None,
        )
        text = "\n\n".join(f"{_mark(table, kind)}\n{markdown_table(table.rows)}" for table in shown)
        note = f"{len(shown)} of {len(found)} tables.{going_on(result.next_cursor)}"
        note += "".join(f" {each}" for each in notes)
        return untrusted_result(result, text=text, source=source, note=note)

    @server.tool(title="Look at a page", annotations=read_only)
    async def view_page(
        ctx: Context[Library],
        source: Annotated[str, source_field],
        page: Annotated[int, Field(ge=1, description="Page, slide or sheet, from 1")] = 1,
        region: Annotated[
            list[Annotated[float, Field(ge=0, le=1)]] | None,
            Field(min_length=4, max_length=4, description="Part of it: x0, y0, x1, y1 in shares, as [0, 0, 1, 0.5]"),
        ] = None,
        cursor: Annotated[
            str | None, Field(max_length=40, description="`next_cursor` of the view before, in place of `page`")
        ] = None,
    ) -> Annotated[CallToolResult, PageView]:
        """See a PDF page or an image, or a region of it enlarged: figures, charts, scans, doubtful tables.

        Pages, slides and whole sheets of Office files too, where LibreOffice is installed; the first takes seconds.
        """
        library, question = ctx.request_context.lifespan_context, ("view_page", source, region)
        with told_to_model(source):
            page = position_of(cursor, *question) or page
            raw: dict[str, Any] = await library.page_picture(source, page, region, max_pixels)
        view = PageView(source=source, page=page, total=raw["pages"], width=raw["width"], height=raw["height"])
        view.next_cursor = to_cursor(page + 1, *question) if page < view.total else None
        said = f"Page {page} of {view.total} of {source}, {view.width} x {view.height} pixels."
        return CallToolResult(
            content=[
                TextContent(type="text", text=said),
                ImageContent(type="image", data=raw["data"], mime_type=raw["mime_type"]),
            ],
            structured_content=view.model_dump(exclude_none=True),
        )


def _mark(table: ExtractedTable, kind: str) -> str:
    where = [place(table.page, None, kind), f'under "{table.heading}"' if table.heading else "", f"by {table.engine}"]
    return f"[table {table.number}, {', '.join(filter(None, where))}]"


def _first_rows(rows: list[list[str]], max_chars: int) -> list[list[str]]:
    kept: list[list[str]] = []
    for row in rows:
        max_chars -= sum(len(cell) + 3 for cell in row)
        if max_chars < 0:
            break
        kept.append(row)
    return kept or [[cell[:200] for cell in rows[0]]]
