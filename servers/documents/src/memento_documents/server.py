"""MCP server "documents": read PDF, spreadsheets and text, search in them, ask tables in SQL.

The tool layer: what a model may ask, how much it gets at once, and where each piece came from. Files are found and
parsed by `library`, in the children of `isolation`; this process never parses one.
"""

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import BaseModel, Field
from pydantic_settings import SettingsConfigDict

from memento_documents.isolation import Isolation, Limits
from memento_documents.library import Library
from memento_documents.page_ranges import parse_pages
from memento_documents.passages import find_passages
from memento_documents.pdf_layout import is_installed as layout_is_installed
from memento_documents.pdf_tools import add_pdf_tools
from memento_documents.reading import Document, Section, Unreadable
from memento_kit import (
    AllowedPaths,
    PathList,
    PathNotAllowed,
    Server,
    ServerSettings,
    page_text,
    serve,
    untrusted_result,
)

__all__ = ["Settings", "build_server", "main"]

_MAP_LINES = 40
"""A document map lists at most this many parts; of more, every n-th."""


class Settings(ServerSettings):
    """What the operator decides. Each field is one row of the README's table."""

    model_config = SettingsConfigDict(env_prefix="MEMENTO_DOCUMENTS_")

    folders: PathList = (Path(),)
    """Folders, or single files, that may be read; joined by `:` in the environment."""
    max_file_megabytes: int = Field(default=200, gt=0)
    """Larger files are refused."""
    max_chars: int = Field(default=20_000, ge=1_000, le=1_000_000)
    """The most text that one answer may hold, whatever is asked for."""
    memory_megabytes: int = Field(default=1_536, ge=256)
    """Memory of one parsing child."""
    cpu_seconds: int = Field(default=60, gt=0)
    """CPU time of one parsing child."""
    wall_seconds: float = Field(default=90.0, gt=0)
    """How long one call may wait for its child."""
    query_seconds: float = Field(default=10.0, gt=0)
    """How long one SQL query may run."""
    parallel: int = Field(default=2, ge=1, le=64)
    """Parsing children at once; further calls wait."""
    layout_megabytes: int = Field(default=3_072, ge=0)
    """Memory of one process with the table model, which `extract_tables` asks; 0 goes without the model."""
    max_megapixels: float = Field(default=1.5, gt=0, le=50)
    """Size of a page's picture."""
    cache_megachars: int = Field(default=50, ge=0)
    """Parsed text kept in memory, in millions of characters."""


class Part(BaseModel):
    """One page or sheet in a document's map."""

    page: int | None = None
    sheet: str | None = None
    title: str | None = Field(default=None, description="What the document's outline calls it")
    chars: int
    rows: int | None = None
    columns: int | None = None


class DocumentText(BaseModel):
    """A stretch of a document's text. Pages and sheets are marked in it as `[page 3]` and `[sheet Costs]`."""

    source: str
    kind: str = Field(description="pdf, docx, xlsx, table (CSV, TSV), html or text, judged by content")
    title: str | None = None
    text: str
    pages: str | None = Field(default=None, description="Pages this piece touches, as 3-5")
    sheets: list[str] | None = None
    offset: int
    total_chars: int = Field(description="Length of the whole text of what was asked for")
    next_offset: int | None = Field(default=None, description="Pass as `offset` for the next piece; absent at the end")
    parts: list[Part] | None = Field(default=None, description="Map of the document, when it is longer than one piece")
    notes: list[str] | None = Field(default=None, description="What is missing from the text, and why")


class Passage(BaseModel):
    """A place where the query's words stand."""

    text: str
    page: int | None = None
    sheet: str | None = None
    offset: int = Field(description="Pass to read_document as `offset` to read on from here")


class Passages(BaseModel):
    """Hits, best first; an empty list means nothing was found."""

    source: str
    query: str
    passages: list[Passage]
    total: int = Field(description="How many passages match in all")


class TableColumns(BaseModel):
    """A table that can be queried, with its columns' SQL names and what the file calls them."""

    name: str
    sheet: str | None = None
    columns: list[str]
    headers: list[str]
    rows: int


class QueryRows(BaseModel):
    """What a SELECT gave."""

    source: str
    columns: list[str]
    rows: list[list[int | float | str | None]]
    more: bool = Field(description="There are more rows than were returned; narrow the query or raise max_rows")
    tables: list[TableColumns]


