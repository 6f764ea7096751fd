"""`bag` (L2, the default): an online Bayesian model of one outcome and the whole bag of cases that was shown.

    logit P(r = 1 | s, ∅) = v0 + d_k
    logit P(r = 1 | s, S) = w0 + b_k + Σ_{c in S} a_c · (wᵀx(s,c) + g(s,c)·u_c)

k is the question's cluster, d_k and b_k its difficulty without memory and with it, x(s,c) how question and case
relate, u_c what is particular to the case, g a gate that keeps a case's reputation from reaching questions unlike it,
and a_c = cited_c / √(Σ cited) shares one outcome among the cases shown. All coefficients have Gaussian posteriors,
those of w0 and w a joint one, updated by assumed density filtering (as in TrueSkill and adPredictor). So a case that
travels with better ones is explained away instead of praised, and an outcome counts once however many cases it had.
What happens without memory is learned from runs without memory only: with a difficulty common to both, the failures
that bad cases cause make the question look hard and the cases innocent.

Cases are chosen by tempered Thompson sampling against the void case: in the general form of `selection`, μ0 is
uniform, Q is drawn from the posterior with its sd times τ, and α → 0. Memory starts with a credit of tasks it may
lose. As it loses them, doubt about memory as a whole counts more and more against it, until it has won them back: a
lower confidence bound under a budget, after conservative bandits (Wu et al. 2016), with the budget measured on
outcomes, because what a model expects of the cases it picked is too high (the winner's curse). Predictions are
recalibrated online (Platt).

Left out on purpose: any feature computed from what the bank chose to keep, such as "how many neighbours agree". Such
features reinforce themselves (guides/casebank.md §5c; measured again in docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from memento_casebank.policies.base import (
    Candidates,
    Choice,
    Decision,
    Floats,
    Interval,
    Outcome,
    Policy,
    PolicySettings,
    Query,
)
from memento_casebank.policies.selection import DRAWS, select
from memento_casebank.policies.slots import SlotTable, UnitClusters

__all__ = ["FEATURES", "BagPolicy", "BagSettings", "relation_features"]

FEATURES = ("case", "similarity", "similarity²", "bm25", "best bm25", "age", "own reward", "plan length")
"""Names of x(s, c), for explanations and tests."""
_PINNED = 1e-9 * np.eye(1 + len(FEATURES))
"""Added to a covariance before its root is taken: a pinned coefficient has a variance of 0."""

_SECONDS_PER_DAY = 86_400.0
_Z90 = 1.6449
"""Half width of a 90 % interval in standard deviations."""


@dataclass(frozen=True, kw_only=True)
class BagSettings(PolicySettings):
    memory_off_share: float = 0.05
    explore_share: float = 0.01
    shared_temperature: float = 0.1
    """τ of the coefficients all cases share: their doubt is about memory as a whole."""
    case_temperature: float = 0.2
    """τ of what is particular to a case. 0 is greedy, 1 plain Thompson sampling."""
    case_mean: float = 0.3
    """Prior log-odds a case adds: cases help until shown otherwise (Memento, table 3)."""
    case_variance: float = 4.0
    """Prior variance of u_c. A single case may make or break a task, so a bad start is put down to the cases that were
    shown, and hardly to the constant all cases share (0.25): else a few failures condemn memory as a whole."""
    difficulty_variance: float = 0.25
    """Prior variance of b_k and of d_k."""
    caution: float = 1.0
    """Standard deviations of the doubt about memory as a whole by which a case must beat showing nothing once the
    credit of memory is used up. 0: never cautious."""
    credit: float = 20.0
    """Tasks that memory may lose against no memory before caution is complete; it grows with each one lost, and
    eases with each one won back. Memory starts with all of it and never has more; 20 are 1 % of 2,000 tasks."""
    clusters: int = 64
    uncited_weight: float = 0.3
    """Weight of a case that was shown and not cited, when the agent says what it cited (1)."""
    half_life_days: float = 90.0
    """Doubt about a case's u_c doubles in this time, up to the prior: forgetting without deleting. inf: never."""
    gate_low: float = 0.2
    gate_high: float = 0.7
    """Cosines between which a case's reputation fades in from 5 % to all of it."""
    use_void: bool = True
    """False takes the void case out of the choice (an ablation)."""
    use_gate: bool = True
    use_difficulty: bool = True
    use_case_effect: bool = True
    use_bm25: bool = True
    ancestor_decay: float = 0.0
    """γλ of MemQ: how much an outcome tells about the cases from which a shown case was made, per generation
    (the paper: 0.5). 0: nothing."""


