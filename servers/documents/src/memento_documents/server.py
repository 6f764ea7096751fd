"""MCP server "documents": read files of any kind, search in them, ask tables in SQL, look at pictures, hear speech.

The tool layer: what a model may ask, how much it gets at once, and where each piece came from. Files are found and
parsed by `library`, in the children of `isolation`; this process never parses one.
"""

import dataclasses
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Self

import httpx2
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from memento_documents.cache import DocumentCache
from memento_documents.calls import CURSOR, NEXT_CURSOR, going_on, progress_to, told_to_model
from memento_documents.cursor import position_of, reading, to_cursor
from memento_documents.detail_tools import add_detail_tools
from memento_documents.isolation import Isolation, Limits
from memento_documents.library import Library
from memento_documents.marked_text import MarkedText, chosen_sections, place
from memento_documents.media_tools import add_media_tools
from memento_documents.models import Endpoint, Models
from memento_documents.office_pages import OfficePages
from memento_documents.page_tools import add_page_tools
from memento_documents.passages import Hit, find_passages
from memento_documents.pdf_layout import is_installed as layout_is_installed
from memento_documents.reading import Document, Section
from memento_documents.text_format import TextFormat
from memento_kit import (
    AllowedPaths,
    PathList,
    Server,
    ServerSettings,
    memento_home,
    page_text,
    serve,
    untrusted_result,
)
from memento_kit.safe_http import AddressGuard, HostList, HttpLimits, SafeHttp

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
    layout_idle_seconds: float = Field(default=120.0, gt=0)
    """After how long without work the process with the table model ends; the next table starts it again."""
    max_megapixels: float = Field(default=1.5, gt=0, le=50)
    """Size of a page's picture."""
    soffice: str = "soffice"
    """LibreOffice, which `view_page` draws Office files with: its name on the PATH, or its path; empty goes without."""
    soffice_seconds: float = Field(default=60.0, gt=0)
    """How long it may take over one file."""
    soffice_megabytes: int = Field(default=2_048, ge=512)
    """Memory it may have."""
    cache_megachars: int = Field(default=50, ge=0)
    """Parsed text kept in memory, in millions of characters."""
    cache_megabytes: int = Field(default=500, ge=0)
    """Parsed text kept on disk between runs, compressed; 0 keeps none."""
    cache_folder: Path | None = None
    """Where; default `cache/documents` in `MEMENTO_HOME`."""
    fetch_seconds: float = Field(default=30.0, gt=0)
    """How long fetching a document from an address may take."""
    allow_private: HostList = ()
    """Hosts, or `host:port`, in a private network that documents may be fetched from; joined by commas."""
    vision_base_url: str | None = None
    """OpenAI-compatible endpoint of the model that looks at pictures, as `https://host/v1`."""
    vision_model: str | None = None
    """Its name there."""
    vision_api_key: SecretStr | None = None
    """Its key, if it needs one."""
    vision_seconds: float = Field(default=120.0, gt=0)
    """How long one of its answers may take."""
    transcription_base_url: str | None = None
    """OpenAI-compatible endpoint of the model that turns speech into text."""
    transcription_model: str | None = None
    """Its name there."""
    transcription_api_key: SecretStr | None = None
    """Its key, if it needs one."""
    transcription_seconds: float = Field(default=180.0, gt=0)
    """How long the answer to one stretch of sound may take."""
    transcribed_minutes: float = Field(default=30.0, gt=0, le=600)
    """The most sound that one call sends."""

    @model_validator(mode="after")
    def _endpoints_are_whole(self) -> Self:
        for what in ("vision", "transcription"):
            base_url, model = getattr(self, f"{what}_base_url"), getattr(self, f"{what}_model")
            names = [self.environment_variable(f"{what}_{part}") for part in ("base_url", "model")]
            if (base_url is None) != (model is None):
                raise ValueError(f"{names[0]} and {names[1]} belong together; set both or neither")
            if base_url is not None and not base_url.startswith(("http://", "https://")):
                raise ValueError(f"{names[0]} must begin with http:// or https://")
        return self

    @model_validator(mode="after")
    def _soffice_is_there(self) -> Self:
        if "/" in self.soffice and shutil.which(self.soffice) is None:
            name = self.environment_variable("soffice")
            raise ValueError(f"{name}: there is no program at {self.soffice!r}; correct it, or leave it empty")
        return self


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
    kind: str = Field(description="pdf, docx, pptx, xlsx, table (CSV, TSV), eml, image, zip …, judged by content")
    title: str | None = None
    text: str
    pages: str | None = Field(default=None, description="Pages, slides or chapters this piece touches, as 3-5")
    sheets: list[str] | None = None
    format: TextFormat
    start: int = Field(description="Where this piece begins in the whole text of what was asked for, in characters")
    total: int = Field(description="Length of that text in characters")
    next_cursor: str | None = NEXT_CURSOR
    parts: list[Part] | None = Field(default=None, description="Map of the document, when it is longer than one piece")
    notes: list[str] | None = Field(default=None, description="What is missing from the text, and why")


