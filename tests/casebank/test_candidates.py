"""Finding candidates: BM25 against its formula, fusion, groups, spreading out, and what may not be shown."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_casebank.candidates import CandidateSettings, describe, find
from memento_casebank.embedders import HashingEmbedder, is_stop_word, tokenize
from memento_casebank.lexical import K1, B, InvertedIndex
from memento_casebank.policies.base import KIND_CODES
from memento_casebank.records import Case, InForce, Step
from memento_casebank.shelf import Shelf

EMBEDDER = HashingEmbedder(64)
words = st.text(alphabet="abc ", min_size=0, max_size=30)


def shelf_of(*questions: str, answers: list[str] | None = None) -> Shelf:
    shelf = Shelf(64)
    for number, question in enumerate(questions):
        answer = answers[number] if answers else f"answer {number}"
        case = Case(id=f"case_{number}", created=0, question=question, plan={}, answer=answer)
        shelf.add(number + 1, case, EMBEDDER.embed([question])[0])
    return shelf


def rows_for(shelf: Shelf, question: str, settings: CandidateSettings | None = None, **hidden: int) -> list[int]:
    allowed = shelf.showable(0.0, strategies=False).copy()
    allowed[list(hidden.values())] = False
    return find(shelf, EMBEDDER.embed([question])[0], question, allowed, settings or CandidateSettings()).rows.tolist()


@given(st.lists(words, min_size=1, max_size=8), words)
def test_bm25_is_the_formula(documents: list[str], query: str) -> None:
    index = InvertedIndex()
    for document in documents:
        index.add(document)

    scores = index.scores(query)

    bags = [[word for word in tokenize(document) if not is_stop_word(word)] for document in documents]
    mean_length = max(sum(map(len, bags)) / len(bags), 1.0)
    for bag, score in zip(bags, scores, strict=True):
        counts = Counter(bag)
        expected = 0.0
        for word in {word for word in tokenize(query) if not is_stop_word(word)}:
            df = sum(word in other for other in bags)
            idf = math.log(1 + (len(bags) - df + 0.5) / (df + 0.5))
            tf = counts[word]
            expected += idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * len(bag) / mean_length)) if tf else 0.0
        assert score == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_rare_shared_word_finds_what_the_vectors_miss() -> None:
    shelf = shelf_of("the quarterly report of Fabrikam", *[f"zebra crossing number {n} in town" for n in range(40)])
    few = CandidateSettings(dense=2, lexical=2, limit=4, exposure_floor=0)

    assert 0 in rows_for(shelf, "zebra crossing number seven in town Fabrikam", few)
    without_words = CandidateSettings(dense=2, lexical=0, limit=4, exposure_floor=0)
    assert 0 not in rows_for(shelf, "zebra crossing number seven in town Fabrikam", without_words)


def test_the_best_match_of_both_kinds_comes_first() -> None:
    shelf = shelf_of("sum the sales of March", "sum the costs of April", "read the poem aloud")

    assert rows_for(shelf, "sum the sales of March")[0] == 0


def test_what_is_not_allowed_is_not_found_by_vector_or_word() -> None:
    shelf = shelf_of("sum the sales", "sum the sales again", "read the poem")

    assert 0 not in rows_for(shelf, "sum the sales", hidden=0)


def test_an_empty_shelf_and_one_where_nothing_is_allowed_find_nothing() -> None:
    assert rows_for(Shelf(64), "anything") == []
    assert rows_for(shelf_of("one"), "one", hidden=0) == []


def test_when_some_must_go_those_most_like_a_better_one_go_first() -> None:
    copies = [f"sum the sales of March 20{n:02d}" for n in range(6)]
    shelf = shelf_of(*copies, "add up what was sold in spring", "March report on sales in the north")
    four = CandidateSettings(limit=4, exposure_floor=0)
    plain = CandidateSettings(limit=4, exposure_floor=0, relevance_share=1.0)

    spread, ranked = rows_for(shelf, "sum the sales of March", four), rows_for(shelf, "sum the sales of March", plain)

    assert set(ranked) <= set(range(6))
    assert {6, 7} & set(spread)
    assert spread[0] == ranked[0]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 6))
def test_never_more_than_the_limit_and_never_one_twice(cases: int, limit: int, floor: int) -> None:
    shelf = shelf_of(*[f"question {n % 7} about topic {n}" for n in range(cases)])
    rows = rows_for(shelf, "question 3 about topic 9", CandidateSettings(limit=limit, exposure_floor=floor))

    assert len(rows) == len(set(rows)) <= limit
    assert len(rows) > 0


def test_bm25_is_told_relative_to_the_best_candidate() -> None:
    shelf = shelf_of("alpha beta", "alpha", "gamma")
    allowed = np.ones(3, np.bool_)

    found = find(shelf, EMBEDDER.embed(["alpha beta"])[0], "alpha beta", allowed, CandidateSettings())

    by_row = dict(zip(found.rows.tolist(), found.bm25.tolist(), strict=True))
    assert by_row[0] == 1.0
    assert 0 < by_row[1] < 1
    assert by_row[2] == 0


def test_a_policy_is_told_how_old_a_case_is_and_how_it_turned_out() -> None:
    shelf = shelf_of("sum the sales", "sum the costs")
    shelf.set_outcome(0, InForce(0.5, "judge", 1.0, None, 0.0))
    found = find(
        shelf, EMBEDDER.embed(["sum the sales"])[0], "sum the sales", np.ones(2, np.bool_), CandidateSettings()
    )

    told = describe(shelf, found, now=3 * 86_400.0)

    assert told.ids == ("case_0", "case_1")
    assert told.table["age_days"].tolist() == [3.0, 3.0]
    assert told.table["reward"][0] == 0.5
    assert np.isnan(told.table["reward"][1])
    assert told.table["kind"].tolist() == [KIND_CODES["judge"], KIND_CODES["unknown"]]
    assert told.table["group"].tolist() == shelf.table["group"].tolist()


@given(
    st.lists(st.text(alphabet="ab ", min_size=1, max_size=12), min_size=1, max_size=20), st.sampled_from([0.5, 0.97])
)
def test_near_duplicates_on_a_small_shelf_are_found_exactly(questions: list[str], cosine: float) -> None:
    """Two with the same order of tools are not the same while their answers differ."""
    shelf = Shelf(64)
    cases = [
        Case(
            id=f"case_{number}",
            created=0,
            question=question,
            plan={},
            answer="Same" if number % 3 else "other",
            steps=(Step(subtask="s", tools=("read",) if number % 2 else ("guess",)),) if number % 4 else (),
        )
        for number, question in enumerate(questions)
    ]
    for number, case in enumerate(cases):
        shelf.add(number + 1, case, EMBEDDER.embed([case.question])[0])
    vector = EMBEDDER.embed([questions[0]])[0]

    rows = shelf.near(vector, cases[-1], cosine)

    tools = [[tool for step in case.steps for tool in step.tools] for case in cases]
    alike = [case.answer == cases[-1].answer and tools[n] == tools[-1] for n, case in enumerate(cases)]
    wanted = np.array(alike) & (shelf.vectors @ vector >= np.float32(cosine))
    assert rows.tolist() == np.flatnonzero(wanted).tolist()
