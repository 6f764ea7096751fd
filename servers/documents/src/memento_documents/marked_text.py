"""The sections of a document as one text with a mark before each: `[page 3]`, `[slide 3]`, `[sheet Costs]`.

Owns where in that text each section begins, and which sections a list of pages names. All offsets that a tool takes or
gives count in it.
"""

from memento_documents.kinds import Kind, Unreadable
from memento_documents.page_ranges import parse_pages
from memento_documents.reading import Document, Section

__all__ = ["PAGES_ARE", "MarkedText", "chosen_sections", "place"]


class MarkedText:
    """The sections as one text with a mark before each, and where in it each begins."""

    def __init__(self, sections: list[Section], kind: Kind, *, with_marks: bool = True) -> None:
        self._sections = sections
        self.starts: list[int] = []
        """Where each section's own text begins."""
        pieces: list[str] = []
        at = 0
        for section in sections:
            mark = place(section.page, section.sheet, kind)
            parted = "\n\n" if with_marks else "\n"
            piece = (f"[{mark}]\n" if mark and with_marks else "") + section.text.rstrip() + parted
            self.starts.append(at + len(piece) - len(section.text.rstrip()) - len(parted))
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


PAGES_ARE: dict[str, str] = {"pptx": "slide", "odp": "slide", "epub": "chapter"}


def place(page: int | None, sheet: str | None, kind: str) -> str:
    if page is not None:
        return f"{PAGES_ARE.get(kind, 'page')} {page}"
    return f"sheet {sheet}" if sheet is not None else ""


def chosen_sections(document: Document, pages: str | None) -> list[Section]:
    """The sections that `pages` ("1-4,9") names; all without it.

    Raises:
        Unreadable: the document has no such pages, or none at all.
    """
    if pages is None:
        return document.sections
    if document.kind != "pdf" and document.kind not in PAGES_ARE:
        raise Unreadable(
            f"A document of kind {document.kind} has no pages; leave `pages` out and read on with `cursor`."
        )
    return [document.sections[page - 1] for page in parse_pages(pages, len(document.sections))]
