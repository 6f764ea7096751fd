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
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.to_thread import run_sync
from pydantic import Base64Bytes, BaseModel, Field, ValidationError

__all__ = [
    "DataTable", "MadeFile", "Outcome", "Output", "OutputSink", "RaisedError", "Session", "SessionLost", "pictures",
]  # fmt: skip

_START_SECONDS = 20.0
_INTERRUPT_GRACE_SECONDS = 2.0
"""How long interrupted code may take to come back before its session is killed."""
_END_GRACE_SECONDS = 3.0
_READ_BYTES = 1 << 16
_MAX_ANSWER_BYTES = 32 << 20
_MAX_IMAGES = 10
_MAX_FILES = 20
_LAST_LINE_BYTES = 400
_SPOOLED_BYTES = 4 << 20
"""How much of an overlong output is kept to be written into a file of the session."""
_PNG = b"\x89PNG\r\n\x1a\n"
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


class RaisedError(BaseModel):
    """What the code raised."""

    name: str
    message: str
    traceback: str


class DataTable(BaseModel):
    """The beginning of a data frame."""

    columns: list[str]
    rows: list[list[int | float | str | bool | None]]
    total_rows: int


class MadeFile(BaseModel):
    """A file in the session's folder."""

    path: str = Field(max_length=1_000)
    bytes: int


@dataclass(frozen=True)
class Output:
    """What was written to one stream: the beginning and the end, with the number of bytes left out between."""

    text: str = ""
    dropped_bytes: int = 0
    spooled: bytes = b""
    """When something was left out: the stream from its beginning, as far as it was kept."""


@dataclass(frozen=True)
class Outcome:
    """How one run ended. `interrupted` names the limit that stopped it; the session lives on all the same."""

    stdout: Output
    stderr: Output
    value: str | None = None
    error: RaisedError | None = None
    errno: int | None = None
    """Of an `OSError` that the code raised."""
    images: list[bytes] = field(default_factory=list[bytes])
    """PNG files."""
    tables: list[DataTable] = field(default_factory=list[DataTable])
    files: list[MadeFile] = field(default_factory=list["MadeFile"])
    """What the code made or changed in its folder."""
    file: dict[str, Any] | None = None
    """What an operation on a file gave."""
    seconds: float = 0.0
    interrupted: str | None = None
    lost: str | None = None
    """Why the session ended with this run; a next run starts a new one."""


class _Answer(BaseModel):
    call: str
    value: str | None = None
    error: RaisedError | None = None
    errno: int | None = None
    images: list[Base64Bytes] = []
    tables: list[DataTable] = []
    files: list[MadeFile] = []
    file: dict[str, Any] | None = None


