"""Engines over reference works, free pictures and scholarly literature; none needs a key, some give more with one.

Each class names where its interface is described, and the service's own rule about how often to ask.
"""

import json
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from memento_search.engine import Call, Engine, EngineRefused, WebHit, WebQuery, plain

__all__ = ["Arxiv", "Commons", "Crossref", "OpenAlex", "SemanticScholar", "Wikipedia"]

_SNIPPET_CHARS = 600


class Wikipedia(Engine):
    """https://www.mediawiki.org/wiki/API:REST_API/Reference#Search_pages"""

    name = "wikipedia"
    family = "wikipedia"
    takes_freshness = False

    def __init__(self, language: str = "en") -> None:
        self._language = language

    def call(self, query: WebQuery) -> Call:
        params = {"q": query.text, "limit": str(query.limit)}
        return Call(f"{self._host(query)}/w/rest.php/v1/search/page", params)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        return [
            WebHit(
                page["title"],
                f"{self._host(query)}/wiki/{quote(page['key'], safe=':/(),')}",
                ". ".join(filter(None, [plain(page.get("description")), plain(page.get("excerpt"))])),
            )
            for page in json.loads(body)["pages"]
        ]

    def _host(self, query: WebQuery) -> str:
        return f"https://{query.language or self._language}.wikipedia.org"


class Commons(Engine):
    """https://www.mediawiki.org/wiki/API:Search and …/API:Imageinfo, of Wikimedia Commons: free pictures."""

    name = "commons"
    family = "commons"
    topics = frozenset({"images"})
    takes_freshness = False

    def call(self, query: WebQuery) -> Call:
        params = {
            "action": "query",
            "format": "json",
            "formatversion": "2",
            "generator": "search",
            "gsrsearch": f"{query.text} filetype:bitmap|drawing",
            "gsrnamespace": "6",  # files
            "gsrlimit": str(query.limit),
            "prop": "imageinfo",
            "iiprop": "url|timestamp|extmetadata",
            "iiextmetadatafilter": "ImageDescription",
        }
        return Call("https://commons.wikimedia.org/w/api.php", params)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        answer = json.loads(body)
        if "error" in answer:  # with HTTP 200
            raise EngineRefused("did not take the request")
        pages: list[dict[str, Any]] = sorted(answer.get("query", {}).get("pages", []), key=lambda page: page["index"])
        hits: list[WebHit] = []
        for page in pages:
            (file,) = page["imageinfo"]
            described = plain(file.get("extmetadata", {}).get("ImageDescription", {}).get("value"))
            title = page["title"].partition(":")[2].rpartition(".")[0]
            hits.append(
                WebHit(
                    title,
                    file["descriptionurl"],
                    described,
                    file["timestamp"][:10],
                    file["url"],
                )
            )
        return hits


class Arxiv(Engine):
    """https://info.arxiv.org/help/api/user-manual.html; one request every three seconds."""

    name = "arxiv"
    family = "arxiv"
    min_interval_seconds = 3.0
    _ATOM = "{http://www.w3.org/2005/Atom}"

    def call(self, query: WebQuery) -> Call:
        words = " AND ".join(f'all:"{word}"' for word in query.text.replace('"', " ").split())
        if query.since is not None:
            words = f"({words}) AND submittedDate:[{query.since:%Y%m%d}0000 TO 299912312359]"
        params = {"search_query": words, "start": "0", "max_results": str(query.limit), "sortBy": "relevance"}
        return Call("https://export.arxiv.org/api/query", params)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        try:
            feed = ElementTree.fromstring(body)
        except ElementTree.ParseError as exc:
            raise ValueError("not an Atom feed") from exc
        if feed.tag != f"{self._ATOM}feed":
            raise ValueError("not an Atom feed")
        return [
            WebHit(
                plain(entry.findtext(f"{self._ATOM}title")),
                (entry.findtext(f"{self._ATOM}id") or "").replace("http://", "https://", 1),
                plain(entry.findtext(f"{self._ATOM}summary"))[:_SNIPPET_CHARS],
                (entry.findtext(f"{self._ATOM}published") or "")[:10] or None,
            )
            for entry in feed.iter(f"{self._ATOM}entry")
        ]


