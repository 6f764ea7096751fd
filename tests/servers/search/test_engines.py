"""Each engine: the request that goes out, and what is read from an answer in the shape its documentation shows."""

import json
from datetime import date
from typing import Any

import httpx2
import pytest

from memento_kit.safe_http import HttpLimits, SafeHttp
from memento_search.engine import (
    Engine,
    EngineError,
    EngineLimited,
    EngineRefused,
    EngineUnavailable,
    WebHit,
    WebQuery,
)
from memento_search.scholar_engines import Arxiv, Crossref, OpenAlex, SemanticScholar, Wikipedia
from memento_search.web_engines import Brave, DuckDuckGo, Exa, GoogleCse, Searxng, SerpApi, Serper, Tavily

pytestmark = pytest.mark.anyio

PLAIN = WebQuery("bay of fundy tides", 5)
FULL = WebQuery(
    "bay of fundy tides",
    5,
    freshness="week",
    since=date(2026, 11, 13),
    language="fr",
    include_domains=("a.test", "b.test"),
    exclude_domains=("c.test",),
)
OPERATORS = "bay of fundy tides site:a.test OR site:b.test -site:c.test"

ENGINES: list[Engine] = [
    Searxng("http://sx.test/base/"),
    Brave("K"),
    Tavily("K"),
    Serper("K"),
    SerpApi("K"),
    Exa("K"),
    GoogleCse("K", "CX"),
    DuckDuckGo(),
    Wikipedia(),
    Arxiv(),
    Crossref("me@x.test"),
    OpenAlex("K"),
    SemanticScholar("K"),
]


async def ask(engine: Engine, query: WebQuery, reply: httpx2.Response) -> tuple[httpx2.Request, list[WebHit]]:
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return reply

    async with SafeHttp(transport=httpx2.MockTransport(handle)) as http:
        hits = await engine.search(http, query, HttpLimits())
    return seen[0], hits