class BagPolicy(Policy[BagSettings]):
    name: ClassVar[str] = "bag"
    state_version: ClassVar[int] = 2  # 1 had one difficulty for both arms and no credit

    def __init__(self, settings: BagSettings) -> None:
        super().__init__(settings)
        # w0, then w: means and covariance. A variance of 0 pins a coefficient at its mean.
        self._mean = np.array([0.0, settings.case_mean, 0, 0, 0, 0, 0, 0, 0], np.float64)
        variance = np.array([1.0, 0.25, 4.0, 1.0, 1.0, 1.0, 0.25, 0.25, 0.1], np.float64)
        if not settings.use_bm25:
            variance[[4, 5]] = 0.0
        self._covariance = np.diag(variance)
        self._void = np.array([0.0, 0.5], np.float64)  # v0: mean, variance
        difficulty = settings.difficulty_variance if settings.use_difficulty else 0.0
        self._clusters = UnitClusters(settings.clusters)
        self._difficulty = SlotTable([0.0, difficulty, 0.0, difficulty])  # b_k mean, variance; d_k mean, variance
        self._case_variance = settings.case_variance if settings.use_case_effect else 0.0
        self._cases = SlotTable([0.0, self._case_variance, 0.0])  # u_c mean, variance; when last updated
        self._calibration = np.array([1.0, 0.1, 0.0, 0.1], np.float64)  # slope mean, variance; offset mean, variance
        self._credit = settings.credit  # tasks that memory may still lose; negative: what it has to win back

    # -- reading ------------------------------------------------------------------------------------------------

    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        settings = self.settings
        n = len(candidates)
        b_mean, b_var, d_mean, d_var = self._difficulty.look([self._clusters.nearest(query.vector)])[0].tolist()
        void_mean, void_var = float(self._void[0]) + d_mean, float(self._void[1]) + d_var
        x = relation_features(candidates.table)  # (N, 1 + F)
        gate = self._gate(candidates.table["similarity"])
        u_mean, u_var = self._case_effects(candidates.table["group"], query.time)
        mean = x @ self._mean + b_mean + gate * u_mean
        own_var = gate * gate * u_var
        memory_var = np.maximum(((x @ self._covariance) * x).sum(axis=1), 0.0) + b_var + void_var  # as a whole
        handicap = self._caution() * np.sqrt(memory_var)

        # One opinion of memory as a whole per redraw, and one of each case.
        noise = rng.standard_normal((DRAWS, n + 2))
        opinions = rng.standard_normal((DRAWS, len(self._mean))) @ _root(self._covariance).T
        own_noise = noise[:, :n] * np.sqrt(own_var)
        shared_noise = opinions @ x.T + math.sqrt(b_var) * noise[:, n + 1 :]
        tau = settings.shared_temperature
        draws = np.empty((DRAWS, n + 1))
        draws[:, :n] = mean - handicap + settings.case_temperature * own_noise + tau * shared_noise
        draws[:, n] = void_mean + tau * (math.sqrt(void_var) * noise[:, n])
        if not settings.use_void:
            draws[:, n] = np.finfo(np.float64).min
        choice = select(
            draws,
            k,
            rng,
            settings,
            value=mean,
            trusted=mean - handicap > void_mean if settings.use_void else None,
            probe=mean + own_noise[::-1],
        )
        without = self._probability(void_mean)
        alone = self._probability(mean)
        slope = np.sqrt(own_var + memory_var) * alone * (1.0 - alone) * abs(float(self._calibration[0]))
        rows = list(choice.rows)
        shown: tuple[float, float] | None = None
        if rows:
            share = 1.0 / math.sqrt(len(rows))
            spread = share * x[rows].sum(axis=0)
            spread[0] = 1.0
            set_mean = float(spread @ self._mean + b_mean + share * (gate * u_mean)[rows].sum())
            set_var = float(spread @ self._covariance @ spread + b_var + share**2 * own_var[rows].sum())
            shown = set_mean, set_var
        return replace(
            choice,
            value=alone - without,
            value_sd=slope,
            sampled=self._probability(draws[0, :n]) - without,
            scale="lift",
            **self._intervals((void_mean, void_var), shown),
        )

    def _caution(self) -> float:
        """Standard deviations of doubt that count against memory now."""
        settings = self.settings
        left = min(max(self._credit, 0.0), settings.credit)
        return settings.caution * (1.0 - left / settings.credit if settings.credit > 0.0 else 1.0)

    def _intervals(self, void: tuple[float, float], shown: tuple[float, float] | None) -> dict[str, Interval]:
        """P(success) with the set, without memory, and their difference; each argument is (mean, variance)."""
        without = self._interval(*void)
        if shown is None:
            return {"success": without, "without_memory": without, "lift": Interval(0.0, 0.0, 0.0)}
        success = self._interval(*shown)
        # First-order error propagation.
        steep = abs(float(self._calibration[0]))
        with_slope = steep * success.mean * (1.0 - success.mean)
        without_slope = steep * without.mean * (1.0 - without.mean)
        half = _Z90 * math.sqrt(with_slope**2 * shown[1] + without_slope**2 * void[1])
        lift = success.mean - without.mean
        return {
            "success": success,
            "without_memory": without,
            "lift": Interval(lift, max(-1.0, lift - half), min(1.0, lift + half)),
        }

    def _interval(self, mean: float, variance: float) -> Interval:
        half = _Z90 * math.sqrt(variance)
        one, other = float(self._probability(mean - half)), float(self._probability(mean + half))
        middle = float(self._probability(mean / math.sqrt(1.0 + math.pi * variance / 8.0)))
        return Interval(middle, min(one, other), max(one, other))

    def _probability(self, logit: Any) -> Any:
        return _sigmoid(self._calibration[0] * logit + self._calibration[2])

    def _gate(self, similarity: NDArray[Any]) -> Floats:
        settings = self.settings
        if not settings.use_gate:
            return np.ones(len(similarity))
        width = settings.gate_high - settings.gate_low
        return np.minimum(np.maximum((similarity.astype(np.float64) - settings.gate_low) / width, 0.05), 1.0)

    def _case_effects(self, groups: NDArray[np.int64], now: float) -> tuple[Floats, Floats]:
        """Mean and variance (N,) of u_c, the variance as it has grown since the case was last judged."""
        mean, variance, last = self._cases.look(groups.tolist()).T
        return mean, np.minimum(self._case_variance, variance * self._inflation(last, now))

    def _inflation(self, last: Floats, now: float) -> Floats:
        days = np.maximum(now - last, 0.0) / _SECONDS_PER_DAY
        return np.exp2(np.minimum(days / self.settings.half_life_days, 60.0))

    # -- learning -----------------------------------------------------------------------------------------------

    def learn(self, decision: Decision, outcome: Outcome) -> None:
        if outcome.reward is None:
            return
        cluster_row = self._difficulty.rows([self._clusters.assign(decision.query.vector)])[0]
        difficulty = self._difficulty.data[cluster_row]
        if len(decision.shown):
            logit = self._learn_shown(decision, outcome, difficulty)
        else:
            variance = float(self._void[1] + difficulty[3])
            logit, step, shrink = _lesson(float(self._void[0] + difficulty[2]), variance, outcome)
            _filter(self._void, 0, 1.0, step, shrink)
            _filter(difficulty, 2, 1.0, step, shrink)
        self._calibrate(logit, outcome)

    def _learn_shown(self, decision: Decision, outcome: Outcome, difficulty: Floats) -> float:
        """Learn from a run with cases; returns the log-odds that were predicted for it."""
        assert outcome.reward is not None
        query, shown, settings = decision.query, decision.shown, self.settings
        without = float(self._probability(float(self._void[0] + difficulty[2])))
        credit = self._credit + outcome.confidence * (outcome.reward - without)
        self._credit = min(max(credit, -settings.credit), settings.credit)

        cited = outcome.cited
        weights = np.array([1.0 if cited is None or i in cited else settings.uncited_weight for i in shown.ids])
        weights /= math.sqrt(weights.sum())
        features = weights @ relation_features(shown.table)
        features[0] = 1.0
        case_rows, loads = self._load_cases(decision, weights * self._gate(shown.table["similarity"]))
        cases = self._cases.data
        inflated = cases[case_rows, 1] * self._inflation(cases[case_rows, 2], query.time)
        cases[case_rows, 1] = np.minimum(self._case_variance, inflated)
        cases[case_rows, 2] = query.time

        gain = self._covariance @ features
        mean = float(features @ self._mean + difficulty[0] + loads @ cases[case_rows, 0])
        variance = float(features @ gain + difficulty[1] + (loads * loads) @ cases[case_rows, 1])
        logit, step, shrink = _lesson(mean, variance, outcome)
        self._mean += gain * step
        self._covariance -= gain[:, np.newaxis] * gain * shrink
        _filter(difficulty, 0, 1.0, step, shrink)
        gain = cases[case_rows, 1] * loads
        cases[case_rows, 0] += gain * step
        cases[case_rows, 1] -= gain * gain * shrink
        return logit

    def _load_cases(self, decision: Decision, loads: Floats) -> tuple[NDArray[np.intp], Floats]:
        """Rows of the cases an outcome speaks about, and by how much; ancestors fade by generation."""
        groups: list[int] = decision.shown.table["group"].tolist()
        by_group: dict[int, float] = {}
        for group, load in zip(groups, loads.tolist(), strict=True):
            by_group[group] = by_group.get(group, 0.0) + load
        if self.settings.ancestor_decay > 0.0:
            mean_load = float(loads.mean())
            for group, depth in decision.ancestors:
                if group not in by_group:
                    by_group[group] = mean_load * self.settings.ancestor_decay**depth
        return self._cases.rows(list(by_group)), np.array(list(by_group.values()))

    def _calibrate(self, logit: float, outcome: Outcome) -> None:
        """Platt's two numbers, by the same filter, on the prediction made before this outcome was learned."""
        calibration = self._calibration
        variance = logit * logit * calibration[1] + calibration[3]
        _, step, shrink = _lesson(float(calibration[0] * logit + calibration[2]), float(variance), outcome)
        _filter(calibration, 0, logit, step, shrink)
        _filter(calibration, 2, 1.0, step, shrink)

    # -- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "mean": self._mean.copy(),
            "covariance": self._covariance.copy(),
            "void": self._void.copy(),
            "credit": self._credit,
            "clusters": self._clusters.state_dict(),
            "difficulty": self._difficulty.state_dict(),
            "cases": self._cases.state_dict(),
            "calibration": self._calibration.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._mean = np.array(state["mean"], np.float64)
        self._covariance = np.array(state["covariance"], np.float64)
        self._void = np.array(state["void"], np.float64)
        self._credit = float(state["credit"])
        self._clusters.load_state_dict(state["clusters"])
        self._difficulty.load_state_dict(state["difficulty"])
        self._cases.load_state_dict(state["cases"])
        self._calibration = np.array(state["calibration"], np.float64)


