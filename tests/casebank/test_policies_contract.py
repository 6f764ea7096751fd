"""What every policy owes the bank, whatever it thinks of cases."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from memento_casebank.policies import DEFAULT_POLICY, POLICIES, make_policy
from memento_casebank.policies.base import Decision, Outcome, Policy, fingerprint
from support.policies import PlantedWorld, candidates, query, random_history

EVERY = sorted(POLICIES)
LEARNERS = sorted(set(POLICIES) - {"similarity"})


def taught(name: str, steps: int = 120, seed: int = 1, **settings: Any) -> Policy[Any]:
    policy = make_policy(name, **settings)
    for decision, outcome in random_history(steps, seed):
        policy.learn(decision, outcome)
    return policy


@pytest.fixture(params=EVERY)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_default_policy_is_bag() -> None:
    """What the measured goals are about is what people get."""
    assert DEFAULT_POLICY == "bag"


def test_a_policy_is_known_by_its_own_name(name: str) -> None:
    """The registry and the class agree, so that a log names the policy that made it."""
    assert make_policy(name).name == name


def test_the_same_state_question_and_seed_give_the_same_choice(name: str) -> None:
    """A logged seed replays a decision."""
    offered = candidates(np.linspace(0.1, 0.9, 20).tolist())
    first = taught(name).choose(query(), offered, 4, np.random.default_rng(7))
    second = taught(name).choose(query(), offered, 4, np.random.default_rng(7))
    assert first.rows == second.rows
    np.testing.assert_array_equal(first.inclusion, second.inclusion)
    np.testing.assert_array_equal(first.sampled, second.sampled)


def test_choosing_teaches_nothing(name: str) -> None:
    """Learned state is a function of decisions and outcomes, so reading must not move it."""
    policy = taught(name)
    before = fingerprint(policy)
    for seed in range(20):
        policy.choose(query(seed), candidates([0.2, 0.5, 0.8]), 4, np.random.default_rng(seed))
    assert fingerprint(policy) == before


def test_the_probabilities_of_who_leads_sum_to_one(name: str) -> None:
    """Off-policy estimates divide by these numbers."""
    policy = taught(name, memory_off_share=0.1, explore_share=0.05)
    for seed in range(30):
        n = int(np.random.default_rng(seed).integers(1, 30))
        offered = candidates(np.random.default_rng(seed).random(n).tolist())
        choice = policy.choose(query(seed), offered, 4, np.random.default_rng(seed))
        assert choice.void_probability + choice.lead_probability.sum() == pytest.approx(1.0)
        assert (choice.lead_probability >= 0).all()
        assert (choice.inclusion >= choice.lead_probability - 1 / 32).all()
        assert choice.inclusion.sum() <= 4 + 1e-9


def test_logged_propensities_are_the_frequencies_of_what_happens(name: str) -> None:
    """Over many draws each case is shown about as often as its logged inclusion probability says."""
    policy = taught(name, memory_off_share=0.2, explore_share=0.2)
    offered = candidates([0.3, 0.45, 0.5, 0.6, 0.65])
    shown, logged, void, logged_void = np.zeros(5), np.zeros(5), 0.0, 0.0
    draws = 800
    for seed in range(draws):
        choice = policy.choose(query(), offered, 2, np.random.default_rng(seed))
        shown[list(choice.rows)] += 1 / draws
        void += (not choice.rows) / draws
        logged += choice.inclusion / draws
        logged_void += choice.void_probability / draws
    np.testing.assert_allclose(shown, logged, atol=0.06)
    assert void == pytest.approx(logged_void, abs=0.06)


def test_at_most_k_different_candidates_are_shown(name: str) -> None:
    """K bounds the prompt."""
    policy = taught(name)
    for k in (0, 1, 3, 50):
        for seed in range(10):
            rows = policy.choose(query(seed), candidates([0.9] * 10), k, np.random.default_rng(seed)).rows
            assert len(rows) <= min(k, 10)
            assert len(set(rows)) == len(rows)


def test_no_candidates_mean_the_void_case(name: str) -> None:
    """An empty bank is an answer, not an error."""
    choice = taught(name).choose(query(), candidates([]), 4, np.random.default_rng(0))
    assert choice.rows == ()
    assert choice.void_probability == pytest.approx(1.0)


def test_memory_is_off_as_often_as_asked(name: str) -> None:
    """The share measures what memory is worth; it must hold for policies that never choose the void case."""
    policy = make_policy(name, memory_off_share=0.3)
    empty = 0
    for seed in range(400):
        choice = policy.choose(query(seed), candidates([0.8, 0.9]), 4, np.random.default_rng(seed))
        assert choice.void_probability >= 0.3 - 1e-9
        empty += not choice.rows
    assert empty / 400 >= 0.22


def test_an_unknown_outcome_teaches_nothing(name: str) -> None:
    """Unknown is not failure."""
    policy = taught(name)
    before = fingerprint(policy)
    shown = candidates([0.5, 0.6])
    policy.learn(Decision(query(3), shown), Outcome(None))
    policy.learn(Decision(query(4), shown.take([])), Outcome(None, "judge", 0.5))
    assert fingerprint(policy) == before


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_known_outcome_teaches_something(learner: str) -> None:
    """The counterpart, so that the test above cannot pass for a policy that never learns."""
    policy = make_policy(learner)
    before = fingerprint(policy)
    policy.learn(Decision(query(3), candidates([0.5, 0.6])), Outcome(1.0))
    assert fingerprint(policy) != before


def test_what_is_learned_is_a_function_of_the_log(name: str) -> None:
    """Two replays of the same history are equal bit for bit, and another history is not."""
    assert fingerprint(taught(name, 200)) == fingerprint(taught(name, 200))
    if name in LEARNERS:
        assert fingerprint(taught(name, 200)) != fingerprint(taught(name, 200, seed=2))


def test_only_the_shown_rows_are_needed_to_learn(name: str) -> None:
    """The bank may keep a decision compact."""
    one, other = make_policy(name), make_policy(name)
    offered = candidates(np.linspace(0.1, 0.9, 9).tolist())
    one.learn(Decision(query(), offered.take([4, 2])), Outcome(1.0))
    twice_taken = offered.take([7, 4, 2]).take([1, 2])
    other.learn(Decision(query(), twice_taken), Outcome(1.0))
    assert fingerprint(one) == fingerprint(other)


def test_a_snapshot_continues_like_the_policy_it_was_taken_from(name: str) -> None:
    """Replays start from checkpoints; a snapshot survives being stored and is not changed by later learning."""
    history = random_history(300, 5)
    straight = make_policy(name)
    for decision, outcome in history[:150]:
        straight.learn(decision, outcome)
    stored = pickle.dumps(state := straight.state_dict())
    for decision, outcome in history[150:]:
        straight.learn(decision, outcome)
    assert pickle.dumps(state) == stored
    resumed = make_policy(name)
    resumed.load_state_dict(pickle.loads(stored))
    for decision, outcome in history[150:]:
        resumed.learn(decision, outcome)
    assert fingerprint(resumed) == fingerprint(straight)
    choose = [
        policy.choose(query(), candidates([0.5, 0.6]), 2, np.random.default_rng(0)) for policy in (straight, resumed)
    ]
    assert choose[0].rows == choose[1].rows


def test_a_restored_policy_draws_what_the_one_it_was_taken_from_draws(name: str) -> None:
    """Before it has learned anything more: what `choose` keeps ready must come with the snapshot, too."""
    straight = taught(name, 150)
    resumed = make_policy(name)
    resumed.load_state_dict(pickle.loads(pickle.dumps(straight.state_dict())))
    one, other = (
        policy.choose(query(), candidates([0.3, 0.5, 0.6]), 2, np.random.default_rng(0))
        for policy in (straight, resumed)
    )
    assert one.rows == other.rows
    for number in ("value", "sampled", "inclusion", "lead_probability"):
        np.testing.assert_array_equal(getattr(one, number), getattr(other, number))


def test_a_fresh_policy_survives_its_own_snapshot(name: str) -> None:
    """A bank without outcomes can be closed and opened."""
    policy = make_policy(name)
    policy.load_state_dict(make_policy(name).state_dict())
    assert fingerprint(policy) == fingerprint(make_policy(name))


CAN_LEARN_THE_PLANTED_WORLD: dict[str, dict[str, Any]] = {
    "memrl": {},
    "beta_ts": {},
    "advantage": {},
    "bag": {},
    "q": {"explore_share": 0.2, "learning_rate": 0.01},  # greedy on its own: the paper's reader never looks around
    "soft_q": {"learning_rate": 0.01},
    "kernel": {},
}
"""`similarity` learns nothing, and `cascade` scores what relates question and case, not which case it is."""


@pytest.mark.parametrize("learner", sorted(CAN_LEARN_THE_PLANTED_WORLD))
def test_a_learner_finds_the_good_cases(learner: str) -> None:
    """Three of twelve equally similar cases lead to success; similarity alone earns .275."""
    policy = make_policy(learner, **CAN_LEARN_THE_PLANTED_WORLD[learner])
    assert PlantedWorld(seed=3).run(policy, 800) > 0.55


def test_similarity_alone_does_not_find_them() -> None:
    """The planted world cannot be solved by looking at similarity, so the test above means something."""
    assert PlantedWorld(seed=3).run(make_policy("similarity"), 800) < 0.4


@pytest.mark.parametrize("learner", ["bag", "advantage"])
def test_a_learner_with_a_void_case_does_no_harm_where_no_case_helps(learner: str) -> None:
    """All twelve cases fail: showing none is right, and is soon what happens."""
    world = PlantedWorld(seed=4, good=frozenset(), without=0.6)
    assert world.run(make_policy(learner), 800) > 0.5


def test_an_unknown_name_and_an_unknown_setting_are_told_apart() -> None:
    """The message names what exists."""
    with pytest.raises(ValueError, match=r"no policy named 'bandit'.*bag"):
        make_policy("bandit")
    with pytest.raises(ValueError, match=r"no setting 'tau'.*case_temperature"):
        make_policy("bag", tau=1.0)
