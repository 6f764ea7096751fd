"""The formulas of the papers, checked against independent computations (spec/memento.md §9)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_casebank.bench.leak import auc, grouped_folds, row_folds
from memento_casebank.policies import make_policy
from memento_casebank.policies.base import Decision, Floats, Outcome, PolicySettings
from memento_casebank.policies.kernel import episodic_value, episodic_value_and_gradient
from memento_casebank.policies.q import QNetwork
from memento_casebank.policies.selection import (
    boltzmann,
    general_form,
    gumbel_scores,
    parzen_prior,
    select,
    soft_value,
)
from support.policies import candidates, query

ARMS = st.lists(st.floats(-3, 3), min_size=2, max_size=8)


# -- eq. 4 and 7: the best policy of the entropy-regularised objective -------------------------------------------


def objective(mu: Floats, value: Floats, alpha: float, prior: Floats) -> float:
    """Σ μ (Q - α log(μ/μ0)); with a uniform prior this is eq. 4 up to a constant."""
    used = mu > 0
    return float(mu[used] @ value[used] - alpha * mu[used] @ np.log(mu[used] / prior[used]))


@given(values=ARMS, alpha=st.floats(0.05, 5), seed=st.integers(0, 1000))
def test_no_other_distribution_does_better_than_mu_star(values: list[float], alpha: float, seed: int) -> None:
    """μ* ∝ μ0 exp(Q/α) maximises value minus divergence; random and nearby distributions never beat it."""
    rng = np.random.default_rng(seed)
    value = np.array(values)
    prior = rng.dirichlet(np.ones(len(value)))
    best = boltzmann(np.log(prior), value, alpha)
    reached = objective(best, value, alpha, prior)
    for _ in range(20):
        other = rng.dirichlet(np.ones(len(value)))
        assert objective(other, value, alpha, prior) <= reached + 1e-9
        nearby = np.abs(best + rng.normal(0, 0.01, len(value)))
        assert objective(nearby / nearby.sum(), value, alpha, prior) <= reached + 1e-9


@given(values=ARMS, alpha=st.floats(0.05, 5))
def test_the_soft_value_is_what_mu_star_earns(values: list[float], alpha: float) -> None:
    """V = α log Σ μ0 exp(Q/α): the corrected form; the paper's print lacks the 1/α."""
    value = np.array(values)
    prior = np.full(len(value), 1 / len(value))
    best = boltzmann(np.log(prior), value, alpha)
    assert soft_value(np.log(prior), value, alpha) == pytest.approx(objective(best, value, alpha, prior), abs=1e-8)