# What goes out: address, parameters or JSON, and the header that carries the key, for a plain and for a full query.
REQUESTS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, str]]] = {
    "searxng": (
        "GET http://sx.test/base/search",
        {"q": PLAIN.text, "format": "json"},
        {"q": OPERATORS, "format": "json", "time_range": "week", "language": "fr"},
        {},
    ),
    "brave": (
        "GET https://api.search.brave.com/res/v1/web/search",
        {"q": PLAIN.text, "count": "5"},
        {"q": OPERATORS, "count": "5", "freshness": "pw", "search_lang": "fr"},
        {"x-subscription-token": "K"},
    ),
    "tavily": (
        "POST https://api.tavily.com/search",
        {"query": PLAIN.text, "max_results": 5},
        {
            "query": PLAIN.text,
            "max_results": 5,
            "time_range": "week",
            "include_domains": ["a.test", "b.test"],
            "exclude_domains": ["c.test"],
        },
        {"authorization": "Bearer K"},
    ),
    "serper": (
        "POST https://google.serper.dev/search",
        {"q": PLAIN.text, "num": 5},
        {"q": OPERATORS, "num": 5, "tbs": "qdr:w", "hl": "fr"},
        {"x-api-key": "K"},
    ),
    "serpapi": (
        "GET https://serpapi.com/search.json",
        {"engine": "google", "q": PLAIN.text, "num": "5", "api_key": "K"},
        {"engine": "google", "q": OPERATORS, "num": "5", "tbs": "qdr:w", "hl": "fr", "api_key": "K"},
        {},
    ),
    "exa": (
        "POST https://api.exa.ai/search",
        {"query": PLAIN.text, "numResults": 5, "contents": {"highlights": True}},
        {
            "query": PLAIN.text,
            "numResults": 5,
            "contents": {"highlights": True},
            "startPublishedDate": "2026-11-13T00:00:00.000Z",
            "includeDomains": ["a.test", "b.test"],
            "excludeDomains": ["c.test"],
        },
        {"x-api-key": "K"},
    ),
    "google_cse": (
        "GET https://www.googleapis.com/customsearch/v1",
        {"key": "K", "cx": "CX", "q": PLAIN.text, "num": "5"},
        {"key": "K", "cx": "CX", "q": OPERATORS, "num": "5", "dateRestrict": "w1", "lr": "lang_fr"},
        {},
    ),
    "duckduckgo": (
        "GET https://html.duckduckgo.com/html/",
        {"q": PLAIN.text},
        {"q": OPERATORS, "df": "w"},
        {"accept": "text/html"},
    ),
    "wikipedia": (
        "GET https://{en|fr}.wikipedia.org/w/rest.php/v1/search/page",
        {"q": PLAIN.text, "limit": "5"},
        {"q": PLAIN.text, "limit": "5"},
        {},
    ),
    "arxiv": (
        "GET https://export.arxiv.org/api/query",
        {
            "search_query": 'all:"bay" AND all:"of" AND all:"fundy" AND all:"tides"',
            "start": "0",
            "max_results": "5",
            "sortBy": "relevance",
        },
        {
            "search_query": '(all:"bay" AND all:"of" AND all:"fundy" AND all:"tides")'
            " AND submittedDate:[202611130000 TO 299912312359]",
            "start": "0",
            "max_results": "5",
            "sortBy": "relevance",
        },
        {},
    ),
    "crossref": (
        "GET https://api.crossref.org/works",
        {"query": PLAIN.text, "rows": "5", "mailto": "me@x.test"},
        {"query": PLAIN.text, "rows": "5", "mailto": "me@x.test", "filter": "from-pub-date:2026-11-13"},
        {},
    ),
    "openalex": (
        "GET https://api.openalex.org/works",
        {"search": PLAIN.text, "per_page": "5", "api_key": "K"},
        {"search": PLAIN.text, "per_page": "5", "api_key": "K", "filter": "from_publication_date:2026-11-13"},
        {},
    ),
    "semantic_scholar": (
        "GET https://api.semanticscholar.org/graph/v1/paper/search",
        {"query": PLAIN.text, "limit": "5", "fields": "title,url,abstract,publicationDate"},
        {
            "query": PLAIN.text,
            "limit": "5",
            "fields": "title,url,abstract,publicationDate",
            "publicationDateOrYear": "2026-11-13:",
        },
        {"x-api-key": "K"},
    ),
}

DDG_PAGE = """<div class="result results_links"><h2><a rel="nofollow" class="result__a"
 href="//duckduckgo.com/l/?uddg=https%3A%2F%2Fa.test%2Fp%3Fx%3D1&amp;rut=abc">Tides of <b>Fundy</b> &amp; more</a></h2>
 <a class="result__snippet" href="#">The <b>highest</b> tides.</a></div>
 <div class="result--ad"><a class="result__a" href="https://duckduckgo.com/y.js?ad=1">Buy</a></div>"""
ATOM = """<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><entry><id>http://arxiv.org/abs/2101.1v1</id>
<title>Tides of
  Fundy</title><summary>The highest tides.</summary><published>2021-01-02T03:04:05Z</published></entry></feed>"""

