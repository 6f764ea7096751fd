"""memento_crawl.passages: verbatim slices that lead back to where they stand."""

from hypothesis import given
from hypothesis import strategies as st

from memento_crawl.passages import find_passages

PAGE = """# Tides

The Bay of Fundy has the highest tides in the world.

## Range

At Burntcoat Head the range is 16.3 metres.

- Saint John: 8.5
- Digby: 8.3

## 潮汐

芬迪湾的潮汐是世界上最高的。"""


def test_the_passage_that_answers_comes_first_with_its_heading() -> None:
    passages, total = find_passages(PAGE, "What is the range at Burntcoat Head?", limit=3)
    assert passages[0].text.startswith("## Range\n\nAt Burntcoat Head the range is 16.3 metres.")
    assert PAGE[passages[0].offset :].startswith(passages[0].text)
    assert total == 1


def test_words_match_by_their_stem_and_unspaced_scripts_by_their_characters() -> None:
    assert find_passages(PAGE, "highest tide", limit=1)[0][0].text.startswith("# Tides")
    assert find_passages(PAGE, "世界最高", limit=1)[0][0].text.startswith("## 潮汐")


def test_a_question_that_the_page_knows_nothing_of_finds_nothing() -> None:
    assert find_passages(PAGE, "zeppelin", limit=3) == ([], 0)
    assert find_passages(PAGE, "?!", limit=3) == ([], 0)
    assert find_passages("", "tides", limit=3) == ([], 0)


@given(st.text(st.sampled_from("ab c.\n#"), max_size=3000), st.integers(1, 5))
def test_every_passage_is_a_slice_of_the_text_and_each_word_is_in_one(text: str, limit: int) -> None:
    passages, total = find_passages(text, "a b c ab ba abc", limit=limit)
    assert all(text[passage.offset :].startswith(passage.text) for passage in passages)
    assert all(0 < len(passage.text) <= 700 for passage in passages)
    assert len(passages) == min(limit, total)


@given(st.lists(st.sampled_from(["word", "x" * 900, "\n\n", ". ", "\n", "# head "]), max_size=40))
def test_no_word_of_a_page_falls_between_two_passages(pieces: list[str]) -> None:
    text = " ".join([*pieces, "needle"])
    passages, total = find_passages(text, "needle", limit=5)
    assert total == 1
    assert "needle" in passages[0].text
