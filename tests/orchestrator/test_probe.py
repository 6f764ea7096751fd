"""What an endpoint can do, found by asking: each way that one may answer gives its finding and its dialect."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from memento.dialects import format_dialect, parse_dialect
from memento.model import Model, ModelRefused, ModelUnavailable
from memento.probe import Probed, probe

pytestmark = pytest.mark.anyio

Body = dict[str, Any]
NOTE: Any = {"type": "function", "function": {"name": "note", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "note", "arguments": '{"word": "ready"}'}}


class Endpoint:
    """A model that can everything, but for what a test takes away by answering in its place."""

    def __init__(self, instead: Callable[[Body], Any] = lambda _: None) -> None:
        self.instead = instead
        self.requests: list[Body] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        self.requests.append(body)
        said = self.instead(body)
        if isinstance(said, httpx2.Response):
            return said
        if said is None:
            said = self.able(body)
        message = {"role": "assistant", "content": None, **said}
        reply: Body = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        reply["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
        reply["usage"] = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        return httpx2.Response(200, json=reply)

    @staticmethod
    def able(body: Body) -> Body:
        if "image_url" in str(body["messages"]):
            return {"content": "Red."}
        if "tools" in body and "tool_choice" not in body:
            return {"tool_calls": [CALL]}
        return {"content": "ready"}

    async def probed(self) -> Probed:
        transport = httpx2.MockTransport(self.answer)
        async with httpx2.AsyncClient(transport=transport) as http:
            client = AsyncOpenAI(api_key="k", base_url="http://m/v1", http_client=http, max_retries=0)
            return await probe(Model(client, "m"))


def refuse(text: str) -> httpx2.Response:
    return httpx2.Response(400, json={"error": {"message": text}})


async def test_an_endpoint_that_can_everything_needs_no_dialect() -> None:
    endpoint = Endpoint()
    probed = await endpoint.probed()

    assert probed.calls_tools
    assert probed.findings[1:] == ["counts tokens", "calls tools", "stops calling when told", "sees images"]
    assert format_dialect(probed.dialect) == ""
    assert len(endpoint.requests) == 4
    assert endpoint.requests[2]["messages"][-1] == {"role": "tool", "tool_call_id": "c1", "content": "noted"}


def asks_for_a_picture(body: Body) -> bool:
    return "image_url" in str(body["messages"])


def blind(body: Body) -> Any:
    return {"content": "A square."} if asks_for_a_picture(body) else None


def no_images(body: Body) -> Any:
    return refuse("images are not supported") if asks_for_a_picture(body) else None


def does_not_stop(body: Body) -> Any:
    return {"tool_calls": [CALL]} if "tool_choice" in body else None


def calls_in_words(body: Body) -> Any:
    words = '{"name": "note", "arguments": {"word": "ready"}}'
    return {"content": words} if "tools" in body and "tool_choice" not in body else None


def tools_ignored(body: Body) -> Any:
    if asks_for_a_picture(body):
        return None
    if "<tool_call>" in str(body["messages"]) and len(body["messages"]) == 2:
        return {"content": '<tool_call>{"name": "note", "arguments": {"word": "ready"}}</tool_call>'}
    return {"content": "ready"}


def no_calls(body: Body) -> Any:
    return None if asks_for_a_picture(body) else {"content": "no"}


def no_system(body: Body) -> Any:
    return refuse("System role not supported") if body["messages"][0]["role"] == "system" else None


def breaks(body: Body) -> Any:
    return httpx2.Response(500, json={"error": {"message": "out of memory"}}) if "tools" in body else None


def breaks_in_words(body: Body) -> Any:
    if "tools" in body:
        return {"content": "no"}
    is_in_words = "<tool_call>" in str(body["messages"])
    return httpx2.Response(500, json={"error": {"message": "out of memory"}}) if is_in_words else None


NO_MEMORY = "tools: m at http://m/v1/ failed with HTTP 500: Error code: 500 - out of memory"


@pytest.mark.parametrize(
    ("instead", "finding", "dialect"),
    [
        (blind, "takes images, and did not say what was on one", ""),
        (no_images, "takes no images", "images=false"),
        (does_not_stop, "calls on when told to stop (ignored)", ""),
        (calls_in_words, "calls tools, as text", ""),
        (tools_ignored, "calls tools, as text", "native_tools=false"),
        (no_calls, "calls no tool", ""),
        (no_system, "calls tools", "system_role=user"),
        (breaks, NO_MEMORY, ""),
        (breaks_in_words, NO_MEMORY, ""),
    ],
)
async def test_what_is_missing_is_found(instead: Callable[[Body], Any], finding: str, dialect: str) -> None:
    probed = await Endpoint(instead).probed()

    assert finding in probed.findings
    assert format_dialect(probed.dialect) == dialect
    assert parse_dialect(dialect) == probed.dialect
    assert probed.calls_tools == (finding not in {"calls no tool"} and not finding.startswith("tools:"))


@pytest.mark.parametrize("text", ["the tool server broke", "stream ended", "seed of the sampler is broken"])
async def test_a_failure_that_names_a_parameter_takes_nothing_away(text: str) -> None:
    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(500, json={"error": {"message": text}})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(reply)) as http:
        client = AsyncOpenAI(api_key="k", base_url="http://m/v1", http_client=http, max_retries=0)
        model = Model(client, "m", seed=1)
        with pytest.raises(ModelUnavailable, match=text):
            await model.complete([{"role": "user", "content": "hi"}], tools=[NOTE])
    assert format_dialect(model.dialect) == ""


async def test_an_endpoint_that_answers_nothing_is_refused_at_once() -> None:
    endpoint = Endpoint(lambda _: httpx2.Response(401, json={"error": {"message": "bad key"}}))
    with pytest.raises(ModelRefused, match="Check the API key"):
        await endpoint.probed()
    assert len(endpoint.requests) == 1
