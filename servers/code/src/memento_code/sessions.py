"""The sessions of one server: found by caller and name, started when first used, bounded in number, ended when idle.

Owns which session a run goes to and what a caller is told when variables were lost. Who asks is `callers.py`'s, how a
session is isolated `sandbox.py`'s, how one runs `session.py`'s.
"""

import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, overload

import anyio
from mcp.server.mcpserver import Context
from pydantic import Field

from memento_code.callers import Caller, caller_of, new_handle
from memento_code.e2b import E2BSandbox, E2BSession
from memento_code.execution import Outcome
from memento_code.sandbox import Level, Limits, NoSandbox, Sandbox, find_sandbox
from memento_code.session import Session, SessionLost
from memento_kit import StartupError

__all__ = ["NoSuchSession", "Ran", "SessionName", "Sessions"]

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.1
_MAX_ENDED_KEPT = 1_000
_REFILL_DELAY_SECONDS = 0.25
"""Before the next spare session is started: the run that took the last one goes first."""

SessionName = Annotated[
    Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")] | None,
    Field(description="The session to go on in, as an earlier answer named it; leave out at first"),
]

_Key = tuple[Caller, str]


class NoSuchSession(Exception):
    """The caller has no session of that name. Whether another caller has one is not told."""


@dataclass(frozen=True)
class Ran:
    """One run: how it ended, and whether it began without the variables of earlier runs."""

    session: str
    """What the caller passes to go on in it."""
    outcome: Outcome
    is_new: bool
    lost_before: str | None
    """Why an earlier session of this name is gone, when this run is the first to meet its successor."""