class Crossref(Engine):
    """https://www.crossref.org/documentation/retrieve-metadata/rest-api/; with an address in the faster pool."""

    name = "crossref"
    family = "crossref"

    def __init__(self, contact: str | None = None) -> None:
        self._contact = contact

    def call(self, query: WebQuery) -> Call:
        params = {"query": query.text, "rows": str(query.limit)}
        if query.since is not None:
            params["filter"] = f"from-pub-date:{query.since.isoformat()}"
        if self._contact:
            params["mailto"] = self._contact
        return Call("https://api.crossref.org/works", params)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        return [
            WebHit(
                plain(" ".join(item.get("title") or [])) or item["DOI"],
                item.get("URL") or f"https://doi.org/{quote(item['DOI'])}",
                _citation(item),
                _date(item.get("issued", {}).get("date-parts", [[]])[0]),
            )
            for item in json.loads(body)["message"]["items"]
        ]


class OpenAlex(Engine):
    """https://developers.openalex.org; a key is needed for more than a few requests."""

    name = "openalex"
    family = "openalex"

    def __init__(self, key: str | None = None) -> None:
        self._key = key

    def call(self, query: WebQuery) -> Call:
        params = {"search": query.text, "per_page": str(query.limit)}
        if query.since is not None:
            params["filter"] = f"from_publication_date:{query.since.isoformat()}"
        if self._key:
            params["api_key"] = self._key
        return Call("https://api.openalex.org/works", params)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        return [
            WebHit(
                plain(work.get("title") or work.get("display_name")) or work["id"],
                work.get("doi") or work["id"],
                _abstract(work.get("abstract_inverted_index"))[:_SNIPPET_CHARS],
                work.get("publication_date"),
            )
            for work in json.loads(body)["results"]
        ]


class SemanticScholar(Engine):
    """https://api.semanticscholar.org/api-docs/graph#tag/Paper-Data/operation/get_graph_paper_relevance_search"""

    name = "semantic_scholar"
    family = "semantic_scholar"
    min_interval_seconds = 1.0

    def __init__(self, key: str | None = None) -> None:
        self._key = key

    def call(self, query: WebQuery) -> Call:
        params = {"query": query.text, "limit": str(query.limit), "fields": "title,url,abstract,publicationDate"}
        if query.since is not None:
            params["publicationDateOrYear"] = f"{query.since.isoformat()}:"
        headers = {"x-api-key": self._key} if self._key else {}
        return Call("https://api.semanticscholar.org/graph/v1/paper/search", params, headers)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        return [
            WebHit(
                plain(paper["title"]),
                paper["url"],
                plain(paper.get("abstract"))[:_SNIPPET_CHARS],
                paper.get("publicationDate"),
            )
            for paper in json.loads(body).get("data", [])
        ]


def _citation(item: dict[str, Any]) -> str:
    """The abstract, or else who wrote it and where it appeared."""
    if item.get("abstract"):
        return plain(item["abstract"])[:_SNIPPET_CHARS]
    authors = [" ".join(filter(None, [who.get("given"), who.get("family")])) for who in item.get("author", [])[:4]]
    return plain(". ".join(filter(None, [", ".join(authors), " ".join(item.get("container-title") or [])])))


def _date(parts: list[int | None]) -> str | None:
    known = [part for part in parts if part]
    return "-".join(f"{part:02}" for part in known) or None


def _abstract(positions: dict[str, list[int]] | None) -> str:
    """OpenAlex gives each word with the places where it stands."""
    words = sorted((at, word) for word, places in (positions or {}).items() for at in places)
    return " ".join(word for _, word in words)
