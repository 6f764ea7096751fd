"""An HTML page as a tree: the way into lxml, and the part of its interface that this package uses.

lxml ships no type information, so `Element` says what is taken from it.
"""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, Protocol

__all__ = ["Element", "flatten_shadow_trees", "parse_html", "serialized"]


class Element(Protocol):
    """An `lxml.html` element. `tag` is a string, but not for comments and processing instructions."""

    tag: Any
    text: str | None
    tail: str | None

    @property
    def attrib(self) -> MutableMapping[str, str]: ...
    def keys(self) -> list[str]: ...
    def get(self, key: str, default: str | None = None) -> str | None: ...
    def find(self, path: str) -> "Element | None": ...
    def iter(self, *tags: str) -> Iterator["Element"]: ...
    def itertext(self) -> Iterator[str]: ...
    def iterancestors(self, *tags: str) -> Iterator["Element"]: ...
    def iterdescendants(self, *tags: str) -> Iterator["Element"]: ...
    def getparent(self) -> "Element | None": ...
    def drop_tag(self) -> None: ...
    def drop_tree(self) -> None: ...
    def text_content(self) -> str: ...
    def __iter__(self) -> Iterator["Element"]: ...
    def __len__(self) -> int: ...
    def append(self, element: "Element") -> None: ...
    def remove(self, element: "Element") -> None: ...
    def makeelement(self, tag: str) -> "Element": ...


def parse_html(html: str) -> Element:
    """Parse a page as leniently as a browser would; an empty one gives an empty body."""
    etree: Any = import_module("lxml.etree")
    lxml_html: Any = import_module("lxml.html")
    # As bytes, with the encoding said: libxml2 would otherwise believe the page's own (by now wrong) declaration.
    parser = lxml_html.HTMLParser(encoding="utf-8", huge_tree=True)
    # lxml.html's own choice of class is a call into Python for each element met, for forms' methods that none needs.
    parser.set_element_class_lookup(
        etree.ElementDefaultClassLookup(
            element=lxml_html.HtmlElement,
            comment=lxml_html.HtmlComment,
            pi=lxml_html.HtmlProcessingInstruction,
            entity=lxml_html.HtmlEntity,
        )
    )
    try:
        return lxml_html.document_fromstring(html.replace("\x00", "").encode("utf-8", "replace"), parser=parser)
    except etree.ParserError:  # nothing in it, not even text
        return lxml_html.document_fromstring("<html><body></body></html>")


def flatten_shadow_trees(tree: Element) -> None:
    """Put each `<template shadowrootmode>` in the place of what stands in its host, with that in its slots.

    As browsers show it (HTML standard, "slot"): what no slot takes is not shown, and goes.
    """
    for template in list(tree.iter("template")):
        host = template.getparent()
        if host is not None and (template.get("shadowrootmode") or "").lower() in ("open", "closed"):
            _flatten(host, template)


def _flatten(host: Element, template: Element) -> None:
    unnamed = host.makeelement("span")
    unnamed.text = host.text
    named: dict[str, list[Element]] = {}
    for child in list(host):
        name = child.get("slot") if isinstance(child.tag, str) else None
        if child is not template and not name:
            unnamed.append(child)
            continue
        rest, child.tail = child.tail, None
        host.remove(child)
        if name:
            named.setdefault(name, []).append(child)
        _add_text(unnamed, rest)
    host.text = template.text
    for child in list(template):
        host.append(child)
    if len(unnamed) or (unnamed.text or "").strip():
        named[""] = [unnamed]
    for slot in list(host.iter("slot")):
        if any(around.get("shadowrootmode") for around in slot.iterancestors("template")):
            continue  # of a shadow tree inside this one, whose turn comes
        taken = named.pop(slot.get("name") or "", [])
        if taken:
            slot.text = None
            for fallback in list(slot):
                slot.remove(fallback)
            for element in taken:
                slot.append(element)
        slot.drop_tag()


def _add_text(element: Element, text: str | None) -> None:
    last = next(reversed(list(element)), None)
    if last is None:
        element.text = (element.text or "") + (text or "")
    else:
        last.tail = (last.tail or "") + (text or "")


def serialized(element: Element) -> str:
    """Return the element as HTML."""
    lxml_html: Any = import_module("lxml.html")
    return lxml_html.tostring(element, encoding="unicode")
