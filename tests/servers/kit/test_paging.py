"""memento_kit.paging: pieces of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_kit import TextPage, page_text

TEXTS = st.text(alphabet=st.one_of(st.characters(), st.sampled_from(" \n\r\t")), max_size=300)


def pieces(text: str, max_chars: int) -> list[TextPage]:
    found = [page_text(text, max_chars=max_chars)]
    while (offset := found[-1].next_offset) is not None:
        found.append(page_text(text, offset=offset, max_chars=max_chars))
    return found


@given(text=TEXTS, max_chars=st.integers(min_value=1, max_value=80))
def test_the_pieces_joined_are_the_text_and_none_is_too_long(text: str, max_chars: int) -> None:
    found = pieces(text, max_chars)
    assert "".join(piece.text for piece in found) == text
    assert all(len(piece.text) <= max_chars for piece in found)
    assert all(piece.total_chars == len(text) for piece in found)


@given(text=TEXTS, max_chars=st.integers(min_value=1, max_value=80))
def test_a_piece_is_at_least_four_fifths_full_unless_it_is_the_last(text: str, max_chars: int) -> None:
    """Otherwise a text of many short paragraphs would take many calls."""
    for piece in pieces(text, max_chars)[:-1]:
        assert len(piece.text) >= max_chars - int(max_chars * 0.2)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        pytest.param("x" * 24 + "\n\n" + "a\nb c d e", 26, id="at a paragraph, though a line and words end later"),
        pytest.param("x" * 24 + "\n" + "a b c d e f", 25, id="at a line, though words end later"),
        pytest.param("x" * 24 + " " + "aaa bbbbbbb", 29, id="at the last word"),
        pytest.param("x" * 40, 30, id="in the middle of a word where there is nothing else"),
        pytest.param("x" * 10 + "\n\n" + "x" * 30, 30, id="not at a break too far back"),
    ],
)
def test_a_piece_ends_where_a_reader_would_pause(text: str, length: int) -> None:
    assert page_text(text, max_chars=30).text == text[:length]


def test_reading_on_past_the_end_gives_an_empty_last_piece() -> None:
    assert page_text("abc", offset=99, max_chars=5) == TextPage(text="", offset=3, total_chars=3, next_offset=None)


@pytest.mark.parametrize(("offset", "max_chars"), [(-1, 5), (0, 0), (0, -3)])
def test_a_negative_offset_or_an_empty_piece_is_the_callers_bug(offset: int, max_chars: int) -> None:
    with pytest.raises(ValueError, match="offset must be"):
        page_text("abc", offset=offset, max_chars=max_chars)
