"""A PDF's pages as Markdown: headings, paragraphs, lists, tables, links; running heads and page numbers left out.

Owns the order of work over the whole document (`write_markdown`): what repeats can only be known from all pages.
Bold and italics inside a line are left out on purpose: a model gains nothing from them and the words come apart.
"""

import re
from collections import defaultdict

from memento_documents.cells import markdown_table
from memento_documents.pdf_headings import mark_headings
from memento_documents.pdf_order import put_in_order
from memento_documents.pdf_page import Block, Line, PageContent, cut_paragraphs
from memento_documents.pdf_tables import find_tables, place_tables

__all__ = ["write_markdown"]

_MARGIN = 0.11
"""Running heads and page numbers stand in this share of the page's height, at the top or bottom."""
_BULLET = re.compile(r"([•◦▪▫●○■□‣⁃∙·➢✓❖\uf0b7\uf0a7\uf0d8]|[-–—*o])\s+(?=\S)")
_NUMBERED = re.compile(r"(\d{1,3}[.)]|\(\d{1,3}\)|[a-z][.)]|\([a-z]\)|\(?[ivx]{1,5}[.)])\s+(?=\S)")
_LONE_BULLET = re.compile(r"[•◦▪▫●○■□‣⁃∙·➢✓❖\uf0b7\uf0a7\uf0d8–-]")
_LOOKS_LIKE_HEADING = re.compile(r"#{1,6}(?:\s|$)")
_PAGE_NUMBER = re.compile(
    r"\W*(?:(?:page|seite|p\.)\s*)?(?:\d{1,4}|[ivxlc]{1,6})(?:\s*(?:of|/|von)\s*\d{1,4})?\W*", re.I
)


def write_markdown(pages: list[PageContent], outline: list[tuple[int, str, int]]) -> tuple[list[str], list[str]]:
    """Return each page's Markdown, and the running heads and feet that were left out of it."""
    left_out = _drop_running_lines(pages)
    for page in pages:
        put_in_order(page)
        tables = find_tables(page)
        if tables:
            place_tables(page, tables)
        cut_paragraphs(page)
        _mark_items(page)
    mark_headings(pages, outline)
    return [_page(page) for page in pages], left_out


def _drop_running_lines(pages: list[PageContent]) -> list[str]:
    """Take out lines that stand at one height in the margin of three pages or more, numbers apart."""
    seen: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    numbers: defaultdict[int, set[int]] = defaultdict(set)
    for page in pages:
        for line in _margin_lines(page):
            height = round(line.middle / 4)
            seen[_without_digits(line.text), height].add(page.number)
            if _PAGE_NUMBER.fullmatch(line.text):
                numbers[height].add(page.number)
    fewest = 3 if len(pages) < 30 else 4
    repeated = {key for key, on in seen.items() if len(on) >= fewest}
    numbered = {height for height, on in numbers.items() if len(on) >= fewest}
    if not repeated and not numbered:
        return []
    left_out: dict[str, None] = {}
    for page in pages:
        running = _running_lines(page, repeated, numbered)
        for line in running.values():
            if _PAGE_NUMBER.fullmatch(line.text) is None:
                left_out.setdefault(_without_digits(line.text).replace("#", "…"))
        for block in page.blocks:
            block.lines = [line for line in block.lines if id(line) not in running]
        page.blocks = [block for block in page.blocks if block.lines]
    return list(left_out)


def _running_lines(page: PageContent, repeated: set[tuple[str, int]], numbered: set[int]) -> dict[int, Line]:
    """The page's running heads and feet by identity: lines that repeat and do not go on into the page's own text."""
    running: dict[int, Line] = {}
    for line in _margin_lines(page):
        height = round(line.middle / 4)
        is_number = _PAGE_NUMBER.fullmatch(line.text) is not None
        if (_without_digits(line.text), height) in repeated or (is_number and height in numbered):
            running[id(line)] = line
    others = [line for block in page.blocks for line in block.lines if id(line) not in running]
    if not others:
        return {}  # a page of nothing else says it for a reason
    while joined := [line for line in running.values() if any(_is_next_line(line, other) for other in others)]:
        others = joined
        for line in joined:
            del running[id(line)]
    return running


def _is_next_line(line: Line, other: Line) -> bool:
    """They stand as lines of one paragraph do: this is how the page's text begins or ends, not a running head."""
    gap = max(other.y0 - line.y1, line.y0 - other.y1)
    return (
        gap < 0.5 * line.size and min(line.x1, other.x1) > max(line.x0, other.x0) and abs(line.size - other.size) < 0.6
    )


def _margin_lines(page: PageContent) -> list[Line]:
    top, bottom = _MARGIN * page.height, (1 - _MARGIN) * page.height
    return [
        line
        for block in page.blocks
        if block.kind == "paragraph"
        for line in block.lines
        if line.y1 < top or line.y0 > bottom
    ]


def _without_digits(text: str) -> str:
    return re.sub(r"\d+", "#", " ".join(text.split()))


