"""Finding passages: which stretches of a document hold the words of a query.

Plain lexical ranking (BM25 over overlapping windows of lines), made anew per call: one document is small, and an
index would have to be kept and invalidated. Folders full of files are the search server's job.
"""

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

__all__ = ["Hit", "find_passages"]

_PASSAGE_CHARS = 600
_K1 = 1.2
_B = 0.5
"""BM25's usual saturation, and half its usual length normalisation: passages are of nearly one size already."""
_PHRASE_BONUS = 2.0
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage: in which section, where it starts there (characters), its text, and how well it matches."""

    section: int
    start: int
    text: str
    score: float


def find_passages(sections: list[str], query: str) -> list[Hit]:
    """Return the passages with at least one of the query's words, best first; words match by how they begin."""
    terms = list(dict.fromkeys(_words(query)))
    if not terms:
        return []
    passages = [(index, start, text) for index, section in enumerate(sections) for start, text in _windows(section)]
    counts = [Counter(_words(text)) for _, _, text in passages]
    frequencies = [[_frequency(count, term) for term in terms] for count in counts]
    document_frequency = [sum(row[column] > 0 for row in frequencies) for column in range(len(terms))]
    lengths = [sum(count.values()) for count in counts]
    mean_length = sum(lengths) / len(lengths) if lengths else 1.0
    phrase = " ".join(terms)
    hits: list[Hit] = []
    for (section, start, text), row, length in zip(passages, frequencies, lengths, strict=True):
        score = sum(
            math.log(1 + (len(passages) - df + 0.5) / (df + 0.5)) * tf * (_K1 + 1)
            / (tf + _K1 * (1 - _B + _B * length / max(mean_length, 1)))
            for tf, df in zip(row, document_frequency, strict=True)
            if tf
        )  # fmt: skip
        if score > 0:
            bonus = _PHRASE_BONUS if len(terms) > 1 and phrase in " ".join(_words(text)) else 0.0
            hits.append(Hit(section, start, text.strip(), score * (1 + bonus)))
    return sorted(hits, key=lambda hit: (-hit.score, hit.section, hit.start))


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", text).casefold()
    return _WORD.findall("".join(char for char in folded if not unicodedata.combining(char)))


def _frequency(count: Counter[str], term: str) -> int:
    """Exact matches, and for words of five letters or more also those that only differ in their ending."""
    exact = count[term]
    if exact or len(term) < 5:
        return exact
    stem = term[: max(5, len(term) - 3)]
    return sum(number for word, number in count.items() if word.startswith(stem) and abs(len(word) - len(term)) <= 3)


def _windows(text: str) -> list[tuple[int, str]]:
    """Cut `text` into passages of about `_PASSAGE_CHARS`, at line ends where there are any."""
    windows: list[tuple[int, str]] = []
    start = 0
    while start < len(text):
        end = min(start + _PASSAGE_CHARS, len(text))
        if end < len(text):
            at = max(
                text.rfind("\n", start + _PASSAGE_CHARS // 2, end), text.rfind(". ", start + _PASSAGE_CHARS // 2, end)
            )
            end = at + 1 if at > start else end
        if text[start:end].strip():
            windows.append((start, text[start:end]))
        start = end
    return windows
