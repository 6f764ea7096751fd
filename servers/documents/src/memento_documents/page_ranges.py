"""Lists of pages as a model writes them: `3`, `1-4,9`, `7-`."""

import re

from memento_documents.kinds import Unreadable

__all__ = ["parse_pages"]


def parse_pages(text: str, count: int) -> list[int]:
    """Return the page numbers that `text` names in a document of `count` pages, ascending, each once.

    Raises:
        Unreadable: it is no such list, or begins after the last page.
    """
    wanted: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,7})\s*(?:-\s*(\d{0,7})\s*)?", part)
        if match is None:
            raise Unreadable(f"{text!r} is no list of pages; write it as '3' or '1-4,9'.")
        first = int(match[1])
        last = first if match[2] is None else int(match[2] or count)
        if not 1 <= first <= last or first > count:
            raise Unreadable(f"There is no page {part.strip()} here: the document has pages 1-{count}.")
        wanted.update(range(first, min(last, count) + 1))
    return sorted(wanted)
