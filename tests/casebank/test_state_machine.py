"""Random lives of a bank against a plain model of it: real SQLite, real chromadb, reopened and rebuilt in between."""

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from memento_casebank import EngineSettings, HashingEmbedder, SyncCaseBank
from memento_casebank.records import Edit

NAMESPACES = st.sampled_from(["ann", "bob"])
QUESTIONS = st.sampled_from(["sum the sales", "sum the costs", "read the contract", "find the capital", "book a room"])
FLAGS = {"disable": "disabled", "quarantine": "quarantined", "archive": "archived"}
ENDS = {"enable": "disabled", "release": "quarantined", "restore": "archived"}


class Life(RuleBasedStateMachine):
    cases = Bundle("cases")
    decisions = Bundle("decisions")
    edits = Bundle("edits")

    @initialize(target=cases)
    def begin_with_three_generations(self) -> Any:
        self.folder = tempfile.TemporaryDirectory(prefix="casebank-life-")
        self.namespace: dict[str, str] = {}
        self.flagged: list[tuple[str, str, str, bool]] = []  # (edit id, case, flag, on or off), oldest first
        self.undone: set[str] = set()
        self.parents: dict[str, tuple[str, ...]] = {}
        self.rewards: dict[str, float | None] = {}
        self.open()
        root = self.retain("ann", "sum the sales", 0)
        child = self.retain_a_child(root, "sum the costs")
        return multiple(root, child, self.retain_a_child(child, "book a room"))

    def open(self) -> None:
        engine = EngineSettings(seed=1)
        self.bank = SyncCaseBank(Path(self.folder.name), embedder=HashingEmbedder(32), settings=engine).__enter__()

    def close(self) -> None:
        self.bank.__exit__(None, None, None)

    @rule(target=cases, namespace=NAMESPACES, question=QUESTIONS, way=st.integers(0, 2))
    def retain(self, namespace: str, question: str, way: int) -> str:
        case = self.bank.retain(question, {"way": way}, namespace=namespace)
        self.namespace[case.id], self.parents[case.id], self.rewards[case.id] = namespace, (), None
        return case.id

    @rule(target=cases, parent=cases, question=QUESTIONS)
    def retain_a_child(self, parent: str, question: str) -> str:
        namespace = self.namespace[parent]
        case = self.bank.retain(question, {"from": parent}, namespace=namespace, parents=[parent])
        if "quarantined" in self.flags(parent):
            self.flagged.append(("", case.id, "quarantined", True))
        self.namespace[case.id], self.parents[case.id], self.rewards[case.id] = namespace, (parent,), None
        return case.id

    @rule(target=decisions, namespace=NAMESPACES, question=QUESTIONS, limit=st.integers(1, 6))
    def retrieve(self, namespace: str, question: str, limit: int) -> str:
        found = self.bank.retrieve(question, limit, namespace=namespace)
        shown = [one.case.id for one in found.shown]
        assert len(shown) == len(set(shown)) <= limit
        for case_id in shown:
            assert self.namespace[case_id] == namespace
            assert not self.flags(case_id)
        return found.decision.id

    @rule(decision=decisions, reward=st.sampled_from([0.0, 1.0, None]))
    def judge_a_decision(self, decision: str, reward: float | None) -> None:
        self.bank.record_outcome(reward, "judge", decision_id=decision)

    @rule(case=cases, reward=st.sampled_from([0.0, 0.5, 1.0, None]))
    def judge_a_case(self, case: str, reward: float | None) -> None:
        self.bank.record_outcome(reward, "judge", case_id=case)
        self.rewards[case] = reward

    @rule(target=edits, case=cases)
    def quarantine(self, case: str) -> list[Edit]:
        return self._hide(case, "quarantine")

    @rule(target=edits, case=cases, action=st.sampled_from(["archive", "disable"]))
    def hide(self, case: str, action: str) -> list[Edit]:
        return self._hide(case, action)

    def _hide(self, case: str, action: str) -> list[Edit]:
        edits = self.bank.edit(case, action)  # pyright: ignore[reportArgumentType]
        reached = {case}
        if action == "quarantine":
            for child, parents in self.parents.items():  # in the order they were made
                if reached & set(parents):
                    reached.add(child)
        assert {edit.case_id for edit in edits} == reached
        self.flagged += [(edit.id, edit.case_id, FLAGS[action], True) for edit in edits]
        return edits

    @rule(target=edits, case=cases, action=st.sampled_from(sorted(ENDS)))
    def show_again(self, case: str, action: str) -> list[Edit]:
        edits = self.bank.edit(case, action)  # pyright: ignore[reportArgumentType]
        self.flagged += [(edit.id, edit.case_id, ENDS[action], False) for edit in edits]
        return edits

    @rule(edit=consumes(edits), again=st.booleans())
    def undo(self, edit: list[Edit], again: bool) -> None:
        undoing = self.bank.undo(edit[-1].id)  # any of them stands for all
        if again:
            self.bank.undo(undoing[0].id)
        else:
            self.undone |= {one.id for one in edit}

    def flags(self, case_id: str) -> set[str]:
        flags: set[str] = set()
        for edit_id, case, flag, on in self.flagged:
            if case == case_id and edit_id not in self.undone:
                (flags.add if on else flags.discard)(flag)
        return flags

    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()

    @rule()
    def rebuild(self) -> None:
        self.bank.rebuild()
        check = self.bank.index_check()
        assert (check.cases, check.indexed, check.missing) == (len(self.namespace), len(self.namespace), 0)

    @invariant()
    def every_case_stands_where_the_model_says(self) -> None:
        for case_id in getattr(self, "namespace", {}):
            flags = self.flags(case_id)
            view = self.bank.case(case_id)
            expected = next((name for name in ("quarantined", "disabled", "archived") if name in flags), "active")
            assert (view.status, view.reward) == (expected, self.rewards[case_id])

    def teardown(self) -> None:
        if hasattr(self, "bank"):
            self.bank.rebuild()  # raises when what was learned is not what the log gives
            self.close()
            self.folder.cleanup()


Life.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLife = pytest.mark.slow(Life.TestCase)
