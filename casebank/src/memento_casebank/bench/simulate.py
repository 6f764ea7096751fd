"""`bench simulate`: can a policy find out which cases are good, when the truth is known and set by us?

S1 (guides/casebank.md §0.4): real texts, 1,500 cases with a hidden quality (half good, a quarter inert, a quarter
harmful; in a fifth of the categories the good ones are stale, which makes them harmful) and a question stream from the
same categories. A question is answered with probability σ(difficulty + best - worst): the best shown case of its
category lifts the log-odds by 2.2, the worst lowers them by 2.4, a case of another category by 0.4. The policy sees
only whether the answer was right, never which case did it.

The four effects and the mean difficulty were set so that the *baselines* come out near the guide's figures (no cases
.39, cosine .39, MemRL .48, oracle .75). Figures of our own learners stood beside them while that was done, so the
simulation is no independent referee; the stream on real utterances is. See docs/log.md for how close they are.

Variants: `poison` (5 % of the cases do harm wherever they are shown), `drift` (at half time the qualities are dealt
anew), `false_positive` (a quarter of the failures is reported as success), `useless` (no case helps, some harm).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memento_casebank.bench.stream import worst_window
from memento_casebank.bench.world import SECONDS_PER_TASK, BenchShelf, PolicySpec, Utterances, calibration_error
from memento_casebank.candidates import CandidateSettings
from memento_casebank.policies.base import Candidates, Decision, Outcome, Query

__all__ = ["VARIANTS", "SimulationResult", "run_simulation"]

VARIANTS = ("base", "poison", "drift", "false_positive", "useless")

CASES = 1_500
GOOD, HARMFUL, UNRELATED = 2.2, -2.4, -0.4
"""What a case adds to the log-odds of success: of its own category when good or harmful, and of another one."""
POISON = -2.0
DIFFICULTY_MEAN, DIFFICULTY_SD = -0.38, 0.6
STALE_SHARE = 0.2
WINDOW = 1_000


@dataclass(frozen=True)
class SimulationResult:
    policy: str
    seed: int
    variant: str
    length: int
    cumulative: float
    last_1k: float
    no_memory: float
    """Expected success without cases, over the last 1,000 questions."""
    oracle: float
    """Expected success of the best possible set among the candidates, over the last 1,000 questions."""
    worst_window: float
    """Least difference of expected success to that without cases, over all 1,000-question windows. Expectations, not
    the dice: over 1,000 questions luck alone makes differences of .03."""
    lift: float
    """Mean difference of expected success to that without cases, over the whole run (negative: memory did harm)."""
    void_share: float
    calibration_error: float | None
    brier: float | None
    recovery: int | None
    """`drift` only: questions after the change until a 500-question mean is back at 95 % of the mean of the 1,000
    before it; None: never, or another variant."""


def run_simulation(
    data: Utterances,
    spec: PolicySpec,
    *,
    seed: int,
    variant: str = "base",
    length: int = 12_000,
    k: int = 4,
    candidates: CandidateSettings | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> SimulationResult:
    """Run one policy through one simulated history.

    Raises:
        ValueError: the variant is not known.
    """
    if variant not in VARIANTS:
        raise ValueError(f"There is no variant {variant!r}. Variants: {', '.join(VARIANTS)}.")
    truth = _Truth(data, seed, variant)
    shelf = BenchShelf(data.vectors.shape[1], candidates or CandidateSettings())
    cases: list[int] = truth.cases.tolist()
    for index in cases:
        shelf.add(data.texts[index], data.vectors[index], f"case {len(shelf)}", 0.0)  # every case a plan of its own
    dice = np.random.default_rng([seed, 3]).random((length, 2))
    asked = np.random.default_rng([seed, 4]).choice(truth.questions, length)
    rng = np.random.default_rng([seed, 5])
    policy = spec.make(seed)
    right, chance, without, best = np.zeros(length), np.zeros(length), np.zeros(length), np.zeros(length)
    predicted, void, reported = np.full(length, np.nan), np.zeros(length), np.zeros(length)
    questions: list[int] = asked.tolist()
    for step, index in enumerate(questions):
        if variant == "drift" and step == length // 2:
            truth.deal_again()
        query = Query(data.vectors[index], step * SECONDS_PER_TASK)
        offered = shelf.candidates(data.texts[index], query.vector, 0.0)
        rows: tuple[int, ...] = ()
        if spec.uses_memory:
            choice = policy.choose(query, offered, k, rng)
            rows = choice.rows
            if choice.success is not None:
                predicted[step] = choice.success.mean
        effect = truth.effects(index, offered)
        difficulty = float(truth.difficulty[data.labels[index]])
        shown = offered.take(rows)
        shelf.count_shown(shown.ids)
        void[step] = not rows
        without[step] = _sigmoid(difficulty)
        best[step] = _sigmoid(difficulty + max(float(effect.max(initial=0.0)), 0.0))
        chance[step] = _sigmoid(difficulty + _lift(effect[list(rows)]))
        right[step] = dice[step, 0] < chance[step]
        reported[step] = right[step] or (variant == "false_positive" and dice[step, 1] < 0.25)
        policy.learn(Decision(query, shown), Outcome(float(reported[step]), time=query.time))
        if step % 100 == 99:
            progress(100)
    progress(length % 100)
    known = ~np.isnan(predicted)
    return SimulationResult(
        policy=spec.text,
        seed=seed,
        variant=variant,
        length=length,
        cumulative=float(right.mean()),
        last_1k=float(right[-WINDOW:].mean()),
        no_memory=float(without[-WINDOW:].mean()),
        oracle=float(best[-WINDOW:].mean()),
        worst_window=worst_window(chance - without, WINDOW),
        lift=float((chance - without).mean()),
        void_share=float(void.mean()),
        calibration_error=calibration_error(predicted[known], reported[known]) if known.any() else None,
        brier=float(((predicted[known] - reported[known]) ** 2).mean()) if known.any() else None,
        recovery=_recovery(right, length // 2) if variant == "drift" else None,
    )


class _Truth:
    """The hidden side of a simulated history."""

    def __init__(self, data: Utterances, seed: int, variant: str) -> None:
        self._data = data
        self._variant = variant
        self._rng = np.random.default_rng([seed, 6])
        order = self._rng.permutation(len(data.texts))
        count = min(CASES, len(order) // 2)
        self.cases: NDArray[np.int64] = order[:count]
        self.questions: NDArray[np.int64] = order[count:]
        self.difficulty = self._rng.normal(DIFFICULTY_MEAN, DIFFICULTY_SD, len(data.names))
        self._own = np.zeros(count)
        self._elsewhere = np.full(count, UNRELATED)
        self.deal_again()
        if variant == "poison":
            poisoned = self._rng.random(count) < 0.05
            self._own[poisoned] = self._elsewhere[poisoned] = POISON

    def deal_again(self) -> None:
        """Give every case a quality, and every category a chance to be stale."""
        count = len(self.cases)
        luck = self._rng.random(count)
        quality = np.where(luck < 0.5, GOOD, np.where(luck < 0.75, 0.0, HARMFUL))
        stale = self._rng.random(len(self._data.names)) < STALE_SHARE
        quality[stale[self._data.labels[self.cases]] & (quality > 0)] = HARMFUL
        self._own = np.minimum(quality, 0.0) if self._variant == "useless" else quality

    def effects(self, question: int, offered: Candidates) -> NDArray[np.float64]:
        """What each offered case (N,) would do for this question."""
        cases = np.asarray([int(case_id) for case_id in offered.ids], np.intp)
        same = self._data.labels[self.cases[cases]] == self._data.labels[question]
        return np.where(same, self._own[cases], self._elsewhere[cases])


def _lift(effects: NDArray[np.float64]) -> float:
    """One good plan suffices, one misleading one is enough to spoil: the best and the worst count."""
    return max(float(effects.max(initial=0.0)), 0.0) + min(float(effects.min(initial=0.0)), 0.0)


def _recovery(right: NDArray[np.float64], change: int, mean_over: int = 500) -> int | None:
    before = right[max(change - WINDOW, 0) : change].mean()
    for start in range(change, len(right) - mean_over + 1, 50):
        if right[start : start + mean_over].mean() >= 0.95 * before:
            return start + mean_over - change
    return None


def _sigmoid(z: float) -> float:
    return float(1.0 / (1.0 + np.exp(-z)))
