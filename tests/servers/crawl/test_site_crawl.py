"""crawl_site through the server's client, over a small site on loopback."""

import gzip
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult, ResourceLink, TextContent, TextResourceContents

from memento_crawl.pages import Pages, PagesLimits
from memento_crawl.server import Settings, build_server
from memento_crawl.site_crawl import Plan, SiteCrawler, SiteLimits
from memento_kit.safe_http import AddressGuard, HttpLimits, SafeHttp
from support.loopback import LoopbackServer, answer, loopback_server

pytestmark = pytest.mark.anyio

PROSE = "The tide at Burntcoat Head rises by sixteen metres twice a day, and falls again. " * 4


def page(title: str, *links: str) -> bytes:
    anchors = "".join(f'<li><a href="{link}">to {link}</a></li>' for link in links)
    text = f"<html><head><title>{title}</title></head><body><p>{title}. {PROSE}</p><ul>{anchors}</ul></body></html>"
    return answer(text.encode(), "Content-Type: text/html")


@pytest.fixture
async def web() -> AsyncGenerator[LoopbackServer]:
    async with loopback_server() as server:
        server.answers |= {
            "/": page("Start", "/a", "/b", "/a#part", "http://elsewhere.test/x", "/logo.png"),
            "/a": page("A", "/a/deep", "/"),
            "/b": page("B", "/private/b"),
            "/a/deep": page("Deep", "/a/deeper"),
            "/listed": page("Listed"),
        }
        yield server


@asynccontextmanager
async def crawl(web: LoopbackServer, **settings: Any) -> AsyncGenerator[Client]:
    settings = {"allow_private": (web.host,), "pause_seconds": 0, **settings}
    async with Client(build_server(Settings(**settings))) as client:
        yield client