def test_alpha_to_zero_is_the_best_case_and_alpha_to_infinity_the_prior() -> None:
    """The limits that make top-K and the prior settings of one formula."""
    value, prior = np.array([0.1, 0.9, 0.5]), np.log([0.5, 0.2, 0.3])
    np.testing.assert_allclose(boltzmann(prior, value, 1e-3), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(boltzmann(prior, value, 0.0), [0, 1, 0])
    np.testing.assert_allclose(boltzmann(prior, value, 1e9), [0.5, 0.2, 0.3], atol=1e-8)
    np.testing.assert_allclose(boltzmann(np.zeros(3), np.array([1.0, 1.0, 0.0]), 0.0), [0.5, 0.5, 0.0])


def test_the_parzen_prior_gives_the_void_case_what_memory_lacks() -> None:
    """λ = ΣK/(ΣK + K_v): nothing similar, and the void case has it all; bandwidth inf is uniform."""
    near, far = (
        np.exp(parzen_prior(np.array([0.9, 0.8]), 0.1, 0.4)),
        np.exp(parzen_prior(np.array([0.1, 0.0]), 0.1, 0.4)),
    )
    kernels = np.exp(np.array([0.9, 0.8, 0.4]) / 0.1)
    np.testing.assert_allclose(near, kernels / kernels.sum())
    assert near[-1] < 0.01 < 0.9 < far[-1]
    np.testing.assert_allclose(np.exp(parzen_prior(np.array([0.9, 0.1]), np.inf, -np.inf)), [0.5, 0.5, 0.0])


def test_gumbel_noise_draws_without_replacement_from_mu_until_the_void_case() -> None:
    """Sets come up as often as drawing one by one from μ says (Plackett-Luce, ended by the void case)."""
    log_prior, value, alpha = np.log([0.2, 0.3, 0.1, 0.4]), np.array([0.4, 0.0, 0.7, 0.2]), 0.5
    mu = boltzmann(log_prior, value, alpha)
    expected: defaultdict[tuple[int, ...], float] = defaultdict(float)
    for order in permutations(range(4)):
        chance, left = 1.0, 1.0
        for arm in order:
            chance, left = chance * mu[arm] / left, left - mu[arm]
        expected[order[: order.index(3)][:2]] += chance  # 3 is the void case; at most two are shown
    draws = 20_000
    rng = np.random.default_rng(0)
    scores = gumbel_scores(general_form(log_prior, value, alpha), rng, draws)
    seen = Counter(select(row[None, :], 2, rng, PolicySettings(), value=value[:3]).rows for row in scores)
    for rows, chance in expected.items():
        assert seen[rows] / draws == pytest.approx(chance, abs=0.012)


# -- selection ---------------------------------------------------------------------------------------------------


def test_a_set_holds_at_most_one_case_that_is_not_trusted() -> None:
    """Two unknowns shown together blur who earned the outcome."""
    draws = np.array([[5.0, 4.0, 3.0, 2.0, 0.0]])
    trusted = np.array([False, True, False, True])
    choice = select(draws, 4, np.random.default_rng(0), PolicySettings(), value=draws[0, :4], trusted=trusted)
    assert choice.rows == (0, 1, 3)


def test_only_cases_that_beat_the_void_case_are_shown() -> None:
    """The void column is a threshold that the policy drew, not a constant."""
    draws = np.array([[0.9, 0.1, 0.5, 0.4]])
    choice = select(draws, 4, np.random.default_rng(0), PolicySettings(), value=draws[0, :3])
    assert choice.rows == (0, 2)
    assert choice.void_probability == 0.0


def test_memory_is_not_switched_off_beyond_what_the_policy_does_itself() -> None:
    """A policy that shows nothing in 20 % of its draws already has more than a 5 % share."""
    draws = np.array([[1.0, 0.0]] * 8 + [[-1.0, 0.0]] * 2)
    settings = PolicySettings(memory_off_share=0.05)
    choice = select(draws, 1, np.random.default_rng(0), settings, value=np.zeros(1))
    assert choice.void_probability == pytest.approx(0.2)


# -- eq. 9 to 11: episodic control -------------------------------------------------------------------------------


def test_the_episodic_value_is_the_kernel_weighted_mean() -> None:
    """Eq. 9, computed by hand, with the prior episode that stands for an empty memory."""
    value, weights = episodic_value(np.array([0.0, 2.0]), np.array([1.0, 0.0]), 0.5, 0.5)
    kernel = np.array([1.0, np.exp(-1.0)])
    assert value == pytest.approx((kernel[0] + 0.5 * 0.5) / (kernel.sum() + 0.5))
    np.testing.assert_allclose(weights, kernel / (kernel.sum() + 0.5))
    assert episodic_value(np.zeros(0), np.zeros(0), 0.5, 0.25)[0] == 0.25


def test_eq_11_is_the_gradient_of_the_loss() -> None:
    """2 (f - y) Σ w_i (Q_i - f) ∇ log k agrees with finite differences of (f - y)²."""
    rng = np.random.default_rng(0)
    projection, state, states = rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=(4, 5))
    values, target = rng.random(4), 0.8

    def loss(p: Floats) -> float:
        delta = (state - states) @ p.T
        f, _ = episodic_value((delta * delta).sum(axis=1), values, 0.3, 0.5)
        return (f - target) ** 2

    f, slope = episodic_value_and_gradient(projection, state, states, values, 0.3, 0.5)
    numeric = finite_differences(loss, projection)
    np.testing.assert_allclose(2 * (f - target) * slope, numeric, rtol=1e-5, atol=1e-8)


