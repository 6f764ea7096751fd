"""What a page says of itself: title, author, date, site and language.

Owns where that is looked for, in which order, and the search for the author's name in the page. How a head, JSON-LD,
a title and a date are read is trafilatura's and htmldate's. Their one function for all of it also looks for
categories, tags and a license, and for an author in a pruned copy of the page: most of its time (docs/log.md,
2026-11-26). The author is looked for here by the words of classes and ids, after what such pages have in common.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from html import unescape
from importlib import import_module
from typing import Any, cast

from memento_crawl.html_tree import Element

__all__ = ["read_metadata"]

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")
_MAX_CHARS = 1000
_SITE_OF_URL = re.compile(r"https?://(?:www\.)?([^/:?#]+)", re.IGNORECASE)

_MARKED = "descendant-or-self::*[@class or @id or @rel or @itemprop or @data-component or self::author]"
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
"""The words of a class or id: `post-author`, `postAuthor` and `post_author` hold the same two."""
_MAY_NAME_AUTHOR = re.compile("author|byl|writer", re.IGNORECASE)
_NAMES_AUTHOR = frozenset({"author", "authors", "byline", "bylines", "byl", "writer"})
_NAMES_SURELY = frozenset({"name", "fn", "vcard", "link", "url"})
"""Beside one of the words above: the name itself, not a box about whoever wrote."""
_OTHERS_TAGS = frozenset({"time", "figure"})
_OTHERS = frozenset(
    {"comment", "comments", "commentlist", "sidebar", "related", "share", "quote", "blockquote", "date", "category"}
)
_AUTHOR_CHARS = range(3, 120)


def read_metadata(tree: Element, url: str) -> dict[str, str | None]:
    """Return `title`, `author`, `published` (YYYY-MM-DD), `site` and `language` of the page at `url`.

    What is not known is `None`. The page's head is believed first, then its JSON-LD, then its text.
    """
    from htmldate import find_date
    from trafilatura import metadata as reading
    from trafilatura.settings import set_date_params

    page = cast(Any, tree)
    found = reading.examine_meta(page)
    if found.author and " " not in found.author:  # an account, not a name
        found.author = None
    with suppress(Exception):  # at whatever a page may write there; the head is read, and the text is left
        found = reading.extract_meta_json(page, found)
    address = found.url or reading.extract_url(page, url) or url
    # Not extensive: that guesses a date from any year in the text, and takes long. Unknown is a value.
    published = find_date(page, **set_date_params(False), url=address)
    language = (tree.get("lang") or tree.get("{http://www.w3.org/XML/1998/namespace}lang") or "").strip()
    return {
        "title": _clean(found.title or reading.extract_title(page)) or _clean(_title_element(tree)),
        "author": _clean(found.author or _author(tree)),
        "published": published,
        "site": _site(found.sitename or reading.extract_sitename(page), address),
        "language": language if _LANGUAGE.fullmatch(language) else None,
    }


def _clean(text: str | None) -> str | None:
    return " ".join(unescape(text or "").split())[:_MAX_CHARS] or None


def _title_element(tree: Element) -> str | None:
    return next((title.text_content() for title in tree.iter("title")), None)


def _site(name: str | None, address: str) -> str | None:
    name = _clean((name or "").lstrip("@"))
    if name is None:
        host = _SITE_OF_URL.match(address)
        return host[1] if host else None
    return name if "." in name or name[0].isupper() else name.title()


@cache
def _search() -> Any:
    return cast(Any, import_module("lxml.etree")).XPath(_MARKED)


def _author(tree: Element) -> str | None:
    """Find the name in the page: the first element marked as the author's, the surest kind of mark first."""
    from trafilatura.json_metadata import normalize_authors

    marked: list[Element] = _search()(tree)
    by_doubt: dict[int, list[Element]] = {}
    for element in marked:
        doubt = _doubt(element)
        if doubt is not None:
            by_doubt.setdefault(doubt, []).append(element)
    for doubt in sorted(by_doubt):
        for element in by_doubt[doubt]:
            if not _is_of_another(element, _OTHERS if doubt else _OTHERS - {"sidebar"}):
                name = " ".join(" ".join(_texts(element)).split())
                if len(name) in _AUTHOR_CHARS:
                    return normalize_authors(None, name)
    return None


def _doubt(element: Element) -> int | None:
    """How doubtful the mark of an author is, from 0 on; `None` where there is none."""
    if element.tag == "author" or element.get("rel") == "author":
        return 0
    if "author" in (element.get("itemprop") or "").split():
        return 1
    if not _MAY_NAME_AUTHOR.search(_said(element)):
        return None
    names = _words(element)
    if not names & _NAMES_AUTHOR:
        return None
    if names <= _NAMES_AUTHOR or names & _NAMES_SURELY:
        return 1
    return 2


def _words(element: Element) -> frozenset[str]:
    return frozenset(word.lower() for word in _PARTS.findall(_said(element)))


def _said(element: Element) -> str:
    return f"{element.get('class') or ''} {element.get('id') or ''} {element.get('data-component') or ''}"


def _is_of_another(element: Element, others: frozenset[str]) -> bool:
    """Whether the element is in a comment, a sidebar or a picture: not the page's author."""
    return any(_is_other(around, others) for around in (element, *element.iterancestors()))


def _is_other(element: Element, others: frozenset[str] = _OTHERS) -> bool:
    return element.tag in _OTHERS_TAGS or (element.tag not in ("html", "body") and bool(_words(element) & others))


def _texts(element: Element) -> Iterator[str]:
    """The element's text, without what in it is no name, such as the date beside one."""
    yield element.text or ""
    for child in element:
        if isinstance(child.tag, str) and not _is_other(child):
            yield from _texts(child)
        yield child.tail or ""
