"""Word documents (DOCX) as Markdown: headings, lists, tables, pictures, then notes, comments, page headers and footers.

Reads the parts of the ZIP file directly (ECMA-376 part 1, §17). Deleted text of tracked changes is left out, inserted
text kept. Not read: text in drawings' fallbacks, fields' instructions, embedded objects, macros.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from typing import Any, BinaryIO
from xml.etree.ElementTree import Element, register_namespace, tostring

from memento_documents.cells import markdown_table
from memento_documents.package import Package, open_package, plain, walk
from memento_documents.reading import Document, Section

__all__ = ["read_docx"]

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_WP = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}"
_INLINE_PICTURE, _ANCHORED_PICTURE = f"{_WP}inline", f"{_WP}anchor"
_VML_PICTURE, _VML_TITLE = "{urn:schemas-microsoft-com:vml}imagedata", "{urn:schemas-microsoft-com:office:office}title"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_PROLOG_BYTES = 65_536
_STYLE_ID = re.compile(r'\bw:styleId="([^"]*)"')
_STYLE_FACT = re.compile(r'<w:(name|basedOn|outlineLvl|numId) w:val="([^"]*)"')
_NOTES = (("footnotes", "Footnotes"), ("endnotes", "Endnotes"), ("comments", "Comments"))
_BODY_LEVEL = 9
"""The outline level that says: no heading, whatever the style that this one is based on."""
_DROP_CAP_CHARS = 20
_DROP_CAP = f"{_W}pPr/{_W}framePr[@{_W}dropCap]"


def read_docx(file: BinaryIO) -> Document:
    """Return the whole text as one section.

    Raises:
        Unreadable: a part of it is missing, damaged or too large.
    """
    with open_package(file, "The Word document") as package:
        name = package.main_part("word/document.xml")
        parts = _Parts.of(package, name)
        blocks = [*_blocks(package.required(name), _styles(package, parts))]
        for kind, title in _NOTES:
            part = package.xml(parts.one(kind))
            lines = [line for note in part if (line := _note(note))] if part is not None else []
            blocks += [f"{title}:", "\n".join(lines)] if lines else []  # no headings: the author wrote none
        blocks += _headers_and_footers(package, parts)
        core = package.xml("docProps/core.xml")
        notes = ["It has macros, which were not run."] if package.has_macros else []
    title = None if core is None else core.findtext(_TITLE)
    text = "\n\n".join(block for block in blocks if block) + "\n"
    return Document("docx", [Section(text)], title=title or None, notes=notes)


def _note(note: Element) -> str:
    """`- [^1]: text` for a foot- or endnote, `- Ann: text` for a comment."""
    text = " ".join(_inline(note).split())
    author, number = note.get(f"{_W}author"), note.get(f"{_W}id")
    mark = f"{author}: " if author else f"[^{number}]: " if number and note.tag != f"{_W}comment" else ""
    return f"- {mark}{text}" if text else ""


@dataclass
class _Parts:
    """Where the parts of the document are that its main part points to; their names are a custom, not a rule."""

    relations: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, package: Package, main_part: str) -> "_Parts":
        return cls(package.relations(main_part))

    def one(self, kind: str) -> str:
        return next(iter(self.all(kind)), f"word/{kind}.xml")

    def all(self, kind: str) -> list[str]:
        return sorted({member for each, member in self.relations.values() if each == kind})


def _headers_and_footers(package: Package, parts: _Parts) -> Iterator[str]:
    """Each text once: a document has one header per section and kind of page, mostly all alike."""
    for kind, title in (("header", "Page headers"), ("footer", "Page footers")):
        texts: dict[str, None] = {}
        for name in parts.all(kind):
            if (root := package.xml(name)) is not None:
                texts |= dict.fromkeys(filter(None, [" ".join(_inline(root).split())]))
        if texts:
            yield f"{title}:"
            yield "\n".join(f"- {text}" for text in texts)


@dataclass
class _Styles:
    """What paragraph styles and numberings mean."""

    levels: dict[str, int]
    """Style id to heading level, 1 to 6."""
    numberings: dict[str, str]
    """Style id to the id of the list numbering that comes with it."""
    lists: "_Lists"
    pictures: dict[str, str]
    """Relation id to the picture's member name."""


@dataclass
class _Lists:
    """How lists count (ECMA-376 part 1, §17.9). Several numberings of one family go on counting together."""

    family: dict[str, str] = field(default_factory=dict[str, str])
    """Numbering id to the id of the definition that it uses."""
    starts: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    """(family, list level) to its first number, for the lists that count; the others have bullets."""
    restarts: dict[str, dict[int, int]] = field(default_factory=dict[str, dict[int, int]])
    """Numbering id to the numbers that it starts anew with, by level."""
    _counts: dict[str, dict[int, int]] = field(default_factory=dict[str, dict[int, int]])

    def mark(self, numbering: str, level: int) -> str:
        """The mark of the next item: its number, or a bullet."""
        family = self.family.get(numbering, numbering)
        counts = self._counts.setdefault(family, {})
        for at, number in self.restarts.pop(numbering, {}).items():
            counts[at] = number - 1
        for deeper in [at for at in counts if at > level]:
            del counts[deeper]
        first = self.starts.get((family, level))
        if first is None:
            return "-"
        counts[level] = counts.get(level, first - 1) + 1
        return f"{counts[level]}."


