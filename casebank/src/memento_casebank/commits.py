"""One writer, many callers: work that arrives together is committed together.

Owns the queue and the transaction around it. Whoever gets hold of the bank runs everything that queued up meanwhile,
so a hundred clients share one disk sync instead of waiting for a hundred. No thread of its own: a caller's does it.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from memento_casebank.log import Log
from memento_casebank.records import BankError

__all__ = ["CommitQueue"]

T = TypeVar("T")


@dataclass
class _Work(Generic[T]):
    call: Callable[[], T]
    synced: bool
    done: bool = False
    result: T | None = None
    error: BaseException | None = None


class CommitQueue:
    """Runs callables one after another, and returns to each caller once its writes are on disk."""

    def __init__(self, log: Log, after_commit: Callable[[], None]) -> None:
        """`after_commit` runs once per batch, with the bank still held, when its writes are kept."""
        self._log = log
        self._after_commit = after_commit
        self._queue: deque[_Work[Any]] = deque()
        self._busy = threading.Lock()
        self._closed: str | None = None

    def run(self, call: Callable[[], T], *, synced: bool) -> T:
        """Run `call` with the bank to itself; what it wrote is kept when this returns. Thread-safe, blocking.

        Kept means: a killed process does not lose it. With `synced` it has also reached the disk.
        A call that raises `BankError` takes back only its own writes.

        Raises:
            BankError: the bank is closed, or a write failed half-way and it must be reopened.
        """
        work: _Work[T] = _Work(call, synced)
        self._queue.append(work)
        with self._busy:
            if not work.done:
                self._run_queued()
        if work.error is not None:
            raise work.error
        return work.result  # pyright: ignore[reportReturnType] - set whenever there is no error

    def close(self, last: Callable[[], None]) -> None:
        """Run `last` with the bank to itself and refuse everything after it. Does nothing the second time."""
        with self._busy:
            if self._closed != "The bank is closed.":
                self._closed = "The bank is closed."
                last()

    def _run_queued(self) -> None:
        batch: list[_Work[Any]] = []
        while self._queue:
            batch.append(self._queue.popleft())
        if self._closed is not None:
            for work in batch:
                work.error, work.done = BankError(self._closed), True
            return
        try:
            self._log.begin(synced=any(work.synced for work in batch))
            for work in batch:
                self._run_one(work)
            self._log.commit()
            self._after_commit()
        except BaseException as exc:
            self._log.rollback()
            if self._closed is None:
                self._closed = f"The bank could not write to {self._log.path} ({exc}). Fix that, then reopen it."
            for work in batch:
                work.error = BankError(self._closed)
            if not isinstance(exc, Exception):
                raise
        finally:
            for work in batch:
                work.done = True

    def _run_one(self, work: _Work[Any]) -> None:
        before = self._log.last_seq
        wrote = False
        try:
            with self._log.savepoint():
                try:
                    work.result = work.call()
                finally:
                    wrote = self._log.last_seq != before
        except Exception as exc:  # noqa: BLE001 - handed to the caller it belongs to
            work.error = exc
            if wrote:  # checks come before writes, so this is a bug: memory may be ahead of the log
                self._closed = (
                    f"The bank stopped after an internal error ({type(exc).__name__}: {exc}); reopen it. "
                    "The log is whole."
                )
