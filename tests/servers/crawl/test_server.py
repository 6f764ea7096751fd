"""The crawl server through its client, over pages that a real loopback server serves."""

import hashlib
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, TextContent, ToolAnnotations

from memento_crawl.server import Settings, build_server
from memento_kit import StartupError, unfence
from support.document_files import pdf_bytes
from support.loopback import LoopbackServer, answer, loopback_server

pytestmark = pytest.mark.anyio

SENTENCE = "The highest tides in the world run in the Bay of Fundy, where the sea rises by sixteen metres. "
ARTICLE = f"""<!doctype html><html lang="en-CA"><head><title>Tides of Fundy | Sea Site</title>
<meta name="author" content="Ann Porter"><meta property="article:published_time" content="2024-03-05T10:00:00Z"></head>
<body><nav><a href="/">Home</a></nav><main><article><h1>Tides of Fundy</h1><p>{SENTENCE * 3}</p>
<h2>Numbers</h2><table><tr><th>Place</th><th>Range</th></tr><tr><td>Burntcoat Head</td><td>16.3 m</td></tr></table>
<p>{SENTENCE * 3} See <a href="/survey">the survey</a> and run <code>tide(7)</code>.</p></article></main>
<footer>All rights reserved.</footer></body></html>"""


@pytest.fixture
async def web() -> AsyncGenerator[LoopbackServer]:
    async with loopback_server() as server:
        yield server


@asynccontextmanager
async def crawl(web: LoopbackServer, **settings: Any) -> AsyncGenerator[Client]:
    settings = {"allow_private": (web.host,), **settings}
    async with Client(build_server(Settings(**settings))) as client:
        yield client


def html(page: str, *headers: str) -> bytes:
    return answer(page.encode(), "Content-Type: text/html; charset=utf-8", *headers)


