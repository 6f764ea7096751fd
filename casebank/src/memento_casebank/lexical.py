"""BM25 over an inverted index in memory: which cases share rare words with a question.

Owns terms and postings, nothing about cases. SQLite's FTS5 needs 0.5 s for eight words at 1e5 rows
(guides/casebank.md §4); postings in numpy need about a millisecond, because a query touches only its own words.
Source of the formula: Robertson & Zaragoza 2009, with the idf that is never negative.
"""

import math
from array import array
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from memento_casebank.embedders import is_stop_word, tokenize

__all__ = ["InvertedIndex"]

K1 = 1.2
B = 0.75
MAX_QUERY_TERMS = 12
"""The rarest words of a question are enough to find its neighbours, and bound the time of a long one."""


class InvertedIndex:
    """Documents numbered 0, 1, 2, … in the order they were added."""

    def __init__(self) -> None:
        self._documents: dict[str, array[int]] = {}
        self._counts: dict[str, array[float]] = {}
        self._lengths = array("f")
        self._total_length = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, text: str) -> None:
        words = [word for word in tokenize(text) if not is_stop_word(word)]
        document = len(self._lengths)
        for word, count in Counter(words).items():
            if word not in self._documents:
                self._documents[word] = array("i")
                self._counts[word] = array("f")
            self._documents[word].append(document)
            self._counts[word].append(count)
        self._lengths.append(len(words))
        self._total_length += len(words)

    def scores(self, text: str) -> NDArray[np.float32]:
        """Return the BM25 score (N,) of every document; 0 for those that share no word with `text`."""
        n = len(self._lengths)
        scores = np.zeros(n, np.float32)
        if n == 0:
            return scores
        known = {word for word in tokenize(text) if word in self._documents}
        rarest = sorted(known, key=lambda word: (len(self._documents[word]), word))[:MAX_QUERY_TERMS]
        if not rarest:
            return scores
        # All words' postings one after another: a few calls on long arrays instead of a few for each word.
        documents = np.concatenate([np.frombuffer(self._documents[word], np.int32) for word in rarest])
        counts = np.concatenate([np.frombuffer(self._counts[word], np.float32) for word in rarest])
        found = [len(self._documents[word]) for word in rarest]
        idf = np.array([math.log(1.0 + (n - df + 0.5) / (df + 0.5)) for df in found], np.float32).repeat(found)
        lengths = np.frombuffer(self._lengths, np.float32)[documents]
        norm = K1 * (1.0 - B + B * lengths / np.float32(max(self._total_length / n, 1.0)))
        np.add.at(scores, documents, idf * counts * np.float32(K1 + 1.0) / (counts + norm))
        return scores
