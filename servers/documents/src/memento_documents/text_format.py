"""A document's Markdown in the two other forms that a caller may ask for: plain text, and JSON Lines.

Works on the Markdown that the readers make; parses no file. As JSON each heading, paragraph, item, piece of code and
row of a table is a line of its own, `{"page": 3, "heading": "Method", "level": 2}`, so that a program need not take
Markdown apart, and a piece of the text is still whole lines.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from memento_documents.reading import Document, Section

__all__ = ["Block", "TextFormat", "blocks", "in_format", "is_markdown"]

TextFormat = Literal["markdown", "text", "json"]

_MARKDOWN_KINDS = frozenset(
    {"pdf", "docx", "pptx", "odt", "odp", "epub", "html", "xlsx", "xlsb", "xls", "ods", "table"}
)
"""What the readers write Markdown for; the text of the others is as it came, but for files that are named `.md`."""
_MAX_LINE_CHARS = 1_000
"""A longer paragraph goes on in a line of its own, so that a piece of JSON Lines can end between two of them."""
_HEADING = re.compile(r"#{1,6} ")
_ITEM = re.compile(r"(\s*)(?:[-*+]|\d+[.)]) +(.*)")
_RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+\s*")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)")
_RAISED = re.compile(r"<su([pb])>([^<]*)</su\1>")


@dataclass
class Block:
    """One piece of a document. `level` is a heading's (1-6) or a list item's (from 0)."""

    kind: Literal["heading", "paragraph", "item", "code", "table"]
    text: str = ""
    level: int = 0
    rows: list[list[str]] = field(default_factory=list[list[str]])
    has_header: bool = False


def in_format(document: Document, name: str, text_format: TextFormat) -> Document:
    """Return the document with its text in `text_format`; `name` tells Markdown from other plain text."""
    if text_format == "markdown":
        return document
    marked = is_markdown(document.kind, name)
    if text_format == "text":
        if not marked:
            return document
        made = [_plain(section.text) for section in document.sections]
    else:
        made = [_json_lines(section, document.kind, marked=marked) for section in document.sections]
    sections = [dataclasses.replace(section, text=text) for section, text in zip(document.sections, made, strict=True)]
    return dataclasses.replace(document, sections=sections)


def is_markdown(kind: str, name: str) -> bool:
    """Whether what was read from a file of this kind and name is Markdown."""
    return kind in _MARKDOWN_KINDS or (kind == "text" and name.lower().endswith((".md", ".markdown")))


def blocks(markdown: str) -> Iterator[Block]:
    """The pieces of a Markdown text in order."""
    for kind, group in itertools.groupby(_lines(markdown), key=lambda line: line[0]):
        lines = [text for _, text in group]
        match kind:
            case "table":
                yield _table(lines)
            case "paragraph":
                yield Block("paragraph", "\n".join(lines))
            case "code":
                yield from (Block("code", text) for text in lines)
            case "heading":
                marks = [text.partition(" ") for text in lines]
                yield from (Block("heading", text.strip(), level=len(mark)) for mark, _, text in marks)
            case "item":
                items = [found for text in lines if (found := _ITEM.fullmatch(text))]
                yield from (Block("item", found[2], level=len(found[1]) // 2) for found in items)
            case _:  # blank
                pass


_LineKind = Literal["table", "paragraph", "code", "heading", "item", "blank"]


def _lines(markdown: str) -> Iterator[tuple[_LineKind, str]]:
    """Each line with what it belongs to; fenced code comes as one."""
    lines = iter(markdown.splitlines())
    for line in lines:
        if line.startswith("```"):
            yield "code", "\n".join(itertools.takewhile(lambda inner: not inner.startswith("```"), lines))
        elif line.startswith("|"):
            yield "table", line
        elif _HEADING.match(line):
            yield "heading", line
        elif _ITEM.fullmatch(line):
            yield "item", line
        else:
            yield "paragraph" if line.strip() else "blank", line


def _table(lines: list[str]) -> Block:
    table = Block("table")
    for line in lines:
        if _RULE.fullmatch(line):
            table.has_header = len(table.rows) == 1 and any(table.rows[0])
            table.rows = table.rows if any(map(any, table.rows)) else []  # a table without names has an empty head
        else:
            cells = re.split(r"(?<!\\)\|", line.strip()[1:].removesuffix("|"))
            table.rows.append([cell.strip().replace("\\|", "|") for cell in cells])
    return table


def _plain(markdown: str) -> str:
    pieces: list[str] = []
    last = ""
    for block in blocks(markdown):
        if block.kind == "table":
            text = "\n".join("\t".join(row) for row in block.rows)
        elif block.kind == "item":
            text = "  " * block.level + "- " + block.text
        else:
            text = block.text
        pieces += ["\n" if block.kind == last == "item" else "\n\n" if pieces else ""]
        pieces.append(text if block.kind == "code" else _without_marks(text))
        last = block.kind
    return "".join(pieces) + "\n" if pieces else ""


def _without_marks(text: str) -> str:
    """Without link targets; raised and lowered text as on one line: 10^2, H_2O."""
    return _RAISED.sub(lambda found: ("^" if found[1] == "p" else "_") + found[2], _LINK.sub(r"\1", text))


def _json_lines(section: Section, kind: str, *, marked: bool) -> str:
    place: dict[str, Any] = {} if section.page is None else {"page": section.page}
    place |= {} if section.sheet is None else {"sheet": section.sheet}
    lines: list[dict[str, Any]] = []
    tables = 0
    if marked:
        for block in blocks(section.text):
            tables += block.kind == "table"
            lines += _described(block, tables)
    else:
        key = "code" if kind in ("json", "jsonl", "xml", "yaml") else "text"
        lines = [{key: piece} for piece in _pieces(section.text)]
    return "".join(json.dumps({**place, **line}, ensure_ascii=False) + "\n" for line in lines)


def _described(block: Block, table: int) -> Iterator[dict[str, Any]]:
    match block.kind:
        case "heading":
            yield {"heading": block.text, "level": block.level}
        case "item":
            yield from ({"item": piece, "level": block.level} for piece in _pieces(block.text))
        case "code":
            yield from ({"code": piece} for piece in _pieces(block.text))
        case "paragraph":
            yield from ({"text": piece} for piece in _pieces(block.text))
        case "table":
            for number, row in enumerate(block.rows):
                is_header = block.has_header and number == 0
                yield {"table": table, **({"header": row} if is_header else {"row": row})}


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most `_MAX_LINE_CHARS`, cut after a line or a word; joined they are the text."""
    start = 0
    while start < len(text):
        end = start + _MAX_LINE_CHARS
        if end < len(text):
            at = max(text.rfind("\n", start, end), text.rfind(" ", start, end))
            end = at + 1 if at > start else end
        yield text[start:end]
        start = end
