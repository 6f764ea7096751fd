"""What the bank can say beyond single cases: ways of working, steps, experiments, other policies on the same log."""

import random
from pathlib import Path

import pytest

from memento_casebank import BankError, CaseBank, EngineSettings, Step
from memento_casebank.replay import NotEnoughEvidence

pytestmark = pytest.mark.anyio

SIMPLE = EngineSettings(policy="similarity")


def steps(*tools: str, reward: float | None = None) -> list[Step]:
    return [Step(subtask="find the number in the table", tools=tools, reward=reward)]


async def test_ways_of_working_on_similar_tasks_are_compared_best_first(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path, settings=SIMPLE) as bank:
        for number in range(3):
            await bank.retain(f"sum the sales {number}", {"n": 1}, steps=steps("search", "read"), reward=1.0)
            await bank.retain(f"sum the sales {number} now", {"n": 2}, steps=steps("guess"), reward=0.0)
        await bank.retain("sum the sales 9", {"n": 3}, steps=steps("guess"))  # unknown: says nothing

        found = await bank.retrieve("sum the sales 7")
        empty = await bank.retrieve("sum the sales 7", namespace="other")

        await bank.retain("who wrote Faust", {"n": 4}, steps=steps("guess"), reward=1.0)
        apart = await bank.retrieve("sum the sales 7")

    assert apart.evidence == found.evidence  # a task unlike this one says nothing about it
    assert [str(advantage) for advantage in found.evidence] == [
        "in 3 similar steps `search→read` scored +0.50",
        "in 3 similar steps `guess` scored -0.50",
    ]
    assert empty.evidence == []


async def test_cases_are_shown_best_first_each_with_its_own_numbers(tmp_path: Path) -> None:
    """Whatever their order in the log: the nearest is neither the oldest nor the newest here."""
    async with CaseBank.open(tmp_path, settings=SIMPLE) as bank:
        far = await bank.retain("sum the costs of the ships in May", {"n": 1}, reward=0.0)
        same = await bank.retain("sum the sales of March", {"n": 2}, reward=1.0)
        near = await bank.retain("sum the sales of March and April", {"n": 3})

        found = await bank.retrieve("sum the sales of March")

    assert [one.case.id for one in found.shown] == [same.id, near.id, far.id]
    assert [one.outcome.reward for one in found.shown] == [1.0, None, 0.0]
    similarity = [one.similarity for one in found.shown]
    assert similarity[0] == pytest.approx(1.0, abs=1e-5)
    assert similarity == sorted(similarity, reverse=True)
    assert [f"cosine {one.similarity:.2f}, shown 1 times" in one.why for one in found.shown] == [True] * 3


async def test_a_failure_is_located_at_the_step_after_which_things_went_wrong_before(tmp_path: Path) -> None:
    good = Step(subtask="open the table", tools=("read",))
    bad = Step(subtask="guess the total", tools=("guess",))
    async with CaseBank.open(tmp_path, settings=SIMPLE) as bank:
        for number in range(4):
            await bank.retain(f"task {number}", {"n": number}, steps=[good], reward=1.0)
            await bank.retain(f"other {number}", {"n": -number}, steps=[good, bad], reward=0.0)

        assessed = await bank.assess_steps([good, bad])
        unknown = await bank.assess_steps([Step(subtask="something never done")])

    assert assessed.failed_at == 1
    assert assessed.values[0].mean > assessed.values[1].mean == -1.0
    assert (unknown.values[0].count, unknown.failed_at) == (0.0, None)


async def test_a_probe_measures_the_lift_and_every_attempt_is_learned_from(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path, settings=EngineSettings(seed=1)) as bank:
        useful = await bank.retain("sum the sales of March", {"n": 1}, answer="42")
        await bank.retain("sum the sales of May", {"n": 2}, answer="17")
        seen: list[tuple[str, ...]] = []

        async def attempt(case_ids: tuple[str, ...]) -> float | None:
            seen.append(case_ids)
            return 1.0 if useful.id in case_ids else 0.0

        report = await bank.probe("sum the sales of March again", attempt, leave_one_out=True)
        stats = await bank.stats()

    assert report.lift == 1.0
    assert report.effects[useful.id] == 1.0
    assert () in seen
    assert stats.records["decisions"] == len(seen) == stats.namespaces[0].learned_from


async def test_another_policy_is_estimated_on_the_log_and_the_estimate_is_near_the_truth(tmp_path: Path) -> None:
    """Two cases, one right (reward .9) and one wrong (.1); logged at random; asked: which picks by closeness."""
    rng = random.Random(5)
    settings = EngineSettings(policy="beta_ts", policy_settings={"explore_share": 0.5}, seed=5)
    async with CaseBank.open(tmp_path, settings=settings) as bank:
        right = await bank.retain("route the parcel to Ulm", {"n": 1}, answer="yes")
        await bank.retain("feed the cat and the dog", {"n": 2}, answer="no")
        for turn in range(400):
            found = await bank.retrieve("route the parcel to Ulm please", 1, run_id=str(turn))
            good = [shown.case.id for shown in found.shown] == [right.id]
            await bank.record_outcome(float(rng.random() < (0.9 if good else 0.1)), "verifier", run_id=str(turn))

        estimate = await bank.replay("similarity", limit=1)

        with pytest.raises(NotEnoughEvidence, match="at least 100000"):
            await bank.replay("similarity", limit=1, minimum_sample=100_000)
        with pytest.raises(BankError, match="no policy named 'magic'"):
            await bank.replay("magic")

    assert estimate.decisions == 400
    assert estimate.snips.low <= 0.9 <= estimate.snips.high
    assert estimate.doubly_robust.mean == pytest.approx(0.9, abs=0.08)
    assert estimate.effective_sample_size > 50


@pytest.mark.parametrize("said_of", ["decision", "case", "run"])
@pytest.mark.parametrize("linked_by", ["run", "decision"])
async def test_an_outcome_reaches_the_whole_attempt_whatever_part_it_is_said_of(
    said_of: str, linked_by: str, tmp_path: Path
) -> None:
    async with CaseBank.open(tmp_path, settings=SIMPLE) as bank:
        stranger = await bank.retain("sum the sales of May", {}, run_id="other")
        run_id = "this" if linked_by == "run" else None
        first = await bank.retrieve("sum the sales", run_id=run_id)
        second = await bank.retrieve("sum the sales, step 2", run_id=run_id)
        case = await bank.retain(
            "sum the sales", {}, run_id=run_id, decision_id=None if linked_by == "run" else first.decision.id
        )
        if said_of == "decision":
            record = await bank.record_outcome(1.0, decision_id=first.decision.id)
        elif said_of == "case":
            record = await bank.record_outcome(1.0, case_id=case.id)
        elif linked_by == "run":
            record = await bank.record_outcome(1.0, run_id="this")
        else:
            with pytest.raises(BankError, match="Nothing was retrieved or retained under run 'this'"):
                await bank.record_outcome(1.0, run_id="this")
            return

        assert record.cases == (case.id,)
        steps = {first.decision.id, second.decision.id} if linked_by == "run" else {first.decision.id}
        assert set(record.decisions) == steps
        assert (await bank.case(case.id)).reward == 1.0
        assert (await bank.case(stranger.id)).reward is None