class Passage(BaseModel):
    """A place where the query's words stand."""

    text: str
    page: int | None = None
    sheet: str | None = None
    cursor: str | None = Field(default=None, description="Pass to read_document as `cursor` to read on from here")
    range: str | None = Field(default=None, description="In a large workbook: pass it to read_document with the sheet")


class Passages(BaseModel):
    """Hits, best first; an empty list means nothing was found."""

    source: str
    query: str
    passages: list[Passage]
    total: int = Field(description="How many passages match in all")
    next_cursor: str | None = NEXT_CURSOR


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
    total: int | None = Field(default=None, description="Rows of the whole result; absent where counting took too long")
    next_cursor: str | None = NEXT_CURSOR
    tables: list[TableColumns]


def build_server(
    settings: Settings,
    *,
    transport: httpx2.AsyncBaseTransport | None = None,
    model_transport: httpx2.AsyncBaseTransport | None = None,
) -> Server[Library]:
    """Wire the server up. No parser is imported and no child started before the first document.

    `transport` carries what is fetched from addresses, `model_transport` what goes to the operator's models.
    """
    opened: list[Models] = []

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncGenerator[Library]:
        limits = Limits(
            memory_bytes=settings.memory_megabytes << 20,
            cpu_seconds=settings.cpu_seconds,
            wall_seconds=settings.wall_seconds,
            answer_bytes=256 << 20,
        )
        max_file_bytes = settings.max_file_megabytes * 1_000_000
        web_limits = HttpLimits(total_seconds=settings.fetch_seconds, max_body_bytes=max_file_bytes)
        with_layout = settings.layout_megabytes > 0 and layout_is_installed()
        layout_limits = dataclasses.replace(limits, memory_bytes=settings.layout_megabytes << 20)
        async with (
            Isolation(limits, parallel=settings.parallel) as isolation,
            Isolation(
                layout_limits,
                parallel=1,
                preload="memento_documents.pdf_layout:preload",
                idle_seconds=settings.layout_idle_seconds,
            ) as layout,
            SafeHttp(AddressGuard(allow_private=settings.allow_private), limits=web_limits, transport=transport) as web,
            Models(*_endpoints(settings), transport=model_transport) as models,
        ):
            opened[:] = [models]
            yield Library(
                AllowedPaths(settings.folders),
                isolation,
                layout=layout if with_layout else None,
                max_file_bytes=max_file_bytes,
                cache_chars=settings.cache_megachars * 1_000_000,
                cache=_cache(settings),
                office=_office(settings, max_file_bytes),
                web=web,
            )

    server: Server[Library] = Server(
        "documents",
        instructions="Read files of any kind, and documents at an address. Start with read_document; a long one "
        "answers with its map first. Use search_document to find a passage, query_table for sums, counts and filters "
        "over tables, read_cells for formulas and colours, describe_media for pictures and video, transcribe_audio for "
        "speech. What is in an archive, a mail or a document is named as `data.zip!/folder/table.csv`.",
        lifespan=lifespan,
    )
    read_only = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    source_field = Field(
        min_length=1,
        max_length=4_000,
        description="Path of the file, as given or relative to an allowed folder, or its address (http, https)",
    )
    add_detail_tools(server, source_field, max_chars=settings.max_chars)
    add_media_tools(
        server,
        lambda: opened[0],
        source_field,
        max_chars=settings.max_chars,
        transcribed_seconds=settings.transcribed_minutes * 60,
    )

    @server.tool(title="Read a document", annotations=read_only)
    async def read_document(
        ctx: Context[Library],
        source: Annotated[str, source_field],
        pages: Annotated[
            str | None, Field(max_length=200, description="Pages, slides or chapters: '3' or '1-4,9'")
        ] = None,
        sheet: Annotated[str | None, Field(max_length=200, description="Name of one sheet of a workbook")] = None,
        range: Annotated[
            str | None, Field(max_length=40, description="Cells of the sheet or table, as 'A1:D20'")
        ] = None,
        format: Annotated[
            TextFormat,
            Field(description="markdown, text without marks, or json: a line for each heading, paragraph, row, item"),
        ] = "markdown",
        max_chars: Annotated[int, Field(ge=200, le=1_000_000, description="Size of the piece wanted")] = 8_000,
        cursor: Annotated[str | None, CURSOR] = None,
    ) -> Annotated[CallToolResult, DocumentText]:
        """Read a file of any kind: PDF, Word, PowerPoint, Excel, OpenDocument, EPUB, HTML, mail, CSV, JSON, code, text.

        An image, recording or archive answers with what is in it. Returns the text with `[page N]` and `[sheet NAME]`
        marks, at most max_chars at once; read on with cursor. A document longer than that also answers with its map:
        which pages or sheets there are, and how long.
        """
        question = reading(source, pages, sheet, range, format)
        with told_to_model(source):
            start = position_of(cursor, *question)
            document = await ctx.request_context.lifespan_context.read(
                source, sheet=sheet, cells=range, text_format=format, on_progress=progress_to(ctx)
            )
            sections = chosen_sections(document, pages)
        # A line of JSON says itself where it is from.
        marked = MarkedText(sections, document.kind, with_marks=format != "json")
        piece = page_text(marked.text, offset=start, max_chars=min(max_chars, settings.max_chars))
        touched = marked.between(piece.offset, piece.offset + len(piece.text))
        is_long = piece.next_offset is not None and start == 0 and pages is None and range is None
        result = DocumentText(
            source=source,
            kind=document.kind,
            title=document.title,
            text=piece.text,
            pages=_page_span(touched),
            sheets=[section.sheet for section in touched if section.sheet is not None] or None,
            format=format,
            start=piece.offset,
            total=piece.total_chars,
            next_cursor=None if piece.next_offset is None else to_cursor(piece.next_offset, *question),
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
        cursor: Annotated[str | None, CURSOR] = None,
    ) -> Annotated[CallToolResult, Passages]:
        """Find passages of one document that hold the query's words, best first, with page or sheet."""
        library, question = ctx.request_context.lifespan_context, ("search_document", source, query)
        with told_to_model(source):
            first = position_of(cursor, *question)
            document = await library.read(source, on_progress=progress_to(ctx))
            if document.is_cut:
                document = await library.read(source, whole=True, on_progress=progress_to(ctx))
        marked = MarkedText(document.sections, document.kind)
        found = find_passages([section.text for section in document.sections], query)
        hits = [_passage(hit, source, document, marked) for hit in found[first : first + limit]]
        after = first + len(hits)
        result = Passages(
            source=source,
            query=query,
            passages=hits,
            total=len(found),
            next_cursor=to_cursor(after, *question) if after < len(found) else None,
        )
        shown = "\n\n".join(f"[{_place_of(hit, document.kind)}] {hit.text}" for hit in hits)
        note = f"{len(hits)} of {len(found)} passages.{going_on(result.next_cursor)}"
        return untrusted_result(result, text=shown, source=source, note=note)

    @server.tool(title="Query a table with SQL", annotations=read_only)
    async def query_table(
        ctx: Context[Library],
        source: Annotated[str, source_field],
        sql: Annotated[str, Field(min_length=1, max_length=10_000, description="One SELECT in SQLite's dialect")],
        sheet: Annotated[str | None, Field(max_length=200, description="Load this sheet alone")] = None,
        max_rows: Annotated[int, Field(ge=1, le=1_000, description="How many rows to return at most")] = 100,
        cursor: Annotated[str | None, CURSOR] = None,
    ) -> Annotated[CallToolResult, QueryRows]:
        """Run one SELECT over a spreadsheet, CSV, TSV or JSON file.

        Each sheet is a table named after it; a CSV, TSV or JSON Lines file is the table `data`; in a JSON object each
        list of records is a table. Columns are named after the header row, in lower case with underscores. To see
        tables and columns: SELECT name, sql FROM sqlite_schema. Without ORDER BY, rows come in the file's order.
        """
        library, question = ctx.request_context.lifespan_context, ("query_table", source, sql, sheet)
        with told_to_model(source):
            first = position_of(cursor, *question)
            arguments = [sql, sheet, first, max_rows, settings.query_seconds]
            raw = await library.run("query_table", source, arguments, on_progress=progress_to(ctx))
        more = raw.pop("more")
        result = QueryRows(source=source, **raw)
        after = first + len(result.rows)
        result.next_cursor = to_cursor(after, *question) if more else None
        size = sum(len(str(value)) for row in result.rows for value in row)
        if size > settings.max_chars:
            raise ToolError(
                f"The answer has {size} characters, over {settings.max_chars}. Select fewer columns or rows."
            )
        of_all = f" of {result.total}" if result.total is not None else ""
        note = f"{len(result.rows)}{of_all} rows.{going_on(result.next_cursor)}"
        return untrusted_result(result, text=_rows_as_text(result), source=source, note=note)

    add_page_tools(server, max_chars=settings.max_chars, max_pixels=int(settings.max_megapixels * 1_000_000))

    return server


