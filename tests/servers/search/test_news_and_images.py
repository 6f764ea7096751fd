"""search_news and search_images: the request each engine gets, what is read back, and the tools."""

import json
from datetime import date
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.types import TextContent
from pydantic import SecretStr

from memento_kit.safe_http import HttpLimits, SafeHttp
from memento_search.engine import Engine, EngineError, EngineRefused, Topic, WebHit, WebQuery
from memento_search.scholar_engines import Commons
from memento_search.server import Settings, build_server
from memento_search.web_engines import Brave, Exa, GoogleCse, Searxng, SerpApi, Serper, Tavily

pytestmark = pytest.mark.anyio

PICTURE = "https://i.test/x.jpg"
PAGE = "https://a.test/"

# Engine and topic: where the request goes, what it says, an answer in the documented shape, and what is read from it.
CASES: dict[tuple[str, Topic], tuple[Engine, str, dict[str, Any], Any, WebHit]] = {
    ("searxng", "news"): (
        Searxng("http://sx.test"),
        "GET http://sx.test/search",
        {"q": "tides", "format": "json", "categories": "news", "time_range": "week", "language": "fr"},
        {"results": [{"title": "T", "url": PAGE, "content": "c", "publishedDate": "2026-11-20", "img_src": PICTURE}]},
        WebHit("T", PAGE, "c", "2026-11-20"),
    ),
    ("searxng", "images"): (
        Searxng("http://sx.test"),
        "GET http://sx.test/search",
        {"q": "tides", "format": "json", "categories": "images", "language": "fr"},
        {"results": [{"title": "T", "url": PAGE, "content": "", "img_src": PICTURE, "thumbnail_src": "/t.jpg"}]},
        WebHit("T", PAGE, image=PICTURE),
    ),
    ("brave", "news"): (
        Brave("K"),
        "GET https://api.search.brave.com/res/v1/news/search",
        {"q": "tides", "count": "5", "freshness": "pw", "search_lang": "fr"},
        {
            "results": [{"title": "T", "url": PAGE, "description": "d", "page_age": "2026-11-20T01:00:00"}],
        },
        WebHit("T", PAGE, "d", "2026-11-20T01:00:00"),
    ),
    ("brave", "images"): (
        Brave("K"),
        "GET https://api.search.brave.com/res/v1/images/search",
        {"q": "tides", "count": "5", "search_lang": "fr"},
        {
            "results": [{"title": "T", "url": PAGE, "source": "a.test", "properties": {"url": PICTURE}}],
        },
        WebHit("T", PAGE, image=PICTURE),
    ),
    ("tavily", "news"): (
        Tavily(),
        "POST https://api.tavily.com/search",
        {"query": "tides", "max_results": 5, "topic": "news", "time_range": "week"},
        {"results": [{"title": "T", "url": PAGE, "content": "c", "published_date": "Fri, 20 Nov 2026 01:00:00 GMT"}]},
        WebHit("T", PAGE, "c", "Fri, 20 Nov 2026 01:00:00 GMT"),
    ),
    ("serper", "news"): (
        Serper("K"),
        "POST https://google.serper.dev/news",
        {"q": "tides", "num": 5, "tbs": "qdr:w", "hl": "fr"},
        {"news": [{"title": "T", "link": PAGE, "snippet": "s", "date": "2 days ago", "imageUrl": PICTURE}]},
        WebHit("T", PAGE, "s", "2 days ago"),
    ),
    ("serper", "images"): (
        Serper("K"),
        "POST https://google.serper.dev/images",
        {"q": "tides", "num": 5, "hl": "fr"},
        {"images": [{"title": "T", "link": PAGE, "imageUrl": PICTURE, "thumbnailUrl": "https://t.test/"}]},
        WebHit("T", PAGE, image=PICTURE),
    ),
    ("serpapi", "news"): (
        SerpApi("K"),
        "GET https://serpapi.com/search.json",
        {"engine": "google", "tbm": "nws", "q": "tides", "num": "5", "tbs": "qdr:w", "hl": "fr", "api_key": "K"},
        {"news_results": [{"title": "T", "link": PAGE, "snippet": "s", "date": "2 days ago"}]},
        WebHit("T", PAGE, "s", "2 days ago"),
    ),
    ("serpapi", "images"): (
        SerpApi("K"),
        "GET https://serpapi.com/search.json",
        {"engine": "google_images", "q": "tides", "hl": "fr", "api_key": "K"},
        {"images_results": [{"title": "T", "link": PAGE, "original": PICTURE, "thumbnail": "https://t.test/"}]},
        WebHit("T", PAGE, image=PICTURE),
    ),
    ("exa", "news"): (
        Exa("K"),
        "POST https://api.exa.ai/search",
        {
            "query": "tides",
            "numResults": 5,
            "contents": {"highlights": True},
            "category": "news",
            "startPublishedDate": "2026-11-18T00:00:00.000Z",
        },
        {"results": [{"title": "T", "url": PAGE, "publishedDate": "2026-11-20", "highlights": ["h"]}]},
        WebHit("T", PAGE, "h", "2026-11-20"),
    ),
    ("google_cse", "images"): (
        GoogleCse("K", "CX"),
        "GET https://www.googleapis.com/customsearch/v1",
        {
            "key": "K",
            "cx": "CX",
            "q": "tides",
            "searchType": "image",
            "num": "5",
            "lr": "lang_fr",
        },
        {"items": [{"title": "T", "link": PICTURE, "snippet": "s", "image": {"contextLink": PAGE}}]},
        WebHit("T", PAGE, "s", image=PICTURE),
    ),
    ("commons", "images"): (
        Commons(),
        "GET https://commons.wikimedia.org/w/api.php",
        {
            "action": "query",
            "format": "json",
            "formatversion": "2",
            "generator": "search",
            "gsrsearch": "tides filetype:bitmap|drawing",
            "gsrnamespace": "6",
            "gsrlimit": "5",
            "prop": "imageinfo",
            "iiprop": "url|timestamp|extmetadata",
            "iiextmetadatafilter": "ImageDescription",
        },
        {
            "query": {
                "pages": [
                    {
                        "title": "File:Low tide.v2.jpg",
                        "index": 1,
                        "imageinfo": [
                            {
                                "timestamp": "2019-05-01T00:00:00Z",
                                "url": PICTURE,
                                "descriptionurl": PAGE,
                                "extmetadata": {"ImageDescription": {"value": "<p>The <b>bay</b></p>"}},
                            }
                        ],
                    }
                ]
            }
        },
        WebHit("Low tide.v2", PAGE, "The bay", "2019-05-01", PICTURE),
    ),
}
EACH = pytest.mark.parametrize(("name", "topic"), CASES, ids="-".join)


