"""A file as sections of text: the library that the server, and other packages, read documents with.

`read_text` runs in the calling process, without MCP and without a child: for files the caller trusts enough,
or from a process the caller is ready to lose. The server never calls it; it reads in `isolation`.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from memento_documents.kinds import Kind, Unreadable, detect_kind

__all__ = ["Document", "Kind", "Section", "Unreadable", "read_file", "read_text"]

_GRIDS = ("xlsx", "xls", "xlsb", "ods", "table", "gzip", "bzip2", "xz")
"""What has sheets or cells, or may have when it is unpacked."""


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of text with the place it came from: a page, a sheet of a workbook, or neither."""

    text: str
    page: int | None = None
    """1-based: a page of a PDF, a slide of a presentation, a chapter of a book."""
    sheet: str | None = None
    title: str | None = None
    """What the outline calls the page, or the slide or chapter itself."""
    rows: int | None = None
    """Of the whole sheet, where the text holds only its first rows."""
    columns: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """All of a file's text. `notes` are one-line facts about what is missing from it."""

    kind: Kind
    sections: list[Section]
    title: str | None = None
    notes: list[str] = field(default_factory=list[str])
    outline: list[str] = field(default_factory=list[str])
    """Of JSON, XML and YAML: what is in it, a line per key or element, indented."""
    is_cut: bool = False
    """Of a large workbook only the first rows are here; `read_file` gives all with `whole`."""
    line_is_row: bool = False
    """Each line of a section's text is a row of its sheet, the first line row 1."""


