"""The tools `document_outline` and `read_cells`: what a document consists of, and everything about a few cells."""

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import BaseModel, Field

from memento_documents.calls import CURSOR, NEXT_CURSOR, going_on, progress_to, told_to_model
from memento_documents.cursor import position_of, reading, to_cursor
from memento_documents.library import Library
from memento_documents.marked_text import MarkedText, place
from memento_documents.outline import outline
from memento_kit import Server, untrusted_result

__all__ = ["add_detail_tools"]


class OutlineEntry(BaseModel):
    """A heading, page, slide, chapter or sheet."""

    title: str
    level: int
    page: int | None = None
    sheet: str | None = None
    rows: int | None = None
    columns: int | None = None
    cursor: str = Field(description="Pass to read_document as `cursor` to read from here")


class Outline(BaseModel):
    """What a document consists of."""

    source: str
    kind: str
    title: str | None = None
    chars: int = Field(description="Length of the whole text")
    entries: list[OutlineEntry]
    structure: list[str] | None = Field(default=None, description="Of JSON, XML, YAML: keys or elements and types")
    total: int = Field(description="How many entries there are in all")
    next_cursor: str | None = NEXT_CURSOR
    notes: list[str] | None = None


class Cell(BaseModel):
    """One cell. Colours are RRGGBB."""

    cell: str
    shown: str = Field(description="As Excel displays it")
    value: int | float | str | bool | None = Field(default=None, description="Unrounded, where `shown` differs")
    formula: str | None = None
    fill: str | None = None
    font_color: str | None = None
    bold: bool | None = None
    merged: str | None = Field(default=None, description="The range it is merged with, given on its first cell")


class Cells(BaseModel):
    """The cells of a range that hold something or are coloured, row by row."""

    source: str
    sheet: str
    range: str
    cells: list[Cell]
    total: int = Field(description="How many such cells the range has")
    next_cursor: str | None = NEXT_CURSOR
    notes: list[str] | None = None


_READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)


def add_detail_tools(server: Server[Library], source_field: Any, *, max_chars: int) -> None:
    """Add both tools."""

    @server.tool(title="Outline of a document", annotations=_READ_ONLY)
    async def document_outline(
        ctx: Context[Library],
        source: Annotated[str, source_field],
        limit: Annotated[int, Field(ge=1, le=500, description="How many entries to return")] = 100,
        cursor: Annotated[str | None, CURSOR] = None,
    ) -> Annotated[CallToolResult, Outline]:
        """List a document's headings with page and cursor, or its slides, chapters, sheets, keys or elements."""
        question = ("document_outline", source)
        with told_to_model(source):
            first = position_of(cursor, *question)
            document = await ctx.request_context.lifespan_context.read(source, on_progress=progress_to(ctx))
        marked = MarkedText(document.sections, document.kind)
        found = outline(document, source)
        entries = [
            OutlineEntry(
                title=entry.title,
                level=entry.level,
                page=(section := document.sections[entry.section]).page,
                sheet=section.sheet,
                rows=section.rows,
                columns=section.columns,
                cursor=to_cursor(marked.starts[entry.section] + entry.start, *reading(source)),
            )
            for entry in found[first : first + limit]
        ]
        result = Outline(
            source=source,
            kind=document.kind,
            title=document.title,
            chars=len(marked.text),
            entries=entries,
            structure=document.outline or None,
            total=len(found),
            next_cursor=to_cursor(first + limit, *question) if first + limit < len(found) else None,
            notes=document.notes or None,
        )
        return untrusted_result(
            result,
            text=_outline_as_text(result),
            source=source,
            note=f"{document.kind}, {result.chars} characters, {len(entries)} of {result.total} entries."
            + going_on(result.next_cursor),
        )

    @server.tool(title="Read cells with their colours", annotations=_READ_ONLY)
    async def read_cells(
        ctx: Context[Library],
        source: Annotated[str, source_field],
        range: Annotated[str, Field(min_length=1, max_length=40, description="Cells, as 'A1:D20'")],
        sheet: Annotated[str | None, Field(max_length=200, description="Name of the sheet; default the first")] = None,
        limit: Annotated[int, Field(ge=1, le=1_000, description="How many cells to return")] = 300,
        cursor: Annotated[str | None, CURSOR] = None,
    ) -> Annotated[CallToolResult, Cells]:
        """Read cells of a workbook one by one: value as displayed, formula, fill and font colour, merged ranges.

        Empty cells without a colour are left out.
        """
        library, question = ctx.request_context.lifespan_context, ("read_cells", source, sheet, range)
        with told_to_model(source):
            first = position_of(cursor, *question)
            raw = await library.run("read_cells", source, [sheet, range], on_progress=progress_to(ctx))
        found = [Cell.model_validate({**each, "bold": each["bold"] or None}) for each in raw["cells"]]
        result = Cells(
            source=source,
            sheet=raw["sheet"],
            range=raw["range"],
            cells=_fitting(found[first : first + limit], max_chars),
            total=len(found),
            notes=raw["notes"],
        )
        end = first + len(result.cells)
        result.next_cursor = to_cursor(end, *question) if end < len(found) else None
        note = f"Sheet {result.sheet}, {len(result.cells)} of {result.total} cells.{going_on(result.next_cursor)}"
        return untrusted_result(result, text=_cells_as_text(result), source=source, note=note)


def _fitting(cells: list[Cell], max_chars: int) -> list[Cell]:
    """As many from the start as fit an answer."""
    size = 0
    for index, cell in enumerate(cells):
        size += len(cell.shown) + len(cell.formula or "") + len(cell.cell) + 20
        if size > max_chars and index:
            return cells[:index]
    return cells


def _outline_as_text(result: Outline) -> str:
    lines = [
        "  " * (entry.level - 1)
        + f"- {entry.title or place(entry.page, entry.sheet, result.kind)} ("
        + (f"{place(entry.page, entry.sheet, result.kind)}, " if entry.page is not None else "")
        + (f"{entry.rows} rows x {entry.columns} columns, " if entry.rows is not None else "")
        + f"cursor {entry.cursor})"
        for entry in result.entries
    ]
    lines += result.structure or []
    return "\n".join(lines) or "(No headings, pages or sheets.)"


def _cells_as_text(result: Cells) -> str:
    lines: list[str] = []
    for cell in result.cells:
        facts = cell.model_dump(exclude_none=True, exclude={"cell", "shown"})
        lines.append(f"{cell.cell}: {cell.shown}" + "".join(f" | {name} {value}" for name, value in facts.items()))
    return "\n".join(lines) or "(Empty.)"
