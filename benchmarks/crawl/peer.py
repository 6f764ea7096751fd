"""One peer, driven line by line: a URL (or a stored page as JSON) comes in, what it made of it goes out.

Started by path with the peer's own Python, so that the project never depends on it and this file imports nothing of
the project. First line out: `ready`. Then for each line in, one JSON line with `text`.
"""

# pyright: basic, reportMissingImports=false
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

Read = Callable[[str], Awaitable[str]]


@asynccontextmanager
async def raw_fetch() -> AsyncGenerator[Read]:
    import httpx2

    async with httpx2.AsyncClient() as client:

        async def read(url: str) -> str:
            return (await client.get(url)).raise_for_status().text

        yield read


@asynccontextmanager
async def http_and_trafilatura() -> AsyncGenerator[Read]:
    from trafilatura import extract

    async with raw_fetch() as fetch:

        async def read(url: str) -> str:
            return extract(await fetch(url), output_format="markdown", include_links=True) or ""

        yield read


def _give_browser(folder: str) -> None:
    """crawl4ai takes only Playwright's own download: show it the system's browser in that one's place."""
    import playwright

    driver = Path(playwright.__file__).parent / "driver/package/browsers.json"
    revision = next(
        each["revision"] for each in json.loads(driver.read_text())["browsers"] if each["name"] == "chromium"
    )
    place = Path(folder) / f"chromium_headless_shell-{revision}/chrome-headless-shell-linux64/chrome-headless-shell"
    place.parent.mkdir(parents=True)
    found = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert found, "no Chromium here"
    place.symlink_to(found)
    os.environ["PLAYWRIGHT_BROWSERS_PATH"] = folder


@asynccontextmanager
async def crawl4ai(*, over_http: bool = False) -> AsyncGenerator[Read]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"CRAWL4AI_NO_CLOUD_NOTICE": "1", "CRAWL4_AI_BASE_DIRECTORY": folder}
        _give_browser(f"{folder}/browsers")
        from crawl4ai import AsyncWebCrawler, BrowserConfig, CacheMode, CrawlerRunConfig
        from crawl4ai.async_crawler_strategy import AsyncHTTPCrawlerStrategy

        strategy = AsyncHTTPCrawlerStrategy() if over_http else None
        # Names that are not loopback fail at once: dead third parties cost it five seconds a page (guides/web.md §4).
        rules = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
        config = BrowserConfig(headless=True, verbose=False, extra_args=[rules])
        run = CrawlerRunConfig(cache_mode=CacheMode.BYPASS, verbose=False)
        async with AsyncWebCrawler(crawler_strategy=strategy, config=config) as crawler:

            async def read(url: str) -> str:
                result: Any = await crawler.arun(url, config=run)
                return str(result.markdown) if result.success else ""

            yield read


@asynccontextmanager
async def stored_markdown(*, fit: bool) -> AsyncGenerator[Read]:
    """crawl4ai's Markdown of a stored page, without its browser: all of it, or what its filter takes for content."""
    from crawl4ai import CrawlerRunConfig
    from crawl4ai.content_filter_strategy import PruningContentFilter
    from crawl4ai.content_scraping_strategy import LXMLWebScrapingStrategy
    from crawl4ai.markdown_generation_strategy import DefaultMarkdownGenerator

    settings = {name: value for name, value in CrawlerRunConfig().to_dict().items() if name != "url"}

    async def read(line: str) -> str:
        url = "https://a.test/"
        scraped = LXMLWebScrapingStrategy().scrap(url, json.loads(line), **settings)
        generator = DefaultMarkdownGenerator(content_filter=PruningContentFilter() if fit else None)
        made = generator.generate_markdown(scraped.cleaned_html, base_url=url)
        return (made.fit_markdown if fit else made.raw_markdown) or ""

    yield read


@asynccontextmanager
async def fetch_markdown() -> AsyncGenerator[Read]:
    """mcp-server-fetch's conversion of a stored page."""
    from mcp_server_fetch.server import extract_content_from_html

    async def read(line: str) -> str:
        return extract_content_from_html(json.loads(line))

    yield read


PEERS = {
    "floor": raw_fetch,
    "trafilatura": http_and_trafilatura,
    "crawl4ai": crawl4ai,
    "crawl4ai-http": partial(crawl4ai, over_http=True),
    "fit-markdown": partial(stored_markdown, fit=True),
    "raw-markdown": partial(stored_markdown, fit=False),
    "fetch-markdown": fetch_markdown,
}


async def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)  # what libraries print is no answer
    async with PEERS[sys.argv[1]]() as read:
        print("ready", file=out, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps({"text": await read(line.strip())}), file=out, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
