"""web_search through its client: several engines, only the wire replaced."""

import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import SecretStr

from memento_kit import StartupError, unfence
from memento_kit.safe_http import HttpLimits, SafeHttp
from memento_search.engine import WebQuery
from memento_search.scholar_engines import Crossref
from memento_search.server import Settings, build_server
from memento_search.web_cache import WebCache
from memento_search.web_search import WebLimits, WebSearch, WebSearchFailed
from support.loopback import answer, loopback_server

pytestmark = pytest.mark.anyio

SEARXNG, BRAVE, WIKIPEDIA = "sx.test", "api.search.brave.com", "en.wikipedia.org"

Reply = httpx2.Response | Callable[[httpx2.Request], httpx2.Response]


class Web:
    """Stands where the network is: answers by host, and notes what was asked."""

    def __init__(self, **replies: Reply) -> None:
        self.seen: list[httpx2.Request] = []
        self.replies: dict[str, Reply] = {name.replace("_", "."): reply for name, reply in replies.items()}

    def __setitem__(self, host: str, reply: Reply) -> None:
        self.replies[host] = reply

    def asked(self) -> Counter[str]:
        return Counter(request.url.host for request in self.seen)

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        reply = self.replies[request.url.host]
        if callable(reply):
            return reply(request)
        return httpx2.Response(reply.status_code, headers=reply.headers, content=reply.content)


def searxng(*hits: tuple[str, str], failed: list[list[str]] | None = None) -> httpx2.Response:
    results = [{"title": title, "url": url, "content": f"about {title}"} for title, url in hits]
    return httpx2.Response(200, content=json.dumps({"results": results, "unresponsive_engines": failed or []}))


def brave(*hits: tuple[str, str]) -> httpx2.Response:
    results = [{"title": title, "url": url, "description": "d", "page_age": "2024-01-02"} for title, url in hits]
    return httpx2.Response(200, content=json.dumps({"web": {"results": results}}))


@pytest.fixture
def web() -> Web:
    network = Web()
    network[SEARXNG] = searxng(("Tides of Fundy", "https://a.test/fundy"), ("Other", "https://b.test/"))
    network[BRAVE] = brave(("Fundy tides", "https://www.a.test/fundy?utm_source=x"), ("Third", "https://c.test/"))
    return network


@asynccontextmanager
async def search(web: Web, **settings: Any) -> AsyncGenerator[Client]:
    given: dict[str, Any] = {
        "searxng_url": f"http://{SEARXNG}",
        "brave_key": SecretStr("K"),
        "web_retry_seconds": 0,
        **settings,
    }
    async with Client(build_server(Settings(**given), transport=httpx2.MockTransport(web.handle))) as client:
        yield client


