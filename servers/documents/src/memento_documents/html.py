"""HTML as Markdown: headings, lists, tables, links, preformatted text; without scripts, styles and what is hidden.

A flat walk over the tags, not a tree, so that a hundred thousand nested elements cost no recursion (libraries that
were tried return nothing for such a page, without a word). Main-content extraction is the crawl server's job: here a
file is shown whole. Used for HTML files, EPUB chapters and HTML mail.
"""

import re
from html.parser import HTMLParser

from memento_documents.cells import markdown_table

__all__ = ["html_to_text"]

_SKIPPED = frozenset({"script", "style", "template", "noscript", "svg", "head"})
# fmt: off
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "dd", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "header", "hr", "html", "main", "nav", "p", "section", "summary", "details", "caption",
})
# fmt: on
_RAISED = frozenset({"sup", "sub"})
"""Kept as they are, as Markdown has nothing for them: 10² is not 102."""
_HEADING = re.compile(r"h[1-6]")
_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_MAX_LIST_DEPTH = 8


def html_to_text(html: str, *, with_title: bool = True) -> str:
    """Return what a reader sees, as Markdown that ends with a line end.

    The page's title is the first heading of a text that has none of that rank, unless `with_title` is False.
    """
    parser = _TextOfHtml()
    parser.feed(html)
    parser.close()
    return parser.text(with_title=with_title) + "\n"


