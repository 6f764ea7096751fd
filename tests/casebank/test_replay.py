"""Off-policy estimates against the truth, which a small world can compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from memento_casebank.policies import make_policy
from memento_casebank.policies.base import Candidates, Choice, Decision, Outcome, Policy, PolicySettings, Query
from memento_casebank.policies.selection import select
from memento_casebank.replay import LoggedDecision, NotEnoughEvidence, estimate_policy
from support.policies import candidates, query

TRUTH = np.array([0.9, 0.5, 0.1])
"""P(success) when each case leads."""
WITHOUT = 0.3


class Always(Policy[PolicySettings]):
    """Shows one case, always; learns nothing."""

    name = "always"

    def __init__(self, row: int) -> None:
        super().__init__(PolicySettings())
        self.row = row

    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        scores = np.zeros((1, len(candidates) + 1))
        scores[0, self.row] = 1.0
        return select(scores, 1, rng, self.settings, value=scores[0, :-1])

    def learn(self, decision: Decision, outcome: Outcome) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def log_of(length: int, seed: int, *, unknown: float = 0.0) -> list[LoggedDecision]:
    """What a policy that shows one of three cases, or none, with known probabilities would log."""
    rng = np.random.default_rng(seed)
    chance = np.array([0.2, 0.3, 0.4, 0.1])
    entries: list[LoggedDecision] = []
    for step in range(length):
        arm = int(rng.choice(4, p=chance))
        reward = float(rng.random() < [*TRUTH, WITHOUT][arm])
        outcome = None if rng.random() < unknown else Outcome(reward)
        rows = () if arm == 3 else (arm,)
        entries.append(LoggedDecision(query(step % 7), candidates([0.7] * 3), rows, chance[:3], 0.1, outcome))
    return entries


@pytest.mark.parametrize("row", [0, 1, 2])
def test_both_estimates_find_the_truth_about_a_policy_that_never_ran(row: int) -> None:
    """The log shows the case in a fifth to two fifths of its decisions; its worth is known."""
    estimate = estimate_policy(log_of(4_000, row), lambda: Always(row))
    for interval in (estimate.snips, estimate.doubly_robust):
        assert interval.mean == pytest.approx(TRUTH[row], abs=0.05)
        assert interval.low < interval.mean < interval.high
    assert estimate.logged.mean == pytest.approx(0.2 * 0.9 + 0.3 * 0.5 + 0.4 * 0.1 + 0.1 * WITHOUT, abs=0.03)
    assert estimate.effective_sample_size == pytest.approx(4_000 * [0.2, 0.3, 0.4][row], rel=0.1)
    assert estimate.unsupported == 0.0


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """90 % intervals over 40 logs; fewer than 30 hits would be a broken standard error."""
    hits = {"snips": 0, "doubly_robust": 0}
    for seed in range(40):
        estimate = estimate_policy(log_of(400, 100 + seed), lambda: Always(1))
        for name in hits:
            interval = getattr(estimate, name)
            hits[name] += interval.low <= TRUTH[1] <= interval.high
    assert hits["snips"] >= 30
    assert hits["doubly_robust"] >= 30


def test_a_small_log_is_refused_with_the_numbers() -> None:
    """Ten decisions say nothing, and the refusal says why."""
    with pytest.raises(NotEnoughEvidence, match=r"'always'.*10 decisions.*at least 50.*explore_share"):
        estimate_policy(log_of(10, 0), lambda: Always(0))


def test_a_log_that_never_tried_it_is_refused() -> None:
    """Deterministic logs of another case carry no evidence, however long they are."""
    entries = [
        LoggedDecision(query(i), candidates([0.7] * 3), (0,), np.array([1.0, 0.0, 0.0]), 0.0, Outcome(1.0))
        for i in range(500)
    ]
    with pytest.raises(NotEnoughEvidence, match="100% of what it would do was never possible"):
        estimate_policy(entries, lambda: Always(2))


def test_unknown_outcomes_are_left_out() -> None:
    """Neither counted nor taken for failures."""
    entries = log_of(2_000, 3, unknown=0.5)
    known = [entry for entry in entries if entry.outcome is not None]
    estimate = estimate_policy(entries, lambda: Always(0))
    assert estimate.decisions == len(known)
    assert estimate.doubly_robust.mean == pytest.approx(TRUTH[0], abs=0.06)


def test_the_other_policy_learns_from_the_log_as_it_goes() -> None:
    """A learner replayed on the log is worth more than its first guess, and never sees an outcome before deciding."""
    entries = log_of(3_000, 5)
    learned = estimate_policy(entries, lambda: make_policy("bag", memory_off_share=0.0, explore_share=0.0), k=1)
    unlearned = estimate_policy(entries, lambda: make_policy("similarity"), k=1)
    assert learned.doubly_robust.mean > unlearned.doubly_robust.mean - 0.02
    assert learned.doubly_robust.mean > learned.logged.mean + 0.15


def test_the_same_log_and_seed_give_the_same_estimate() -> None:
    """An estimate can be quoted."""
    entries = log_of(500, 6)
    assert estimate_policy(entries, lambda: make_policy("bag")) == estimate_policy(entries, lambda: make_policy("bag"))
