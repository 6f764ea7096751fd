"""`cascade`: one case by logistic upper confidence bound (LinLogUCB), the void case an arm like the others.

Source: CASCADE, arXiv 2605.06702: UCB = σ(θᵀφ) + ν √(φᵀ A⁻¹ φ) with A = λI + Σ φφᵀ kept by Sherman-Morrison,
θ by online logistic regression, K = 1. The paper's φ is a cross-encoder trained on the fly; here φ is what relates
question and case (`relation_features`) and a signed-hash sketch of the elementwise product of their embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memento_casebank.policies.bag import FEATURES, relation_features
from memento_casebank.policies.base import Candidates, Choice, Decision, Floats, Outcome, Policy, PolicySettings, Query
from memento_casebank.policies.selection import select

__all__ = ["CascadePolicy", "CascadeSettings"]


@dataclass(frozen=True, kw_only=True)
class CascadeSettings(PolicySettings):
    confidence_width: float = 0.1
    """ν."""
    ridge: float = 0.1
    """λ of A."""
    learning_rate: float = 0.1
    sketch: int = 24
    """Buckets of the hashed elementwise product."""
    most_cases: int = 1
    """The paper shows one case (its `comk`)."""


class CascadePolicy(Policy[CascadeSettings]):
    name: ClassVar[str] = "cascade"

    def __init__(self, settings: CascadeSettings) -> None:
        super().__init__(settings)
        size = 1 + len(FEATURES) + settings.sketch  # the first feature marks the void case
        self._theta = np.zeros(size)
        self._inverse: Floats = np.eye(size) / settings.ridge  # A⁻¹
        self._sketch: Floats | None = None

    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        settings = self.settings
        phi = np.vstack([self.features(query, candidates), self._void()] if len(candidates) else [self._void()])
        width = np.sqrt(np.einsum("ij,jk,ik->i", phi, self._inverse, phi, optimize=True))
        mean = _sigmoid(phi @ self._theta)
        bound = mean + settings.confidence_width * width
        return select(
            bound[None, :], min(k, settings.most_cases), rng, settings, value=mean[:-1], value_sd=width[:-1] * 0.5
        )

    def learn(self, decision: Decision, outcome: Outcome) -> None:
        if outcome.reward is None:
            return
        for phi in self.features(decision.query, decision.shown):
            error = outcome.confidence * (outcome.reward - float(_sigmoid(phi @ self._theta)))
            self._theta += self.settings.learning_rate * error * phi
            pull = self._inverse @ phi
            self._inverse -= np.outer(pull, pull) / (1.0 + float(phi @ pull))

    def _void(self) -> Floats:
        phi = np.zeros(len(self._theta))
        phi[0] = 1.0
        return phi

    def features(self, query: Query, candidates: Candidates) -> Floats:
        """φ(s, c) of each candidate (N, size); for no candidates the one row of the void case."""
        if not len(candidates):
            return self._void()[None, :]
        phi = np.zeros((len(candidates), len(self._theta)))
        if self._sketch is None or len(self._sketch) != len(query.vector):
            self._sketch = _signed_hash(len(query.vector), self.settings.sketch)
        phi[:, 1 : 1 + len(FEATURES)] = relation_features(candidates.table)[:, 1:]
        phi[:, 1 + len(FEATURES) :] = 4.0 * (candidates.vectors * query.vector).astype(np.float64) @ self._sketch
        return phi

    def state_dict(self) -> dict[str, Any]:
        return {"theta": self._theta.copy(), "inverse": self._inverse.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._theta = np.array(state["theta"])
        self._inverse = np.array(state["inverse"])


def _signed_hash(dim: int, buckets: int) -> Floats:
    """(dim, buckets): each coordinate goes to one bucket with one sign, the same in every process."""
    rng = np.random.default_rng(20_605_067)
    sketch = np.zeros((dim, buckets))
    sketch[np.arange(dim), rng.integers(0, buckets, dim)] = rng.choice([-1.0, 1.0], dim)
    return sketch


def _sigmoid(z: Any) -> Any:
    return 0.5 * (1.0 + np.tanh(0.5 * z))
