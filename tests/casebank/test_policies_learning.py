"""What is particular to each learner: who gets the credit, what is forgotten, what is predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from memento_casebank.policies import make_policy
from memento_casebank.policies.advantage import Baseline
from memento_casebank.policies.bag import FEATURES, relation_features
from memento_casebank.policies.base import (
    CANDIDATE_DTYPE,
    Candidates,
    Choice,
    Decision,
    Floats,
    Interval,
    Outcome,
    Policy,
    Query,
    stable_key,
)
from memento_casebank.policies.cascade import CascadePolicy, CascadeSettings
from memento_casebank.policies.slots import SlotTable, UnitClusters
from support.policies import candidates, query, unit

DAY = 86_400.0
SEARCH_CRAWL_KEY = 6_344_508_087_532_826_155


def value_of(policy: Policy[Any], offered: Candidates, asked: Query | None = None) -> Floats:
    return policy.choose(asked or query(), offered, 1, np.random.default_rng(0)).value


def success_of(policy: Policy[Any], offered: Candidates) -> float:
    """Predicted P(success) when the first candidate is shown."""
    choice = policy.choose(query(), offered, 1, np.random.default_rng(0))
    assert choice.without_memory is not None
    return float(choice.without_memory.mean + choice.value[0])


def teach(
    policy: Policy[Any], offered: Candidates, history: Sequence[tuple[Sequence[int], float]], **more: Any
) -> None:
    """Learn (rows shown, reward) pairs for one and the same question."""
    for rows, reward in history:
        policy.learn(Decision(query(), offered.take(rows)), Outcome(reward, **more))


# -- bag: one outcome, many cases --------------------------------------------------------------------------------


def test_a_case_that_travels_with_a_good_one_is_explained_away() -> None:
    """Case 0 succeeds alone and with case 1; case 1 fails alone. Counting rewards would praise both."""
    offered = candidates([0.7, 0.7, 0.7])
    history = [((0,), 1.0), ((0, 1), 1.0), ((1,), 0.0)] * 15
    bag, beta = make_policy("bag"), make_policy("beta_ts")
    teach(bag, offered, history)
    teach(beta, offered, history)
    good, rider, unseen = value_of(bag, offered)
    assert good > unseen > rider
    assert value_of(beta, offered)[1] == pytest.approx(0.5, abs=0.05)  # the naive rule sees a coin flip


def test_a_cited_case_learns_more_than_one_that_was_merely_shown() -> None:
    """The agent said which case it used; both were there."""
    for name in ("bag", "advantage"):
        policy, offered = make_policy(name), candidates([0.7, 0.7])
        teach(policy, offered, [((0, 1), 1.0)] * 10, cited=frozenset({"case-1"}))
        teach(policy, offered, [((), 0.0)] * 10)
        cited, shown = value_of(policy, offered)
        assert cited > shown + 0.01, name


def test_near_duplicates_share_what_is_learned() -> None:
    """Two rows of one group are one piece of evidence."""
    policy = make_policy("bag")
    teach(policy, candidates([0.7], groups=[5]), [((0,), 0.0)] * 10)
    copy, stranger = value_of(policy, candidates([0.7, 0.7], groups=[5, 6]))
    assert copy < stranger


def test_a_reputation_does_not_reach_questions_unlike_the_case() -> None:
    """The gate: what a case did for near questions hardly moves its value for a far one."""
    offered = candidates([0.75, 0.75])
    policy = make_policy("bag")
    teach(policy, offered, [((0,), 1.0), ((1,), 0.0)] * 15)
    near, far = value_of(policy, offered), value_of(policy, candidates([0.2, 0.2]))
    assert near[0] - near[1] > 5 * abs(far[0] - far[1])


def test_an_outcome_counts_once_however_many_cases_were_shown() -> None:
    """Showing four cases must not shrink the doubt about memory four times as fast (guide §5g.7)."""
    one, four = make_policy("bag"), make_policy("bag")
    offered = candidates([0.7] * 4)
    teach(one, offered, [((0,), 1.0)] * 20)
    teach(four, offered, [((0, 1, 2, 3), 1.0)] * 20)

    def doubt(policy: Policy[Any]) -> float:
        return float(policy.choose(query(), offered, 1, np.random.default_rng(0)).value_sd[0])

    assert doubt(four) > doubt(one)


def test_bag_predictions_are_calibrated_where_the_world_is_what_it_assumes() -> None:
    """P(success) of .9 with memory and .3 without is learned from outcomes, with intervals that narrow."""
    rng = np.random.default_rng(0)
    policy, offered = make_policy("bag", memory_off_share=0.0), candidates([0.7])
    first = policy.choose(query(), offered, 1, np.random.default_rng(0))
    for _ in range(300):
        teach(policy, offered, [((0,), float(rng.random() < 0.9)), ((), float(rng.random() < 0.3))])
    choice = policy.choose(query(), offered, 1, np.random.default_rng(0))
    assert choice.success is not None
    assert choice.without_memory is not None
    assert choice.lift is not None
    assert first.success is not None
    assert choice.success.mean == pytest.approx(0.9, abs=0.06)
    assert choice.without_memory.mean == pytest.approx(0.3, abs=0.08)
    assert choice.lift.low < 0.6 < choice.lift.high
    assert choice.success.high - choice.success.low < 0.5 * (first.success.high - first.success.low)


def test_the_prediction_for_a_set_is_what_sets_of_that_size_earned() -> None:
    """Learning and predicting share an outcome among n cases in the same way."""
    policy, offered = make_policy("bag", memory_off_share=0.0, explore_share=0.0), candidates([0.7] * 4)
    predicted: list[float] = []
    for step in range(600):
        teach(policy, offered, [((0, 1, 2, 3), float(step % 6 > 0)), ((), float(step % 3 == 0))])
        choice = policy.choose(query(), offered, 4, np.random.default_rng(0))
        assert choice.success is not None
        if step >= 480:
            assert len(choice.rows) == 4
            predicted.append(choice.success.mean)
    assert np.mean(predicted) == pytest.approx(5 / 6, abs=0.03)


def test_showing_nothing_has_a_lift_of_exactly_nothing() -> None:
    """The void case is what lift is measured against."""
    choice = make_policy("bag").choose(query(), candidates([]), 4, np.random.default_rng(0))
    assert choice.lift is not None
    assert (choice.lift.mean, choice.lift.low, choice.lift.high) == (0.0, 0.0, 0.0)
    assert choice.success == choice.without_memory


def test_a_doubtful_judge_teaches_less() -> None:
    """Confidence 0 teaches nothing, .5 less than 1."""

    def lesson(confidence: float) -> float:
        policy, offered = make_policy("bag"), candidates([0.7])
        before = success_of(policy, offered)
        teach(policy, offered, [((0,), 0.0)] * 5, confidence=confidence)
        return before - success_of(policy, offered)

    assert lesson(0.0) == pytest.approx(0.0, abs=1e-9)
    assert lesson(0.3) < lesson(0.6) < lesson(1.0)


def test_doubt_about_a_case_grows_back_with_time_and_its_mean_stays() -> None:
    """Forgetting by variance inflation: 90 days double the doubt, a decade restores the prior."""
    offered = candidates([0.7])
    policy = make_policy("bag")
    teach(policy, offered, [((0,), 1.0)] * 30)

    def look(days: float) -> tuple[float, float]:
        choice = policy.choose(query(time=days * DAY), offered, 1, np.random.default_rng(0))
        return float(choice.value[0]), float(choice.value_sd[0])

    (value, now), (_, later), (value_much_later, much_later) = look(0), look(90), look(3650)
    assert now < later < much_later
    assert value == pytest.approx(value_much_later, abs=1e-9)
    never = make_policy("bag", half_life_days=np.inf)
    teach(never, offered, [((0,), 1.0)] * 30)
    sd = [never.choose(query(time=t * DAY), offered, 1, np.random.default_rng(0)).value_sd[0] for t in (0, 3650)]
    assert sd[0] == sd[1]


def test_ancestors_share_in_the_credit_only_when_asked() -> None:
    """MemQ: a case that led to a good case is worth more; off by default."""
    offered = candidates([0.7, 0.7], groups=[1, 9])
    ancestors = ((9, 1),)

    def ancestor_gain(**settings: Any) -> float:
        policy = make_policy("bag", **settings)
        for _ in range(10):
            policy.learn(Decision(query(), offered.take([0]), ancestors=ancestors), Outcome(1.0))
        value = value_of(policy, candidates([0.7, 0.7], groups=[9, 10]))
        return float(value[0] - value[1])

    assert ancestor_gain() == 0.0
    assert ancestor_gain(ancestor_decay=0.5) > 0.01


@pytest.mark.parametrize("setting", ["use_case_effect", "use_difficulty", "use_bm25", "use_gate"])
def test_every_ablation_changes_what_it_names(setting: str) -> None:
    """An ablation that changes nothing would print a difference of noise."""
    offered = candidates([0.3, 0.9, 0.6])
    on, off = make_policy("bag"), make_policy("bag", **{setting: False})
    for policy in (on, off):
        teach(policy, offered, [((0,), 0.0), ((1, 2), 1.0), ((), 1.0), ((), 0.0), ((), 1.0)] * 5)
    assert not np.allclose(value_of(on, offered), value_of(off, offered))


def test_without_the_void_case_harmful_cases_are_shown_anyway() -> None:
    """The ablation of the void case, and what the void case is for."""
    offered = candidates([0.7] * 3)
    with_void = make_policy("bag", explore_share=0.0)
    without = make_policy("bag", explore_share=0.0, use_void=False, memory_off_share=0.0)
    for policy in (with_void, without):
        teach(policy, offered, [((0,), 0.0), ((1,), 0.0), ((2,), 0.0), ((), 1.0)] * 20)
    assert with_void.choose(query(), offered, 3, np.random.default_rng(0)).void_probability > 0.95
    choice = without.choose(query(), offered, 3, np.random.default_rng(0))
    assert len(choice.rows) == 3
    assert choice.void_probability == 0.0


def test_failures_that_cases_cause_leave_what_is_expected_without_memory_alone() -> None:
    """With a difficulty common to both, bad cases would make the question look hard and themselves innocent."""
    policy, offered = make_policy("bag"), candidates([0.7])
    teach(policy, offered, [((), 1.0), ((), 0.0)] * 20)

    def without_memory() -> float:
        choice = policy.choose(query(), offered, 1, np.random.default_rng(0))
        assert choice.without_memory is not None
        return choice.without_memory.mean

    before = without_memory()
    teach(policy, offered, [((0,), 0.0)] * 60)
    assert without_memory() == pytest.approx(before, abs=0.05)  # what is left is the recalibration of all predictions


def test_memory_that_has_lost_its_credit_must_be_surer_of_a_case_to_show_it() -> None:
    """The same knowledge, three states of the account: trusted, half used up, used up."""
    policy, offered = make_policy("bag", memory_off_share=0.0, explore_share=0.0, credit=10.0), candidates([0.7])
    state = policy.state_dict()
    shown: list[float] = []
    for credit in (10.0, 5.0, 0.0):
        policy.load_state_dict({**state, "credit": credit})
        shown.append(1.0 - policy.choose(query(), offered, 1, np.random.default_rng(0)).void_probability)
    assert shown[0] > 0.5  # a fresh memory is trusted: it starts with all of its credit
    assert state["credit"] == 10.0
    assert shown[0] > shown[1] >= shown[2]
    assert shown[2] < 0.1


def test_credit_is_lost_by_failures_with_memory_and_won_back() -> None:
    """Counted against what is expected without memory, and never beyond what there was at first."""
    policy, offered = make_policy("bag", credit=10.0), candidates([0.7])

    def credit() -> float:
        return float(policy.state_dict()["credit"])

    teach(policy, offered, [((), 1.0), ((), 0.0)] * 10)
    assert credit() == 10.0  # runs without memory cost nothing
    teach(policy, offered, [((0,), 0.0)] * 12)
    assert credit() == pytest.approx(10.0 - 12 * 0.5, abs=2.0)
    teach(policy, offered, [((0,), 0.0)] * 60)
    assert credit() == -10.0  # nor does the debt grow for ever
    teach(policy, offered, [((0,), 1.0)] * 90)
    assert credit() == 10.0


def test_an_unknown_or_distrusted_outcome_costs_memory_no_credit() -> None:
    """Only what is known counts, as far as its source is trusted."""
    policy, offered = make_policy("bag"), candidates([0.7])
    before = policy.state_dict()["credit"]
    for outcome in (Outcome(None), Outcome(0.0, confidence=0.0)):
        policy.learn(Decision(query(), offered.take([0])), outcome)
    assert policy.state_dict()["credit"] == before
    policy.learn(Decision(query(), offered.take([0])), Outcome(0.0))
    assert policy.state_dict()["credit"] < before


def test_credit_is_measured_against_what_is_expected_without_memory() -> None:
    """Half of the tasks won is a loss where nearly all are won without, and a gain where hardly any is."""
    change: list[float] = []
    for without in (1.0, 0.0):
        policy, offered = make_policy("bag", credit=50.0), candidates([0.7])
        teach(policy, offered, [((0,), 0.0)] * 30)  # some of the credit is gone
        teach(policy, offered, [((), without)] * 30)
        before = policy.state_dict()["credit"]
        teach(policy, offered, [((0,), 1.0), ((0,), 0.0)] * 10)
        change.append(policy.state_dict()["credit"] - before)
    assert change[0] < -5.0
    assert change[1] > 5.0


@pytest.mark.parametrize("shown", [False, True])
def test_a_hard_kind_of_question_is_told_from_an_easy_one(shown: bool) -> None:
    """Difficulty is learned apart for runs without memory and with it."""
    policy, hard, easy = make_policy("bag"), query(1), query(2)
    for _ in range(30):
        for asked, reward in ((hard, 0.0), (easy, 1.0)):
            offered = candidates([0.7, 0.7], groups=[10, 11] if asked is hard else [20, 21])
            policy.learn(Decision(asked, offered.take([0] if shown else [])), Outcome(reward))

    def expected(asked: Query) -> tuple[float, float]:
        choice = policy.choose(asked, candidates([0.7], groups=[99]), 1, np.random.default_rng(0))
        assert choice.without_memory is not None
        return choice.without_memory.mean, float(choice.without_memory.mean + choice.value[0])

    (hard_without, hard_with), (easy_without, easy_with) = expected(hard), expected(easy)
    if shown:
        assert easy_with - hard_with > 0.1
        assert easy_without == pytest.approx(hard_without)
    else:
        assert easy_without - hard_without > 0.1


def test_doubt_grows_from_the_last_time_a_case_was_judged() -> None:
    offered, policy = candidates([0.7]), make_policy("bag")
    for days in (0.0, 3650.0):
        for _ in range(30):
            policy.learn(Decision(query(time=days * DAY), offered.take([0])), Outcome(1.0))

    def doubt(days: float) -> float:
        return float(policy.choose(query(time=days * DAY), offered, 1, np.random.default_rng(0)).value_sd[0])

    assert doubt(3650.0) < doubt(3650.0 + 90.0) < 1.3 * doubt(3650.0)


def test_the_intervals_hold_the_doubt_about_a_case_and_about_doing_without() -> None:
    """In log-odds, which do not shrink near 0 and 1."""
    offered = candidates([0.7])
    calm = {"memory_off_share": 0.0, "case_temperature": 0.0, "shared_temperature": 0.0, "explore_share": 0.0}

    def chosen(policy: Policy[Any]) -> Choice:
        choice = policy.choose(query(), offered, 1, np.random.default_rng(0))
        assert choice.rows == (0,)
        return choice

    def width(interval: Interval | None) -> float:
        assert interval is not None
        return math.log(interval.high / (1.0 - interval.high)) - math.log(interval.low / (1.0 - interval.low))

    sure, unsure = (chosen(make_policy("bag", **calm, case_variance=variance)) for variance in (0.01, 4.0))
    assert width(unsure.success) > 1.3 * width(sure.success)

    policy = make_policy("bag", **calm)
    teach(policy, offered, [((0,), 1.0)] * 30)
    few = chosen(policy).lift
    teach(policy, offered, [((), 1.0), ((), 0.0)] * 60)
    many = chosen(policy).lift
    assert few is not None
    assert many is not None
    assert few.high - few.low > 1.2 * (many.high - many.low)


def test_the_features_of_a_case_are_those_that_are_named() -> None:
    table = np.zeros(2, CANDIDATE_DTYPE)
    table[0] = (0.75, 1.0, 0.25, math.e**2 - 1.0, 3, 0, 1, 1)
    table[1] = (-0.5, 0.5, np.nan, -5.0, 0, 0, 2, 2)  # unknown outcome; a clock that went backwards

    x = relation_features(table)

    named = ("w0", *FEATURES)
    assert dict(zip(named, x[0].tolist(), strict=True)) == pytest.approx(
        {
            "w0": 1.0, "case": 1.0, "similarity": 0.5, "similarity²": 0.25, "bm25": 0.5, "best bm25": 1.0,
            "age": 1.0 / 3.0, "own reward": -0.5, "plan length": math.log(4.0) / 3.0 - 0.5,
        },
        abs=1e-6,
    )  # fmt: skip
    assert dict(zip(named, x[1].tolist(), strict=True)) == pytest.approx(
        {
            "w0": 1.0, "case": 1.0, "similarity": -2.0, "similarity²": 4.0, "bm25": 0.0, "best bm25": 0.0,
            "age": 0.0, "own reward": 0.0, "plan length": -0.5,
        },
        abs=1e-6,
    )  # fmt: skip


def test_without_credit_cases_that_doubt_outweighs_are_tried_one_at_a_time() -> None:
    """Their mean beats showing nothing; less the doubt about memory as a whole it does not."""
    offered = candidates([0.7, 0.7, 0.7])
    sizes: dict[float, set[int]] = {}
    for credit in (0.0, 20.0):
        policy = make_policy("bag", credit=credit, shared_temperature=3.0)
        choices = [policy.choose(query(), offered, 4, np.random.default_rng(seed)) for seed in range(60)]
        sizes[credit] = {len(choice.rows) for choice in choices if not choice.forced}
    assert sizes[0.0] == {0, 1}
    assert max(sizes[20.0]) == 3


def test_a_prediction_that_is_too_low_every_time_is_shifted() -> None:
    """Platt's offset and slope: the second is nothing yet where the log-odds are 0."""
    policy = make_policy("bag", difficulty_variance=0.0)
    policy.learn(Decision(query(), candidates([]).take([])), Outcome(1.0))
    slope, _, offset, _ = policy.state_dict()["calibration"]
    assert slope == 1.0
    assert offset > 0.0


