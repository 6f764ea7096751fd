"""memento_search.merging: one page once, and which comes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_search.engine import WebHit
from memento_search.merging import canonical_url, is_in_domains, merge


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a.test/x", "https://www.A.test/x/"),
        ("https://a.test:443/x?b=2&a=1", "https://a.test/x?a=1&b=2"),
        ("https://a.test/x?utm_source=n&gclid=1#top", "https://a.test/x"),
        ("https://m.a.test/x", "https://a.test/x/amp"),
        ("https://a.test", "https://a.test/"),
    ],
)
def test_spellings_of_one_page_are_one(one: str, other: str) -> None:
    assert canonical_url(one) == canonical_url(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.test/x", "https://a.test/y"),
        ("https://a.test/x?id=1", "https://a.test/x?id=2"),
        ("https://a.test/#!/one", "https://a.test/#!/two"),
        ("https://a.test:8443/", "https://a.test/"),
        ("https://en.a.test/", "https://fr.a.test/"),
    ],
)
def test_different_pages_stay_different(one: str, other: str) -> None:
    assert canonical_url(one) != canonical_url(other)


def hits(*names: str) -> list[WebHit]:
    return [WebHit("page", f"https://{name}.test/") for name in names]


def order(query: str, lists: dict[tuple[str, str], list[WebHit]]) -> list[str]:
    return [hit.url[8:-6] for hit in merge(query, lists)]


def test_a_page_that_two_indexes_found_comes_before_one_that_a_single_index_found() -> None:
    lists = {("e1", "f1"): hits("a", "b"), ("e2", "f2"): hits("c", "b")}
    assert order("words", lists)[0] == "b"


def test_engines_of_one_family_count_once() -> None:
    clones = {(f"e{n}", "google"): hits("x", "clone") for n in range(4)}
    assert order("words", {**clones, ("own", "brave"): hits("own", "x")}) == ["x", "own", "clone"]


def test_a_hit_with_the_words_of_the_query_overtakes_its_neighbour() -> None:
    found = [
        WebHit("Cookies and privacy", "https://a.test/"),
        WebHit("Tides of Fundy", "https://b.test/", "the bay of fundy"),
    ]
    assert order("fundy tides", {("e", "f"): [*found, *hits("c")]}) == ["b", "a", "c"]


def test_a_merged_hit_keeps_the_best_of_each() -> None:
    lists = {
        ("e1", "f1"): [WebHit("One", "https://x.test/"), WebHit("Short", "http://www.a.test/p", "few words", None)],
        ("e2", "f2"): [WebHit("Long title", "https://a.test/p?utm_source=x", "many more words", "2024-01-02")],
    }
    (hit,) = [hit for hit in merge("q", lists) if "a.test" in hit.url]
    assert (hit.title, hit.snippet, hit.published) == ("Long title", "many more words", "2024-01-02")
    assert (hit.engines, hit.url) == (["e2", "e1"], "https://a.test/p?utm_source=x")


def test_a_page_has_the_same_id_in_every_search() -> None:
    (first,) = merge("one", {("e", "f"): [WebHit("t", "http://www.a.test/p/")]})
    (second,) = merge("two", {("g", "h"): [WebHit("u", "https://a.test/p")]})
    assert first.id == second.id


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("https://a.test/x", True),
        ("https://www.A.test/", True),
        ("https://nota.test/", False),
        ("https://a.test.evil/", False),
    ],
)
def test_a_domain_covers_its_subdomains_and_no_namesake(url: str, inside: bool) -> None:
    assert is_in_domains(url, ["a.test"]) is inside


@given(
    st.dictionaries(st.sampled_from("pqrs"), st.lists(st.sampled_from("abcdefgh"), max_size=8), max_size=4),
    st.text(max_size=30),
)
def test_merging_loses_no_page_and_repeats_none(lists: dict[str, list[str]], query: str) -> None:
    merged = order(query, {(name, name): hits(*names) for name, names in lists.items()})
    assert sorted(merged) == sorted({name for names in lists.values() for name in names})
