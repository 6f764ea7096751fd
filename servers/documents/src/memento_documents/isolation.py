"""Running a parser where it can do no harm: one forked child per job, with limits, from a warm `zygote`.

Owns the zygote's life (started at the first job, started again when it died) and the translation of how a child
ended into something a model can read. A child has limits on memory, CPU, wall time and answer size, and writes no
file. On Linux 5.13 and later it also reads no file but its document and Python's own, opens no socket, starts no
program and signals no other process; elsewhere it may, and the log says so when the zygote starts.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from memento_documents.confinement import why_not_confined
from memento_documents.kinds import Unreadable

__all__ = ["Isolation", "Limits", "OnProgress"]

logger = logging.getLogger(__name__)

_READ_BYTES = 1 << 18
_PROGRESS = b'{"progress": '

OnProgress = Callable[[int, int, str], Awaitable[None]]
"""Told how many are done, how many there are, and what they are: "page", "row"."""


@dataclass(frozen=True)
class Limits:
    """What one job may use."""

    memory_bytes: int
    cpu_seconds: int
    wall_seconds: float
    answer_bytes: int


class Isolation:
    """Runs jobs side by side, at most `parallel` at once. Use as an async context manager."""

    def __init__(
        self,
        limits: Limits,
        *,
        parallel: int,
        preload: str = "memento_documents.pdf:import_pymupdf",
        idle_seconds: float | None = None,
    ) -> None:
        """`preload` is the `module:function` that the zygote calls before it gives up rights and forks.

        After `idle_seconds` without a job the zygote ends, and the next job starts it again; None keeps it.
        """
        self._limits = limits
        self._idle_seconds = idle_seconds
        self._running = 0
        self._used = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._preload = preload
        self._slots = anyio.CapacityLimiter(parallel)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def __aenter__(self) -> Self:
        if self._idle_seconds is not None:
            self._tasks = anyio.create_task_group()
            await self._tasks.__aenter__()
            self._tasks.start_soon(self._stop_when_idle, self._idle_seconds)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._tasks is not None:
                self._tasks.cancel_scope.cancel()
                await self._tasks.__aexit__(exc_type, exc, traceback)
        finally:
            self._stop()

    async def _stop_when_idle(self, idle_seconds: float) -> None:
        while True:
            await self._used.wait()
            self._used = anyio.Event()
            with anyio.move_on_after(idle_seconds) as idle:
                await self._used.wait()
            if idle.cancelled_caught and not self._running:
                self._stop()

    async def run(
        self,
        function: str,
        arguments: list[Any],
        document: int | None = None,
        *,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Call `module:function` in a child with JSON `arguments` and return its JSON result.

        `document` is an open file descriptor; the child gets a copy as its first argument, an open binary file.
        `on_progress` hears what `progress.report` is told there, ten times a second at most.

        Raises:
            Unreadable: the child said why it cannot, or it crashed, hung or went over a limit.
        """
        async with self._slots:
            self._running += 1
            try:
                ours, theirs = socket.socketpair()
                with ours:
                    with theirs:
                        self._submit(function, arguments, theirs, document)
                    ours.setblocking(False)
                    answer = await self._read(ours, on_progress)
            finally:
                self._running -= 1
                self._used.set()
        return self._translate(function, answer)

    def _submit(self, function: str, arguments: list[Any], job: socket.socket, document: int | None) -> None:
        limits = {"memory_bytes": self._limits.memory_bytes, "cpu_seconds": self._limits.cpu_seconds}
        line = json.dumps({"function": function, "arguments": arguments, "limits": limits}).encode() + b"\n"
        descriptors = [job.fileno()] if document is None else [job.fileno(), document]
        try:
            _send(self._started(), line, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            logger.warning("the parsing process died; starting it again")
            self._stop()
            _send(self._started(), line, descriptors)

    def _started(self) -> socket.socket:
        if self._control is None:
            if missing := why_not_confined():
                logger.warning("parsing processes can read files and open sockets here: %s", missing)
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-m", "memento_documents.zygote", str(theirs.fileno()), self._preload],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # the server's stdout is the MCP stream
                    stderr=None if logger.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,
                    cwd="/",
                    env={
                        "LC_ALL": "C.UTF-8",
                        "PYMUPDF_SUGGEST_LAYOUT_ANALYZER": "0",
                        "TESSDATA_PREFIX": os.environ.get("TESSDATA_PREFIX", ""),
                    },
                    start_new_session=True,
                )
            self._control = ours
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()  # the zygote then kills its children and leaves
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    async def _read(self, job: socket.socket, on_progress: OnProgress | None) -> bytes:
        """All that comes on the job's socket until the child is gone. Leaving early kills the child."""
        pieces: list[bytes] = []
        start = b""
        in_answer = False
        size = 0
        with anyio.move_on_after(self._limits.wall_seconds) as scope:
            while True:
                await anyio.wait_readable(job)
                piece = job.recv(_READ_BYTES)
                if not piece:
                    return start + b"".join(pieces)
                if not in_answer:
                    start, done = _take_progress(start + piece)
                    if done is not None and on_progress is not None:
                        await on_progress(*done)
                    if not start or start.startswith(_PROGRESS[: len(start)]):
                        continue
                    in_answer, piece, start = True, start, b""
                pieces.append(piece)
                size += len(piece)
                if size > self._limits.answer_bytes:
                    raise Unreadable(
                        f"Its text is larger than {self._limits.answer_bytes // 1_000_000} MB; read a part of it."
                    )
        assert scope.cancelled_caught
        raise Unreadable(f"Reading it took longer than {self._limits.wall_seconds:g} s and was stopped.")

    def _translate(self, function: str, answer: bytes) -> Any:
        said, _, verdict = answer.rpartition(b"\n")
        try:
            code = int(json.loads(verdict)["exit"])
            spoken: dict[str, Any] = json.loads(said) if said else {}
        except (ValueError, KeyError, TypeError, RecursionError):
            code, spoken = 1, {}
        if "result" in spoken and code == 0:
            return spoken["result"]
        if "unreadable" in spoken:
            raise Unreadable(str(spoken["unreadable"]))
        if spoken.get("limit") == "memory":
            raise Unreadable(
                f"Reading it needs more than {self._limits.memory_bytes // 1_000_000} MB of memory and was stopped."
            )
        logger.warning("%s ended with code %s: %s", function, code, spoken.get("crash", "no answer"))
        if code == -signal.SIGXCPU:
            raise Unreadable(f"Reading it took more than {self._limits.cpu_seconds} s of CPU time and was stopped.")
        if code == -signal.SIGABRT:
            raise Unreadable("The parser gave up on it: it is damaged, or needs more memory than there is.")
        raise Unreadable("The parser failed on it; the file is probably damaged.")


def _take_progress(received: bytes) -> tuple[bytes, tuple[int, int, str] | None]:
    """Cut whole progress lines off the front; the last one counts."""
    done: tuple[int, int, str] | None = None
    while received.startswith(_PROGRESS) and b"\n" in received:
        line, _, received = received.partition(b"\n")
        first, second, what = json.loads(line)["progress"]
        done = int(first), int(second), str(what)
    return received, done


def _send(control: socket.socket, line: bytes, descriptors: list[int]) -> None:
    sent = socket.send_fds(control, [line], descriptors)
    if sent < len(line):
        control.sendall(line[sent:])
