"""The bank's machine room: log, shelves, learners and index kept in step, one caller at a time.

Owns every rule of what happens when something is retrieved, retained or judged. It is synchronous and takes vectors,
not texts to embed: `bank.CaseBank` embeds, and decides which thread waits. Work of several callers that arrives
together is committed together (one disk sync for all of them).
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from memento_casebank.candidates import CandidateSettings, Found, describe, find, look
from memento_casebank.chroma import ChromaIndex, IndexRow
from memento_casebank.commits import CommitQueue
from memento_casebank.decisions import pack, packed_size, unpack, unpack_table
from memento_casebank.exchange import Line
from memento_casebank.hygiene import instruction_like
from memento_casebank.learning import Learner
from memento_casebank.lineage import Lineage
from memento_casebank.lock import BankLock
from memento_casebank.log import DecisionRow, Log, WalSync, check_record
from memento_casebank.policies import DEFAULT_POLICY, make_policy
from memento_casebank.policies.base import (
    Z90,
    Candidates,
    Choice,
    Decision,
    Interval,
    Outcome,
    Query,
    fingerprint,
    stable_key,
)
from memento_casebank.policies.steps import StepAdvantage, StepLedger, step_evidence
from memento_casebank.records import (
    BankError,
    Case,
    Cost,
    DecisionRecord,
    Edit,
    EditAction,
    InForce,
    OutcomeKind,
    OutcomeRecord,
    Step,
    UnknownId,
    check_reward,
    checked,
    new_id,
    outcome_in_force,
    task_key,
)
from memento_casebank.replay import LoggedDecision
from memento_casebank.shelf import Shelf
from memento_casebank.snapshots import freeze, thaw
from memento_casebank.standing import Standing, check_changes, quarantine_reasons, standing, undo_target

__all__ = ["Engine", "EngineSettings", "NewCase", "Retrieved", "ShownCase"]

T = TypeVar("T")
Vector = NDArray[np.float32]

_SNAPSHOT_BYTES = 8_000_000
"""About how much of earlier states is saved beside the state at close: some policies' are megabytes each."""
_EVIDENCE_CASES = 16
_EVIDENCE_COSINE = 0.3
_EVIDENCE_LINES = 5


@dataclass(frozen=True)
class EngineSettings:
    """How a bank behaves; the defaults are what `CaseBank.open` uses."""

    policy: str = DEFAULT_POLICY
    policy_settings: dict[str, Any] = field(default_factory=lambda: {})
    candidates: CandidateSettings = field(default_factory=CandidateSettings)
    near_duplicate_cosine: float = 0.97
    strategies: bool = False
    """Let strategies compete with cases. Off: they harm as often as they help (guides/casebank.md §0.7)."""
    seed: int | None = None
    """Makes the draws of exploration repeatable; None: a fresh seed per decision (logged with it)."""
    sync_every_write: bool = False
    """Wait for the disk at every case, outcome and edit. Off: a power cut can lose the last half second."""
    lock_timeout_seconds: float = 3.0
    chroma_url: str | None = None


@dataclass(frozen=True)
class NewCase:
    """What a caller says about an attempt."""

    question: str
    plan: dict[str, Any]
    namespace: str = "default"
    answer: str | None = None
    lesson: str | None = None
    steps: tuple[Step, ...] = ()
    tags: tuple[str, ...] = ()
    cost: Cost | None = None
    model: str | None = None
    run_id: str | None = None
    decision_id: str | None = None
    parents: tuple[str, ...] | None = None
    """None: the cases that `decision_id` showed."""
    source: str | None = None
    valid_until: float | None = None


@dataclass(frozen=True)
class ShownCase:
    """A case as it is shown for a question, and why."""

    case: Case
    outcome: InForce
    similarity: float
    value: float
    value_low: float
    value_high: float
    why: str


@dataclass(frozen=True)
class Retrieved:
    """A decision, the cases it shows, and how ways of working compare on similar tasks."""

    decision: DecisionRecord
    shown: list[ShownCase]
    evidence: list[StepAdvantage]
    """Best first; empty when no case is shown, or there is nothing to compare."""