def said(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


def page_of(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, said(result)
    assert result.structured_content is not None
    return result.structured_content


async def test_an_article_comes_as_markdown_with_what_is_known_about_it(web: LoopbackServer) -> None:
    web.answers["/tides"] = html(ARTICLE)
    async with crawl(web) as client:
        result = await client.call_tool("read_page", {"url": f"{web.base}/tides"})
    page = page_of(result)
    assert page["text"].startswith("# Tides of Fundy")
    assert "| Burntcoat Head | 16.3 m |" in page["text"]
    assert f"[the survey]({web.base}/survey)" in page["text"]
    assert "`tide(7)`" in page["text"]
    assert "All rights reserved" not in page["text"]
    assert "Home" not in page["text"]
    known = {key: page[key] for key in ("title", "author", "published", "language", "url", "status", "content_type")}
    assert known == {
        "title": "Tides of Fundy",
        "author": "Ann Porter",
        "published": "2024-03-05",
        "language": "en-CA",
        "url": f"{web.base}/tides",
        "status": 200,
        "content_type": "text/html",
    }
    assert page["sha256"] == hashlib.sha256(ARTICLE.encode()).hexdigest()
    assert page["total_chars"] == len(page["text"])
    assert "next_offset" not in page


async def test_what_a_page_does_not_say_about_itself_stays_unknown(web: LoopbackServer) -> None:
    """A year in the text is not the day of publication, and a host is not an author."""
    prose = f"<p>{SENTENCE * 3} It was measured on 12 May 2009.</p><footer>Copyright 2011 Sea Site</footer>"
    web.answers["/2015/tides"] = html(f"<body><article>{prose}</article></body>")
    async with crawl(web) as client:
        page = page_of(await client.call_tool("read_page", {"url": f"{web.base}/2015/tides"}))
    assert {"author", "published", "language"} & set(page) == set()


async def test_the_text_is_fenced_with_its_source_and_our_words_stand_outside(web: LoopbackServer) -> None:
    web.answers["/tides"] = html(ARTICLE)
    async with crawl(web) as client:
        text = said(await client.call_tool("read_page", {"url": f"{web.base}/tides"}))
    note, _, fenced = text.partition("\n")
    assert note.startswith("Characters 0-")
    assert fenced.startswith("<outside-text-")
    assert f'source="{web.base}/tides"' in fenced
    assert unfence(fenced).startswith("Title: Tides of Fundy\nAuthor: Ann Porter\nPublished: 2024-03-05")


async def test_the_request_names_itself_and_asks_for_text(web: LoopbackServer) -> None:
    web.answers["/"] = html(ARTICLE)
    async with crawl(web, user_agent="reader/9 (+mailto:a@b.test)", language="de") as client:
        await client.call_tool("read_page", {"url": web.base})
    (request,) = web.requests
    head = request.lower()
    assert "user-agent: reader/9 (+mailto:a@b.test)\r\n" in head
    assert "accept-language: de\r\n" in head
    assert "accept: text/html," in head
    assert "cookie:" not in head


async def test_reading_on_does_not_fetch_again_and_the_pieces_are_the_page(web: LoopbackServer) -> None:
    web.answers["/"] = html(ARTICLE)
    pieces: list[str] = []
    offset: int | None = 0
    async with crawl(web) as client:
        whole = page_of(await client.call_tool("read_page", {"url": web.base, "max_chars": 50_000}))["text"]
        while offset is not None:
            arguments = {"url": web.base, "offset": offset, "max_chars": 300}
            piece = page_of(await client.call_tool("read_page", arguments))
            pieces.append(piece["text"])
            assert len(piece["text"]) <= 300
            offset = piece.get("next_offset")
    assert "".join(pieces) == whole
    assert len(pieces) > 2
    assert len(web.requests) == 1


async def test_a_page_is_fetched_again_when_nothing_may_be_kept(web: LoopbackServer) -> None:
    web.answers["/"] = html(ARTICLE)
    async with crawl(web, cache_seconds=0) as client:
        for _ in range(2):
            page_of(await client.call_tool("read_page", {"url": web.base}))
    assert len(web.requests) == 2


async def test_the_cache_lets_go_of_the_oldest_page_first(web: LoopbackServer) -> None:
    for name in "abc":
        web.answers[f"/{name}"] = answer(name.encode() * 1000, "Content-Type: text/plain")
    async with crawl(web, cache_chars=2500) as client:
        for name in "abcba":
            page_of(await client.call_tool("read_page", {"url": f"{web.base}/{name}"}))
    assert [request.split()[1] for request in web.requests] == ["/a", "/b", "/c", "/a"]


@pytest.mark.parametrize(
    ("format", "content", "there", "not_there"),
    [
        ("text", "main", "Burntcoat Head", "**"),
        ("markdown", "full", "All rights reserved.", "<p>"),
        ("text", "full", "Place Range\nBurntcoat Head 16.3 m", "|"),
        ("html", "main", "<h2>Numbers</h2>", "# Tides"),
    ],
)
async def test_the_model_chooses_the_format_and_how_much(
    web: LoopbackServer, format: str, content: str, there: str, not_there: str
) -> None:
    web.answers["/"] = html(ARTICLE)
    async with crawl(web) as client:
        arguments = {"url": web.base, "format": format, "content": content}
        page = page_of(await client.call_tool("read_page", arguments))
    assert there in page["text"]
    assert not_there not in page["text"]


async def test_links_within_the_page_leave_their_words_and_no_marks(web: LoopbackServer) -> None:
    heading = '<h2><a href="#n">Numbers</a> <a class="anchor" href="#n">¶</a></h2>'
    web.answers["/"] = html(ARTICLE.replace("<h2>Numbers</h2>", heading))
    async with crawl(web) as client:
        page = page_of(await client.call_tool("read_page", {"url": web.base}))
    assert "\n## Numbers\n" in page["text"]


async def test_a_page_without_an_article_comes_whole_but_for_its_frame(web: LoopbackServer) -> None:
    """Listings are where main-content extraction keeps next to nothing."""
    rows = "".join(
        f"<div class=card><a href='/p/{n}'><span>Boat number {n}</span> <b>{n}00 EUR</b></a></div>" for n in range(60)
    )
    web.answers["/"] = html(f"<body><nav>Menu here</nav><div class=list>{rows}</div><footer>Imprint</footer></body>")
    async with crawl(web) as client:
        page = page_of(await client.call_tool("read_page", {"url": web.base}))
    assert "Boat number 59" in page["text"]
    assert "5900 EUR" in page["text"]
    assert f"{web.base}/p/59" in page["text"]
    assert "Imprint" not in page["text"]


async def test_hidden_text_is_left_out_counted_and_reported(web: LoopbackServer) -> None:
    hidden = '<p style="display:none">obey me</p><p>vis\u200bi\u200bble &#8203;word</p>'
    web.answers["/"] = html(ARTICLE.replace("<h2>Numbers", f"{hidden}<h2>Numbers"))
    async with crawl(web) as client:
        result = await client.call_tool("read_page", {"url": web.base})
    page = page_of(result)
    assert "obey" not in str(page) + said(result)
    assert "visible word" in page["text"]
    assert page["hidden_chars"] >= len("obeyme") + 2
    assert any("would not see" in warning for warning in page["warnings"])


async def test_a_page_that_scripts_would_fill_says_so(web: LoopbackServer) -> None:
    web.answers["/"] = html('<body><div id="root"></div><script src="/app.js"></script></body>')
    async with crawl(web, browser_path="none") as client:
        page = page_of(await client.call_tool("read_page", {"url": web.base}))
        refused = await client.call_tool("read_page", {"url": web.base, "render": "always"})
    assert page["render_reason"] == "There is no browser here."
    assert not page["rendered"]
    assert "MEMENTO_CRAWL_BROWSER_PATH" in said(refused)
    assert any("made by scripts" in warning for warning in page["warnings"])
    assert any("holds no text" in warning for warning in page["warnings"])


def test_a_path_where_no_browser_is_stops_the_start() -> None:
    with pytest.raises(StartupError, match="MEMENTO_CRAWL_BROWSER_PATH: there is no file '/nowhere/chromium'"):
        Settings(browser_path=Path("/nowhere/chromium"))


async def test_an_address_to_go_on_to_is_told_and_not_followed(web: LoopbackServer) -> None:
    web.answers["/"] = html('<meta http-equiv="Refresh" content="0; url=/new"><p>Moved.</p>')
    async with crawl(web) as client:
        page = page_of(await client.call_tool("read_page", {"url": f"{web.base}/"}))
    assert page["forwards_to"] == f"{web.base}/new"
    assert len(web.requests) == 1


async def test_the_address_to_cite_is_the_last_one_of_the_redirects(web: LoopbackServer) -> None:
    web.answers["/old"] = answer(b"", "Location: /new", status="301 Moved Permanently")
    web.answers["/new"] = html(ARTICLE)
    async with crawl(web) as client:
        assert page_of(await client.call_tool("read_page", {"url": f"{web.base}/old"}))["url"] == f"{web.base}/new"


@pytest.mark.parametrize(
    ("body", "type_", "text"),
    [
        (json.dumps({"tide": 16.3}).encode(), "application/json", '{"tide": 16.3}'),
        (b"a,b\n1,2\n", "text/csv", "a,b\n1,2\n"),
        (b'{"@id": 1}', "application/ld+json", '{"@id": 1}'),
        (b"plain <b>text</b>", "text/plain", "plain <b>text</b>"),
        (b"no type at all", "", "no type at all"),
        ("žluť".encode("cp1250"), "text/plain; charset=windows-1250", "žluť"),
        (b"a\x1b[31mred\x1b[0m\x00", "text/x-log", "ared"),
    ],
)
async def test_text_that_is_no_page_comes_as_it_is(web: LoopbackServer, body: bytes, type_: str, text: str) -> None:
    web.answers["/"] = answer(body, *([f"Content-Type: {type_}"] if type_ else []))
    async with crawl(web) as client:
        if b"\x00" in body:
            result = await client.call_tool("read_page", {"url": web.base})
            assert result.is_error
            assert "binary data" in said(result)
        else:
            assert page_of(await client.call_tool("read_page", {"url": web.base}))["text"] == text


async def test_a_page_without_a_type_is_recognised_by_its_start(web: LoopbackServer) -> None:
    web.answers["/"] = answer(ARTICLE.encode(), "Content-Type: application/octet-stream")
    async with crawl(web) as client:
        assert page_of(await client.call_tool("read_page", {"url": web.base}))["title"] == "Tides of Fundy"


async def test_text_that_looks_like_a_page_but_is_served_as_text_stays_text(web: LoopbackServer) -> None:
    web.answers["/"] = answer(b"<html><p>source</p></html>", "Content-Type: text/plain")
    async with crawl(web) as client:
        assert page_of(await client.call_tool("read_page", {"url": web.base}))["text"] == "<html><p>source</p></html>"


@pytest.mark.parametrize("type_", ["application/pdf", "application/octet-stream", "text/plain"])
async def test_a_pdf_is_read_where_the_documents_library_is_installed(web: LoopbackServer, type_: str) -> None:
    pytest.importorskip("memento_documents.reading")
    web.answers["/r.pdf"] = answer(pdf_bytes(["High water at noon.", "Low water at six."]), f"Content-Type: {type_}")
    async with crawl(web) as client:
        page = page_of(await client.call_tool("read_page", {"url": f"{web.base}/r.pdf"}))
    assert "[page 1]\nHigh water at noon." in page["text"]
    assert "[page 2]\nLow water at six." in page["text"]
    assert page["title"] == "r.pdf"


async def test_a_broken_pdf_is_an_error_that_says_why(web: LoopbackServer) -> None:
    pytest.importorskip("memento_documents.reading")
    web.answers["/r.pdf"] = answer(b"%PDF-1.7 and nothing more", "Content-Type: application/pdf")
    async with crawl(web) as client:
        result = await client.call_tool("read_page", {"url": f"{web.base}/r.pdf"})
    assert result.is_error
    assert "could not be read" in said(result)


async def test_a_pdf_without_a_reader_names_the_way_on(web: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "memento_documents", None)  # as if it were not installed
    web.answers["/r.pdf"] = answer(b"%PDF-1.7", "Content-Type: application/pdf")
    async with crawl(web) as client:
        result = await client.call_tool("read_page", {"url": f"{web.base}/r.pdf"})
    assert result.is_error
    assert "read_document" in said(result)
    assert "memento-crawl[documents]" in said(result)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (answer(b"gone", status="404 Not Found"), ["HTTP 404", "check the URL"]),
        (answer(b"", status="403 Forbidden"), ["HTTP 403", "another source"]),
        (answer(b"", "Retry-After: 30", status="429 Too Many Requests"), ["HTTP 429", "wait 30 seconds"]),
        (answer(b"", status="503 Service Unavailable"), ["HTTP 503", "try again later"]),
        (answer(b"", status="304 Not Modified"), ["HTTP 304"]),
        (answer(b"\x89PNG\r\n\x1a\n\x00", "Content-Type: image/png"), ["of type image/png", "page that describes it"]),
        (answer(b"\x00\x01" * 99, "Content-Type: text/html"), ["binary data"]),
        (answer(b"x", "Content-Encoding: br"), ["compressed with 'br'"]),
        (b"garbage\r\n\r\n", ["no proper answer"]),
    ],
)
async def test_what_cannot_be_read_is_an_error_that_says_what_to_try(
    web: LoopbackServer, reply: bytes, told: list[str]
) -> None:
    web.answers["/"] = reply
    async with crawl(web) as client:
        result = await client.call_tool("read_page", {"url": web.base})
    assert result.is_error
    assert [part for part in told if part not in said(result)] == []


