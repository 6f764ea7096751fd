"""One PDF page as blocks of lines: what pymupdf's text dictionary says, put into shapes the writer can judge.

Owns reading the file's own tags (PDF 1.7, 14.7-14.8: headings, lists, tables in logical order) where a page has
them, joining what MuPDF parts (a line at each wide gap, a paragraph at each drawn rule), and the drawn rules
themselves. Says nothing about what is a heading in a file without tags: `pdf_headings`, `pdf_tables` do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Block", "Line", "PageContent", "Rectangle", "cut_paragraphs", "read_page"]

Rectangle = tuple[float, float, float, float]
"""x0, y0, x1, y1 in points; y grows downwards."""
BlockKind = Literal["paragraph", "heading", "item", "table"]

_BOLD, _MONOSPACED = 16, 8
_WORD_GAP = 0.15
"""In font sizes: a wider gap between two spans is a space."""
_SAME_LINE_GAP = 0.6
"""In font sizes: pieces on one baseline further apart are cells or columns, not one line."""
_STRETCHED_LINE_GAP = 5.0
"""The same for text that is in no table: justified lines of a narrow column are stretched that far."""
_MAX_STRUCTURE_DEPTH = 60


@dataclass(slots=True)
class Line:
    """One line, or one cell's line. `size` in points is that of most of its text; `bold` means all of it."""

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    size: float
    bold: bool
    monospaced: bool
    bullet: bool = False
    """A bullet is drawn, not written, before it."""
    pieces: list[tuple[str, float, float]] = field(default_factory=list[tuple[str, float, float]])
    """Its stretches of text with their x0 and x1: cells that stand close together are told apart by them."""

    @property
    def middle(self) -> float:
        return (self.y0 + self.y1) / 2


@dataclass(slots=True)
class Block:
    """Lines that belong together. `level`: of a heading 1-6, of a list item its depth from 0."""

    kind: BlockKind
    lines: list[Line]
    level: int = 0
    label: str = ""
    """A list item's own mark, as `3.`; empty for a bullet."""
    rows: list[list[str]] = field(default_factory=list[list[str]])
    """A table's cells."""
    tagged: bool = False


@dataclass(slots=True)
class PageContent:
    """What is on a page, in reading order. `rules` are drawn lines and boxes."""

    number: int
    width: float
    height: float
    blocks: list[Block]
    rules: list[Rectangle]
    links: list[tuple[Rectangle, str]] = field(default_factory=list[tuple[Rectangle, str]])
    words: list[Line] = field(default_factory=list[Line])
    """Single words, only on pages that `pdf_tables.may_have_tables`."""


def read_page(raw: dict[str, Any], number: int) -> PageContent:
    """Turn `page.get_text("dict")`, taken with structure and vectors, into blocks."""
    page = PageContent(number, float(raw["width"]), float(raw["height"]), [], [])
    bullets: list[Rectangle] = []
    flow: list[Line] = []
    for element in _elements(raw["blocks"]):
        match element["type"]:
            case 0:
                flow.extend(_lines(element))
            case 2:
                _close_flow(page, flow)
                page.blocks += _tagged(element, 0)
            case 3:
                x0, y0, x1, y1 = element["bbox"]
                largest = 26 if element["stroked"] else 9  # the box of a stroke is its width and more too large
                if 2 < x1 - x0 < largest and 2 < y1 - y0 < largest:
                    bullets.append((x0, y0, x1, y1))
                elif x1 - x0 > 5 or y1 - y0 > 5:
                    page.rules.append((x0, y0, x1, y1))
            case _:
                pass
    _close_flow(page, flow)
    _mark_bullets(page, bullets)
    return page


