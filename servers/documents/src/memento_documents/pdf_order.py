"""Reading order from where the lines stand, for pages whose file has them in another order.

The order in the file is right on most pages, columns included, and better than any rule about geometry
(guides: documents §4.2). Some writers paint all prose first and the tables after it, though: such a page jumps back
up inside a column, and is put in order here: whole-width lines from top to bottom, columns between them one by one.
"""

from itertools import pairwise

from memento_documents.pdf_page import Line, PageContent

__all__ = ["put_in_order"]

_MOST_JUMPS = 1
"""So many jumps back up inside a column a good order may have: a float, a caption."""
_GUTTER = 1.0
"""In font sizes: columns of prose are at least this far apart."""
_FEWEST_LINES = 4
_FEWEST_EMS = 11
"""Columns of prose have at least so many lines, as wide as this at the median; cells of tables are narrower."""
_MAX_DEPTH = 4

_Strip = tuple[float, float]


def put_in_order(page: PageContent) -> None:
    """Sort the page's untagged lines, if their order is broken; a page with tags keeps its order."""
    if any(block.tagged or block.kind != "paragraph" for block in page.blocks):
        return
    lines = [line for block in page.blocks for line in block.lines]
    if _jumps(lines, page.height) <= _MOST_JUMPS:
        return
    ordered = _ordered(lines, 0)
    for block in page.blocks[1:]:
        block.lines = []
    page.blocks = page.blocks[:1]
    page.blocks[0].lines = ordered


def _jumps(lines: list[Line], height: float) -> int:
    """How often the order goes up again though it stays in its column; a long way counts twice."""
    jumps = 0
    for last, line in pairwise(lines):
        up = last.y0 - line.y1
        if up > 0.5 * line.size and min(last.x1, line.x1) - max(last.x0, line.x0) > 0:
            jumps += 1 + (up > 0.15 * height)
    return jumps


def _ordered(lines: list[Line], depth: int) -> list[Line]:
    ordered: list[Line] = []
    group: list[Line] = []
    free: list[_Strip] = []
    for strip in _strips(lines):
        gaps = _gaps(strip)
        both = gaps if not group else _both(free, gaps, strip)
        if group and not both:
            ordered += _columns_of(group, free, depth)
            group, both = [], gaps
        group += strip
        free = both
    return ordered + (_columns_of(group, free, depth) if group else [])


def _strips(lines: list[Line]) -> list[list[Line]]:
    """Lines that overlap in height, together; each strip from left to right, top to bottom."""
    strips: list[list[Line]] = []
    bottom = 0.0
    for line in sorted(lines, key=lambda line: (line.middle, line.x0)):
        if strips and line.middle < bottom - 0.2 * (line.y1 - line.y0):
            strips[-1].append(line)
            bottom = max(bottom, line.y1)
        else:
            strips.append([line])
            bottom = line.y1
    return strips


def _gaps(strip: list[Line]) -> list[_Strip]:
    """What of the page's width the strip leaves free, its outsides included."""
    gaps: list[_Strip] = []
    at = float("-inf")
    for line in sorted(strip, key=lambda line: line.x0):
        if line.x0 > at:
            gaps.append((at, line.x0))
        at = max(at, line.x1)
    return [*gaps, (at, float("inf"))]


def _both(free: list[_Strip], gaps: list[_Strip], strip: list[Line]) -> list[_Strip]:
    size = strip[0].size
    found = [
        (max(a0, b0), min(a1, b1)) for a0, a1 in free for b0, b1 in gaps if min(a1, b1) - max(a0, b0) >= _GUTTER * size
    ]
    inner = [gap for gap in found if gap[0] != float("-inf") and gap[1] != float("inf")]
    # One column over another has only its outsides in common, which parts nothing.
    return found if inner or len(free) == len(gaps) == 2 else []


def _columns_of(lines: list[Line], free: list[_Strip], depth: int) -> list[Line]:
    if depth < _MAX_DEPTH:
        for left, right in free:
            if left == float("-inf") or right == float("inf"):
                continue
            sides = [line for line in lines if line.x1 <= left + 1], [line for line in lines if line.x0 >= right - 1]
            if all(map(_is_prose, sides)) and len(sides[0]) + len(sides[1]) == len(lines):
                return _ordered(sides[0], depth + 1) + _ordered(sides[1], depth + 1)
    rows = _strips(lines)
    return [line for row in rows for line in sorted(row, key=lambda line: (round(line.middle / 3), line.x0))]


def _is_prose(lines: list[Line]) -> bool:
    if len(lines) < _FEWEST_LINES:
        return False
    widths = sorted((line.x1 - line.x0) / max(line.size, 1) for line in lines)
    return widths[len(widths) // 2] >= _FEWEST_EMS
