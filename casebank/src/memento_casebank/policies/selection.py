"""From scores to a set of cases, with propensities: the general form of every policy here, written once.

A retrieval policy weighs each case c for a question s against showing nothing (the void case v):

    μ(c|s) ∝ μ0(c|s) · exp(Q(s,c)/α),        μ(v|s) ∝ μ0(v|s) · exp(Q(s,v)/α)

(Memento eq. 7 with a prior; Memento 2's KL-regularised improvement; LINVIT.) Drawing several cases without
replacement from μ until the void case comes up equals adding Gumbel noise to log μ0 + Q/α and keeping the rows
above the void row, best first. Without noise that is top-K; with Q drawn from a posterior it is Thompson sampling.
So one function, `select`, serves them all, and the settings of each paper are only choices of μ0, Q, α and noise.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memento_casebank.policies.base import Choice, Floats, PolicySettings

__all__ = ["DRAWS", "boltzmann", "general_form", "gumbel_scores", "parzen_prior", "select", "soft_value"]

DRAWS = 64
"""Redraws of the policy's own noise from which propensities are estimated (row 0 is the one acted on)."""


def boltzmann(log_prior: Floats, value: Floats, alpha: float) -> Floats:
    """μ ∝ exp(log_prior + value/α) over arms (A,); α = 0 puts all mass on the best value (ties: by prior, then split).

    A prior of -inf removes an arm.
    """
    if alpha <= 0.0:
        allowed = np.isfinite(log_prior)
        best = allowed & (value >= np.max(value[allowed]))
        best &= log_prior >= np.max(log_prior[best])
        return best / best.sum()
    return _normalised(general_form(log_prior, value, alpha))


def general_form(log_prior: Floats, value: Floats, alpha: float) -> Floats:
    """log μ0 + Q/α, up to a constant: the scores that `gumbel_scores` perturbs and `boltzmann` normalises."""
    return log_prior + value / alpha


def soft_value(log_prior: Floats, value: Floats, alpha: float) -> float:
    """V = α log Σ μ0 exp(Q/α), the value of following μ (eq. 8 of the paper prints it without the 1/α)."""
    scores = general_form(log_prior - _log_sum_exp(log_prior), value, alpha)
    return alpha * _log_sum_exp(scores)


def parzen_prior(similarity: Floats, bandwidth: float, void_similarity: float) -> Floats:
    """log μ0 over N cases and, last, the void case: kernels exp(sim/h), the void case a constant one (Memento 2).

    Args:
        similarity: (N,) cosines.
        bandwidth: h; smaller trusts similarity more. Infinite: a uniform prior.
        void_similarity: the cosine at which a case and the void case weigh the same; -inf: no void case.
    """
    arms = np.append(similarity, void_similarity)
    scores = arms / bandwidth if np.isfinite(bandwidth) else np.where(np.isfinite(arms), 0.0, -np.inf)
    return scores - _log_sum_exp(scores)


def gumbel_scores(scores: Floats, rng: np.random.Generator, draws: int = DRAWS) -> Floats:
    """(draws, A) scores with Gumbel noise: their arg-sort is a draw without replacement from softmax(scores)."""
    return scores + rng.gumbel(size=(draws, len(scores)))


