"""`similarity`: the paper's non-parametric memory. Show the K most similar cases, good and bad; learn nothing.

Source: Memento, arXiv 2508.16153, eq. 12 and 13. In the general form: μ0 uniform, Q = cosine, α → 0, no void case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memento_casebank.policies.base import Candidates, Choice, Decision, Outcome, Policy, PolicySettings, Query
from memento_casebank.policies.selection import select

__all__ = ["SimilarityPolicy", "SimilaritySettings"]


@dataclass(frozen=True, kw_only=True)
class SimilaritySettings(PolicySettings):
    threshold: float = -np.inf
    """Least cosine at which a case is shown. The paper has none."""


class SimilarityPolicy(Policy[SimilaritySettings]):
    name: ClassVar[str] = "similarity"

    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        similarity = candidates.table["similarity"].astype(np.float64)
        draws = np.append(similarity, self.settings.threshold)[None, :]
        return select(draws, k, rng, self.settings, value=similarity)

    def learn(self, decision: Decision, outcome: Outcome) -> None:
        """Nothing to learn: cases are kept, similarity is fixed."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
