"""The parts of a page that answer a question: cut verbatim, ranked offline.

Owns where a passage begins and ends, and the ranking (bm25 over stemmed words, by SQLite's FTS5 in memory). A
passage is a slice of the text it came from, so its offset leads back to it.
"""

import re
import sqlite3
from contextlib import closing
from typing import NamedTuple

from memento_kit.question import extra_terms, match_query

__all__ = ["Passage", "find_passages"]

_PASSAGE_CHARS = 700
_TOKENIZER = "porter unicode61 remove_diacritics 2"
_BLOCK = re.compile(r"[^\n](?:[^\n]|\n(?!\s*\n))*")
"""A paragraph, list, table or code block: up to the next empty line."""


class Passage(NamedTuple):
    text: str
    offset: int
    """Where it starts in the whole text, in characters."""


def find_passages(text: str, question: str, *, limit: int) -> tuple[list[Passage], int]:
    """Return the best passages, best first, and how many match; none if no word of the question is in the text."""
    query = match_query(question)
    if query is None:
        return [], 0
    passages = _passages(text)
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(
            "CREATE VIRTUAL TABLE words USING fts5(text, extra, tokenize='porter unicode61 remove_diacritics 2')"
        )
        db.executemany(
            "INSERT INTO words VALUES (?, ?)", ((passage.text, extra_terms(passage.text)) for passage in passages)
        )
        total = db.execute("SELECT count(*) FROM words WHERE words MATCH ?", (query,)).fetchone()[0]
        best = db.execute("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?", (query, limit))
        return [passages[row[0] - 1] for row in best.fetchall()], total


def _passages(text: str) -> list[Passage]:
    """Put whole blocks together up to the size of a passage; a heading opens a new one; a long block is cut."""
    found: list[Passage] = []
    start = end = 0
    for block in _BLOCK.finditer(text):
        if end > start and (block[0].lstrip().startswith("#") or block.end() - start > _PASSAGE_CHARS):
            found.append(Passage(text[start:end], start))
            start = block.start()
        if end <= start:
            start = block.start()
        end = block.end()
        while end - start > _PASSAGE_CHARS:
            window = text[start : start + _PASSAGE_CHARS]
            cut = max(window.rfind("\n"), window.rfind(". ") + 1, window.rfind(" ") if ". " not in window else 0)
            cut = cut if cut > _PASSAGE_CHARS // 3 else _PASSAGE_CHARS
            found.append(Passage(text[start : start + cut], start))
            start += cut
    if text[start:end].strip():
        found.append(Passage(text[start:end], start))
    return found