def _lists(package: Package, part: str) -> _Lists:
    found = _Lists()
    root = package.xml(part)
    for kind in root.iter(f"{_W}abstractNum") if root is not None else ():
        for level in kind.iter(f"{_W}lvl"):
            if _value(level, f"{_W}numFmt") not in (None, "bullet", "none"):
                place = kind.get(f"{_W}abstractNumId") or "", _number(level.get(f"{_W}ilvl"), 0)
                found.starts[place] = _number(_value(level, f"{_W}start"), 0)
    for numbering in root.iter(f"{_W}num") if root is not None else ():
        key = numbering.get(f"{_W}numId") or ""
        found.family[key] = _value(numbering, f"{_W}abstractNumId") or ""
        for override in numbering.iter(f"{_W}lvlOverride"):
            start = _value(override, f"{_W}startOverride")
            if start is not None:
                level = _number(override.get(f"{_W}ilvl"), 0)
                found.restarts.setdefault(key, {})[level] = _number(start, 1)
    return found


def _styles(package: Package, parts: _Parts) -> _Styles:
    pictures = {each: member for each, (kind, member) in parts.relations.items() if kind == "image"}
    found = _Styles({}, {}, _lists(package, parts.one("numbering")), pictures)
    styles = _paragraph_styles(package, parts.one("styles"))
    for key, style in styles.items():
        seen: set[str] = set()
        level, numbering = None, None
        while style is not None and style.key not in seen:  # what a style leaves open, the one it is based on says
            seen.add(style.key)
            level = style.level if level is None else level
            numbering = style.numbering if numbering is None else numbering
            style = styles.get(style.based_on)
        if level:
            found.levels[key] = level
        if numbering is not None:
            found.numberings[key] = numbering
    return found


@dataclass
class _ParagraphStyle:
    key: str
    based_on: str
    level: int | None
    """Of a heading, 1 to 6; 0 says that it is none, None nothing."""
    numbering: str | None


def _paragraph_styles(package: Package, part: str) -> dict[str, _ParagraphStyle]:
    """By id. Four facts of a part that can be ten times as long as the text: as a tree it costs most of the reading."""
    content = package.markup(part) or b""
    if b"<w:styles" not in content[:_PROLOG_BYTES] or b"<![CDATA[" in content:
        content = _with_usual_prefix(package, part)
    found: dict[str, _ParagraphStyle] = {}
    for piece in content.split(b"<w:style ")[1:]:
        if re.match(rb'[^>]*\bw:type="(?!paragraph")', piece):
            continue
        style = piece.partition(b"</w:style>")[0].decode("utf-8", errors="replace")
        facts = {match[1]: unescape(match[2]) for match in _STYLE_FACT.finditer(style)}
        identity = _STYLE_ID.search(style)
        if identity is None:
            continue
        key = unescape(identity[1])
        name = facts.get("name", "").lower()
        level = _heading_level(facts.get("outlineLvl"))
        if name.startswith("heading "):
            level = min(_number(name.removeprefix("heading "), level or 0), 6)
        elif name == "title":
            level = 1
        found[key] = _ParagraphStyle(key, facts.get("basedOn", ""), level, facts.get("numId"))
    return found


def _heading_level(outline_level: str | None) -> int | None:
    """1 to 6 for the outline levels from 0 on, 0 for that of the body, None when nothing is said."""
    if outline_level is None:
        return None
    level = _number(outline_level, _BODY_LEVEL)
    return min(level + 1, 6) if level < _BODY_LEVEL else 0


def _with_usual_prefix(package: Package, part: str) -> bytes:
    """The styles as Word writes them, whatever prefix or encoding the file chose."""
    root = package.xml(part)
    if root is None:
        return b""
    register_namespace("w", _W[1:-1])
    return tostring(root, "utf-8")


def _value(element: Element, path: str) -> str | None:
    """The `w:val` of what lies at `path`, where Word keeps most of what it has to say."""
    found: Any = element.find(path)
    return None if found is None else found.get(f"{_W}val")


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isdecimal() else otherwise