def said(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


async def ask(client: Client, query: str = "fundy tides", **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool("web_search", {"query": query, **arguments})
    assert not result.is_error, said(result)
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, **arguments: Any) -> str:
    result = await client.call_tool("web_search", {"query": "fundy tides", **arguments})
    assert result.is_error
    return said(result)


async def test_engines_are_asked_side_by_side_and_a_page_that_both_found_comes_first_and_once(web: Web) -> None:
    async with search(web) as client:
        result = await ask(client)
    first = result["hits"][0]
    assert (first["title"], sorted(first["engines"])) == ("Tides of Fundy", ["brave", "searxng"])
    assert first["published"] == "2024-01-02"
    assert re.fullmatch("[0-9a-f]{10}", first["id"])
    assert len({hit["url"] for hit in result["hits"]}) == 3
    assert result["engines"] == [
        {"name": "searxng", "status": "ok", "hits": 2},
        {"name": "brave", "status": "ok", "hits": 2},
    ]


async def test_titles_and_snippets_are_fenced(web: Web) -> None:
    async with search(web) as client:
        note, _, fenced = said(await client.call_tool("web_search", {"query": "fundy tides"})).partition("\n")
    assert note == "3 hits."
    assert unfence(fenced).startswith("1. Tides of Fundy\nhttps://a.test/fundy · 2024-01-02 · ")


async def test_one_engine_that_fails_spoils_nothing_and_is_named_with_its_reason(web: Web) -> None:
    web[BRAVE] = httpx2.Response(401)
    async with search(web) as client:
        result = await ask(client)
        note = said(await client.call_tool("web_search", {"query": "fundy tides"})).partition("\n")[0]
    assert [hit["title"] for hit in result["hits"]] == ["Tides of Fundy", "Other"]
    assert result["engines"][1]["status"] == "failed"
    assert "HTTP 401" in result["engines"][1]["problem"]
    assert "brave refuses (HTTP 401)" in note


async def test_no_engine_that_answers_is_an_error_that_names_each_and_the_way_without_a_network(web: Web) -> None:
    web[SEARXNG] = searxng(failed=[["google", "timeout"]])
    web[BRAVE] = httpx2.Response(503)
    async with search(web) as client:
        told = await refused(client)
    assert "searxng got no answer from its own engines (google: timeout)" in told
    assert "brave is out of order (HTTP 503)" in told
    assert "search_files" in told


async def test_nothing_found_is_an_answer_and_not_an_error(web: Web) -> None:
    web[SEARXNG], web[BRAVE] = searxng(), brave()
    async with search(web) as client:
        result = await ask(client)
    assert result["hits"] == []
    assert [engine["status"] for engine in result["engines"]] == ["nothing", "nothing"]


async def test_an_engine_without_an_answer_is_asked_a_second_time(web: Web) -> None:
    replies = iter([httpx2.Response(503), brave(("Late", "https://late.test/"))])
    web[BRAVE] = lambda _: next(replies)
    async with search(web, searxng_url=None, web_max_wait_seconds=5) as client:
        assert [hit["title"] for hit in (await ask(client))["hits"]] == ["Late"]
    assert web.asked() == {BRAVE: 2}


async def test_an_engine_that_refuses_is_not_asked_a_second_time(web: Web) -> None:
    web[SEARXNG] = httpx2.Response(403)
    async with search(web) as client:
        await ask(client)
    assert web.asked()[SEARXNG] == 1


async def test_an_engine_that_asks_for_a_pause_gets_it(web: Web) -> None:
    web[SEARXNG] = httpx2.Response(429, headers={"retry-after": "600"})
    async with search(web) as client:
        await ask(client, "one")
        result = await ask(client, "two")
    assert web.asked()[SEARXNG] == 1
    assert result["engines"][0]["status"] == "limited"
    assert "is left alone for 600 s" in result["engines"][0]["problem"] or "599 s" in result["engines"][0]["problem"]


async def test_nothing_found_while_an_engine_failed_is_an_answer_that_holds_for_a_minute_only(web: Web) -> None:
    web[SEARXNG] = httpx2.Response(400)
    async with search(web, brave_key=None, engines=("searxng", "crossref")) as client:
        web["api.crossref.org"] = httpx2.Response(200, content=b'{"message": {"items": []}}')
        doubtful = await client.call_tool("web_search", {"query": "tides"})
    async with search(web, brave_key=None, engines=("crossref",)) as client:
        certain = await client.call_tool("web_search", {"query": "fundy"})
    assert [(result.meta or {}).get("ttlMs") for result in (doubtful, certain)] == [60_000, None]


async def test_an_engine_that_keeps_failing_is_left_alone(web: Web) -> None:
    web[SEARXNG] = httpx2.Response(400)
    async with search(web, brave_key=None, engines=("searxng", "crossref")) as client:
        web["api.crossref.org"] = httpx2.Response(200, content=b'{"message": {"items": []}}')
        for number in range(5):
            await ask(client, f"query {number}")
    assert web.asked()[SEARXNG] == 3


async def test_an_engine_that_rested_is_tried_once_and_by_one_search_alone(tmp_path: Path) -> None:
    now = 1000.0
    asked: list[httpx2.Request] = []
    replies: list[httpx2.Response] = [httpx2.Response(400)] * 3
    waiting, go_on = anyio.Event(), anyio.Event()

    async def crossref(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        if len(asked) == 4:
            waiting.set()
            await go_on.wait()
        return replies.pop(0)

    async def reports(name: str) -> str:
        try:
            return str((await web_search.search(WebQuery(name, 5))).engines[0].status)
        except WebSearchFailed as exc:
            return f"{exc.engines[0].status}: {exc.engines[0].problem}"

    limits = WebLimits(HttpLimits(), max_wait_seconds=5, retry_seconds=0, patience_seconds=3, cache_seconds=0)
    async with SafeHttp(transport=httpx2.MockTransport(crossref)) as http:
        cache = WebCache(tmp_path / "cache.sqlite3")
        web_search = WebSearch([Crossref(None)], http, cache, limits, clock=lambda: now)
        for name in ("one", "two", "three"):
            assert (await reports(name)).startswith("failed")
        assert "left alone for 60 s" in await reports("four")
        now += 61
        replies = [httpx2.Response(503), httpx2.Response(200, content=b'{"message": {"items": []}}')]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reports, "five")
            await waiting.wait()
            assert "another search is finding out" in await reports("six")
            go_on.set()
        assert len(asked) == 4, "a trial is one request, though 503 is asked a second time otherwise"
        assert "left alone for 120 s" in await reports("seven")
        now += 121
        assert await reports("eight") == "nothing"


async def test_an_engine_is_not_asked_faster_than_it_allows(web: Web) -> None:
    """arXiv: one request in three seconds. The second search does not wait that long, so it goes without."""
    web["export.arxiv.org"] = httpx2.Response(200, content=b'<feed xmlns="http://www.w3.org/2005/Atom"></feed>')
    async with search(web, engines=("searxng", "arxiv"), web_max_wait_seconds=1) as client:
        await ask(client, "one")
        result = await ask(client, "two")
    assert web.asked()["export.arxiv.org"] == 1
    assert result["engines"][1]["status"] == "limited"


async def test_an_answer_is_kept_on_disk_and_the_next_server_has_it_too(web: Web) -> None:
    async with search(web) as client:
        first = await ask(client)
        again = await ask(client)
        assert (await ask(client, limit=3))["is_cached"] is False
    async with search(web) as client:
        later = await ask(client)
    assert (first["is_cached"], again["is_cached"], later["is_cached"]) == (False, True, True)
    assert first["hits"] == again["hits"] == later["hits"]
    assert web.asked()[SEARXNG] == 2


async def test_an_answer_with_a_failure_in_it_is_not_kept(web: Web) -> None:
    web[BRAVE] = httpx2.Response(401)
    async with search(web) as client:
        await ask(client)
        assert (await ask(client))["is_cached"] is False


async def test_the_same_search_several_times_at_once_asks_each_engine_once(web: Web) -> None:
    async with search(web) as client, anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask, client)
    assert web.asked() == {SEARXNG: 1, BRAVE: 1}