# -- advantage: LOOP ---------------------------------------------------------------------------------------------


def test_a_repeated_task_is_compared_with_its_own_other_attempts() -> None:
    """LOOP: leave one out. The baseline of an attempt never holds the attempt itself."""
    baseline = Baseline(8)
    hard, easy = query(1, task=11), query(1, task=22)
    assert [baseline.take(hard, r) for r in (0.0, 0.0)][1] == 0.0
    assert [baseline.take(easy, r) for r in (1.0, 1.0)][1] == 1.0
    assert baseline.take(hard, 1.0) == 0.0  # the others failed
    assert baseline.look(hard) == pytest.approx(1 / 3)
    assert baseline.look(query(1)) == pytest.approx((2 + 3) / (4 + 5))  # unknown task: its cluster, shrunk to one half


def test_success_on_an_easy_task_is_no_advantage() -> None:
    """The same reward is worth more where others fail."""
    policy = make_policy("advantage")
    offered = candidates([0.7, 0.7])
    for _ in range(20):
        for row, task, other in ((0, 1, 1.0), (1, 2, 0.0)):
            policy.learn(Decision(query(task=task), offered.take([])), Outcome(other))
            policy.learn(Decision(query(task=task), offered.take([row])), Outcome(1.0))
    easy, hard = value_of(policy, offered)
    assert hard > easy + 0.2