@dataclass
class OutputSink:
    """Collects a stream: its first half and its last half, counting what falls out between."""

    limit_bytes: int
    _head: bytearray = field(default_factory=bytearray)
    _tail: bytearray = field(default_factory=bytearray)
    _total: int = 0
    _spool: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Take in what was written next."""
        self._total += len(data)
        self._spool += data[: max(0, _SPOOLED_BYTES - len(self._spool))]
        room = max(0, self.limit_bytes // 2 - len(self._head))
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > self.limit_bytes:
            del self._tail[: -(self.limit_bytes // 2)]

    def output(self) -> Output:
        """What is kept."""
        tail = bytes(self._tail[-(self.limit_bytes // 2) :]) if self._tail else b""
        dropped = self._total - len(self._head) - len(tail)
        head = bytes(self._head).decode("utf-8", "replace")
        if not dropped:
            return Output((bytes(self._head) + tail).decode("utf-8", "replace"))
        text = f"{head}\n… {dropped} bytes left out …\n{tail.decode('utf-8', 'replace')}"
        return Output(text, dropped, bytes(self._spool))

    def last_line(self) -> str:
        """The line written last."""
        end = bytes((self._tail or self._head)[-_LAST_LINE_BYTES:]).decode("utf-8", "replace").rstrip("\n")
        return end.rpartition("\n")[2]


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
    ) -> None:
        self._command = command
        self._boot = boot
        self._config = config
        self._supervised = supervised
        self._folder = folder
        self._output_bytes = output_bytes
        self._memory_bytes = memory_bytes
        self._folder_limit_bytes = folder_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: dict[str, int] = {}
        self._buffer = bytearray()
        self._lock = anyio.Lock()
        self._stdout: OutputSink | None = None
        self.is_running = False
        self.ended: str | None = None
        """Why the process is gone; None while it lives."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.end("closed")

    @property
    def process_id(self) -> int:
        """Of the first process, below which all others of the session are."""
        assert self._process is not None
        return self._process.pid

    async def open(self) -> None:
        """Start the process and wait until it is confined and ready.

        Raises:
            SessionLost: it did not get there; the message holds what it said.
        """
        self._spawn()
        is_ready = False
        said = OutputSink(4_000)
        try:
            with anyio.fail_after(_START_SECONDS):
                await self._send({**self._boot, "config": self._config})
                is_ready = await self._next_line() is not None
            self._drain("stderr", said)
        except TimeoutError as exc:
            raise SessionLost(f"it did not start within {_START_SECONDS:g} s") from exc
        finally:
            if not is_ready:  # also when the wait was cancelled
                with anyio.CancelScope(shield=True):
                    await self.end("did not start")
        if not is_ready:
            lines = said.output().text.strip().splitlines()
            raise SessionLost(f"it did not start: {lines[-1] if lines else 'no reason given'}")

    def last_line(self) -> str:
        """What the running code printed last."""
        return self._stdout.last_line() if self._stdout is not None else ""

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
        sinks = {"stdout": OutputSink(self._output_bytes), "stderr": OutputSink(self._output_bytes)}
        self._stdout = sinks["stdout"]
        try:
            answer, interrupted = await self._converse({"call": call, **request}, timeout_seconds, sinks)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                try:
                    stopped = await self._interrupt(call)
                except SessionLost:
                    stopped = None
                if stopped is None:
                    await self.end("its caller went away and the code did not stop")
            raise
        except SessionLost as exc:
            answer, interrupted = None, None
            await self.end(str(exc))
        for name, sink in sinks.items():
            self._drain(name, sink)
        return Outcome(
            sinks["stdout"].output(),
            sinks["stderr"].output(),
            value=answer.value if answer else None,
            error=answer.error if answer else None,
            errno=answer.errno if answer else None,
            images=pictures(answer.images) if answer else [],
            tables=answer.tables if answer else [],
            files=answer.files[:_MAX_FILES] if answer else [],
            file=answer.file if answer else None,
            seconds=time.monotonic() - started,
            interrupted=interrupted,
            lost=self.ended,
        )

    async def end(self, reason: str) -> None:
        """Kill every process of the session and forget its folder. Does nothing the second time."""
        if self.ended is not None:
            return
        self.ended = reason
        process = self._process
        assert process is not None
        os.close(self._pipes.pop("life"))  # a supervisor then kills what the session started, and leaves
        if not self._supervised or not await _gone(process, _END_GRACE_SECONDS):
            _kill_group(process)
            await _gone(process, _END_GRACE_SECONDS)
        if not self.is_running:  # else the run that waits on them closes them
            self._close_pipes()
        if self._folder is not None:
            await run_sync(lambda: shutil.rmtree(self._folder or "", ignore_errors=True))

    async def enforce_memory(self) -> None:
        """End the session when its processes together use too much: the kernel only limits each of them."""
        assert self._process is not None
        if self.ended is None and await run_sync(_tree_memory_bytes, self._process.pid) > self._memory_bytes:
            await self.end(f"its processes used more than {self._memory_bytes >> 20} MiB of memory together")

    async def enforce_folder(self) -> None:
        """End the session when its folder on the host has grown too large; inside a namespace the kernel sees to it."""
        if self._folder is None or self.ended is not None:
            return
        if await run_sync(_folder_bytes, self._folder, self._folder_limit_bytes) > self._folder_limit_bytes:
            await self.end(f"its folder grew over {self._folder_limit_bytes >> 20} MiB")

    def _close_pipes(self) -> None:
        assert self._process is not None
        for name in ("requests", "answers"):
            if name in self._pipes:
                os.close(self._pipes.pop(name))
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _spawn(self) -> None:
        requests_in, requests = os.pipe()
        answers, answers_out = os.pipe()
        life_in, life = os.pipe()
        folder = str(self._config["folder"])
        temporary = f"{folder}/tmp" if self._folder else "/tmp"
        theirs = [requests_in, answers_out, *([life_in] if self._supervised else [])]
        try:
            process = subprocess.Popen(
                [*self._command, str(requests_in), str(answers_out)],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={**_ENVIRONMENT, "HOME": folder, "TMPDIR": temporary, "MPLCONFIGDIR": f"{temporary}/matplotlib"},
                start_new_session=True,
            )
        finally:
            for descriptor in (requests_in, answers_out, life_in):
                os.close(descriptor)
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._pipes = {
            "requests": requests,
            "answers": answers,
            "life": life,
            "stdout": process.stdout.fileno(),
            "stderr": process.stderr.fileno(),
        }
        for descriptor in (answers, process.stdout.fileno(), process.stderr.fileno()):
            os.set_blocking(descriptor, False)
        self._config |= {
            "life": life_in if self._supervised else None,
            "keep_descriptors": [requests_in, answers_out],
        }

    async def _converse(
        self, request: dict[str, Any], timeout_seconds: float, sinks: dict[str, OutputSink]
    ) -> tuple[_Answer, str | None]:
        call = str(request["call"])
        answer: _Answer | None = None
        interrupted: str | None = None
        lost: SessionLost | None = None
        async with anyio.create_task_group() as beside:
            for name, sink in sinks.items():
                beside.start_soon(self._pump, name, sink)
            try:
                await self._send(request)
                with anyio.move_on_after(timeout_seconds):
                    answer = await self._answer(call)
                if answer is None:
                    interrupted = f"time limit of {timeout_seconds:g} s"
                    answer = await self._interrupt(call)
            except SessionLost as exc:
                lost = exc  # raised outside, or the task group would wrap it
            beside.cancel_scope.cancel()
        if lost is not None:
            raise lost
        if answer is None:
            raise SessionLost(f"the code ran over its {interrupted} and could not be interrupted")
        return answer, interrupted

    async def _interrupt(self, call: str) -> _Answer | None:
        await self._send({"interrupt": call})
        with anyio.move_on_after(_INTERRUPT_GRACE_SECONDS):
            return await self._answer(call)
        return None

    async def _answer(self, call: str) -> _Answer:
        while True:
            line = await self._next_line()
            if line is None:
                raise SessionLost(await self._cause_of_death())
            try:
                answer = _Answer.model_validate(json.loads(line.decode("utf-8", "replace")))
            except (ValueError, ValidationError, RecursionError) as exc:
                raise SessionLost("the code wrote into the session's own pipe") from exc
            if answer.call == call:
                return _clean(answer)

    async def _next_line(self) -> bytes | None:
        """The next line of the answer pipe; None when the other side is gone."""
        complete = b"\n" in self._buffer
        while not complete:
            await anyio.wait_readable(self._pipes["answers"])
            try:
                piece = os.read(self._pipes["answers"], _READ_BYTES)
            except BlockingIOError:
                continue
            if not piece:
                return None
            self._buffer += piece
            complete = b"\n" in piece
            if len(self._buffer) > _MAX_ANSWER_BYTES:
                raise SessionLost("the code wrote into the session's own pipe")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line

    async def _send(self, request: dict[str, Any]) -> None:
        data = json.dumps(request).encode() + b"\n"
        os.set_blocking(self._pipes["requests"], False)
        while data:
            try:
                data = data[os.write(self._pipes["requests"], data) :]
            except BlockingIOError:
                await anyio.wait_writable(self._pipes["requests"])
            except BrokenPipeError:
                return  # the answer pipe will say so

    async def _pump(self, name: str, sink: OutputSink) -> None:
        while True:
            await anyio.wait_readable(self._pipes[name])
            if not self._drain(name, sink):
                return

    def _drain(self, name: str, sink: OutputSink) -> bool:
        """Take what is in the pipe now, a pipe's worth at most; False when nothing will come any more."""
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
        code = self._process.returncode
        if code is not None and code > 128:
            code = 128 - code
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"the Python process died of {name}{_LIMIT_SIGNALS.get(name, '')}"
        return f"the Python process ended with exit code {code}"


def pictures(images: list[bytes]) -> list[bytes]:
    """Only what says that it is a PNG file; it is still a picture from outside to whoever decodes it."""
    return [image for image in images if image.startswith(_PNG)][:_MAX_IMAGES]


def _clean(answer: _Answer) -> _Answer:
    """Lone surrogates cannot be sent on as JSON text."""
    return _Answer.model_validate_json(answer.model_dump_json())


async def _gone(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        while process.poll() is None:  # noqa: ASYNC110  there is no event to wait for that works on every platform
            await anyio.sleep(0.005)
    return process.poll() is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _tree_memory_bytes(root: int) -> int:
    """Private memory of `root` and all below it. Pages that forks still share count once per process."""
    pages = 0
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            resident, shared = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1:3]
            pages += int(resident) - int(shared)
            for task in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
                waiting += [int(child) for child in children.split()]
        except (OSError, ValueError):
            continue  # it has just ended
    return pages * os.sysconf("SC_PAGE_SIZE")


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
