"""Small made-up worlds for policies: candidates from numbers, and one in which some cases are truly good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memento_casebank.policies.base import CANDIDATE_DTYPE, Candidates, Choice, Decision, Outcome, Policy, Query

DIM = 16


def unit(rng: np.random.Generator, count: int, dim: int = DIM) -> NDArray[np.float32]:
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def candidates(similarity: Sequence[float], *, seed: int = 0, groups: Sequence[int] | None = None) -> Candidates:
    """Candidates `case-1`, `case-2`, … of these similarities."""
    n = len(similarity)
    table = np.zeros(n, CANDIDATE_DTYPE)
    table["similarity"] = similarity
    table["bm25"] = similarity
    table["reward"] = 1.0
    table["plan_length"] = 3
    table["group"] = groups if groups is not None else np.arange(1, n + 1)
    table["plan"] = table["group"]
    return Candidates(tuple(f"case-{i + 1}" for i in range(n)), table, unit(np.random.default_rng(seed), n))


def query(seed: int = 0, time: float = 0.0, task: int = 0) -> Query:
    return Query(unit(np.random.default_rng(1_000 + seed), 1)[0], time, task)


def decide(policy: Policy[Any], offered: Candidates, asked: Query, rng: np.random.Generator, k: int = 4) -> Choice:
    return policy.choose(asked, offered, k, rng)


@dataclass
class PlantedWorld:
    """Twelve cases for one kind of question: the first three lead to success, the others to failure."""

    seed: int
    good: frozenset[int] = frozenset({0, 1, 2})
    without: float = 0.4
    """P(success) when nothing is shown."""

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.centre = unit(self.rng, 1)[0]
        self.vectors = unit(self.rng, 12)

    def offer(self) -> Candidates:
        table = np.zeros(12, CANDIDATE_DTYPE)
        table["similarity"] = 0.7 + 0.02 * self.rng.random(12)  # similarity says nothing about who is good
        table["bm25"] = 0.5
        table["reward"] = 1.0
        table["group"] = np.arange(1, 13)
        table["plan"] = table["group"]
        return Candidates(tuple(f"case-{i + 1}" for i in range(12)), table, self.vectors)

    def run(self, policy: Policy[Any], steps: int, k: int = 1) -> float:
        """Let the policy live here; returns its success over the last quarter."""
        successes: list[float] = []
        for step in range(steps):
            near = self.centre + 0.1 * unit(self.rng, 1)[0]
            asked = Query((near / np.linalg.norm(near)).astype(np.float32), 60.0 * step)
            offered = self.offer()
            choice = policy.choose(asked, offered, k, self.rng)
            if choice.rows:
                chance = float(np.mean([0.95 if row in self.good else 0.05 for row in choice.rows]))
            else:
                chance = self.without
            reward = float(self.rng.random() < chance)
            successes.append(reward)
            policy.learn(Decision(asked, offered.take(choice.rows)), Outcome(reward, time=asked.time))
        return float(np.mean(successes[-steps // 4 :]))


def random_history(steps: int, seed: int) -> list[tuple[Decision, Outcome]]:
    """Decisions and outcomes of all shapes: void, cited or not, soft, doubtful, unknown."""
    rng = np.random.default_rng(seed)
    history: list[tuple[Decision, Outcome]] = []
    for step in range(steps):
        offered = candidates(rng.random(6).tolist(), seed=int(rng.integers(50)), groups=rng.integers(1, 30, 6).tolist())
        shown = offered.take(rng.permutation(6)[: int(rng.integers(0, 5))].tolist())
        asked = query(int(rng.integers(20)), time=86_400.0 * step / 10, task=int(rng.integers(0, 4)))
        cited = None if rng.random() < 0.5 else frozenset(shown.ids[:1])
        reward = None if rng.random() < 0.1 else float(rng.choice([0.0, 1.0, 0.5]))
        kind = "judge" if rng.random() < 0.3 else "verifier"
        outcome = Outcome(reward, kind, float(rng.choice([1.0, 0.7])), cited, asked.time)
        history.append((Decision(asked, shown), outcome))
    return history
