"""What a page says: its main content as Markdown, its title, author, date and language.

Owns the judgement of what matters on a page: trafilatura's, with a fallback when that keeps too little of what
a reader would see. Runs in a worker process: trafilatura is not thread-safe (guides/web.md finding 2).

The fallback rule (main text under 15 % of the visible words) was chosen on WCXB's development half and lifts F1
on its test half from .863 to .867 (guides/web.md §3).
"""

import re
import sys
from typing import Any, Literal
from urllib.parse import urljoin

from memento_crawl.html_tree import Element, flatten_shadow_trees, parse_html, serialized
from memento_crawl.main_text import main_text
from memento_crawl.markdown import absolute_link, to_markdown, to_text
from memento_crawl.metadata import read_metadata

__all__ = ["EXTRACT", "Content", "Format", "extract_page"]

EXTRACT = "memento_crawl.extraction:extract_page"

Format = Literal["markdown", "text", "html"]
Content = Literal["main", "full"]

_TOO_LITTLE = 0.15
_ARTICLE_CHARS = 100
_LISTING = 0.5
"""A page with a larger share of its words in links is a list of links."""
_SHORT_CHARS = 250
"""Main text shorter than this on a page that runs scripts: the content is probably made by them."""
_MAX_LINKS = 3000
_LINK_TEXT_CHARS = 200
_MAX_DEPTH = 20_000
_AROUND_THE_CONTENT = ("nav", "header", "footer", "aside", "button", "select", "menu", "dialog")
_FORUM = (
    *("phpbb", "vbulletin", "xenforo", "discourse", "invision community", "mybb"),
    *("discussionforumposting", "qapage"),
)
_FORUM_URL = re.compile(r"/(?:forums?|threads?|topics?|viewtopic|showthread|discussions?|questions)\b", re.IGNORECASE)
_SCRIPT_MADE = re.compile(
    r"""id=["']?(?:root|app|__next|__nuxt|___gatsby|svelte)\b|\bng-app\b|data-reactroot|enable javascript""",
    re.IGNORECASE,
)
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def extract_page(html: str, url: str, content: Content, format: Format) -> dict[str, Any]:
    """Return `text` and what is known about the page.

    Keys: `text`, `title`, `author`, `published` (YYYY-MM-DD), `site`, `language`, `hidden_chars`, `method`
    (`main`, `full` or `fallback`), `needs_script`, `forwards_to`, `links` (address and text). What is not known is
    `None`.
    """
    from memento_crawl.hidden_text import remove_hidden

    sys.setrecursionlimit(_MAX_DEPTH)  # pages nest deeper than Python's 1000 calls
    tree = parse_html(html)
    flatten_shadow_trees(tree)
    base = next((href for node in tree.iter("base") if (href := node.get("href"))), "")
    known = read_metadata(tree, url)
    is_article = _is_article(tree)
    has_scripts = next(tree.iter("script"), None) is not None
    forwards_to = _meta_refresh(tree, url)
    hidden_chars = remove_hidden(tree)
    _make_links_absolute(tree, urljoin(url, base))
    links = _links(tree)
    text, method = _text(
        tree, urljoin(url, base), content, format, is_forum=_is_forum(html, url), is_article=is_article
    )
    needs_script = has_scripts and format != "html" and len(text) < _SHORT_CHARS and bool(_SCRIPT_MADE.search(html))
    return {
        **known,
        "text": text,
        "hidden_chars": hidden_chars,
        "method": method,
        "needs_script": needs_script,
        "forwards_to": forwards_to,
        "links": links,
    }


