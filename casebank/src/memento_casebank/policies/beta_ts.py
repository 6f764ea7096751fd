"""`beta_ts`: Thompson sampling with one Beta posterior per case and one for showing nothing.

Source: the textbook rule (Thompson 1933; Chapelle & Li 2011). Every case shown takes the whole outcome, so cases
that travel with a good one are over-praised; that is the flaw the bag model answers, and why this is a baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memento_casebank.policies.base import Candidates, Choice, Decision, Outcome, Policy, PolicySettings, Query
from memento_casebank.policies.selection import DRAWS, select
from memento_casebank.policies.slots import SlotTable

__all__ = ["BetaTSPolicy", "BetaTSSettings"]

_VOID_KEY = 0  # group keys are positive


@dataclass(frozen=True, kw_only=True)
class BetaTSSettings(PolicySettings):
    threshold: float = 0.35
    """Least cosine at which a case takes part: the posteriors know nothing of the question."""
    prior_successes: float = 1.0
    prior_failures: float = 1.0


class BetaTSPolicy(Policy[BetaTSSettings]):
    name: ClassVar[str] = "beta_ts"

    def __init__(self, settings: BetaTSSettings) -> None:
        super().__init__(settings)
        self._counts = SlotTable([settings.prior_successes, settings.prior_failures])

    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        counts = self._counts.look([*candidates.table["group"].tolist(), _VOID_KEY])  # (N + 1, 2)
        draws = rng.beta(counts[:, 0], counts[:, 1], size=(DRAWS, len(counts)))
        near = candidates.table["similarity"] >= self.settings.threshold
        draws[:, :-1] = np.where(near, draws[:, :-1], -np.inf)
        total = counts.sum(axis=1)
        mean = counts[:, 0] / total
        sd = np.sqrt(mean * (1.0 - mean) / (total + 1.0))
        return select(draws, k, rng, self.settings, value=mean[:-1], value_sd=sd[:-1])

    def learn(self, decision: Decision, outcome: Outcome) -> None:
        if outcome.reward is None:
            return
        rows = self._counts.rows(decision.shown.table["group"].tolist() or [_VOID_KEY])
        self._counts.data[rows, 0] += outcome.confidence * outcome.reward
        self._counts.data[rows, 1] += outcome.confidence * (1.0 - outcome.reward)

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self._counts.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._counts.load_state_dict(state["counts"])
