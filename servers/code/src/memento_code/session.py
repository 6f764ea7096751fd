"""One Python session: its process, its pipes, and how a run in it ends.

Owns the host's side of `worker.py`'s protocol. Everything that comes out of the process is distrusted: it is counted,
cut, decoded with replacement, and checked for shape; what does not fit ends the session and nothing else.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import anyio
from anyio.to_thread import run_sync
from pydantic_core import from_json

from memento_code.confine import OVER_MEMORY, tree_memory_bytes
from memento_code.container import EngineCommand
from memento_code.execution import Execution, Outcome, OutputSink

__all__ = ["Session", "SessionLost", "session_environment"]

_INTERRUPT_GRACE_SECONDS = 2.0
"""How long interrupted code may take to come back before its session is killed."""
_END_GRACE_SECONDS = 3.0
_READ_BYTES = 1 << 16
_MAX_EVENTS_BYTES = 32 << 20
_LIMIT_SIGNALS = {"SIGXCPU": " (the limit of CPU time)", "SIGXFSZ": " (the limit of file size)"}
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "LC_CTYPE": "C.UTF-8",
    "TZ": "UTC",
    "USER": "sandbox",
    "MPLBACKEND": "Agg",
    "OPENBLAS_NUM_THREADS": "2",
    "OMP_NUM_THREADS": "2",
}
"""All that a session sees. The server's own environment is not where this starts from."""


class SessionLost(Exception):
    """The session's process and its variables are gone. The message says what happened, for the model to read."""


