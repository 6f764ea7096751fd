"""What a page says of itself: title, author, date, site and language.

Owns where that is looked for, in which order, and the search for the author's name in the page. How a head, JSON-LD,
a title and a date are read is trafilatura's and htmldate's. Their one function for all of it also looks for
categories, tags and a license, and for an author in a pruned copy of the page: most of its time, for nothing asked
for or found (docs/log.md, 2026-11-26).
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

_MARKED = "descendant-or-self::*[@class or @id or @rel or @itemprop or @data-testid or @data-component or self::author]"
_MAY_NAME_AUTHOR = re.compile(r"uthor|yline|name|writer|-by|byl|BBL|zuozhe|bianji|xiaobian")
"""Among the attributes of every element that one of the tests below could take."""
_SURE_TAGS = frozenset({"a", "address", "div", "link", "p", "span", "strong"})
_LIKELY_TAGS = frozenset({"a", "div", "h3", "h4", "p", "span"})
_SURE_CLASS = re.compile("author-?name|[aA]uthorName")
_LIKELY = re.compile("author|channel-name|zuozhe|bianji|xiaobian|submitted-by|posted-by|journalist-name")
_LIKELY_ID = re.compile("author|zuozhe|bianji|xiaobian")
_POSSIBLE = re.compile("[Aa]uthor|screenname|writer|[Bb]yline")
_OTHERS_TAGS = frozenset({"a", "div", "section", "span"})
_OTHERS_ID = re.compile("^comments|comment-?list|ProductReviews")
_OTHERS_CLASS = re.compile(
    "^[Cc]omments|commentlist|comments-list|sidebar|is-hidden|quote|embedly-instagram|article-(?:share|support)|print"
    "|category|meta-date|meta-reviewer"
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
    candidates = [
        element
        for element in marked
        if element.tag == "author" or _MAY_NAME_AUTHOR.search(" ".join(element.attrib.values()))
    ]
    for is_marked in (_is_surely, _is_likely, _is_possibly):
        for element in candidates:
            if is_marked(element) and not _is_of_another(element):
                name = " ".join(" ".join(_texts(element)).split())
                if len(name) in _AUTHOR_CHARS:
                    return normalize_authors(None, name)
    return None


def _is_surely(element: Element) -> bool:
    return element.tag == "author" or (
        element.tag in _SURE_TAGS
        and (
            element.get("rel") == "author"
            or "author" in (element.get("id"), element.get("class"))
            or element.get("itemprop") == "author name"
            or element.get("data-testid") in ("AuthorCard", "AuthorURL")
            or bool(_SURE_CLASS.search(element.get("class") or ""))
        )
    )


def _is_likely(element: Element) -> bool:
    kind = element.get("class") or ""
    return element.tag in _LIKELY_TAGS and (
        kind in ("byline", "username", "byl", "BBL")
        or "author" in (element.get("itemprop") or "")
        or bool(_LIKELY_ID.search(element.get("id") or "") or _LIKELY.search(kind))
    )


def _is_possibly(element: Element) -> bool:
    return (
        "Byline" in (element.get("data-component") or "")
        or "author" in (element.get("itemprop") or "")
        or "uthor" in (element.get("id") or "")
        or bool(_POSSIBLE.search(element.get("class") or ""))
    )


def _is_of_another(element: Element) -> bool:
    """Whether the element is in a comment, a sidebar or a picture: not the page's author."""
    return _is_other(element) or any(_is_other(around) for around in element.iterancestors())


def _is_other(element: Element) -> bool:
    if element.tag in ("time", "figure"):
        return True
    kind, identity = element.get("class") or "", element.get("id") or ""
    return element.tag in _OTHERS_TAGS and bool(
        kind in ("comments", "title", "date")
        or identity == "comments"
        or _OTHERS_ID.search(identity)
        or _OTHERS_CLASS.search(kind)
        or "Figure" in (element.get("data-component") or "")
    )


def _texts(element: Element) -> Iterator[str]:
    """The element's text, without what in it is no name, such as the date beside one."""
    yield element.text or ""
    for child in element:
        if isinstance(child.tag, str) and not _is_other(child):
            yield from _texts(child)
        yield child.tail or ""
