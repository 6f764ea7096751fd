"""Work that must not run in the server: a function in a process of its own, with limits, killed when it overstays.

Owns a small pool of child processes and the frames between them and the server. It does not know what the
function does. For parsers that are not thread-safe or that a hostile file can hang, crash or blow up
(guides/web.md finding 2: trafilatura in threads died with SIGSEGV).

Both directions are JSON, never pickle: a child that a hostile file has taken over can send wrong data, and
nothing worse. `_worker_child.py` is the other end; it is started by path, so that a child imports the function's
module and not this package (which would cost it the whole MCP SDK).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

__all__ = ["WorkerCrashed", "WorkerError", "WorkerFailed", "WorkerPool", "WorkerTimedOut"]

_CHILD = Path(__file__).with_name("_worker_child.py")
_FRAME_HEADER_BYTES = 8
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "TEMP", "TMP")
"""The only variables a child sees: what a library needs to find its files, and no key of anybody."""


class WorkerError(Exception):
    """The call gave no result."""


class WorkerTimedOut(WorkerError):
    """The function did not end in time; its process was killed."""


class WorkerCrashed(WorkerError):
    """The process died, ran out of memory, or answered with something that is not a result."""


class WorkerFailed(WorkerError):
    """The function raised. `kind` is the name of the exception's class; the message is the exception's own."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class WorkerPool:
    """Up to `size` child processes that run one function; started at the first call, ended with the block.

    A child is replaced after `calls_per_process` calls, since parsers keep memory, and after any failure that
    leaves its state in doubt. Cancelling a call kills its child.
    """

    def __init__(
        self,
        function: str,
        *,
        size: int = 1,
        timeout_seconds: float,
        max_memory_bytes: int,
        max_result_bytes: int = 64 * 2**20,
        calls_per_process: int = 500,
    ) -> None:
        """Name the work, as `package.module:function`: it takes and returns what JSON can say."""
        self._function = function
        self._timeout_seconds = timeout_seconds
        self._max_memory_bytes = max_memory_bytes
        self._max_result_bytes = max_result_bytes
        self._calls_per_process = calls_per_process
        self._slots = anyio.Semaphore(size)
        self._idle: list[_Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            while self._idle:
                await self._idle.pop().kill()

    async def call(self, arguments: Mapping[str, Any]) -> Any:
        """Run the function with these keyword arguments and return what it returned.

        Raises:
            WorkerTimedOut: it took longer than `timeout_seconds`, the start of a process included.
            WorkerCrashed: the process died or its answer was too large or no JSON.
            WorkerFailed: the function raised.
        """
        request = json.dumps(dict(arguments)).encode()
        async with self._slots:
            child = self._idle.pop() if self._idle else None
            reusable = False
            try:
                with anyio.fail_after(self._timeout_seconds):
                    child = child or await self._start()
                    answer = await child.ask(request, self._max_result_bytes)
                result = _result(answer)
                reusable = child.calls < self._calls_per_process
            except WorkerFailed:
                reusable = child is not None and child.calls < self._calls_per_process
                raise
            except TimeoutError as exc:
                raise WorkerTimedOut(f"not done after {self._timeout_seconds:g} seconds") from exc
            except (
                anyio.IncompleteRead,
                anyio.EndOfStream,
                anyio.BrokenResourceError,
                anyio.ClosedResourceError,
            ) as exc:
                raise WorkerCrashed("the worker process died") from exc
            finally:
                if child is not None and reusable:
                    self._idle.append(child)
                elif child is not None:
                    with anyio.CancelScope(shield=True):
                        await child.kill()
        return result

    async def _start(self) -> "_Child":
        setup = json.dumps({"path": sys.path, "function": self._function, "max_memory_bytes": self._max_memory_bytes})
        process = await anyio.open_process(
            [sys.executable, "-I", str(_CHILD), setup],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            start_new_session=True,  # a group of its own, so that what the child starts dies with it
        )
        return _Child(process)


class _Child:
    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._requests = process.stdin
        self._answers = BufferedByteReceiveStream(process.stdout)
        self.calls = 0

    async def ask(self, request: bytes, max_result_bytes: int) -> bytes:
        self.calls += 1
        await self._requests.send(len(request).to_bytes(_FRAME_HEADER_BYTES, "big") + request)
        size = int.from_bytes(await self._answers.receive_exactly(_FRAME_HEADER_BYTES), "big")
        if size > max_result_bytes:
            raise WorkerCrashed(f"the result is larger than {max_result_bytes} bytes")
        return await self._answers.receive_exactly(size)

    async def kill(self) -> None:
        """End the child and all it started. It holds nothing worth a polite goodbye."""
        try:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        except ProcessLookupError:
            pass
        await self._process.aclose()


def _result(answer: bytes) -> Any:
    try:
        message: dict[str, Any] = json.loads(answer)
        if "result" in message:
            return message["result"]
        kind, text = str(message["error"]), str(message["message"])
    except (ValueError, KeyError, TypeError) as exc:
        raise WorkerCrashed("the worker process answered with something that is not a result") from exc
    if kind == "MemoryError":
        raise WorkerCrashed("the worker process ran out of the memory it may use")
    raise WorkerFailed(kind, text)
