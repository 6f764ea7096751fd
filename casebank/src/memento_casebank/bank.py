"""`CaseBank`: the library. Retrieve, act, retain, record the outcome; no MCP and no language model needed.

Owns embedding (before the bank is taken, so a slow endpoint holds nobody up) and the hop to a thread.
The rules are in `engine`.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import numpy as np
from numpy.typing import NDArray

from memento_casebank.embedders import Embedder, HashingEmbedder
from memento_casebank.engine import Engine, EngineSettings, NewCase, Retrieved
from memento_casebank.lock import BankLock
from memento_casebank.records import Case, Cost, OutcomeKind, OutcomeRecord, Step

__all__ = ["CaseBank"]

T = TypeVar("T")


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
        bank = await anyio.to_thread.run_sync(partial(_open, Path(path), chosen, settings or EngineSettings(), lock))
        try:
            yield bank
        finally:
            with anyio.CancelScope(shield=True):  # the lock must go back even when the task is cancelled
                await anyio.to_thread.run_sync(bank._engine.close)

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
            )
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
        cited_case_ids: Sequence[str] | None = None,
    ) -> OutcomeRecord:
        """Say how an attempt turned out; a later word amends, and human overrides verifier, judge and self.

        Raises:
            UnknownId: nothing of that id is here.
            BankError: none of `decision_id`, `case_id`, `run_id` was given.
        """
        return await self._run(
            lambda: self._engine.record_outcome(
                reward,
                kind,
                confidence=confidence,
                decision_id=decision_id,
                case_id=case_id,
                run_id=run_id,
                cited=cited_case_ids,
            )
        )

    async def flush(self) -> None:
        """Wait until the chromadb index holds every case."""
        await anyio.to_thread.run_sync(self._engine.index.flush)

    async def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        return await anyio.to_thread.run_sync(self._embedder.embed, texts)

    async def _run(self, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(self._engine.run, call)


def _open(path: Path, embedder: Embedder, settings: EngineSettings, lock: BankLock | None) -> CaseBank:
    engine = Engine(path, embedder_id=embedder.id, dim=embedder.dim, settings=settings, lock=lock)
    return CaseBank(engine, embedder)
