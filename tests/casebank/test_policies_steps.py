"""Credit for steps, evidence about ways of doing them, and the probe."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_casebank.policies.probe import marginal_utility, probe
from memento_casebank.policies.steps import (
    StepLedger,
    action_signature,
    step_evidence,
    step_returns,
)
from memento_casebank.records import Step

REWARDS = st.one_of(st.none(), st.floats(0, 1))


def steps(*tools: str, rewards: Sequence[float | None] = ()) -> list[Step]:
    given = [*rewards, *[None] * (len(tools) - len(rewards))]
    return [
        Step(subtask=f"Find the population of Springfield, part {at}", tools=tuple(name.split()), reward=given[at])
        for at, name in enumerate(tools)
    ]


def test_repeated_tools_are_one_action() -> None:
    """How often a search was repeated is not another way of doing it."""
    assert action_signature(["search", "search", "crawl"]) == "search→crawl"
    assert action_signature([]) == "no tool"


def test_similar_steps_are_compared_by_what_they_led_to() -> None:
    """JitRL's advantage, in words a planner can read."""
    good, bad = steps("search crawl"), steps("python")
    evidence = step_evidence([(good, 1.0), (good, 1.0), (bad, 0.0), (bad, 1.0)])
    assert [(one.action, one.advantage, one.count) for one in evidence] == [
        ("search→crawl", 0.25, 2),
        ("python", -0.25, 2),
    ]
    assert str(evidence[0]) == "in 2 similar steps `search→crawl` scored +0.25"
    assert evidence[1].sd == pytest.approx(0.5)


def test_there_is_no_evidence_without_a_comparison_or_a_known_outcome() -> None:
    """One way of doing it, seen five times, is not better than anything."""
    assert step_evidence([(steps("search"), 1.0)] * 5) == []
    assert step_evidence([(steps("search"), None), (steps("python"), None)] * 3) == []
    assert step_evidence([(steps("search"), 1.0), (steps("python"), 0.0)], least=2) == []


def test_a_steps_return_weighs_its_own_reward_before_what_came_later() -> None:
    """Discounted means, by hand: the last step .9·.9 from the outcome and so on."""
    returns = step_returns(steps("a", "b", rewards=[None, 0.0]), 1.0, discount=0.5)
    assert returns[1] == pytest.approx((0.5 * 1.0 + 0.0) / 1.5)
    assert returns[0] == pytest.approx((0.25 * 1.0 + 0.0) / 0.75)
    assert step_returns(steps("a", "b", rewards=[0.2]), None) == [0.2, None]


@given(rewards=st.lists(REWARDS, max_size=6), outcome=REWARDS)
def test_returns_stay_between_the_rewards_they_are_made_of(rewards: list[float | None], outcome: float | None) -> None:
    """A mean is never outside its parts, and is None exactly when there are none."""
    made = step_returns(steps(*["a"] * len(rewards), rewards=rewards), outcome)
    for at, value in enumerate(made):
        parts = [part for part in [*rewards[at:], outcome] if part is not None]
        assert (value is None) == (not parts)
        if value is not None:
            assert min(parts) - 1e-9 <= value <= max(parts) + 1e-9


def test_the_ledger_remembers_what_followed_a_step() -> None:
    """AgentPRM's running mean of γ^(steps to the end)(2r - 1) on a hash of subtask and tools."""
    ledger = StepLedger(discount=0.5)
    run = steps("search", "python")
    ledger.learn(run, 1.0)
    ledger.learn(run, 0.0)
    ledger.learn(run, 1.0)
    first, last = ledger.value(run[0]), ledger.value(run[1])
    assert (first.mean, first.count) == (pytest.approx(0.5 * 1 / 3), 3)
    assert (last.mean, last.count) == (pytest.approx(1 / 3), 3)
    assert ledger.value(steps("crawl")[0]).count == 0


def test_the_same_subtask_in_other_words_order_is_the_same_step() -> None:
    """The hash is of the longest words, so numbering and small words do not split the evidence."""
    ledger = StepLedger()
    ledger.learn([Step(subtask="1. Find the population of Springfield", tools=("search",))], 1.0)
    assert ledger.value(Step(subtask="population of Springfield: find it!", tools=("search", "search"))).count == 1
    assert ledger.value(Step(subtask="population of Springfield: find it!", tools=("python",))).count == 0


def test_an_unknown_outcome_is_not_credited() -> None:
    """Steps with a reward of their own are, even so."""
    ledger = StepLedger()
    run = steps("search", "python", rewards=[1.0])
    ledger.learn(run, None)
    assert [ledger.value(step).count for step in run] == [1, 0]


def test_a_failure_is_put_where_the_outlook_fell() -> None:
    """Steps that usually go well, then one that usually does not."""
    ledger = StepLedger()
    good, bad = steps("search")[0], Step(subtask="Guess the final number", tools=("python",))
    ledger.learn([good], 1.0)
    ledger.learn([bad], 0.0)
    assert ledger.where_it_failed([good, bad]) == 1
    assert ledger.where_it_failed([good, good]) is None
    restored = StepLedger()
    restored.load_state_dict(ledger.state_dict())
    assert restored.progress([good, bad]) == ledger.progress([good, bad])


async def test_the_probe_tells_what_memory_and_each_case_were_worth() -> None:
    """`b` helps, `c` spoils it, and reruns show both."""
    asked: list[tuple[str, ...]] = []

    async def attempt(cases: tuple[str, ...]) -> float | None:
        asked.append(cases)
        return 0.2 + 0.6 * ("b" in cases) - 0.3 * ("c" in cases)

    report = await probe(attempt, ["a", "b", "c"], leave_one_out=True)
    assert report.lift == pytest.approx(0.3)
    assert report.effects == {"a": 0.0, "b": pytest.approx(0.6), "c": pytest.approx(-0.3)}
    assert len(asked) == len(set(asked)) == 6  # none, 1, 2, 3 and two more that leave one out


async def test_the_probe_counts_an_unknown_as_unknown() -> None:
    """A rerun that could not be judged gives no lift instead of a loss."""

    async def attempt(cases: tuple[str, ...]) -> float | None:
        return None if not cases else 1.0

    report = await probe(attempt, ["a"])
    assert report.lift is None
    assert report.utility is None
    assert report.rewards == {(): None, ("a",): 1.0}


def test_the_marginal_utility_is_the_papers_sum() -> None:
    """Tiers 1, 2, 3 with C(k) = 1/log2(k + 1): (1 - .631)·.5 + (.631 - .5)·.7 + .5·.9 - .2."""
    utility = marginal_utility({0: 0.2, 1: 0.5, 2: 0.7, 3: 0.9})
    assert utility == pytest.approx((1 - 0.63093) * 0.5 + (0.63093 - 0.5) * 0.7 + 0.5 * 0.9 - 0.2, abs=1e-4)
    assert marginal_utility({0: 0.4, 1: 0.4, 2: 0.4}) == pytest.approx(0.0)
