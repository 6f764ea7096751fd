"""One namespace's cases as columns in memory: what a retrieval scans.

Owns the vector matrix and its sketches, the inverted index and the small facts about each case that filters and
policies need. It holds no text: that is read from the log for the few cases that are shown. Rows are numbered in the
order of the log and never move, so a row number is valid as long as the shelf is.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memento_casebank.lexical import InvertedIndex
from memento_casebank.policies.base import KIND_CODES, stable_key
from memento_casebank.records import Case, CaseStatus, InForce, plan_signature, plan_steps, task_key
from memento_casebank.sketches import Sketches

__all__ = ["STATUS_CODES", "Shelf", "highest"]

STATUS_CODES: dict[CaseStatus, int] = {"active": 0, "disabled": 1, "quarantined": 2, "archived": 3}
_STATUS_NAMES: list[CaseStatus] = list(STATUS_CODES)

_LOOK_AT = 6
"""Rows that `nearest` looks at exactly for each one asked for: of the 32 nearest it misses four in a thousand."""
_ALL_BELOW = 1_536
"""Every row is looked at exactly on a shelf with fewer: it is as fast."""

_COLUMNS = np.dtype(
    [
        ("seq", np.int64),
        ("created", np.float64),
        ("valid_until", np.float64),
        ("reward", np.float32),
        ("plan_length", np.float32),
        ("kind", np.int8),
        ("status", np.int8),
        ("group", np.int64),
        ("plan", np.int64),
        ("answer", np.int64),
        ("task", np.int64),
        ("shown", np.int32),
        ("strategy", np.bool_),
    ]
)


class Shelf:
    """Cases of one namespace, row by row."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.ids: list[str] = []
        self.row_of: dict[str, int] = {}
        self.row_of_seq: dict[int, int] = {}
        self.words = InvertedIndex()
        self._table = np.zeros(64, _COLUMNS)
        self._vectors = np.zeros((64, dim), np.float32)
        self._sketches = Sketches(dim)
        # What every retrieval asks of every row, apart from the wide table: one byte per case to scan.
        self._episodes_shown = np.zeros(64, np.bool_)
        self._strategies_shown = np.zeros(64, np.bool_)
        self._any_expires = False

    def __len__(self) -> int:
        return len(self.ids)

    def nearest(self, vector: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None) -> NDArray[np.intp]:
        """At most `count` of the `allowed` (N,) rows (None: all) with the highest cosine to `vector`, best first.

        Ties go to the newer row. On a large shelf sketches tell which rows to look at, so a far row of the answer may
        be missing: `memento-casebank bench latency` prints the recall.
        """
        if len(self) >= _ALL_BELOW:
            rows = self._sketches.closest(self.vectors, vector, _LOOK_AT * count, allowed)
        elif allowed is not None:
            rows = np.flatnonzero(allowed)
        else:
            return highest(self.vectors @ vector, count)
        return rows[highest(self.vectors_at(rows) @ vector, count)]

    def near(self, vector: NDArray[np.float32], case: Case, cosine: float) -> NDArray[np.intp]:
        """Rows with the plan and answer of `case` whose cosine to `vector` is at least `cosine`, oldest first.

        Thousands of cases may share one order of tools; on a large shelf sketches rule nearly all of them out.
        """
        plan, answer = _plan_key(case), _answer_key(case)
        if len(self) >= _ALL_BELOW:
            rows = self._sketches.within(self.vectors, vector, cosine)
            rows = rows[(self._table["plan"][rows] == plan) & (self._table["answer"][rows] == answer)]
        else:
            rows = np.flatnonzero((self.table["plan"] == plan) & (self.table["answer"] == answer))
        return rows[self.vectors_at(rows) @ vector >= np.float32(cosine)]

    @property
    def table(self) -> NDArray[np.void]:
        """(N,) facts about each case; writable."""
        return self._table[: len(self.ids)]

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(N, D) unit vectors of the questions."""
        return self._vectors[: len(self.ids)]

    def vectors_at(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, D) vectors of some rows."""
        return self._vectors.take(rows, axis=0, mode="clip")  # rows are valid; to have them checked doubles the time

    def add(self, seq: int, case: Case, vector: NDArray[np.float32]) -> int:
        """Put a case on the shelf and return its row."""
        row = len(self.ids)
        if row == len(self._table):
            self._grow(2 * row)
        facts: Any = self._table[row]
        facts["seq"] = seq
        facts["created"] = case.created
        facts["reward"] = np.nan
        facts["kind"] = KIND_CODES["unknown"]
        facts["group"] = stable_key(case.group or case.id)
        facts["task"] = stable_key(task_key(case.question))
        facts["shown"] = 0
        self._describe(row, case, "quarantined" if case.quarantine else "active")
        self._vectors[row] = vector
        self.ids.append(case.id)
        self.row_of[case.id] = row
        self.row_of_seq[seq] = row
        self.words.add(case.question)
        return row

    def set_outcome(self, row: int, outcome: InForce) -> None:
        facts: Any = self._table[row]
        facts["reward"] = np.nan if outcome.reward is None else outcome.reward
        facts["kind"] = KIND_CODES[outcome.kind or "unknown"]

    def set_standing(self, row: int, case: Case, status: CaseStatus) -> None:
        """Take in an edit: another status, or a revised plan, answer or expiry."""
        self._describe(row, case, status)

    def status(self, row: int) -> CaseStatus:
        return _STATUS_NAMES[int(self._table[row]["status"])]

    def showable(self, now: float, *, strategies: bool) -> NDArray[np.bool_]:
        """(N,) which cases may be shown at time `now`; strategies only if asked for. Do not write to it."""
        allowed = (self._episodes_shown | self._strategies_shown if strategies else self._episodes_shown)[: len(self)]
        return allowed & (self.table["valid_until"] > now) if self._any_expires else allowed

    def _describe(self, row: int, case: Case, status: CaseStatus) -> None:
        facts: Any = self._table[row]
        facts["status"] = STATUS_CODES[status]
        facts["valid_until"] = np.inf if case.valid_until is None else case.valid_until
        facts["plan_length"] = len(case.steps) or len(plan_steps(case.plan))
        facts["plan"] = _plan_key(case)
        facts["answer"] = _answer_key(case)
        facts["strategy"] = case.kind == "strategy"
        self._any_expires = self._any_expires or case.valid_until is not None
        self._episodes_shown[row] = status == "active" and case.kind == "episode"
        self._strategies_shown[row] = status == "active" and case.kind == "strategy"

    def _grow(self, capacity: int) -> None:
        self._table = _longer(self._table, capacity)
        self._vectors = _longer(self._vectors, capacity)
        self._episodes_shown = _longer(self._episodes_shown, capacity)
        self._strategies_shown = _longer(self._strategies_shown, capacity)


def _plan_key(case: Case) -> int:
    return stable_key(plan_signature(case.plan, case.steps, case.answer))


def _answer_key(case: Case) -> int:
    return stable_key(" ".join((case.answer or "").casefold().split()))


def highest(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Indices of the `count` highest scores, best first, ties to the later one."""
    count = min(count, len(scores))
    if count == 0:
        return np.zeros(0, np.intp)
    best = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
    return best[np.lexsort((-best, -scores[best]))]


def _longer(array: NDArray[Any], capacity: int) -> NDArray[Any]:
    longer = np.zeros((capacity, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
