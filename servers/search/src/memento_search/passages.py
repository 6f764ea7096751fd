"""A file's text in passages: short enough to rank and to quote, each with its place in the file.

Owns decoding, what counts as text in HTML, and where a passage ends. It parses no PDF or office file (the
documents package does) and knows no index.
"""

import os
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import chain
from typing import Literal

__all__ = [
    "KINDS",
    "PARSED_ELSEWHERE",
    "Block",
    "Kind",
    "NotText",
    "Passage",
    "file_kind",
    "file_passages",
    "file_suffix",
    "passages_of",
    "section_passages",
    "text_blocks",
]

Kind = Literal["text", "markdown", "code", "table", "html", "pdf", "office"]

PASSAGE_CHARS = 1200
"""A passage ends near here: about 200 words, what bm25 ranks well and a model reads in one glance."""
_EARLY_END = 0.6
"""A passage at least this full ends at the next empty line."""

_HEADING_CHARS = 80
"""A longer heading is a paragraph in disguise; headings weigh double in the ranking."""
_DROPPED = dict.fromkeys([0, 2, 3])
"""Control characters that SQLite or the index use for themselves."""

_SUFFIXES: dict[Kind, str] = {
    "markdown": ".md .markdown .mdx .qmd",
    "table": ".csv .tsv .xlsx .xlsm .ods",
    "html": ".html .htm .xhtml",
    "pdf": ".pdf",
    "office": ".docx .pptx .odt .odp .epub .rtf",
    "code": (
        ".py .pyi .ipynb .js .mjs .cjs .jsx .ts .tsx .vue .svelte .java .kt .scala .c .h .cc .cpp .cxx .hpp .cs .go "
        ".rs .rb .php .pl .pm .lua .r .jl .swift .m .mm .dart .ex .exs .erl .hs .ml .clj .lisp .el .sh .bash .zsh "
        ".fish .ps1 .bat .sql .graphql .proto .css .scss .less .json .jsonl .yaml .yml .toml .ini .cfg .conf .xml .xsd "
        ".tf .cmake .gradle .tex .bib"
    ),
}
KINDS: dict[str, Kind] = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
"""What kind of file a suffix means. Any other file is `text` if it decodes as text."""

PARSED_ELSEWHERE = frozenset(
    [".pdf", ".xlsx", ".xlsm", ".ods", ".docx", ".pptx", ".odt", ".odp", ".epub", ".rtf", ".eml"]
)
"""Suffixes whose text only the documents package can read."""


class NotText(Exception):
    """The file holds no text this module can read. The message says why, in a few words."""


@dataclass(frozen=True)
class Block:
    """The smallest piece that is never cut apart, except when it alone is too long: a line, as a rule."""

    text: str
    line: int | None = None
    heading: str | None = None
    """The heading this block stands under or is; `None` means the one before still holds."""
    page: int | None = None
    sheet: str | None = None
    starts_passage: bool = False


@dataclass(frozen=True)
class Passage:
    """Lines and pages count from 1; a passage has lines, or a page, or a sheet, as its file has."""

    text: str
    heading: str = ""
    first_line: int | None = None
    last_line: int | None = None
    page: int | None = None
    sheet: str | None = None


def file_suffix(path: str) -> str:
    """The suffix of a file's name in lower case, with its dot; a name that only begins with a dot has none."""
    return os.path.splitext(path)[1].lower()


def file_kind(path: str) -> Kind:
    """Say what kind of file this is by its name alone."""
    return KINDS.get(file_suffix(path), "text")