async def test_searches_at_once_share_a_failure_too(web: Web) -> None:
    """Nothing of it is kept, so each of them would else ask anew, one after another."""
    web[SEARXNG], web[BRAVE] = httpx2.Response(401), httpx2.Response(400)
    async with search(web) as client, anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(lambda: client.call_tool("web_search", {"query": "fundy tides"}))
    assert web.asked() == {SEARXNG: 1, BRAVE: 1}


async def test_when_the_search_that_others_wait_for_is_cancelled_one_of_them_asks(web: Web) -> None:
    came, forever = anyio.Event(), anyio.Event()

    async def handle(request: httpx2.Request) -> httpx2.Response:
        if not came.is_set():
            came.set()
            await forever.wait()
        return web.handle(request)

    found: list[int] = []
    server = build_server(Settings(searxng_url=f"http://{SEARXNG}"), transport=httpx2.MockTransport(handle))
    async with Client(server) as client, anyio.create_task_group() as tasks:

        async def wait_for_it() -> None:
            found.append(len((await ask(client))["hits"]))

        with anyio.CancelScope() as first:

            async def leave() -> None:
                await came.wait()
                tasks.start_soon(wait_for_it)
                first.cancel()

            tasks.start_soon(leave)
            await ask(client)
        assert first.cancelled_caught
    assert found == [2]


