"""What a parsing child does: the functions that `isolation` runs by name, in and out as plain JSON values."""

import dataclasses
from typing import Any, BinaryIO

from memento_documents.kinds import Unreadable, detect_kind
from memento_documents.reading import read_file
from memento_documents.tables import query

__all__ = ["layout_tables", "page_picture", "page_tables", "query_table", "read_document"]


def read_document(file: BinaryIO, name: str, sheet: str | None = None, cells: str | None = None) -> dict[str, Any]:
    """`reading.read_file` as JSON."""
    return dataclasses.asdict(read_file(file, name, sheet=sheet, cells=cells))


def query_table(
    file: BinaryIO, name: str, sql: str, sheet: str | None, max_rows: int, time_limit_seconds: float
) -> dict[str, Any]:
    """`tables.query` as JSON."""
    return dataclasses.asdict(
        query(file, name, sql, sheet=sheet, max_rows=max_rows, time_limit_seconds=time_limit_seconds)
    )


def page_tables(file: BinaryIO, name: str, pages: str | None) -> dict[str, Any]:
    """`pdf_pages.find_page_tables`."""
    from memento_documents.pdf_pages import find_page_tables

    return find_page_tables(_pdf(file, name), pages)


def layout_tables(file: BinaryIO, name: str, pages: list[int]) -> list[dict[str, Any]]:
    """`pdf_layout.find_layout_tables`; only for the zygote that preloaded it."""
    from memento_documents.pdf_layout import find_layout_tables

    return find_layout_tables(_pdf(file, name), pages)


def page_picture(file: BinaryIO, name: str, page: int, region: list[float] | None, max_pixels: int) -> dict[str, Any]:
    """`pdf_pages.page_picture`."""
    from memento_documents.pdf_pages import page_picture as draw

    return draw(_pdf(file, name), page, region, max_pixels)


def _pdf(file: BinaryIO, name: str) -> BinaryIO:
    kind = detect_kind(file, name)
    if kind != "pdf":
        raise Unreadable(f"This is {kind}, not a PDF; read it with read_document, ask its tables with query_table.")
    return file
