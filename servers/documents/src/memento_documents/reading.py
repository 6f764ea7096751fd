"""A file as sections of text: the library that the server, and other packages, read documents with.

`read_text` runs in the calling process, without MCP and without a child: for files the caller trusts enough,
or from a process the caller is ready to lose. The server never calls it; it reads in `isolation`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from memento_documents.kinds import Kind, Unreadable, detect_kind

__all__ = ["Document", "Kind", "Section", "Unreadable", "read_file", "read_text"]


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of text with the place it came from: a page (1-based) of a PDF, a sheet of a workbook, or neither."""

    text: str
    page: int | None = None
    sheet: str | None = None
    title: str | None = None
    """What the outline calls the page."""
    rows: int | None = None
    columns: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """All of a file's text. `notes` are one-line facts about what is missing from it."""

    kind: Kind
    sections: list[Section]
    title: str | None = None
    notes: list[str] = field(default_factory=list[str])


def read_text(path: Path) -> list[Section]:
    """Return the text of the file: a section per page or sheet, one section for anything else.

    Raises:
        Unreadable: encrypted, damaged, empty, or of a kind that is not read here; one line says which.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        return read_file(file, path.name).sections


def read_file(file: BinaryIO, name: str, *, sheet: str | None = None, cells: str | None = None) -> Document:
    """Read an open file; `name` only helps to tell plain-text kinds apart.

    `sheet` and `cells` ("A1:D20") choose a part of a spreadsheet or table.

    Raises:
        Unreadable: as for `read_text`.
    """
    kind = detect_kind(file, name)
    if kind not in ("xlsx", "table") and (sheet or cells):
        raise Unreadable("This is not a spreadsheet or table; leave `sheet` and `range` out.")
    match kind:
        case "pdf":
            from memento_documents.pdf import find_tessdata, read_pdf

            return read_pdf(file, tessdata=find_tessdata())
        case "docx":
            from memento_documents.docx import read_docx

            return read_docx(file)
        case "xlsx":
            return _workbook(file, sheet, cells)
        case "table":
            return _delimited(file, cells)
        case "html" | "text":
            return _text(file, kind)


def _workbook(file: BinaryIO, sheet: str | None, cells: str | None) -> Document:
    from memento_documents.cells import markdown_table, parse_range
    from memento_documents.workbook import MAX_CELLS, sheet_rows

    sections: list[Section] = []
    notes: list[str] = []
    for name, rows, cut_short in sheet_rows(file, only=sheet, block=parse_range(cells) if cells else None):
        width = max((len(row) for row in rows), default=0)
        sections.append(Section(markdown_table(rows), sheet=name, rows=len(rows), columns=width))
        if cut_short:
            notes.append(
                f"Sheet {name!r} is cut off after {len(rows)} rows: a workbook is read up to {MAX_CELLS} cells."
            )
            break
    return Document("xlsx", sections, notes=notes)


def _delimited(file: BinaryIO, cells: str | None) -> Document:
    from memento_documents.cells import cut, markdown_table, parse_range
    from memento_documents.delimited import read_rows

    table = read_rows(file.read())
    rows = cut(table.rows, parse_range(cells)) if cells else table.rows
    width = max((len(row) for row in rows), default=0)
    section = Section(markdown_table(rows), rows=len(rows), columns=width)
    return Document("table", [section], notes=_encoding_note(table.encoding))


def _text(file: BinaryIO, kind: Kind) -> Document:
    from memento_documents.plain_text import decode, html_to_text

    text, encoding = decode(file.read())
    return Document(kind, [Section(html_to_text(text) if kind == "html" else text)], notes=_encoding_note(encoding))


def _encoding_note(encoding: str) -> list[str]:
    return [] if encoding in ("utf-8", "ascii") else [f"Decoded as {encoding}; odd characters may be a wrong guess."]
