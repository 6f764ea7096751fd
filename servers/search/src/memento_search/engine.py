"""What a web search engine is: a request made from a query, and hits read from the answer.

Owns the one interface of all engines, and what an HTTP status means for each of them alike. It merges nothing and
remembers nothing. Nothing said here quotes a URL that was sent: some engines take their key in it.

    EngineError           the message is for the model, and for the operator who reads over its shoulder
      ├─ EngineUnavailable   no answer, or a 5xx: may work in a moment
      ├─ EngineLimited       asked too often, or out of credit: may work later
      └─ EngineRefused       no (valid) key, or an answer that is not its format: will not work
"""

import email.utils
import html
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from memento_kit.safe_http import (
    AnswerRefused,
    HttpAnswer,
    HttpLimits,
    HttpTimedOut,
    HttpUnavailable,
    SafeHttp,
    SafeHttpError,
    UrlRefused,
)

__all__ = [
    "Call",
    "Engine",
    "EngineError",
    "EngineLimited",
    "EngineRefused",
    "EngineUnavailable",
    "Freshness",
    "Topic",
    "WebHit",
    "WebQuery",
    "plain",
]

Freshness = Literal["any", "day", "week", "month", "year"]
Topic = Literal["web", "news", "images"]
_MAX_OPERATORS = 5
"""Engines that take `site:` in the query cut long ones off."""
_TITLE_CHARS, _SNIPPET_CHARS, _DATE_CHARS, _URL_CHARS = 300, 1000, 40, 2000
"""An engine may say anything at any length; a model should not have to read it. A longer URL is dropped whole."""


class EngineError(Exception):
    """The engine gave no usable answer."""


class EngineUnavailable(EngineError):
    """No answer, or a 5xx: may work in a moment."""


class EngineLimited(EngineError):
    """Asked too often, or out of credit. `retry_after_seconds` is what the engine said, if it did."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class EngineRefused(EngineError):
    """No (valid) key, or an answer that is not its format."""


@dataclass(frozen=True)
class WebQuery:
    text: str
    limit: int
    topic: Topic = "web"
    freshness: Freshness = "any"
    since: date | None = None
    """The day that `freshness` means, for engines that take a date."""
    language: str | None = None
    """Two letters, ISO 639-1."""
    include_domains: tuple[str, ...] = ()
    exclude_domains: tuple[str, ...] = ()

    def with_operators(self) -> str:
        """The query with `site:` words, for engines that have no parameter for domains."""
        sites = " OR ".join(f"site:{domain}" for domain in self.include_domains[:_MAX_OPERATORS])
        without = " ".join(f"-site:{domain}" for domain in self.exclude_domains[:_MAX_OPERATORS])
        return " ".join(part for part in (self.text, sites, without) if part)


@dataclass(frozen=True)
class WebHit:
    title: str
    url: str
    snippet: str = ""
    published: str | None = None
    """As the engine says it: a date, or words like "3 days ago"."""
    image: str | None = None
    """Where the picture itself is, if pictures were asked for; `url` is then the page it stands on."""


@dataclass(frozen=True)
class Call:
    """One HTTP request. It is a POST if it has JSON."""

    url: str
    params: dict[str, str] = field(default_factory=dict[str, str])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    json: dict[str, Any] | None = None


class Engine(ABC):
    """One search service. Subclasses say what to send and how to read the answer, and nothing else."""

    name: ClassVar[str]
    family: ClassVar[str]
    """Whose index it is: engines of one family agree because they are one, so they count once when merged."""
    topics: ClassVar[frozenset[Topic]] = frozenset({"web"})
    """What it can be asked for."""
    takes_freshness: ClassVar[bool] = True
    min_interval_seconds: ClassVar[float] = 0.0
    """The service's own rule about how often it may be asked."""

    @abstractmethod
    def call(self, query: WebQuery) -> Call:
        """Return the request for `query`."""

    @abstractmethod
    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        """Read an answer; an empty list means nothing was found.

        Raises:
            EngineError: the answer says that something is wrong.
            ValueError, LookupError, TypeError, AttributeError, RecursionError: it is not the engine's format.
        """

    async def search(self, http: SafeHttp, query: WebQuery, limits: HttpLimits) -> list[WebHit]:
        """Ask the service once; at most `query.limit` hits, best first.

        Raises:
            EngineError: there is no usable answer.
        """
        call = self.call(query)
        method = "GET" if call.json is None else "POST"
        try:
            answer = await http.fetch(
                call.url, method=method, params=call.params, headers=call.headers, json=call.json, limits=limits
            )
        except SafeHttpError as exc:
            raise _without_url(exc) from None  # the cause quotes the URL, and with it perhaps a key
        self.check(answer)
        try:
            hits = [sound for hit in self.hits(answer.body, query) if (sound := _sound(hit, query)) is not None]
        # RecursionError: JSON nested a hundred thousand deep.
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
            raise EngineRefused("answered, but not in its format") from exc
        return hits[: query.limit]

    def check(self, answer: HttpAnswer) -> None:
        """Raise what an answer's status means.

        Raises:
            EngineError: the status is not 200.
        """
        status = answer.status
        if status == 200:
            return
        if status in (402, 429, 432, 433):  # 432 and 433 are Tavily's: plan and pay-as-you-go limit
            seconds = _retry_after(answer.headers.get("retry-after", ""))
            raise EngineLimited(f"refuses for now (HTTP {status}: too many requests, or no credit left)", seconds)
        if status in (401, 403):
            raise EngineRefused(f"refuses (HTTP {status}): the operator should check its key and settings")
        if status >= 500:
            raise EngineUnavailable(f"is out of order (HTTP {status})")
        raise EngineRefused(f"did not take the request (HTTP {status})")


def _without_url(exc: SafeHttpError) -> EngineError:
    if isinstance(exc, HttpTimedOut):
        return EngineUnavailable("did not answer in time")
    if isinstance(exc, HttpUnavailable):
        return EngineUnavailable("cannot be reached")
    if isinstance(exc, UrlRefused):
        return EngineRefused("is at an address that may not be reached; the operator should check its settings")
    assert isinstance(exc, AnswerRefused)
    return EngineRefused("sent an answer that is too large or broken")


def _retry_after(value: str) -> float | None:
    """Seconds from now, from a number or a date (RFC 9110 §10.2.3)."""
    if re.fullmatch("[0-9]{1,9}", value):
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
        return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def _sound(hit: WebHit, query: WebQuery) -> WebHit | None:
    """The hit with nothing in it too long or not valid Unicode, or `None` if it leads nowhere."""
    if not _is_web_address(hit.url) or len(hit.url) > _URL_CHARS:
        return None
    image = hit.image if hit.image and _is_web_address(hit.image) and len(hit.image) <= _URL_CHARS else None
    if query.topic == "images" and image is None:
        return None
    return WebHit(
        _valid(hit.title)[:_TITLE_CHARS],
        _valid(hit.url),
        _valid(hit.snippet)[:_SNIPPET_CHARS],
        _valid(str(hit.published))[:_DATE_CHARS] if hit.published else None,
        None if image is None else _valid(image),
    )


def _valid(text: str) -> str:
    """`text` without halves of surrogate pairs: JSON can hold them, UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


_TAGS = re.compile(r"<[^>]{0,500}>")


def plain(text: str | None) -> str:
    """Text without tags and entities, white space folded."""
    return " ".join(html.unescape(_TAGS.sub("", text or "")).split())