def _endpoints(settings: Settings) -> tuple[Endpoint | None, Endpoint | None]:
    """Where the vision model is, and where the one for speech."""

    def endpoint(base_url: str | None, model: str | None, key: SecretStr | None, seconds: float) -> Endpoint | None:
        if base_url is None or model is None:
            return None
        return Endpoint(base_url, model, None if key is None else key.get_secret_value(), seconds)

    return (
        endpoint(settings.vision_base_url, settings.vision_model, settings.vision_api_key, settings.vision_seconds),
        endpoint(
            settings.transcription_base_url,
            settings.transcription_model,
            settings.transcription_api_key,
            settings.transcription_seconds,
        ),
    )


def _cache(settings: Settings) -> DocumentCache | None:
    if not settings.cache_megabytes:
        return None
    folder = settings.cache_folder or memento_home() / "cache" / "documents"
    return DocumentCache(folder, max_bytes=settings.cache_megabytes * 1_000_000)


def _office(settings: Settings, max_pdf_bytes: int) -> OfficePages | None:
    program = shutil.which(settings.soffice) if settings.soffice else None
    if program is None:
        return None
    return OfficePages(
        program,
        seconds=settings.soffice_seconds,
        memory_bytes=settings.soffice_megabytes << 20,
        max_pdf_bytes=max_pdf_bytes,
    )


