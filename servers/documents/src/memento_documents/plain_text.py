"""Bytes to text: the encoding of a text file, and HTML as readable text.

Owns decoding for every plain-text kind. Main-content extraction of web pages is the crawl server's job:
here an HTML file is shown whole, without scripts, styles and tags.
"""

import codecs
import re
from html.parser import HTMLParser

from memento_documents.kinds import Unreadable

__all__ = ["decode", "html_to_text"]

_BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SNIFFED_BYTES = 64_000
"""How much of a file that is not UTF-8 is looked at to tell its encoding."""


def decode(content: bytes) -> tuple[str, str]:
    """Return the text and the encoding it was in; line ends become `\\n`.

    Raises:
        Unreadable: no encoding fits.
    """
    text, encoding = _decode(content)
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _decode(content: bytes) -> tuple[str, str]:
    for bom, encoding in _BOMS:
        if content.startswith(bom):
            return content.decode(encoding, errors="replace"), encoding.removesuffix("-sig")
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    best = from_bytes(content[:_SNIFFED_BYTES]).best()
    if best is None:
        raise Unreadable("The text is in no known encoding; save it as UTF-8.")
    return content.decode(best.encoding, errors="replace"), best.encoding


_SKIPPED = frozenset({"script", "style", "template", "noscript", "svg", "head"})
# fmt: off
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol",
    "p", "pre", "section", "table", "tbody", "thead", "tr", "ul",
})
# fmt: on
_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")


def html_to_text(html: str) -> str:
    """Return what a reader sees: blocks on lines of their own, headings marked `#`, table cells parted by ` | `."""
    parser = _TextOfHtml()
    parser.feed(html)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.pieces).split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip() + "\n"


class _TextOfHtml(HTMLParser):
    """A flat walk, not a tree: a hundred thousand nested elements cost no recursion."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._skipping = 0
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title":
            self._in_title = True  # the one part of <head> that a reader sees
            self.pieces.append("\n# ")
        elif tag in _SKIPPED:
            self._skipping += 1
        elif tag in _BLOCKS:
            self.pieces.append("\n")
            if re.fullmatch("h[1-6]", tag):
                self.pieces.append("#" * int(tag[1]) + " ")
            elif tag == "li":
                self.pieces.append("- ")
        elif tag in ("td", "th"):
            self.pieces.append(" | ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
            self.pieces.append("\n")
        elif tag in _SKIPPED:
            self._skipping = max(0, self._skipping - 1)
        elif tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if self._in_title or not self._skipping:
            self.pieces.append(" ".join(data.split("\n")))
