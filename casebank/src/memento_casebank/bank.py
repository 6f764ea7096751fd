"""`CaseBank`: the library. Retrieve, act, retain, record the outcome; no MCP and no language model needed.

Owns embedding (before the bank is taken, so a slow endpoint holds nobody up) and the hop to a thread.
The rules are in `engine`.
"""

import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import anyio.to_thread
import numpy as np
from numpy.typing import NDArray

from memento_casebank import queries, upkeep
from memento_casebank.embedders import Embedder, HashingEmbedder
from memento_casebank.engine import Engine, EngineSettings, NewCase, Retrieved
from memento_casebank.exchange import Imported, Line, export_lines, read_lines
from memento_casebank.lock import BankLock
from memento_casebank.log import Log
from memento_casebank.policies import make_policy
from memento_casebank.policies.probe import Attempt, ProbeReport, probe
from memento_casebank.policies.steps import StepValue
from memento_casebank.records import (
    BankError,
    Case,
    CaseStatus,
    Cost,
    DecisionRecord,
    Edit,
    EditAction,
    OutcomeKind,
    OutcomeRecord,
    Step,
    check_reward,
    new_id,
)
from memento_casebank.replay import LoggedDecision, ReplayEstimate, estimate_policy
from memento_casebank.upkeep import Forgettable
from memento_casebank.views import BankStats, CaseView, DecisionView, IndexCheck, SearchPage

__all__ = ["CaseBank", "StepAssessment", "export_file"]

T = TypeVar("T")


@dataclass(frozen=True)
class StepAssessment:
    """What steps led to in earlier cases."""

    values: list[StepValue]
    """Per step: mean of what followed, -1..1, and how often it was seen."""
    progress: list[float]
    """Per step: its value minus that of the step before."""
    failed_at: int | None
    """First step after which the outlook fell by more than 0.2; None: none did."""


