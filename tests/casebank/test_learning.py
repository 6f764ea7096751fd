"""What is learned is a pure function of the log: in one go, amended, reopened, rebuilt or imported, bit for bit."""

import io
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from memento_casebank import BankError, CaseBank, EngineSettings, engine, learning
from memento_casebank.policies import POLICIES
from memento_casebank.policies.bag import BagPolicy
from memento_casebank.policies.base import Candidates, Choice, Decision, Outcome, Query
from memento_casebank.records import OutcomeKind, OutcomeRecord, outcome_in_force

pytestmark = pytest.mark.anyio

TOPICS = ("sum the sales table", "find the capital of a county", "read the contract page", "compute a square root")


async def live(bank: CaseBank, seed: int, turns: int) -> list[str]:
    """A little life: ask, retain, hear outcomes late, out of order, amended, unknown and by several kinds."""
    rng = random.Random(seed)
    decisions: list[str] = []
    for turn in range(turns):
        question = f"{rng.choice(TOPICS)} number {rng.randrange(30)}"
        found = await bank.retrieve(question, run_id=f"{seed}-{turn}")
        decisions.append(found.decision.id)
        await bank.retain(question, {"way": rng.randrange(3)}, run_id=f"{seed}-{turn}", decision_id=found.decision.id)
        if rng.random() < 0.8:
            reward = None if rng.random() < 0.1 else float(rng.random() < 0.6)
            cited = [shown.case.id for shown in found.shown[:1]] if rng.random() < 0.5 else None
            await bank.record_outcome(reward, "judge", run_id=f"{seed}-{turn}", cited_case_ids=cited)
        if rng.random() < 0.25:
            await bank.record_outcome(float(rng.random() < 0.5), "human", decision_id=rng.choice(decisions))
    return decisions


async def fingerprint(bank: CaseBank) -> str:
    (namespace,) = (await bank.stats()).namespaces
    return namespace.fingerprint


@pytest.mark.parametrize("policy", sorted(POLICIES))
async def test_a_rebuild_gives_the_same_state_bit_for_bit(policy: str, tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path, settings=EngineSettings(policy=policy, seed=1)) as bank:
        await live(bank, seed=1, turns=60)
        before = await fingerprint(bank)

        assert await bank.rebuild() == {"default": before}


