"""Which cases a policy gets to choose from: nearest by vector and by words, fused, filtered, spread out.

Owns the path from a question to at most `limit` shelf rows, and to what a policy is told about them. It does not judge
usefulness: that is the policy's.
Sources: reciprocal rank fusion (Cormack et al. 2009), maximal marginal relevance (Carbonell & Goldstein 1998).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memento_casebank.policies.base import CANDIDATE_DTYPE, Candidates
from memento_casebank.shelf import Shelf, highest

__all__ = ["CandidateSettings", "Found", "describe", "find", "look"]

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

_SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class CandidateSettings:
    """How many cases are considered; the defaults are those of guides/casebank.md §5b."""

    dense: int = 32
    """Nearest by cosine."""
    lexical: int = 32
    """Best by BM25; 0 leaves words out."""
    limit: int = 48
    """Most candidates handed to the policy."""
    fusion_constant: float = 60.0
    """k of reciprocal rank fusion."""
    relevance_share: float = 0.7
    """λ of MMR: 1 ranks by relevance alone, smaller spreads candidates out."""
    exposure_floor: int = 4
    """Places kept for neighbours that were hardly ever shown, so that early winners do not shut the door."""
    exposure_shown: int = 3
    """A case shown fewer times than this counts as hardly ever shown."""
    same_task_cosine: float = 0.98
    """In evaluation, a case this close to the question counts as the question itself."""


@dataclass(frozen=True)
class Found:
    """Candidate rows, best first, with what is known about each for this question."""

    rows: Rows
    """(n,) shelf rows."""
    similarity: Floats
    """(n,) cosine, -1..1."""
    bm25: Floats
    """(n,) BM25 over the best candidate's, 0..1."""
    vectors: Floats
    """(n, D) the rows' vectors."""


def find(
    shelf: Shelf,
    vector: Floats,
    text: str,
    allowed: NDArray[np.bool_],
    settings: CandidateSettings,
) -> Found:
    """Find candidates for a question among the `allowed` (N,) rows of a shelf."""
    n = len(shelf)
    everyone = bool(allowed.all())
    if n == 0 or not (everyone or allowed.any()):
        return look(shelf, np.zeros(0, np.intp), vector, np.zeros(n, np.float32))
    near = shelf.nearest(vector, 2 * settings.dense, None if everyone else allowed)  # half for the exposure floor only
    bm25 = shelf.words.scores(text) if settings.lexical else np.zeros(n, np.float32)
    sharing = np.flatnonzero(bm25 > 0.0 if everyone else (bm25 > 0.0) & allowed)
    worded = sharing[highest(bm25[sharing], settings.lexical)]
    pool, score = _fuse([near[: settings.dense], worded], settings.fusion_constant)
    pool, score = _one_per_group(shelf, pool, score)
    if len(pool) > settings.limit:
        pool = pool[_spread(shelf.vectors_at(pool), score, settings.limit, settings.relevance_share)]
    return look(shelf, _with_newcomers(shelf, pool, near, settings), vector, bm25)


def describe(shelf: Shelf, found: Found, now: float) -> Candidates:
    """What a policy is told about these rows at the time `now`."""
    facts = shelf.table[found.rows]
    table = np.zeros(len(facts), CANDIDATE_DTYPE)
    table["similarity"] = found.similarity
    table["bm25"] = found.bm25
    table["age_days"] = (now - facts["created"]) / _SECONDS_PER_DAY
    for name in ("reward", "plan_length", "kind", "group", "plan"):
        table[name] = facts[name]
    rows: list[int] = found.rows.tolist()
    return Candidates(tuple([shelf.ids[row] for row in rows]), table, found.vectors)


def look(shelf: Shelf, rows: Rows, vector: Floats, bm25: Floats) -> Found:
    """What is known for a question about these rows, given its vector and the BM25 scores (N,) of all rows."""
    words: Floats = bm25[rows]
    best = max(float(words.max(initial=0.0)), 1e-9)
    vectors = shelf.vectors_at(rows)
    return Found(rows, vectors @ vector, (words / best).astype(np.float32), vectors)


def _fuse(rankings: list[Rows], constant: float) -> tuple[Rows, Floats]:
    """Reciprocal rank fusion: rows with Σ 1/(constant + rank), best first."""
    score: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking.tolist(), start=1):
            score[row] = score.get(row, 0.0) + 1.0 / (constant + rank)
    best = sorted(zip(score.values(), score, strict=True), reverse=True)  # ties go to the newer row
    return np.array([row for _, row in best], np.intp), np.array([worth for worth, _ in best], np.float32)


def _one_per_group(shelf: Shelf, pool: Rows, score: Floats) -> tuple[Rows, Floats]:
    """Keep the best row of each near-duplicate group; copies of one attempt are one piece of evidence."""
    first: dict[int, int] = {}
    for at, group in enumerate(shelf.table["group"][pool].tolist()):
        first.setdefault(group, at)
    keep = list(first.values())
    return pool[keep], score[keep]


def _spread(vectors: Floats, score: Floats, limit: int, share: float) -> Rows:
    """Indices of at most `limit` rows, dropping those least relevant and most like a better one (MMR, in one pass).

    The order stays that of `score`: a policy ranks by itself, so only who is dropped matters.
    """
    n = len(score)
    if share >= 1.0:
        return np.arange(limit, dtype=np.intp)
    to_better = np.tril(vectors @ vectors.T, -1).max(axis=1)
    worth = np.float32(share) * score / score[0] - np.float32(1.0 - share) * to_better
    return np.sort(np.argpartition(worth, n - limit)[n - limit :])


def _with_newcomers(shelf: Shelf, rows: Rows, near: Rows, settings: CandidateSettings) -> Rows:
    """Make sure that `exposure_floor` rows were hardly ever shown, as far as the neighbourhood has such."""
    shown = shelf.table["shown"]
    group = shelf.table["group"]
    floor = min(settings.exposure_floor, settings.limit // 2)  # the best known are never crowded out
    missing = floor - int(np.count_nonzero(shown[rows] < settings.exposure_shown))
    if missing <= 0:
        return rows
    groups = set(group[rows].tolist())
    extra: list[int] = []
    for row in near.tolist():
        if len(extra) == missing:
            break
        if shown[row] < settings.exposure_shown and int(group[row]) not in groups:
            groups.add(int(group[row]))
            extra.append(row)
    head = rows[: max(0, settings.limit - len(extra))]
    return np.concatenate([head, np.asarray(extra, np.intp)])