class CaseBank:
    """An open case bank. Make one with `CaseBank.open`; any number of tasks may use it at once."""

    def __init__(self, engine: Engine, embedder: Embedder) -> None:
        self._engine = engine
        self._embedder = embedder

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | Path,
        *,
        embedder: Embedder | None = None,
        settings: EngineSettings | None = None,
        lock: BankLock | None = None,
    ) -> AsyncGenerator["CaseBank"]:
        """Open or create the bank in folder `path`, for this process alone, until the block ends.

        A caller that already holds the folder's lock passes it as `lock` and keeps it afterwards.

        Raises:
            BankLocked: another process has it open.
            BankError: the folder holds something else, or a bank made with another embedder.
            EmbedderError: the embedder cannot be used.
        """
        chosen = embedder or HashingEmbedder()
        opening = _Opening(partial(_open, Path(path), chosen, settings or EngineSettings(), lock))
        try:
            await anyio.to_thread.run_sync(opening.run)
            assert opening.bank is not None
            yield opening.bank
        finally:
            with anyio.CancelScope(shield=True):  # the lock must go back even when the task is cancelled
                await anyio.to_thread.run_sync(opening.close)

    async def retrieve(
        self,
        query: str,
        limit: int = 4,
        *,
        namespace: str = "default",
        exclude_task: bool | str = False,
        run_id: str | None = None,
    ) -> Retrieved:
        """Choose at most `limit` cases for a question, or none, and log the decision.

        With `exclude_task` (evaluation) no case of this very task can be shown: of `query`, and of the original
        question when `exclude_task` is that.
        """
        excluded = () if exclude_task is False else (query,) if exclude_task is True else (query, exclude_task)
        vectors = await self._embed([query, *excluded[1:]])
        return await self._run(
            lambda: self._engine.retrieve(
                query,
                vectors[0],
                k=limit,
                namespace=namespace,
                run_id=run_id,
                excluded=list(zip(excluded, vectors, strict=True)) if excluded else [],
            ),
            synced=False,
        )

    async def retain(
        self,
        question: str,
        plan: dict[str, Any],
        *,
        answer: str | None = None,
        run_id: str | None = None,
        model: str | None = None,
        steps: Sequence[Step] = (),
        tags: Sequence[str] = (),
        cost: Cost | None = None,
        parents: Sequence[str] | None = None,
        decision_id: str | None = None,
        reward: float | None = None,
        reward_kind: OutcomeKind = "verifier",
        lesson: str | None = None,
        source: str | None = None,
        valid_until: float | None = None,
        namespace: str = "default",
    ) -> Case:
        """Keep an attempt: what was asked, how it was done, and (0..1, None: unknown) how it turned out.

        Raises:
            UnknownId: `decision_id` or one of `parents` is not in this namespace.
        """
        new = NewCase(
            question=question,
            plan=plan,
            namespace=namespace,
            answer=answer,
            lesson=lesson,
            steps=tuple(steps),
            tags=tuple(tags),
            cost=cost,
            model=model,
            run_id=run_id,
            decision_id=decision_id,
            parents=None if parents is None else tuple(parents),
            source=source,
            valid_until=valid_until,
        )
        vector = (await self._embed([question]))[0]
        return await self._run(lambda: self._engine.retain(new, vector, reward=reward, reward_kind=reward_kind))

    async def record_outcome(
        self,
        reward: float | None,
        kind: OutcomeKind = "verifier",
        *,
        confidence: float = 1.0,
        decision_id: str | None = None,
        case_id: str | None = None,
        run_id: str | None = None,
        namespace: str | None = None,
        cited_case_ids: Sequence[str] | None = None,
    ) -> OutcomeRecord:
        """Say how an attempt turned out; a later word amends, and human overrides verifier, judge and self.

        It reaches the cases and decisions of the same run, in one namespace. `namespace` is needed only when nothing
        but a `run_id` is given that several namespaces use.

        Raises:
            UnknownId: nothing of that id is here.
            BankError: none of `decision_id`, `case_id`, `run_id` was given, or a value does not fit.
        """
        return await self._run(
            lambda: self._engine.record_outcome(
                reward,
                kind,
                confidence=confidence,
                decision_id=decision_id,
                case_id=case_id,
                run_id=run_id,
                namespace=namespace,
                cited=cited_case_ids,
            )
        )

    async def search(
        self,
        text: str = "",
        *,
        namespace: str = "default",
        status: CaseStatus | None = "active",
        tag: str | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> SearchPage:
        """Look for cases by meaning and words, or list the newest; nothing is logged or learned from this."""
        vector = (await self._embed([text]))[0] if text else None
        return await self._run(
            lambda: queries.search(
                self._engine, text, vector, namespace=namespace, status=status, tag=tag, limit=limit, offset=offset
            )
        )

    async def case(self, case_id: str) -> CaseView:
        """A case as it counts now, with revisions, status and outcome.

        Raises:
            UnknownId: there is none.
        """
        return await self._run(lambda: queries.case_view(self._engine, case_id))

    async def explain(self, decision_id: str, *, limit: int = 10, offset: int = 0) -> DecisionView:
        """Why each case was or was not chosen in a decision.

        Raises:
            UnknownId: there is no such decision.
        """
        return await self._run(lambda: queries.explain(self._engine, decision_id, limit=limit, offset=offset))

    async def edit(
        self, case_id: str, action: EditAction, *, reason: str = "", changes: dict[str, Any] | None = None
    ) -> list[Edit]:
        """Change a case's standing or text; every edit can be undone.

        Raises:
            UnknownId: there is no such case.
            BankError: the change is not one that can be made.
        """
        return await self._run(lambda: self._engine.edit(case_id, action, reason=reason, changes=changes))

    async def undo(self, edit_id: str) -> list[Edit]:
        """Take back an edit and all that were made together with it.

        Raises:
            UnknownId: there is no such edit.
            BankError: it was undone already.
        """
        return await self._run(lambda: self._engine.undo(edit_id))

    async def edits(self, case_id: str) -> list[Edit]:
        """Every edit ever made to a case, oldest first."""
        return await self._run(lambda: self._engine.edits_of(case_id))

    async def stats(self) -> BankStats:
        """Figures about the whole bank."""
        return await self._run(lambda: queries.stats(self._engine))

    async def forget(self, *, namespace: str = "default", dry_run: bool = True) -> list[Forgettable]:
        """Archive cases that are expired, copies, or expected to do harm. With `dry_run` only tell which.

        Archived cases stay in the log; one `undo` brings all of them back.
        """

        def work() -> list[Forgettable]:
            found = upkeep.to_forget(self._engine, namespace, now=time.time())
            if dry_run:
                return found
            batch = new_id("batch")
            return [
                replace(case, edit_id=self._engine.edit(case.case_id, "archive", reason=case.reason, batch=batch)[0].id)
                for case in found
            ]

        return await self._run(work)

    async def induce_strategies(self, *, namespace: str = "default", dry_run: bool = True) -> list[Case]:
        """Enter ways of working that beat others on at least five tasks as cases of kind `strategy`.

        They compete with cases only when the bank was opened with `EngineSettings(strategies=True)`.
        """
        found = await self._run(lambda: upkeep.propose_strategies(self._engine, namespace, now=time.time()))
        if found and not dry_run:
            vectors = await self._embed([case.question for case in found])

            return await self._run(
                lambda: [self._engine.enter_new(case, vector) for case, vector in zip(found, vectors, strict=True)]
            )
        return found

    async def export(self, target: IO[str], *, vectors: bool = True) -> int:
        """Write the whole bank as JSON lines; returns how many. Other calls go on meanwhile and are not in it."""
        return await anyio.to_thread.run_sync(partial(export_file, self._engine.log.path, target, vectors=vectors))

    async def import_from(self, source: IO[str], *, name: str = "import", namespace: str = "default") -> Imported:
        """Read an export, or a file in one of the formats of the paper's repository, adding what is not here yet.

        Raises:
            BankError: a line is of no known format, or refers to something unknown. What came before it is kept.
        """
        done = Imported()
        lines = read_lines(source, name=name, namespace=namespace, now=time.time())

        def read() -> tuple[list[Line], BankError | None]:
            batch: list[Line] = []
            try:
                for line in islice(lines, _IMPORT_BATCH):
                    batch.append(line)  # noqa: PERF402 - what came before a bad line is kept
            except BankError as exc:
                return batch, exc
            return batch, None

        def enter(batch: list[Line], vectors: list[NDArray[np.float32] | None]) -> BankError | None:
            """Stop at the first line that cannot be entered; raising would take back the lines before it."""
            for line, vector in zip(batch, vectors, strict=True):
                try:
                    entered = self._engine.enter_line(line, vector)
                except BankError as exc:
                    return exc
                kind = _KINDS[type(line.record)] if entered else "skipped"
                setattr(done, kind, getattr(done, kind) + 1)
                if entered and isinstance(line.record, Case):
                    done.quarantined += self._engine.standing(line.record.id).status == "quarantined"
            return None

        problem: BankError | None = None
        while problem is None:
            batch, problem = await anyio.to_thread.run_sync(read)
            if not batch:
                break
            vectors = await self._vectors_of(batch)
            problem = await self._run(partial(enter, batch, vectors)) or problem
        if problem is not None:
            raise problem
        return done

    async def replay(
        self,
        policy: str,
        *,
        policy_settings: Mapping[str, Any] | None = None,
        namespace: str = "default",
        limit: int = 4,
        minimum_sample: float = 50.0,
    ) -> ReplayEstimate:
        """Estimate from this bank's own log how another policy would have done.

        Raises:
            NotEnoughEvidence: the log says too little about that policy; the message gives the numbers.
            BankError: there is no such policy, or it has no such setting.
        """
        settings = dict(policy_settings or {})

        def logged() -> Iterator[LoggedDecision]:
            after, part = 0, [None]
            while part:
                part, after = self._engine.run(
                    partial(self._engine.logged_decisions, namespace, after=after, limit=_REPLAY_BATCH), synced=False
                )
                yield from part

        def estimate() -> ReplayEstimate:
            try:
                make_policy(policy, **settings)
            except ValueError as exc:
                raise BankError(str(exc)) from exc
            make = partial(make_policy, policy, **settings)
            return estimate_policy(logged(), make, k=limit, minimum_sample=minimum_sample)

        return await anyio.to_thread.run_sync(estimate)

    async def probe(
        self,
        query: str,
        attempt: Attempt,
        *,
        limit: int = 4,
        leave_one_out: bool = False,
        namespace: str = "default",
    ) -> ProbeReport:
        """Do a task with no case, with one, with more (MemSifter), and learn from every attempt.

        `attempt` gets the ids of the cases to show and gives the reward, None when it is unknown. Each attempt is
        logged as a decision of its own with its outcome, of kind `verifier`.
        """
        vector = (await self._embed([query]))[0]
        page = await self.search(query, namespace=namespace, limit=limit)
        report = await probe(attempt, [case.case_id for case in page.cases], leave_one_out=leave_one_out)

        def keep() -> None:
            for reward in report.rewards.values():
                check_reward(reward, "verifier")
            for case_ids, reward in report.rewards.items():
                decision_id = self._engine.show_exactly(query, vector, case_ids, namespace=namespace)
                self._engine.record_outcome(reward, "verifier", decision_id=decision_id)

        await self._run(keep)
        return report

    async def assess_steps(self, steps: Sequence[Step], *, namespace: str = "default") -> StepAssessment:
        """Say what steps like these led to so far, and where the outlook first fell (AgentPRM)."""

        def assess() -> StepAssessment:
            ledger = self._engine.step_ledger(namespace)
            return StepAssessment(
                values=[ledger.value(step) for step in steps],
                progress=ledger.progress(steps),
                failed_at=ledger.where_it_failed(steps),
            )

        return await self._run(assess)

    async def rebuild(self, *, progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
        """Restore everything derived from the log: what was learned, and the chromadb index.

        Returns each namespace's fingerprint.

        Raises:
            BankError: what had been learned differs from what the log gives, which should be impossible.
        """
        prints = await self._run(lambda: self._engine.rebuild_learning(progress))
        await self._run(self._engine.rebuild_index)
        await self.flush()
        return prints

    async def index_check(self) -> IndexCheck:
        """Compare the chromadb index with the log, id by id."""
        ids = await self._run(self._engine.ids_by_namespace)

        def compare() -> IndexCheck:
            indexed = {namespace: self._engine.index.ids(namespace) for namespace in ids}
            return IndexCheck(
                cases=sum(map(len, ids.values())),
                indexed=sum(map(len, indexed.values())),
                missing=sum(len(set(own) - indexed[namespace]) for namespace, own in ids.items()),
            )

        return await anyio.to_thread.run_sync(compare)

    async def flush(self) -> None:
        """Wait until the chromadb index holds every case."""
        await anyio.to_thread.run_sync(self._engine.index.flush)

    async def _vectors_of(self, lines: Sequence[Line]) -> list[NDArray[np.float32] | None]:
        """The vectors that came with the lines if this bank's embedder made them, else new ones."""
        vectors: list[NDArray[np.float32] | None] = [None] * len(lines)
        texts: dict[int, str] = {}
        for i, line in enumerate(lines):
            if line.vector is not None and line.embedder == self._embedder.id:
                vectors[i] = _vector(line.vector, self._embedder.dim)
            if vectors[i] is not None:
                continue
            if isinstance(line.record, Case):
                texts[i] = line.record.question
            elif isinstance(line.record, DecisionRecord):
                texts[i] = line.record.query
        if texts:
            for i, vector in zip(texts, await self._embed(list(texts.values())), strict=True):
                vectors[i] = vector
        return vectors

    async def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        return await anyio.to_thread.run_sync(self._embedder.embed, texts)

    async def _run(self, call: Callable[[], T], *, synced: bool = True) -> T:
        return await anyio.to_thread.run_sync(partial(self._engine.run, call, synced=synced))


_IMPORT_BATCH = 256
_REPLAY_BATCH = 256
_KINDS: dict[type, str] = {Case: "cases", DecisionRecord: "decisions", OutcomeRecord: "outcomes", Edit: "edits"}


def export_file(path: Path, target: IO[str], *, vectors: bool = True) -> int:
    """Write the log at `path` as JSON lines; returns how many. Needs no lock: the log is only read."""
    log = Log(path, read_only=True)  # a connection of its own: it sees the bank as it is now, and blocks nobody
    try:
        log.begin_reading()
        count = 0
        for line in export_lines(log, vectors=vectors):
            target.write(line + "\n")
            count += 1
        return count
    finally:
        log.close()


def _vector(raw: bytes, dim: int) -> NDArray[np.float32] | None:
    """What an export's line says; None when it is not a vector of `dim` numbers."""
    if len(raw) != np.dtype(np.float32).itemsize * dim:
        return None
    vector = np.frombuffer(raw, np.float32)
    return vector if np.isfinite(vector).all() else None


class _Opening:
    """A bank being opened in a thread for a task that may be gone, cancelled by asyncio, before the thread is done."""

    def __init__(self, make: Callable[[], CaseBank]) -> None:
        self.bank: CaseBank | None = None
        self._make = make
        self._handover = threading.Lock()
        self._over = False

    def run(self) -> None:
        bank = self._make()
        with self._handover:
            self.bank = bank
            abandoned = self._over
        if abandoned:
            self.close()

    def close(self) -> None:
        with self._handover:
            self._over = True
        if self.bank is not None:
            self.bank._engine.close()  # pyright: ignore[reportPrivateUsage]


def _open(path: Path, embedder: Embedder, settings: EngineSettings, lock: BankLock | None) -> CaseBank:
    engine = Engine(path, embedder_id=embedder.id, dim=embedder.dim, settings=settings, lock=lock)
    return CaseBank(engine, embedder)
