"""Search and crawl alone, in an MCP client: a question is answered from pages served on loopback.

Everything but the open web is real: both servers as their console scripts over stdio, and a searx that asks a small
search engine over the very pages that crawl then reads. There is no model: the client searches, looks into each hit,
and searches again with what it found, since no page holds both halves of the answer.
"""

import json
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.abc
import pytest
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, TextContent

from support.loopback import LoopbackServer, answer
from support.searx import NEEDS_SEARX, searx

pytestmark = [pytest.mark.anyio, pytest.mark.slow, NEEDS_SEARX]

PAGES = {
    "/annapolis": (
        "Annapolis tidal station",
        "The Annapolis tidal station was opened in 1984. It made power from the water of the Bay of Fundy until 2019.",
    ),
    "/fundy": (
        "Bay of Fundy",
        "The Bay of Fundy lies between two provinces of Canada. The highest tide in the bay was 16.3 metres, measured "
        "at Burntcoat Head. Its mud flats feed sandpipers.",
    ),
    "/wadden": ("Wadden Sea", "The Wadden Sea is known for mud flats. The highest tide there is about 4 metres."),
    "/recipes": ("Tidal bakery", "Bread, annapolis rolls and buns. The station cafe opens at seven."),
}
FILLER = "<p>This part of the page is about something else, as pages are, and says so at some length.</p>" * 8


class Site(LoopbackServer):
    """Pages, and a search engine over them that also finds one address which nobody may read."""

    async def handle(self, stream: anyio.abc.ByteStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                try:
                    request += await stream.receive()
                except anyio.EndOfStream:
                    return
            self.requests.append(request.split()[1].decode())
            url = urlsplit(self.requests[-1])
            if url.path == "/good":
                found = self.search(parse_qs(url.query)["q"][0])
                await stream.send(answer(json.dumps({"results": found}).encode(), "Content-Type: application/json"))
            elif url.path in PAGES:
                title, text = PAGES[url.path]
                page = f"<html><title>{title}</title><body><h1>{title}</h1>{FILLER}<p>{text}</p>{FILLER}</body></html>"
                await stream.send(answer(page.encode(), "Content-Type: text/html; charset=utf-8"))
            else:
                await stream.send(answer(b"", status="404 Not Found"))

    def search(self, query: str) -> list[dict[str, str]]:
        wanted = set(re.findall(r"\w+", query.lower()))
        ranked = sorted(PAGES, key=lambda path: -len(wanted & set(re.findall(r"\w+", " ".join(PAGES[path]).lower()))))
        found = [
            {"title": PAGES[path][0], "url": f"{self.base}{path}", "content": PAGES[path][1][:60]} for path in ranked
        ]
        metadata = {"title": f"All about {query}", "url": "http://169.254.169.254/latest", "content": query}
        return [metadata, *found[:3]]


@asynccontextmanager
async def site() -> AsyncGenerator[Site]:
    server = Site()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        server.base = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.start_soon(listener.serve, server.handle)
        yield server
        tasks.cancel_scope.cancel()


def command(name: str, **environment: str) -> StdioServerParameters:
    return StdioServerParameters(command=str(Path(sys.executable).with_name(name)), env=environment)


def said(result: CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


async def research(search: Client, crawl: Client, question: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Search, then look into each page found: the passages that answer, each with its page, and what was refused."""
    hits = (await search.call_tool("web_search", {"query": question, "limit": 4})).structured_content
    assert hits is not None
    passages: list[dict[str, Any]] = []
    refused: list[str] = []
    for hit in hits["hits"]:
        result = await crawl.call_tool("find_in_page", {"url": hit["url"], "question": question})
        if result.is_error:
            refused.append(f"{hit['url']}: {said(result)}")
        else:
            found = dict(result.structured_content or {})
            passages += [{"url": found["url"], **passage} for passage in found["passages"]]
    return passages, refused


async def test_a_question_of_two_steps_is_answered_from_pages_on_loopback(tmp_path: Path) -> None:
    """In which bay stood the Annapolis tidal station, and how high was the highest tide there?"""
    home = str(tmp_path / "home")
    async with AsyncExitStack() as stack:
        pages = await stack.enter_async_context(site())
        base = await stack.enter_async_context(searx(tmp_path, pages.base))
        search = await stack.enter_async_context(
            Client(command("memento-search", MEMENTO_HOME=home, MEMENTO_SEARCH_SEARXNG_URL=base))
        )
        crawl = await stack.enter_async_context(
            Client(command("memento-crawl", MEMENTO_HOME=home, MEMENTO_CRAWL_ALLOW_PRIVATE=pages.host))
        )
        with anyio.fail_after(60):
            first, refused = await research(search, crawl, "Annapolis tidal station bay")
            bay = next(found[0] for each in first if (found := re.search(r"Bay of \w+", each["text"])))
            second, _ = await research(search, crawl, f"highest tide in the {bay}")
            source = next(each for each in second if re.search(r"[\d.]+ metres", each["text"]) and bay in each["text"])
            cited = await crawl.call_tool("read_page", {"url": source["url"], "offset": source["offset"]})
    assert bay == "Bay of Fundy"
    assert "16.3 metres" in source["text"]
    assert source["url"] == f"{pages.base}/fundy"
    assert source["text"] in dict(cited.structured_content or {})["text"]
    assert len(refused) == 1, refused
    assert refused[0].startswith("http://169.254.169.254")
    assert pages.requests.count("/annapolis") == 1, "a page is fetched once"
