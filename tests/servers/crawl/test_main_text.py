"""memento_crawl.main_text: trafilatura's second opinion is left out where it cannot win, and asked elsewhere."""

from importlib import import_module
from typing import Any, cast

import pytest

from memento_crawl.html_tree import parse_html
from memento_crawl.main_text import main_text

PARAGRAPHS = [
    f"<p>On day {day} the sea in the Bay of Fundy rose by {day % 7 + 9} metres, and the boats lay dry at noon.</p>"
    for day in range(40)
]
LINKS = "".join(
    f'<li><a href="https://sea.test/{n}">Another story, number {n}, of something else</a></li>' for n in range(90)
)
LOOSE = "".join(
    f"<div>At low water {n} boats are tied to ladders, and the fishermen climb down to them.</div>" for n in range(60)
)
TABLES = "<table><tr><td>Burntcoat Head has the highest tide of all places</td><td>16.3 metres</td></tr></table>" * 12

PAGES = {
    "an article": (f"<article><h1>Tides</h1>{''.join(PARAGRAPHS[:8])}</article>", False),
    "an article among links": (f"<article>{''.join(PARAGRAPHS)}</article><ul>{LINKS}</ul>", False),
    "an article and much more text": (f"<article>{''.join(PARAGRAPHS[:4])}</article><section>{LOOSE}</section>", True),
    "too little text": ("<article><p>Tides.</p></article>", True),
    "no paragraphs": (f"<article>{TABLES}</article>", True),
}


@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("is_precise", [True, False])
def test_the_second_extractor_runs_only_where_it_can_win_and_the_text_is_the_same(
    kind: str, is_precise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trafilatura

    main_text(parse_html("<p>x</p>"), is_markdown=True)  # the shortcut is in place from here on
    asked: list[str] = []
    external = cast(Any, import_module("trafilatura.external"))
    readability = external.try_readability
    monkeypatch.setattr(external, "try_readability", lambda page: (asked.append(kind), readability(page))[1])  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    markup, is_asked = PAGES[kind]
    tree = parse_html(f"<html><body>{markup}</body></html>")
    found = main_text(tree, is_markdown=True, is_precise=is_precise)
    assert bool(asked) == is_asked

    core = cast(Any, import_module("trafilatura.core"))
    monkeypatch.setattr(core, "compare_extraction", external.compare_extraction)
    wanted = trafilatura.extract(
        cast(Any, tree),
        output_format="markdown",
        include_links=True,
        include_formatting=True,
        include_comments=False,
        favor_precision=is_precise,
    )
    assert found == (wanted or "")
