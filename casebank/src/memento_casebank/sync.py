"""`SyncCaseBank`: the same bank for notebooks and scripts without an event loop.

Owns one background event loop; every method is the one of `CaseBank`, waited for.
"""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from memento_casebank.bank import CaseBank
from memento_casebank.embedders import Embedder
from memento_casebank.engine import EngineSettings

__all__ = ["SyncCaseBank"]

P = ParamSpec("P")
R = TypeVar("R")


def _waited(
    method: Callable[Concatenate[CaseBank, P], Awaitable[R]],
) -> Callable[Concatenate["SyncCaseBank", P], R]:
    @wraps(method)
    def call(self: "SyncCaseBank", *args: P.args, **kwargs: P.kwargs) -> R:
        return self._call(partial(method, self._bank, *args, **kwargs))  # pyright: ignore[reportPrivateUsage]

    return call


class SyncCaseBank:
    """`with SyncCaseBank(path) as bank:` … every method blocks until it is done."""

    def __init__(
        self, path: str | Path, *, embedder: Embedder | None = None, settings: EngineSettings | None = None
    ) -> None:
        self._make = partial(CaseBank.open, path, embedder=embedder, settings=settings)
        self._stack = ExitStack()
        self._portal: BlockingPortal
        self._bank: CaseBank

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self._portal = opening.enter_context(start_blocking_portal())
            self._bank = opening.enter_context(self._portal.wrap_async_context_manager(self._make()))
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _call(self, call: Callable[[], Awaitable[R]]) -> R:
        return self._portal.call(call)

    retrieve = _waited(CaseBank.retrieve)
    retain = _waited(CaseBank.retain)
    record_outcome = _waited(CaseBank.record_outcome)
    search = _waited(CaseBank.search)
    case = _waited(CaseBank.case)
    explain = _waited(CaseBank.explain)
    edit = _waited(CaseBank.edit)
    undo = _waited(CaseBank.undo)
    edits = _waited(CaseBank.edits)
    stats = _waited(CaseBank.stats)
    forget = _waited(CaseBank.forget)
    induce_strategies = _waited(CaseBank.induce_strategies)
    export = _waited(CaseBank.export)
    import_from = _waited(CaseBank.import_from)
    replay = _waited(CaseBank.replay)
    probe = _waited(CaseBank.probe)
    assess_steps = _waited(CaseBank.assess_steps)
    rebuild = _waited(CaseBank.rebuild)
    index_check = _waited(CaseBank.index_check)
    flush = _waited(CaseBank.flush)
