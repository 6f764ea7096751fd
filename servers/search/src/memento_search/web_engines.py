"""Engines that search the web at large. Each class names where its interface is described.

With a key: Brave, Serper, SerpAPI, Exa, Google. Without: a SearXNG of one's own, Tavily (less often than with one), and
DuckDuckGo.
"""

import json
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

from memento_kit.safe_http import HttpAnswer
from memento_search.engine import Call, Engine, EngineLimited, EngineRefused, WebHit, WebQuery, plain

__all__ = ["Brave", "DuckDuckGo", "Exa", "GoogleCse", "Searxng", "SerpApi", "Serper", "Tavily"]

_LETTER = {"day": "d", "week": "w", "month": "m", "year": "y"}


def _drop_empty(params: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in params.items() if value}


class Searxng(Engine):
    """https://docs.searxng.org/dev/search_api.html, and what it really answers: guides/web.md §1.4."""

    name = "searxng"
    family = "searxng"
    topics = frozenset({"web", "news", "images"})

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")

    def call(self, query: WebQuery) -> Call:
        params = {
            "q": query.with_operators(),
            "format": "json",
            "categories": None if query.topic == "web" else query.topic,
            "time_range": None if query.freshness == "any" else query.freshness,
            "language": query.language,
        }
        return Call(f"{self._base_url}/search", _drop_empty(params))

    def check(self, answer: HttpAnswer) -> None:
        if answer.status == 403:  # its JSON is off by default
            raise EngineRefused(
                "refuses (HTTP 403): the operator has to add `json` to search.formats in its settings.yml"
            )
        super().check(answer)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        page: dict[str, Any] = json.loads(body)
        hits = [
            WebHit(
                plain(hit["title"]),
                hit["url"],
                plain(hit.get("content")),
                hit.get("publishedDate"),
                hit.get("img_src") if query.topic == "images" else None,
            )
            for hit in page["results"]
        ]
        failed = [": ".join(map(str, engine)) for engine in page.get("unresponsive_engines", [])]
        # HTTP 200 and no results is what it says when nobody answered *it*; and since it then leaves its engines alone
        # for a while, the next answer is as empty and no longer says why. So it is not asked again right away.
        if failed and not hits:
            told = re.sub(r"[^\w .:;/-]", "", "; ".join(failed))[:300]  # its words, in a message that is ours
            raise EngineLimited(f"got no answer from its own engines ({told})")
        return hits


class Brave(Engine):
    """https://api-dashboard.search.brave.com/app/documentation/web-search/get-started"""

    name = "brave"
    family = "brave"
    topics = frozenset({"web", "news", "images"})
    min_interval_seconds = 1.0

    def __init__(self, key: str) -> None:
        self._key = key

    def call(self, query: WebQuery) -> Call:
        params = {
            "q": query.with_operators(),
            "count": str(min(query.limit, 20)),
            "freshness": None if query.freshness == "any" else f"p{_LETTER[query.freshness]}",
            "search_lang": query.language,
        }
        headers = {"x-subscription-token": self._key, "accept": "application/json"}
        return Call(f"https://api.search.brave.com/res/v1/{query.topic}/search", _drop_empty(params), headers)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        answer = json.loads(body)
        found = answer.get("web", {}).get("results", []) if query.topic == "web" else answer["results"]
        return [
            WebHit(
                plain(hit["title"]),
                hit["url"],
                plain(hit.get("description")),
                hit.get("page_age"),
                hit.get("properties", {}).get("url"),
            )
            for hit in found
        ]


class Tavily(Engine):
    """https://docs.tavily.com/documentation/api-reference/endpoint/search, without a key …/documentation/keyless"""

    name = "tavily"
    family = "tavily"
    topics = frozenset({"web", "news"})

    def __init__(self, key: str | None = None) -> None:
        self._key = key

    def call(self, query: WebQuery) -> Call:
        body: dict[str, Any] = {"query": query.text, "max_results": min(query.limit, 20)}
        if query.topic == "news":
            body["topic"] = "news"
        if query.freshness != "any":
            body["time_range"] = query.freshness
        if query.include_domains:
            body["include_domains"] = list(query.include_domains)
        if query.exclude_domains:
            body["exclude_domains"] = list(query.exclude_domains)
        access = {"authorization": f"Bearer {self._key}"} if self._key else {"x-tavily-access-mode": "keyless"}
        return Call("https://api.tavily.com/search", headers=access, json=body)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        return [
            WebHit(plain(hit["title"]), hit["url"], plain(hit.get("content")), hit.get("published_date"))
            for hit in json.loads(body)["results"]
        ]


class Serper(Engine):
    """https://serper.dev (Google's results); fields as its clients read them."""

    name = "serper"
    family = "google"
    topics = frozenset({"web", "news", "images"})

    def __init__(self, key: str) -> None:
        self._key = key

    def call(self, query: WebQuery) -> Call:
        body: dict[str, Any] = {"q": query.with_operators(), "num": query.limit}
        if query.freshness != "any":
            body["tbs"] = f"qdr:{_LETTER[query.freshness]}"
        if query.language:
            body["hl"] = query.language
        path = "search" if query.topic == "web" else query.topic
        return Call(f"https://google.serper.dev/{path}", headers={"x-api-key": self._key}, json=body)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        name = "organic" if query.topic == "web" else query.topic
        return [
            WebHit(
                plain(hit["title"]),
                hit["link"],
                plain(hit.get("snippet")),
                hit.get("date"),
                hit.get("imageUrl") if query.topic == "images" else None,
            )
            for hit in json.loads(body).get(name, [])
        ]


