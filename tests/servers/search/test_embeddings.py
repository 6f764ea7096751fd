"""search_files with an embeddings endpoint: the request that goes out, the order that comes back, every failure.

The endpoint is a stand-in that knows two directions, sea and bread: what is tested is what we do with vectors.
"""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.types import TextContent
from pydantic import SecretStr

from memento_kit import StartupError
from memento_search.server import Settings, build_server

pytestmark = pytest.mark.anyio

SEA, BREAD = [3.0, 0.1], [0.1, 3.0]


class Endpoint:
    def __init__(self) -> None:
        self.seen: list[httpx2.Request] = []
        self.answer: Callable[[list[str]], httpx2.Response] = self.vectors

    def vectors(self, texts: list[str]) -> httpx2.Response:
        data = [
            {"object": "embedding", "index": at, "embedding": BREAD if "bread" in text or "crust" in text else SEA}
            for at, text in enumerate(texts)
        ]
        return httpx2.Response(200, content=json.dumps({"object": "list", "data": data[::-1], "model": "m"}))

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        return self.answer(json.loads(request.content)["input"])


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "sea.txt").write_text("roll roll of the sea", encoding="utf-8")
    (folder / "bakery.txt").write_text("a roll with a thick crust, made by hand in the morning", encoding="utf-8")
    return folder


@asynccontextmanager
async def search(library: Path, endpoint: Endpoint, **settings: Any) -> AsyncGenerator[Client]:
    given: dict[str, Any] = {"embedding_url": "http://em.test/v1/", "embedding_model": "m", **settings}
    server = build_server(Settings(folders=(library,), **given), transport=httpx2.MockTransport(endpoint.handle))
    async with Client(server) as client:
        yield client


async def ask(client: Client, query: str, **arguments: Any) -> tuple[list[str], str | None, str]:
    result = await client.call_tool("search_files", {"query": query, **arguments})
    (block,) = result.content
    assert isinstance(block, TextContent)
    assert not result.is_error, block.text
    found = dict(result.structured_content or {})
    return [Path(hit["path"]).name for hit in found["hits"]], found.get("warning"), block.text


async def test_what_words_found_is_ordered_by_meaning_too(library: Path, endpoint: Endpoint) -> None:
    for number in range(4):
        (library / f"b{number}.txt").write_text(f"a roll with a crust, number {number} of the four", encoding="utf-8")
    async with search(library, endpoint, embedding_url=None) as client:
        assert (await ask(client, "bread roll"))[0][0] == "sea.txt"
    async with search(library, endpoint, embedding_key=SecretStr("K")) as client:
        names, warning, _ = await ask(client, "bread roll")
    assert (names[0][0], "sea.txt" in names, warning) == ("b", True, None)
    (request,) = endpoint.seen
    assert str(request.url) == "http://em.test/v1/embeddings"
    assert request.headers["authorization"] == "Bearer K"
    sent = json.loads(request.content)
    assert (sent["model"], sent["encoding_format"], sent["input"][0]) == ("m", "float", "bread roll")
    assert sorted(sent["input"][1:]) == sorted(file.read_text(encoding="utf-8") for file in library.iterdir())


async def test_a_vector_is_asked_for_once_and_kept_for_the_next_server(library: Path, endpoint: Endpoint) -> None:
    for _ in range(2):
        async with search(library, endpoint) as client:
            await ask(client, "bread roll")
            await ask(client, "bread roll")
    async with search(library, endpoint) as client:
        await ask(client, "crust roll")
    assert [len(json.loads(request.content)["input"]) for request in endpoint.seen] == [3, 1]
    async with search(library, endpoint, embedding_model="another") as client:
        await ask(client, "bread roll")
    assert len(json.loads(endpoint.seen[-1].content)["input"]) == 3


async def test_pages_of_hits_do_not_overlap_across_the_border_of_what_is_reordered(
    library: Path, endpoint: Endpoint
) -> None:
    for number in range(70):
        (library / f"n{number}.txt").write_text(f"roll {number} {'crust' * (number % 2)}", encoding="utf-8")
    async with search(library, endpoint) as client:
        pages = [(await ask(client, "bread roll", limit=20, offset=offset))[0] for offset in range(0, 80, 20)]
    names = [name for page in pages for name in page]
    assert len(names) == len(set(names)) == 72


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx2.Response(401, content=b'{"error": "K is no key"}'), "answered HTTP 401"),
        (httpx2.Response(200, content=b"<html>"), "not in its format"),
        (httpx2.Response(200, content=b'{"data": []}'), "0 vectors for 3 texts"),
        (httpx2.Response(200, content=b'{"data": [{"index": 0, "embedding": ["x"]}]}'), "not in its format"),
        (httpx2.Response(200, content=b'{"data": [{"index": 0, "embedding": [0, NaN]}]}'), "not in its format"),
        (
            httpx2.Response(
                200,
                content=json.dumps({"data": [{"index": at, "embedding": [1.0] * (at + 1)} for at in range(3)]}),
            ),
            "several lengths",
        ),
    ],
)
async def test_a_failure_leaves_the_order_by_words_and_is_told(
    library: Path, endpoint: Endpoint, answer: httpx2.Response, told: str
) -> None:
    endpoint.answer = lambda _: answer
    async with search(library, endpoint) as client:
        names, warning, text = await ask(client, "bread roll")
    assert names == ["sea.txt", "bakery.txt"]
    assert warning is not None
    assert told in warning
    assert warning in text.partition("\n")[0]
    assert "K is no key" not in text


async def test_an_endpoint_that_cannot_be_reached_is_told(library: Path, endpoint: Endpoint) -> None:
    def fail(_: list[str]) -> httpx2.Response:
        raise httpx2.ConnectError("no route to http://em.test")

    endpoint.answer = fail
    async with search(library, endpoint) as client:
        names, warning, _ = await ask(client, "bread roll")
    assert (names[0], warning) == ("sea.txt", "Ranked by words alone: the embeddings endpoint cannot be reached.")


async def test_without_hits_and_without_an_endpoint_nothing_goes_out(library: Path, endpoint: Endpoint) -> None:
    async with search(library, endpoint) as client:
        assert (await ask(client, "nonesuch"))[0] == []
    async with search(library, endpoint, embedding_url=None) as client:
        await ask(client, "roll")
    assert endpoint.seen == []


def test_an_endpoint_without_a_model_stops_the_server_at_its_start() -> None:
    with pytest.raises(StartupError, match="MEMENTO_SEARCH_EMBEDDING_MODEL"):
        build_server(Settings(embedding_url="http://em.test/v1"))
