"""What is a heading in a PDF, and of which level: from tags, the outline, or how the type looks.

Where the author tagged headings, those count and nothing else. Otherwise a heading is a short block of its own that
is set larger than the body text, or in bold, or is numbered or in capitals as IEEE papers do. Levels are ranks of
the looks found in the document, corrected by section numbers ("2.1" is one deeper than "2") and by the outline.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from memento_documents.pdf_page import Block, PageContent

__all__ = ["mark_headings"]

_MAX_HEADING_CHARS = 200
_MAX_HEADING_LINES = 4
_MAX_STYLE_SHARE = 0.12
"""A look that more of the text has than this is no heading's."""
_NUMBER = re.compile(
    r"(?:(?:chapter|section|part|appendix|kapitel)\s+)?((?:\d{1,2}|[A-Z])(?:\.\d{1,2})*)\.?\s+\S", re.I
)
_ROMAN = re.compile(r"[IVX]{1,5}\.\s+[A-Z]")
_LEADERS = re.compile(r"(?:\.\s?){4,}|\s\d{1,4}$")
_LABEL = re.compile(r"(?:fig(?:ure)?|table|tab|abb)\.?\s*\d", re.I)


@dataclass(frozen=True, slots=True, order=True)
class _Look:
    """How a block is set: size in half points, bold, capitals."""

    size: float
    bold: bool
    capitals: bool


def mark_headings(pages: list[PageContent], outline: list[tuple[int, str, int]]) -> None:
    """Turn paragraphs into headings with levels, in place. `outline`: (level, title, page), as `get_toc` gives."""
    tagged = [block for page in pages for block in page.blocks if block.tagged and block.kind == "heading"]
    if tagged:
        _settle_tagged(tagged)
        pages = [page for page in pages if not any(block.tagged for block in page.blocks)]
    if pages:
        _mark_by_look(pages, outline)


def _settle_tagged(headings: list[Block]) -> None:
    """`H` has its level from nesting, which MuPDF does not show: rank those by size."""
    sizes = sorted({round(block.lines[0].size) for block in headings if not block.level}, reverse=True)
    for block in headings:
        if not block.level:
            block.level = min(sizes.index(round(block.lines[0].size)) + 1, 6)


def _mark_by_look(pages: list[PageContent], outline: list[tuple[int, str, int]]) -> None:
    sizes: Counter[float] = Counter()
    bold_chars = all_chars = 0
    for page in pages:
        for block in page.blocks:
            for line in block.lines:
                sizes[_half(line.size)] += len(line.text)
                all_chars += len(line.text)
                bold_chars += len(line.text) * line.bold
    if not sizes:
        return
    body = sizes.most_common(1)[0][0]
    bold_tells = bold_chars < 0.4 * all_chars
    titles = {(_key(title), page): level for level, title, page in outline if _key(title)}
    found: list[tuple[Block, _Look, int | None]] = []
    chars: Counter[_Look] = Counter()
    for page in pages:
        previous: Block | None = None
        for block in page.blocks:
            if block.kind != "paragraph":
                previous = None
                continue
            look = _look(block)
            level = _outline_level(block, page.number, titles) if titles else None
            if level is None and not _looks_like_heading(block, look, body, bold_tells):
                chars[look] += sum(len(line.text) for line in block.lines)
                previous = None
                continue
            if previous is not None and level is None and _goes_on(previous, block, found):
                previous.lines += block.lines
                block.lines = []
                continue
            found.append((block, look, level))
            previous = block
        page.blocks = [block for block in page.blocks if block.lines or block.rows]
    found = _without_common_looks(found, chars, all_chars)
    levels = _levels(found)
    for block, look, level in found:
        block.kind = "heading"
        block.level = level or levels[look]
    _number_levels([block for block, _, level in found if level is None], found)


def _half(size: float) -> float:
    return round(size * 2) / 2


