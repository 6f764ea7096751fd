"""What a policy sees, what it answers and what it learns from: the one interface between the bank and every learner.

A policy chooses which past cases to show for a question, or none (the *void* case), and learns from the outcome.
It is numpy and plain data: it opens no file, knows no SQLite and no chromadb, and keeps no clock. Everything it
knows is a pure function of the sequence of `learn` calls, so the bank can rebuild it bit for bit from its log.

What the bank does for a policy: embeds, finds candidates, removes what may not be shown (quarantine, other
namespaces, self-retrieval), leaves at most one row per near-duplicate group, logs the decision, joins late outcomes
and calls `learn` in the order of the log. When an outcome is amended the bank replays: `make_policy`, then `learn`
for every decision with its outcome now in force, in the order of each decision's first outcome (or from a snapshot
made with `state_dict`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CANDIDATE_DTYPE",
    "KIND_CODES",
    "Z90",
    "Candidates",
    "Choice",
    "Decision",
    "Interval",
    "Outcome",
    "Policy",
    "PolicySettings",
    "Query",
    "RewardKind",
    "fingerprint",
    "stable_key",
]

Z90 = 1.645
"""Half width of a 90 % interval in standard deviations."""

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

RewardKind = Literal["verifier", "judge", "human", "self"]

KIND_CODES: Mapping[str, int] = {"unknown": 0, "self": 1, "judge": 2, "human": 3, "verifier": 4}
"""How a case's own reward was obtained, as stored in `CANDIDATE_DTYPE["kind"]`."""

CANDIDATE_DTYPE = np.dtype(
    [
        ("similarity", np.float32),  # cosine of question and case, -1..1
        ("bm25", np.float32),  # BM25 divided by the best BM25 of this query's candidates, 0..1 (0: no word shared)
        ("reward", np.float32),  # the case's own outcome, 0..1; NaN: unknown
        ("age_days", np.float32),  # age of the case at decision time
        ("plan_length", np.float32),  # number of steps in the case's plan
        ("kind", np.int8),  # KIND_CODES of the case's reward
        ("group", np.int64),  # near-duplicate group: rows of one group share what is learned about them
        ("plan", np.int64),  # signature of the plan (tools in order, or the answer when there are none); 0: unknown
    ]
)
"""One row per candidate; `table.tobytes()` and `np.frombuffer(..., CANDIDATE_DTYPE)` log it without loss."""


def stable_key(text: str) -> int:
    """A 63-bit key of a text that is the same in every process (unlike `hash`); never 0, which means unknown."""
    return (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1) or 1


