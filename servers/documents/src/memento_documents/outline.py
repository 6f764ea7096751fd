"""What a document consists of: its headings, or its pages, sheets and chapters where it has no headings.

Works on the Markdown that the readers make; parses no file.
"""

import re
from dataclasses import dataclass

from memento_documents.reading import Document

__all__ = ["Entry", "outline"]

_HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_MAX_TITLE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A heading, page, sheet or chapter. `start` counts characters within the section with that index."""

    title: str
    level: int
    section: int
    start: int


def outline(document: Document, name: str) -> list[Entry]:
    """Return the headings in order, each section's title before those in it; else one entry per section.

    Hash signs are headings in Markdown only: in code and plain text they are comments and anything else.
    """
    is_markdown = document.kind != "text" or name.lower().endswith((".md", ".markdown"))
    entries: list[Entry] = []
    for index, section in enumerate(document.sections):
        fenced = [(match.start(), match.end()) for match in _FENCED.finditer(section.text)]
        found = [
            Entry(match[2].strip()[:_MAX_TITLE_CHARS], len(match[1]), index, match.start())
            for match in (_HEADING.finditer(section.text) if is_markdown and section.sheet is None else ())
            if not any(start <= match.start() < end for start, end in fenced)
        ]
        titles = {entry.title for entry in found}
        if section.title and section.title[:_MAX_TITLE_CHARS] not in titles:
            entries.append(Entry(section.title[:_MAX_TITLE_CHARS], 1, index, 0))
        elif section.sheet is not None:
            entries.append(Entry(section.sheet, 1, index, 0))
        entries += found
    if not entries and len(document.sections) > 1:
        entries = [Entry("", 1, index, 0) for index in range(len(document.sections))]
    return entries