def _passage(hit: Hit, source: str, document: Document, marked: MarkedText) -> Passage:
    section = document.sections[hit.section]
    if document.line_is_row:
        row = section.text.count("\n", 0, hit.start) + 1
        return Passage(text=hit.text, sheet=section.sheet, range=f"{row}:{row + hit.text.count(chr(10))}")
    cursor = to_cursor(marked.starts[hit.section] + hit.start, *reading(source))
    return Passage(text=hit.text, page=section.page, sheet=section.sheet, cursor=cursor)


def _place_of(passage: Passage, kind: str) -> str:
    found = place(passage.page, passage.sheet, kind)
    return ", ".join(filter(None, [found, (passage.range and f"rows {passage.range}") or f"cursor {passage.cursor}"]))


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
        f"- {place(part.page, part.sheet, result.kind)}: "
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
    end = result.start + len(result.text)
    said = [f"{result.kind}, characters {result.start}-{end} of {result.total}"]
    if result.pages:
        said.append(f"pages {result.pages}")
    return "; ".join(said) + "." + going_on(result.next_cursor) + "".join(f" {note}" for note in result.notes or [])


def _rows_as_text(result: QueryRows) -> str:
    lines = [" | ".join(result.columns)]
    lines += [" | ".join("" if value is None else str(value) for value in row) for row in result.rows]
    return "\n".join(lines)


def main() -> None:
    """The command `memento-documents`."""
    serve("memento-documents", lambda: build_server(Settings()))


if __name__ == "__main__":
    main()
