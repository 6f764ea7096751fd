"""web_search against a real searx (Debian's python3-searx), whose own engines ask a server on loopback.

SearXNG's answers are its own: what it says when its engines fail is nothing a mock should make up.
Install with `apt-get install --no-install-recommends python3-searx`; without it these tests are skipped.
"""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.abc
import pytest
from mcp import Client
from mcp.types import TextContent

from memento_search.server import Settings, build_server
from support.loopback import LoopbackServer, answer
from support.searx import NEEDS_SEARX, searx

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    NEEDS_SEARX,
]


class Upstream(LoopbackServer):
    """What searx's engines ask: three hits for any query, and notes of the requests."""

    async def handle(self, stream: anyio.abc.ByteStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive()
            self.requests.append(request.decode())
            url = urlsplit(request.split()[1].decode())
            query = parse_qs(url.query).get("q", [""])[0]
            hits = [
                {"title": f"{query} {number}", "url": f"https://h{number}.test/", "content": "text"}
                for number in range(3)
            ]
            await stream.send(answer(json.dumps({"results": hits}).encode(), "Content-Type: application/json"))


@asynccontextmanager
async def upstream() -> AsyncGenerator[Upstream]:
    server = Upstream()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        server.base = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.start_soon(listener.serve, server.handle)
        yield server
        tasks.cancel_scope.cancel()


async def ask(client: Client, query: str, tool: str = "web_search") -> tuple[bool, dict[str, Any], str]:
    result = await client.call_tool(tool, {"query": query})
    (block,) = result.content
    assert isinstance(block, TextContent)
    return result.is_error, dict(result.structured_content or {}), block.text


async def test_hits_of_a_real_searx_come_through_though_one_of_its_engines_is_dead(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(upstream())
        base = await stack.enter_async_context(searx(tmp_path, server.base))
        client = await stack.enter_async_context(Client(build_server(Settings(searxng_url=base))))
        is_error, result, _ = await ask(client, "fundy tides")
    assert not is_error
    assert sorted(hit["url"] for hit in result["hits"]) == [f"https://h{number}.test/" for number in range(3)]
    assert "/good?q=fundy" in server.requests[0]


async def test_all_engines_of_a_real_searx_failing_is_an_error_and_not_an_empty_result(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(searx(tmp_path, "http://127.0.0.1:9"))
        client = await stack.enter_async_context(Client(build_server(Settings(searxng_url=base, web_retry_seconds=0))))
        is_error, _, text = await ask(client, "fundy tides")
        # By now searx leaves its failed engines alone, answers as emptily, and names none of them.
        is_error_again, _, text_again = await ask(client, "other words")
    assert (is_error, is_error_again) == (True, True)
    assert "is left alone" in text_again
    assert re.search("got no answer from its own engines .*(good|dead)", text)


async def test_news_are_asked_of_the_news_engines_of_a_real_searx_alone(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(upstream())
        base = await stack.enter_async_context(searx(tmp_path, server.base))
        client = await stack.enter_async_context(Client(build_server(Settings(searxng_url=base))))
        is_error, result, _ = await ask(client, "fundy tides", "search_news")
    assert not is_error
    assert len(result["hits"]) == 3
    assert [request.split()[1] for request in server.requests] == ["/gazette?q=fundy+tides"]