def _mark_items(page: PageContent) -> None:
    """Cut untagged paragraphs into list items where their lines begin with a mark."""
    blocks: list[Block] = []
    lefts: list[float] = []
    for block in page.blocks:
        if block.kind != "paragraph" or not any(map(_has_mark, block.lines)):
            if not (block.kind == "paragraph" and lefts and block.lines and block.lines[0].x0 > lefts[0] - 2):
                lefts = []
            blocks.append(block)
            continue
        current: Block | None = None
        for line in _with_lone_marks_joined(block.lines):
            mark = _BULLET.match(line.text) or (_NUMBERED.match(line.text) if _is_list_number(line, block) else None)
            if mark or line.bullet:
                left = line.x0
                lefts = [each for each in lefts if each < left - 4] + [left]
                current = Block("item", [line], len(lefts) - 1)
                if mark:
                    current.label = mark[1] if mark.re is _NUMBERED else ""
                    line.text = line.text[mark.end() :]
                blocks.append(current)
            elif current is not None:
                current.lines.append(line)
            else:
                current = Block("paragraph", [line])
                blocks.append(current)
    page.blocks = blocks


def _has_mark(line: Line) -> bool:
    text = line.text
    return (
        line.bullet
        or _BULLET.match(text) is not None
        or _NUMBERED.match(text) is not None
        or _LONE_BULLET.fullmatch(text) is not None
    )


def _is_list_number(line: Line, block: Block) -> bool:
    """A bold or large "1. Introduction" is a heading, not an item."""
    return not line.bold and not (
        len(block.lines) == 1 and line.text[:1].isdigit() and len(line.text) < 40 and line.size > 13
    )


def _with_lone_marks_joined(lines: list[Line]) -> list[Line]:
    joined: list[Line] = []
    for line in lines:
        if joined and _LONE_BULLET.fullmatch(joined[-1].text):
            line.bullet = True
            line.x0 = joined[-1].x0
            joined[-1] = line
        else:
            joined.append(line)
    return joined


# --- Writing ---------------------------------------------------------------------------------------------------------


def _page(page: PageContent) -> str:
    _write_links(page)
    parts: list[str] = []
    last = ""
    for block in _with_code_joined(page.blocks):
        text = _block(block)
        if not text:
            continue
        if parts:
            parts.append("\n" if block.kind == last == "item" else "\n\n")
        parts.append(text)
        last = block.kind
    return "".join(parts)


def _is_code(block: Block) -> bool:
    return block.kind == "paragraph" and all(line.monospaced for line in block.lines)


def _with_code_joined(blocks: list[Block]) -> list[Block]:
    """Neighbouring monospaced paragraphs are one listing."""
    joined: list[Block] = []
    for block in blocks:
        if joined and block.lines and _is_code(block) and _is_code(joined[-1]):
            joined[-1] = Block("paragraph", [*joined[-1].lines, *block.lines])
        else:
            joined.append(block)
    return joined


def _block(block: Block) -> str:
    match block.kind:
        case "heading":
            return "#" * max(block.level, 1) + " " + " ".join(line.text for line in block.lines)
        case "item":
            return "  " * min(block.level, 8) + (block.label or "-") + " " + _joined(block.lines)
        case "table":
            return markdown_table(block.rows).strip()
        case "paragraph":
            if block.lines and _is_code(block):
                return "```\n" + "\n".join(_indented(block.lines)) + "\n```"
            text = _joined(block.lines)
            return "\\" + text if _LOOKS_LIKE_HEADING.match(text) else text


def _joined(lines: list[Line]) -> str:
    """One running text; a word parted at a line's end is made whole where the next line goes on in lower case."""
    parts: list[str] = []
    for line in lines:
        text = line.text
        if parts and parts[-1].endswith("-") and len(parts[-1]) > 2 and parts[-1][-2].isalpha() and text[:1].islower():
            parts[-1] = parts[-1][:-1] + text
        else:
            parts.append(text)
    return " ".join(parts)


def _indented(lines: list[Line]) -> list[str]:
    left = min(line.x0 for line in lines)
    return [" " * round((line.x0 - left) / max(0.6 * line.size, 1)) + line.text for line in lines]


def _write_links(page: PageContent) -> None:
    """Turn the words under a link into `[words](address)`; each link once, in the line it lies on."""
    if not page.links:
        return
    lines = [line for block in page.blocks if block.kind != "table" for line in block.lines]
    for (x0, y0, x1, y1), target in page.links:
        words, _, address = target.partition("\n")
        middle = (y0 + y1) / 2
        for line in lines:
            if not line.y0 - 1 <= middle <= line.y1 + 1:
                continue
            under = words or "".join(
                text for text, left, right in line.pieces if x0 - 1 <= (left + right) / 2 <= x1 + 1
            )
            under = " ".join(under.split())
            if len(under) > 1 and under not in address and under in line.text and f"[{under}]" not in line.text:
                line.text = line.text.replace(under, f"[{under}]({address})", 1)
                break
