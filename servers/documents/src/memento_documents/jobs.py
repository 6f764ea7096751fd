"""What a parsing child does: the functions that `isolation` runs by name, in and out as plain JSON values.

Each begins with `open_member`, so that it works on `archive.zip!/member` as on a file.
"""

import base64
import dataclasses
from typing import Any, BinaryIO

from memento_documents.archive import open_member
from memento_documents.kinds import Unreadable, detect_kind, old_office_kind
from memento_documents.reading import read_file
from memento_documents.tables import query
from memento_documents.text_format import TextFormat, in_format

__all__ = [
    "content", "layout_tables", "page_picture", "pictures", "query_table", "read_cells", "read_document", "sound",
    "tables",
]  # fmt: skip


def read_document(
    file: BinaryIO,
    name: str,
    sheet: str | None = None,
    cells: str | None = None,
    whole: bool = False,
    text_format: TextFormat = "markdown",
) -> dict[str, Any]:
    """`reading.read_file` as JSON, its text in `text_format`."""
    file, name = open_member(file, name)
    pdf_format = "text" if text_format == "text" else "markdown"
    document = read_file(file, name, sheet=sheet, cells=cells, whole=whole, pdf_format=pdf_format)
    if document.kind != "pdf" or text_format == "json":  # a PDF's plain text is plain already
        document = in_format(document, name, text_format)
    return dataclasses.asdict(document)


def query_table(
    file: BinaryIO, name: str, sql: str, sheet: str | None, first_row: int, max_rows: int, time_limit_seconds: float
) -> dict[str, Any]:
    """`tables.query` as JSON."""
    file, name = open_member(file, name)
    limits: dict[str, Any] = {"max_rows": max_rows, "time_limit_seconds": time_limit_seconds}
    return dataclasses.asdict(query(file, name, sql, sheet=sheet, first_row=first_row, **limits))


def tables(file: BinaryIO, name: str, pages: str | None) -> dict[str, Any]:
    """`pdf_pages.find_page_tables` for a PDF, `text_tables.find_text_tables` for other documents, with their kind."""
    file, name = open_member(file, name)
    kind = detect_kind(file, name)
    if kind == "pdf":
        from memento_documents.pdf_pages import find_page_tables

        return {"kind": kind, **find_page_tables(file, pages)}
    from memento_documents.text_tables import check_kind, find_text_tables

    check_kind(kind, name)  # before a large workbook is read for nothing
    document = read_file(file, name)
    return {"kind": kind, "tables": find_text_tables(document, pages), "uncertain": []}


def layout_tables(file: BinaryIO, name: str, pages: list[int]) -> list[dict[str, Any]]:
    """`pdf_layout.find_layout_tables`; only for the zygote that preloaded it."""
    from memento_documents.pdf_layout import find_layout_tables

    return find_layout_tables(_pdf(file, name), pages)


def page_picture(file: BinaryIO, name: str, page: int, region: list[float] | None, max_pixels: int) -> dict[str, Any]:
    """`pdf_pages.page_picture`, or `media.view` of an image; of an Office file {office: kind}, to be printed first."""
    from memento_documents.office_pages import OFFICE_KINDS

    file, name = open_member(file, name)
    kind = old_office_kind(file) or detect_kind(file, name)
    if kind in OFFICE_KINDS:
        return {"office": kind}
    if kind == "image":
        from memento_documents.media import view

        return view(file, page, region, max_pixels)
    from memento_documents.pdf_pages import page_picture as draw

    return draw(_pdf(file, name), page, region, max_pixels)


def content(file: BinaryIO, name: str) -> str:
    """The bytes of a member in base64."""
    file, _ = open_member(file, name)
    return base64.b64encode(file.read()).decode()


def _pdf(file: BinaryIO, name: str) -> BinaryIO:
    file, name = open_member(file, name)
    kind = detect_kind(file, name)
    if kind != "pdf":
        raise Unreadable(f"This is {kind}, not a PDF; read it with read_document, ask its tables with query_table.")
    return file


def read_cells(file: BinaryIO, name: str, sheet: str | None, cells: str) -> dict[str, Any]:
    """`cell_details.read_cells` as JSON."""
    from memento_documents.cell_details import read_cells as read

    return dataclasses.asdict(read(*open_member(file, name), sheet, cells))


def pictures(
    file: BinaryIO, name: str, count: int, start_seconds: float, end_seconds: float | None, max_pixels: int
) -> dict[str, Any]:
    """`media.pictures`, for what has pictures."""
    from memento_documents import media

    file, name = open_member(file, name)
    kind = detect_kind(file, name)
    if kind not in ("image", "video", "audio"):
        raise Unreadable(f"This is {kind}, not an image or a video; read_document reads it, view_page shows PDF pages.")
    return media.pictures(file, kind, count, start_seconds, end_seconds, max_pixels)


def sound(file: BinaryIO, name: str, start_seconds: float, length_seconds: float) -> dict[str, Any]:
    """`media.sound`, for what has sound."""
    from memento_documents import media

    file, name = open_member(file, name)
    kind = detect_kind(file, name)
    if kind not in ("audio", "video"):
        raise Unreadable(f"This is {kind}, not a sound or video recording.")
    return media.sound(file, start_seconds, length_seconds)