def _elements(blocks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The top level, with structure that only wraps (Document, Part, Sect, Div) opened."""
    stack = [iter(blocks)]
    while stack:
        block = next(stack[-1], None)
        if block is None:
            stack.pop()
        elif block["type"] == 2 and block.get("std") in _WRAPPERS and len(stack) < _MAX_STRUCTURE_DEPTH:
            stack.append(iter(block.get("blocks", ())))
        else:
            yield block


_WRAPPERS = frozenset({"Document", "Part", "Art", "Sect", "Div", "NonStruct", "NonDtruct", "Private", "BlockQuote",
                       "Index", "TOC", "DocumentFragment", "Aside", None, ""})  # fmt: skip


def _texts(element: dict[str, Any], depth: int = 0) -> Iterator[dict[str, Any]]:
    """All text blocks inside, in order."""
    if element["type"] == 0:
        yield element
    elif depth < _MAX_STRUCTURE_DEPTH:
        for child in element.get("blocks", ()):
            yield from _texts(child, depth + 1)


def _lines(block: dict[str, Any]) -> Iterator[Line]:
    for raw in block["lines"]:
        line = _line(raw)
        if line is not None:
            yield line


def _line(raw: dict[str, Any]) -> Line | None:
    pieces: list[tuple[str, float, float]] = []
    end = 0.0
    most = 0
    size = 0.0
    bold = monospaced = True
    for span in raw["spans"]:
        text: str = span["text"]
        x0, _, x1, _ = span["bbox"]
        if pieces and x0 - end > _WORD_GAP * span["size"]:
            text = " " + text
        pieces.append((text, x0, x1))
        end = x1
        stripped = len(text.strip())
        if stripped:
            flags: int = span["flags"]
            bold = bold and bool(flags & _BOLD or "Bold" in span["font"] or "Black" in span["font"])
            monospaced = monospaced and bool(flags & _MONOSPACED)
            if stripped > most:
                most, size = stripped, span["size"]
    if not most:
        return None
    text = "".join([piece[0] for piece in pieces])
    if "\xa0" in text or "\xad" in text:
        text = text.replace("\xa0", " ").replace("\xad", "-")
    x0, y0, x1, y1 = raw["bbox"]
    if raw["dir"][0] < 0.5:  # turned: its height is no font size
        bold = False
    return Line(text, x0, y0, x1, y1, size, bold, monospaced, pieces=pieces)


def _join_pieces(lines: list[Line], most_gap: float = _SAME_LINE_GAP) -> list[Line]:
    """Put pieces of one baseline together again."""
    joined: list[Line] = []
    for line in lines:
        last = joined[-1] if joined else None
        if last is not None and _continues(last, line, most_gap):
            if len(line.text) > len(last.text):
                last.size = line.size
            if line.x0 - last.x1 > _WORD_GAP * line.size:
                last.text += " "
            last.text += line.text
            last.pieces += line.pieces
            last.bold = last.bold and line.bold
            last.monospaced = last.monospaced and line.monospaced
            last.x1 = max(last.x1, line.x1)
            last.y0, last.y1 = min(last.y0, line.y0), max(last.y1, line.y1)
        else:
            joined.append(line)
    for line in joined:
        line.text = " ".join(line.text.split())
    return joined


def _continues(last: Line, line: Line, most_gap: float) -> bool:
    overlap = min(last.y1, line.y1) - max(last.y0, line.y0)
    if overlap < 0.5 * min(last.y1 - last.y0, line.y1 - line.y0):
        return False
    return -0.5 * line.size < line.x0 - last.x1 < most_gap * max(last.size, line.size)


def _close_flow(page: PageContent, flow: list[Line]) -> None:
    lines = _join_pieces(flow, _SAME_LINE_GAP)
    if lines:
        page.blocks.append(Block("paragraph", lines))
    flow.clear()


def cut_paragraphs(page: PageContent) -> None:
    """Cut untagged text, once the tables are out of it, where the spacing, the indent or the look changes."""
    blocks: list[Block] = []
    for block in page.blocks:
        if block.kind != "paragraph" or block.tagged:
            blocks.append(block)
            continue
        current: list[Line] = []
        for line in _join_pieces(block.lines, _STRETCHED_LINE_GAP):
            if current and not _same_paragraph(current, line):
                blocks.append(Block("paragraph", current))
                current = []
            current.append(line)
        if current:
            blocks.append(Block("paragraph", current))
    page.blocks = blocks


def _same_paragraph(current: list[Line], line: Line) -> bool:
    last = current[-1]
    if abs(line.size - last.size) > 0.08 * last.size or line.bold != last.bold:
        return False
    step = line.y0 - last.y0
    height = last.y1 - last.y0
    if not 0.3 * height < step < 1.75 * height or line.y0 - last.y1 > 0.55 * last.size:
        return False
    if len(current) > 1 and step > 1.3 * (last.y0 - current[-2].y0):
        return False
    if line.x0 > last.x1 or line.x1 < last.x0:
        return False
    # A first line set in, or a last line that ended early before a full stop: a new paragraph.
    left = min(each.x0 for each in current)
    if len(current) > 1 and line.x0 - left > 0.8 * line.size:
        return False
    right = max(each.x1 for each in current)
    return not (last.text[-1:] in ".!?:" and last.x1 < right - 6 * last.size and len(current) > 1)


def _mark_bullets(page: PageContent, bullets: list[Rectangle]) -> None:
    if not bullets:
        return
    for block in page.blocks:
        if block.kind != "paragraph":
            continue
        for line in block.lines:
            line.bullet = any(
                0 < line.x0 - (x0 + x1) / 2 < 2.5 * line.size and line.y0 < (y0 + y1) / 2 < line.y1
                for x0, y0, x1, y1 in bullets
            )


# --- The file's own tags ---------------------------------------------------------------------------------------------


def _tagged(element: dict[str, Any], depth: int) -> list[Block]:
    role = str(element.get("std") or "")
    if depth > _MAX_STRUCTURE_DEPTH:
        return []
    if role == "Table":
        return _tagged_table(element)
    if role in ("L", "LI", "LBody"):
        return _tagged_list(element, 0, depth)
    if role == "Artifact":
        return []
    if role in _WRAPPERS or any(_is_block(child) for child in element.get("blocks", ())):
        return _tagged_children(element, depth)
    lines = _join_pieces([line for text in _texts(element) for line in _lines(text)])
    if not lines:
        return []
    if role == "Title":
        return [Block("heading", lines, 1, tagged=True)]
    if role[:1] == "H" and (role[1:].isdigit() or role == "H"):
        return [Block("heading", lines, min(int(role[1:] or 0), 6), tagged=True)]
    return [Block("paragraph", lines, tagged=True)]


def _is_block(element: dict[str, Any]) -> bool:
    role = str(element.get("std") or "")
    return element["type"] == 2 and (
        role in ("P", "L", "Table", "Title", "H") or (role[:1] == "H" and role[1:].isdigit())
    )


def _tagged_children(element: dict[str, Any], depth: int) -> list[Block]:
    """Text between block elements is a paragraph of its own."""
    blocks: list[Block] = []
    loose: list[Line] = []

    def close() -> None:
        lines = _join_pieces(loose)
        if lines:
            blocks.append(Block("paragraph", lines, tagged=True))
        loose.clear()

    for child in element.get("blocks", ()):
        if child["type"] == 2 and (_is_block(child) or str(child.get("std") or "") in _WRAPPERS):
            close()
            blocks += _tagged(child, depth + 1)
        elif child["type"] in (0, 2):
            loose += [line for text in _texts(child) for line in _lines(text)]
    close()
    return blocks


def _tagged_list(element: dict[str, Any], level: int, depth: int) -> list[Block]:
    blocks: list[Block] = []
    item: Block | None = None
    if depth > _MAX_STRUCTURE_DEPTH:
        return []
    for child in element.get("blocks", ()):
        role = str(child.get("std") or "")
        if child["type"] == 2 and role == "LI":
            blocks += _tagged_list(child, level, depth + 1)
            continue
        if child["type"] == 2 and role in ("L", "Table"):
            item = None
            blocks += _tagged_list(child, level + 1, depth + 1) if role == "L" else _tagged_table(child)
            continue
        if child["type"] == 2 and any(str(inner.get("std")) in ("L", "Table") for inner in child.get("blocks", ())):
            found = _tagged_list(child, level, depth + 1)
            if item is not None and not item.lines and found and found[0].level == level:
                found[0].label = item.label
                blocks.remove(item)
            blocks += found
            item = None
            continue
        lines = [line for text in _texts(child) for line in _lines(text)] if child["type"] in (0, 2) else []
        if not lines:
            continue
        if item is None:
            item = Block("item", [], level, tagged=True)
            blocks.append(item)
        if role == "Lbl":
            item.label = " ".join(line.text.strip() for line in lines)
        else:
            item.lines = _join_pieces([*item.lines, *lines])
    return [block for block in blocks if block.lines or block.rows]


def _tagged_table(element: dict[str, Any]) -> list[Block]:
    rows: list[list[str]] = []
    lines: list[Line] = []
    captions: list[Block] = []

    def walk(parent: dict[str, Any], depth: int) -> None:
        for child in parent.get("blocks", ()):
            role = str(child.get("std") or "")
            if child["type"] != 2 or depth > _MAX_STRUCTURE_DEPTH:
                continue
            if role == "TR":
                row: list[str] = []
                for cell in child.get("blocks", ()):
                    if cell["type"] == 2:
                        inside = _join_pieces([line for text in _texts(cell) for line in _lines(text)])
                        lines.extend(inside)
                        row.append(" ".join(line.text for line in inside))
                rows.append(row)
            elif role == "Caption":
                captions.extend(_tagged(child, depth + 1))
            else:
                walk(child, depth + 1)

    walk(element, 0)
    rows = [row for row in rows if any(row)]
    if len(rows) > 1 and max(map(len, rows)) > 1:
        return [*captions, Block("table", lines, rows=rows, tagged=True)]
    return [*captions, *_tagged_children(element, 1)] if not rows else [
        *captions, Block("paragraph", lines, tagged=True)]  # fmt: skip