class _TextOfHtml(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._blocks: list[str] = []
        """Finished blocks, each with its line ends before it."""
        self._line: list[str] = []
        self._before = ""
        """What comes before the next text: a blank line, a bullet, a heading's mark."""
        self._lists: list[int | None] = []
        """Open lists: the next number, or None for bullets."""
        self._list_begins = False
        self._skipping = 0
        self._in_title = False
        self._title_at: int | None = None
        """Which block is the page's title; it goes when the text has a first heading of its own."""
        self._has_first_heading = False
        self._preformatted = 0
        self._link: tuple[str, int] | None = None
        self._tables = 0
        self._rows: list[list[str]] = []
        self._header: int | None = None
        self._in_cell = False

    def text(self, *, with_title: bool) -> str:
        self._end_block()
        self._end_table()
        if self._title_at is not None and (self._has_first_heading or not with_title):
            del self._blocks[self._title_at]
            self._title_at = None
        return _BLANK_LINES.sub("\n\n", "".join(self._blocks)).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title":
            if not self._skipping or not self._blocks:  # not that of a drawing
                self._in_title = True  # the one part of <head> that a reader sees
                self._start_block("# ")
        elif tag in _SKIPPED:
            self._skipping += 1
        elif tag == "br":
            self._line.append(" " if self._in_cell else "\n")
        elif tag in _RAISED:
            self._line.append(f"<{tag}>" if not self._skipping and not self._preformatted else "")
        elif tag == "img":
            self._image(dict(attrs))
        elif tag == "a":
            self._link = (dict(attrs).get("href") or "", len(self._line))
        elif tag in ("table", "tr", "td", "th"):
            self._start_table_part(tag)
        elif self._in_cell:
            self._line.append(" " if tag in _BLOCKS or tag in ("li", "ul", "ol", "pre") else "")
        else:
            self._start_text_part(tag)

    def _start_text_part(self, tag: str) -> None:
        if _HEADING.fullmatch(tag):
            self._start_block("#" * int(tag[1]) + " ")
        elif tag in ("ul", "ol", "menu"):
            self._end_block()
            self._list_begins = not self._lists
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            self._start_item()
        elif tag == "pre":
            self._start_block("```\n")
            self._preformatted += 1
        elif tag in _BLOCKS and not (self._before.strip() and not "".join(self._line).strip()):
            self._start_block("")  # `<li><p>` keeps its bullet

    def handle_endtag(self, tag: str) -> None:
        if tag == "title" and self._in_title:
            before = len(self._blocks)
            self._end_block()
            self._in_title, self._before = False, ""  # an empty one makes no heading of what follows
            if len(self._blocks) > before and self._title_at is None:
                self._title_at = before
        elif tag in _SKIPPED:
            self._skipping = max(0, self._skipping - 1)
        elif tag in _RAISED:
            self._end_raised(tag)
        elif tag == "a":
            self._end_link()
        elif tag in ("td", "th"):
            self._end_cell()
        elif tag == "table":
            self._end_cell()
            self._tables = max(0, self._tables - 1)
            if not self._tables:
                self._end_table()
        elif not self._in_cell:
            self._end_text_part(tag)

    def _end_text_part(self, tag: str) -> None:
        if _HEADING.fullmatch(tag):
            before = len(self._blocks)
            self._end_block()
            self._before = ""
            self._has_first_heading |= tag == "h1" and len(self._blocks) > before
        elif tag == "pre" and self._preformatted:
            self._line.append("\n```")
            self._end_block()
            self._preformatted -= 1
        elif tag in ("ul", "ol", "menu"):
            self._end_block()
            if self._lists:
                self._lists.pop()
        elif tag in _BLOCKS or tag == "li":
            self._end_block()

    def handle_data(self, data: str) -> None:
        if self._in_title or not self._skipping:
            self._line.append(data if self._preformatted else re.sub(r"\s+", " ", data))

    def _start_item(self) -> None:
        self._end_block()
        depth = min(max(len(self._lists) - 1, 0), _MAX_LIST_DEPTH)
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        self._before = (
            ("\n\n" if self._list_begins else "\n") + "  " * depth + ("- " if number is None else f"{number}. ")
        )
        self._list_begins = False

    def _start_block(self, mark: str) -> None:
        self._end_block()
        self._before = "\n\n" + mark

    def _end_block(self) -> None:
        text = "".join(self._line)
        if self._preformatted:
            text = text.strip("\n")
        else:
            text = "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()
        if text:
            self._blocks.append((self._before or "\n\n") + text)
            self._before = ""
        self._line = []
        self._link = None

    def _end_raised(self, tag: str) -> None:
        if self._line and self._line[-1] == f"<{tag}>":
            self._line.pop()
        elif f"<{tag}>" in self._line:
            self._line.append(f"</{tag}>")

    def _end_link(self) -> None:
        if self._link is not None:
            address, start = self._link
            shown = "".join(self._line[start:])
            if address.startswith(("http://", "https://", "mailto:")) and shown.strip() and not self._skipping:
                self._line[start:] = [f"[{shown.strip()}]({address.strip()})"]
        self._link = None

    def _image(self, attributes: dict[str, str | None]) -> None:
        alt = " ".join((attributes.get("alt") or "").split())
        source = attributes.get("src") or ""
        if alt and not self._skipping:
            self._line.append(f"![{alt}]({'' if source.startswith('data:') else source})")

    def _start_table_part(self, tag: str) -> None:
        """Cells of a table inside a cell become that cell's text."""
        if tag == "table":
            if not self._tables:
                self._end_block()
                self._rows, self._header = [], None
            self._tables += 1
        elif self._tables > 1:
            self._line.append(" ")
        elif self._tables:
            self._end_cell()
            if tag == "tr" or not self._rows:
                self._rows.append([])
            if tag != "tr":
                self._in_cell = True
                self._line = []
                if tag == "th" and self._header is None and len(self._rows) == 1:
                    self._header = 0

    def _end_cell(self) -> None:
        if self._in_cell and self._tables == 1:
            self._rows[-1].append(" ".join("".join(self._line).split()))
            self._line = []
            self._in_cell = False

    def _end_table(self) -> None:
        rows = [row for row in self._rows if row]
        self._rows = []
        if not rows:
            return
        if max(map(len, rows)) == 1:  # a frame around text, not a table
            self._blocks += [f"\n\n{row[0]}" for row in rows if row[0]]
        else:
            self._blocks.append("\n\n" + markdown_table(rows, header=self._header).rstrip("\n"))
        self._before = "\n\n"
