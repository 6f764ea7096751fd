"""What another policy would have earned on your own log: off-policy estimates, or a refusal.

Three numbers from the same decisions (Dudík et al. 2011; Swaminathan & Joachims 2015): what the logged policy earned,
SNIPS (self-normalised importance weighting) and DR (doubly robust: a reward model, corrected by weighted errors). The
action is *which case led the set, or that none was shown*; its probability under the logged policy lies in the log.
For K = 1 this is exact; for larger sets it takes the followers to be what both policies would have added.

The other policy starts knowing nothing and learns from the log as it goes, each decision after it was judged. It
learns from what the logged policy did, not from what it would have done itself: a cautious view of a learner.

The log must have explored: weights need every action of the other policy to have had a chance. How much evidence is
left is told as effective sample size, and below a minimum the answer is `NotEnoughEvidence`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memento_casebank.policies import make_policy
from memento_casebank.policies.base import Candidates, Choice, Decision, Floats, Interval, Outcome, Policy, Query

__all__ = ["LoggedDecision", "NotEnoughEvidence", "ReplayEstimate", "estimate_policy"]


class NotEnoughEvidence(Exception):
    """The log says too little about the other policy. The message gives the numbers and what to do."""


@dataclass(frozen=True)
class LoggedDecision:
    """A decision as it was logged, with everything a policy saw."""

    query: Query
    candidates: Candidates
    rows: tuple[int, ...]
    """Candidate rows shown, in rank order."""
    lead_probability: Floats
    """(N,) probability of each row to lead, under the logged policy."""
    void_probability: float
    outcome: Outcome | None
    """None, or a reward of None: unknown; the decision then teaches nothing and is not counted."""


@dataclass(frozen=True)
class ReplayEstimate:
    policy: str
    decisions: int
    """With a known outcome."""
    effective_sample_size: float
    unsupported: float
    """Mean probability that the other policy does something the logged policy never would have, 0..1."""
    logged: Interval
    """Mean reward of the log, with its 90 % interval, as the two below."""
    snips: Interval
    doubly_robust: Interval


def estimate_policy(
    log: Iterable[LoggedDecision],
    make: Callable[[], Policy[Any]],
    *,
    k: int = 4,
    clip: float = 10.0,
    minimum_sample: float = 50.0,
    seed: int = 0,
) -> ReplayEstimate:
    """Estimate the mean reward of the policy that `make` gives, on decisions in the order of the log.

    Args:
        clip: largest importance weight M; larger ones would let a single lucky decision speak for all.
        minimum_sample: least effective sample size for an answer.

    Raises:
        NotEnoughEvidence: the effective sample size is too small, or most of what the policy would do was never tried.
    """
    target, model = make(), make_policy("bag")
    rng = np.random.default_rng(seed)
    weights: list[float] = []
    rewards: list[float] = []
    corrected: list[float] = []
    unsupported: list[float] = []
    for entry in log:
        if entry.outcome is None or entry.outcome.reward is None:
            continue
        choice = target.choose(entry.query, entry.candidates, k, rng)
        wanted = _lead(choice.lead_probability, choice.void_probability)
        given = _lead(entry.lead_probability, entry.void_probability)
        action = entry.rows[0] if entry.rows else len(entry.candidates)
        expected = _expected_rewards(model.choose(entry.query, entry.candidates, 1, rng))
        weight = min(float(wanted[action]) / float(given[action]), clip) if given[action] > 0 else 0.0
        weights.append(weight)
        rewards.append(entry.outcome.reward)
        corrected.append(float(wanted @ expected) + weight * (entry.outcome.reward - float(expected[action])))
        unsupported.append(float(wanted[given <= 0].sum()))
        decision = Decision(entry.query, entry.candidates.take(entry.rows))
        target.learn(decision, entry.outcome)
        model.learn(decision, entry.outcome)
    w, r, dr = np.asarray(weights), np.asarray(rewards), np.asarray(corrected)
    sample = float(w.sum() ** 2 / (w * w).sum()) if w.any() else 0.0
    missing = float(np.mean(unsupported)) if unsupported else 1.0
    if sample < minimum_sample or missing > 0.5:
        raise NotEnoughEvidence(
            f"The log cannot tell how {target.name!r} would do: {len(r)} decisions with a known outcome are worth "
            f"{sample:.0f} of it (at least {minimum_sample:.0f} are needed), and {missing:.0%} of what it would do was "
            "never possible. Collect more outcomes, with explore_share and memory_off_share above 0 in the policy that "
            "runs."
        )
    snips = float(w @ r / w.sum())
    return ReplayEstimate(
        policy=target.name,
        decisions=len(r),
        effective_sample_size=sample,
        unsupported=missing,
        logged=_interval(float(r.mean()), _standard_error(r)),
        snips=_interval(snips, float(np.sqrt((w * w) @ ((r - snips) ** 2)) / w.sum())),
        doubly_robust=_interval(float(dr.mean()), _standard_error(dr)),
    )


def _lead(rows: Floats, void: float) -> Floats:
    """Probabilities of leading (N + 1,), void last."""
    return np.append(rows, void)


def _expected_rewards(choice: Choice) -> Floats:
    """The reward model's P(success) for each row alone and, last, for none (N + 1,)."""
    assert choice.without_memory is not None  # the model is `bag`, which always predicts
    without = choice.without_memory.mean
    return np.clip(np.append(without + choice.value, without), 0.0, 1.0)


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else float("inf")


def _interval(mean: float, standard_error: float) -> Interval:
    return Interval(mean, mean - 1.645 * standard_error, mean + 1.645 * standard_error)
