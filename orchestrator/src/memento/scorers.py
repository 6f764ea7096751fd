"""Exact scorers: an answer against gold, without a model.

Owns the rules of two published evaluations, as they are (spec/memento.md §5.2 and §5.4): GAIA's leaderboard
scorer and DeepResearcher's exact match and F1. An answer that could not be judged is not scored here at all.
"""

import re
import string
from collections.abc import Sequence

__all__ = ["ANSWER_SPLIT", "exact_match", "f1", "gaia_correct", "split_golds"]

ANSWER_SPLIT = "<|answer_split|>"
"""Between several gold answers in DeepResearcher's data."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PUNCTUATION_TO_SPACE = str.maketrans(dict.fromkeys(string.punctuation, " "))


def gaia_correct(answer: str | None, gold: str) -> bool:
    """GAIA's scorer: numbers equal exactly, lists by element in order, strings without space, case, punctuation."""
    answer = "None" if answer is None else answer
    if _as_float(gold) is not None:
        return _gaia_number(answer) == float(gold)
    if "," in gold or ";" in gold:
        golds, answers = re.split("[,;]", gold), re.split("[,;]", answer)
        if len(golds) != len(answers):
            return False
        return all(_gaia_element(one, wanted) for one, wanted in zip(answers, golds, strict=True))
    return _gaia_text(answer).translate(_PUNCTUATION) == _gaia_text(gold).translate(_PUNCTUATION)


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """Whether the normalised answer equals any normalised gold."""
    return any(_tokens(answer) == _tokens(gold) for gold in golds)


def f1(answer: str, golds: Sequence[str]) -> float:
    """Token F1 over *sets* of tokens, the best over the golds; articles count (DeepResearcher, not SQuAD)."""
    return max((_f1(set(_tokens(answer)), set(_tokens(gold))) for gold in golds), default=0.0)


def split_golds(gold: str) -> list[str]:
    """The gold answers of a row of DeepResearcher's data."""
    return [part.strip() for part in gold.split(ANSWER_SPLIT) if part.strip()]


def _gaia_element(answer: str, gold: str) -> bool:
    if _as_float(gold) is not None:
        return _gaia_number(answer) == float(gold)
    return _gaia_text(answer) == _gaia_text(gold)


def _gaia_number(answer: str) -> float:
    for character in "$%,":
        answer = answer.replace(character, "")
    value = _as_float(answer)
    return float("inf") if value is None else value


def _gaia_text(text: str) -> str:
    return re.sub(r"\s", "", text).lower()


def _as_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _tokens(text: str) -> list[str]:
    return text.lower().translate(_PUNCTUATION_TO_SPACE).split()


def _f1(answer: set[str], gold: set[str]) -> float:
    common = len(answer & gold)
    if common == 0:
        return 0.0
    precision, recall = common / len(answer), common / len(gold)
    return 2 * precision * recall / (precision + recall)
