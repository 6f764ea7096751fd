"""PowerPoint presentations (PPTX): a section per slide with title, text, tables, charts, pictures, notes and comments.

Reads the parts of the ZIP file directly (ECMA-376 part 1, §19 and §21). Slides come in the order of the show, hidden
ones are marked. Not read: masters and layouts (what stands on every slide), animations, embedded objects, macros.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO
from xml.etree.ElementTree import Element

from memento_documents.cells import markdown_table
from memento_documents.kinds import Unreadable
from memento_documents.package import Package, open_package, walk
from memento_documents.reading import Document, Section

__all__ = ["read_pptx"]

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_DGM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_DC_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_TITLES = ("title", "ctrTitle")
_UNSEEN_PLACEHOLDERS = ("dt", "ftr", "sldNum", "hdr")
"""Date, footer, slide number: on every slide, and about none."""
_USUAL_PART = "ppt/presentation.xml"


def read_pptx(file: BinaryIO) -> Document:
    """Return one section per slide; `page` is its number, `title` its title.

    Raises:
        Unreadable: a part of it is missing, damaged or too large.
    """
    with open_package(file, "The presentation") as package:
        main_part = package.main_part(_USUAL_PART)
        show = package.required(main_part)
        relations = package.relations(main_part)
        authors = _authors(package)
        sections: list[Section] = []
        for number, reference in enumerate(show.iter(f"{_P}sldId"), start=1):
            _, part = relations.get(reference.get(f"{_R}id") or "", ("", ""))
            sections.append(_slide(package, part, number, authors))
        if not sections:
            raise Unreadable("There are no slides in it.")
        core = package.xml("docProps/core.xml")
        notes = ["It has macros, which were not run."] if package.has_macros else []
    title = None if core is None else core.findtext(_DC_TITLE)
    return Document("pptx", sections, title=title or None, notes=notes)


def _slide(package: Package, part: str, number: int, authors: dict[str, str]) -> Section:
    root = package.xml(part)
    if root is None:
        return Section("(This slide is missing from the file.)\n", page=number)
    relations = package.relations(part)
    title = ""
    blocks: list[str] = ["(hidden slide)"] if root.get("show") == "0" else []
    for shape in _shapes(root):
        placeholder = shape.find(f"./*/{_P}nvPr/{_P}ph")
        kind = "" if placeholder is None else placeholder.get("type", "body")
        if kind in _UNSEEN_PLACEHOLDERS:
            continue
        if kind in _TITLES and not title:
            title = " ".join(_paragraph(shape).split())
            blocks.insert(0, f"# {title}" if title else "")
        else:
            blocks += _blocks(shape, package, relations, is_body=kind in ("body", "obj", "subTitle"))
    blocks += _notes_and_comments(package, relations, authors)
    return Section("\n\n".join(block for block in blocks if block) + "\n", page=number, title=title or None)


def _shapes(root: Element) -> Iterator[Element]:
    """The shapes of a slide in reading order, groups opened; no recursion."""
    tree = root.find(f"{_P}cSld/{_P}spTree")
    waiting = [] if tree is None else [*reversed(tree)]
    while waiting:
        node = waiting.pop()
        if node.tag in (f"{_P}sp", f"{_P}pic", f"{_P}graphicFrame", f"{_P}cxnSp"):
            yield node
        elif node.tag != _FALLBACK:
            waiting += reversed(node)  # a group, or a choice between versions


def _blocks(shape: Element, package: Package, relations: dict[str, tuple[str, str]], *, is_body: bool) -> Iterator[str]:
    if shape.tag == f"{_P}pic":
        yield _picture(shape, relations)
        return
    if shape.tag == f"{_P}graphicFrame":
        for table in shape.iter(f"{_A}tbl"):
            rows = [
                [" ".join(_paragraph(cell).split()) for cell in row.iter(f"{_A}tc")] for row in table.iter(f"{_A}tr")
            ]
            yield markdown_table(rows).rstrip("\n")
        for node in shape.iter():
            if node.tag == f"{_C}chart":
                yield _chart(package.xml(relations.get(node.get(f"{_R}id") or "", ("", ""))[1]))
            elif node.tag == f"{_DGM}relIds":
                data = package.xml(relations.get(node.get(f"{_R}dm") or "", ("", ""))[1])
                yield "" if data is None else "\n".join(f"- {line}" for line in _lines_of(data))
        return
    lines: list[str] = []
    for paragraph in shape.iter(f"{_A}p"):
        text = " ".join(_paragraph(paragraph).split())
        if not text:
            continue
        properties = paragraph.find(f"{_A}pPr")
        level = 0 if properties is None else min(_number(properties.get("lvl")), 8)
        plain = properties is not None and properties.find(f"{_A}buNone") is not None
        bulleted = properties is not None and (
            properties.find(f"{_A}buChar") is not None or properties.find(f"{_A}buAutoNum") is not None
        )
        lines.append("  " * level + "- " + text if (is_body and not plain) or bulleted else text)
    yield "\n".join(lines)


def _lines_of(root: Element) -> list[str]:
    return [text for paragraph in root.iter(f"{_A}p") if (text := " ".join(_paragraph(paragraph).split()))]


def _paragraph(element: Element) -> str:
    pieces: list[str] = []
    raised = ""
    for node in walk(element, frozenset({_FALLBACK})):
        if node.tag == f"{_A}t":
            text = node.text or ""
            pieces.append(f"<{raised}>{text}</{raised}>" if raised and text else text)
        elif node.tag == f"{_A}r":
            raised = ""
        elif node.tag == f"{_A}rPr":  # of a run; it comes before the run's text
            raised = _raised(node.get("baseline"))
        elif node.tag in (f"{_A}p", f"{_A}br"):
            pieces.append("\n")
    return "".join(pieces).strip()


def _raised(baseline: str | None) -> str:
    """The HTML element for text this far above the line (in thousandths of a percent), or nothing: 10² is not 102."""
    if not baseline or baseline.strip("-0%") == "":
        return ""
    return "sub" if baseline.startswith("-") else "sup"


def _picture(shape: Element, relations: dict[str, tuple[str, str]]) -> str:
    """`![what it shows](member)`; the member can be read as `deck.pptx!/member`."""
    named = shape.find(f"./*/{_P}cNvPr")
    alt = "" if named is None else named.get("descr") or named.get("title") or named.get("name") or ""
    blip = next(shape.iter(f"{_A}blip"), None)
    member = relations.get("" if blip is None else blip.get(f"{_R}embed") or "", ("", ""))[1]
    return f"![{' '.join(alt.split())}]({member})"


def _chart(root: Element | None) -> str:
    """A chart as the table of the numbers it was drawn from: categories down, series across."""
    if root is None:
        return ""
    title = root.find(f"{_C}chart/{_C}title")
    series: list[tuple[str, dict[int, str]]] = []
    categories: dict[int, str] = {}
    for each in root.iter(f"{_C}ser"):
        name = each.find(f"{_C}tx")
        series.append(("" if name is None else " ".join(_points(name).values()), _values_of(each, ("val", "yVal"))))
        categories = categories or _values_of(each, ("cat", "xVal"))
    count = max((max(points, default=-1) + 1 for _, points in [("", categories), *series]), default=0)
    if not count:
        return ""
    rows = [["", *(name for name, _ in series)]]
    rows += [[categories.get(at, ""), *(points.get(at, "") for _, points in series)] for at in range(min(count, 2_000))]
    heading = "Chart" if title is None else f"Chart: {' '.join(_paragraph(title).split())}"
    return f"{heading}\n\n{markdown_table(rows, header=0)}".rstrip("\n")


def _values_of(series: Element, names: tuple[str, ...]) -> dict[int, str]:
    found = next((node for name in names if (node := series.find(f"{_C}{name}")) is not None), None)
    return {} if found is None else _points(found)


def _points(element: Element) -> dict[int, str]:
    return {_number(point.get("idx")): point.findtext(f"{_C}v") or "" for point in element.iter(f"{_C}pt")}


def _notes_and_comments(
    package: Package, relations: dict[str, tuple[str, str]], authors: dict[str, str]
) -> Iterator[str]:
    for kind, part in relations.values():
        root = package.xml(part) if kind in ("notesSlide", "comments") else None
        if root is None:
            continue
        if kind == "notesSlide":
            lines = [
                line
                for shape in _shapes(root)
                if (placeholder := shape.find(f"./*/{_P}nvPr/{_P}ph")) is not None
                and placeholder.get("type", "body") == "body"
                for line in _lines_of(shape)
            ]
            yield "Notes: " + "\n".join(lines) if lines else ""
        else:
            for comment in root:
                text = comment.findtext(f"{_P}text") or " ".join(_lines_of(comment))
                who = authors.get(comment.get("authorId") or "", "somebody")
                yield f"Comment by {who}: {' '.join(text.split())}" if text.strip() else ""


def _authors(package: Package) -> dict[str, str]:
    authors: dict[str, str] = {}
    for name in ("ppt/commentAuthors.xml", "ppt/authors.xml"):
        root = package.xml(name)
        for author in root if root is not None else ():
            authors[author.get("id") or ""] = author.get("name") or "somebody"
    return authors


def _number(text: str | None) -> int:
    return int(text) if text is not None and re.fullmatch(r"\d{1,7}", text) else 0
