"""What a model writes to choose a part: lists of pages (`3`, `1-4,9`, `7-`), and regions of one."""

import re

from memento_documents.kinds import Unreadable

__all__ = ["check_region", "parse_pages"]


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


def check_region(region: list[float]) -> None:
    """Refuse what is no region of a page.

    Raises:
        Unreadable: it is empty or reaches beyond the page.
    """
    x0, y0, x1, y1 = region
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise Unreadable("A region is [x0, y0, x1, y1] in shares of the page; [0, 0, 1, 0.5] is its upper half.")