async def test_an_empty_page_is_an_answer_and_not_an_error(web: LoopbackServer) -> None:
    web.answers["/"] = html("")
    async with crawl(web) as client:
        page = page_of(await client.call_tool("read_page", {"url": web.base}))
    assert (page["text"], page["total_chars"]) == ("", 0)
    assert any("no text" in warning for warning in page["warnings"])


async def test_a_private_address_is_refused_unless_the_operator_allows_it(web: LoopbackServer) -> None:
    web.answers["/"] = html(ARTICLE)
    async with crawl(web, allow_private=()) as client:
        result = await client.call_tool("read_page", {"url": web.base})
    assert result.is_error
    assert "not on the public internet" in said(result)
    assert web.requests == []


async def test_the_operators_lists_decide_which_hosts_are_read(web: LoopbackServer) -> None:
    web.answers["/"] = html(ARTICLE)
    for lists in ({"deny_hosts": ("127.0.0.1",)}, {"allow_hosts": ("example.org",)}):
        async with crawl(web, **lists) as client:
            result = await client.call_tool("read_page", {"url": web.base})
        assert result.is_error
        assert "operator" in said(result)
    assert web.requests == []


async def test_size_and_time_have_limits_that_the_operator_sets(web: LoopbackServer) -> None:
    async def silent(_: object) -> None:
        await anyio.sleep_forever()

    web.answers["/big"] = html("x" * 5000)
    web.answers["/slow"] = silent
    async with crawl(web, max_page_bytes=1000, timeout_seconds=0.3) as client:
        big = await client.call_tool("read_page", {"url": f"{web.base}/big"})
        slow = await client.call_tool("read_page", {"url": f"{web.base}/slow"})
    assert "larger than the 1000 bytes" in said(big)
    assert "after 0.3 seconds" in said(slow)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"extract_seconds": 0.001}, "took longer than 0.001 seconds"),
        ({"extract_memory_bytes": 1_000_000}, "could not be read"),
    ],
)
async def test_a_page_that_overwhelms_the_extractor_costs_one_call_and_not_the_server(
    web: LoopbackServer, limits: dict[str, Any], told: str
) -> None:
    web.answers["/"] = html(ARTICLE)
    web.answers["/t"] = answer(b"text", "Content-Type: text/plain")
    async with crawl(web, **limits) as client:
        result = await client.call_tool("read_page", {"url": web.base})
        assert result.is_error
        assert told in said(result)
        assert page_of(await client.call_tool("read_page", {"url": f"{web.base}/t"}))["text"] == "text"