def _key(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def _look(block: Block) -> _Look:
    line = block.lines[0]
    letters = [char for line in block.lines for char in line.text if char.isalpha()]
    capitals = len(letters) > 2 and sum(char.isupper() for char in letters) > 0.9 * len(letters)
    return _Look(_half(line.size), line.bold, capitals)


def _outline_level(block: Block, page: int, titles: dict[tuple[str, int], int]) -> int | None:
    if len(block.lines) > _MAX_HEADING_LINES:
        return None
    key = _key(" ".join(line.text for line in block.lines))
    level = titles.get((key, page))
    if (
        level is None and len(key) > 4
    ):  # the outline often leaves the number out, or the text has it and not the outline
        bare = re.sub(r"^(?:\d+|[ivx]+(?=[a-z]{3}))", "", key)
        level = titles.get((bare, page))
        if level is None:
            level = next(
                (lvl for (title, at), lvl in titles.items() if at == page and title.lstrip("0123456789") == bare), None
            )
    return None if level is None else min(level, 6)


def _looks_like_heading(block: Block, look: _Look, body: float, bold_tells: bool) -> bool:
    lines = block.lines
    text = " ".join(line.text for line in lines)
    if len(lines) > _MAX_HEADING_LINES or not 2 < len(text) <= _MAX_HEADING_CHARS:
        return False
    letters = sum(char.isalpha() for char in text)
    if (
        letters < (0.3 if look.size > 1.07 * body else 0.5) * len(text.replace(" ", ""))
        or lines[0].bullet
        or (_LEADERS.search(text) and look.size < 1.3 * body)
    ):
        return False
    if _LABEL.match(text) and look.size < 1.2 * body:
        return False
    larger = look.size >= body + 0.9 and look.size >= 1.07 * body
    if larger:
        return not (text.endswith((".", ",", ";")) and len(text) > 80)
    if look.size < 0.88 * body:
        return False
    ends_like_text = text.endswith((".", ",", ";")) and not _ROMAN.match(text)
    numbered = _NUMBER.match(text) is not None and not ends_like_text
    if look.bold and bold_tells:
        return (len(lines) <= 2 and len(text) <= 120 and not ends_like_text and not text.endswith(":")) or numbered
    return look.capitals and len(lines) == 1 and len(text) <= 80 and (_ROMAN.match(text) is not None or numbered)


def _goes_on(previous: Block, block: Block, found: list[tuple[Block, _Look, int | None]]) -> bool:
    """A heading over two lines that the page's drawing parted."""
    last, first = previous.lines[-1], block.lines[0]
    if abs(last.size - first.size) > 0.5 or last.bold != first.bold or found[-1][2] is not None:
        return False
    if _NUMBER.match(first.text) or len(previous.lines) + len(block.lines) > _MAX_HEADING_LINES:
        return False
    return 0 < first.y0 - last.y0 < 1.5 * (last.y1 - last.y0) and min(last.x1, first.x1) > max(last.x0, first.x0)


def _without_common_looks(
    found: list[tuple[Block, _Look, int | None]], chars: Counter[_Look], all_chars: int
) -> list[tuple[Block, _Look, int | None]]:
    """A look that much of the text has is how this document sets text."""
    heading_chars: Counter[_Look] = Counter()
    for block, look, _ in found:
        heading_chars[look] += sum(len(line.text) for line in block.lines)
    common = {
        look for look, number in heading_chars.items()
        if (all_chars > 1_500 and number > _MAX_STYLE_SHARE * all_chars) or chars[look] > 3 * number
    }  # fmt: skip
    return [(block, look, level) for block, look, level in found if level is not None or look not in common]


def _levels(found: list[tuple[Block, _Look, int | None]]) -> dict[_Look, int]:
    """Rank the looks, largest first; where the outline knows a look's level, ranks follow it."""
    known: defaultdict[_Look, Counter[int]] = defaultdict(Counter)
    for _, look, level in found:
        if level is not None:
            known[look][level] += 1
    levels: dict[_Look, int] = {}
    above = 0
    last: _Look | None = None
    for look in sorted({look for _, look, _ in found}, reverse=True):
        if known[look]:
            above = known[look].most_common(1)[0][0]
        elif last is None or last.size - look.size > 0.6 or (last.bold, last.capitals) != (look.bold, look.capitals):
            above += 1  # sizes half a point apart are one size, rounded
        last = look
        levels[look] = max(1, min(above, 6))
    return levels


def _number_levels(blocks: list[Block], found: list[tuple[Block, _Look, int | None]]) -> None:
    """Let section numbers say how deep: "2.1" is one below "2", whatever the type."""
    depths: defaultdict[int, list[int]] = defaultdict(list)
    numbered: list[tuple[Block, int]] = []
    for block in blocks:
        match = _NUMBER.match(block.lines[0].text)
        if match and (match[1][0].isdigit() or "." in match[1]):
            depth = match[1].count(".") + 1
            numbered.append((block, depth))
            depths[depth].append(block.level)
    if len(numbered) < 3:
        return
    # Level of the topmost numbered headings; the rest follows from their depth.
    top = min(depths)
    base = Counter(depths[top]).most_common(1)[0][0] - top
    for block, depth in numbered:
        block.level = max(1, min(base + depth, 6))
