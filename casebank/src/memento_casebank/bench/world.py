"""What the learning benches share: a data set of utterances, a shelf with the shipped candidates, named policies.

Nothing is simulated about retrieval: the embedder, the inverted index, the fusion and the filters are the shipped
ones (`embedders`, `shelf`, `candidates`). Only the disk is left out, which learning does not see.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memento_casebank.candidates import CandidateSettings, describe, find
from memento_casebank.embedders import Embedder
from memento_casebank.policies import make_policy
from memento_casebank.policies.base import Candidates, Policy
from memento_casebank.records import Case, InForce
from memento_casebank.shelf import Shelf

__all__ = ["BenchShelf", "DataError", "PolicySpec", "Utterances", "calibration_error", "read_utterances"]

Vectors = NDArray[np.float32]
SECONDS_PER_TASK = 60.0
"""How far apart the tasks of a bench are taken to be."""


class DataError(ValueError):
    """A file given to a bench is not of the form it should be; the message names it."""


@dataclass(frozen=True)
class Utterances:
    texts: list[str]
    labels: NDArray[np.int64]
    """(N,) index into `names`."""
    names: list[str]
    vectors: Vectors
    """(N, D)."""


def read_utterances(path: Path, embedder: Embedder) -> Utterances:
    """Read a CSV with the columns `text` and `category` and embed every text once.

    Raises:
        DataError: it is not text, the columns are not there, or there is no row.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as exc:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({exc}).") from exc
    if not rows or not {"text", "category"} <= set(rows[0]):
        raise DataError(f"{path} has no rows with the columns 'text' and 'category'.")
    texts = [row["text"] for row in rows]
    names = sorted({row["category"] for row in rows})
    place = {name: index for index, name in enumerate(names)}
    labels = np.asarray([place[row["category"]] for row in rows], np.int64)
    return Utterances(texts, labels, names, embedder.embed(texts))


class BenchShelf:
    """Cases in memory, found with the shipped candidate search."""

    def __init__(self, dim: int, settings: CandidateSettings, *, near_duplicate_cosine: float = 0.97) -> None:
        self._shelf = Shelf(dim)
        self._settings = settings
        self._near_duplicate_cosine = near_duplicate_cosine
        self._groups: list[str] = []
        self._answers: list[str] = []

    def __len__(self) -> int:
        return len(self._shelf)

    def add(self, question: str, vector: Vectors, answer: str, time: float, reward: float = 1.0) -> None:
        """Keep a case; its id is its number in order."""
        case_id = str(len(self._shelf))
        case = Case(
            id=case_id,
            created=time,
            question=question,
            plan={"answer": answer},
            answer=answer,
            group=self._group(vector, answer, case_id),
        )
        row = self._shelf.add(len(self._shelf), case, vector)
        self._shelf.set_outcome(row, InForce(reward, "verifier", 1.0, None, time))
        self._groups.append(case.group)
        self._answers.append(answer)

    def _group(self, vector: Vectors, answer: str, case_id: str) -> str:
        """Near duplicates with the same answer are one piece of evidence, as in the bank."""
        if not len(self._shelf):
            return case_id
        cosine = self._shelf.vectors @ vector
        near = int(np.argmax(cosine))
        same = cosine[near] > self._near_duplicate_cosine and self._answers[near] == answer
        return self._groups[near] if same else case_id

    def answer(self, case_id: str) -> str:
        return self._answers[int(case_id)]

    def candidates(self, question: str, vector: Vectors, time: float) -> Candidates:
        found = find(self._shelf, vector, question, np.ones(len(self._shelf), np.bool_), self._settings)
        return describe(self._shelf, found, time)

    def count_shown(self, case_ids: Sequence[str]) -> None:
        for case_id in case_ids:
            self._shelf.table["shown"][int(case_id)] += 1


@dataclass(frozen=True)
class PolicySpec:
    """A policy as named on the command line: `bag`, or `similarity:threshold=0.5`, or `no_memory`."""

    text: str

    @property
    def uses_memory(self) -> bool:
        return self.text != "no_memory"

    def make(self, seed: int, **more: Any) -> Policy[Any]:
        """A fresh policy.

        Raises:
            ValueError: the policy, a setting or a value does not exist.
        """
        name, _, options = self.text.partition(":")
        settings: dict[str, Any] = {"seed": seed}
        for option in filter(None, options.split(",")):
            key, equals, value = option.partition("=")
            if not equals:
                raise ValueError(f"{option!r} in {self.text!r} is not of the form setting=value.")
            settings[key] = _value(value)
        return make_policy(name if self.uses_memory else "similarity", **settings, **more)


def _value(text: str) -> bool | int | float:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return float(text)


def calibration_error(predicted: NDArray[np.float64], happened: NDArray[np.float64], bins: int = 15) -> float:
    """Expected calibration error: |mean prediction - frequency| over equal-width bins, weighted by their size."""
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    error = 0.0
    for index in range(bins):
        inside = place == index
        if inside.any():
            error += float(inside.mean() * abs(predicted[inside].mean() - happened[inside].mean()))
    return error
