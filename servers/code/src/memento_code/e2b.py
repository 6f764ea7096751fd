"""Backend `e2b`: each session is a microVM at E2B, driven through their SDK (`pip install 'memento-code[e2b]'`).

Owns the translation between a session's requests (`worker.py`'s) and the SDK; events are read by `execution.py`. How
strong the isolation is, is E2B's word: nothing is probed here, and the limits on memory, processes and files are those
of the template.

Two traps of the SDK, measured with 2.11: `run_code(timeout=2)` comes back after 4 s, and the next call on that kernel
may hang. So the deadline is ours, and a machine whose code ran over it is killed rather than used again.
"""

import base64
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio

from memento_code.execution import Execution, Outcome
from memento_code.sandbox import Limits
from memento_code.session import SessionLost
from memento_kit import StartupError

if TYPE_CHECKING:
    from e2b import EntryInfo
    from e2b_code_interpreter import AsyncSandbox

__all__ = ["E2BSandbox", "E2BSession"]

logger = logging.getLogger(__name__)

_REQUEST_SECONDS = 30.0
_LIFE_SECONDS = 3_600
"""After so long without a sign of life from here E2B ends the machine; renewed when half of it is over."""
_MAX_DEPTH = 8


class E2BSandbox:
    """Where sessions at E2B come from. Reads `E2B_API_KEY`, as their SDK does.

    Raises:
        StartupError: the SDK or the key is missing.
    """

    level = "e2b"
    mechanisms = ("a microVM at E2B for each session",)
    verified: tuple[str, ...] = ()
    python = "E2B's"

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.rejected: dict[str, str] = {}
        try:
            import e2b_code_interpreter  # noqa: F401  # pyright: ignore[reportUnusedImport]
        except ImportError as exc:
            raise StartupError(
                "MEMENTO_CODE_ISOLATION=e2b needs E2B's SDK: pip install 'memento-code[e2b]', or unset it"
            ) from exc
        if not os.environ.get("E2B_API_KEY"):
            raise StartupError("MEMENTO_CODE_ISOLATION=e2b needs a key of E2B in E2B_API_KEY")

    async def start(self, *, max_value_chars: int, output_bytes: int) -> "E2BSession":
        """Have a machine made, with no access to the internet.

        Raises:
            SessionLost: E2B gave none.
        """
        from e2b_code_interpreter import AsyncSandbox

        async with _errors_as_lost("E2B gave no machine"):
            machine = await AsyncSandbox.create(
                timeout=_LIFE_SECONDS, allow_internet_access=False, request_timeout=_REQUEST_SECONDS
            )
        return E2BSession(machine, max_value_chars=max_value_chars, output_bytes=output_bytes)