async def test_an_engine_that_stays_silent_is_not_waited_for_and_in_the_end_left_alone(web: Web) -> None:
    web["google.serper.dev"] = httpx2.Response(200, content=b'{"organic": [{"title": "t", "link": "https://b.test/"}]}')

    async def handle(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == SEARXNG:
            web.seen.append(request)
            await anyio.sleep_forever()
        return web.handle(request)

    settings = Settings(
        searxng_url=f"http://{SEARXNG}",
        serper_key=SecretStr("K"),
        web_patience_seconds=0.01,
        web_timeout_seconds=1000,
    )
    with anyio.fail_after(60):
        async with Client(build_server(settings, transport=httpx2.MockTransport(handle))) as client:
            results = [await ask(client, f"fundy {number}") for number in range(4)]
    assert all(len(result["hits"]) == 1 for result in results)
    assert [result["engines"][0]["status"] for result in results] == ["failed", "failed", "failed", "limited"]
    assert web.asked()[SEARXNG] == 3
    assert results[0]["engines"][0] == {
        "name": "searxng",
        "status": "failed",
        "hits": 0,
        "problem": "had no answer 0.01 s after the first one, and was not waited for",
    }


async def test_a_page_that_says_it_is_older_than_asked_for_is_left_out(web: Web) -> None:
    """Brave's hits in this file are of 2024; a date that is no date proves nothing."""
    hits = [{"title": "T", "url": f"https://{n}.test/", "publishedDate": d} for n, d in (("a", "2 days ago"), ("b", 7))]
    web[SEARXNG] = httpx2.Response(200, content=json.dumps({"results": hits}))
    async with search(web) as client:
        result = await ask(client, freshness="week")
    assert sorted(hit["url"] for hit in result["hits"]) == ["https://a.test/", "https://b.test/"]
    assert result["engines"][1] == {
        "name": "brave",
        "status": "nothing",
        "hits": 0,
        "problem": "2 hits not as asked left out",
    }


async def test_what_an_engine_says_is_bounded_and_valid_unicode_whatever_it_is(web: Web) -> None:
    endless = "x" * 100_000
    hits = [
        {"title": f"\ud800{endless}", "url": "https://a.test/", "content": endless, "publishedDate": endless},
        {"title": "t", "url": f"https://b.test/{endless}", "content": ""},
    ]
    web[SEARXNG] = httpx2.Response(200, content=json.dumps({"results": hits}))
    async with search(web, brave_key=None) as client:
        result = await client.call_tool("web_search", {"query": "fundy tides"})
    assert [hit["url"] for hit in dict(result.structured_content or {})["hits"]] == ["https://a.test/"]
    assert len(said(result)) < 2000
    said(result).encode()


@pytest.mark.parametrize("pause", ["²", "Wed, 25 Nov 2099 00:00:00 GMT", "soon", "99999999999999999999"])
async def test_a_strange_pause_is_a_pause(web: Web, pause: str) -> None:
    headers = [(b"retry-after", pause.encode("latin-1"))]
    web[SEARXNG] = httpx2.Response(429, headers=headers)
    async with search(web) as client:
        await ask(client, "one")
        assert (await ask(client, "two"))["engines"][0]["status"] == "limited"
    assert web.asked()[SEARXNG] == 1


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"results": [{"title": {"a": []}, "url": 5}]}', b"\xff\xfe"])
async def test_a_hostile_answer_is_that_engines_failure_alone(web: Web, body: bytes) -> None:
    web[SEARXNG] = httpx2.Response(200, content=body)
    async with search(web) as client:
        result = await ask(client)
    assert (result["engines"][0]["status"], len(result["hits"])) == ("failed", 2)


