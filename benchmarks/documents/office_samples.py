"""DOCX, PPTX, ODT, EPUB and HTML files whose truth is known: the texts of `samples`, written by the usual writers.

python-docx, python-pptx and odfpy write the files; the truth is what was handed to them.
"""

import importlib
import io
import zipfile
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.documents.samples import Truth, clean_markdown, sample_texts

__all__ = ["FORMATS", "make_office_samples"]

_Flow = list[tuple[str, Any]]
"""("h2", text), ("p", text), ("li", text), ("pre", text), ("table", rows), in order."""


def make_office_samples(folder: Path, count: int = 12) -> dict[str, dict[str, Truth]]:
    """Write `count` documents in each format into `folder`; return the truths by format and file name."""
    texts = sample_texts(count)
    truths: dict[str, dict[str, Truth]] = {}
    for suffix, write in FORMATS.items():
        truths[suffix] = {}
        (folder / suffix).mkdir(parents=True, exist_ok=True)
        for name, text in texts:
            flow = list(_flow(text))
            if suffix == "pptx":
                flow = _as_slides(flow)
            path = folder / suffix / f"{name}.{suffix}"
            path.write_bytes(write(flow))  # anew each time: the texts are those of the packages installed now
            blocks = [(tag, said) for tag, said in flow if tag != "table"]
            blocks_with_cells = [
                (tag, said) for tag, each in flow
                for tag, said in ([("cell", cell) for row in each for cell in row] if tag == "table" else [(tag, each)])
            ]  # fmt: skip
            tables = [rows for tag, rows in flow if tag == "table"]
            truths[suffix][path.name] = Truth(blocks_with_cells if tables else blocks, tables)
    return truths


def _flow(text: str) -> Iterator[tuple[str, Any]]:  # noqa: C901 - one case per kind of token
    from markdown_it import MarkdownIt

    parser: Any = MarkdownIt("commonmark", {"html": False}).enable("table")
    tag, in_item = "p", 0
    rows: list[list[str]] = []
    for token in parser.parse(clean_markdown(text)):
        match token.type:
            case "heading_open":
                tag = token.tag
            case "heading_close" | "th_close" | "td_close":
                tag = "p"
            case "list_item_open":
                in_item += 1
            case "list_item_close":
                in_item -= 1
            case "table_open":
                rows = []
            case "tr_open":
                rows.append([])
            case "th_open" | "td_open":
                tag = "cell"
            case "table_close":
                yield "table", rows
            case "fence" | "code_block" if token.content.strip():
                yield "pre", token.content.strip()
            case "inline":
                said = " ".join(
                    "".join(
                        " " if child.type in ("softbreak", "hardbreak") else child.content for child in token.children
                    ).split()
                )
                if tag == "cell":
                    rows[-1].append(said)
                elif said:
                    yield ("li" if tag == "p" and in_item else tag), said
            case _:
                pass


def _as_slides(flow: _Flow) -> _Flow:
    """A slide has one title, and its text is a list; a table stands on a slide of its own."""
    made: _Flow = []
    for tag, said in flow:
        if tag == "table":
            made += [("h1", "Table"), ("table", said)]
        elif tag.startswith("h"):
            made.append(("h1", said))
        else:
            made += [("h1", "Start")] if not made else []
            made += [("h1", "More")] if made[-1][0] == "table" else []
            made.append(("li", " ".join(said.split())))
    return made


def _docx(flow: _Flow) -> bytes:
    document: Any = importlib.import_module("docx").Document()
    for tag, said in flow:
        if tag == "table":
            table = document.add_table(len(said), max(map(len, said)))
            for cells, row in zip(table.rows, said, strict=True):
                for cell, text in zip(cells.cells, row, strict=False):
                    cell.text = text
        elif tag.startswith("h"):
            document.add_heading(said, int(tag[1]))
        else:
            document.add_paragraph(said, style="List Bullet" if tag == "li" else None)
    content = io.BytesIO()
    document.save(content)
    return content.getvalue()


def _pptx(flow: _Flow) -> bytes:
    show: Any = importlib.import_module("pptx").Presentation()
    slide: Any = None
    body: Any = None
    for tag, said in flow:
        if tag == "h1":
            slide = show.slides.add_slide(show.slide_layouts[1])
            slide.shapes.title.text = said
            body = slide.placeholders[1].text_frame
        elif tag == "table":
            table = slide.shapes.add_table(len(said), max(map(len, said)), 0, 0, 9_000_000, 3_000_000).table
            for at, row in enumerate(said):
                for across, text in enumerate(row):
                    table.cell(at, across).text = text
        else:
            paragraph = body.paragraphs[0] if not body.text else body.add_paragraph()
            paragraph.text = said
    content = io.BytesIO()
    show.save(content)
    return content.getvalue()


def _odt(flow: _Flow) -> bytes:
    text, table = importlib.import_module("odf.text"), importlib.import_module("odf.table")
    document: Any = importlib.import_module("odf.opendocument").OpenDocumentText()
    for tag, said in flow:
        if tag == "table":
            made = table.Table()
            for row in said:
                line = table.TableRow()
                for each in row:
                    cell = table.TableCell()
                    cell.addElement(text.P(text=each))
                    line.addElement(cell)
                made.addElement(line)
            document.text.addElement(made)
        elif tag.startswith("h"):
            document.text.addElement(text.H(outlinelevel=int(tag[1]), text=said))
        elif tag == "li":
            items, item = text.List(), text.ListItem()
            item.addElement(text.P(text=said))
            items.addElement(item)
            document.text.addElement(items)
        else:
            document.text.addElement(text.P(text=said))
    content = io.BytesIO()
    document.save(content)
    return content.getvalue()


def _html_body(flow: _Flow) -> str:
    pieces: list[str] = []
    for tag, said in flow:
        if tag == "table":
            rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in said]
            head = rows[0].replace("td>", "th>")
            pieces.append("<table>" + "".join(f"<tr>{row}</tr>" for row in [head, *rows[1:]]) + "</table>")
        else:
            inner = f"<{tag}>{escape(said)}</{tag}>"
            pieces.append(f"<ul>{inner}</ul>" if tag == "li" else inner)
    return "\n".join(pieces)


def _html(flow: _Flow) -> bytes:
    return f"<!DOCTYPE html><html><head><meta charset='utf-8'></head><body>{_html_body(flow)}</body></html>".encode()


def _epub(flow: _Flow) -> bytes:
    namespace = 'xmlns="http://www.w3.org/1999/xhtml"'
    container = (
        '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile '
        'full-path="b.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    package = (
        '<package version="3.0" xmlns="http://www.idpf.org/2007/opf" unique-identifier="i"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="i">1</dc:identifier><dc:title></dc:title>'
        '<dc:language>en</dc:language></metadata><manifest><item id="c" href="c.xhtml" '
        'media-type="application/xhtml+xml"/></manifest><spine><itemref idref="c"/></spine></package>'
    )
    chapter = (
        f"<?xml version='1.0'?><html {namespace}><head><title></title></head><body>{_html_body(flow)}</body></html>"
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("b.opf", package)
        archive.writestr("c.xhtml", chapter)
    return content.getvalue()


FORMATS: dict[str, Callable[[_Flow], bytes]] = {
    "docx": _docx, "pptx": _pptx, "odt": _odt, "epub": _epub, "html": _html,
}  # fmt: skip