# An answer in the documented shape, and what is read from it.
ANSWERS: dict[str, tuple[Any, WebHit]] = {
    "searxng": (
        {
            "results": [
                {
                    "title": "Tides",
                    "url": "https://a.test/",
                    "content": "The <b>highest</b>",
                    "publishedDate": "2024-01-02T00:00:00",
                }
            ],
            "unresponsive_engines": [["x", "timeout"]],
        },
        WebHit("Tides", "https://a.test/", "The highest", "2024-01-02T00:00:00"),
    ),
    "brave": (
        {
            "web": {
                "results": [
                    {
                        "title": "Tides",
                        "url": "https://a.test/",
                        "description": "The <strong>highest</strong> &amp; best",
                        "page_age": "2024-01-02T00:00:00",
                    }
                ]
            }
        },
        WebHit("Tides", "https://a.test/", "The highest & best", "2024-01-02T00:00:00"),
    ),
    "tavily": (
        {"results": [{"title": "Tides", "url": "https://a.test/", "content": "The highest", "score": 0.9}]},
        WebHit("Tides", "https://a.test/", "The highest"),
    ),
    "serper": (
        {
            "organic": [
                {
                    "title": "Tides",
                    "link": "https://a.test/",
                    "snippet": "The highest",
                    "date": "Jan 2, 2024",
                    "position": 1,
                }
            ]
        },
        WebHit("Tides", "https://a.test/", "The highest", "Jan 2, 2024"),
    ),
    "serpapi": (
        {"organic_results": [{"position": 1, "title": "Tides", "link": "https://a.test/", "snippet": "The highest"}]},
        WebHit("Tides", "https://a.test/", "The highest"),
    ),
    "exa": (
        {
            "results": [
                {
                    "title": "Tides",
                    "url": "https://a.test/",
                    "publishedDate": "2024-01-02T00:00:00.000Z",
                    "highlights": ["The highest", "of all"],
                }
            ]
        },
        WebHit("Tides", "https://a.test/", "The highest … of all", "2024-01-02T00:00:00.000Z"),
    ),
    "google_cse": (
        {"items": [{"title": "Tides", "link": "https://a.test/", "snippet": "The highest"}]},
        WebHit("Tides", "https://a.test/", "The highest"),
    ),
    "duckduckgo": (DDG_PAGE, WebHit("Tides of Fundy & more", "https://a.test/p?x=1", "The highest tides.")),
    "wikipedia": (
        {
            "pages": [
                {
                    "id": 1,
                    "key": "Bay_of_Fundy_(Canada)",
                    "title": "Bay of Fundy",
                    "excerpt": 'The <span class="searchmatch">highest</span>',
                    "description": "bay in Canada",
                }
            ]
        },
        WebHit("Bay of Fundy", "https://en.wikipedia.org/wiki/Bay_of_Fundy_(Canada)", "bay in Canada. The highest"),
    ),
    "arxiv": (ATOM, WebHit("Tides of Fundy", "https://arxiv.org/abs/2101.1v1", "The highest tides.", "2021-01-02")),
    "crossref": (
        {
            "message": {
                "items": [
                    {
                        "DOI": "10.1/x",
                        "URL": "https://doi.org/10.1/x",
                        "title": ["Tides"],
                        "abstract": "<jats:p>The highest</jats:p>",
                        "issued": {"date-parts": [[2024, 1, 2]]},
                    }
                ]
            }
        },
        WebHit("Tides", "https://doi.org/10.1/x", "The highest", "2024-01-02"),
    ),
    "openalex": (
        {
            "results": [
                {
                    "id": "https://openalex.org/W1",
                    "doi": "https://doi.org/10.1/x",
                    "title": "Tides",
                    "publication_date": "2024-01-02",
                    "abstract_inverted_index": {"highest": [1], "The": [0, 2]},
                }
            ]
        },
        WebHit("Tides", "https://doi.org/10.1/x", "The highest The", "2024-01-02"),
    ),
    "semantic_scholar": (
        {
            "total": 1,
            "data": [{"title": "Tides", "url": "https://s.test/1", "abstract": None, "publicationDate": None}],
        },
        WebHit("Tides", "https://s.test/1"),
    ),
}
NOTHING: dict[str, Any] = {
    "searxng": {"results": []},
    "brave": {},
    "tavily": {"results": []},
    "serper": {"organic": []},
    "serpapi": {"error": "Google hasn't returned any results for this query."},
    "exa": {"results": []},
    "google_cse": {"searchInformation": {"totalResults": "0"}},
    "duckduckgo": '<div class="no-results">No results.</div>',
    "wikipedia": {"pages": []},
    "arxiv": '<feed xmlns="http://www.w3.org/2005/Atom"></feed>',
    "crossref": {"message": {"items": []}},
    "openalex": {"results": []},
    "semantic_scholar": {"total": 0, "data": []},
}


def body(answer: Any) -> bytes:
    return answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("query", [PLAIN, FULL], ids=["plain", "full"])