async def test_a_cache_that_cannot_be_written_costs_nothing_but_itself(web: Web, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    async with search(web, index_folder=tmp_path / "file") as client:
        assert len((await ask(client))["hits"]) == 3


async def test_only_pages_of_the_wanted_sites_come_back_whatever_an_engine_says(web: Web) -> None:
    async with search(web) as client:
        only = await ask(client, include_domains=["A.test"])
        without = await ask(client, exclude_domains=["a.test"])
    assert [hit["url"] for hit in only["hits"]] == ["https://a.test/fundy"]
    assert only["engines"][0]["problem"] == "1 hits not as asked left out"
    assert sorted(hit["url"] for hit in without["hits"]) == ["https://b.test/", "https://c.test/"]


async def test_freshness_goes_to_the_engines_and_those_that_cannot_tell_are_left_out(web: Web) -> None:
    async with search(web, engines=("searxng", "wikipedia")) as client:
        result = await ask(client, freshness="month", language="fr")
    (request,) = web.seen
    assert (request.url.params["time_range"], request.url.params["language"]) == ("month", "fr")
    assert [engine["status"] for engine in result["engines"]] == ["ok", "left_out"]


async def test_with_nothing_configured_the_engines_without_a_key_are_asked(web: Web) -> None:
    web["html.duckduckgo.com"] = httpx2.Response(202)
    web["api.tavily.com"] = httpx2.Response(432)
    web[WIKIPEDIA] = httpx2.Response(200, content=b'{"pages": [{"key": "Tide", "title": "Tide", "excerpt": ""}]}')
    async with search(web, searxng_url=None, brave_key=None, contact="me@x.test") as client:
        result = await ask(client)
    assert [hit["url"] for hit in result["hits"]] == ["https://en.wikipedia.org/wiki/Tide"]
    assert "me@x.test" in web.seen[-1].headers["user-agent"]
    assert "commons.wikimedia.org" not in web.asked()  # knows pictures only


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"engines": ("gogle",)}, "no engine named 'gogle'"),
        ({"engines": ("brave",)}, "MEMENTO_SEARCH_BRAVE_KEY"),
        ({"engines": ("google_cse",), "google_key": "K"}, "MEMENTO_SEARCH_GOOGLE_ENGINE_ID"),
    ],
)
def test_an_engine_that_cannot_be_asked_stops_the_server_at_its_start(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(StartupError, match=told):
        build_server(Settings(**settings))


def test_engines_come_from_the_environment_joined_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMENTO_SEARCH_ENGINES", "Wikipedia, arxiv")
    monkeypatch.setenv("MEMENTO_SEARCH_BRAVE_KEY", "secret")
    settings = Settings()
    assert settings.engines == ("wikipedia", "arxiv")
    assert "secret" not in repr(settings)


async def test_web_search_can_be_switched_off(web: Web) -> None:
    async with search(web, engines=("none",)) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search_files"]


async def test_the_searxng_of_the_operator_may_be_on_this_machine_and_nothing_else_there_may(web: Web) -> None:
    """The real transport: the address check is what this is about."""
    async with loopback_server() as server:
        page = json.dumps({"results": [{"title": "Local", "url": "https://a.test/", "content": ""}]}).encode()
        server.answers["/search?q=fundy+tides&format=json"] = answer(page)
        server.answers["/away?q=fundy+tides&format=json"] = answer(page)
        async with Client(build_server(Settings(searxng_url=server.base))) as client:
            assert [hit["title"] for hit in (await ask(client))["hits"]] == ["Local"]
        async with loopback_server() as other:
            server.answers["/search?q=two&format=json"] = answer(b"", f"Location: {other.base}/", status="302 Found")
            async with Client(build_server(Settings(searxng_url=server.base, web_retry_seconds=0))) as client:
                result = await client.call_tool("web_search", {"query": "two"})
            assert "may not be reached" in said(result)
            assert other.requests == []


async def test_a_bad_argument_is_stopped_before_any_request(web: Web) -> None:
    async with search(web) as client:
        for arguments in ({"query": ""}, {"limit": 21}, {"language": "en.evil.test/"}, {"include_domains": ["a b"]}):
            assert (await client.call_tool("web_search", {"query": "x", **arguments})).is_error
    assert web.seen == []


async def test_the_model_sees_exactly_these_arguments_and_no_host_or_key(web: Web) -> None:
    async with search(web) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    web_search = tools["web_search"]
    assert set(web_search.input_schema["properties"]) == {
        "query",
        "limit",
        "freshness",
        "language",
        "include_domains",
        "exclude_domains",
    }
    assert web_search.annotations == ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=True)