def select(
    draws: Floats,
    k: int,
    rng: np.random.Generator,
    settings: PolicySettings,
    *,
    value: Floats,
    value_sd: Floats | None = None,
    scale: Literal["lift", "score"] = "score",
    lead: Floats | None = None,
    trusted: NDArray[np.bool_] | None = None,
    probe: Floats | None = None,
) -> Choice:
    """Turn scores into a choice of at most `k` rows that beat the void case, and tell its propensities.

    Args:
        draws: (M, N + 1) scores, one row per redraw of the policy's noise, the last column the void case
            (-inf: never chosen by the policy itself). Row 0 is acted on; all rows estimate propensities.
        k: most rows to show.
        rng: decides whether exploration overrides the policy in this decision.
        settings: the two exploration shares.
        value: (N,) and `value_sd`: what to report per case.
        scale: how `value` is to be read.
        lead: (N + 1,) exact probabilities of the first rank, void last, where the policy knows them.
        trusted: (N,) rows worth showing without noise. When given, a set holds at most one row that is not
            trusted: two unknowns shown together blur who earned the outcome.
        probe: (M, N) scores whose best row is shown alone when exploration overrides; None: a uniform draw of `k`.
    """
    n: int = draws.shape[1] - 1
    k = max(0, min(k, n))
    shown, frequency = _top(draws, k, trusted)
    natural_lead = np.bincount(np.argmax(draws, axis=1), minlength=n + 1) / len(draws) if lead is None else lead
    if k == 0:
        natural_lead = np.append(np.zeros(n), 1.0)
    override = settings.explore_share if k else 0.0
    if probe is None:
        probe_lead, probe_inclusion = np.full(n, 1.0 / max(n, 1)), np.full(n, k / max(n, 1))
    else:
        probe_lead = probe_inclusion = np.bincount(np.argmax(probe, axis=1), minlength=n) / len(probe) if n else value
    # A mixture: the policy, its exploration, and as much of the void case as the two still lack.
    void = (1.0 - override) * float(natural_lead[n])
    forced_off = max(0.0, (settings.memory_off_share - void) / (1.0 - void)) if void < 1.0 else 0.0
    keep = (1.0 - forced_off) * (1.0 - override)
    explore = (1.0 - forced_off) * override
    rows, forced = shown, ""
    ticket = rng.random()
    if ticket < forced_off:
        rows, forced = (), "memory_off"
    elif ticket < forced_off + explore and probe is None:
        rows, forced = tuple(int(row) for row in rng.permutation(n)[:k]), "uniform"
    elif ticket < forced_off + explore and probe is not None:
        rows, forced = (int(np.argmax(probe[0])),), "probe"
    return Choice(
        rows=rows,
        void_probability=float(forced_off + keep * natural_lead[n]),
        lead_probability=keep * natural_lead[:n] + explore * probe_lead,
        inclusion=keep * frequency + explore * probe_inclusion,
        value=value,
        value_sd=value_sd if value_sd is not None else np.zeros(n),
        sampled=draws[0, :n],
        scale=scale,
        forced=forced,
    )


def _top(draws: Floats, k: int, trusted: NDArray[np.bool_] | None) -> tuple[tuple[int, ...], Floats]:
    """Rows that draw 0 shows, best first, and how often each row is shown over all draws (N,)."""
    n: int = draws.shape[1] - 1
    if k == 0:
        return (), np.zeros(n)
    cases = draws[:, :n]
    inside = cases > draws[:, n:]
    if k < n:
        lowest = np.partition(cases, n - k, axis=1)[:, n - k : n - k + 1]
        inside &= cases >= lowest
        if np.count_nonzero(inside[0]) > k:  # rows that draw the same, as without noise: the first are shown
            ties = inside & (cases == lowest)
            room = k - np.count_nonzero(inside & ~ties, axis=1)
            inside &= ~ties | (np.cumsum(ties, axis=1) <= room[:, np.newaxis])
    if trusted is not None and len(doubtful := np.flatnonzero(~trusted)):
        guesses = np.where(inside[:, doubtful], cases[:, doubtful], -np.inf)
        inside[:, doubtful] &= guesses == guesses.max(axis=1, keepdims=True)
    drawn: list[float] = cases[0].tolist()
    rows: list[int] = np.flatnonzero(inside[0]).tolist()
    rows.sort(key=lambda row: -drawn[row])
    return tuple(rows[:k]), np.ones(len(draws)) @ inside / len(draws)


def _normalised(scores: Floats) -> Floats:
    weights = np.exp(scores - np.max(scores))
    return weights / weights.sum()


def _log_sum_exp(scores: Floats) -> float:
    top = float(np.max(scores))
    return top + float(np.log(np.sum(np.exp(scores - top))))
