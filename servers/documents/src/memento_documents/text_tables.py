"""The tables of documents whose files say what a table is: Word, PowerPoint, OpenDocument, EPUB, HTML, Markdown.

Takes them from the Markdown that the readers make, with the slide or chapter and the heading they stand under. PDF
tables have to be recognised and are `pdf_tables`' and `pdf_layout`'s; workbooks are `tables`' and `cell_details`'.
"""

from typing import Any

from memento_documents.kinds import Kind, Unreadable
from memento_documents.marked_text import chosen_sections
from memento_documents.reading import Document
from memento_documents.text_format import blocks, is_markdown

__all__ = ["check_kind", "find_text_tables"]

_GRIDS = ("xlsx", "xls", "xlsb", "ods", "table", "json", "jsonl")
_MAX_HEADING_CHARS = 200


def check_kind(kind: Kind, name: str) -> None:
    """Refuse what has no tables in it.

    Raises:
        Unreadable: the line names the tool that serves.
    """
    if kind in _GRIDS:
        raise Unreadable(f"This is {kind}, rows already: ask it with query_table, or read it with read_document.")
    if not is_markdown(kind, name):
        raise Unreadable(
            f"This is {kind}; tables are extracted from PDF, Word, PowerPoint, OpenDocument, EPUB, HTML and Markdown. "
            "Read it with read_document."
        )


def find_text_tables(document: Document, pages: str | None) -> list[dict[str, Any]]:
    """Return {page, heading, rows, engine} for each table on the slides or chapters that `pages` names, in order.

    Raises:
        Unreadable: there are no such pages.
    """
    tables: list[dict[str, Any]] = []
    for section in chosen_sections(document, pages):
        heading = section.title
        for block in blocks(section.text):
            if block.kind == "heading":
                heading = block.text
            elif block.kind == "table" and block.rows:
                under = heading[:_MAX_HEADING_CHARS] if heading else None
                tables.append({"page": section.page, "heading": under, "rows": block.rows, "engine": "file"})
    return tables