# -- memrl, cascade ----------------------------------------------------------------------------------------------


def test_memrl_utilities_follow_the_papers_moving_average() -> None:
    """Q ← Q + .3 (r - Q) with r in {-1, 1}, the same for every case shown."""
    policy, offered = make_policy("memrl"), candidates([0.7, 0.7])
    teach(policy, offered, [((0, 1), 1.0), ((0,), 0.0)])
    np.testing.assert_allclose(value_of(policy, offered), [0.3 + 0.3 * (-1 - 0.3), 0.3])


def test_memrl_never_shows_what_is_below_its_threshold() -> None:
    """Phase A comes first, whatever the utility."""
    policy, offered = make_policy("memrl", threshold=0.5), candidates([0.4, 0.6])
    teach(policy, offered, [((0,), 1.0), ((1,), 0.0)] * 10)
    assert policy.choose(query(), offered, 4, np.random.default_rng(0)).rows == (1,)


def test_the_confidence_bound_of_cascade_matches_a_direct_inverse() -> None:
    """Sherman-Morrison keeps A⁻¹; the width is √(φᵀ A⁻¹ φ)."""
    policy, offered = CascadePolicy(CascadeSettings(ridge=0.5)), candidates([0.2, 0.8])
    teach(policy, offered, [((0,), 1.0), ((1,), 0.0), ((), 1.0)] * 4)
    rebuilt = np.eye(len(policy.state_dict()["theta"])) * 0.5
    for rows in ([0], [1], []) * 4:
        phi = policy.features(query(), offered.take(rows))[0]
        rebuilt += np.outer(phi, phi)
    np.testing.assert_allclose(policy.state_dict()["inverse"], np.linalg.inv(rebuilt), rtol=1e-6, atol=1e-9)


