"""An HTML tree as Markdown, element by element: the whole of it, with no judgement of what matters.

Owns the spelling. Images are left out and links keep only http, https and mailto: an address in the text that a
client draws would be fetched, and tell whoever wrote the page that it was read. Runs in the worker process.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urljoin

from memento_crawl.html_tree import Element

__all__ = ["absolute_link", "to_markdown", "to_text"]

_BLOCKS = (
    "address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure footer form"
)
_MORE_BLOCKS = "h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main nav ol p pre section summary table ul"
_BLOCK = frozenset(f"{_BLOCKS} {_MORE_BLOCKS}".split())
_CELLS = frozenset({"tr", "td", "th", "caption"})
_HEADING = re.compile("h[1-6]")
_SPACE = re.compile(r"[ \t\r\n\f]+")
_STRONG, _EMPHASIS, _CODE = frozenset({"b", "strong"}), frozenset({"i", "em"}), frozenset({"code", "kbd", "samp", "tt"})
_ABSOLUTE = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d+)?/[\w./%~+,:@!$=&-]*(?:\?[\w./%~+,:@!$=&-]+)?", re.ASCII)
"""An address that joining, cleaning and quoting would give back as it is."""
_FROM_ROOT = re.compile(r"(?:/[\w%~+,:@!$=&-][\w.%~+,:@!$=&-]*)+/?(?:\?[\w./%~+,:@!$=&-]+)?|/", re.ASCII)
"""An address that joining would only put the host in front of."""


def to_markdown(tree: Element, base_url: str) -> str:
    """Return the Markdown of everything in `tree`; relative links become absolute."""
    blocks = [block for block in _blocks(tree, base_url) if block.strip()]
    return "\n\n".join(blocks).strip()


def to_text(tree: Element) -> str:
    """Return the plain text of everything in `tree`, one block a line."""
    folded = _SPACE.sub(" ", "".join(_text_pieces(tree)))
    return "\n".join(line for part in folded.split("\x00") if (line := part.strip()))


def _text_pieces(element: Element) -> Iterable[str]:
    """The text in order, with `\x00` where a line ends and a space between cells."""
    edge = "\x00" if element.tag in _BLOCK or element.tag in ("tr", "br", "caption") else ""
    yield edge + (" " if element.tag in ("td", "th") else "")
    yield _verbatim(element).replace("\n", "\x00") if element.tag == "pre" else element.text or ""
    for child in () if element.tag == "pre" else element:
        if isinstance(child.tag, str):
            yield from _text_pieces(child)
        yield child.tail or ""
    yield edge


def _blocks(element: Element, base: str) -> Iterable[str]:
    """The blocks inside `element`; text between block elements is a paragraph of its own."""
    inline: list[str] = [element.text or ""]
    for child in element:
        if isinstance(child.tag, str):
            if child.tag in _BLOCK or _holds_block(child):
                yield _paragraph(inline)
                inline = []
                yield from _block(child, base)
            else:
                inline.append(_inline(child, base))
        inline.append(child.tail or "")
    yield _paragraph(inline)


def _holds_block(element: Element) -> bool:
    """`<a><div>…</div></a>` and `<span><p>…`: an inline element that is laid out as blocks."""
    return any(inner.tag in _BLOCK for inner in element.iterdescendants())


def _block(element: Element, base: str) -> Iterable[str]:
    tag = element.tag
    if _HEADING.fullmatch(tag):
        text = _flat(element, base).replace("\n", " ")
        yield f"{'#' * int(tag[1])} {text}" if text else ""
    elif tag == "pre":
        yield _code_block(element)
    elif tag in ("ul", "ol"):
        yield "\n".join(_list(element, base))
    elif tag == "table":
        yield from _table(element, base)
    elif tag == "blockquote":
        quoted = "\n\n".join(block for block in _blocks(element, base) if block.strip())
        yield "\n".join(f"> {line}".rstrip() for line in quoted.splitlines())
    elif tag == "hr":
        yield "---"
    else:
        yield from _blocks(element, base)


def _list(element: Element, base: str) -> Iterable[str]:
    number = int(start) if (start := element.get("start") or "1").isdecimal() else 1
    yield from _item("", [_paragraph([element.text or ""])])
    for child in element:
        if child.tag == "li":
            yield from _item(f"{number}. " if element.tag == "ol" else "- ", _blocks(child, base))
            number += 1
        elif isinstance(child.tag, str):  # a list in a list without an item of its own, as old pages have it
            yield from _item("  ", _block(child, base) if child.tag in _BLOCK else [_inline(child, base)])
        yield from _item("", [_paragraph([child.tail or ""])])


def _item(mark: str, blocks: Iterable[str]) -> Iterable[str]:
    lines = "\n".join(block for block in blocks if block.strip()).splitlines()
    for at, line in enumerate(lines):
        yield f"{mark if at == 0 else ' ' * len(mark)}{line}"


def _table(table: Element, base: str) -> Iterable[str]:
    """A Markdown table; one that is used for layout, or is put together wrongly, becomes its blocks."""
    cells = [[cell for cell in row if cell.tag in ("td", "th")] for row in table.iter("tr")]
    width = max((sum(_span(cell) for cell in row) for row in cells), default=0)
    if width < 2 or not _is_regular(table):
        yield from _blocks(table, base)
        return
    for caption in table.iter("caption"):
        yield _flat(caption, base)
    lines: list[str] = []
    for row in cells:
        texts = [text for cell in row for text in [_cell(cell, base), *[""] * (_span(cell) - 1)]]
        if any(texts):
            lines.append("| " + " | ".join([*texts, *[""] * (width - len(texts))]) + " |")
            if len(lines) == 1:
                lines.append("|" + " --- |" * width)
    yield "\n".join(lines)


_TABLE_PARTS = {
    "table": {"caption", "colgroup", "thead", "tbody", "tfoot", "tr"},
    "thead": {"tr"},
    "tbody": {"tr"},
    "tfoot": {"tr"},
    "tr": {"td", "th"},
}


def _is_regular(table: Element) -> bool:
    """Whether rows hold cells, all text is in cells, and no cell holds a table."""
    return next(table.iterdescendants("table"), None) is None and all(
        not (part.text or "").strip()
        and all(
            (child.tag in _TABLE_PARTS[part.tag] or not isinstance(child.tag, str)) and not (child.tail or "").strip()
            for child in part
        )
        for part in table.iter(*_TABLE_PARTS)
    )


def _span(cell: Element) -> int:
    span = cell.get("colspan") or "1"
    return min(int(span), 50) if span.isdecimal() and int(span) > 0 else 1


def _cell(cell: Element, base: str) -> str:
    blocks = (" ".join(block.split()) for block in _blocks(cell, base))
    return " ".join(block for block in blocks if block).replace("|", "\\|")


def _code_block(element: Element) -> str:
    code = _verbatim(element)
    inner = next((child for child in element.iter() if "language-" in (child.get("class") or "")), None)
    language = re.search(r"language-([\w+#-]+)", inner.get("class") or "") if inner is not None else None
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    code = code.strip("\n").rstrip()
    return f"{fence}{language[1] if language else ''}\n{code}\n{fence}" if code.strip() else ""


def _verbatim(element: Element) -> str:
    inner = "".join(_verbatim(child) + (child.tail or "") for child in element if isinstance(child.tag, str))
    return "\n" if element.tag == "br" else (element.text or "") + inner


def _flat(element: Element, base: str) -> str:
    return _paragraph(
        [element.text or "", *[piece for child in element for piece in (_inline(child, base), child.tail or "")]]
    )


def _paragraph(pieces: Iterable[str]) -> str:
    """Join inline pieces; a line break is `\\x00` until white space has been folded."""
    folded = _SPACE.sub(" ", "".join(pieces))
    return "\n".join(line.strip() for line in folded.split("\x00")).strip()


def _inline(element: Element, base: str) -> str:
    tag = element.tag
    if not isinstance(tag, str) or tag == "img":
        return ""
    if tag == "br":
        return "\x00"
    inner = (element.text or "") + "".join(_inline(child, base) + (child.tail or "") for child in element)
    if tag in _BLOCK or tag in _CELLS:
        inner = f" {inner} "
    bare = inner.strip()
    if not bare:
        return inner
    before, after = inner[: len(inner) - len(inner.lstrip())], inner[len(inner.rstrip()) :]
    if tag == "a":
        return before + _link(bare, element.get("href"), base) + after
    if tag in _STRONG:
        return f"{before}**{bare.strip('*')}**{after}"
    if tag in _EMPHASIS:
        return f"{before}*{bare.strip('*')}*{after}"
    if tag in _CODE and "`" not in bare:
        return f"{before}`{bare}`{after}"
    return inner


def _link(text: str, href: str | None, base: str) -> str:
    target = absolute_link(href, base)
    if target is None:
        return text
    label = text.replace("[", "\\[").replace("]", "\\]").replace("\x00", " ")
    return f"[{label}]({target})"


def absolute_link(href: str | None, base: str) -> str | None:
    """Return where a link leads, or `None` if nowhere a reader could follow it to."""
    if not href or href.strip().startswith("#"):
        return None
    if _ABSOLUTE.fullmatch(href):
        return href
    try:
        if _FROM_ROOT.fullmatch(href):
            return _origin(base) + href
        target = urljoin(base, href.strip())
    except ValueError:
        return None
    if not target.lower().startswith(("http://", "https://", "mailto:")):
        return None
    return re.sub(r"[\s<>\"`]", "", target).replace("(", "%28").replace(")", "%29")


@lru_cache(16)
def _origin(base: str) -> str:
    return urljoin(base, "/")[:-1]
