"""The sections of a document as one text with a mark before each: `[page 3]`, `[slide 3]`, `[sheet Costs]`.

Owns where in that text each section begins. All offsets that a tool takes or gives count in it.
"""

from memento_documents.kinds import Kind
from memento_documents.reading import Section

__all__ = ["PAGES_ARE", "MarkedText", "place"]


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