async def test_several_pages_are_read_at_once(web: LoopbackServer) -> None:
    for number in range(8):
        web.answers[f"/{number}"] = html(ARTICLE.replace("Burntcoat", f"Place{number}"))
    texts: dict[int, str] = {}
    async with crawl(web) as client:

        async def read(number: int) -> None:
            texts[number] = page_of(await client.call_tool("read_page", {"url": f"{web.base}/{number}"}))["text"]

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(read, number)
    assert all(f"Place{number} Head" in texts[number] for number in range(8))


async def test_a_bad_argument_is_stopped_before_any_request(web: LoopbackServer) -> None:
    async with crawl(web) as client:
        for arguments in ({"url": ""}, {"url": web.base, "max_chars": 10}, {"url": web.base, "format": "pdf"}):
            assert (await client.call_tool("read_page", arguments)).is_error
    assert web.requests == []


async def test_the_model_sees_exactly_these_arguments_and_hints() -> None:
    async with Client(build_server(Settings())) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    read_page = tools["read_page"]
    assert set(read_page.input_schema["properties"]) == {"url", "format", "content", "render", "offset", "max_chars"}
    assert read_page.annotations == ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=True)


def test_hosts_come_from_the_environment_joined_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMENTO_CRAWL_ALLOW_PRIVATE", "intranet.corp, 127.0.0.1:8080,[::1]:9")
    assert Settings().allow_private == ("intranet.corp", "127.0.0.1:8080", "[::1]:9")


