"""PDF through pymupdf: opening, one pass over the pages, which pages need OCR, what the file says about itself.

pymupdf 2 loads ONNX layout models at import (0.85 s CPU, 137 MB) and prints adverts to stdout
(guides: documents §1). Both are held back here; only `pdf_layout`, in a process of its own, imports them.
How a page becomes Markdown is in `pdf_page`, `pdf_tables`, `pdf_headings` and `pdf_markdown`.
"""

import contextlib
import os
import resource
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from memento_documents import progress
from memento_documents.kinds import Unreadable

if TYPE_CHECKING:
    from memento_documents.pdf_page import PageContent
    from memento_documents.reading import Document

__all__ = ["PageReader", "find_tessdata", "import_pymupdf", "open_pdf", "read_pdf", "spans"]

_LAYOUT_MODULES = ("pymupdf.layout", "pymupdf4llm")
_TESSDATA_FOLDERS = (
    "/usr/share/tesseract-ocr/5/tessdata",
    "/usr/share/tesseract-ocr/4.00/tessdata",
    "/usr/share/tessdata",
    "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
)
_FEWEST_CHARS = 12
"""A page with an image and less text than this is taken for a scan."""
_MOST_GARBLED = 0.3
"""Share of characters without a Unicode value from which a page's text is worthless."""
_OCR_DPI = 150
"""As good as 300 on the guide's scanned page, and a quarter cheaper (documents §1)."""
_OCR_CPU_SHARE = 0.6
"""Of the child's CPU limit; the pages after that are named, not read."""
_MAX_LEFT_OUT = 4


def import_pymupdf() -> Any:
    """Import pymupdf without its layout models, and without a word on stdout."""
    os.environ.setdefault("PYMUPDF_SUGGEST_LAYOUT_ANALYZER", "0")
    for name in _LAYOUT_MODULES:
        if name not in sys.modules:
            sys.modules[name] = cast(Any, None)  # makes pymupdf's own optional import fail, as if not installed
    import pymupdf as module

    pymupdf: Any = module  # its hints are partial
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    return pymupdf


def find_tessdata(folder: Path | None = None) -> str | None:
    """The folder with Tesseract's language data, or None where there is none: then there is no OCR."""
    named = [str(folder)] if folder else [os.environ.get("TESSDATA_PREFIX", ""), *_TESSDATA_FOLDERS]
    return next((each for each in named if each and (Path(each) / "eng.traineddata").is_file()), None)


@contextlib.contextmanager
def open_pdf(pymupdf: Any, file: BinaryIO) -> Generator[Any]:
    """Open the document, and say in one line why it cannot be read.

    Raises:
        Unreadable: encrypted, without pages, or too damaged to open.
    """
    try:
        document = pymupdf.open(stream=file.read(), filetype="pdf")
    except (pymupdf.FileDataError, pymupdf.mupdf.FzErrorBase, RuntimeError, ValueError) as exc:
        raise Unreadable("The PDF is damaged and cannot be opened.") from exc
    with document:
        if document.needs_pass:
            raise Unreadable("The PDF is encrypted with a password; save a copy without one.")
        if document.page_count == 0:
            raise Unreadable("The PDF is damaged: no page can be found in it.")
        yield document


def read_pdf(
    file: BinaryIO, *, text_format: Literal["markdown", "text"] = "markdown", tessdata: str | None = None
) -> "Document":
    """Return one section per page, in reading order, with the outline's titles.

    `tessdata` is where Tesseract's language data lies; without it, pages that are pictures are named in the notes.

    Raises:
        Unreadable: encrypted, without pages, or too damaged to open.
    """
    from memento_documents.reading import Document, Section

    pymupdf = import_pymupdf()
    with open_pdf(pymupdf, file) as document:
        outline = _outline(document)
        titles: dict[int, str] = {}
        for _, title, page in outline:
            titles.setdefault(page, title)
        reader = PageReader(pymupdf, document, tessdata)
        texts = reader.markdown(outline) if text_format == "markdown" else reader.plain()
        sections = [Section(text, page=page, title=titles.get(page)) for page, text in enumerate(texts, start=1)]
        metadata = cast(dict[str, str | None], document.metadata or {})
        return Document("pdf", sections, title=metadata.get("title") or None, notes=reader.notes())