def file_passages(content: bytes, kind: Kind) -> list[Passage]:
    """Return the passages of a file that this module reads itself.

    Raises:
        NotText: it is binary, or in no encoding that could be told.
    """
    blocks = text_blocks(content, kind)
    first = next((block.text for block in blocks if block.text.strip()), "")
    return list(passages_of(blocks, header=first if kind == "table" and len(first) < PASSAGE_CHARS // 3 else ""))


def section_passages(text: str, *, page: int | None, sheet: str | None) -> list[Passage]:
    """Return the passages of one page or sheet that a document reader gave."""
    lines = text.translate(_DROPPED).splitlines()
    header = lines[0] if sheet is not None and lines and len(lines[0]) < PASSAGE_CHARS // 3 else ""
    return list(passages_of((Block(line, page=page, sheet=sheet) for line in lines), header=header))


def text_blocks(content: bytes, kind: Kind) -> list[Block]:
    """Decode a file and split it into blocks.

    Raises:
        NotText: it is binary, or in no encoding that could be told.
    """
    text = _decoded(content).translate(_DROPPED)
    if kind == "html":
        return _html_blocks(text)
    if kind == "markdown":
        return list(_markdown_blocks(text))
    return [Block(line, line=number) for number, line in enumerate(text.splitlines(), 1)]


def passages_of(blocks: Iterable[Block], *, header: str = "") -> Iterator[Passage]:
    """Pack blocks into passages that never cross a page or sheet, and end early at a heading or an empty line.

    `header` (the first row of a table) opens each passage but the one that already starts with it.
    """
    packed: list[Block] = []
    size, heading = 0, ""
    for block in chain.from_iterable(map(_pieces, blocks)):
        moved = bool(packed) and (block.page, block.sheet) != (packed[-1].page, packed[-1].sheet)
        ends_here = not block.text.strip() and size >= PASSAGE_CHARS * _EARLY_END
        if packed and (moved or block.starts_passage or ends_here or size + len(block.text) > PASSAGE_CHARS):
            yield from _packed(packed, heading, header)
            packed, size = [], 0
        heading = block.heading if block.heading is not None else ("" if moved else heading)
        packed.append(block)
        size += len(block.text) + 1
    yield from _packed(packed, heading, header)


def _packed(blocks: list[Block], heading: str, header: str) -> Iterator[Passage]:
    full = [block for block in blocks if block.text.strip()]
    if not full:
        return
    text = "\n".join(block.text for block in blocks[blocks.index(full[0]) : len(blocks)]).rstrip()
    if header and not text.startswith(header):
        text = f"{header}\n{text}"
    yield Passage(text, heading, full[0].line, full[-1].line, full[0].page, full[0].sheet)


def _pieces(block: Block) -> Iterator[Block]:
    """Cut a block that is longer than a passage at a sentence or word."""
    rest = block.text
    first = True
    while len(rest) > PASSAGE_CHARS:
        window = rest[:PASSAGE_CHARS]
        cut = max(window.rfind(". ") + 1, window.rfind("。") + 1)
        if cut < PASSAGE_CHARS // 2:
            cut = window.rfind(" ") if window.rfind(" ") > PASSAGE_CHARS // 2 else PASSAGE_CHARS
        yield Block(rest[:cut], block.line, block.heading, block.page, block.sheet, block.starts_passage and first)
        rest, first = rest[cut:].lstrip(), False
    yield Block(rest, block.line, block.heading, block.page, block.sheet, block.starts_passage and first)


def _decoded(content: bytes) -> str:
    for bom, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(bom):
            return content.decode(encoding, errors="replace")
    if b"\x00" in content[:8192]:
        raise NotText("binary file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    best = from_bytes(content[:200_000]).best()
    if best is None:
        raise NotText("binary file, or text in an unknown encoding")
    return content.decode(best.encoding, errors="replace")


_ATX_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")


def _markdown_blocks(text: str) -> Iterator[Block]:
    trail: list[tuple[int, str]] = []
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        if mark := _FENCE.match(line):
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        if not fence and (heading := _ATX_HEADING.match(line)):
            level = len(heading[1])
            trail = [entry for entry in trail if entry[0] < level] + [(level, heading[2])]
            yield Block(line, number, _trail(trail), starts_passage=True)
        else:
            yield Block(line, number)


def _trail(headings: list[tuple[int, str]]) -> str:
    return " › ".join(textwrap.shorten(title, _HEADING_CHARS, placeholder="…") for _, title in headings)


def _html_blocks(html: str) -> list[Block]:
    parser = _HtmlText()
    parser.feed(html)
    parser.close()
    return parser.blocks()


_INLINE_ELEMENTS = """
a abbr b bdi bdo cite code data dfn em font i kbd mark q s samp small span strong sub sup time tt u var
"""
_VOID_ELEMENTS = "area base br col embed hr img input link meta source track wbr"


class _HtmlText(HTMLParser):
    """The text of a page by source line: no script, style or hidden element, one block per block element."""

    _SILENT = frozenset({"script", "style", "template", "noscript", "svg", "math", "iframe", "object"})
    _INLINE = frozenset(_INLINE_ELEMENTS.split())
    _ENDS_ITSELF = frozenset({"p", "li", "dt", "dd", "td", "th", "tr", "option"})
    """Elements whose end tag may be missing: the next one of the same name ends them."""
    _VOID = frozenset(_VOID_ELEMENTS.split())
    _HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._blocks: list[Block] = []
        self._text: list[str] = []
        self._has_text = False
        self._line = 1
        self._silenced_by: list[str] = []
        self._in_title = False
        self._trail: list[tuple[int, str]] = []
        self._heading_level = 0

    def blocks(self) -> list[Block]:
        self._end_block()
        return self._blocks

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._silenced_by == [tag] and tag in self._ENDS_ITSELF:
            self._silenced_by.clear()
        if self._silenced_by:
            if tag == self._silenced_by[-1]:
                self._silenced_by.append(tag)
        elif tag in self._VOID:
            if tag in {"br", "hr"}:
                self._end_block()
        elif tag in self._SILENT or _is_hidden(dict(attrs)):
            self._silenced_by.append(tag)
        else:
            self._open(tag)

    def _open(self, tag: str) -> None:
        if tag == "title":
            self._in_title = True
        if tag in {"td", "th"}:
            self._text.append(" | " if self._has_text else "")
        elif tag not in self._INLINE:
            self._end_block()
        if tag in self._HEADINGS:
            self._heading_level = int(tag[1])

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if self._silenced_by:
            if tag == self._silenced_by[-1]:
                self._silenced_by.pop()
            return
        if tag not in self._INLINE and tag not in {"td", "th"}:
            self._end_block()

    def handle_data(self, data: str) -> None:
        if self._in_title and data.strip():
            self._blocks.append(Block(" ".join(data.split()), self.getpos()[0], heading=" ".join(data.split())))
        elif not self._silenced_by:
            if not self._has_text and data.strip():
                self._line = self.getpos()[0] + data[: len(data) - len(data.lstrip())].count("\n")
                self._has_text = True
            self._text.append(data)

    def _end_block(self) -> None:
        text = " ".join("".join(self._text).split())
        self._text, self._has_text = [], False
        level, self._heading_level = self._heading_level, 0
        if not text:
            self._heading_level = level
        elif level:
            self._trail = [entry for entry in self._trail if entry[0] < level] + [(level, text)]
            self._blocks.append(Block(text, self._line, _trail(self._trail), starts_passage=True))
        else:
            self._blocks.append(Block(text, self._line))


def _is_hidden(attributes: dict[str, str | None]) -> bool:
    style = (attributes.get("style") or "").replace(" ", "").lower()
    return "hidden" in attributes or "display:none" in style or "visibility:hidden" in style
