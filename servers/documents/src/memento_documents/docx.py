"""Word documents (DOCX) as Markdown: headings, lists, tables, then footnotes, endnotes and comments.

Reads the parts of the ZIP file directly (ECMA-376 part 1, §17). Deleted text of tracked changes is left out, inserted
text kept. Not read: text in drawings' fallbacks, fields' instructions, headers and footers, embedded objects, macros.
"""

import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO
from xml.etree.ElementTree import Element, ParseError, fromstring

from memento_documents.cells import markdown_table
from memento_documents.kinds import Unreadable
from memento_documents.reading import Document, Section

__all__ = ["read_docx"]

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_MAX_PART_BYTES = 100_000_000
"""An unpacked part above this is a bomb, or a book no one reads here: bomb.docx unpacks 2.5 MB to 712 MB."""
_NOTES = (("word/footnotes.xml", "Footnotes"), ("word/endnotes.xml", "Endnotes"), ("word/comments.xml", "Comments"))


def read_docx(file: BinaryIO) -> Document:
    """Return the whole text as one section.

    Raises:
        Unreadable: a part of it is missing, damaged or too large.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            body = _part(archive, "word/document.xml")
            if body is None:
                raise Unreadable("The Word document has no text part; it is damaged.")
            levels = _heading_levels(_part(archive, "word/styles.xml"))
            blocks = [*_blocks(body, levels)]
            for name, title in _NOTES:
                notes = _part(archive, name)
                lines = [f"- {text}" for note in notes if (text := _inline(note))] if notes is not None else []
                blocks += [f"## {title}", "\n".join(lines)] if lines else []
            core = _part(archive, "docProps/core.xml")
    except (zipfile.BadZipFile, ParseError, EOFError, NotImplementedError, RuntimeError) as exc:
        raise Unreadable(
            f"The Word document is damaged ({type(exc).__name__}); open it in Word and save it again."
        ) from exc
    title = None if core is None else core.findtext(_TITLE)
    return Document("docx", [Section("\n\n".join(block for block in blocks if block) + "\n")], title=title or None)


def _part(archive: zipfile.ZipFile, name: str) -> Element | None:
    try:
        info = archive.getinfo(name)
    except KeyError:
        return None
    if info.file_size > _MAX_PART_BYTES:
        raise Unreadable(f"A part of it unpacks to {info.file_size / 1e6:.0f} MB, too large to be read here.")
    with archive.open(info) as part:
        content = part.read(_MAX_PART_BYTES + 1)  # the directory may lie about the size
    if len(content) > _MAX_PART_BYTES:
        raise Unreadable("A part of it is too large to be read here.")
    return fromstring(content)  # expat: external entities are not fetched, amplification is refused


def _heading_levels(styles: Element | None) -> dict[str, int]:
    """Style id to heading level, 1 to 6; by the style's outline level, or its built-in English name."""
    levels: dict[str, int] = {}
    if styles is None:
        return levels
    for style in styles.iter(f"{_W}style"):
        name = (_value(style, f"{_W}name") or "").lower()
        level = _number(_value(style, f"{_W}pPr/{_W}outlineLvl"), -1) + 1
        if name.startswith("heading "):
            level = _number(name.removeprefix("heading "), level)
        elif name == "title":
            level = 1
        if 1 <= level <= 9:
            levels[style.get(f"{_W}styleId") or ""] = min(level, 6)
    return levels


def _value(element: Element, path: str) -> str | None:
    """The `w:val` of what lies at `path`, where Word keeps most of what it has to say."""
    found: Any = element.find(path)
    return None if found is None else found.get(f"{_W}val")


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isdecimal() else otherwise


def _blocks(container: Element, levels: dict[str, int]) -> Iterator[str]:
    """Paragraphs and tables in order, also those wrapped in content controls; a list's items come as one block."""
    items: list[str] = []
    for block in _children(container):
        text, is_item = _paragraph(block, levels) if block.tag == f"{_W}p" else (_table(block), False)
        if is_item:
            items.append(text)
            continue
        if items:
            yield "\n".join(items)
            items = []
        yield text
    if items:
        yield "\n".join(items)


def _children(container: Element) -> Iterator[Element]:
    waiting = [iter(container)]
    while waiting:
        for child in waiting[-1]:
            if child.tag in (f"{_W}p", f"{_W}tbl"):
                yield child
            elif child.tag in (f"{_W}body", f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml"):
                waiting.append(iter(child))
                break
        else:
            waiting.pop()


def _paragraph(paragraph: Element, levels: dict[str, int]) -> tuple[str, bool]:
    """The text with its marks, and whether it is an item of a list."""
    text = _inline(paragraph)
    if not text:
        return "", False
    level = levels.get(_value(paragraph, f"{_W}pPr/{_W}pStyle") or "", 0)
    if level:
        return "#" * level + " " + " ".join(text.split()), False
    numbering = f"{_W}pPr/{_W}numPr"
    if paragraph.find(numbering) is None:
        return text, False
    indent = _number(_value(paragraph, f"{numbering}/{_W}ilvl"), 0)
    return "  " * min(indent, 8) + "- " + " ".join(text.split()), True


def _inline(element: Element) -> str:
    """All text below `element`, paragraphs parted by line ends; walks without recursion, however deep it is nested."""
    pieces: list[str] = []
    waiting = [element]
    while waiting:
        node = waiting.pop()
        if node.tag == f"{_W}t":
            pieces.append(node.text or "")
        elif node.tag == f"{_W}tab":
            pieces.append("\t")
        elif node.tag in (f"{_W}br", f"{_W}cr", f"{_W}p"):
            pieces.append("\n")
        if node.tag not in (_FALLBACK, f"{_W}pPr", f"{_W}del", f"{_W}moveFrom"):
            waiting += reversed(node)
    return "".join(pieces).strip()


def _table(table: Element) -> str:
    rows = [[" ".join(_inline(cell).split()) for cell in row.iter(f"{_W}tc")] for row in table.iter(f"{_W}tr")]
    return markdown_table(rows).rstrip("\n")
