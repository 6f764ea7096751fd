"""Finding the answer to a question in passages, by rules.

Owns the choice of a sentence (which shares the question's words) and of what in it is asked for (a year, a
number, a name). When too few of the question's words are there, it finds nothing, and says so.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from memento.offline.wording import content_words, names_in, numbers_in, sentences_of

__all__ = ["Found", "Passage", "best_sentence", "find_answer", "mentions_all_names"]

_MIN_SHARE = 0.6
"""This share of the question's words must stand in the sentence or its heading."""
_YEAR = re.compile(r"(?<![\d,.])(1\d{3}|20\d{2})(?!\d|[,.]\d)")
_ASKS_YEAR = re.compile(r"\b(?:which|what) year\b|^when\b", re.IGNORECASE)
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|high|tall|deep|wide|far|large|old)\b|"
    r"\bwhat is the (?:\w+ ){0,3}(?:length|height|span|depth|width|area|population|diameter|number|mass|distance)\b",
    re.IGNORECASE,
)
_ASKS_WHO = re.compile(r"\bwho\b", re.IGNORECASE)
_SYNONYMS = {"long": "length", "high": "height", "tall": "height", "deep": "depth", "wide": "width", "sea": "flows"}


@dataclass(frozen=True)
class Passage:
    """A piece of text with the place it is from."""

    text: str
    place: str
    heading: str = ""


@dataclass(frozen=True)
class Found:
    answer: str
    sentence: str
    place: str


def find_answer(question: str, passages: Sequence[Passage]) -> Found | None:
    """The answer that the best sentence holds, or `None` when no sentence is about the question."""
    best = best_sentence(question, passages)
    if best is None:
        return None
    sentence, passage = best
    answer = _asked_part(question, sentence)
    return None if answer is None else Found(answer, sentence, passage.place)


def best_sentence(question: str, passages: Sequence[Passage]) -> tuple[str, Passage] | None:
    """The sentence that shares most of the question's words.

    A name may stand anywhere in the passage or its heading, since sentences go on with "it"; a plain word that
    is not in the sentence itself counts half.
    """
    wanted = content_words(question)
    names = {word for name in names_in(question) for word in content_words(name)}
    synonyms = {_SYNONYMS[word][:6] for word in wanted if word in _SYNONYMS}
    scored: list[tuple[float, int, str, Passage]] = []
    for order, passage in enumerate(passages):
        around = set(content_words(f"{passage.heading} {passage.text}"))
        for sentence in sentences_of(passage.text):
            own = set(content_words(sentence))
            score = sum(_worth(word, own, around, word in names) for word in wanted) + 0.25 * len(own & synonyms)
            if score >= _MIN_SHARE * len(wanted) and _asked_part(question, sentence) is not None:
                scored.append((score, -order, sentence, passage))
    if not scored:
        return None
    _, _, sentence, passage = max(scored, key=lambda row: (row[0], row[1]))
    return sentence, passage


def _worth(word: str, own: set[str], around: set[str], is_name: bool) -> float:
    if word in own:
        return 1.1 if is_name else 1.0
    if word in around:
        return 1.0 if is_name else 0.5
    return 0.0


def mentions_all_names(question: str, text: str) -> bool:
    """Whether every name in the question occurs in `text`."""
    return all(name.lower() in text.lower() for name in names_in(question))


def _asked_part(question: str, sentence: str) -> str | None:
    if _ASKS_YEAR.search(question):
        years = _YEAR.findall(sentence)
        return _nearest(question, sentence, years)
    if _ASKS_NUMBER.search(question):
        years = set(_YEAR.findall(sentence))
        numbers = [number for number in numbers_in(sentence) if number not in years] or numbers_in(sentence)
        return _nearest(question, sentence, numbers)
    known = question.lower()
    names = [name for name in names_in(sentence) if name.lower() not in known]
    nearest = _nearest(question, sentence, names)
    if nearest is None or not _ASKS_WHO.search(question):
        return nearest
    both = next((name for name in names if f"{nearest} and {name}" in sentence), None)
    return f"{nearest} and {both}" if both else nearest


def _nearest(question: str, sentence: str, candidates: Sequence[str]) -> str | None:
    """The candidate that stands nearest to one of the question's plain words."""
    plain = sentence.replace(",", "")
    names = {word for name in names_in(question) for word in content_words(name)}
    words = [word for word in content_words(question) if word not in names]
    words += [_SYNONYMS[word] for word in words if word in _SYNONYMS]
    spots = [
        match.start() for word in words for match in re.finditer(rf"\b{re.escape(word[:6])}", plain, re.IGNORECASE)
    ]

    def distance(candidate: str) -> tuple[int, int]:
        at = plain.find(candidate.replace(",", ""))
        return min((abs(at - spot) for spot in spots), default=0), at

    return min(candidates, key=distance) if candidates else None
