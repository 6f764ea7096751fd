"""memento_crawl.markdown: how each element is spelled."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memento_crawl.html_tree import parse_html
from memento_crawl.markdown import absolute_link, to_markdown, to_text

BASE = "https://sea.test/a/b.html"

SPELLINGS: list[tuple[str, str]] = [
    ("<h1>One</h1><h3>Three <em>x</em></h3>", "# One\n\n### Three *x*"),
    ("<p>one\n   two</p><p>three<br>four</p>", "one two\n\nthree\nfour"),
    ("bare text<div>in a div</div>after", "bare text\n\nin a div\n\nafter"),
    ("<p><b>bold </b>and <i>slanted</i>, <code>x = 1</code></p>", "**bold** and *slanted*, `x = 1`"),
    ('<a href="c.html">up</a>', "[up](https://sea.test/a/c.html)"),
    ('<a href="//other.test/x">o</a>', "[o](https://other.test/x)"),
    ('<a href="/w/Foo_(bar)">f</a>', "[f](https://sea.test/w/Foo_%28bar%29)"),
    ('<a href="mailto:a@b.test">write</a>', "[write](mailto:a@b.test)"),
    ('<a href="javascript:alert(1)">run</a> <a href="#top">top</a> <a>none</a>', "run top none"),
    ('<a href="data:text/html,x">data</a>', "data"),
    ('<p>see <img src="https://spy.test/p.png" alt="a picture"> here</p>', "see here"),
    ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "- a\n  - b\n- c"),
    ('<ol start="3"><li>three</li><li><p>four</p></li></ol>', "3. three\n4. four"),
    ("<blockquote><p>one</p><p>two</p></blockquote>", "> one\n>\n> two"),
    ("<pre>a\n  b</pre>", "```\na\n  b\n```"),
    ('<pre><code class="language-c++">x;<br>y;</code></pre>', "```c++\nx;\ny;\n```"),
    ("<pre>```</pre>", "````\n```\n````"),
    (
        "<table><tr><th>a</th><th>b</th></tr><tr><td>1|2</td><td>x<p>y</p></td></tr></table>",
        "| a | b |\n| --- | --- |\n| 1\\|2 | x y |",
    ),
    (
        '<table><caption>C</caption><tr><td colspan="2">wide</td></tr><tr><td>1</td><td>2</td></tr></table>',
        "C\n\n| wide |  |\n| --- | --- |\n| 1 | 2 |",
    ),
    ("<table><tr><td><p>layout</p></td></tr></table>", "layout"),
    ("<dl><dt>term</dt><dd>meaning</dd></dl>", "term\n\nmeaning"),
    ("<a href='/x'><div>block</div></a>", "block"),
    ("<p>a</p><hr><p>b</p>", "a\n\n---\n\nb"),
    ("", ""),
]


@pytest.mark.parametrize(("html", "markdown"), SPELLINGS)
def test_each_element_has_its_spelling(html: str, markdown: str) -> None:
    assert to_markdown(parse_html(f"<body>{html}</body>"), BASE) == markdown


def test_text_has_a_line_for_each_block_and_row() -> None:
    html = "<h1>T</h1><p>a <b>b</b>\n c</p><table><tr><td>1</td><td>2</td></tr><tr><td>3</td></tr></table>tail"
    assert to_text(parse_html(html)) == "T\na b c\n1 2\n3\ntail"


def test_a_page_nested_deeper_than_python_calls_is_still_read() -> None:
    from memento_crawl.extraction import extract_page

    html = "<div>" * 1500 + "<p>at the bottom</p>" + "</div>" * 1500
    assert "at the bottom" in extract_page(html, BASE, "full", "markdown")["text"]


TAGS = st.sampled_from(
    ["p", "div", "span", "b", "i", "a", "ul", "li", "ol", "table", "tr", "td", "th", "pre", "code", "h1", "blockquote"]
)


def _element(tag: str, parts: list[str]) -> str:
    return f"<{tag}>{' '.join(parts)}</{tag}>"


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(_element, TAGS, st.lists(inner, max_size=4))


@given(st.recursive(st.text(st.characters(categories=["Ll"]), max_size=6), _nested))
def test_no_letter_is_lost_however_elements_nest(html: str) -> None:
    tree = parse_html(f"<body>{html}</body>")
    expected = _letters(tree.text_content())
    assert (_letters(to_markdown(tree, BASE)), _letters(to_text(tree))) == (expected, expected)


def _letters(text: str) -> str:
    return "".join(character for character in text if character.isalpha())


_STARTS = st.sampled_from(("", "/", "HTTP:", "//a.test/", "http://a.test", "http://a.test/", "https://a.test:80/b?"))
_PIECES = st.lists(
    st.sampled_from(("c", "/", "..", ".", "?", "&b=1", "#", ";", "%20", "x y", "(", "[", "@", "é")), min_size=1
)


@example("/", "ab" * 20_000 + "(")  # no search that grows with the square
@given(_STARTS, _PIECES.map("".join))
def test_an_address_that_is_whole_already_is_what_joining_it_would_give(start: str, rest: str) -> None:
    by_joining = absolute_link(f" {start}{rest}", BASE)  # a space first, and it is joined
    assert absolute_link(start + rest, BASE) == by_joining