@dataclass
class _Named:
    session: Session | E2BSession | None = None
    lost: str | None = None
    used_at: float = field(default_factory=time.monotonic)
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Sessions:
    """All sessions. `look_after` must run in a task group of the owner for as long as this is used."""

    def __init__(
        self,
        limits: Limits,
        *,
        wanted: Level | None,
        allow_none: bool,
        python: Path | None,
        packages_folder: Path | None,
        max_sessions: int,
        idle_seconds: float,
        outlive_clients: bool,
        max_value_chars: int,
        output_bytes: int,
        keep_spare: bool = False,
        kernel: Path | None = None,
    ) -> None:
        self._limits = limits
        self._wanted: Level | None = wanted
        self._allow_none = allow_none
        self._python = python
        self._kernel = kernel
        self._packages_folder = packages_folder
        self._max_sessions = max_sessions
        self._idle_seconds = idle_seconds
        self._outlive_clients = outlive_clients
        self._max_value_chars = max_value_chars
        self._output_bytes = output_bytes
        self._named: dict[_Key, _Named] = {}
        self._sandbox: Sandbox | E2BSandbox | None = None
        self._found = anyio.Event()
        self._keep_spare = keep_spare
        self._spare: Session | None = None
        self._spare_taken = anyio.Event()
        self._spare_ready = anyio.Event()

    async def look_after(self) -> None:
        """Find the level of isolation, then watch memory and idle time until cancelled.

        Raises:
            StartupError: no permitted level of isolation holds on this machine.
        """
        if self._wanted == "e2b":
            self._sandbox = E2BSandbox(self._limits)
            self._found.set()
            await self._watch()
        try:
            found = await find_sandbox(
                self._limits,
                wanted=self._wanted,
                allow_none=self._allow_none,
                python=self._python,
                kernel=self._kernel,
            )
        except NoSandbox as exc:
            raise StartupError(str(exc)) from exc
        if self._packages_folder is not None:
            found = replace(found, packages=(*found.packages, str(self._packages_folder)))
        self._sandbox = found
        if found.level == "none":
            logger.warning("code runs WITHOUT isolation, as the settings allow")
        self._found.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            if self._keep_spare:
                tasks.start_soon(self._refill, found)

    async def _refill(self, sandbox: Sandbox) -> None:
        """Keep one session started that is nobody's yet: no code has run in it, and it is given away once."""
        try:
            while True:
                if self._spare is None:
                    self._spare = await self._started(sandbox)
                    self._spare_ready.set()
                await self._spare_taken.wait()
                self._spare_taken = anyio.Event()
                await anyio.sleep(_REFILL_DELAY_SECONDS)
        except SessionLost as exc:  # who needs one tries for himself, and is told
            logger.warning("no spare session is kept any more: %s", exc)
        finally:
            if self._spare is not None:
                await self._spare.end("the server stopped")

    async def spare_is_ready(self) -> None:
        """Wait until the first spare session is there."""
        await self._spare_ready.wait()

    async def _new_session(self) -> Session | E2BSession:
        spare, self._spare = self._spare, None
        self._spare_taken.set()
        if spare is not None:
            if spare.is_alive():
                return spare
            await spare.end("it died before it was used")
        return await self._started(await self.sandbox())

    @overload
    async def _started(self, sandbox: Sandbox) -> Session: ...
    @overload
    async def _started(self, sandbox: Sandbox | E2BSandbox) -> Session | E2BSession: ...
    async def _started(self, sandbox: Sandbox | E2BSandbox) -> Session | E2BSession:
        return await sandbox.start(max_value_chars=self._max_value_chars, output_bytes=self._output_bytes)

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(_WATCH_SECONDS)
            for named in list(self._named.values()):
                session = named.session
                if session is None or session.ended is not None:
                    continue
                await session.enforce_memory()
                await session.enforce_folder()
                if time.monotonic() - named.used_at > self._idle_seconds and not session.is_running:
                    await session.end(f"it was idle for {self._idle_seconds / 60:g} minutes")

    async def sandbox(self) -> Sandbox | E2BSandbox:
        """The sandbox in force; waits until it is known."""
        await self._found.wait()
        assert self._sandbox is not None
        return self._sandbox

    def caller(self, ctx: Context[Any]) -> Caller:
        """Whose sessions a request may go on in."""
        return caller_of(ctx, outlives_client=self._outlive_clients)

    async def ask(self, caller: Caller, name: str | None, request: dict[str, Any], *, timeout_seconds: float) -> Ran:
        """Send a request of `worker.py` to the caller's session `name`, which is started when there is none.

        Raises:
            NoSuchSession: sessions go by handles here, and this is none of the caller's.
            SessionLost: no session could be started.
        """
        key = self._key(caller, name)
        named = self._named.setdefault(key, _Named())
        async with named.lock:
            named.used_at = time.monotonic()
            session, is_new, lost_before = await self._session(key, named)
            outcome = await session.ask(request, timeout_seconds=timeout_seconds)
            named.used_at = time.monotonic()
            return Ran(key[1], outcome, is_new, lost_before)

    def last_line(self, caller: Caller, name: str) -> str:
        """What code that runs in this session printed last; empty when it printed nothing yet."""
        named = self._named.get((caller, name))
        return named.session.last_line() if named is not None and named.session is not None else ""

    async def reset(self, caller: Caller, name: str | None) -> bool:
        """End the caller's session `name`; False when there was none.

        Raises:
            NoSuchSession: sessions go by handles here, and this is none of the caller's.
        """
        if name is None and caller.shares_server:
            raise NoSuchSession("Name the session to end, as an earlier answer named it.")
        named = self._named.pop(self._key(caller, name), None)
        if named is None or named.session is None or named.session.ended is not None:
            return False
        await named.session.end("it was reset")
        return True

    def names(self, caller: Caller) -> list[str]:
        """The caller's sessions that live, the last used first."""
        return [name for owner, name in self._alive() if owner == caller]

    async def close(self) -> None:
        """End all sessions, side by side."""
        async with anyio.create_task_group() as ending:
            for named in self._named.values():
                if named.session is not None:
                    ending.start_soon(named.session.end, "the server stopped")

    def _key(self, caller: Caller, name: str | None) -> _Key:
        if not caller.shares_server:
            return caller, name or "default"
        if name is None:
            return caller, new_handle()
        if (caller, name) not in self._named:
            raise NoSuchSession(f"There is no session {name!r} of yours; leave `session` out to start one.")
        return caller, name

    def _alive(self) -> list[_Key]:
        """The sessions of all callers, the last used first."""
        alive = [
            (named.used_at, key)
            for key, named in self._named.items()
            if named.session is not None and named.session.ended is None
        ]
        return [key for _, key in sorted(alive, key=lambda each: each[0], reverse=True)]

    async def _session(self, key: _Key, named: _Named) -> tuple[Session | E2BSession, bool, str | None]:
        if named.session is not None and named.session.ended is None:
            return named.session, False, None
        lost = named.session.ended if named.session is not None else named.lost
        named.session, named.lost = None, None
        await self._make_room(key)
        named.session = await self._new_session()
        return named.session, True, lost

    async def _make_room(self, key: _Key) -> None:
        """End the longest unused sessions until there is a place for one more: the caller's own before another's.

        Raises:
            SessionLost: all of them are running code.
        """
        while len(alive := [other for other in self._alive() if other != key]) >= self._max_sessions:
            idle = [other for other in alive if not self._is_running(other)]
            if not idle:
                raise SessionLost(f"all {self._max_sessions} sessions are busy; wait for one of them to end")
            own = [other for other in idle if other[0] == key[0]]
            session = self._named[(own or idle)[-1]].session
            assert session is not None
            await session.end(f"its place was needed: at most {self._max_sessions} sessions live at once")
        self._forget_some()

    def _forget_some(self) -> None:
        """Why a session was lost is kept for its next run, yet not for ever: handles would pile up."""
        ended = [key for key, named in self._named.items() if named.session is not None and named.session.ended]
        for key in ended[: max(0, len(ended) - _MAX_ENDED_KEPT)]:
            del self._named[key]

    def _is_running(self, key: _Key) -> bool:
        session = self._named[key].session
        return session is not None and session.is_running