@dataclass(frozen=True, slots=True)
class Query:
    """The question at hand."""

    vector: Vectors
    """(D,) float32, unit length (or all zero for a text the embedder cannot read)."""
    time: float = 0.0
    """Seconds since 1970 at which the decision was made. The only clock a policy has."""
    task: int = 0
    """Key of the task when the same (or a near-duplicate) task was asked before; 0: not known to repeat."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The cases that may be shown, one row each, at most one per near-duplicate group."""

    ids: tuple[str, ...]
    table: NDArray[np.void]
    """(N,) of `CANDIDATE_DTYPE`."""
    vectors: Vectors
    """(N, D) float32, unit rows, same embedder as the query."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Candidates:
        """The given rows, in the given order."""
        index = np.asarray(rows, dtype=np.intp)
        return Candidates(tuple(self.ids[row] for row in rows), self.table[index], self.vectors[index])


@dataclass(frozen=True, slots=True)
class Interval:
    """A probability (or a difference of two) with its 90 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy decided, with every number needed to explain it, audit it and estimate other policies from it."""

    rows: tuple[int, ...]
    """Candidate rows to show, best first; empty: the void case, show none."""
    void_probability: float
    """Probability with which this policy shows nothing for this query."""
    lead_probability: Floats
    """(N,) probability that a row is ranked first. Together with `void_probability` it sums to 1."""
    inclusion: Floats
    """(N,) probability that a row is shown at any rank: the propensity of a shown case."""
    value: Floats
    """(N,) what the policy thinks each case is worth. For outcome models (`scale == "lift"`): expected gain in
    P(success) over showing nothing; otherwise the policy's own score."""
    value_sd: Floats
    """(N,) its standard deviation; 0 where the policy keeps none."""
    sampled: Floats
    """(N,) the score that was ranked, on the scale of `value`; `sampled - value` is the part due to exploration."""
    scale: Literal["lift", "score"] = "score"
    success: Interval | None = None
    """Calibrated P(success) with the rows shown; None when the policy does not model outcomes."""
    without_memory: Interval | None = None
    """Calibrated P(success) had nothing been shown."""
    lift: Interval | None = None
    """Difference of the two."""
    forced: Literal["", "memory_off", "uniform", "probe"] = ""
    """Set when exploration overrode the policy: a run without memory, a uniform draw of candidates, or one case
    drawn from the untempered posterior (a policy that keeps one probes with it instead of uniformly)."""

    @property
    def propensities(self) -> tuple[float, ...]:
        """Inclusion probability of each shown row, in rank order."""
        return tuple(float(self.inclusion[row]) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision as `learn` needs it. Only the shown rows matter: the bank may drop the others from its cache."""

    query: Query
    shown: Candidates
    """The cases shown, in rank order; empty for the void case."""
    ancestors: tuple[tuple[int, int], ...] = ()
    """(group, depth ≥ 1) of the cases that were shown when a shown case was made, and so on (MemQ). Optional."""
    following: tuple[Query, Candidates] | None = None
    """The next planning step of the same run, for policies that look ahead (`kernel` with γ > 0). Optional."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the decision turned out."""

    reward: float | None
    """0..1; None: unknown. Nothing is ever learned from an unknown."""
    kind: RewardKind = "verifier"
    confidence: float = 1.0
    """How far the source is trusted, 0..1: a soft target q·r + (1-q)·p, where p is the prediction."""
    cited: frozenset[str] | None = None
    """Ids of the shown cases the agent says it used; None: it did not say."""
    time: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """Settings every policy has; each policy's own class adds to them and holds the values of its paper."""

    memory_off_share: float = 0.0
    """Least probability of showing nothing, 0..1 (EMPO²: 0.05): measures what memory is worth, continuously."""
    explore_share: float = 0.0
    """Probability of overriding the policy with a uniform draw (or its own probe), 0..1: keeps a policy that has
    come to distrust every case from never looking again, and supports off-policy estimates."""
    seed: int = 0
    """Seed of initial weights, where a policy has any. Choices draw from the generator given to `choose`."""


SettingsT = TypeVar("SettingsT", bound=PolicySettings)


class Policy(ABC, Generic[SettingsT]):
    """One rule for choosing cases. Not thread-safe: the bank calls it from its one writer.

    `choose` must be well under 1 ms for 48 candidates and must not change what is learned; `learn` well under
    0.3 ms. Two instances given the same sequence of `learn` calls are equal bit for bit (`fingerprint`).
    """

    name: ClassVar[str]
    state_version: ClassVar[int] = 1
    """Raised whenever `state_dict` or what is learned changes: snapshots of another version are not loaded."""

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings

    @abstractmethod
    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """Choose at most `k` of the candidates, or none. With no candidates the answer is the void case.

        The same state, arguments and generator state give the same choice.
        """

    @abstractmethod
    def learn(self, decision: Decision, outcome: Outcome) -> None:
        """Take in one outcome. An unknown reward changes nothing."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that was learned: plain values, lists, dicts and numpy arrays (a snapshot, safe to keep)."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a snapshot made by the same policy with the same settings."""


def fingerprint(policy: Policy[Any]) -> str:
    """Hex digest of everything a policy has learned: equal exactly when two states are equal bit for bit."""
    digest = hashlib.blake2b(policy.name.encode(), digest_size=16)
    _feed(digest, policy.state_dict())
    return digest.hexdigest()


def _feed(digest: hashlib.blake2b, value: object) -> None:
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value)
        for key in sorted(items, key=repr):  # insertion order is history, not state
            digest.update(repr(key).encode())
            _feed(digest, items[key])
    elif isinstance(value, (list, tuple)):
        for item in cast(Sequence[object], value):
            _feed(digest, item)
    elif isinstance(value, np.ndarray):
        array = cast(NDArray[Any], value)
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    else:
        digest.update(repr(value).encode())
