"""`memrl`: similarity first, then similarity and learned utility half and half.

Source: MemRL, arXiv 2601.03192: phase A keeps cases above a similarity threshold; phase B ranks them by
(1-λ)·z(similarity) + λ·z(Q) with Q ← Q + α(r - Q), r in {-1, +1}, Q0 = 0, the same reward for every case shown.
The paper fixes the mean and sd of the z-scores per benchmark; here they are those of the candidates at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memento_casebank.policies.base import Candidates, Choice, Decision, Floats, Outcome, Policy, PolicySettings, Query
from memento_casebank.policies.selection import select
from memento_casebank.policies.slots import SlotTable

__all__ = ["MemRLPolicy", "MemRLSettings"]


@dataclass(frozen=True, kw_only=True)
class MemRLSettings(PolicySettings):
    threshold: float = 0.35
    """Least cosine of phase A (the paper: 0.35 to 0.62, by benchmark)."""
    utility_weight: float = 0.5
    """λ: the share of utility in the ranking."""
    learning_rate: float = 0.3
    """α of the moving average."""


class MemRLPolicy(Policy[MemRLSettings]):
    name: ClassVar[str] = "memrl"

    def __init__(self, settings: MemRLSettings) -> None:
        super().__init__(settings)
        self._utility = SlotTable([0.0])

    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        settings = self.settings
        similarity = candidates.table["similarity"].astype(np.float64)
        utility = self._utility.look(candidates.table["group"].tolist())[:, 0]
        score = (1.0 - settings.utility_weight) * _z(similarity) + settings.utility_weight * _z(utility)
        score = np.where(similarity >= settings.threshold, score, -np.inf)
        draws = np.append(score, np.finfo(np.float64).min)[None, :]
        return select(draws, k, rng, settings, value=utility)

    def learn(self, decision: Decision, outcome: Outcome) -> None:
        if outcome.reward is None or not len(decision.shown):
            return
        rows = self._utility.rows(decision.shown.table["group"].tolist())
        signed = 2.0 * outcome.reward - 1.0
        rate = self.settings.learning_rate * outcome.confidence
        self._utility.data[rows, 0] += rate * (signed - self._utility.data[rows, 0])

    def state_dict(self) -> dict[str, Any]:
        return {"utility": self._utility.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._utility.load_state_dict(state["utility"])


def _z(values: Floats) -> Floats:
    if not len(values):
        return values
    sd = float(values.std())
    return (values - values.mean()) / sd if sd > 1e-12 else np.zeros(len(values))