def relation_features(table: NDArray[np.void]) -> Floats:
    """(N, 1 + 8): a one for w0 and the features x(s, c) of `FEATURES`, roughly -1..1, from `CANDIDATE_DTYPE` rows."""
    x = np.ones((len(table), 1 + len(FEATURES)))
    similarity, bm25, reward = 2.0 * table["similarity"] - 1.0, table["bm25"], table["reward"]
    x[:, 2] = similarity
    x[:, 3] = similarity * similarity
    x[:, 4] = bm25 - 0.5
    x[:, 5] = bm25 >= 0.999
    x[:, 6] = np.log1p(np.maximum(table["age_days"], 0.0)) / 6.0  # a year is about 1
    x[:, 7] = np.where(np.isnan(reward), 0.0, 2.0 * reward - 1.0)
    x[:, 8] = np.log1p(table["plan_length"]) / 3.0 - 0.5  # 3 steps are about 0
    return x


def _root(covariance: Floats) -> Floats:
    """A matrix R with R Rᵀ = covariance. Cholesky, because it is continuous: eigenvectors turn with the last digit."""
    return np.asarray(np.linalg.cholesky(covariance + _PINNED), np.float64)


def _lesson(mean: float, variance: float, outcome: Outcome) -> tuple[float, float, float]:
    """What one outcome says about log-odds that were predicted with this mean and variance (assumed density filter).

    Returns the logit of the predicted P(success), and what to multiply a coefficient's gain (its covariance with the
    prediction) by to correct its mean, and the gain's square to shrink its variance.
    """
    assert outcome.reward is not None
    logit = mean / math.sqrt(1.0 + math.pi * variance / 8.0)
    predicted = float(_sigmoid(logit))
    curvature = predicted * (1.0 - predicted)
    weight = outcome.confidence / (1.0 + curvature * variance)  # a doubtful judge teaches less
    return logit, weight * (outcome.reward - predicted), weight * curvature


def _filter(pairs: Floats, at: int, load: float, step: float, shrink: float) -> None:
    """Update one (mean, variance) pair of a row that entered the prediction with weight `load`."""
    gain = pairs[at + 1] * load
    pairs[at] += gain * step
    pairs[at + 1] -= gain * gain * shrink


def _sigmoid(z: Any) -> Any:
    return 0.5 * (1.0 + np.tanh(0.5 * z))  # the exp form overflows for large -z; this one cannot