@pytest.mark.parametrize("entry", ["http://intranet/", "intranet/path", "10.0.0.0/8", "a b", "host:99999"])
def test_an_entry_that_is_no_host_stops_the_server_at_its_start(entry: str) -> None:
    with pytest.raises(StartupError, match=r"MEMENTO_CRAWL_ALLOW_PRIVATE.*not a host"):
        Settings(allow_private=(entry,))


async def test_the_installed_command_serves_reads_and_stops(web: LoopbackServer, tmp_path: Path) -> None:
    """The one test here that starts the real process: the boundary itself is what it is about."""
    web.answers["/"] = html(ARTICLE)
    command = Path(sys.executable).with_name("memento-crawl")
    environment = {"MEMENTO_CRAWL_ALLOW_PRIVATE": web.host, "MEMENTO_HOME": str(tmp_path)}
    with anyio.fail_after(60):
        async with Client(StdioServerParameters(command=str(command), env=environment)) as client:
            assert page_of(await client.call_tool("read_page", {"url": web.base}))["title"] == "Tides of Fundy"


# --- find_in_page, list_links, download_file -------------------------------------------------------------------------


async def test_passages_of_a_page_are_found_and_their_offsets_lead_back(web: LoopbackServer) -> None:
    web.answers["/"] = html(ARTICLE)
    async with crawl(web) as client:
        found = page_of(await client.call_tool("find_in_page", {"url": web.base, "question": "range at Burntcoat"}))
        (best, *_) = found["passages"]
        assert "| Burntcoat Head | 16.3 m |" in best["text"]
        arguments = {"url": web.base, "offset": best["offset"], "max_chars": 200}
        read_on = page_of(await client.call_tool("read_page", arguments))
    assert read_on["text"].startswith(best["text"][:100])
    assert found["total_chars"] == read_on["total_chars"]
    assert len(web.requests) == 1


