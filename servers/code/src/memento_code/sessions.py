"""The sessions of one server: found by name, started when first used, bounded in number, ended when idle.

Owns which session a run goes to and what a caller is told when variables were lost. How a session is isolated is
`sandbox.py`'s, how one runs is `session.py`'s.
"""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import anyio
from pydantic import Field

from memento_code.sandbox import Level, Limits, NoSandbox, Sandbox, find_sandbox
from memento_code.session import Outcome, Session, SessionLost
from memento_kit import StartupError

__all__ = ["Ran", "SessionName", "Sessions"]

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.1

SessionName = Annotated[
    str,
    Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$", description="Name of a session; variables live on in it"),
]


@dataclass(frozen=True)
class Ran:
    """One run: how it ended, and whether it began without the variables of earlier runs."""

    outcome: Outcome
    is_new: bool
    lost_before: str | None
    """Why an earlier session of this name is gone, when this run is the first to meet its successor."""


@dataclass
class _Named:
    session: Session | None = None
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
        max_sessions: int,
        idle_seconds: float,
        max_value_chars: int,
        output_bytes: int,
    ) -> None:
        self._limits = limits
        self._wanted: Level | None = wanted
        self._allow_none = allow_none
        self._python = python
        self._max_sessions = max_sessions
        self._idle_seconds = idle_seconds
        self._max_value_chars = max_value_chars
        self._output_bytes = output_bytes
        self._named: dict[str, _Named] = {}
        self._sandbox: Sandbox | None = None
        self._found = anyio.Event()

    async def look_after(self) -> None:
        """Find the level of isolation, then watch memory and idle time until cancelled.

        Raises:
            StartupError: no permitted level of isolation holds on this machine.
        """
        try:
            self._sandbox = await find_sandbox(
                self._limits, wanted=self._wanted, allow_none=self._allow_none, python=self._python
            )
        except NoSandbox as exc:
            raise StartupError(str(exc)) from exc
        if self._sandbox.level == "none":
            logger.warning("code runs WITHOUT isolation, as the settings allow")
        self._found.set()
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

    async def sandbox(self) -> Sandbox:
        """The sandbox in force; waits until it is known."""
        await self._found.wait()
        assert self._sandbox is not None
        return self._sandbox

    async def ask(self, name: str, request: dict[str, Any], *, timeout_seconds: float) -> Ran:
        """Send a request of `worker.py` to the session called `name`, which is started when there is none.

        Raises:
            SessionLost: no session could be started.
        """
        named = self._named.setdefault(name, _Named())
        async with named.lock:
            named.used_at = time.monotonic()
            session, is_new, lost_before = await self._session(name, named)
            outcome = await session.ask(request, timeout_seconds=timeout_seconds)
            named.used_at = time.monotonic()
            return Ran(outcome, is_new, lost_before)

    async def reset(self, name: str) -> bool:
        """End the session called `name`; False when there was none."""
        named = self._named.pop(name, None)
        if named is None or named.session is None or named.session.ended is not None:
            return False
        await named.session.end("it was reset")
        return True

    def names(self) -> list[str]:
        """The sessions alive, the last used first."""
        alive = [
            (named.used_at, name)
            for name, named in self._named.items()
            if named.session is not None and named.session.ended is None
        ]
        return [name for _, name in sorted(alive, reverse=True)]

    async def close(self) -> None:
        """End all sessions, side by side."""
        async with anyio.create_task_group() as ending:
            for named in self._named.values():
                if named.session is not None:
                    ending.start_soon(named.session.end, "the server stopped")

    async def _session(self, name: str, named: _Named) -> tuple[Session, bool, str | None]:
        if named.session is not None and named.session.ended is None:
            return named.session, False, None
        lost = named.session.ended if named.session is not None else named.lost
        named.session, named.lost = None, None
        await self._make_room(name)
        sandbox = await self.sandbox()
        named.session = await sandbox.start(max_value_chars=self._max_value_chars, output_bytes=self._output_bytes)
        return named.session, True, lost

    async def _make_room(self, name: str) -> None:
        """End the longest unused sessions until there is a place for one more.

        Raises:
            SessionLost: all of them are running code.
        """
        while len(alive := [other for other in self.names() if other != name]) >= self._max_sessions:
            idle = [other for other in alive if not self._is_running(other)]
            if not idle:
                raise SessionLost(f"all {self._max_sessions} sessions are busy; wait for one of them to end")
            session = self._named[idle[-1]].session
            assert session is not None
            await session.end(f"its place was needed: at most {self._max_sessions} sessions live at once")

    def _is_running(self, name: str) -> bool:
        session = self._named[name].session
        return session is not None and session.is_running