def _text(
    tree: Element, base_url: str, content: Content, format: Format, *, is_forum: bool, is_article: bool
) -> tuple[str, str]:
    """Return the text, and how it was found."""
    body = tree.find("body")
    if body is None:
        body = tree
    if format == "html":
        return serialized(body), "full"
    if content == "full":
        return _whole(body, base_url, format), "full"
    main = main_text(
        tree, is_markdown=format == "markdown", include_comments=is_forum, is_precise=is_article and not is_forum
    )
    if is_article:  # it can be short on a page full of other things
        if len(main) >= _ARTICLE_CHARS:
            return main, "main"
        _drop_frame(body)
    else:
        has_enough = _has_enough_words(main, body)
        _drop_frame(body)
        if has_enough and not _lost_its_links(body, main, format):
            return main, "main"
    fallback = _whole(body, base_url, format)
    return (fallback, "fallback") if fallback.strip() else (main, "main")


def _has_enough_words(main: str, body: Element) -> bool:
    words = _words(main)
    # Text cut at each tag has no fewer words than the text a reader sees, and costs a tenth of it.
    return words >= _TOO_LITTLE * _words(" ".join(body.itertext())) or words >= _TOO_LITTLE * _words(to_text(body))


def _drop_frame(body: Element) -> None:
    for element in list(body.iter(*_AROUND_THE_CONTENT)):
        is_of_an_article = (
            element.tag in ("header", "footer") and next(element.iterancestors("article"), None) is not None
        )
        if element.getparent() is not None and not is_of_an_article:
            element.drop_tree()


def _lost_its_links(body: Element, main: str, format: Format) -> bool:
    """A list of links is read for its links; trafilatura's last resort keeps the words alone."""
    links = [link for link in body.iter("a") if link.get("href")]
    if format != "markdown" or 2 * main.count("](") >= len(links):
        return False
    return sum(_words(link.text_content()) for link in links) > _LISTING * _words(to_text(body))


def _whole(body: Element, base_url: str, format: Format) -> str:
    return to_markdown(body, base_url) if format == "markdown" else to_text(body)


def _words(text: str) -> int:
    """Count words, those in link targets left out: `](https://…)` is no text. Where none are spaced, each character."""
    return len(_WORD.findall(re.sub(r"\]\([^)]*\)", "]", text)))


def _is_forum(html: str, url: str) -> bool:
    """What trafilatura would drop as comments is the content there (WCXB: forum F1 .739 without, .791 with)."""
    start = html[:20_000].lower()
    return bool(_FORUM_URL.search(url)) or any(mark in start for mark in _FORUM)


def _is_article(tree: Element) -> bool:
    """What calls itself an article is cut more closely: the article benchmark's F1 is .964 so and .960 otherwise."""
    for node in tree.iter("meta"):
        if (node.get("property") or "").lower() == "og:type":
            return (node.get("content") or "").strip().lower() == "article"
    return False


def _make_links_absolute(tree: Element, base_url: str) -> None:
    """Also unwrap links that lead nowhere (`javascript:`, `#here`), and drop those that are only a mark (`§`)."""
    for link in list(tree.iter("a")):
        target = absolute_link(link.get("href"), base_url)
        if target is not None:
            link.attrib["href"] = target
        elif link.getparent() is None:
            continue
        elif any(character.isalnum() for character in link.text_content()):
            link.drop_tag()
        else:
            link.drop_tree()


def _links(tree: Element) -> list[tuple[str, str]]:
    """Each address once, with the first words it stands under."""
    found: dict[str, str] = {}
    for link in tree.iter("a"):
        address = link.get("href")
        if address and len(found) < _MAX_LINKS:
            found[address] = found.get(address) or " ".join(link.text_content().split())[:_LINK_TEXT_CHARS]
    return list(found.items())


def _meta_refresh(tree: Element, url: str) -> str | None:
    for node in tree.iter("meta"):
        if (node.get("http-equiv") or "").lower() == "refresh":
            target = re.search(r"url\s*=\s*[\"']?([^\"'\s]+)", node.get("content") or "", re.IGNORECASE)
            link = absolute_link(target[1], url) if target else None
            if link and link.split("#")[0] != url.split("#")[0]:
                return link
    return None