def build_server(settings: Settings) -> Server[Library]:
    """Wire the server up. No parser is imported and no child started before the first document."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncGenerator[Library]:
        limits = Limits(
            memory_bytes=settings.memory_megabytes << 20,
            cpu_seconds=settings.cpu_seconds,
            wall_seconds=settings.wall_seconds,
            answer_bytes=256 << 20,
        )
        with_layout = settings.layout_megabytes > 0 and layout_is_installed()
        layout_limits = dataclasses.replace(limits, memory_bytes=settings.layout_megabytes << 20)
        async with (
            Isolation(limits, parallel=settings.parallel) as isolation,
            Isolation(layout_limits, parallel=1, preload="memento_documents.pdf_layout:preload") as layout,
        ):
            yield Library(
                AllowedPaths(settings.folders),
                isolation,
                layout=layout if with_layout else None,
                max_file_bytes=settings.max_file_megabytes * 1_000_000,
                cache_chars=settings.cache_megachars * 1_000_000,
            )

    server: Server[Library] = Server(
        "documents",
        instructions="Read local documents. Start with read_document; a long one answers with its map first. "
        "Use search_document to find a passage, query_table for sums, counts and filters over tables.",
        lifespan=lifespan,
    )
    read_only = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    source_field = Field(
        min_length=1, max_length=4_000, description="Path of the file, as given or relative to an allowed folder"
    )

    @server.tool(title="Read a document", annotations=read_only)
    async def read_document(
        ctx: Context[Library],
        source: Annotated[str, source_field],
        pages: Annotated[str | None, Field(max_length=200, description="PDF pages, as '3' or '1-4,9'")] = None,
        sheet: Annotated[str | None, Field(max_length=200, description="Name of one sheet of a workbook")] = None,
        range: Annotated[
            str | None, Field(max_length=40, description="Cells of the sheet or table, as 'A1:D20'")
        ] = None,
        offset: Annotated[int, Field(ge=0, description="Where to read on: next_offset of the answer before")] = 0,
        max_chars: Annotated[int, Field(ge=200, le=1_000_000, description="Size of the piece wanted")] = 8_000,
    ) -> Annotated[CallToolResult, DocumentText]:
        """Read a PDF, Word document (DOCX), Excel workbook (XLSX), CSV, TSV, HTML, Markdown, JSON, code or text file.

        Returns the text with `[page N]` and `[sheet NAME]` marks, at most max_chars at once; read on with offset.
        A document longer than that also answers with its map: which pages or sheets there are, and how long.
        """
        document = await _read(ctx, source, sheet, range)
        sections = _chosen(document, pages)
        marked = _Marked(sections)
        piece = page_text(marked.text, offset=offset, max_chars=min(max_chars, settings.max_chars))
        touched = marked.between(piece.offset, piece.offset + len(piece.text))
        is_long = piece.next_offset is not None and offset == 0 and pages is None and range is None
        result = DocumentText(
            source=source,
            kind=document.kind,
            title=document.title,
            text=piece.text,
            pages=_page_span(touched),
            sheets=[section.sheet for section in touched if section.sheet is not None] or None,
            offset=piece.offset,
            total_chars=piece.total_chars,
            next_offset=piece.next_offset,
            parts=_map(document.sections) if is_long and len(document.sections) > 1 else None,
            notes=document.notes or None,
        )
        return untrusted_result(result, text=_with_map(result), source=source, note=_summary(result))

    @server.tool(title="Search in a document", annotations=read_only)
    async def search_document(
        ctx: Context[Library],
        source: Annotated[str, source_field],
        query: Annotated[str, Field(min_length=1, max_length=400, description="Words to look for")],
        limit: Annotated[int, Field(ge=1, le=30, description="How many passages to return")] = 6,
    ) -> Annotated[CallToolResult, Passages]:
        """Find passages of one document that hold the query's words, best first, with page or sheet."""
        document = await _read(ctx, source)
        marked = _Marked(document.sections)
        found = find_passages([section.text for section in document.sections], query)
        hits: list[Passage] = []
        for hit in found[:limit]:
            section = document.sections[hit.section]
            offset = marked.starts[hit.section] + hit.start
            hits.append(Passage(text=hit.text, page=section.page, sheet=section.sheet, offset=offset))
        result = Passages(source=source, query=query, passages=hits, total=len(found))
        shown = "\n\n".join(f"[{_place(hit.page, hit.sheet, f'offset {hit.offset}')}] {hit.text}" for hit in hits)
        return untrusted_result(result, text=shown, source=source, note=f"{len(hits)} of {len(found)} passages.")

    @server.tool(title="Query a table with SQL", annotations=read_only)
    async def query_table(
        ctx: Context[Library],
        source: Annotated[str, source_field],
        sql: Annotated[str, Field(min_length=1, max_length=10_000, description="One SELECT in SQLite's dialect")],
        sheet: Annotated[str | None, Field(max_length=200, description="Load this sheet alone")] = None,
        max_rows: Annotated[int, Field(ge=1, le=1_000, description="How many rows to return at most")] = 100,
    ) -> Annotated[CallToolResult, QueryRows]:
        """Run one SELECT over a spreadsheet, CSV or TSV file.

        Each sheet is a table named after it; a CSV or TSV file is the table `data`. Columns are named after the
        header row, in lower case with underscores. To see tables and columns: SELECT name, sql FROM sqlite_schema.
        """
        library = ctx.request_context.lifespan_context
        try:
            raw = await library.query(
                source, sql, sheet=sheet, max_rows=max_rows, time_limit_seconds=settings.query_seconds
            )
        except (Unreadable, PathNotAllowed) as exc:
            raise ToolError(_named(source, exc)) from exc
        result = QueryRows(source=source, **raw)
        size = sum(len(str(value)) for row in result.rows for value in row)
        if size > settings.max_chars:
            raise ToolError(
                f"The answer has {size} characters, over {settings.max_chars}. Select fewer columns or rows."
            )
        note = f"{len(result.rows)} rows{', and there are more' if result.more else ''}."
        return untrusted_result(result, text=_rows_as_text(result), source=source, note=note)

    add_pdf_tools(server, max_chars=settings.max_chars, max_pixels=int(settings.max_megapixels * 1_000_000))

    async def _read(ctx: Context[Library], source: str, sheet: str | None = None, cells: str | None = None) -> Document:
        async def tell(done: int, total: int) -> None:
            await ctx.report_progress(done, total, f"read page {done} of {total}")

        try:
            return await ctx.request_context.lifespan_context.read(source, sheet=sheet, cells=cells, on_progress=tell)
        except (Unreadable, PathNotAllowed) as exc:
            raise ToolError(_named(source, exc)) from exc

    return server