async def test_a_late_outcome_teaches_what_the_policy_saw_of_the_cases_it_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their features as they were then, and of the chosen rows only: both come from the log."""
    saw: list[tuple[Query, Candidates]] = []
    learned: list[Decision] = []
    choose, learn = BagPolicy.choose, BagPolicy.learn

    def note_choice(
        policy: BagPolicy, query: Query, candidates: Candidates, k: int, rng: np.random.Generator
    ) -> Choice:
        choice = choose(policy, query, candidates, k, rng)
        saw.append((query, candidates.take(choice.rows)))
        return choice

    def note_lesson(policy: BagPolicy, decision: Decision, outcome: Outcome) -> None:
        learned.append(decision)
        learn(policy, decision, outcome)

    async with CaseBank.open(tmp_path, settings=EngineSettings(seed=4)) as bank:
        await live(bank, seed=4, turns=40)
        monkeypatch.setattr(BagPolicy, "choose", note_choice)
        decisions = [(await bank.retrieve(f"{topic} number {n}")).decision for topic in TOPICS for n in range(3)]
    async with CaseBank.open(tmp_path, settings=EngineSettings(seed=4)) as bank:
        await live(bank, seed=5, turns=10)  # cases grow older, and are judged again
        monkeypatch.setattr(BagPolicy, "learn", note_lesson)
        for decision in decisions:
            await bank.record_outcome(1.0, "verifier", decision_id=decision.id)

    assert len(learned) == len(decisions)
    assert any(decision.shown not in ((), tuple(range(len(decision.shown)))) for decision in decisions)
    for decision, (query, shown), lesson in zip(decisions, saw, learned, strict=False):
        assert lesson.query.time == query.time == decision.created
        assert lesson.query.task == query.task
        assert lesson.query.vector.tobytes() == query.vector.tobytes()
        assert lesson.shown.ids == shown.ids
        assert lesson.shown.table.tobytes() == shown.table.tobytes()
        assert lesson.shown.vectors.tobytes() == shown.vectors.tobytes()


async def test_outcomes_amended_far_back_are_learned_as_if_they_had_always_been_so(tmp_path: Path) -> None:
    """Further back than the checkpoints reach, too."""
    async with CaseBank.open(tmp_path, settings=EngineSettings(seed=2)) as bank:
        decisions = await live(bank, seed=2, turns=330)
        before = await fingerprint(bank)
        first, late = decisions[3], decisions[-10]
        for decision_id in (late, first):
            await bank.record_outcome(1.0, "human", decision_id=decision_id)
            await bank.record_outcome(0.0, "human", decision_id=decision_id)
        after = await fingerprint(bank)

        assert after != before
        assert await bank.rebuild() == {"default": after}


async def test_an_unknown_takes_back_what_its_kind_had_said(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path, settings=EngineSettings(seed=3)) as bank:
        await live(bank, seed=3, turns=20)
        before = await fingerprint(bank)
        found = await bank.retrieve("sum the sales table")

        await bank.record_outcome(None, "judge", decision_id=found.decision.id)
        assert await fingerprint(bank) == before  # nothing is learned from an unknown
        await bank.record_outcome(1.0, "judge", decision_id=found.decision.id)
        assert await fingerprint(bank) != before
        await bank.record_outcome(None, "judge", decision_id=found.decision.id)
        assert await fingerprint(bank) == before


async def test_reopening_continues_from_the_saved_state_and_a_wrong_one_is_found_out(tmp_path: Path) -> None:
    settings = EngineSettings(seed=4)
    async with CaseBank.open(tmp_path, settings=settings) as bank:
        await live(bank, seed=4, turns=40)
        before = await fingerprint(bank)

    async with CaseBank.open(tmp_path, settings=settings) as bank:
        assert await fingerprint(bank) == before
        await live(bank, seed=5, turns=10)
        after = await fingerprint(bank)
        assert await bank.rebuild() == {"default": after}

    other = EngineSettings(policy="beta_ts", seed=4)  # another rule learns the same log from its beginning
    async with CaseBank.open(tmp_path, settings=other) as bank:
        state = await fingerprint(bank)
        assert state != after
        assert await bank.rebuild() == {"default": state}


async def test_a_bank_of_an_older_version_learns_again_instead_of_loading_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EngineSettings(seed=4)
    async with CaseBank.open(tmp_path, settings=settings) as bank:
        await live(bank, seed=4, turns=40)
        before = await fingerprint(bank)

    def refuse(self: BagPolicy, state: object) -> None:
        raise AssertionError("loaded the state of another version")

    monkeypatch.setattr(BagPolicy, "state_version", BagPolicy.state_version + 1)
    monkeypatch.setattr(BagPolicy, "load_state_dict", refuse)
    async with CaseBank.open(tmp_path, settings=settings) as bank:
        assert await fingerprint(bank) == before


async def test_going_back_learns_a_few_times_as_much_again_however_long_the_log_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same session and after reopening."""
    learned: list[float] = []
    learn = BagPolicy.learn

    def note(policy: BagPolicy, decision: Decision, outcome: Outcome) -> None:
        learned.append(decision.query.time)
        learn(policy, decision, outcome)

    settings = EngineSettings(seed=9)
    monkeypatch.setattr(learning, "_CHECKPOINT_EVERY", 8)
    async with CaseBank.open(tmp_path / "bank", settings=settings) as bank:
        decisions = [(await bank.retrieve("sum the sales")).decision.id for _ in range(500)]
        for decision_id in decisions:
            await bank.record_outcome(1.0, "verifier", decision_id=decision_id)
        monkeypatch.setattr(BagPolicy, "learn", note)
        for back in (1, 3, 5, 10, 30, 100, 250):  # 5: it is the last that a checkpoint had learned
            learned.clear()
            await bank.record_outcome(0.0, "human", decision_id=decisions[-back])
            assert back <= len(learned) <= max(4 * back, 16)
        state = await fingerprint(bank)

    for back in (2, 5, 20, 200):
        async with CaseBank.open(tmp_path / "bank", settings=settings) as bank:
            learned.clear()
            assert await fingerprint(bank) == state
            await bank.record_outcome(0.5, "human", decision_id=decisions[-back])
            assert back <= len(learned) <= max(4 * back, 16)
            state = await fingerprint(bank)
            shutil.copytree(tmp_path / "bank", tmp_path / f"killed-{back}")
            assert await bank.rebuild() == {"default": state}
        async with CaseBank.open(tmp_path / f"killed-{back}", settings=settings) as bank:
            assert await fingerprint(bank) == state

    monkeypatch.setattr(engine, "_SNAPSHOT_BYTES", 0)  # no room for earlier states: slower, and no less right
    async with CaseBank.open(tmp_path / "bank", settings=settings) as bank:
        await bank.record_outcome(1.0, "human", decision_id=decisions[-1])
        state = await fingerprint(bank)
    async with CaseBank.open(tmp_path / "bank", settings=settings) as bank:
        learned.clear()
        assert await fingerprint(bank) == state
        assert learned == []
        await bank.record_outcome(0.0, "human", decision_id=decisions[-1])
        assert len(learned) == 500


