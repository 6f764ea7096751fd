"""memento_kit.question: a plain question as an FTS5 query, tried on a real FTS5 table."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_kit.question import extra_terms, match_query


def found(question: str, *texts: str) -> list[str]:
    """The texts that the question finds, best first."""
    query = match_query(question)
    if query is None:
        return []
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE t USING fts5(text, extra, tokenize='porter unicode61 remove_diacritics 2')")
    db.executemany("INSERT INTO t VALUES (?, ?)", [(text, extra_terms(text)) for text in texts])
    rows = db.execute("SELECT text FROM t WHERE t MATCH ? ORDER BY rank", (query,)).fetchall()
    db.close()
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How high are the tides?", "The tide was high."),
        ("What did Müller say", "Muller spoke"),
        ("readTextFile", "def read_text(): readTextFile()"),
        ("text file", "call readTextFile here"),
        ("read_text", "use read_text now"),
        ("c++", "written in C++"),
        ("AND OR NOT NEAR", "a near miss"),
        ('say "', "they say so"),
        ("what is it", "what it is"),
        ("机器学习", "我们研究机器学习的方法"),
        ("学习", "我们研究机器学习的方法"),
        ("法", "我们研究机器学习的方法"),
        ("机", "我们研究机器学习的方法"),
        ("東京タワー", "昨日東京タワーに行った"),
        ("서울", "서울특별시는 크다"),
        ("GPU是什么", "一块GPU卡"),
    ],
)
def test_a_question_finds_the_text_that_answers_it(question: str, text: str) -> None:
    assert found(question, text, "nothing of the kind") == [text]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How high are the tides?", "how are the others"),
        ('"high tide"', "the tide is high"),
        ('"high tide" fundy', "fundy"),
        ("机器人", "天气很好"),
        ("学校", "机器学习"),
    ],
)
def test_stop_words_alone_and_broken_phrases_find_nothing(question: str, text: str) -> None:
    assert found(question, text) == []


def test_a_quoted_phrase_must_occur_and_the_other_words_order_what_is_found() -> None:
    texts = ("the high tide came", "at Fundy the high tide is the highest", "Fundy is a bay")
    assert found('"high tide" at Fundy', *texts) == [texts[1], texts[0]]


@pytest.mark.parametrize("question", ["", "   ", "?!", '""', "\x00"])
def test_a_question_without_a_word_is_no_query(question: str) -> None:
    assert match_query(question) is None


@given(st.text(max_size=120))
def test_whatever_is_typed_is_never_read_as_query_syntax(question: str) -> None:
    found(question, "some text", question.replace("\x00", ""))


@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x4FFF), min_size=1, max_size=8), st.data())
def test_every_stretch_of_an_unspaced_text_is_found(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    assert found(text[start:end], text) == [text]