def read_text(path: Path) -> list[Section]:
    """Return the text of the file: a section per page or sheet, one section for anything else.

    Raises:
        Unreadable: encrypted, damaged, empty, or of a kind that is not read here; one line says which.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        return read_file(file, path.name).sections


def read_file(
    file: BinaryIO,
    name: str,
    *,
    sheet: str | None = None,
    cells: str | None = None,
    whole: bool = False,
    pdf_format: Literal["markdown", "text"] = "markdown",
) -> Document:
    """Read an open file; `name` only helps to tell plain-text kinds apart.

    `sheet` and `cells` ("A1:D20") choose a part of a spreadsheet or table. Of a large workbook the first rows are
    read, unless `whole` asks for all of it. A PDF's plain text costs half of its Markdown.

    Raises:
        Unreadable: as for `read_text`.
    """
    kind = detect_kind(file, name)
    if kind not in _GRIDS and (sheet or cells):
        raise Unreadable("This is not a spreadsheet or table; leave `sheet` and `range` out.")
    match kind:
        case "xlsx" | "xls" | "xlsb" | "ods":
            return _workbook(file, kind, sheet, cells, whole)
        case "table":
            return _delimited(file, cells, whole)
        case "html" | "text":
            return _text(file, kind)
        case "json" | "jsonl" | "xml" | "yaml":
            from memento_documents.structured import read_structured

            return read_structured(file, kind)
        case "gzip" | "bzip2" | "xz":
            from memento_documents.archive import open_member

            return read_file(*open_member(file, name), sheet=sheet, cells=cells, whole=whole, pdf_format=pdf_format)
        case "image":
            from memento_documents.media import read_image

            return read_image(file)
        case "audio" | "video":
            from memento_documents.media import read_recording

            return read_recording(file, kind)
        case _:
            return _document(file, kind, pdf_format)


def _document(file: BinaryIO, kind: Kind, pdf_format: Literal["markdown", "text"]) -> Document:
    match kind:
        case "pdf":
            from memento_documents.pdf import find_tessdata, read_pdf

            return read_pdf(file, text_format=pdf_format, tessdata=find_tessdata())
        case "docx":
            from memento_documents.docx import read_docx

            return read_docx(file)
        case "pptx":
            from memento_documents.pptx import read_pptx

            return read_pptx(file)
        case "odt" | "odp":
            from memento_documents.odf import read_odf

            return read_odf(file, kind)
        case "epub":
            from memento_documents.epub import read_epub

            return read_epub(file)
        case "eml":
            from memento_documents.mail import read_mail

            return read_mail(file)
        case "zip" | "tar":
            from memento_documents.archive import read_archive

            return read_archive(file, kind)
        case _:
            raise AssertionError(kind)


def _workbook(file: BinaryIO, kind: Kind, sheet: str | None, cells: str | None, whole: bool) -> Document:
    from memento_documents.cells import markdown_table, parse_range
    from memento_documents.workbook import PEEKED_ROWS, sheet_rows, styled_rows, whole_sheets

    sections: list[Section] = []
    notes: list[str] = []
    is_cut = False
    block = parse_range(cells) if cells else None
    found = sheet_rows(file, only=sheet, block=block)
    if kind != "xlsx":
        found = styled_rows(file, kind, only=sheet, block=block)
    for each in found:
        width = max((len(row) for row in each.rows), default=0)
        sections.append(
            Section(markdown_table(each.rows), sheet=each.name, rows=each.total_rows or len(each.rows), columns=width)
        )
        is_cut = is_cut or (each.is_cut and cells is None)
        notes += [note for note in each.notes if note not in notes]
        if each.is_cut:
            total = f"{each.total_rows} rows" if each.total_rows else "more rows than these"
            notes.append(
                f"Sheet {each.name!r} has {total}; the first {len(each.rows)} are shown. Read others with range, as "
                f"'{len(each.rows) + 1}:{len(each.rows) + PEEKED_ROWS}'; count and filter with query_table."
            )
    if whole and is_cut:
        rows = [
            Section("\n".join(" | ".join(row) for row in rows) + "\n", sheet=name)
            for name, rows in whole_sheets(file, kind, sheet)
        ]
        return Document(kind, rows, notes=notes, line_is_row=True)
    return Document(kind, sections, notes=notes + _macro_note(file), is_cut=is_cut)


def _macro_note(file: BinaryIO) -> list[str]:
    import zipfile

    file.seek(0)
    if not zipfile.is_zipfile(file):
        return []
    with zipfile.ZipFile(file) as archive:
        has_macros = "xl/vbaProject.bin" in archive.namelist()
    return ["It has macros, which were not run."] if has_macros else []


def _delimited(file: BinaryIO, cells: str | None, whole: bool) -> Document:
    from memento_documents.cells import CellRange, markdown_table, parse_range
    from memento_documents.delimited import DelimitedStream
    from memento_documents.workbook import MAX_RANGE_CELLS, PEEKED_ROWS, READ_WHOLE_CELLS

    table = DelimitedStream(file)
    notes = _encoding_note(table.encoding)
    block = parse_range(cells) if cells else CellRange(1, None, 1, None)
    if whole:
        text = "".join(" | ".join(row).replace("\n", " ") + "\n" for row in table.rows())
        return Document("table", [Section(text)], notes=notes, line_is_row=True)
    rows: list[list[str]] = []
    left = MAX_RANGE_CELLS if cells else READ_WHOLE_CELLS
    for row in itertools.islice(table.rows(), block.first_row - 1, block.last_row):
        left -= len(row) + 1
        if left < 0:
            break
        rows.append(row[block.first_column - 1 : block.last_column])
    width = max((len(row) for row in rows), default=0)
    if left >= 0:
        return Document("table", [Section(markdown_table(rows), rows=len(rows), columns=width)], notes=notes)
    shown = rows if cells else rows[:PEEKED_ROWS]
    lines = table.count_lines()
    first, last = block.first_row, block.first_row + len(shown) - 1
    notes.append(
        f"The table has {lines} lines; rows {first}-{last} are shown. Read others with range, as "
        f"'{last + 1}:{last + PEEKED_ROWS}'; count and filter with query_table."
    )
    section = Section(markdown_table(shown), rows=lines, columns=width)
    return Document("table", [section], notes=notes, is_cut=not cells)


def _text(file: BinaryIO, kind: Kind) -> Document:
    from memento_documents.html import html_to_text
    from memento_documents.plain_text import decode

    text, encoding = decode(file.read())
    return Document(kind, [Section(html_to_text(text) if kind == "html" else text)], notes=_encoding_note(encoding))


def _encoding_note(encoding: str) -> list[str]:
    return [] if encoding in ("utf-8", "ascii") else [f"Decoded as {encoding}; odd characters may be a wrong guess."]