async def test_an_amendment_made_after_the_last_save_is_not_lost_in_a_crash(tmp_path: Path) -> None:
    settings = EngineSettings(seed=8)
    async with CaseBank.open(tmp_path / "bank", settings=settings) as bank:
        decisions = await live(bank, seed=8, turns=30)
    async with CaseBank.open(tmp_path / "bank", settings=settings) as bank:
        known = [view for view in [await bank.explain(one) for one in decisions[:15]] if view.reward is not None]
        for view in known:
            await bank.record_outcome(1.0 - (view.reward or 0.0), "human", decision_id=view.decision_id)
        assert known
        shutil.copytree(tmp_path / "bank", tmp_path / "crashed")  # as a killed process would have left it
        state = await fingerprint(bank)

    async with CaseBank.open(tmp_path / "crashed", settings=settings) as bank:
        assert await fingerprint(bank) == state


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        ([], None),
        ([("self", 1.0)], 1.0),
        ([("judge", 1.0), ("self", 0.0)], 1.0),
        ([("judge", 1.0), ("verifier", None)], 1.0),  # a verifier that could not run silences nobody
        ([("judge", 1.0), ("verifier", 0.0)], 0.0),
        ([("human", 1.0), ("verifier", 0.0)], 1.0),
        ([("human", 1.0), ("human", None), ("judge", 0.0)], 0.0),
        ([("judge", 1.0), ("judge", 0.2)], 0.2),
        ([("judge", 1.0), ("judge", None)], None),
    ],
)
def test_which_outcome_is_in_force(said: list[tuple[OutcomeKind, float | None]], reward: float | None) -> None:
    records = [OutcomeRecord(id=str(at), created=at, kind=kind, reward=value) for at, (kind, value) in enumerate(said)]

    assert outcome_in_force(records).reward == reward


def test_what_was_cited_is_known_until_somebody_cites_otherwise() -> None:
    said = [("judge", ("a",)), ("human", None), ("human", ("b",)), ("self", None)]
    records = [
        OutcomeRecord(id=str(at), created=at, kind=kind, reward=1.0, cited=cited)  # pyright: ignore[reportArgumentType]
        for at, (kind, cited) in enumerate(said)
    ]

    assert [outcome_in_force(records[:n]).cited for n in range(1, 5)] == [("a",), ("a",), ("b",), ("b",)]


async def test_an_export_imported_elsewhere_has_learned_the_same_and_exports_the_same(tmp_path: Path) -> None:
    settings = EngineSettings(seed=6)
    first, second = io.StringIO(), io.StringIO()
    async with CaseBank.open(tmp_path / "a", settings=settings) as bank:
        await live(bank, seed=6, turns=40)
        (edit, *_) = await bank.edit((await bank.search()).cases[0].case_id, "disable", reason="test")
        await bank.undo(edit.id)
        state = await fingerprint(bank)
        lines = await bank.export(first)

    first.seek(0)
    async with CaseBank.open(tmp_path / "b", settings=settings) as bank:
        done = await bank.import_from(first)
        assert await fingerprint(bank) == state
        await bank.export(second)
        first.seek(0)
        again = await bank.import_from(first)

    head, *records = first.getvalue().splitlines()
    assert second.getvalue().splitlines()[1:] == records
    assert '"type": "bank"' in head
    assert done.cases == 40
    assert done.edits == 2
    assert again.skipped == lines - 1


