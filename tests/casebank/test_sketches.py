"""Sketches: the few rows worth an exact look are nearly always the nearest ones, also after the shelf has grown."""

import numpy as np
import pytest
from numpy.typing import NDArray

from memento_casebank.records import Case, Step
from memento_casebank.shelf import Shelf
from memento_casebank.sketches import Sketches

ROWS = 6_000


def crowded(dim: int, rows: int = ROWS) -> NDArray[np.float32]:
    """Unit vectors around sixty centres, as questions are around topics."""
    dice = np.random.default_rng(0)
    centres = dice.normal(size=(60, dim))
    vectors = (centres[dice.integers(60, size=rows)] + dice.normal(size=(rows, dim))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def answered(number: int, answer: int) -> Case:
    steps = (Step(subtask="look it up", tools=("read",)),)  # done alike: only the answers differ
    return Case(id=str(number), created=0, question="q", plan={}, answer=str(answer), steps=steps)


def shelf_of(vectors: NDArray[np.float32], answers: int = ROWS) -> Shelf:
    shelf = Shelf(vectors.shape[1])
    for number, vector in enumerate(vectors):
        shelf.add(number, answered(number, number % answers), vector)
    return shelf


@pytest.mark.parametrize("dim", [7, 64, 512, 1_536])
def test_the_nearest_are_among_the_rows_looked_at(dim: int) -> None:
    vectors = crowded(dim)
    sketches = Sketches(dim)
    found = 0
    for query in crowded(dim, ROWS + 50)[ROWS:]:
        rows = sketches.closest(vectors, query, 384, None)
        assert 384 <= len(rows) < ROWS // 4
        found += len(np.intersect1d(rows, np.argsort(-(vectors @ query))[:32]))

    assert found >= 0.99 * 32 * 50


def test_rows_added_later_are_found_and_those_not_allowed_are_not() -> None:
    vectors = crowded(64)
    sketches = Sketches(64)
    query = vectors[ROWS - 1]
    assert ROWS - 1 not in sketches.closest(vectors[:3_000], query, 10, None)

    assert ROWS - 1 in sketches.closest(vectors, query, 10, None)
    assert sketches.closest(vectors, query, 1, None).tolist() == [ROWS - 1]  # and none that is further away

    allowed = np.ones(ROWS, np.bool_)
    allowed[ROWS - 1] = False
    rest = sketches.closest(vectors, query, 10, allowed)
    assert len(rest) >= 10
    assert ROWS - 1 not in rest
    allowed[:] = False
    allowed[[5, 9]] = True
    assert sketches.closest(vectors, query, 10, allowed).tolist() == [5, 9]


def test_a_large_shelf_answers_as_an_exact_scan_does() -> None:
    vectors = crowded(128)
    shelf = shelf_of(vectors)
    allowed = np.arange(ROWS) % 3 > 0
    found = 0
    for query in crowded(128, ROWS + 20)[ROWS:]:
        cosine = vectors @ query
        rows = shelf.nearest(query, 32, None)
        assert (np.diff(cosine[rows]) <= 1e-6).all()  # best first
        found += len(np.intersect1d(rows, np.argsort(-cosine)[:32]))
        some = shelf.nearest(query, 32, allowed)
        assert len(some) == 32
        assert allowed[some].all()
        found += len(np.intersect1d(some, np.argsort(-np.where(allowed, cosine, -1))[:32]))

    assert found >= 0.99 * 2 * 32 * 20


def test_a_small_shelf_is_looked_at_whole_and_ties_go_to_the_newer_case() -> None:
    vectors = np.repeat(crowded(16, 4), 3, axis=0)
    shelf = shelf_of(vectors)

    rows = shelf.nearest(vectors[0], 4, None)

    assert rows[:3].tolist() == [2, 1, 0]
    assert shelf.nearest(vectors[0], 4, np.arange(12) == 7).tolist() == [7]


def test_near_duplicates_on_a_large_shelf_are_those_an_exact_scan_finds() -> None:
    vectors = crowded(64)
    dice = np.random.default_rng(1)
    copies = vectors[:40] + dice.normal(scale=0.04, size=(40, 64)).astype(np.float32)  # cosines around .95
    vectors = np.concatenate([vectors, copies / np.linalg.norm(copies, axis=1, keepdims=True)])
    shelf = shelf_of(vectors, answers=2)
    odd = answered(-1, 1)

    found = 0
    for row in range(40):
        near = shelf.near(vectors[row], odd, 0.95)
        wanted = (np.arange(len(shelf)) % 2 == 1) & (vectors @ vectors[row] >= np.float32(0.95))
        assert near.tolist() == np.flatnonzero(wanted).tolist()
        found += len(near)
    assert 20 < found < 200
    assert shelf.near(vectors[1], odd, 1.01).tolist() == []  # a setting that takes nothing for a copy
