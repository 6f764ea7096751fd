"""`advantage` (L1): how much better than usual did things go when this case was shown?

Every case keeps a shrunk mean of reward minus the usual reward for that kind of question (its cluster; when the same
task was asked before, the mean of its other attempts: LOOP's leave-one-out baseline, arXiv 2502.01600). The void
case is worth 0 by definition, so a case is shown only while its sampled advantage is positive. In the general form:
μ0 uniform, Q = gated advantage drawn from its posterior with tempered noise τ, α → 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memento_casebank.policies.base import Candidates, Choice, Decision, Floats, Outcome, Policy, PolicySettings, Query
from memento_casebank.policies.selection import DRAWS, select
from memento_casebank.policies.slots import SlotTable, UnitClusters

__all__ = ["AdvantagePolicy", "AdvantageSettings", "Baseline"]


@dataclass(frozen=True, kw_only=True)
class AdvantageSettings(PolicySettings):
    memory_off_share: float = 0.05
    temperature: float = 0.3
    """τ: 0 is greedy, 1 is plain Thompson sampling."""
    clusters: int = 64
    prior_weight: float = 3.0
    """n0: outcomes the prior of a case counts for."""
    prior_advantage: float = 0.02
    """Prior advantage of a case nobody has shown: cases help a little until shown otherwise."""
    cited_weight: float = 1.0
    uncited_weight: float = 0.3
    """Weight of an outcome for a case that was shown and not cited, when the agent says what it cited."""


class Baseline:
    """The usual reward of a question: of the same task's other attempts when there are any, else of its cluster."""

    def __init__(self, clusters: int) -> None:
        self._clusters = UnitClusters(clusters)
        self._of_cluster = SlotTable([2.0, 4.0])  # sum and count: starts at one half, weighing four outcomes
        self._of_task = SlotTable([0.0, 0.0])

    def look(self, query: Query) -> float:
        """The baseline for a question whose outcome is not yet known."""
        if query.task:
            total, count = self._of_task.look([query.task])[0]
            if count > 0:
                return float(total / count)
        total, count = self._of_cluster.look([self._clusters.nearest(query.vector)])[0]
        return float(total / count)

    def take(self, query: Query, reward: float) -> float:
        """The baseline this reward is compared with; it never contains the reward itself."""
        baseline = self.look(query)
        rows = self._of_cluster.rows([self._clusters.assign(query.vector)])
        self._of_cluster.data[rows] += (reward, 1.0)
        if query.task:
            rows = self._of_task.rows([query.task])  # before `data`, which moves when the table grows
            self._of_task.data[rows] += (reward, 1.0)
        return baseline

    def state_dict(self) -> dict[str, Any]:
        return {
            "clusters": self._clusters.state_dict(),
            "of_cluster": self._of_cluster.state_dict(),
            "of_task": self._of_task.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._clusters.load_state_dict(state["clusters"])
        self._of_cluster.load_state_dict(state["of_cluster"])
        self._of_task.load_state_dict(state["of_task"])


class AdvantagePolicy(Policy[AdvantageSettings]):
    name: ClassVar[str] = "advantage"

    def __init__(self, settings: AdvantageSettings) -> None:
        super().__init__(settings)
        self._baseline = Baseline(settings.clusters)
        self._cases = SlotTable([0.0, 0.0])  # weighted sum of advantages, sum of weights

    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        settings = self.settings
        similarity = candidates.table["similarity"].astype(np.float64)
        total, count = self._cases.look(candidates.table["group"].tolist()).T
        weight = count + settings.prior_weight
        advantage = (total + settings.prior_weight * settings.prior_advantage) / weight
        sd = 0.5 / np.sqrt(count + 2.0)
        gate = np.clip((similarity - 0.2) / 0.5, 0.05, 1.0)
        noise = settings.temperature * sd * rng.standard_normal((DRAWS, len(similarity)))
        scores = gate * (advantage + noise) + 0.02 * _z(similarity)
        draws = np.column_stack([scores, np.zeros(len(scores))])
        return select(draws, k, rng, settings, value=gate * advantage, value_sd=gate * sd)

    def learn(self, decision: Decision, outcome: Outcome) -> None:
        if outcome.reward is None:
            return
        advantage = outcome.reward - self._baseline.take(decision.query, outcome.reward)
        if not len(decision.shown):
            return
        settings = self.settings
        rows = self._cases.rows(decision.shown.table["group"].tolist())
        for row, case_id in zip(rows, decision.shown.ids, strict=True):
            cited = outcome.cited is None or case_id in outcome.cited
            weight = outcome.confidence * (settings.cited_weight if cited else settings.uncited_weight)
            self._cases.data[row] += (weight * advantage, weight)

    def state_dict(self) -> dict[str, Any]:
        return {"baseline": self._baseline.state_dict(), "cases": self._cases.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._baseline.load_state_dict(state["baseline"])
        self._cases.load_state_dict(state["cases"])


def _z(values: Floats) -> Floats:
    if not len(values):
        return values
    sd = float(values.std())
    return (values - values.mean()) / sd if sd > 1e-12 else np.zeros(len(values))