def _blocks(container: Element, styles: _Styles) -> Iterator[str]:
    """Paragraphs and tables in order, also those wrapped in content controls; a list's items come as one block."""
    items: list[str] = []
    drop_cap = ""
    for block in _children(container):
        text, item = _paragraph(block, styles) if block.tag == f"{_W}p" else (_table(block, styles), None)
        if block.find(_DROP_CAP) is not None and len(text) <= _DROP_CAP_CHARS:
            drop_cap += text  # the large first letter is a paragraph of its own, beside the one that it begins
            continue
        text, drop_cap = drop_cap + text, ""
        if item is not None:
            numbering, level = item
            items.append("  " * level + f"{styles.lists.mark(numbering, level)} {text}")
            continue
        if items and text:
            yield "\n".join(items)
            items = []
        yield text
    if items:
        yield "\n".join(items)
    yield drop_cap


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


def _paragraph(paragraph: Element, styles: _Styles) -> tuple[str, tuple[str, int] | None]:
    """The text with a heading's mark; for an item of a list its numbering and level."""
    text = _inline(paragraph, styles)
    if not text:
        return "", None
    said = paragraph.find(f"{_W}pPr")
    if said is None:
        return plain(text), None
    style = _value(said, f"{_W}pStyle") or ""
    level = _heading_level(_value(said, f"{_W}outlineLvl"))
    if level or (level is None and (level := styles.levels.get(style, 0))):
        return "#" * level + " " + " ".join(text.split()), None
    listed = said.find(f"{_W}numPr")
    own = None if listed is None else _value(listed, f"{_W}numId")
    numbering = styles.numberings.get(style) if own is None else own
    if (numbering is None and listed is None) or numbering == "0":
        return plain(text), None
    indent = 0 if listed is None else min(_number(_value(listed, f"{_W}ilvl"), 0), 8)
    return " ".join(text.split()), (numbering or "", indent)


_UNSEEN = frozenset({_FALLBACK, f"{_W}pPr", f"{_W}del", f"{_W}moveFrom", f"{_W}instrText"})
_RAISED = {"superscript": "sup", "subscript": "sub"}
_NOTE_MARKS = (f"{_W}footnoteReference", f"{_W}endnoteReference")


def _inline(element: Element, styles: _Styles | None = None) -> str:
    """All text below `element`, paragraphs parted by line ends, with marks where notes and pictures stand."""
    pieces: list[str] = []
    raised = ""
    for node in walk(element, _UNSEEN):
        if node.tag == f"{_W}t":
            text = node.text or ""
            pieces.append(f"<{raised}>{text}</{raised}>" if raised and text else text)
        elif node.tag == f"{_W}r":
            raised = ""
        elif node.tag == f"{_W}vertAlign":  # among the properties of a run, which come before its text
            raised = _RAISED.get(node.get(f"{_W}val") or "", "")  # 10² is not 102
        elif node.tag == f"{_W}tab":
            pieces.append("\t")
        elif node.tag in (f"{_W}br", f"{_W}cr", f"{_W}p"):
            pieces.append("\n")
        elif node.tag == f"{_W}noBreakHyphen":
            pieces.append("-")
        elif node.tag in _NOTE_MARKS:
            pieces.append(f"[^{node.get(f'{_W}id') or ''}]")
        elif node.tag in (_INLINE_PICTURE, _ANCHORED_PICTURE) and styles is not None:
            pieces.append(_picture(node, styles))
        elif node.tag == _VML_PICTURE and styles is not None:
            pieces.append(_shown(styles, node.get(f"{_R}id"), node.get(_VML_TITLE)))
    return "".join(pieces).strip()


def _picture(drawing: Element, styles: _Styles) -> str:
    blip = next(drawing.iter(f"{_A}blip"), None)
    named = drawing.find(f"{_WP}docPr")
    said = None if named is None else named.get("descr") or named.get("name")
    return _shown(styles, None if blip is None else blip.get(f"{_R}embed"), said)


def _shown(styles: _Styles, relation: str | None, said: str | None) -> str:
    """`![what it shows](member)`; the member can be read as `report.docx!/member`."""
    member = styles.pictures.get(relation or "")
    return f"![{' '.join((said or '').split())}]({member})" if member is not None else ""


def _table(table: Element, styles: _Styles) -> str:
    """Rows of the table itself; one inside a cell is that cell's text. A cell across columns fills the first."""
    rows: list[list[str]] = []
    for row in _parts(table, f"{_W}tr"):
        cells: list[str] = []
        for cell in _parts(row, f"{_W}tc"):
            span = _number(_value(cell, f"{_W}tcPr/{_W}gridSpan"), 1)
            cells += [" ".join(_inline(cell, styles).split()), *[""] * min(span - 1, 100)]
        rows.append(cells)
    return markdown_table(rows).rstrip("\n")


def _parts(container: Element, tag: str) -> Iterator[Element]:
    """Rows of a table, or cells of a row, also those in content controls; not those of tables inside."""
    waiting = [*reversed(container)]
    while waiting:
        node = waiting.pop()
        if node.tag == tag:
            yield node
        elif node.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml"):
            waiting += reversed(node)
