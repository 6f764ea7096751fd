"""Single PDF pages: their tables by the quick recogniser or the file's tags, and their picture."""

import base64
import math
from typing import Any, BinaryIO

from memento_documents import progress
from memento_documents.kinds import Unreadable
from memento_documents.page_ranges import check_region, parse_pages
from memento_documents.pdf import PageReader, import_pymupdf, open_pdf
from memento_documents.pdf_order import put_in_order
from memento_documents.pdf_page import Rectangle
from memento_documents.pdf_tables import find_tables, may_have_tables

__all__ = ["find_page_tables", "page_picture"]

_MAX_PNG_BYTES = 600_000
"""Larger pictures, photographs mostly, are sent as JPEG."""
_MAX_ZOOM = 6.0


def find_page_tables(file: BinaryIO, pages: str | None) -> dict[str, Any]:
    """Return {pages, tables, uncertain}: how many pages there are, the tables found, and the pages that have no tags
    and may have tables that another recogniser sees better.

    Raises:
        Unreadable: the PDF cannot be opened, or there are no such pages.
    """
    tables: list[dict[str, Any]] = []
    uncertain: list[int] = []
    pymupdf = import_pymupdf()
    with open_pdf(pymupdf, file) as document:
        count = int(document.page_count)
        wanted = parse_pages(pages, count) if pages else list(range(1, count + 1))
        reader = PageReader(pymupdf, document, tessdata=None)
        for done, number in enumerate(wanted, start=1):
            page = reader.page(number - 1)
            tagged = [block for block in page.blocks if block.kind == "table"]
            for block in tagged:
                box = [
                    min(line.x0 for line in block.lines), min(line.y0 for line in block.lines),
                    max(line.x1 for line in block.lines), max(line.y1 for line in block.lines),
                ]  # fmt: skip
                tables.append(_table(number, (box[0], box[1], box[2], box[3]), block.rows, "tags"))
            if not tagged and may_have_tables(page):
                uncertain.append(number)
                put_in_order(page)
                tables += [_table(number, table.box, table.rows, "lines") for table in find_tables(page)]
            progress.report(done, len(wanted))
    return {"pages": count, "tables": tables, "uncertain": uncertain}


def _table(page: int, box: Rectangle, rows: list[list[str]], engine: str) -> dict[str, Any]:
    return {"page": page, "box": [round(each, 1) for each in box], "rows": rows, "engine": engine}


def page_picture(file: BinaryIO, page: int, region: list[float] | None, max_pixels: int) -> dict[str, Any]:
    """Render a page, or the `region` of it given as x0, y0, x1, y1 in shares of its width and height.

    The scale follows from `max_pixels` alone, whatever size the page says it has. Returns {data, mime_type, width,
    height, pages}: base64, pixels, and how many pages the document has.

    Raises:
        Unreadable: the PDF cannot be opened, has no such page, or the region is empty.
    """
    pymupdf = import_pymupdf()
    with open_pdf(pymupdf, file) as document:
        count = int(document.page_count)
        if not 1 <= page <= count:
            raise Unreadable(f"There is no page {page} here: the document has pages 1-{count}.")
        loaded = document.load_page(page - 1)
        rect = loaded.rect
        clip = rect
        if region is not None:
            check_region(region)
            x0, y0, x1, y1 = region
            clip = pymupdf.Rect(
                rect.x0 + x0 * rect.width,
                rect.y0 + y0 * rect.height,
                rect.x0 + x1 * rect.width,
                rect.y0 + y1 * rect.height,
            )
        area = clip.width * clip.height
        if not math.isfinite(area) or area < 1:
            raise Unreadable(f"Page {page} has no size that could be drawn.")
        # A strip a thousand times as long as high would still be one of many megapixels when rounded up.
        zoom = min(math.sqrt(max_pixels / area), _MAX_ZOOM, 8_000 / max(clip.width, clip.height))
        picture = loaded.get_pixmap(matrix=pymupdf.Matrix(zoom, zoom), clip=clip, alpha=False)
        data, mime_type = picture.tobytes("png"), "image/png"
        if len(data) > _MAX_PNG_BYTES:
            data, mime_type = picture.tobytes("jpeg", jpg_quality=80), "image/jpeg"
        return {
            "data": base64.b64encode(data).decode(),
            "mime_type": mime_type,
            "width": picture.width,
            "height": picture.height,
            "pages": count,
        }
