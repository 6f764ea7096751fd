"""The exact scorers against hand-made tables (spec/memento.md §5.2, §5.4)."""

import pytest

from memento.scorers import exact_match, f1, gaia_correct, split_golds


@pytest.mark.parametrize(
    ("answer", "gold", "correct"),
    [
        ("17", "17", True),
        ("$1,234.50", "1234.5", True),
        ("12 %", "12", True),
        ("17.0001", "17", False),
        ("seventeen", "17", False),
        ("sea gull", "Seagull", True),
        ("The Hague", "Hague", False),
        ("St. Petersburg!", "st petersburg", True),
        ("b, e", "b,e", True),
        ("e, b", "b,e", False),
        ("a, b, c", "a, b", False),
        ("3; 4.0", "3,4", True),
        ("1,000", "1,000", True),
        ("1000", "1,000", False),
        (None, "None", True),
        (None, "17", False),
        ("", "17", False),
    ],
)
def test_gaia_scores_as_the_leaderboard_does(answer: str | None, gold: str, correct: bool) -> None:
    assert gaia_correct(answer, gold) is correct


@pytest.mark.parametrize(
    ("answer", "golds", "expected"),
    [
        ("the cat", ["the cat"], 1.0),
        ("cat", ["the cat"], 2 / 3),
        ("the the the cat", ["the cat"], 1.0),
        ("dog", ["cat", "big dog"], 2 / 3),
        ("", ["cat"], 0.0),
        ("well-known", ["well known"], 1.0),
    ],
)
def test_f1_counts_sets_of_words_and_keeps_articles(answer: str, golds: list[str], expected: float) -> None:
    assert f1(answer, golds) == pytest.approx(expected)


def test_exact_match_ignores_case_and_punctuation_and_takes_any_gold() -> None:
    assert exact_match("Mr. Smith", ["smith", "MR SMITH"])
    assert not exact_match("Mr. Smith", ["smith"])


def test_several_golds_are_split_on_the_marker() -> None:
    assert split_golds("a<|answer_split|> b ") == ["a", "b"]
