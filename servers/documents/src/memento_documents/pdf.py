"""PDF through pymupdf: the text of each page, the outline, what the file says about itself.

pymupdf 2 loads ONNX layout models at import (0.85 s CPU, 137 MB) and prints adverts to stdout
(guides: documents §1). Both are held back here, so this is the only module that may import it.
"""

import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from memento_documents.kinds import Unreadable

if TYPE_CHECKING:
    from memento_documents.reading import Document

__all__ = ["import_pymupdf", "read_pdf"]

_LAYOUT_MODULES = ("pymupdf.layout", "pymupdf4llm")


def import_pymupdf() -> Any:
    """Import pymupdf without its layout models, and without a word on stdout."""
    os.environ.setdefault("PYMUPDF_SUGGEST_LAYOUT_ANALYZER", "0")
    for name in _LAYOUT_MODULES:
        if name not in sys.modules:
            sys.modules[name] = cast(Any, None)  # makes pymupdf's own optional import fail, as if not installed
    import pymupdf as module

    pymupdf: Any = module  # its hints are partial
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    return pymupdf


def read_pdf(file: BinaryIO) -> "Document":
    """Return one section per page, in reading order, and the outline.

    Raises:
        Unreadable: encrypted, without pages, or too damaged to open.
    """
    from memento_documents.reading import Document, Section

    pymupdf = import_pymupdf()
    try:
        document = pymupdf.open(stream=file.read(), filetype="pdf")
    except (pymupdf.FileDataError, pymupdf.mupdf.FzErrorBase, RuntimeError, ValueError) as exc:
        raise Unreadable("The PDF is damaged and cannot be opened.") from exc
    with document:
        if document.needs_pass:
            raise Unreadable("The PDF is encrypted with a password; save a copy without one.")
        if document.page_count == 0:
            raise Unreadable("The PDF is damaged: no page can be found in it.")
        titles = _titles(document)
        sections: list[Section] = []
        unreadable: list[int] = []
        for index in range(document.page_count):
            try:
                text = str(document.load_page(index).get_text("text"))
            except (pymupdf.mupdf.FzErrorBase, RuntimeError, ValueError):
                text = ""
                unreadable.append(index + 1)
            sections.append(Section(text=text, page=index + 1, title=titles.get(index + 1)))
        metadata = cast(dict[str, str | None], document.metadata or {})
        return Document("pdf", sections, title=metadata.get("title") or None, notes=_notes(sections, unreadable))


def _titles(document: Any) -> dict[int, str]:
    """The outline's first entry on each page; a broken outline is no outline."""
    titles: dict[int, str] = {}
    try:
        for _, title, page in document.get_toc(simple=True):
            titles.setdefault(int(page), " ".join(str(title).split()))
    except (RuntimeError, ValueError, TypeError):
        return {}
    return titles


def _notes(sections: "list[Any]", unreadable: list[int]) -> list[str]:
    notes = [f"Damaged, could not be read: page {_spans(unreadable)}."] if unreadable else []
    empty = [section.page for section in sections if not section.text.strip() and section.page not in unreadable]
    if empty:
        notes.append(f"No text on page {_spans(empty)}: scanned or drawn; there is no OCR here.")
    return notes


def _spans(numbers: list[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