def query(topic: Topic) -> WebQuery:
    """As the tools make it: search_images takes no freshness."""
    if topic == "images":
        return WebQuery("tides", 5, topic, language="fr")
    return WebQuery("tides", 5, topic, "week", date(2026, 11, 18), "fr")


@EACH
async def test_the_request_that_goes_out_and_the_hits_read_from_the_documented_shape(name: str, topic: Topic) -> None:
    engine, where, sent, reply, hit = CASES[name, topic]
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, content=json.dumps(reply))

    assert topic in engine.topics
    async with SafeHttp(transport=httpx2.MockTransport(handle)) as http:
        assert await engine.search(http, query(topic), HttpLimits()) == [hit]
    (request,) = seen
    assert f"{request.method} {request.url.copy_with(query=None)}" == where
    assert (json.loads(request.content) if request.method == "POST" else dict(request.url.params)) == sent


@EACH
@pytest.mark.parametrize(
    "garbage", [b"<html>", b"[1]", b'{"results": [{"title": 1}], "query": {"pages": [{"index": 1}]}, "news": [2]}']
)
async def test_an_answer_in_another_format_is_an_error_or_nothing_and_never_a_crash(
    name: str, topic: Topic, garbage: bytes
) -> None:
    engine = CASES[name, topic][0]
    async with SafeHttp(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, content=garbage))) as http:
        try:
            assert await engine.search(http, query(topic), HttpLimits()) == []
        except EngineError:
            return


