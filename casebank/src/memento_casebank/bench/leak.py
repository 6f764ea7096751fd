"""`bench leak`: what the paper's released training data can and cannot teach.

Each row pairs a query with one retrieved case and says whether the *query* was answered (`truth_label`). The label is
the same for all rows of a query, so a split by row puts the answer of every test row into the training rows: a table
that just remembers queries scores 1.000. Split by query, what remains is how hard a question looks; which case helps
cannot be learned from this file at all. The bench shows both numbers and their cause, and fails nothing quietly.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from memento_casebank.bench.world import DataError
from memento_casebank.embedders import Embedder

__all__ = ["LeakReport", "auc", "check_leak", "grouped_folds", "read_pairs", "row_folds"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    query: str
    case: str
    case_positive: bool
    answered: bool


@dataclass(frozen=True)
class LeakReport:
    rows: int
    queries: int
    positive_share: float
    label_constant_per_query: bool
    self_rows: int
    """Rows whose case is the query itself."""
    duplicate_rows: int
    case_label_auc: float
    """Of the case's own label for the query's outcome, over all rows."""
    lookup_row_split: float
    """AUC of remembering queries, split by row."""
    lookup_grouped: float
    """The same, split by query: nothing can be remembered."""
    text_row_split: float
    """AUC of a logistic model on the embeddings of query and case, split by row."""
    text_grouped: float
    """The same, split by query."""
    why: str


def read_pairs(path: Path) -> list[Pair]:
    """Read `{query, case, case_label, truth_label}` lines.

    Raises:
        DataError: a line is not of that form; the message names it.
    """
    pairs: list[Pair] = []
    with path.open("rb") as file:  # json finds the encoding, and a wrong one belongs to a line
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = cast(dict[str, Any], json.loads(line))
                pairs.append(
                    Pair(
                        str(row["query"]),
                        str(row["case"]),
                        row["case_label"] == "positive",
                        bool(row["truth_label"]),
                    )
                )
            except KeyError as exc:
                raise DataError(f"{path}, line {number}: no field {exc.args[0]!r}.") from exc
            except (ValueError, TypeError) as exc:
                raise DataError(f"{path}, line {number} is not a JSON object ({exc}).") from exc
    if not pairs:
        raise DataError(f"{path} holds no rows.")
    return pairs


def check_leak(pairs: Sequence[Pair], embedder: Embedder, *, folds: int = 5, seed: int = 0) -> LeakReport:
    """Measure how much of a model's score on this file is memory of the query."""
    labels = np.array([pair.answered for pair in pairs], np.float64)
    queries = [pair.query for pair in pairs]
    by_query: dict[str, set[bool]] = defaultdict(set)
    for pair in pairs:
        by_query[pair.query].add(pair.answered)
    x = _features(pairs, embedder)
    by_row, by_group = row_folds(len(pairs), folds, seed), grouped_folds(queries, folds, seed)
    report = LeakReport(
        rows=len(pairs),
        queries=len(by_query),
        positive_share=float(labels.mean()),
        label_constant_per_query=all(len(seen) == 1 for seen in by_query.values()),
        self_rows=sum(pair.query == pair.case for pair in pairs),
        duplicate_rows=len(pairs) - len(set(pairs)),
        case_label_auc=auc(np.array([pair.case_positive for pair in pairs], np.float64), labels),
        lookup_row_split=auc(_lookup(queries, labels, by_row), labels),
        lookup_grouped=auc(_lookup(queries, labels, by_group), labels),
        text_row_split=auc(_logistic(x, labels, by_row), labels),
        text_grouped=auc(_logistic(x, labels, by_group), labels),
        why="",
    )
    return replace(report, why=_explain(report))


def _explain(report: LeakReport) -> str:
    if not report.label_constant_per_query:
        return "Labels differ within queries, so cases can be compared; split by query all the same."
    return (
        f"The label is constant within each of the {report.queries} queries: {report.rows} rows hold only "
        f"{report.queries} outcomes. Splitting by row lets a table of queries score {report.lookup_row_split:.3f}; "
        f"split by query it scores {report.lookup_grouped:.3f}, and text reaches {report.text_grouped:.3f}, which is "
        "how hard a question looks. No row says that one case helped where another did not: case lift is not "
        "identified."
    )


def row_folds(rows: int, folds: int, seed: int) -> NDArray[np.int64]:
    """Fold (rows,) of each row, regardless of its query: the split that leaks."""
    return np.random.default_rng(seed).permutation(rows) % folds


def grouped_folds(groups: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold (rows,) of each row, the same for all rows of a group."""
    names = sorted(set(groups))
    fold_of = dict(zip(names, (np.random.default_rng(seed).permutation(len(names)) % folds).tolist(), strict=True))
    return np.array([fold_of[group] for group in groups], np.int64)


def auc(score: Floats, label: Floats) -> float:
    """Area under the ROC curve; tied scores count half. NaN when there is one class only."""
    positive = label > 0.5
    if positive.all() or not positive.any():
        return float("nan")
    order = np.sort(score)
    rank = (np.searchsorted(order, score, "left") + np.searchsorted(order, score, "right") + 1) / 2.0
    n = int(positive.sum())
    return float((rank[positive].sum() - n * (n + 1) / 2.0) / (n * (len(label) - n)))


def _lookup(queries: Sequence[str], labels: Floats, fold: NDArray[np.int64]) -> Floats:
    """Predict the mean label that this very query had in the other folds; one half when it had none."""
    score = np.full(len(labels), 0.5)
    for index in range(int(fold.max()) + 1):
        total: defaultdict[str, float] = defaultdict(float)
        count: Counter[str] = Counter()
        for row in np.flatnonzero(fold != index).tolist():
            total[queries[row]] += float(labels[row])
            count[queries[row]] += 1
        for row in np.flatnonzero(fold == index).tolist():
            if count[queries[row]]:
                score[row] = total[queries[row]] / count[queries[row]]
    return score


def _features(pairs: Sequence[Pair], embedder: Embedder) -> Floats:
    """Query, case and their elementwise product, embedded, plus the case's label (N, 3D + 2)."""
    texts = sorted({pair.query for pair in pairs} | {pair.case for pair in pairs})
    place = {text: row for row, text in enumerate(texts)}
    vectors = embedder.embed(texts).astype(np.float64)
    query = vectors[[place[pair.query] for pair in pairs]]
    case = vectors[[place[pair.case] for pair in pairs]]
    label = np.array([[1.0, float(pair.case_positive)] for pair in pairs])
    return np.hstack([4.0 * query, 4.0 * case, 16.0 * query * case, label])


def _logistic(x: Floats, labels: Floats, fold: NDArray[np.int64], ridge: float = 10.0, steps: int = 8) -> Floats:
    """Out-of-fold scores of ridge logistic regression, by Newton's method."""
    score = np.zeros(len(labels))
    for index in range(int(fold.max()) + 1):
        train, test = fold != index, fold == index
        theta = np.zeros(x.shape[1])
        for _ in range(steps):
            p = 1.0 / (1.0 + np.exp(-x[train] @ theta))
            gradient = x[train].T @ (p - labels[train]) + ridge * theta
            curvature = (x[train] * (p * (1.0 - p))[:, None]).T @ x[train] + ridge * np.eye(len(theta))
            theta -= np.linalg.solve(curvature, gradient)
        score[test] = x[test] @ theta
    return score
