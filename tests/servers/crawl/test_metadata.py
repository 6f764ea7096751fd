"""memento_crawl.metadata: what a page says of itself, beside the library's own function for it."""

from typing import Any, cast

import pytest

from memento_crawl.html_tree import parse_html, serialized
from memento_crawl.metadata import read_metadata

URL = "https://www.sea.test/tides"
LINKED = """{"@context": "https://schema.org", "@type": "NewsArticle", "headline": "Tides of Fundy",
 "author": {"@type": "Person", "name": "Ann Porter"}, "datePublished": "2024-03-05T10:00:00Z",
 "publisher": {"@type": "Organization", "name": "The Sea Review"}}"""
PAGES: dict[str, str] = {
    "nothing": "<body><p>words</p></body>",
    "a head": '<head><title>Tides - sea.test</title><meta name="author" content="Ann Porter">'
    '<meta property="og:site_name" content="the sea review"><meta name="date" content="2024-03-05"></head>',
    "JSON-LD": f'<head><script type="application/ld+json">{LINKED}</script></head><body><p>words</p></body>',
    "broken JSON-LD": f'<head><title>T</title><script type="application/ld+json">{LINKED[:-1]}</script></head>',
    "JSON-LD of no shape": '<head><title>T</title><script type="application/ld+json">[1, "x", null]</script></head>',
    "an account for a name": '<head><meta name="author" content="annp"></head><p class="byline">By Ann Porter</p>',
    "rel=author": '<h1>Tides</h1><p class="x">Mon</p><a rel="author" href="/a">Ann Porter</a>',
    "a byline with a date in it": '<div class="byline">By Ann Porter <time>5 March 2024</time></div>',
    "itemprop": '<span itemprop="author">Ann Porter</span>',
    "the surer mark, though later": '<div class="post-author-box">All our writers</div><a rel="author">Ann Porter</a>',
    "the name's own mark, though later": '<div class="post-author-box">All our writers</div>'
    '<span class="author-name">Ann Porter</span>',
    "a sure mark in the sidebar": '<div class="sidebar"><a rel="author">Ann Porter</a></div>',
    "only in the comments": '<div class="comments"><span class="author">Some Reader</span></div>',
    "only in the sidebar": '<div class="sidebar"><a class="author-name">Some Editor</a></div>',
    "a mark with no name": '<span class="author">x</span><p class="Byline">Ann Porter</p>',
    "a long text under the mark": f'<div class="author">{"word " * 40}</div>',
    "an author element": "<author>Ann Porter</author>",
    "a canonical address with a day": '<head><link rel="canonical" href="https://sea.test/2024/03/05/tides"></head>',
    "two headings": "<title>Tides | sea.test</title><h1>Tides</h1><h1>More</h1>",
}


FOUND_BY_US_ALONE = {"a sure mark in the sidebar"}


@pytest.mark.parametrize("kind", [kind for kind in PAGES if kind not in FOUND_BY_US_ALONE])
def test_title_author_date_and_site_are_those_the_library_finds(kind: str) -> None:
    from trafilatura.metadata import extract_metadata

    markup = f"<html>{PAGES[kind]}</html>"
    wanted = extract_metadata(cast(Any, parse_html(markup)), default_url=URL, extensive=False)
    found = read_metadata(parse_html(markup), URL)
    assert (found["author"], found["published"], found["site"]) == (wanted.author, wanted.date, wanted.sitename)
    assert found["title"] == wanted.title


def test_the_samples_hold_what_is_looked_for() -> None:
    """So that the test above does not compare nothing with nothing."""
    found = {kind: read_metadata(parse_html(f"<html>{markup}</html>"), URL) for kind, markup in PAGES.items()}
    named = {kind for kind, one in found.items() if one["author"] == "Ann Porter"}
    assert named == {
        *("a head", "JSON-LD", "broken JSON-LD", "an account for a name", "rel=author", "a byline with a date in it"),
        *("itemprop", "the surer mark, though later", "a mark with no name", "an author element"),
        *("the name's own mark, though later", "a sure mark in the sidebar"),
    }
    assert found["a head"]["site"] == "The Sea Review"
    assert found["a canonical address with a day"]["published"] == "2024-03-05"
    assert found["nothing"] == {"title": None, "author": None, "published": None, "site": "sea.test", "language": None}


def test_reading_leaves_the_page_as_it_is() -> None:
    tree = parse_html(f"<html>{PAGES['a byline with a date in it']}</html>")
    before = serialized(tree)
    read_metadata(tree, URL)
    assert serialized(tree) == before