async def test_every_topic_an_engine_claims_is_tested_here() -> None:
    claimed = {(engine.name, topic) for engine, *_ in CASES.values() for topic in engine.topics - {"web"}}
    assert claimed == set(CASES)


async def test_commons_without_hits_and_commons_refusing_are_told_apart() -> None:
    """It says HTTP 200 to both."""
    nothing, refusal = b'{"batchcomplete": true}', b'{"error": {"code": "badvalue", "info": "..."}}'
    for content, is_refusal in ((nothing, False), (refusal, True)):
        http_answer = httpx2.Response(200, content=content)
        async with SafeHttp(transport=httpx2.MockTransport(lambda _, it=http_answer: it)) as http:
            if is_refusal:
                with pytest.raises(EngineRefused):
                    await Commons().search(http, query("images"), HttpLimits())
            else:
                assert await Commons().search(http, query("images"), HttpLimits()) == []


async def test_tavily_without_a_key_says_so_in_its_documented_header() -> None:
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, content=b'{"results": []}')

    async with SafeHttp(transport=httpx2.MockTransport(handle)) as http:
        await Tavily().search(http, WebQuery("tides", 5), HttpLimits())
        await Tavily("K").search(http, WebQuery("tides", 5), HttpLimits())
    assert [(r.headers.get("x-tavily-access-mode"), r.headers.get("authorization")) for r in seen] == [
        ("keyless", None),
        (None, "Bearer K"),
    ]


async def test_pictures_of_one_page_are_several_hits_and_one_picture_on_two_pages_is_one() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        pictures = [("https://a.test/", f"https://i.test/{number}.jpg") for number in (1, 2)]
        if request.url.host != "sx.test":
            pictures = [("https://b.test/", "https://i.test/2.jpg"), ("https://b.test/", "javascript:x")]
        results = [{"title": "T", "url": page, "img_src": url, "properties": {"url": url}} for page, url in pictures]
        return httpx2.Response(200, content=json.dumps({"results": results}))

    settings = Settings(searxng_url="http://sx.test", brave_key=SecretStr("K"))
    async with Client(build_server(settings, transport=httpx2.MockTransport(handle))) as client:
        result = await client.call_tool("search_images", {"query": "tides"})
        found = dict(result.structured_content or {})["hits"]
    assert sorted((hit["image"], len(hit["engines"])) for hit in found) == [
        ("https://i.test/1.jpg", 1),
        ("https://i.test/2.jpg", 2),
    ]
    (block,) = result.content
    assert isinstance(block, TextContent)
    assert "picture: https://i.test/1.jpg" in block.text


@pytest.mark.parametrize(
    ("engines", "tools"),
    [
        (("wikipedia",), {"web_search"}),
        (("wikipedia", "tavily"), {"web_search", "search_news"}),
        (("commons",), {"search_images"}),
        (("auto",), {"web_search", "search_news", "search_images"}),
    ],
)
async def test_a_tool_is_there_if_an_engine_offers_it(engines: tuple[str, ...], tools: set[str]) -> None:
    async with Client(build_server(Settings(engines=engines))) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"search_files"} | tools


async def test_only_engines_that_know_the_topic_are_asked_and_named() -> None:
    hosts: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        hosts.append(request.url.host)
        return httpx2.Response(200, content=b'{"results": []}')

    server = build_server(Settings(engines=("wikipedia", "tavily")), transport=httpx2.MockTransport(handle))
    async with Client(server) as client:
        result = await client.call_tool("search_news", {"query": "tides"})
    assert hosts == ["api.tavily.com"]
    assert dict(result.structured_content or {})["engines"] == [{"name": "tavily", "status": "nothing", "hits": 0}]