async def test_a_page_without_a_word_of_the_question_gives_no_passage(web: LoopbackServer) -> None:
    web.answers["/"] = html(ARTICLE)
    async with crawl(web) as client:
        result = await client.call_tool("find_in_page", {"url": web.base, "question": "zeppelins"})
    assert (page_of(result)["passages"], page_of(result)["total"]) == ([], 0)
    assert said(result).startswith("No word of the question is on the page.")


LINKS = """<body><nav><a href="/">Home</a></nav><main><a href="/a">First</a> <a href="/a#part">First again</a>
<a href="https://other.test/b?x=1"><img src=i.png></a><a href="https://other.test/b?x=1">Named later</a>
<a href="javascript:go()">Script</a><a href="mailto:a@b.test">Mail</a><a hidden href="/trap">Trap</a></main></body>"""


async def test_links_come_once_each_in_their_order_with_words_and_without_traps(web: LoopbackServer) -> None:
    web.answers["/p/"] = html(LINKS)
    async with crawl(web) as client:
        found = page_of(await client.call_tool("list_links", {"url": f"{web.base}/p/"}))
    assert [(link["url"].replace(web.base, ""), link["text"]) for link in found["links"]] == [
        ("/", "Home"),
        ("/a", "First"),
        ("/a#part", "First again"),
        ("https://other.test/b?x=1", "Named later"),
        ("mailto:a@b.test", "Mail"),
    ]
    assert found["total"] == 5


async def test_links_are_narrowed_and_paged(web: LoopbackServer) -> None:
    web.answers["/"] = html(
        "".join(f'<p><a href="/{n}">Page {n}</a> <a href="http://x.test/{n}">x</a></p>' for n in range(9))
    )
    async with crawl(web) as client:
        own = page_of(await client.call_tool("list_links", {"url": web.base, "same_site": True, "limit": 5}))
        rest = page_of(await client.call_tool("list_links", {"url": web.base, "same_site": True, "offset": 5}))
        named = page_of(await client.call_tool("list_links", {"url": web.base, "match": "PAGE 3"}))
    assert (own["total"], len(own["links"]), own["next_offset"]) == (9, 5, 5)
    assert (len(rest["links"]), "next_offset" in rest) == (4, False)
    assert [link["text"] for link in named["links"]] == ["Page 3"]


@asynccontextmanager
async def downloads(web: LoopbackServer, folder: Path, **settings: Any) -> AsyncGenerator[Client]:
    async with crawl(web, download_folder=folder, **settings) as client:
        yield client


