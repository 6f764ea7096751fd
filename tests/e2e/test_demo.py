"""The demo learns, and what it gains comes from the cases alone."""

import json
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from memento.demo.questions import QUESTIONS, Question
from memento.demo.trial import Round, open_demo, run_round
from memento.session import Session
from support.command import Memento

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.mark.timeout(400)
def test_the_demo_gains_at_least_20_points_and_prints_one_object(tmp_path: Path) -> None:
    picture = tmp_path / "curve.svg"
    done = Memento(tmp_path / "home", tmp_path).run("demo", "--json", "--out", str(picture), timeout_seconds=380)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [(row["round"], row["memory"]) for row in told["rounds"]] == [
        (number, memory) for number in (1, 2, 3) for memory in ("off", "on")
    ]
    assert all(row["questions"] == len(QUESTIONS) >= 24 for row in told["rounds"])
    assert told["gain_last_round"] >= 0.20
    by_key = {(row["round"], row["memory"]): row["accuracy"] for row in told["rounds"]}
    assert told["gain_last_round"] == pytest.approx(by_key[3, "on"] - by_key[3, "off"], abs=1e-3)
    assert picture.read_text(encoding="utf-8").startswith("<svg")


def test_there_are_24_questions_of_6_kinds_and_no_two_are_the_same() -> None:
    assert len({question.text for question in QUESTIONS}) == len(QUESTIONS) >= 24
    assert len({question.kind for question in QUESTIONS}) >= 6


class Learned:
    """A bank that was filled by two rounds, and copies of it that were tampered with."""

    def __init__(self, session: Session, questions: list[Question], rounds: list[Round]) -> None:
        self.session, self.questions, self.rounds = session, questions, rounds

    async def ask_all(self, namespace: str) -> float:
        """Accuracy of a third round that only reads `namespace`."""
        import dataclasses

        memory = dataclasses.replace(self.session.memory, namespace=namespace)
        session = dataclasses.replace(self.session, memory=memory)
        return (await run_round(session, self.questions, 3, memory="read-only")).accuracy

    async def off(self) -> float:
        return (await run_round(self.session, self.questions, 3, memory="off")).accuracy

    async def copy_with_shuffled_plans(self, namespace: str) -> None:
        """The same questions with the same outcomes, but each with the plan of another kind of question."""
        last = self.rounds[-1].attempts
        plans: list[tuple[str, dict[str, Any]]] = []
        for attempt in last:
            (plan,) = [
                {"plan": [subtask.model_dump() for subtask in event.plan.subtasks]}
                for event in self.session.journal.events(attempt.run_id)
                if event.type == "plan_made"
            ][-1:]
            plans.append((attempt.question.kind, plan))
        rng = random.Random(0)
        for attempt in last:
            others = [plan for kind, plan in plans if kind != attempt.question.kind]
            plan = json.loads(json.dumps(rng.choice(others), ensure_ascii=False))
            arguments = {
                "question": attempt.question.text,
                "plan": plan,
                "run_id": f"shuffled-{attempt.run_id}",
                "reward": 1.0,
                "reward_kind": "verifier",
                "namespace": namespace,
            }
            result = await self.session.toolbox.call_server("casebank", "retain_case", arguments)
            assert not result.is_error, result.content


@pytest.fixture
async def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Learned]:
    # One policy for all three banks, and the simplest: what differs is what the bank holds, and nothing else.
    monkeypatch.setenv("MEMENTO_CASEBANK_POLICY", "similarity")
    async with open_demo(tmp_path) as (session, questions):
        assert session.toolbox.problems == {}
        rounds = [await run_round(session, questions, number, memory="on") for number in (1, 2)]
        yield Learned(session, questions, rounds)


@pytest.mark.timeout(400)
async def test_the_gain_vanishes_with_an_empty_bank_and_with_shuffled_plans(learned: Learned) -> None:
    with anyio.fail_after(380):
        await learned.copy_with_shuffled_plans("shuffled")
        off = await learned.off()
        with_cases = await learned.ask_all("demo")
        with_none = await learned.ask_all("nobody-was-here")
        with_shuffled = await learned.ask_all("shuffled")
    assert with_cases >= off + 0.20
    assert with_none == off, "the same exploration, question by question"
    assert with_shuffled <= off + 0.05
