"""Several ranked lists of hits as one: the same page once, best first.

Owns when two URLs are one page and how lists are weighed against each other and the query. It asks nobody.

Lists are merged by reciprocal rank, sum of 1/(k + rank), with k = 1 and each index family counted once: of the
rules measured in guides/web.md §1.3 the best for two to four lists of ten (page MRR@10 .926 against .827 for the
usual k = 60; with clones of a weak index .894 against .780).
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from memento_kit.question import plain_words
from memento_search.engine import WebHit

__all__ = ["MergedHit", "canonical_url", "is_in_domains", "merge"]

_RANK_CONSTANT = 1
"""k; ranks count from 1."""
_RELEVANCE_WEIGHT = 0.5
"""How much the query's words count beside the engines' ranks, which go from 0 to 1. Not tuned: no labelled data."""
_TITLE_WEIGHT = 2
_TRACKING = re.compile(r"utm_\w+|gclid|fbclid|msclkid|mc_[ce]id|igshid|ref|ref_src|si", re.IGNORECASE)
_HOST_PREFIX = re.compile(r"^(?:www|m|mobile|amp)\.")


@dataclass(frozen=True)
class MergedHit:
    id: str
    """The same page has the same id in every search."""
    title: str
    url: str
    snippet: str
    published: str | None
    image: str | None
    engines: list[str]
    """Who found it, best rank first."""
    score: float


def canonical_url(url: str) -> str:
    """Return what two spellings of one page's address have in common. It is a key, not an address to fetch."""
    parts = urlsplit(url)
    host = _HOST_PREFIX.sub("", (parts.hostname or "").rstrip("."))
    port = f":{parts.port}" if parts.port and parts.port not in (80, 443) else ""
    query = urlencode(sorted((k, v) for k, v in parse_qsl(parts.query, True) if not _TRACKING.fullmatch(k)))
    path = parts.path.rstrip("/").removesuffix("/amp") or "/"
    fragment = f"#{parts.fragment}" if parts.fragment.startswith("!") else ""
    return f"{host}{port}{path}{'?' + query if query else ''}{fragment}"


def is_in_domains(url: str, domains: Sequence[str]) -> bool:
    """Whether the URL's host is one of `domains` or a subdomain of one."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def merge(query: str, lists: Mapping[tuple[str, str], Sequence[WebHit]]) -> list[MergedHit]:
    """Merge hits, which are keyed by (engine, index family) and best first, into one list, best first."""
    found: dict[str, list[tuple[int, str, str, WebHit]]] = {}
    for (engine, family), hits in lists.items():
        for rank, hit in enumerate(hits, 1):
            # One page may show many pictures: what was asked for is the picture.
            found.setdefault(canonical_url(hit.image or hit.url), []).append((rank, engine, family, hit))
    if not found:
        return []
    by_rank = {key: _reciprocal_rank(places) for key, places in found.items()}
    best = max(by_rank.values())
    relevance = _relevance(query, {key: [place[3] for place in places] for key, places in found.items()})
    merged = [
        _merged(
            key, sorted(places, key=lambda place: place[0]), by_rank[key] / best + _RELEVANCE_WEIGHT * relevance[key]
        )
        for key, places in found.items()
    ]
    return sorted(merged, key=lambda hit: -hit.score)


def _reciprocal_rank(places: Sequence[tuple[int, str, str, WebHit]]) -> float:
    best: dict[str, int] = {}
    for rank, _, family, _ in places:
        best[family] = min(rank, best.get(family, rank))
    return sum(1 / (_RANK_CONSTANT + rank) for rank in best.values())


def _relevance(query: str, hits: Mapping[str, Sequence[WebHit]]) -> dict[str, float]:
    """The share of the query's words in title and snippet, rare ones (among these hits) weighing more; 0 to 1."""
    wanted = plain_words(query)
    titles = {key: {word for hit in of_page for word in plain_words(hit.title)} for key, of_page in hits.items()}
    texts = {key: {word for hit in of_page for word in plain_words(hit.snippet)} for key, of_page in hits.items()}
    weights = {
        word: math.log(1 + len(hits) / (1 + sum(word in titles[key] or word in texts[key] for key in hits)))
        for word in wanted
    }
    whole = _TITLE_WEIGHT * sum(weights.values())
    if not whole:
        return dict.fromkeys(hits, 0.0)
    return {
        key: sum(
            weight * (_TITLE_WEIGHT if word in titles[key] else 1 if word in texts[key] else 0)
            for word, weight in weights.items()
        )
        / whole
        for key in hits
    }


def _merged(key: str, places: Sequence[tuple[int, str, str, WebHit]], score: float) -> MergedHit:
    hits = [place[3] for place in places]
    return MergedHit(
        id=hashlib.sha256(key.encode()).hexdigest()[:10],
        title=hits[0].title,
        url=next((hit.url for hit in hits if hit.url.startswith("https://")), hits[0].url),
        snippet=max((hit.snippet for hit in hits), key=len),
        published=next((hit.published for hit in hits if hit.published), None),
        image=hits[0].image,
        engines=list(dict.fromkeys(place[1] for place in places)),
        score=round(score, 4),
    )