class PageReader:
    """One pass over the pages, and what was found wanting on the way."""

    def __init__(self, pymupdf: Any, document: Any, tessdata: str | None) -> None:
        self._pymupdf = pymupdf
        self._document = document
        self._tessdata = tessdata
        self._damaged: list[int] = []
        self._blank: list[int] = []
        self._without_text: list[int] = []
        self._with_ocr: list[int] = []
        self._out_of_time: list[int] = []
        self._left_out: list[str] = []

    def plain(self) -> list[str]:
        texts: list[str] = []
        for index in range(self._document.page_count):
            text = ""
            try:
                page = self._document.load_page(index)
                text = str(page.get_text("text"))
                if _needs_ocr(text):
                    text = self._without_layer(page, index + 1, text, has_rules=False)
            except self._page_errors():
                self._damaged.append(index + 1)
            texts.append(text)
            progress.report(index + 1, self._document.page_count)
        return texts

    def markdown(self, outline: list[tuple[int, str, int]]) -> list[str]:
        from memento_documents.pdf_markdown import write_markdown

        pages = [self.page(index) for index in range(self._document.page_count)]
        texts, self._left_out = write_markdown(pages, outline)
        return texts

    def page(self, index: int) -> "PageContent":
        from memento_documents.pdf_page import Block, Line, PageContent, read_page
        from memento_documents.pdf_tables import may_have_tables

        number = index + 1
        content = PageContent(number, 0, 0, [], [])
        try:
            page = self._document.load_page(index)
            text_page = page.get_textpage(flags=self._flags())
            content = read_page(text_page.extractDICT(), number)
            text = "".join(line.text for block in content.blocks for line in block.lines)
            if _needs_ocr(text):
                read = self._without_layer(page, number, text, has_rules=bool(content.rules))
                if read != text:
                    paragraphs = [part for part in read.split("\n\n") if part.strip()]
                    content.blocks = [
                        Block("paragraph", [Line(" ".join(part.split()), 0, 0, 1, 1, 10, False, False)], tagged=True)
                        for part in paragraphs
                    ]
            else:
                content.links = _links(page, text_page)
                if may_have_tables(content):
                    content.words = [
                        Line(word[4], word[0], word[1], word[2], word[3], 0, False, False)
                        for word in text_page.extractWORDS()
                    ]
        except self._page_errors():
            self._damaged.append(number)
        progress.report(number, self._document.page_count)
        return content

    def _flags(self) -> int:
        pymupdf = self._pymupdf
        flags = pymupdf.TEXT_PRESERVE_WHITESPACE | pymupdf.TEXT_MEDIABOX_CLIP | pymupdf.TEXT_CID_FOR_UNKNOWN_UNICODE
        return flags | pymupdf.TEXT_COLLECT_STRUCTURE | pymupdf.TEXT_COLLECT_VECTORS

    def _page_errors(self) -> tuple[type[Exception], ...]:
        return (self._pymupdf.mupdf.FzErrorBase, RuntimeError, ValueError, IndexError, KeyError)

    def _without_layer(self, page: Any, number: int, text: str, *, has_rules: bool) -> str:
        """Decide what is to be done about a page with next to no text, and note what was."""
        has_images = bool(page.get_images())
        if text.strip() and not has_images:
            return text  # a short page
        if not has_images and not has_rules and not page.get_drawings():
            self._blank.append(number)
            return text
        if not self._tessdata:
            self._without_text.append(number)
            return text
        if not _has_time_for_ocr():
            self._out_of_time.append(number)
            return text
        text_page = page.get_textpage_ocr(dpi=_dpi(page), full=True, language="eng", tessdata=self._tessdata)
        read = "\n\n".join(
            str(block[4]).strip() for block in page.get_text("blocks", textpage=text_page) if block[6] == 0
        )
        if len(read.strip()) <= len(text.strip()):
            self._without_text.append(number)
            return text
        self._with_ocr.append(number)
        return read

    def notes(self) -> list[str]:
        """One line for each thing that the text does not show."""
        notes: list[str] = []
        if self._damaged:
            notes.append(f"Damaged, could not be read: page {spans(self._damaged)}.")
        if self._without_text:
            why = "OCR found none" if self._tessdata else "there is no OCR here (no Tesseract language data installed)"
            notes.append(f"No text, or next to none, on page {spans(self._without_text)}: scanned or drawn; {why}.")
        if self._out_of_time:
            notes.append(f"Scanned, not read for want of time: page {spans(self._out_of_time)}; look with view_page.")
        if self._with_ocr:
            notes.append(f"Read by OCR, may hold mistakes: page {spans(self._with_ocr)}.")
        if self._blank:
            notes.append(f"Blank: page {spans(self._blank)}.")
        if self._left_out:
            shown = ", ".join(f"{text[:80]!r}" for text in self._left_out[:_MAX_LEFT_OUT])
            more = f" and {len(self._left_out) - _MAX_LEFT_OUT} more" if len(self._left_out) > _MAX_LEFT_OUT else ""
            notes.append(f"Left out where pages repeat it: {shown}{more}.")
        return notes


def _links(page: Any, text_page: Any) -> list[tuple[tuple[float, float, float, float], str]]:
    """Where links to the web are, as `words under it, newline, address`."""
    links = [link for link in page.get_links() if link.get("uri", "").startswith(("http://", "https://", "mailto:"))]
    if not links:
        return []
    words = text_page.extractWORDS()
    found: list[tuple[tuple[float, float, float, float], str]] = []
    for link in links:
        x0, y0, x1, y1 = link["from"]
        under = [
            word[4] for word in words if x0 <= (word[0] + word[2]) / 2 <= x1 and y0 <= (word[1] + word[3]) / 2 <= y1
        ]
        found.append(((x0, y0, x1, y1), f"{' '.join(under)}\n{link['uri']}"))
    return found


def _needs_ocr(text: str) -> bool:
    bare = text.strip()
    if len(bare) < _FEWEST_CHARS:
        return True
    garbled = sum(char == "\ufffd" or "\ue000" <= char <= "\uf8ff" for char in bare)
    return garbled > _MOST_GARBLED * len(bare)


def _has_time_for_ocr() -> bool:
    limit = resource.getrlimit(resource.RLIMIT_CPU)[0]
    return limit == resource.RLIM_INFINITY or time.process_time() < _OCR_CPU_SHARE * limit


def _dpi(page: Any) -> int:
    """Less for huge pages: a page of 200 inches at 150 dpi would take gigabytes."""
    inches = max(page.rect.width * page.rect.height / 72**2, 0.01)
    return max(18, min(_OCR_DPI, int((8e6 / inches) ** 0.5)))


def _outline(document: Any) -> list[tuple[int, str, int]]:
    """The outline as (level, title, page); a broken outline is no outline."""
    try:
        return [(int(level), " ".join(str(title).split()), int(page)) for level, title, page in document.get_toc()]
    except (RuntimeError, ValueError, TypeError, IndexError):
        return []


def spans(numbers: list[int]) -> str:
    """Page numbers, short: `1-3, 7`."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
