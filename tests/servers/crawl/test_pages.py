"""memento_crawl.pages: what is kept, and for how long; its other behaviour is tested through the server."""

import httpx2

from memento_crawl.pages import Pages, PagesLimits
from memento_kit.safe_http import HttpLimits, SafeHttp


async def test_a_page_that_was_read_anew_counts_once() -> None:
    fetched: list[str] = []
    now = 0.0

    def respond(request: httpx2.Request) -> httpx2.Response:
        fetched.append(request.url.path)
        return httpx2.Response(200, text="x" * 1000, headers={"content-type": "text/plain"})

    limits = PagesLimits(HttpLimits(), 5.0, 10**9, 1, cache_seconds=10.0, cache_chars=2500, language="en")
    async with (
        SafeHttp(transport=httpx2.MockTransport(respond)) as http,
        Pages(http, limits, clock=lambda: now) as pages,
    ):
        for start in (0.0, 20.0, 40.0):
            now = start
            await pages.read("http://site.test/a", "main", "markdown")
        for page in ("b", "a", "b"):
            await pages.read(f"http://site.test/{page}", "main", "markdown")
    assert fetched == ["/a", "/a", "/a", "/b"]