class SerpApi(Engine):
    """https://serpapi.com/search-api (Google's results)"""

    name = "serpapi"
    family = "google"
    topics = frozenset({"web", "news", "images"})

    def __init__(self, key: str) -> None:
        self._key = key

    def call(self, query: WebQuery) -> Call:
        params = {
            "engine": "google_images" if query.topic == "images" else "google",
            "tbm": "nws" if query.topic == "news" else None,
            "q": query.with_operators(),
            "num": None if query.topic == "images" else str(query.limit),
            "tbs": None if query.freshness == "any" else f"qdr:{_LETTER[query.freshness]}",
            "hl": query.language,
            "api_key": self._key,
        }
        return Call("https://serpapi.com/search.json", _drop_empty(params))

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        name = {"web": "organic_results", "news": "news_results", "images": "images_results"}[query.topic]
        return [
            WebHit(plain(hit["title"]), hit["link"], plain(hit.get("snippet")), hit.get("date"), hit.get("original"))
            for hit in json.loads(body).get(name, [])
        ]


class Exa(Engine):
    """https://docs.exa.ai/reference/search"""

    name = "exa"
    family = "exa"
    topics = frozenset({"web", "news"})

    def __init__(self, key: str) -> None:
        self._key = key

    def call(self, query: WebQuery) -> Call:
        body: dict[str, Any] = {
            "query": query.text,
            "numResults": query.limit,
            "contents": {"highlights": True},
        }
        if query.topic == "news":
            body["category"] = "news"
        if query.since is not None:
            body["startPublishedDate"] = f"{query.since.isoformat()}T00:00:00.000Z"
        if query.include_domains:
            body["includeDomains"] = list(query.include_domains)
        if query.exclude_domains:
            body["excludeDomains"] = list(query.exclude_domains)
        return Call("https://api.exa.ai/search", headers={"x-api-key": self._key}, json=body)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        return [
            WebHit(
                plain(hit.get("title")) or hit["url"],
                hit["url"],
                plain(" … ".join(hit.get("highlights") or []) or hit.get("text")),
                hit.get("publishedDate"),
            )
            for hit in json.loads(body)["results"]
        ]


class GoogleCse(Engine):
    """https://developers.google.com/custom-search/v1/reference/rest/v1/cse/list; closed to new customers."""

    name = "google_cse"
    family = "google"
    topics = frozenset({"web", "images"})

    def __init__(self, key: str, engine_id: str) -> None:
        self._key, self._engine_id = key, engine_id

    def call(self, query: WebQuery) -> Call:
        params = {
            "key": self._key,
            "cx": self._engine_id,
            "q": query.with_operators(),
            "searchType": "image" if query.topic == "images" else None,
            "num": str(min(query.limit, 10)),
            "dateRestrict": None if query.freshness == "any" else f"{_LETTER[query.freshness]}1",
            "lr": f"lang_{query.language}" if query.language else None,
        }
        return Call("https://www.googleapis.com/customsearch/v1", _drop_empty(params))

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        items = json.loads(body).get("items", [])
        if query.topic == "images":
            return [
                WebHit(plain(hit["title"]), hit["image"]["contextLink"], plain(hit.get("snippet")), image=hit["link"])
                for hit in items
            ]
        return [WebHit(plain(hit["title"]), hit["link"], plain(hit.get("snippet"))) for hit in items]


class DuckDuckGo(Engine):
    """The page at html.duckduckgo.com, which has no description: its class names are all there is to go by."""

    name = "duckduckgo"
    family = "bing"
    min_interval_seconds = 1.0

    def call(self, query: WebQuery) -> Call:
        params = {
            "q": query.with_operators(),
            "df": None if query.freshness == "any" else _LETTER[query.freshness],
        }
        headers = {"accept": "text/html", "accept-language": query.language or "en"}
        return Call("https://html.duckduckgo.com/html/", _drop_empty(params), headers)

    def check(self, answer: HttpAnswer) -> None:
        if answer.status == 202:  # a page that asks whether you are human
            raise EngineLimited("wants to see a person (HTTP 202): it was asked too often from here")
        super().check(answer)

    def hits(self, body: bytes, query: WebQuery) -> list[WebHit]:
        page = _DuckDuckGoPage()
        page.feed(body.decode("utf-8", errors="replace"))
        page.close()
        if not page.found and not page.says_no_results:
            raise EngineLimited(
                "answered with a page that holds no results; it may have been asked too often from here"
            )
        return [
            WebHit(" ".join(title.split()), url, " ".join(snippet.split()))
            for title, url, snippet in page.found
            if "duckduckgo.com/y.js" not in url  # an advertisement
        ]


class _DuckDuckGoPage(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, str, str]] = []
        self.says_no_results = False
        self._into: str | None = None
        self._title = self._url = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        classes = (attributes.get("class") or "").split()
        if "no-results" in classes:
            self.says_no_results = True
        if tag == "a" and "result__a" in classes:
            self._into = "title"
            self.found.append(("", _destination(attributes.get("href") or ""), ""))
        elif "result__snippet" in classes and self.found:
            self._into = "snippet"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("a", "div"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            title, url, snippet = self.found[-1]
            self.found[-1] = (title + data, url, snippet) if self._into == "title" else (title, url, snippet + data)


def _destination(href: str) -> str:
    """Where a result leads: its link goes through a redirect that holds the target."""
    target = parse_qs(urlsplit(href).query).get("uddg")
    return target[0] if target else urljoin("https://duckduckgo.com/", href)