class Engine:
    """One open bank. `run` is the only way in; everything else is called inside it."""

    def __init__(
        self, folder: Path, *, embedder_id: str, dim: int, settings: EngineSettings, lock: BankLock | None = None
    ) -> None:
        """Open or create the bank in `folder` and take its lock, unless the caller already holds it as `lock`.

        Raises:
            BankLocked: another process has it.
            BankError: it was made with another embedder, or is not a bank.
        """
        try:
            make_policy(settings.policy, **settings.policy_settings)
        except ValueError as exc:
            raise BankError(f"{exc} (MEMENTO_CASEBANK_POLICY, MEMENTO_CASEBANK_POLICY_SETTINGS)") from exc
        self.folder = folder
        self.settings = settings
        self.embedder_id = embedder_id
        self.dim = dim
        self._own_lock = None if lock is not None else BankLock(folder)
        if self._own_lock is not None:
            self._own_lock.acquire(settings.lock_timeout_seconds)
        try:
            self.log = Log(folder / "bank.sqlite3")
            self._check_embedder()
            self.bank_id = self._bank_id()
            self.index = ChromaIndex(
                folder / "chroma", bank_id=self.bank_id, embedder_id=embedder_id, url=settings.chroma_url
            )
            self._commits = CommitQueue(self.log, self._after_commit)
            self._sync = WalSync(self.log.path)
            self._load()
        except BaseException:
            if self._own_lock is not None:
                self._own_lock.release()
            raise

    def close(self) -> None:
        """Save what was learned, close the index and the log and let go of the lock."""
        self._commits.close(self._close)

    def _close(self) -> None:
        self._save_snapshots()
        self.index.close()
        self._note_indexed()
        self._sync.close()
        self.log.close()
        if self._own_lock is not None:
            self._own_lock.release()

    def run(self, call: Callable[[], T], *, synced: bool = True) -> T:
        """Run `call` with the bank to itself; what it wrote is kept when this returns. See `CommitQueue.run`.

        Decisions pass `synced=False`: with `sync_every_write` they still wait for no disk.
        """
        return self._commits.run(call, synced=synced and self.settings.sync_every_write)

    # Opening

    def _bank_id(self) -> str:
        stored = self.log.meta("bank_id")
        if stored is None:
            stored = new_id("bank")
            self.log.set_meta("bank_id", stored)
        return stored

    def _check_embedder(self) -> None:
        stored = self.log.meta("embedder")
        if stored is None:
            self.log.set_meta("embedder", self.embedder_id)
            self.log.set_meta("dim", str(self.dim))
        elif stored != self.embedder_id:
            raise BankError(
                f"The bank {self.folder} was embedded with {stored!r}, but the settings name {self.embedder_id!r}. "
                "Set MEMENTO_CASEBANK_EMBEDDER (and _MODEL, _DIM) back, or convert the bank with "
                "`memento-casebank reembed`."
            )

    def _load(self) -> None:
        self._shelves: dict[str, Shelf] = {}
        self._learners: dict[str, Learner] = {}
        self._outcomes: dict[str, list[OutcomeRecord]] = {}
        self._edits: dict[str, list[Edit]] = {}
        self._lineage = Lineage()
        self._steps_of: dict[str, tuple[Step, ...]] = {}
        self._namespace_of: dict[str, str] = {}
        self._changed: dict[str, None] = {}
        self._synced_up_to = self.log.last_seq
        vectors = {seq: np.frombuffer(raw, np.float32) for seq, raw in self.log.case_vectors(self.embedder_id)}
        for seq, case in self.log.cases():
            self._shelve(seq, case, vectors[seq])
        for decision_id, namespace, shown in self.log.shown():
            self._namespace_of[decision_id] = namespace
            self._count_shown(self.shelf(namespace), np.frombuffer(shown, np.int64))
        for _, edit in self.log.edits():
            self._edits.setdefault(edit.case_id, []).append(edit)
        for case_id in self._edits:
            self._apply_standing(case_id)
        order: dict[str, dict[str, int]] = {}
        for seq, record in self.log.outcomes():
            for target in (*record.cases, *record.decisions):
                self._outcomes.setdefault(target, []).append(record)
            if record.reward is not None:
                for decision_id in record.decisions:
                    order.setdefault(self._namespace_of[decision_id], {}).setdefault(decision_id, seq)
        for target in self._outcomes:
            shelf = self.shelf(self._namespace_of[target])
            if target in shelf.row_of:
                shelf.set_outcome(shelf.row_of[target], self.in_force(target))
        for namespace, firsts in order.items():
            self._restore_learner(namespace, firsts)
        self._index_what_is_missing()

    def _shelve(self, seq: int, case: Case, vector: Vector) -> int:
        self._namespace_of[case.id] = case.namespace
        if case.steps:
            self._steps_of[case.id] = case.steps
        self._lineage.add(case)
        return self.shelf(case.namespace).add(seq, case, vector)

    # What was learned

    def _snapshot_name(self, namespace: str) -> str:
        settings = sorted(self.settings.policy_settings.items())
        version = self.learner(namespace).policy.state_version
        return f"checkpoints {self.settings.policy}/{version} {settings} {self.embedder_id} {namespace}"

    def _restore_learner(self, namespace: str, firsts: dict[str, int]) -> None:
        """Continue from the last saved state that had not yet learned an outcome that was amended since."""
        saved = self.log.snapshot(self._snapshot_name(namespace))
        if saved is None:
            self.learner(namespace).restore(firsts)
            return
        read_up_to, state = saved
        place = {decision_id: at for at, decision_id in enumerate(firsts)}
        said_since = [record for _, record in self.log.outcomes(after=read_up_to)]
        amended = min((place[d] for record in said_since for d in record.decisions if d in place), default=len(place))
        usable = [(at, then) for at, then in thaw(state)["checkpoints"] if at <= amended]
        self.learner(namespace).restore(firsts, usable)

    def _save_snapshots(self) -> None:
        for namespace, learner in self._learners.items():
            if learner.unsaved:
                state = freeze({"checkpoints": learner.checkpoints(_SNAPSHOT_BYTES)})
                self.log.put_snapshot(self._snapshot_name(namespace), self.log.last_seq, state)
                learner.unsaved = False

    def rebuild_learning(self, progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
        """Learn everything again from the log alone; returns each namespace's fingerprint.

        The fingerprints equal those of the states before, bit for bit; `BankError` says where they do not.
        """
        prints: dict[str, str] = {}
        for namespace, learner in self._learners.items():
            before = fingerprint(learner.policy)
            learner.rebuild(progress)
            prints[namespace] = fingerprint(learner.policy)
            if prints[namespace] != before:
                raise BankError(
                    f"What namespace {namespace!r} had learned differs from what its log gives; "
                    "the rebuilt state is in force now. Please report this with the bank."
                )
        self.log.drop_snapshots()
        self._save_snapshots()
        return prints

    # The index

    def _after_commit(self) -> None:
        """Queue what a commit changed; not before it, or a crash could leave rows in the index that no log has."""
        if self.log.last_seq != self._synced_up_to:
            self._synced_up_to = self.log.last_seq
            self._sync.request()
        if self._changed:
            self.index.put([self._index_row(case_id) for case_id in self._changed])
            self._changed.clear()

    def _index_what_is_missing(self) -> None:
        """Queue what was retained or changed since the index was last known to be complete."""
        if self.index.was_interrupted:
            self.rebuild_index()
            return
        complete_up_to = int(self.log.meta("indexed_seq") or 0)
        changed = {case.id for _, case in self.log.cases(after=complete_up_to)}
        changed |= {edit.case_id for _, edit in self.log.edits(after=complete_up_to)}
        changed |= {case_id for _, record in self.log.outcomes(after=complete_up_to) for case_id in record.cases}
        if changed:
            self.index.put([self._index_row(case_id) for case_id in sorted(changed)])

    def _note_indexed(self) -> None:
        if self.index.is_clean:
            self.log.set_meta("indexed_seq", str(self.log.last_seq))

    def rebuild_index(self) -> int:
        """Drop and queue the whole chromadb index again; returns the number of cases. `index.flush` waits for it."""
        self.log.set_meta("indexed_seq", "0")
        self.index.reset(self._shelves)
        rows = [self._index_row(case_id) for shelf in self._shelves.values() for case_id in shelf.ids]
        self.index.put(rows)
        return len(rows)

    def shelf(self, namespace: str) -> Shelf:
        if namespace not in self._shelves:
            self._shelves[namespace] = Shelf(self.dim)
        return self._shelves[namespace]

    def learner(self, namespace: str) -> Learner:
        if namespace not in self._learners:
            self._learners[namespace] = Learner(
                lambda: make_policy(self.settings.policy, **self.settings.policy_settings), self._learning_material
            )
        return self._learners[namespace]

    def in_force(self, target: str) -> InForce:
        """The outcome that counts now for a case or decision."""
        return outcome_in_force(self._outcomes.get(target, ()))

    # Retrieve

    def retrieve(
        self,
        question: str,
        vector: Vector,
        *,
        k: int,
        namespace: str,
        run_id: str | None = None,
        excluded: Sequence[tuple[str, Vector]] = (),
    ) -> Retrieved:
        """Choose cases for a question, log the decision and return both.

        In evaluation, `excluded` names the questions (with vectors) whose own cases must not be shown.
        """
        now = time.time()
        shelf = self.shelf(namespace)
        allowed = shelf.showable(now, strategies=self.settings.strategies)
        for own_question, own_vector in excluded:
            allowed = allowed & ~self._same_task(shelf, own_question, own_vector)
        found = find(shelf, vector, question, allowed, self.settings.candidates)
        offered = describe(shelf, found, now)
        seed = self._draw_seed()
        query = Query(vector=vector, time=now, task=stable_key(task_key(question)))
        policy = self.learner(namespace).policy
        choice = policy.choose(query, offered, k, np.random.default_rng(seed))
        record = checked(
            DecisionRecord,
            id=new_id("dec"),
            namespace=namespace,
            created=now,
            query=question,
            run_id=run_id,
            policy=policy.name,
            seed=seed,
            k=k,
            shown=choice.rows,
            candidates=len(offered),
            void_probability=choice.void_probability,
            scale=choice.scale,
            forced=choice.forced,
            success=_triple(choice.success),
            without_memory=_triple(choice.without_memory),
            lift=_triple(choice.lift),
            evaluation=bool(excluded),
        )
        self._log_decision(record, shelf, found.rows, offered, choice, vector)
        shown = self._shown_cases(shelf, found, choice)
        return Retrieved(record, shown, self._evidence(offered) if shown else [])

    def show_exactly(self, question: str, vector: Vector, case_ids: Sequence[str], *, namespace: str) -> str:
        """Log that these cases, and no others, were shown because an experiment said so; returns the decision's id.

        Raises:
            UnknownId: one of them is not in the namespace.
        """
        now = time.time()
        shelf = self.shelf(namespace)
        for case_id in case_ids:
            if case_id not in shelf.row_of:
                raise UnknownId(f"There is no case {case_id!r} in namespace {namespace!r}.")
        rows = np.asarray([shelf.row_of[case_id] for case_id in case_ids], np.intp)
        offered = describe(shelf, look(shelf, rows, vector, shelf.words.scores(question)), now)
        choice = _certain(len(rows))
        record = DecisionRecord(
            id=new_id("dec"),
            namespace=namespace,
            created=now,
            query=question,
            policy=self.settings.policy,
            seed=0,
            k=len(rows),
            shown=choice.rows,
            candidates=len(rows),
            void_probability=choice.void_probability,
            forced="experiment",
        )
        self._log_decision(record, shelf, rows, offered, choice, vector)
        return record.id

    def _log_decision(
        self,
        record: DecisionRecord,
        shelf: Shelf,
        rows: NDArray[np.intp],
        offered: Candidates,
        choice: Choice,
        vector: Vector,
    ) -> None:
        seqs = np.ascontiguousarray(shelf.table["seq"][rows])
        shown_seqs = np.ascontiguousarray(seqs[list(choice.rows)])
        seq = self.log.append_decision(record, shown=shown_seqs.tobytes(), candidates=pack(seqs, offered.table, choice))
        self.log.put_vectors(self.embedder_id, [(seq, vector.tobytes())])
        self._namespace_of[record.id] = record.namespace
        self._count_shown(shelf, shown_seqs)

    def _evidence(self, offered: Candidates) -> list[StepAdvantage]:
        """Compare the tools that the nearest cases used in their steps (JitRL's advantage, as text for a planner)."""
        if self._steps_of.keys().isdisjoint(offered.ids):
            return []
        nearest = np.argsort(-offered.table["similarity"], kind="stable")[:_EVIDENCE_CASES].tolist()
        runs = [
            (self._steps_of[offered.ids[row]], float(offered.table["reward"][row]))
            for row in nearest
            if offered.ids[row] in self._steps_of
            and offered.table["similarity"][row] >= _EVIDENCE_COSINE
            and not np.isnan(offered.table["reward"][row])
        ]
        return step_evidence(runs)[:_EVIDENCE_LINES] if runs else []

    def step_ledger(self, namespace: str) -> StepLedger:
        """What each kind of step led to, over all cases with a known outcome (AgentPRM)."""
        ledger = StepLedger()
        for case_id in self.shelf(namespace).ids:
            if case_id in self._steps_of:
                ledger.learn(self._steps_of[case_id], self.in_force(case_id).reward)
        return ledger

    def logged_decisions(self, namespace: str, *, after: int, limit: int) -> tuple[list[LoggedDecision], int]:
        """Decisions past a place in the log, as they were made, and the place of the last one."""
        shelf = self.shelf(namespace)
        found: list[LoggedDecision] = []
        for seq, record, _, packed in self.log.decisions(after=after, namespace=namespace, limit=limit):
            numbers = unpack(packed, record.candidates)
            rows = [shelf.row_of_seq[s] for s in numbers.seqs.tolist()]
            decision, outcome = self._learning_material(record.id)
            found.append(
                LoggedDecision(
                    query=decision.query,
                    candidates=Candidates(tuple(shelf.ids[r] for r in rows), numbers.table, shelf.vectors[rows]),
                    rows=record.shown,
                    lead_probability=numbers.lead_probability,
                    void_probability=record.void_probability,
                    outcome=outcome,
                )
            )
            after = seq
        return found, after

    def _same_task(self, shelf: Shelf, question: str, vector: Vector) -> NDArray[np.bool_]:
        """(N,) which cases are about this very task: the same words, or a question as close as a paraphrase.

        So is a strategy that was made from such a case: it tells what was asked and done.
        """
        same = shelf.table["task"] == stable_key(task_key(question))
        same |= shelf.vectors @ vector >= np.float32(self.settings.candidates.same_task_cosine)
        for row in np.flatnonzero(shelf.table["strategy"]).tolist():
            same[row] |= any(same[shelf.row_of[member]] for member in self._lineage.parents(shelf.ids[row]))
        return same

    def _draw_seed(self) -> int:
        """63 bits; with a seed in the settings a function of it and of the place in the log."""
        if self.settings.seed is None:
            return secrets.randbits(63)
        return stable_key(f"{self.settings.seed} {self.log.last_seq}")

    def _count_shown(self, shelf: Shelf, seqs: NDArray[np.int64]) -> None:
        for seq in seqs.tolist():
            shelf.table["shown"][shelf.row_of_seq[seq]] += 1

    def _shown_cases(self, shelf: Shelf, found: Found, choice: Choice) -> list[ShownCase]:
        facts = shelf.table[found.rows[list(choice.rows)]]
        shown: list[ShownCase] = []
        for row, times, case in zip(
            choice.rows, facts["shown"].tolist(), self.log.cases_at(facts["seq"].tolist()), strict=True
        ):
            similarity, value, sd = float(found.similarity[row]), float(choice.value[row]), float(choice.value_sd[row])
            low, high = value - Z90 * sd, value + Z90 * sd
            why = [f"cosine {similarity:.2f}", f"shown {times} times"]
            if choice.scale == "lift":
                why.append(f"expected to change P(success) by {value:+.2f} (90 % {low:+.2f}..{high:+.2f})")
                if float(choice.sampled[row]) - value > 0.5 * sd > 0.0:
                    why.append("partly shown to find out more about it")
            if choice.forced in {"uniform", "probe"}:
                why.append("drawn at random to measure what cases are worth")
            now = standing(case, self._edits.get(case.id, ())).case
            shown.append(ShownCase(now, self.in_force(case.id), similarity, value, low, high, ", ".join(why)))
        return shown

    # Retain

    def retain(self, new: NewCase, vector: Vector, *, reward: float | None, reward_kind: OutcomeKind) -> Case:
        """Keep an attempt, and what is known of its outcome. Text that gives orders, and whatever was made from a
        quarantined case, comes in quarantined.

        Raises:
            UnknownId: a parent or the decision is not in this namespace.
            BankError: a value does not fit, or cannot be kept as JSON.
        """
        check_reward(reward, reward_kind)  # before anything is written
        case = checked(
            Case,
            id=new_id("case"),
            namespace=new.namespace,
            created=time.time(),
            question=new.question,
            plan=new.plan,
            answer=new.answer,
            lesson=new.lesson,
            steps=new.steps,
            tags=new.tags,
            cost=new.cost,
            model=new.model,
            run_id=new.run_id,
            decision_id=new.decision_id,
            parents=self._parents(new),
            source=new.source,
            valid_until=new.valid_until,
        )
        case = self.enter_new(case, vector)
        if reward is not None:
            self.record_outcome(reward, reward_kind, case_id=case.id)
        return case

    def enter_new(self, case: Case, vector: Vector) -> Case:
        """Find a case's group, look for orders in its text, and `enter` it; returns it as it went into the log."""
        check_record(case)
        group, quarantine = self._near_duplicate(case, vector), self._why_quarantine(case)
        case = case.model_copy(update={"group": group, "quarantine": quarantine})
        self.enter(case, vector)
        return case

    def enter(self, case: Case, vector: Vector) -> None:
        """Append a finished case to the log and put it on its shelf."""
        seq = self.log.append_case(case)
        self.log.put_vectors(self.embedder_id, [(seq, vector.tobytes())])
        self._shelve(seq, case, vector)
        self._changed[case.id] = None

    def _why_quarantine(self, case: Case) -> str | None:
        for parent in case.parents:
            if self.standing(parent).status == "quarantined":
                return _made_from(parent)
        return instruction_like(case)

    def _parents(self, new: NewCase) -> tuple[str, ...]:
        shelf = self.shelf(new.namespace)
        shown: tuple[str, ...] = ()
        if new.decision_id is not None:
            decision = self.decision(new.decision_id)
            if decision.record.namespace != new.namespace:
                raise UnknownId(f"Decision {new.decision_id!r} was made in another namespace than {new.namespace!r}.")
            rows = [shelf.row_of_seq[seq] for seq in np.frombuffer(decision.shown, np.int64).tolist()]
            shown = tuple(shelf.ids[row] for row in rows)
        if new.parents is None:
            return shown
        for parent in new.parents:
            if parent not in shelf.row_of:
                raise UnknownId(
                    f"There is no case {parent!r} in namespace {new.namespace!r}; pass ids that were shown."
                )
        return tuple(dict.fromkeys(new.parents))

    def _near_duplicate(self, case: Case, vector: Vector) -> str:
        """Id of the group of a case that asks almost the same, did it the same way and came to the same answer.

        "" if there is none.
        """
        shelf = self.shelf(case.namespace)
        close = shelf.near(vector, case, self.settings.near_duplicate_cosine)
        if not len(close):
            return ""
        first = self.case(shelf.ids[int(close[0])])
        return first.group or first.id

    # Outcomes

    def record_outcome(
        self,
        reward: float | None,
        kind: OutcomeKind,
        *,
        confidence: float = 1.0,
        decision_id: str | None = None,
        case_id: str | None = None,
        run_id: str | None = None,
        namespace: str | None = None,
        cited: Sequence[str] | None = None,
    ) -> OutcomeRecord:
        """Append an outcome for a case and the decisions behind it, and learn from what is in force afterwards.

        Raises:
            UnknownId: nothing of that id is here.
            BankError: a value does not fit, or the run is known in several namespaces and none was named.
        """
        decisions, cases = self._targets(decision_id, case_id, run_id, namespace)
        for cited_id in cited or ():
            if cited_id not in self._namespace_of:
                raise UnknownId(f"There is no case {cited_id!r}; cite the ids that retrieve_cases returned.")
        record = checked(
            OutcomeRecord,
            id=new_id("out"),
            created=time.time(),
            reward=reward,
            kind=kind,
            confidence=confidence,
            decisions=tuple(decisions),
            cases=tuple(cases),
            run_id=run_id,
            cited=None if cited is None else tuple(cited),
        )
        self.log.append_outcome(record)
        self._apply_outcome(record)
        return record

    def _targets(
        self, decision_id: str | None, case_id: str | None, run_id: str | None, namespace: str | None
    ) -> tuple[dict[str, None], dict[str, None]]:
        """Decisions and cases that belong to the same attempt as what was named. Dicts as ordered sets."""
        if decision_id is None and case_id is None and run_id is None:
            raise BankError("Say what the outcome belongs to: decision_id, case_id or run_id.")
        case = None if case_id is None else self.case(case_id)
        decision = None if decision_id is None else self.decision(decision_id).record
        namespaces = {one.namespace for one in (case, decision) if one is not None}
        if namespace is None and run_id is not None and not namespaces:
            namespace = self._namespace_of_run(run_id)
        if namespace is not None:
            namespaces.add(namespace)
        if len(namespaces) > 1:
            raise BankError(f"An outcome belongs to one namespace, not to {' and '.join(sorted(namespaces))}.")
        runs = {run for run in (run_id, case and case.run_id, decision and decision.run_id) if run is not None}
        decisions: dict[str, None] = {}
        cases: dict[str, None] = {}
        if case is not None:
            cases[case.id] = None
            made_with = None if case.decision_id is None else self.log.decision(case.decision_id)
            # An import may have brought the case alone, or with an id that means something else here.
            if made_with is not None and made_with.record.namespace == case.namespace:
                decisions[made_with.record.id] = None
        if decision is not None:
            decisions[decision.id] = None
            made = self.log.cases_of_decision(decision.id)
            cases.update((one, None) for one in made if self._namespace_of[one] == decision.namespace)
        (where,) = namespaces
        for run in sorted(runs):
            decisions.update(dict.fromkeys(self.log.decisions_of_run(run, where)))
            cases.update(dict.fromkeys(self.log.cases_of_run(run, where)))
        if not decisions and not cases:
            raise UnknownId(f"Nothing was retrieved or retained under run {run_id!r}; pass run_id there too.")
        return decisions, cases

    def _namespace_of_run(self, run_id: str) -> str:
        namespaces = self.log.namespaces_of_run(run_id)
        if len(namespaces) > 1:
            raise BankError(
                f"Run {run_id!r} is known in the namespaces {', '.join(namespaces)}; pass one as namespace."
            )
        return namespaces[0] if namespaces else "default"

    def _apply_outcome(self, record: OutcomeRecord) -> None:
        before = {decision_id: self.in_force(decision_id) for decision_id in record.decisions}
        for target in (*record.cases, *record.decisions):
            self._outcomes.setdefault(target, []).append(record)
        for case_id in record.cases:
            shelf = self.shelf(self._namespace_of[case_id])
            shelf.set_outcome(shelf.row_of[case_id], self.in_force(case_id))
        self._changed.update(dict.fromkeys(record.cases))
        changed: dict[str, list[str]] = {}
        for decision_id, outcome in before.items():
            if self.in_force(decision_id) != outcome:
                changed.setdefault(self._namespace_of[decision_id], []).append(decision_id)
        for namespace, decision_ids in changed.items():
            self.learner(namespace).outcomes_changed(decision_ids)

    def _learning_material(self, decision_id: str) -> tuple[Decision, Outcome | None]:
        """A decision as its policy saw it (features as logged, not as they are now), with the outcome in force."""
        seq, record, shown, packed = self.decision(decision_id)
        shelf = self.shelf(record.namespace)
        rows = [shelf.row_of_seq[s] for s in np.frombuffer(shown, np.int64).tolist()]
        table = unpack_table(packed, record.candidates)[list(record.shown)]
        raw = self.log.vector(self.embedder_id, seq)
        vector = np.zeros(self.dim, np.float32) if raw is None else np.frombuffer(raw, np.float32)
        decision = Decision(
            query=Query(vector=vector, time=record.created, task=stable_key(task_key(record.query))),
            shown=Candidates(tuple(shelf.ids[row] for row in rows), table, shelf.vectors[rows]),
            ancestors=self._ancestors(shelf, rows) if self.settings.policy_settings.get("ancestor_decay") else (),
        )
        outcome = self.in_force(decision_id)
        if outcome.reward is None or outcome.kind is None:
            return decision, None
        cited = None if outcome.cited is None else frozenset(outcome.cited)
        return decision, Outcome(outcome.reward, outcome.kind, outcome.confidence, cited, outcome.created)

    def _ancestors(self, shelf: Shelf, rows: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """(group, depth) of what the shown cases were made from, nearest first, a group once."""
        found: dict[int, int] = {}
        for parent, depth in self._lineage.ancestors([shelf.ids[row] for row in rows]):
            found.setdefault(int(shelf.table["group"][shelf.row_of[parent]]), depth)
        return tuple(found.items())

    # Edits

    def edit(
        self,
        case_id: str,
        action: EditAction,
        *,
        reason: str = "",
        changes: dict[str, Any] | None = None,
        batch: str | None = None,
    ) -> list[Edit]:
        """Change a case's standing or text; returns the edits made.

        Quarantine also takes every descendant, and release those that are there for no other reason.

        Raises:
            UnknownId: there is no such case.
            BankError: the change names a field that may not be revised, or a value that does not fit.
        """
        if action == "undo":
            raise BankError("An edit is undone by its own id, not by that of a case.")
        case = self.case(case_id)
        if action == "revise":
            check_changes(case, changes or {})
        now = time.time()
        batch = batch or new_id("batch")
        targets = [(case_id, reason)]
        if action == "quarantine":
            targets += [(child, _made_from(case_id)) for child in self._lineage.descendants(case_id)]
        if action == "release":
            targets += [(child, f"case {case_id} was released") for child in self._held_for(case_id)]
        edits = [
            checked(
                Edit,
                id=new_id("edit"),
                created=now,
                case_id=target,
                action=action,
                reason=why,
                changes=changes or {},
                batch=batch,
            )
            for target, why in targets
        ]
        self._append_edits(edits)
        return edits

    def _held_for(self, case_id: str) -> list[str]:
        """Descendants that are quarantined for nothing but having been made from this case, directly or not."""
        held = {
            child: sources
            for child in self._lineage.descendants(case_id)
            if (sources := self._quarantine_sources(child)) is not None
        }
        out_of_sight = {source for sources in held.values() for source in sources if self._is_quarantined(source)}
        out_of_sight.discard(case_id)
        free: list[str] = []
        while found := [child for child, sources in held.items() if sources.isdisjoint(out_of_sight)]:
            free += found
            for child in found:
                del held[child]
            out_of_sight.difference_update(found)
        return free

    def _quarantine_sources(self, case_id: str) -> set[str] | None:
        """The cases a case is quarantined for having been made from; None: it is not, or for a reason of its own."""
        reasons = quarantine_reasons(self.case(case_id), self._edits.get(case_id, ()))
        case = self.standing(case_id).case
        inherited = all(reason.startswith(_MADE_FROM) for reason in reasons)
        if not reasons or not inherited or instruction_like(case) is not None:
            return None
        return {reason.removeprefix(_MADE_FROM) for reason in reasons} | set(case.parents)

    def _is_quarantined(self, case_id: str) -> bool:
        return case_id in self._namespace_of and self.standing(case_id).status == "quarantined"

    def undo(self, edit_id: str) -> list[Edit]:
        """Take back an edit, with all that were made together with it; returns the edits that do so.

        Raises:
            UnknownId: there is no such edit.
            BankError: it was undone already.
        """
        edit = self.log.edit(edit_id)
        if edit is None:
            raise UnknownId(f"There is no edit {edit_id!r} in this bank.")
        together = [other for edits in self._edits.values() for other in edits if other.batch == edit.batch]
        for other in together:
            undo_target(other, self._edits[other.case_id])
        now, batch = time.time(), new_id("batch")
        undoing = [
            Edit(id=new_id("edit"), created=now, case_id=other.case_id, action="undo", undoes=other.id, batch=batch)
            for other in together
        ]
        self._append_edits(undoing)
        return undoing

    def edits_of(self, case_id: str) -> list[Edit]:
        """Every edit ever made to a case, oldest first."""
        return list(self._edits.get(case_id, ()))

    def _append_edits(self, edits: Sequence[Edit]) -> None:
        for edit in edits:
            self.log.append_edit(edit)
            self._edits.setdefault(edit.case_id, []).append(edit)
            self._apply_standing(edit.case_id)
        self._changed.update((edit.case_id, None) for edit in edits)

    def _apply_standing(self, case_id: str) -> None:
        shelf = self.shelf(self._namespace_of[case_id])
        now = self.standing(case_id)
        shelf.set_standing(shelf.row_of[case_id], now.case, now.status)

    # Importing

    def enter_line(self, line: Line, vector: Vector | None) -> bool:
        """Append one imported record unless it is here already; returns whether it was appended.

        Raises:
            BankError: it refers to something that was neither here nor earlier in the import.
        """
        record = line.record
        if self.log.has(record.id):
            return False
        match record:
            case Case():
                assert vector is not None, "cases come with vectors"
                self._enter_imported_case(record, vector, line.reward)
            case DecisionRecord():
                self._enter_imported_decision(record, line, vector)
            case OutcomeRecord():
                self._check_cases(record.id, record.cases)
                for decision_id in record.decisions:
                    if self.log.decision(decision_id) is None:
                        raise BankError(f"Record {record.id!r} refers to {decision_id!r}, which is no decision here.")
                self.log.append_outcome(record)
                self._apply_outcome(record)
            case Edit():
                self._check_cases(record.id, (record.case_id,))
                if record.action == "revise":
                    check_changes(self.case(record.case_id), record.changes)
                self._append_edits([record])
        return True

    def _enter_imported_case(self, case: Case, vector: Vector, reward: float | None) -> None:
        check_record(case)
        here = tuple(parent for parent in case.parents if parent in self.shelf(case.namespace).row_of)
        case = case.model_copy(update={"parents": here})  # a part of a bank may come without what it was made from
        group = case.group or self._near_duplicate(case, vector)
        self.enter(
            case.model_copy(update={"group": group, "quarantine": case.quarantine or instruction_like(case)}), vector
        )
        if reward is not None:
            self.record_outcome(reward, "judge", case_id=case.id)

    def _enter_imported_decision(self, record: DecisionRecord, line: Line, vector: Vector | None) -> None:
        shelf = self.shelf(record.namespace)
        self._check_cases(record.id, line.candidate_ids, namespace=record.namespace)
        seqs = np.ascontiguousarray(shelf.table["seq"][[shelf.row_of[case_id] for case_id in line.candidate_ids]])
        whole = 8 * len(seqs) + len(line.numbers) == packed_size(record.candidates)
        if len(seqs) != record.candidates or not whole or not all(0 <= row < len(seqs) for row in record.shown):
            raise BankError(f"Decision {record.id!r} does not fit its candidates.")
        shown = np.ascontiguousarray(seqs[list(record.shown)])
        seq = self.log.append_decision(record, shown=shown.tobytes(), candidates=seqs.tobytes() + line.numbers)
        if vector is not None:
            self.log.put_vectors(self.embedder_id, [(seq, vector.tobytes())])
        self._namespace_of[record.id] = record.namespace
        self._count_shown(shelf, shown)

    def _check_cases(self, record_id: str, case_ids: Sequence[str], *, namespace: str | None = None) -> None:
        for case_id in case_ids:
            where = self._namespace_of.get(case_id)
            if where is None or case_id not in self.shelf(where).row_of or namespace not in (None, where):
                raise BankError(
                    f"Record {record_id!r} refers to {case_id!r}, which is not a case of this bank"
                    + (f" in namespace {namespace!r}." if namespace else ".")
                )

    # Looking up

    def namespaces(self) -> list[str]:
        return sorted(self._shelves)

    def ids_by_namespace(self) -> dict[str, list[str]]:
        return {namespace: list(shelf.ids) for namespace, shelf in self._shelves.items() if shelf.ids}

    def case(self, case_id: str) -> Case:
        """A case as it was retained.

        Raises:
            UnknownId: there is none.
        """
        found = self.log.case(case_id)
        if found is None:
            raise UnknownId(f"There is no case {case_id!r} in this bank.")
        return found.case

    def standing(self, case_id: str) -> Standing:
        """A case as it counts now, with its revisions and status."""
        return standing(self.case(case_id), self._edits.get(case_id, ()))

    def decision(self, decision_id: str) -> DecisionRow:
        """A decision with its numbers.

        Raises:
            UnknownId: there is none.
        """
        found = self.log.decision(decision_id)
        if found is None:
            raise UnknownId(f"There is no decision {decision_id!r} in this bank.")
        return found

    def _index_row(self, case_id: str) -> IndexRow:
        case, status, _ = self.standing(case_id)
        shelf = self.shelf(case.namespace)
        outcome = self.in_force(case_id)
        metadata: dict[str, str | int | float | bool] = {
            "namespace": case.namespace,
            "created": case.created,
            "kind": case.kind,
            "status": status,
            "run_id": case.run_id or "",
            "tags": " ".join(case.tags),
            "reward": -1.0 if outcome.reward is None else outcome.reward,  # chromadb has no null; -1: unknown
        }
        return IndexRow(case.id, case.namespace, case.question, shelf.vectors[shelf.row_of[case_id]].copy(), metadata)


_MADE_FROM = "made from quarantined case "


def _made_from(case_id: str) -> str:
    return _MADE_FROM + case_id


def _certain(n: int) -> Choice:
    """The choice that shows all of `n` rows for sure, or none for sure."""
    zeros = np.zeros(n)
    lead = zeros.copy()
    lead[:1] = 1.0
    return Choice(tuple(range(n)), 0.0 if n else 1.0, lead, np.ones(n), zeros, zeros, zeros)


def _triple(interval: Interval | None) -> tuple[float, float, float] | None:
    return None if interval is None else (interval.mean, interval.low, interval.high)