def test_cascade_shows_one_case() -> None:
    """The paper's K."""
    assert len(make_policy("cascade").choose(query(), candidates([0.5] * 8), 4, np.random.default_rng(0)).rows) == 1


# -- tables ------------------------------------------------------------------------------------------------------


def test_a_slot_table_gives_unseen_keys_the_prior_and_keeps_the_rest_as_it_grows() -> None:
    """Growth copies; the prior row is never written."""
    table = SlotTable([0.5, 2.0])
    for key in range(1, 500):
        rows = table.rows([key])
        table.data[rows] = key, -key
    np.testing.assert_array_equal(table.look([3, 10_000, 499]), [[3, -3], [0.5, 2.0], [499, -499]])
    copy = SlotTable([9.0, 9.0])
    copy.load_state_dict(table.state_dict())
    np.testing.assert_array_equal(copy.look([3, 10_000]), [[3, -3], [0.5, 2.0]])


def test_clusters_tell_two_kinds_of_questions_apart() -> None:
    """Questions around one centre share a cluster; looking does not move it."""
    rng = np.random.default_rng(0)
    centres = unit(rng, 2, 64)
    clusters = UnitClusters(4)
    kinds: dict[int, set[int]] = {0: set(), 1: set()}
    for step in range(60):
        near = centres[step % 2] + 0.05 * unit(rng, 1, 64)[0]
        kinds[step % 2].add(clusters.assign(near / np.linalg.norm(near)))
    assert kinds[0].isdisjoint(kinds[1])
    before = clusters.state_dict()["centroids"].copy()
    assert clusters.nearest(centres[0]) in kinds[0]
    np.testing.assert_array_equal(clusters.state_dict()["centroids"], before)


def test_a_cluster_moves_to_the_mean_of_its_members() -> None:
    clusters, vectors = UnitClusters(1), unit(np.random.default_rng(0), 5)
    expected = vectors[0].astype(np.float64)
    for size, vector in enumerate(vectors[1:], 2):
        expected = expected + (vector - expected) / size
        expected /= np.linalg.norm(expected)
    for vector in vectors:
        assert clusters.assign(vector) == 0
    assert clusters.state_dict()["centroids"][0] == pytest.approx(expected)


def test_keys_are_the_same_in_every_process() -> None:
    """They are stored in logs; `hash` would differ from run to run. The value is the contract."""
    assert stable_key("search→crawl") == SEARCH_CRAWL_KEY
    assert stable_key("a") != stable_key("b")
    assert stable_key("") > 0
