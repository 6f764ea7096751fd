"""Which engines are asked: what the operator named, or what the keys and addresses given allow.

Owns the names of the engines and what each of them needs. It asks none of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from memento_kit import StartupError
from memento_search.engine import Engine
from memento_search.scholar_engines import Arxiv, Commons, Crossref, OpenAlex, SemanticScholar, Wikipedia
from memento_search.web_engines import Brave, DuckDuckGo, Exa, GoogleCse, Searxng, SerpApi, Serper, Tavily

__all__ = ["Access", "choose_engines"]

_WITHOUT_A_KEY = ("tavily", "duckduckgo", "wikipedia", "commons")
"""Asked when nothing is configured. The scholarly ones are named by those who want them: they know little else."""


@dataclass(frozen=True)
class Access:
    """What the operator gave: keys and addresses. `None` is what was not given."""

    searxng_url: str | None = None
    brave_key: str | None = None
    tavily_key: str | None = None
    serper_key: str | None = None
    serpapi_key: str | None = None
    exa_key: str | None = None
    google_key: str | None = None
    google_engine_id: str | None = None
    openalex_key: str | None = None
    semantic_scholar_key: str | None = None
    contact: str | None = None
    wikipedia_language: str = "en"


def choose_engines(names: tuple[str, ...], access: Access) -> list[Engine]:
    """Return the engines in the order they were named; `auto` stands for all that a key or address was given for.

    Raises:
        StartupError: there is no such engine, or it was named without what it needs.
    """
    chosen: dict[str, Engine] = {}
    for name in names:
        if name == "auto":
            ready = [each for each, make in _NEEDS_ACCESS.items() if make(access) is not None]
            ready += ["tavily"] if access.tavily_key else []
            ready = ready or _WITHOUT_A_KEY
            chosen |= {each: _engine(each, access) for each in ready if each not in chosen}
        elif name not in chosen:
            chosen[name] = _engine(name, access)
    return list(chosen.values())


def _engine(name: str, access: Access) -> Engine:
    if name in _FREE:
        return _FREE[name](access)
    if name not in _NEEDS_ACCESS:
        known = ", ".join(["auto", *_NEEDS_ACCESS, *_FREE])
        raise StartupError(f"MEMENTO_SEARCH_ENGINES: there is no engine named {name!r}; there are: {known}")
    engine = _NEEDS_ACCESS[name](access)
    if engine is None:
        raise StartupError(f"MEMENTO_SEARCH_ENGINES names {name!r}, which needs {_VARIABLES[name]}")
    return engine


_NEEDS_ACCESS: dict[str, Callable[[Access], Engine | None]] = {
    "searxng": lambda access: Searxng(access.searxng_url) if access.searxng_url else None,
    "brave": lambda access: Brave(access.brave_key) if access.brave_key else None,
    "serper": lambda access: Serper(access.serper_key) if access.serper_key else None,
    "serpapi": lambda access: SerpApi(access.serpapi_key) if access.serpapi_key else None,
    "exa": lambda access: Exa(access.exa_key) if access.exa_key else None,
    "google_cse": lambda access: (
        GoogleCse(access.google_key, access.google_engine_id) if access.google_key and access.google_engine_id else None
    ),
}
_VARIABLES = {
    "searxng": "MEMENTO_SEARCH_SEARXNG_URL",
    "brave": "MEMENTO_SEARCH_BRAVE_KEY",
    "serper": "MEMENTO_SEARCH_SERPER_KEY",
    "serpapi": "MEMENTO_SEARCH_SERPAPI_KEY",
    "exa": "MEMENTO_SEARCH_EXA_KEY",
    "google_cse": "MEMENTO_SEARCH_GOOGLE_KEY and MEMENTO_SEARCH_GOOGLE_ENGINE_ID",
}
_FREE: dict[str, Callable[[Access], Engine]] = {
    "tavily": lambda access: Tavily(access.tavily_key),
    "duckduckgo": lambda _: DuckDuckGo(),
    "wikipedia": lambda access: Wikipedia(access.wikipedia_language),
    "commons": lambda _: Commons(),
    "arxiv": lambda _: Arxiv(),
    "crossref": lambda access: Crossref(access.contact),
    "openalex": lambda access: OpenAlex(access.openalex_key),
    "semantic_scholar": lambda access: SemanticScholar(access.semantic_scholar_key),
}