async def test_a_decision_can_be_drawn_again_from_its_logged_seed(tmp_path: Path) -> None:
    settings = EngineSettings(seed=7)
    shown: list[list[str]] = []
    for name in ("a", "b"):
        async with CaseBank.open(tmp_path / name, settings=settings) as bank:
            rewards = iter([1.0, 1.0, 0.0, 1.0, 1.0] * 10)
            questions: list[str] = []
            for turn in range(50):
                found = await bank.retrieve(f"{TOPICS[turn % 4]} {turn}")
                questions += [one.case.question for one in found.shown]
                await bank.retain(
                    f"{TOPICS[turn % 4]} {turn}", {"way": turn % 3}, decision_id=found.decision.id, reward=next(rewards)
                )
            shown.append(questions)

    assert shown[0] == shown[1]
    assert len(shown[0]) > 5  # and not all void


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("not json", "line 2 is not JSON"),
        ("[]", "line 2 is not an object"),
        ('{"type": "bank", "format": 99}', "format 99"),
        ('{"type": "poem", "record": {}}', "unknown type 'poem'"),
        ('{"case": "q", "plan": "{}", "case_label": "maybe"}', "no known format"),
        ('{"question": "q", "plan": "{}", "reward": 5}', "reward 5 is not between 0 and 1"),
        (
            '{"type": "outcome", "record": {"id": "o", "created": 1, "reward": 1, "kind": "judge", "cases": ["x"]}}',
            "refers to 'x'",
        ),
    ],
)
async def test_an_import_says_what_is_wrong_with_a_line_and_keeps_what_came_before_it(
    line: str, problem: str, tmp_path: Path
) -> None:
    good = '{"question": "fine", "plan": {}, "reward": 1}\n'
    async with CaseBank.open(tmp_path) as bank:
        with pytest.raises(BankError, match=problem):
            await bank.import_from(io.StringIO(f"{good}{line}\n{good}"))
        assert (await bank.stats()).records["cases"] == 1
        assert [case.question for case in (await bank.search("fine")).cases] == ["fine"]  # and it goes on working


async def test_the_papers_files_import_whole_and_only_once(tmp_path: Path) -> None:
    twice = '{"case": "Capital?", "plan": "{\\"plan\\": [{\\"id\\": 1}]}", "case_label": "positive"}\n'
    memory = (
        f"{twice}{twice}"
        '{"case": "Broken plan", "plan": "{oops", "case_label": "negative"}\n'
        '{"question": "Other format", "plan": {"a": 1}, "reward": 0}\n'
    )
    training = (
        '{"query": "q1", "case": "c", "case_label": "positive", "plan": "{}", "truth_label": false}\n'
        '{"query": "q2", "case": "c", "case_label": "positive", "plan": "{}", "truth_label": true}\n'
    )
    async with CaseBank.open(tmp_path) as bank:
        assert (await bank.import_from(io.StringIO(memory), name="m")).cases == 4
        assert (await bank.import_from(io.StringIO(memory), name="m")).skipped == 4
        assert (await bank.import_from(io.StringIO(training), name="t", namespace="t")).cases == 1
        page = await bank.search()

    assert [(case.reward, case.plan) for case in page.cases] == [
        (0.0, {"a": 1}),
        (0.0, {"text": "{oops"}),
        (1.0, {"plan": [{"id": 1}]}),
        (1.0, {"plan": [{"id": 1}]}),
    ]


async def test_ancestor_credit_reaches_the_case_a_shown_case_was_made_from_only_when_asked(tmp_path: Path) -> None:
    """MemQ: what the younger case earns tells about the older one, which was not shown itself."""
    learned: dict[float, float] = {}
    for decay in (0.0, 0.5):
        settings = EngineSettings(seed=3, policy_settings={"ancestor_decay": decay, "memory_off_share": 0.0})
        async with CaseBank.open(tmp_path / str(decay), settings=settings) as bank:
            old = await bank.retain("route the parcel to Ulm", {"n": 1}, answer="a", reward=1.0)
            made_from_it = await bank.retain("feed the cat", {"n": 2}, answer="b", reward=1.0, parents=[old.id])
            for _ in range(40):
                found = await bank.retrieve("feed the cat", 1)
                failed = [shown.case.id for shown in found.shown] == [made_from_it.id]
                await bank.record_outcome(0.0 if failed else 1.0, "verifier", decision_id=found.decision.id)
            found = await bank.retrieve("route the parcel to Ulm", 1)
            candidates = (await bank.explain(found.decision.id)).candidates
            learned[decay] = next(one.value.mean for one in candidates if one.case_id == old.id)

    assert learned[0.5] < learned[0.0] - 0.02
