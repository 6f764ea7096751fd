"""OpenDocument text and presentations (ODT, ODP) as Markdown: headings, lists, tables, notes, pictures, comments.

Reads `content.xml` directly (OpenDocument 1.3 part 3). Text deleted under change tracking is left out. Not read: page
headers and footers, embedded objects, macros. Spreadsheets (ODS) are `spreadsheet`'s.
"""

from collections.abc import Iterator
from typing import BinaryIO, Literal
from xml.etree.ElementTree import Element

from memento_documents.cells import markdown_table
from memento_documents.package import open_package, plain
from memento_documents.reading import Document, Section

__all__ = ["read_odf"]

_OASIS = "{urn:oasis:names:tc:opendocument:xmlns:"
_TEXT = f"{_OASIS}text:1.0}}"
_TABLE = f"{_OASIS}table:1.0}}"
_DRAW = f"{_OASIS}drawing:1.0}}"
_OFFICE = f"{_OASIS}office:1.0}}"
_PRESENTATION = f"{_OASIS}presentation:1.0}}"
_SVG = f"{_OASIS}svg-compatible:1.0}}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_MAX_REPEATED_CELLS = 64
"""`number-columns-repeated` fills a row to its end with empty cells, sixteen thousand of them."""
_MAX_LIST_DEPTH = 8


def read_odf(file: BinaryIO, kind: Literal["odt", "odp"]) -> Document:
    """Return the text as one section, or one per slide.

    Raises:
        Unreadable: encrypted, damaged or too large.
    """
    with open_package(file, "The OpenDocument file") as package:
        content = package.required("content.xml")
        meta = package.xml("meta.xml")
    body = content.find(f"{_OFFICE}body")
    title = None if meta is None else next((node.text for node in meta.iter(f"{_DC}title")), None)
    writer = _Writer()
    if kind == "odt":
        text = writer.write(body) if body is not None else ""
        return Document("odt", [Section(text + "\n")], title=title)
    sections: list[Section] = []
    for number, page in enumerate(body.iter(f"{_DRAW}page") if body is not None else (), start=1):
        writer = _Writer()
        text = writer.write(page)
        sections.append(Section(text + "\n", page=number, title=writer.first_title or page.get(f"{_DRAW}name")))
    return Document("odp", sections, title=title)


class _Writer:
    """Blocks of Markdown from a container. Recursion is by structure and bounded: expat's tree may be deep, so each
    method gives up below `_MAX_DEPTH` levels and takes the bare text there."""

    _MAX_DEPTH = 100

    def __init__(self) -> None:
        self._notes: list[str] = []
        self.first_title: str | None = None

    def write(self, container: Element) -> str:
        blocks = [block for block in self._blocks(container, 0, 0) if block.strip()]
        if self._notes:
            blocks.append("\n".join(self._notes))
        return "\n\n".join(blocks)

    def _blocks(self, container: Element, depth: int, listed: int) -> Iterator[str]:
        if depth > self._MAX_DEPTH:
            yield " ".join("".join(container.itertext()).split())
            return
        for node in container:
            match node.tag.removeprefix(_OASIS):
                case "text:1.0}h":
                    level = node.get(f"{_TEXT}outline-level") or "1"
                    text = self._inline(node)
                    yield "#" * min(int(level) if level.isdecimal() else 1, 6) + f" {text}" if text else ""
                case "text:1.0}p":
                    yield plain(self._inline(node))
                    yield from self._pictures(node, depth, listed)
                case "text:1.0}list":
                    yield "\n".join(self._items(node, depth + 1, listed))
                case "table:1.0}table":
                    yield markdown_table(list(self._rows(node))).rstrip("\n")
                case "presentation:1.0}notes":
                    notes = " ".join(self._blocks(node, depth + 1, listed)).strip()
                    yield f"Notes: {notes}" if notes else ""
                case "drawing:1.0}frame":
                    yield from self._frame(node, depth, listed)
                case "text:1.0}tracked-changes" | "office:1.0}forms" | "text:1.0}sequence-decls":
                    pass
                case _:
                    yield from self._blocks(node, depth + 1, listed)

    def _items(self, node: Element, depth: int, listed: int) -> Iterator[str]:
        for item in node:
            for index, block in enumerate(self._blocks(item, depth + 1, listed + 1)):
                if not block.strip():
                    continue
                is_list = block.lstrip().startswith("- ") and index > 0
                yield block if is_list else "  " * min(listed, _MAX_LIST_DEPTH) + ("- " if index == 0 else "  ") + block

    def _frame(self, node: Element, depth: int, listed: int) -> Iterator[str]:
        inner = [block for block in self._blocks(node, depth + 1, listed) if block.strip()]
        if node.get(f"{_PRESENTATION}class") == "title" and inner:
            title = " ".join(" ".join(inner).split())
            self.first_title = self.first_title or title
            yield f"# {title}"
            return
        image = node.find(f"{_DRAW}image")
        if image is not None:
            said = node.findtext(f"{_SVG}desc") or node.findtext(f"{_SVG}title") or node.get(f"{_DRAW}name") or ""
            yield f"![{' '.join(said.split())}]({image.get(f'{_XLINK}href') or ''})"
            return
        yield from inner

    def _pictures(self, paragraph: Element, depth: int, listed: int) -> Iterator[str]:
        for frame in paragraph.iter(f"{_DRAW}frame"):
            yield from self._frame(frame, depth + 1, listed)

    def _rows(self, table: Element) -> Iterator[list[str]]:
        for row in table.iter(f"{_TABLE}table-row"):
            cells: list[str] = []
            for cell in row:
                if cell.tag in (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
                    times = cell.get(f"{_TABLE}number-columns-repeated") or "1"
                    text = " ".join(self._inline(part) for part in cell.iter(f"{_TEXT}p"))
                    cells += [text] * min(int(times) if times.isdecimal() else 1, _MAX_REPEATED_CELLS)
            while cells and not cells[-1]:
                cells.pop()
            yield cells

    def _inline(self, element: Element) -> str:
        """Text below `element`; notes and comments go to the end, frames are blocks of their own. No recursion."""
        pieces: list[str] = []
        waiting: list[Element | str] = [element]
        while waiting:
            node = waiting.pop()
            if isinstance(node, str):
                pieces.append(node)
                continue
            name = node.tag
            if name == f"{_TEXT}s":
                count = node.get(f"{_TEXT}c") or "1"
                pieces.append(" " * min(int(count) if count.isdecimal() else 1, 100))
            elif name in (f"{_TEXT}tab", f"{_TEXT}line-break"):
                pieces.append(" ")
            elif name == f"{_TEXT}note" and node is not element:
                pieces.append(self._note(node))
            elif name == f"{_OFFICE}annotation" and node is not element:
                who = node.findtext(f"{_DC}creator") or "somebody"
                said = " ".join(" ".join("".join(part.itertext()).split()) for part in node.iter(f"{_TEXT}p"))
                self._notes.append(f"Comment by {who}: {said}")
            elif name != f"{_DRAW}frame":
                for child in reversed(node):
                    waiting += [child.tail or "", child]
                pieces.append(node.text or "")
        return " ".join("".join(pieces).split())

    def _note(self, node: Element) -> str:
        body = node.find(f"{_TEXT}note-body")
        said = "" if body is None else " ".join("".join(body.itertext()).split())
        mark = node.findtext(f"{_TEXT}note-citation") or str(len(self._notes) + 1)
        self._notes.append(f"[^{mark}]: {said}")
        return f"[^{mark}]"
