"""An HTML page as a tree: the way into lxml, and the part of its interface that this package uses.

lxml ships no type information, so `Element` says what is taken from it.
"""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, Protocol

__all__ = ["Element", "parse_html", "serialized"]


class Element(Protocol):
    """An `lxml.html` element. `tag` is a string, but not for comments and processing instructions."""

    tag: Any
    text: str | None
    tail: str | None

    @property
    def attrib(self) -> MutableMapping[str, str]: ...
    def get(self, key: str, default: str | None = None) -> str | None: ...
    def find(self, path: str) -> "Element | None": ...
    def iter(self, *tags: str) -> Iterator["Element"]: ...
    def iterancestors(self, *tags: str) -> Iterator["Element"]: ...
    def iterdescendants(self, *tags: str) -> Iterator["Element"]: ...
    def getparent(self) -> "Element | None": ...
    def drop_tag(self) -> None: ...
    def drop_tree(self) -> None: ...
    def text_content(self) -> str: ...
    def __iter__(self) -> Iterator["Element"]: ...


def parse_html(html: str) -> Element:
    """Parse a page as leniently as a browser would; an empty one gives an empty body."""
    etree: Any = import_module("lxml.etree")
    lxml_html: Any = import_module("lxml.html")
    # As bytes, with the encoding said: libxml2 would otherwise believe the page's own (by now wrong) declaration.
    parser = lxml_html.HTMLParser(encoding="utf-8", huge_tree=True)
    try:
        return lxml_html.document_fromstring(html.replace("\x00", "").encode("utf-8", "replace"), parser=parser)
    except etree.ParserError:  # nothing in it, not even text
        return lxml_html.document_fromstring("<html><body></body></html>")


def serialized(element: Element) -> str:
    """Return the element as HTML."""
    lxml_html: Any = import_module("lxml.html")
    return lxml_html.tostring(element, encoding="unicode")
