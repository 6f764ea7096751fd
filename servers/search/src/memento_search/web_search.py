"""Searching the web: ask the operator's engines side by side, merge what they say, tell who failed and why.

Owns politeness and persistence: how often an engine may be asked, when it is asked again, when it is left alone for
a while, and what is kept. What an engine says is `engine`'s, how lists become one is `merging`'s.
"""

import hashlib
import json
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Literal

import anyio
from anyio import to_thread

from memento_kit.safe_http import HttpLimits, SafeHttp
from memento_search.engine import Engine, EngineError, EngineLimited, EngineUnavailable, WebHit, WebQuery
from memento_search.merging import MergedHit, is_in_domains, merge
from memento_search.web_cache import WebCache

__all__ = ["EngineReport", "WebAnswer", "WebLimits", "WebSearch", "WebSearchFailed", "since"]

logger = logging.getLogger(__name__)

_DAYS = {"day": 1, "week": 7, "month": 31, "year": 366}
_FAILURES_UNTIL_REST = 3
_FIRST_REST_SECONDS = 60.0
_LONGEST_REST_SECONDS = 900.0
_NOTHING_FOUND_SECONDS = 60.0
"""How long "nothing found" is believed."""
_RECENT_SECONDS = 600.0
"""How long an answer about recent things is kept."""


@dataclass(frozen=True)
class WebLimits:
    http: HttpLimits
    """For one request to one engine."""
    max_wait_seconds: float
    """An engine that may not be asked for longer than this is left out of the answer."""
    retry_seconds: float
    """Pause before the one second try."""
    patience_seconds: float
    """How much longer than the first engine with hits the others may take."""
    cache_seconds: float


@dataclass(frozen=True)
class EngineReport:
    """How one engine fared. `problem` is for people and models to read; absent when all went well."""

    name: str
    status: Literal["ok", "nothing", "failed", "limited", "left_out"]
    hits: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class WebAnswer:
    hits: list[MergedHit]
    engines: list[EngineReport]
    is_cached: bool = False


class WebSearchFailed(Exception):
    """No engine answered. `engines` says why, each for itself."""

    def __init__(self, engines: Sequence[EngineReport]) -> None:
        super().__init__("; ".join(f"{engine.name} {engine.problem}" for engine in engines))
        self.engines = list(engines)


def since(freshness: str, today: date) -> date | None:
    """The first day that counts as fresh, or `None` if any does."""
    return today - timedelta(days=_DAYS[freshness]) if freshness in _DAYS else None


@dataclass
class _Manners:
    """What is remembered about one engine between calls."""

    free_at: float = 0.0
    failures: int = 0
    resting_until: float = 0.0
    is_on_trial: bool = False
    """It rested, and one search asks it whether it is back; the others go without until that one knows."""
    turn: anyio.Lock = field(default_factory=anyio.Lock)


@dataclass
class _Flight:
    """Equal searches at the same time: one of them asks, the others take what it was told, failure included."""

    turn: anyio.Lock = field(default_factory=anyio.Lock)
    passengers: int = 0
    outcome: WebAnswer | WebSearchFailed | None = None