def _named(source: str, problem: Exception) -> str:
    return str(problem) if isinstance(problem, PathNotAllowed) else f"{source!r}: {problem}"


class _Marked:
    """The sections as one text with a mark before each, and where in it each begins."""

    def __init__(self, sections: list[Section]) -> None:
        self._sections = sections
        self.starts: list[int] = []
        """Where each section's own text begins."""
        pieces: list[str] = []
        at = 0
        for section in sections:
            place = _place(section.page, section.sheet)
            piece = (f"[{place}]\n" if place else "") + section.text.rstrip() + "\n\n"
            self.starts.append(at + len(piece) - len(section.text.rstrip()) - 2)
            pieces.append(piece)
            at += len(piece)
        self.text = "".join(pieces).rstrip() + "\n" if at else ""

    def between(self, start: int, end: int) -> list[Section]:
        ends = [*self.starts[1:], len(self.text) + 1]
        return [
            section
            for section, first, last in zip(self._sections, self.starts, ends, strict=True)
            if first < end and last > start
        ]


def _place(page: int | None, sheet: str | None, otherwise: str = "") -> str:
    if page is not None:
        return f"page {page}"
    return f"sheet {sheet}" if sheet is not None else otherwise


def _chosen(document: Document, pages: str | None) -> list[Section]:
    if pages is None:
        return document.sections
    if document.kind != "pdf":
        raise ToolError(f"Only a PDF has pages; this is {document.kind}. Leave `pages` out and read on with `offset`.")
    try:
        wanted = parse_pages(pages, len(document.sections))
    except Unreadable as exc:
        raise ToolError(str(exc)) from exc
    return [document.sections[page - 1] for page in wanted]


def _map(sections: list[Section]) -> list[Part]:
    step = -(-len(sections) // _MAP_LINES)
    titled = [section for section in sections if section.title is not None]
    shown = titled[:_MAP_LINES] if len(titled) > 1 else sections[::step]
    return [
        Part(
            page=section.page,
            sheet=section.sheet,
            title=section.title,
            chars=len(section.text),
            rows=section.rows,
            columns=section.columns,
        )
        for section in shown
    ]


def _with_map(result: DocumentText) -> str:
    if result.parts is None:
        return result.text
    lines = [
        f"- {_place(part.page, part.sheet)}: "
        + (f"{part.title}, " if part.title else "")
        + (f"{part.rows} rows x {part.columns} columns, " if part.rows is not None else "")
        + f"{part.chars} characters"
        for part in result.parts
    ]
    return "Map of the document:\n" + "\n".join(lines) + "\n\nIts beginning:\n" + result.text


def _page_span(touched: list[Section]) -> str | None:
    pages = [section.page for section in touched if section.page is not None]
    if not pages:
        return None
    return str(pages[0]) if len(pages) == 1 else f"{pages[0]}-{pages[-1]}"


def _summary(result: DocumentText) -> str:
    end = result.offset + len(result.text)
    said = [f"{result.kind}, characters {result.offset}-{end} of {result.total_chars}"]
    if result.pages:
        said.append(f"pages {result.pages}")
    if result.next_offset is not None:
        said.append(f"continue with offset={result.next_offset}")
    return "; ".join(said) + "." + "".join(f" {note}" for note in result.notes or [])


def _rows_as_text(result: QueryRows) -> str:
    lines = [" | ".join(result.columns)]
    lines += [" | ".join("" if value is None else str(value) for value in row) for row in result.rows]
    return "\n".join(lines)


def main() -> None:
    """The command `memento-documents`."""
    serve("memento-documents", lambda: build_server(Settings()))


if __name__ == "__main__":
    main()