class E2BSession:
    """One machine with a Python that keeps its variables; the interface is that of `session.Session`."""

    def __init__(self, machine: "AsyncSandbox", *, max_value_chars: int, output_bytes: int) -> None:
        self._machine = machine
        self._max_value_chars = max_value_chars
        self._output_bytes = output_bytes
        self._lock = anyio.Lock()
        self._execution: Execution | None = None
        self._seen: dict[str, tuple[int, object]] = {}
        self._renewed_at = time.monotonic()
        self.is_running = False
        self.ended: str | None = None

    async def __aenter__(self) -> "E2BSession":
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await self.end("closed")

    def last_line(self) -> str:
        """What the running code said last."""
        return self._execution.last_line() if self._execution is not None else ""

    async def run(self, code: str, *, timeout_seconds: float) -> Outcome:
        """`ask` for code to be run."""
        return await self.ask({"code": code}, timeout_seconds=timeout_seconds)

    async def ask(self, request: dict[str, Any], *, timeout_seconds: float) -> Outcome:
        """Do what `request` says, within `timeout_seconds`; over that, the machine is ended. One at a time.

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

    async def end(self, reason: str) -> None:
        """Have the machine killed. Does nothing the second time."""
        if self.ended is not None:
            return
        self.ended = reason
        with suppress(SessionLost), anyio.move_on_after(_REQUEST_SECONDS, shield=True):
            async with _errors_as_lost("E2B"):
                await self._machine.kill(request_timeout=_REQUEST_SECONDS)

    async def enforce_memory(self) -> None:
        """Nothing to do: the machine's size is its template's."""

    async def enforce_folder(self) -> None:
        """Nothing to do: the machine's disk is its template's."""

    async def _ask(self, request: dict[str, Any], timeout_seconds: float) -> Outcome:
        started = time.monotonic()
        execution = Execution(max_value_chars=self._max_value_chars, output_bytes=self._output_bytes)
        self._execution = execution
        interrupted: str | None = None
        try:
            await self._renew()
            done = False
            with anyio.move_on_after(timeout_seconds):
                async with _errors_as_lost("E2B"):
                    await self._do(request, execution)
                done = True
            if not done:
                interrupted = f"time limit of {timeout_seconds:g} s"
                await self.end(f"the code ran over its {interrupted}; E2B cannot be relied on to interrupt it")
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self.end("its caller went away")
            raise
        except SessionLost as exc:
            await self.end(str(exc))
        return execution.outcome(seconds=time.monotonic() - started, interrupted=interrupted, lost=self.ended)

    async def _renew(self) -> None:
        if time.monotonic() - self._renewed_at > _LIFE_SECONDS / 2:
            async with _errors_as_lost("E2B"):
                await self._machine.set_timeout(_LIFE_SECONDS, request_timeout=_REQUEST_SECONDS)
            self._renewed_at = time.monotonic()

    async def _do(self, request: dict[str, Any], execution: Execution) -> None:
        """Each thing that comes back is an event for `execution`, as it came over the wire."""
        take = execution.take
        if "code" in request:
            await self._machine.run_code(
                str(request["code"]),
                on_stdout=lambda message: take({"type": "stdout", "text": str(message)}),
                on_stderr=lambda message: take({"type": "stderr", "text": str(message)}),
                on_result=lambda result: take({"type": "result", **vars(result)}),
                on_error=lambda error: take({"type": "error", **vars(error)}),
                timeout=0,  # none of theirs
            )
        elif "shell" in request:
            code = await self._shell(str(request["shell"]), execution)
            take({"type": "result", "text": str(code), "is_main_result": True})
        else:
            await self._file(str(request["do"]), *request["arguments"], execution=execution)
            return
        take({"type": "files", "files": await self._changed()})

    async def _shell(self, command: str, execution: Execution) -> int:
        from e2b import CommandExitException

        try:
            await self._machine.commands.run(
                command,
                on_stdout=lambda text: execution.take({"type": "stdout", "text": text}),
                on_stderr=lambda text: execution.take({"type": "stderr", "text": text}),
                timeout=0,
            )
        except CommandExitException as exc:
            return exc.exit_code
        return 0

    async def _file(self, do: str, path: str, *arguments: Any, execution: Execution) -> None:
        """What `folder.py` does inside a local sandbox."""
        from e2b import InvalidArgumentException, NotFoundException

        try:
            if do == "write_file":
                data = base64.b64decode(str(arguments[0]))
                files: Any = self._machine.files  # its `write` is typed in part only
                await files.write(path, data, use_octet_stream=True, request_timeout=_REQUEST_SECONDS)
                await self._changed()
                got: dict[str, Any] = {"bytes": len(data)}
            elif do == "read_file":
                offset, max_bytes = (int(each) for each in arguments)
                whole = bytes(await self._machine.files.read(path, format="bytes", request_timeout=_REQUEST_SECONDS))
                piece = base64.b64encode(whole[offset : offset + max_bytes]).decode()
                got = {"content": piece, "total_bytes": len(whole)}
            else:
                entries = [
                    {"path": where, "bytes": entry.size, "kind": "link" if entry.symlink_target else "file"}
                    for where, entry in await self._list(path)
                ]
                got = {"entries": entries[:500], "total": len(entries)}
            execution.take({"type": "file", "file": got})
        except (NotFoundException, InvalidArgumentException) as exc:
            said = str(exc).rstrip(".")
            execution.take({"type": "error", "name": type(exc).__name__, "value": said, "traceback": ""})

    async def _list(self, path: str) -> list[tuple[str, "EntryInfo"]]:
        from e2b import FileType

        folder = await self._machine.files.get_info(path, request_timeout=_REQUEST_SECONDS)
        found = await self._machine.files.list(path, depth=_MAX_DEPTH, request_timeout=_REQUEST_SECONDS)
        return sorted(
            (
                (entry.path.removeprefix(folder.path).lstrip("/"), entry)
                for entry in found
                if entry.type != FileType.DIR
            ),
            key=lambda each: each[0],
        )

    async def _changed(self) -> list[dict[str, Any]]:
        """Files made or changed since the last look."""
        made: list[dict[str, Any]] = []
        for path, entry in await self._list("."):
            stamp = (entry.size, entry.modified_time)
            if self._seen.get(path) != stamp and not any(part.startswith(".") for part in path.split("/")):
                self._seen[path] = stamp
                made.append({"path": path, "bytes": entry.size})
        return made


@asynccontextmanager
async def _errors_as_lost(what: str) -> AsyncGenerator[None]:
    import httpx
    from e2b.exceptions import AuthenticationException, SandboxException, ServiceBusyException

    try:
        yield
    except (SandboxException, AuthenticationException, ServiceBusyException, httpx.HTTPError, ValueError) as exc:
        first_line = (str(exc) or type(exc).__name__).splitlines()[0].rstrip(".")
        raise SessionLost(f"{what}: {first_line}") from exc
    except (LookupError, TypeError, AttributeError) as exc:  # the SDK reads events without a look at their shape
        raise SessionLost(f"{what} answered what its own SDK cannot read ({type(exc).__name__})") from exc