class WebSearch:
    """One for the life of the server, any number of searches at once. `clock` counts seconds from anywhere."""

    def __init__(
        self,
        engines: Sequence[Engine],
        http: SafeHttp,
        cache: WebCache,
        limits: WebLimits,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engines = list(engines)
        self._http = http
        self._cache = cache
        self._limits = limits
        self._clock = clock
        self._manners = {engine.name: _Manners() for engine in engines}
        self._in_flight: dict[str, _Flight] = {}

    async def search(self, query: WebQuery) -> WebAnswer:
        """Ask every engine that can serve the query.

        Raises:
            WebSearchFailed: none of them answered. "Nothing found" is an answer.
        """
        key = self._key(query)
        flight = self._in_flight.setdefault(key, _Flight())
        flight.passengers += 1
        try:
            async with flight.turn:
                if flight.outcome is None:  # nobody asked yet, or who did was cancelled
                    try:
                        flight.outcome = await self._kept(key) or await self._ask(key, query)
                    except WebSearchFailed as exc:
                        flight.outcome = exc
        finally:
            flight.passengers -= 1
            if not flight.passengers:
                self._in_flight.pop(key, None)
        if isinstance(flight.outcome, WebSearchFailed):
            raise WebSearchFailed(flight.outcome.engines)
        return flight.outcome

    async def _ask(self, key: str, query: WebQuery) -> WebAnswer:
        reports: dict[str, EngineReport] = {}
        lists: dict[tuple[str, str], list[WebHit]] = {}
        engines = [engine for engine in self._engines if query.topic in engine.topics]
        silent: set[str] = set()
        """Engines with a request out."""

        async def ask(engine: Engine) -> None:
            try:
                hits = await self._ask_one(engine, query, silent)
            except EngineError as exc:
                status = "limited" if isinstance(exc, EngineLimited) else "failed"
                reports[engine.name] = EngineReport(engine.name, status, problem=str(exc))
                return
            wanted = [hit for hit in hits if _is_wanted(hit, query)]
            lists[engine.name, engine.family] = wanted
            dropped = f"{len(hits) - len(wanted)} hits not as asked left out" if len(wanted) < len(hits) else None
            reports[engine.name] = EngineReport(engine.name, "ok" if wanted else "nothing", len(wanted), dropped)
            if wanted:  # there is something to show: the others are waited for, but not for long
                latest = anyio.current_time() + self._limits.patience_seconds
                tasks.cancel_scope.deadline = min(tasks.cancel_scope.deadline, latest)

        async with anyio.create_task_group() as tasks:
            for engine in engines:
                if query.freshness != "any" and not engine.takes_freshness:
                    problem = "cannot tell how recent a page is"
                    reports[engine.name] = EngineReport(engine.name, "left_out", problem=problem)
                else:
                    tasks.start_soon(ask, engine)
        for engine in engines:
            if engine.name not in reports:
                late = f"had no answer {self._limits.patience_seconds:g} s after the first one, and was not waited for"
                reports[engine.name] = EngineReport(engine.name, "failed", problem=late)
                if engine.name in silent:
                    self._note_failure(self._manners[engine.name], EngineUnavailable(late))
        in_order = [reports[engine.name] for engine in engines]
        if not lists:
            raise WebSearchFailed(in_order)
        ordered = {(e.name, e.family): lists[e.name, e.family] for e in engines if (e.name, e.family) in lists}
        answer = WebAnswer(merge(query.text, ordered)[: query.limit], in_order)
        if all(report.status in ("ok", "nothing", "left_out") for report in in_order):
            await self._keep(key, answer, query)
        return answer

    async def _ask_one(self, engine: Engine, query: WebQuery, silent: set[str]) -> list[WebHit]:
        """Ask in the engine's own pace, a second time if it was only unavailable; note in `silent` while it is out.

        An engine that rested after failures is asked once, and by one search alone (a half-open circuit breaker).
        """
        manners = self._manners[engine.name]
        if manners.failures < _FAILURES_UNTIL_REST:
            return await self._ask_with_patience(engine, query, silent, tries=2)
        self._check_rest(manners)
        if manners.is_on_trial:
            raise EngineLimited("failed several times, and another search is finding out whether it is back")
        manners.is_on_trial = True
        try:
            return await self._ask_with_patience(engine, query, silent, tries=1)
        finally:
            manners.is_on_trial = False

    async def _ask_with_patience(
        self, engine: Engine, query: WebQuery, silent: set[str], *, tries: int
    ) -> list[WebHit]:
        manners = self._manners[engine.name]
        for left in reversed(range(tries)):
            await self._wait_for_turn(engine, manners)
            silent.add(engine.name)
            try:
                hits = await engine.search(self._http, query, self._limits.http)
            except EngineError as exc:
                silent.discard(engine.name)
                if isinstance(exc, EngineUnavailable) and left:
                    # Jitter, so that several servers do not come back at the same moment.
                    await anyio.sleep(self._limits.retry_seconds * (0.5 + random.random()))
                    continue
                self._note_failure(manners, exc)
                raise
            silent.discard(engine.name)
            manners.failures = 0
            return hits
        raise AssertionError("the last try returns or raises")

    def _check_rest(self, manners: _Manners) -> None:
        resting = manners.resting_until - self._clock()
        if resting > 0:
            raise EngineLimited(
                f"failed several times or asked for a pause, and is left alone for {resting:.0f} s more"
            )

    async def _wait_for_turn(self, engine: Engine, manners: _Manners) -> None:
        self._check_rest(manners)
        async with manners.turn:
            wait = manners.free_at - self._clock()
            if wait > self._limits.max_wait_seconds:
                raise EngineLimited(f"may be asked again in {wait:.0f} s only")
            manners.free_at = max(manners.free_at, self._clock()) + engine.min_interval_seconds
        if wait > 0:
            await anyio.sleep(wait)

    def _note_failure(self, manners: _Manners, exc: EngineError) -> None:
        manners.failures += 1
        rest = 0.0
        if isinstance(exc, EngineLimited):
            rest = exc.retry_after_seconds or _FIRST_REST_SECONDS
        elif manners.failures >= _FAILURES_UNTIL_REST:
            rest = _FIRST_REST_SECONDS * 2 ** (manners.failures - _FAILURES_UNTIL_REST)
        manners.resting_until = self._clock() + min(rest, _LONGEST_REST_SECONDS)

    def _key(self, query: WebQuery) -> str:
        asked = {"query": asdict(query), "engines": [engine.name for engine in self._engines]}
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()

    async def _kept(self, key: str) -> WebAnswer | None:
        try:
            kept = await to_thread.run_sync(self._cache.get, key, self._clock())
        except (sqlite3.Error, OSError) as exc:  # a search without its cache is slower, and nothing worse
            logger.warning("the cache of web searches cannot be read: %s", exc)
            return None
        if kept is None:
            return None
        hits = [MergedHit(**hit) for hit in kept["hits"]]
        return WebAnswer(hits, [EngineReport(**report) for report in kept["engines"]], is_cached=True)

    async def _keep(self, key: str, answer: WebAnswer, query: WebQuery) -> None:
        seconds = self._limits.cache_seconds
        if query.freshness != "any" or query.topic == "news":
            seconds = min(seconds, _RECENT_SECONDS)
        if not answer.hits:
            seconds = min(seconds, _NOTHING_FOUND_SECONDS)
        value = {"hits": [asdict(hit) for hit in answer.hits], "engines": [asdict(report) for report in answer.engines]}
        try:
            await to_thread.run_sync(lambda: self._cache.put(key, value, now=self._clock(), seconds=seconds))
        except (sqlite3.Error, OSError) as exc:
            logger.warning("the cache of web searches cannot be written: %s", exc)


def _is_wanted(hit: WebHit, query: WebQuery) -> bool:
    """Engines do not always honour what they were told (guides/web.md §1.3: SearXNG, 10 of 10 from other domains)."""
    if query.since is not None and (day := _day(hit.published)) is not None and day < query.since - timedelta(days=1):
        return False
    if query.include_domains and not is_in_domains(hit.url, query.include_domains):
        return False
    return not is_in_domains(hit.url, query.exclude_domains)


def _day(published: str | None) -> date | None:
    """The day that a date begins with, or `None`: engines also say "3 days ago" or "2024"."""
    try:
        return date.fromisoformat((published or "")[:10])
    except ValueError:
        return None