def test_kernel_looks_ahead_with_the_target_network_when_gamma_says_so() -> None:
    """Eq. 10: y = r + γ V(s'); with γ = 0 the next step does not matter."""

    def value_after(gamma: float) -> float:
        policy = make_policy("kernel", gamma=gamma, prior_value=0.5)
        shown = candidates([0.9])
        following = (query(2), candidates([0.5, 0.6], groups=[8, 9]))
        policy.learn(Decision(query(1), shown, following=following), Outcome(1.0))
        return float(policy.choose(query(1), shown, 1, np.random.default_rng(0)).value[0])

    assert value_after(0.0) < value_after(0.5)
    kernel, prior = 1.0, 0.3
    assert value_after(0.0) == pytest.approx((kernel * 1.0 + prior * 0.5) / (kernel + prior))
    assert value_after(0.5) == pytest.approx((kernel * (1.0 + 0.5 * 0.5) + prior * 0.5) / (kernel + prior))


# -- eq. 15 and 26: the Q network --------------------------------------------------------------------------------


def test_the_gradient_of_the_cross_entropy_agrees_with_finite_differences() -> None:
    """Eq. 26, through both layers, with weights and soft rewards."""
    rng = np.random.default_rng(0)
    network = QNetwork(6, 4, seed=1)
    network.parameters["w2"] = rng.normal(size=4)  # away from the flat start
    x, reward, weight = rng.normal(size=(5, 6)), rng.random(5), rng.random(5)
    _, gradients = network.loss_and_gradients(x, reward, weight)
    for name, gradient in gradients.items():
        start = network.parameters[name].copy()

        def loss(value: Floats, name: str = name) -> float:
            network.parameters[name] = value
            return network.loss_and_gradients(x, reward, weight)[0]

        np.testing.assert_allclose(gradient, finite_differences(loss, start), rtol=1e-4, atol=1e-8)
        network.parameters[name] = start


def test_q_learns_who_helps_when_cases_are_varied_and_cannot_when_they_are_not() -> None:
    """Constant labels over fixed case sets (the paper's released data) leave the cases indistinguishable."""

    def gap(varied: bool) -> float:
        rng = np.random.default_rng(0)
        policy = make_policy("q", learning_rate=0.01)
        offered = candidates([0.5, 0.5])
        for step in range(400):
            asked = query(step % 10)
            if varied:
                row = int(rng.integers(2))
                policy.learn(Decision(asked, offered.take([row])), Outcome(float(row == 0)))
            else:
                policy.learn(Decision(asked, offered), Outcome(float(rng.random() < 0.5)))
        value = [policy.choose(query(i), offered, 2, rng).value for i in range(10)]
        return float(np.mean(value, axis=0)[0] - np.mean(value, axis=0)[1])

    assert gap(varied=True) > 0.6
    assert abs(gap(varied=False)) < 0.2


# -- splits ------------------------------------------------------------------------------------------------------


def test_a_grouped_split_never_puts_a_query_on_both_sides() -> None:
    """And a row split does, which is what leaks."""
    queries = [f"q{i % 40}" for i in range(400)]
    grouped, by_row = grouped_folds(queries, 5, 0), row_folds(400, 5, 0)
    folds_of = {q: {int(f) for f, name in zip(grouped, queries, strict=True) if name == q} for q in set(queries)}
    assert all(len(folds) == 1 for folds in folds_of.values())
    assert set(grouped.tolist()) == set(by_row.tolist()) == {0, 1, 2, 3, 4}
    assert any(len({int(f) for f, name in zip(by_row, queries, strict=True) if name == q}) > 1 for q in set(queries))


def test_auc_counts_ties_half() -> None:
    """Against the definition: the share of (positive, negative) pairs in the right order."""
    score, label = np.array([0.1, 0.4, 0.4, 0.8, 0.2]), np.array([0.0, 1.0, 0.0, 1.0, 0.0])
    pairs = [(p, n) for p in score[label > 0] for n in score[label == 0]]
    assert auc(score, label) == pytest.approx(np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs]))
    assert np.isnan(auc(score, np.ones(5)))


def finite_differences(loss: Callable[[Floats], float], at: Floats, step: float = 1e-6) -> Floats:
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (loss(up) - loss(down)) / (2 * step)
    return gradient


def test_of_rows_that_score_the_same_only_the_ones_shown_have_a_propensity() -> None:
    draws = np.zeros((4, 7))
    draws[:, 2] = 1.0
    draws[:, 6] = -1.0  # the void case

    choice = select(draws, 3, np.random.default_rng(0), PolicySettings(), value=np.zeros(6))

    assert choice.rows == (2, 0, 1)
    assert choice.inclusion.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