async def test_the_request_that_goes_out(engine: Engine, query: WebQuery) -> None:
    where, plain_query, full_query, headers = REQUESTS[engine.name]
    request, _ = await ask(engine, query, httpx2.Response(200, content=body(NOTHING[engine.name])))
    where = where.replace("{en|fr}", query.language or "en")
    assert f"{request.method} {request.url.copy_with(query=None)}" == where
    sent = json.loads(request.content) if request.method == "POST" else dict(request.url.params)
    assert sent == (full_query if query is FULL else plain_query)
    assert {name: request.headers.get(name) for name in headers} == headers


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
async def test_hits_are_read_from_the_documented_shape(engine: Engine) -> None:
    answer, hit = ANSWERS[engine.name]
    _, hits = await ask(engine, PLAIN, httpx2.Response(200, content=body(answer)))
    assert hits == [hit]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
async def test_nothing_found_is_an_empty_list(engine: Engine) -> None:
    _, hits = await ask(engine, PLAIN, httpx2.Response(200, content=body(NOTHING[engine.name])))
    assert hits == []


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize(
    "garbage", [b"", b"<html>captcha</html>", b"[1]", b"null", b'{"results": 7, "message": 1, "data": "x"}']
)
async def test_an_answer_in_another_format_is_an_error_or_nothing_and_never_a_crash(
    engine: Engine, garbage: bytes
) -> None:
    try:
        _, hits = await ask(engine, PLAIN, httpx2.Response(200, content=garbage))
    except EngineError:
        return
    assert hits == []
    assert garbage.startswith(b"{")


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (401, {}, EngineRefused),
        (403, {}, EngineRefused),
        (400, {}, EngineRefused),
        (402, {}, EngineLimited),
        (429, {"retry-after": "7"}, EngineLimited),
        (432, {}, EngineLimited),
        (500, {}, EngineUnavailable),
        (503, {}, EngineUnavailable),
    ],
)
async def test_a_status_means_the_same_for_every_engine(
    engine: Engine, status: int, headers: dict[str, str], error: type[EngineError]
) -> None:
    with pytest.raises(error) as raised:
        await ask(engine, PLAIN, httpx2.Response(status, headers=headers, content=b"{}"))
    if headers:
        assert isinstance(raised.value, EngineLimited)
        assert raised.value.retry_after_seconds == 7


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
async def test_no_failure_quotes_the_key(engine: Engine) -> None:
    """SerpAPI, Google and OpenAlex take the key in the URL, which HTTP errors like to quote."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError(f"cannot reach {request.url}")

    async with SafeHttp(transport=httpx2.MockTransport(handle)) as http:
        with pytest.raises(EngineUnavailable) as raised:
            await engine.search(http, PLAIN, HttpLimits())
    assert "http" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


async def test_searxng_without_any_engine_of_its_own_is_no_answer() -> None:
    """It says HTTP 200 and no results when all it asked failed (guides/web.md §1.4)."""
    answer = {"results": [], "unresponsive_engines": [["google", "access denied"], ["bing", "timeout"]]}
    with pytest.raises(EngineLimited, match="google: access denied; bing: timeout"):
        await ask(Searxng("http://sx.test"), PLAIN, httpx2.Response(200, content=body(answer)))


async def test_searxng_with_its_json_off_names_the_setting() -> None:
    """Off is its default, and the commonest question about it (mcp-searxng #27, #57)."""
    with pytest.raises(EngineRefused, match=r"search\.formats"):
        await ask(Searxng("http://sx.test"), PLAIN, httpx2.Response(403, content=b"<html>"))


async def test_duckduckgo_asking_for_a_person_is_a_limit() -> None:
    with pytest.raises(EngineLimited):
        await ask(DuckDuckGo(), PLAIN, httpx2.Response(202, content=b"<html>"))


async def test_a_hit_that_is_no_web_address_is_dropped() -> None:
    urls = ["javascript:alert(1)", "file:///etc/passwd", "http://[bad", "https://a.test:99999/", "https://ok.test/"]
    answer = {"results": [{"title": "t", "url": url, "content": ""} for url in urls]}
    _, hits = await ask(Searxng("http://sx.test"), PLAIN, httpx2.Response(200, content=body(answer)))
    assert [hit.url for hit in hits] == ["https://ok.test/"]
