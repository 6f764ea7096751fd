"""`kernel`: the paper's episodic control. A case is worth what it earned for similar questions.

Q_EC(s, c; θ) = Σ k_θ(s, s_i) Q_i / Σ k_θ(s, s_i) over the episodes (s_i, Q_i) in which c was shown (Memento, arXiv
2508.16153, eq. 9), the loss (Q_EC - y)² and its gradient as in eq. 10 and 11, sampling as in eq. 7. The target is
y = r + γ α log Σ exp(Q_EC(s', c'; θ̄)/α), with the 1/α that the paper's print lacks; θ̄ is the slow target network.
The paper leaves k_θ open: here exp(-|P(s - s')|²/2), P a trained projection. It leaves an empty memory open, too:
here every case starts with one episode of constant kernel and value Q0, which is Memento 2's idea of a prior.

Planning is one step in this project, so γ = 0 unless decisions name the step that followed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from memento_casebank.policies.base import (
    Candidates,
    Choice,
    Decision,
    Floats,
    Outcome,
    Policy,
    PolicySettings,
    Query,
    Vectors,
)
from memento_casebank.policies.selection import (
    boltzmann,
    general_form,
    gumbel_scores,
    parzen_prior,
    select,
    soft_value,
)

__all__ = ["KernelPolicy", "KernelSettings", "episodic_value", "episodic_value_and_gradient"]

_VOID = 0  # group keys are positive


@dataclass(frozen=True, kw_only=True)
class KernelSettings(PolicySettings):
    alpha: float = 0.1
    gamma: float = 0.0
    learning_rate: float = 0.05
    projection: int = 16
    """Dimensions of the trained projection P."""
    sharpness: float = 4.0
    """Initial scale of P: larger looks at nearer questions only."""
    prior_value: float = 0.5
    prior_kernel: float = 0.3
    """Q0 and the constant kernel of the episode every case starts with."""
    target_every: int = 32
    """Outcomes between two updates of θ̄ ← β θ + (1 - β) θ̄."""
    target_share: float = 0.5
    """β."""
    episodes: int = 4096
    """Newest episodes kept, over all cases."""
    episodes_per_case: int = 16
    batch: int = 4
    bandwidth: float = 0.1
    void_similarity: float = 0.4
    """The Parzen prior, as in `soft_q`; inf and -inf give the paper."""


def episodic_value(
    distance_sq: Floats, values: Floats, prior_kernel: float, prior_value: float
) -> tuple[float, Floats]:
    """f = Σ w_i Q_i and the weights (m,), for squared projected distances (m,) and episode values (m,)."""
    kernel = np.exp(-0.5 * distance_sq)
    total = prior_kernel + kernel.sum()
    weights = kernel / total
    return float(weights @ values + prior_kernel / total * prior_value), weights


def episodic_value_and_gradient(
    projection: Floats, state: Floats, states: Floats, values: Floats, prior_kernel: float, prior_value: float
) -> tuple[float, Floats]:
    """f(s, c) and df/dP: Σ w_i (Q_i - f) ∇ log k (eq. 11 without its factor 2(f - y)).

    Args:
        projection: P (p, D).
        state: s (D,).
        states: s_i (m, D) of the episodes of one case, with `values` Q_i (m,).
    """
    delta = state - states  # (m, D)
    projected = delta @ projection.T  # (m, p)
    f, weights = episodic_value((projected * projected).sum(axis=1), values, prior_kernel, prior_value)
    pull = weights * (values - f)
    return f, -(pull[:, None] * projected).T @ delta


class KernelPolicy(Policy[KernelSettings]):
    name: ClassVar[str] = "kernel"

    def __init__(self, settings: KernelSettings) -> None:
        super().__init__(settings)
        self._online: Floats = np.zeros((0, 0))  # P of θ (p, D)
        self._target: Floats = np.zeros((0, 0))  # P of θ̄
        self._states: Vectors = np.zeros((0, 0), np.float32)  # ring of episodes (episodes, D)
        self._projected: Floats = np.zeros((0, 0))  # the same, through θ̄
        self._values: Floats = np.zeros(0)
        self._owner: NDArray[np.int64] = np.zeros(0, np.int64)
        self._of_case: dict[int, list[int]] = {}
        self._written = 0
        self._learned = 0

    # -- reading ------------------------------------------------------------------------------------------------

    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        settings = self.settings
        arms = self._read(query, candidates)
        if not len(candidates):
            return select(np.zeros((1, 1)), k, rng, settings, value=arms[:-1])
        log_prior = self._prior(candidates)
        lead = boltzmann(log_prior, arms, settings.alpha)
        draws = gumbel_scores(general_form(log_prior, arms, settings.alpha), rng)
        return select(draws, k, rng, settings, value=arms[:-1], lead=lead)

    def _prior(self, candidates: Candidates) -> Floats:
        similarity = candidates.table["similarity"].astype(np.float64)
        return parzen_prior(similarity, self.settings.bandwidth, self.settings.void_similarity)

    def _read(self, query: Query, candidates: Candidates) -> Floats:
        """Q_EC of each candidate and, last, of the void case (N + 1,), through the target network."""
        groups: list[int] = [*candidates.table["group"].tolist(), _VOID]
        settings = self.settings
        arms = np.full(len(groups), settings.prior_value)
        rows = [self._of_case.get(group, []) for group in groups]
        counts = [len(of_case) for of_case in rows]
        if not sum(counts):
            return arms
        flat = np.fromiter((row for of_case in rows for row in of_case), np.intp, sum(counts))
        arm = np.repeat(np.arange(len(groups)), counts)
        delta = self._target @ query.vector.astype(np.float64) - self._projected[flat]
        kernel = np.exp(-0.5 * (delta * delta).sum(axis=1))
        total = settings.prior_kernel + np.bincount(arm, kernel, len(groups))
        earned = settings.prior_kernel * settings.prior_value + np.bincount(
            arm, kernel * self._values[flat], len(groups)
        )
        return earned / total

    # -- learning -----------------------------------------------------------------------------------------------

    def learn(self, decision: Decision, outcome: Outcome) -> None:
        if outcome.reward is None:
            return
        settings = self.settings
        query = decision.query
        if not self._written:
            self._open(len(query.vector))
        target = outcome.reward + self._bootstrap(decision)
        groups: list[int] = decision.shown.table["group"].tolist() or [_VOID]
        for group in groups:
            self._write(group, query, target * outcome.confidence + settings.prior_value * (1 - outcome.confidence))
        self._train()
        self._learned += 1
        if self._learned % settings.target_every == 0:
            share = settings.target_share
            self._target = share * self._online + (1.0 - share) * self._target
            filled = min(self._written, settings.episodes)
            self._projected[:filled] = self._states[:filled].astype(np.float64) @ self._target.T

    def _bootstrap(self, decision: Decision) -> float:
        """γ V(s') with the corrected soft value; 0 when planning is one step."""
        if self.settings.gamma <= 0.0 or decision.following is None:
            return 0.0
        query, candidates = decision.following
        arms = self._read(query, candidates)
        return self.settings.gamma * soft_value(self._prior(candidates), arms, self.settings.alpha)

    def _open(self, dim: int) -> None:
        settings = self.settings
        rng = np.random.default_rng(settings.seed)
        scale = settings.sharpness / np.sqrt(settings.projection)
        self._online = rng.normal(0.0, scale, (settings.projection, dim))
        self._target = self._online.copy()
        self._states = np.zeros((settings.episodes, dim), np.float32)
        self._projected = np.zeros((settings.episodes, settings.projection))
        self._values = np.zeros(settings.episodes)
        self._owner = np.full(settings.episodes, -1, np.int64)

    def _write(self, group: int, query: Query, value: float) -> None:
        """Append (s, c, Q), dropping the oldest of the ring or of the case."""
        place = self._written % self.settings.episodes
        if self._written >= self.settings.episodes and self._owner[place] >= 0:
            self._forget(place)
        mine = self._of_case.setdefault(group, [])
        if len(mine) == self.settings.episodes_per_case:
            self._owner[mine.pop(0)] = -1
        mine.append(place)
        self._states[place] = query.vector
        self._projected[place] = self._target @ query.vector.astype(np.float64)
        self._values[place] = value
        self._owner[place] = group
        self._written += 1

    def _forget(self, place: int) -> None:
        owner = int(self._owner[place])
        self._of_case[owner].remove(place)
        if not self._of_case[owner]:
            del self._of_case[owner]

    def _train(self) -> None:
        """One step of eq. 11 on a few episodes, each predicted from the others of its case."""
        settings = self.settings
        filled = min(self._written, settings.episodes)
        rng = np.random.default_rng([settings.seed, self._written])
        gradient = np.zeros_like(self._online)
        for place in rng.integers(0, filled, settings.batch).tolist():
            owner = int(self._owner[place])
            others = [row for row in self._of_case.get(owner, []) if row != place] if owner >= 0 else []
            if not others:
                continue
            f, slope = episodic_value_and_gradient(
                self._online,
                self._states[place].astype(np.float64),
                self._states[others].astype(np.float64),
                self._values[others],
                settings.prior_kernel,
                settings.prior_value,
            )
            gradient += 2.0 * (f - self._values[place]) * slope / settings.batch
        self._online = self._online - settings.learning_rate * gradient

    # -- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        filled = min(self._written, self.settings.episodes)
        return {
            "online": self._online.copy(),
            "target": self._target.copy(),
            "states": self._states[:filled].copy(),
            "projected": self._projected[:filled].copy(),
            "values": self._values[:filled].copy(),
            "owner": self._owner[:filled].copy(),
            "of_case": {group: list(rows) for group, rows in self._of_case.items()},
            "written": self._written,
            "learned": self._learned,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not state["written"]:
            return
        filled = len(state["values"])
        self._open(state["states"].shape[1])
        self._online = np.array(state["online"])
        self._target = np.array(state["target"])
        self._states[:filled] = state["states"]
        self._projected[:filled] = state["projected"]
        self._values[:filled] = state["values"]
        self._owner[:filled] = state["owner"]
        self._of_case = {int(group): list(rows) for group, rows in state["of_case"].items()}
        self._written = int(state["written"])
        self._learned = int(state["learned"])