def site(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, said(result)
    assert result.structured_content is not None
    return result.structured_content


def said(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def asked(web: LoopbackServer) -> list[str]:
    return [request.split()[1] for request in web.requests]


def titles(result: CallToolResult) -> list[str]:
    return [found.get("title", found.get("problem")) for found in site(result)["pages"]]


async def test_links_and_sitemap_are_followed_near_pages_first_each_once(web: LoopbackServer) -> None:
    listing = f"<urlset><url><loc>{web.base}/listed</loc></url><url><loc>http://elsewhere.test/</loc></url></urlset>"
    web.answers["/sitemap.xml"] = answer(listing.encode(), "Content-Type: application/xml")
    async with crawl(web) as client:
        result = await client.call_tool("crawl_site", {"url": f"{web.base}/", "depth": 2, "limit": 50})
    assert titles(result)[:4] == ["Start", "A", "B", "Listed"]
    assert "Deep" in titles(result)
    assert asked(web)[:2] == ["/robots.txt", "/sitemap.xml"]
    pages_asked = asked(web)[2:]
    assert len(pages_asked) == len(set(pages_asked))
    assert not {"/logo.png", "/a/deeper"} & set(pages_asked)
    assert site(result)["waiting"] == 0


async def test_sitemaps_in_gzip_files_are_read_and_broken_or_huge_ones_list_what_they_can(web: LoopbackServer) -> None:
    listing = f"<urlset><url><loc>{web.base}/listed</loc></url></urlset>"
    names = {
        "good": gzip.compress(listing.encode()),
        "broken": b"\x1f\x8bnothing",
        "cut": gzip.compress(b"<urlset>")[:9],
    }
    names["huge"] = gzip.compress(b" " * 60_000_000 + listing.replace("listed", "too-late").encode())
    for name, body in names.items():
        web.answers[f"/{name}.xml.gz"] = answer(body, "Content-Type: application/x-gzip")
    index = "".join(f"<sitemap><loc>{web.base}/{name}.xml.gz</loc></sitemap>" for name in names)
    web.answers["/sitemap.xml"] = answer(f"<sitemapindex>{index}</sitemapindex>".encode(), "Content-Type: text/xml")
    async with crawl(web) as client:
        found = site(await client.call_tool("crawl_site", {"url": f"{web.base}/b", "depth": 1, "limit": 5}))
    assert f"{web.base}/listed" in [page["url"] for page in found["pages"]]
    assert "too-late" not in str(found)
    assert {f"/{name}.xml.gz" for name in names} <= set(asked(web))


async def test_each_page_is_a_resource_fenced_with_its_source(web: LoopbackServer) -> None:
    async with crawl(web) as client:
        result = await client.call_tool("crawl_site", {"url": f"{web.base}/", "limit": 2})
        links = [block for block in result.content if isinstance(block, ResourceLink)]
        read = (await client.read_resource(links[1].uri)).contents[0]
    assert len(links) == 2
    assert isinstance(read, TextResourceContents)
    assert PROSE.strip() in read.text
    assert read.text.startswith("<outside-text-")
    assert f'source="{web.base}/a"' in read.text


async def test_a_second_call_goes_on_after_a_restart_and_fetches_no_page_twice(web: LoopbackServer) -> None:
    arguments = {"url": f"{web.base}/", "depth": 2}
    async with crawl(web) as client:
        first = await client.call_tool("crawl_site", {**arguments, "limit": 2})
    async with crawl(web) as client:
        second = await client.call_tool("crawl_site", {**arguments, "limit": 3})
    assert titles(first) == ["Start", "A"]
    assert site(first)["waiting"] > 0
    assert titles(second) == ["Start", "A", "B"]
    assert [path for path in asked(web) if path not in ("/robots.txt", "/sitemap.xml")] == ["/", "/a", "/b"]


async def test_a_torn_record_loses_one_page_and_again_forgets_it_all(web: LoopbackServer, memento_home: Path) -> None:
    arguments = {"url": f"{web.base}/", "limit": 2}
    async with crawl(web) as client:
        await client.call_tool("crawl_site", arguments)
    (record,) = (memento_home / "crawls").iterdir()
    record.write_bytes(record.read_bytes()[:-40])
    async with crawl(web) as client:
        assert titles(await client.call_tool("crawl_site", arguments)) == ["Start", "A"]
        before = asked(web).count("/")
        await client.call_tool("crawl_site", {**arguments, "again": True})
    assert asked(web).count("/a") >= 2
    assert asked(web).count("/") >= before


async def test_robots_txt_is_obeyed_unless_the_operator_says_otherwise(web: LoopbackServer) -> None:
    web.answers["/robots.txt"] = answer(
        b"User-agent: *\nDisallow: /a\nDisallow: /private\n", "Content-Type: text/plain"
    )
    async with crawl(web) as client:
        obeyed = await client.call_tool("crawl_site", {"url": f"{web.base}/", "limit": 9})
        start = await client.call_tool("crawl_site", {"url": f"{web.base}/private/b"})
    assert titles(obeyed) == ["Start", "robots.txt does not allow it.", "B", "robots.txt does not allow it."]
    assert not {"/a", "/private/b"} & set(asked(web))
    assert start.is_error
    assert "robots.txt" in said(start)
    async with crawl(web, robots=False) as client:
        await client.call_tool("crawl_site", {"url": f"{web.base}/", "limit": 9, "again": True})
    assert "/a" in asked(web)


async def test_a_site_whose_robots_txt_is_out_of_order_is_left_alone(web: LoopbackServer) -> None:
    web.answers["/robots.txt"] = answer(b"", status="503 x")
    async with crawl(web) as client:
        result = await client.call_tool("crawl_site", {"url": f"{web.base}/"})
    assert result.is_error
    assert "HTTP 503" in said(result)
    assert asked(web) == ["/robots.txt"]


async def test_globs_bound_the_crawl(web: LoopbackServer) -> None:
    async with crawl(web) as client:
        arguments = {"url": f"{web.base}/", "limit": 9, "include": [f"{web.base}/a*"], "exclude": ["*deep"]}
        assert titles(await client.call_tool("crawl_site", arguments)) == ["Start", "A"]


async def test_a_page_that_fails_costs_itself_and_is_told(web: LoopbackServer) -> None:
    del web.answers["/a"]
    async with crawl(web) as client:
        result = await client.call_tool("crawl_site", {"url": f"{web.base}/", "limit": 9, "depth": 1})
    assert "HTTP 404" in titles(result)[1]
    assert titles(result)[2] == "B"


async def test_redirects_are_followed_within_the_site_and_end(web: LoopbackServer) -> None:
    web.answers["/"] = page("Start", "/old", "/out")
    web.answers["/old"] = answer(b"", "Location: /b", status="301 x")
    async with crawl(web) as client:
        result = await client.call_tool("crawl_site", {"url": f"{web.base}/", "limit": 9, "depth": 1})
    assert titles(result)[:2] == ["Start", "B"]
    assert asked(web).count("/old") == 1


async def test_the_pace_is_the_longer_of_the_operators_and_the_sites(web: LoopbackServer, tmp_path: Path) -> None:
    web.answers["/robots.txt"] = answer(b"User-agent: *\nCrawl-delay: 7\n")
    paused: list[float] = []
    told: list[tuple[int, int, str]] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    async def tell(done: int, total: int, what: str) -> None:
        told.append((done, total, what))

    limits = PagesLimits(HttpLimits(), 20, 1_500_000_000, 1, 60, 1_000_000, "en")
    pace = SiteLimits(pause_seconds=1, max_pause_seconds=10, total_seconds=60, ask_robots=True)
    async with SafeHttp(AddressGuard(allow_private=[web.host])) as http, Pages(http, limits) as pages:
        crawler = SiteCrawler(pages, http, tmp_path, pace, user_agent="test/1", pause=pause)
        await crawler.crawl(Plan(f"{web.base}/", 1), 3, again=False, tell=tell)
    assert paused == [7.0, 7.0]
    assert told == [(0, 3, f"{web.base}/"), (1, 3, f"{web.base}/a"), (2, 3, f"{web.base}/b")]


async def test_a_private_site_is_not_crawled(web: LoopbackServer) -> None:
    async with crawl(web, allow_private=()) as client:
        result = await client.call_tool("crawl_site", {"url": web.base})
    assert result.is_error
    assert web.requests == []