class Session:
    """A process at some level of isolation, with the variables of earlier runs. Use as an async context manager."""

    def __init__(
        self,
        command: list[str],
        *,
        boot: dict[str, Any],
        config: dict[str, Any],
        supervised: bool,
        folder: Path | None,
        output_bytes: int,
        memory_bytes: int,
        folder_bytes: int,
        engine: EngineCommand | None = None,
        start_seconds: float = 20.0,
    ) -> None:
        self._command = command
        self._engine = engine
        self._start_seconds = start_seconds
        self._boot = boot
        self._config = config
        self._supervised = supervised
        self._folder = folder
        self._output_bytes = output_bytes
        self._execution: Execution | None = None
        self._memory_bytes = memory_bytes
        self._folder_limit_bytes = folder_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: dict[str, int] = {}
        self._buffer = bytearray()
        self._taken_bytes = 0
        self._exit_code: int | None = None
        """As the supervisor within a container or machine told it."""
        self._lock = anyio.Lock()
        self._ending = anyio.Lock()
        self.is_running = False
        self.ended: str | None = None
        """Why the process is gone; None while it lives."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.end("closed")

    @property
    def process_id(self) -> int:
        """Of the first process, below which all others of the session are."""
        assert self._process is not None
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether its first process still runs."""
        return self.ended is None and self._process is not None and self._process.poll() is None

    async def open(self) -> None:
        """Start the process and wait until it is confined and ready.

        Raises:
            SessionLost: it did not get there; the message holds what it said.
        """
        self._spawn()
        is_ready = False
        said = OutputSink(4_000)
        try:
            with anyio.fail_after(self._start_seconds):
                await self._send({**self._boot, "config": self._config})
                line = await self._next_line()
                while line is not None and not (is_ready := line.endswith(b'"type": "ready"}')):
                    said.add(line + b"\n")  # a machine has one way to complain
                    line = await self._next_line()
            self._drain("complaints", said)
        except TimeoutError as exc:
            raise SessionLost(f"it did not start within {self._start_seconds:g} s") from exc
        finally:
            if not is_ready:  # also when the wait was cancelled
                await self.end("did not start")
        if not is_ready:
            lines = said.output().text.strip().splitlines()
            raise SessionLost(f"it did not start: {lines[-1] if lines else 'no reason given'}")

    def last_line(self) -> str:
        """What the running code said last."""
        return self._execution.last_line() if self._execution is not None else ""

    async def run(self, code: str, *, timeout_seconds: float) -> Outcome:
        """`ask` for code to be run."""
        return await self.ask({"code": code}, timeout_seconds=timeout_seconds)

    async def ask(self, request: dict[str, Any], *, timeout_seconds: float) -> Outcome:
        """Send a request of `worker.py` and wait, at most `timeout_seconds` and a short grace. One at a time.

        Raises:
            SessionLost: the session had ended before.
        """
        async with self._lock:
            if self.ended is not None:
                raise SessionLost(self.ended)
            self.is_running = True
            try:
                return await self._ask(request, timeout_seconds)
            finally:
                self.is_running = False
                if self.ended is not None:
                    self._close_pipes()

    async def _ask(self, request: dict[str, Any], timeout_seconds: float) -> Outcome:
        call = secrets.token_hex(8)
        started = time.monotonic()
        execution = Execution(max_value_chars=self._config["max_value_chars"], output_bytes=self._output_bytes)
        self._execution = execution
        self._taken_bytes = 0
        interrupted: str | None = None
        try:
            interrupted = await self._converse({"call": call, **request}, timeout_seconds, execution)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                try:
                    has_stopped = await self._interrupt(call, execution)
                except SessionLost:
                    has_stopped = False
                if not has_stopped:
                    await self.end("its caller went away and the code did not stop")
            raise
        except SessionLost as exc:
            await self.end(str(exc))
        self._drain("stdout", execution.stdout)
        self._drain("stderr", execution.stderr)
        return execution.outcome(seconds=time.monotonic() - started, interrupted=interrupted, lost=self.ended)

    async def end(self, reason: str) -> None:
        """Kill every process of the session and forget its folder; the second time, wait until the first is done.

        A caller that is cancelled waits all the same: an end that stops half-way would leave processes to nobody.
        """
        with anyio.CancelScope(shield=True):
            async with self._ending:
                if self.ended is None:
                    await self._end(reason)

    async def _end(self, reason: str) -> None:
        self.ended = reason
        process = self._process
        assert process is not None
        life = self._pipes.pop("life" if self._engine is None else "requests")
        anyio.notify_closing(life)  # a request may wait on it
        os.close(life)  # a supervisor then kills what the session started, and leaves
        if not self._supervised or not await _gone(process, _END_GRACE_SECONDS):
            _kill_group(process)
            await _gone(process, _END_GRACE_SECONDS)
        if not self.is_running:  # else the run that waits on them closes them
            self._close_pipes()
        if self._folder is not None:
            await run_sync(lambda: shutil.rmtree(self._folder or "", ignore_errors=True))

    async def enforce_memory(self) -> None:
        """End the session when its processes together use too much: the kernel only limits each of them."""
        if self.ended is not None or self._engine is not None:  # in there its supervisor watches
            return
        assert self._process is not None
        if await run_sync(tree_memory_bytes, self._process.pid) > self._memory_bytes:
            await self.end(self._over_memory())

    async def enforce_folder(self) -> None:
        """End the session when its folder on the host has grown too large; inside a namespace the kernel sees to it."""
        if self._folder is None or self.ended is not None:
            return
        if await run_sync(_folder_bytes, self._folder, self._folder_limit_bytes) > self._folder_limit_bytes:
            await self.end(f"its folder grew over {self._folder_limit_bytes >> 20} MiB")

    def _over_memory(self) -> str:
        return f"its processes used more than {self._memory_bytes >> 20} MiB of memory together"

    def _close_pipes(self) -> None:
        assert self._process is not None
        for name in ("requests", "events"):
            if name in self._pipes:
                os.close(self._pipes.pop(name))
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _spawn(self) -> None:
        if self._engine is not None:
            self._spawn_in_container(self._engine)
            return
        requests_in, requests = os.pipe()
        events, events_out = os.pipe()
        life_in, life = os.pipe()
        folder = str(self._config["folder"])
        temporary = f"{folder}/tmp" if self._folder else "/tmp"
        theirs = [requests_in, events_out, *([life_in] if self._supervised else [])]
        try:
            process = subprocess.Popen(
                [*self._command, *(str(each) for each in theirs)],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=session_environment(folder, temporary),
                start_new_session=True,
            )
        except OSError as exc:
            for descriptor in (requests, events, life):
                os.close(descriptor)
            raise SessionLost(f"{self._command[0]} could not be started ({exc.strerror})") from exc
        finally:
            for descriptor in (requests_in, events_out, life_in):
                os.close(descriptor)
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._pipes = {
            "requests": requests,
            "events": events,
            "life": life,
            "stdout": process.stdout.fileno(),
            "stderr": process.stderr.fileno(),
            "complaints": process.stderr.fileno(),
        }
        for descriptor in (events, process.stdout.fileno(), process.stderr.fileno()):
            os.set_blocking(descriptor, False)
        self._config |= {
            "life": life_in if self._supervised else None,
            "keep_descriptors": [requests_in, events_out],
            "relayed": False,
        }

    def _spawn_in_container(self, engine: EngineCommand) -> None:
        """Engines hand on standard input and output alone: requests and events go there, and `relay.py` sorts them."""
        requests_in, requests = os.pipe()
        events, events_out = os.pipe()
        folder = str(self._config["folder"])
        variables = [f"{name}={value}" for name, value in session_environment(folder, "/tmp").items()]
        try:
            process = subprocess.Popen(
                [*engine.command, *([*variables, *self._command, "0", "1"] if engine.takes_command else [])],
                stdin=requests_in,
                stdout=events_out,
                stderr=subprocess.PIPE,
                cwd="/",
                env=engine.environment,
                start_new_session=True,
            )
        except OSError as exc:
            for descriptor in (requests, events):
                os.close(descriptor)
            raise SessionLost(f"{engine.command[0]} could not be started ({exc.strerror})") from exc
        finally:
            for descriptor in (requests_in, events_out):
                os.close(descriptor)
        assert process.stderr is not None
        self._process = process
        self._pipes = {"requests": requests, "events": events, "complaints": process.stderr.fileno()}
        for descriptor in (events, process.stderr.fileno()):
            os.set_blocking(descriptor, False)
        self._config |= {"life": None, "keep_descriptors": [], "relayed": True}

    async def _converse(self, request: dict[str, Any], timeout_seconds: float, execution: Execution) -> str | None:
        """Returns the limit that the code ran into, when it stopped there."""
        call = str(request["call"])
        interrupted: str | None = None
        lost: SessionLost | None = None
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._pump, "stdout", execution.stdout)
            beside.start_soon(self._pump, "stderr", execution.stderr)
            try:
                await self._send(request)
                with anyio.move_on_after(timeout_seconds):
                    await self._take_events(call, execution)
                if not execution.is_over:
                    interrupted = f"time limit of {timeout_seconds:g} s"
                    if not await self._interrupt(call, execution):
                        lost = SessionLost(f"the code ran over its {interrupted} and could not be interrupted")
            except SessionLost as exc:
                lost = exc  # raised outside, or the task group would wrap it
            beside.cancel_scope.cancel()
        if lost is not None:
            raise lost
        return interrupted

    async def _interrupt(self, call: str, execution: Execution) -> bool:
        """Whether the code stopped."""
        await self._send({"interrupt": call})
        with anyio.move_on_after(_INTERRUPT_GRACE_SECONDS):
            await self._take_events(call, execution)
        return execution.is_over

    async def _take_events(self, call: str, execution: Execution) -> None:
        while not execution.is_over:
            line = await self._next_line()
            if line is None:
                raise SessionLost(await self._cause_of_death())
            try:
                event = cast("object", from_json(line, allow_inf_nan=False))
                if not isinstance(event, dict):
                    raise ValueError("not an object")
                told = cast("dict[str, object]", event)
                if told.get("type") not in ("stdout", "stderr"):  # these are cut instead
                    self._taken_bytes += len(line)
                    if self._taken_bytes > _MAX_EVENTS_BYTES:
                        raise SessionLost("the code showed more than a session may")
                if self._engine is not None and told.get("type") == "exit":  # the supervisor's, if it is the last
                    code = told.get("code")
                    if not isinstance(code, int):
                        raise ValueError("not an exit code")
                    self._exit_code = code
                elif told.get("call") == call:
                    execution.take(told)
            except ValueError as exc:
                raise SessionLost("the code wrote into the session's own pipe") from exc

    async def _next_line(self) -> bytes | None:
        """The next line of the pipe of events; None when the other side is gone."""
        complete = b"\n" in self._buffer
        while not complete:
            await anyio.wait_readable(self._pipes["events"])
            try:
                piece = os.read(self._pipes["events"], _READ_BYTES)
            except BlockingIOError:
                continue
            if not piece:
                return None
            self._buffer += piece
            complete = b"\n" in piece
            if len(self._buffer) > _MAX_EVENTS_BYTES:
                raise SessionLost("the code wrote into the session's own pipe")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line

    async def _send(self, request: dict[str, Any]) -> None:
        data = json.dumps(request).encode() + b"\n"
        while data:
            if "requests" not in self._pipes:
                return  # it has just been ended
            try:
                os.set_blocking(self._pipes["requests"], False)
                data = data[os.write(self._pipes["requests"], data) :]
            except BlockingIOError:
                with suppress(anyio.ClosedResourceError):
                    await anyio.wait_writable(self._pipes["requests"])
            except BrokenPipeError:
                return  # the other pipe will say so

    async def _pump(self, name: str, sink: OutputSink) -> None:
        while name in self._pipes:  # out of a container it comes as events
            await anyio.wait_readable(self._pipes[name])
            if not self._drain(name, sink):
                return

    def _drain(self, name: str, sink: OutputSink) -> bool:
        """Take what is in the pipe now, a pipe's worth at most; False when nothing will come any more."""
        if name not in self._pipes:
            return False
        for _ in range(32):
            try:
                piece = os.read(self._pipes[name], _READ_BYTES)
            except BlockingIOError:
                return True
            if not piece:
                return False
            sink.add(piece)
        return True

    async def _cause_of_death(self) -> str:
        if self.ended is not None:
            return self.ended
        assert self._process is not None
        await _gone(self._process, _END_GRACE_SECONDS)
        code = self._process.returncode if self._exit_code is None else self._exit_code
        if self._engine is not None and code == OVER_MEMORY:
            return self._over_memory()
        if code is not None and code > 128:
            code = 128 - code
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"the Python process died of {name}{_LIMIT_SIGNALS.get(name, '')}"
        return f"the Python process ended with exit code {code}"


def session_environment(folder: str, temporary: str) -> dict[str, str]:
    """All the variables that a session sees."""
    return {**_ENVIRONMENT, "HOME": folder, "TMPDIR": temporary, "MPLCONFIGDIR": f"{temporary}/matplotlib"}


async def _gone(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        while process.poll() is None:  # noqa: ASYNC110  there is no event to wait for that works on every platform
            await anyio.sleep(0.005)
    return process.poll() is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _folder_bytes(folder: Path, enough: int) -> int:
    """What the files in it take up on disk; stops counting when that is `enough`. Links are not followed."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
        if total > enough:
            break
    return total