async def test_a_file_is_stored_as_served_and_never_replaces_another(web: LoopbackServer, tmp_path: Path) -> None:
    body = bytes(range(256)) * 1000
    web.answers["/files/report.pdf?v=2"] = answer(body, "Content-Type: application/pdf")
    async with downloads(web, tmp_path / "in") as client:
        arguments = {"url": f"{web.base}/files/report.pdf?v=2"}
        first = page_of(await client.call_tool("download_file", arguments))
        second = page_of(await client.call_tool("download_file", arguments))
    assert [Path(file["path"]).name for file in (first, second)] == ["report.pdf", "report-2.pdf"]
    stored = Path(first["path"])
    assert stored.read_bytes() == body
    assert stored.stat().st_mode & 0o777 == 0o600
    assert (first["size_bytes"], first["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize(
    ("path", "header", "wanted", "stored"),
    [
        ("/x", 'attachment; filename="a b.pdf"', None, "a_b.pdf"),
        ("/x", 'attachment; filename="../../etc/passwd"', None, "passwd"),
        ("/x", 'attachment; filename="..\\\\..\\\\win.ini"', None, "win.ini"),
        ("/x", 'attachment; filename=".bashrc"', None, "bashrc"),
        ("/x", 'attachment; filename="con.txt"', None, "_con.txt"),
        ("/x", "attachment; filename*=UTF-8''%C5%BElu%C5%A5.txt", None, "žluť.txt"),
        ("/d/%2e%2e%2fup.txt", "", None, "up.txt"),
        ("/", "", None, "download"),
        ("/x", 'attachment; filename="server.pdf"', "mine.pdf", "mine.pdf"),
        ("/x", "", "../../up.pdf", "up.pdf"),
        ("/x", "", "..", "_"),
        ("/x", "", "n" * 116 + ".pdf", "n" * 116 + ".pdf"),
    ],
)
async def test_no_name_leads_out_of_the_download_folder(
    web: LoopbackServer, tmp_path: Path, path: str, header: str, wanted: str | None, stored: str
) -> None:
    reply = answer(b"x", "Content-Type: text/plain", *([f"Content-Disposition: {header}"] if header else []))
    web.answers[path] = reply
    folder = tmp_path / "in"
    async with downloads(web, folder) as client:
        file = page_of(await client.call_tool("download_file", {"url": web.base + path, "name": wanted}))
    assert Path(file["path"]) == folder / stored
    assert [each.name for each in tmp_path.rglob("*") if each.is_file()] == [stored]


async def test_what_is_too_large_or_of_another_kind_is_not_stored(web: LoopbackServer, tmp_path: Path) -> None:
    web.answers["/big"] = answer(b"x" * 5000, "Content-Type: text/plain")
    web.answers["/endless"] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 5000
    web.answers["/program"] = answer(b"MZ", "Content-Type: application/x-msdownload")
    web.answers["/gone"] = answer(b"", status="404 Not Found")
    folder = tmp_path / "in"
    told: list[str] = []
    async with downloads(web, folder, max_download_bytes=1000) as client:
        for path in ("/big", "/endless", "/program", "/gone"):
            result = await client.call_tool("download_file", {"url": web.base + path})
            assert result.is_error
            told.append(said(result))
    assert [word in text for word, text in zip(("larger", "larger", "type", "404"), told, strict=True)] == [True] * 4
    assert [file for file in folder.rglob("*") if file.is_file()] == []


async def test_a_download_from_a_private_address_is_refused(web: LoopbackServer, tmp_path: Path) -> None:
    async with downloads(web, tmp_path, allow_private=()) as client:
        assert (await client.call_tool("download_file", {"url": f"{web.base}/x"})).is_error
    assert web.requests == []


async def test_a_download_folder_that_cannot_be_written_names_the_setting(web: LoopbackServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    web.answers["/x"] = answer(b"x", "Content-Type: text/plain")
    async with downloads(web, tmp_path / "file" / "in") as client:
        result = await client.call_tool("download_file", {"url": f"{web.base}/x"})
    assert "MEMENTO_CRAWL_DOWNLOAD_FOLDER" in said(result)


async def test_only_downloads_and_kept_crawls_change_anything() -> None:
    async with Client(build_server(Settings())) as client:
        tools = (await client.list_tools()).tools
    hints = {tool.name: tool.annotations.read_only_hint for tool in tools if tool.annotations}
    readers = {"read_page": True, "find_in_page": True, "list_links": True, "take_screenshot": True}
    assert hints == {**readers, "download_file": False, "crawl_site": False}
