"""Replies in pieces: put together they are what would have come whole, and one that just stops is no reply."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from memento.dialects import Dialect
from memento.model import Model, ModelReplyBroken, ModelUnavailable
from memento.streams import JoinedReply

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "hi"}]


def piece(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": choices, **more}


def sse(*chunks: dict[str, Any] | str) -> bytes:
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def joined(*chunks: dict[str, Any]) -> dict[str, Any]:
    reply = JoinedReply()
    for chunk in chunks:
        reply.add(chunk)
    return reply.completion()["choices"][0]["message"]


def call(index: int | None, id_: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name is not None else {})}
    told = {"index": index, "id": id_, "type": "function", "function": function}
    return {key: value for key, value in told.items() if value is not None}


# --- joining ---------------------------------------------------------------------------------------------------------


def read(message: dict[str, Any]) -> list[tuple[str, str]]:
    return [(made["function"]["name"], made["function"]["arguments"]) for made in message["tool_calls"]]


@given(
    text=st.text(max_size=30),
    thought=st.text(max_size=10),
    arguments=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=3),
    data=st.data(),
)
def test_wherever_a_reply_is_cut_it_comes_together_again(
    text: str, thought: str, arguments: list[str], data: st.DataObject
) -> None:
    def cut(whole: str) -> list[str]:
        places = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=4)) | {0, len(whole)})
        return [whole[a:b] for a, b in zip(places, [*places[1:], None], strict=True)]

    chunks = [piece({"role": "assistant", "content": ""})]
    chunks += [piece({"reasoning_content": part}) for part in cut(thought)]
    chunks += [piece({"content": part}) for part in cut(text)]
    for number, whole in enumerate(arguments):
        first, *rest = cut(whole)
        chunks.append(piece({"tool_calls": [call(number, f"c{number}", f"t{number}", first)]}))
        chunks += [piece({"tool_calls": [call(number, None, None, part)]}) for part in rest]
    message = joined(*chunks, piece({}, "tool_calls"))

    assert message["content"] == text
    assert message.get("reasoning_content", "") == thought
    assert read(message) == [(f"t{number}", whole) for number, whole in enumerate(arguments)]
    assert [made["id"] for made in message["tool_calls"]] == [f"c{number}" for number in range(len(arguments))]


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param([[call(None, "a", "x", '{"n": 1}')], [call(None, "b", "y", "{}")]], id="at once, without index"),
        pytest.param(
            [[call(None, "a", "x", '{"n":'), call(None, "b", "y", "{}")], [call(None, "a", None, "1}")]], id="id"
        ),
        pytest.param(
            [[call(None, None, "x", '{"n":')], [call(None, None, None, "1}"), call(None, None, "y", "{}")]], id="-"
        ),
        pytest.param([[call(0, "a", "x", '{"n": 1}')], [call(0, "b", "y", "{}")]], id="every index 0, ids differ"),
        pytest.param([[call(0, "a", "x", '{"n":')], [call(0, "", "", "1}"), call(1, "b", "y", "{}")]], id="empty id"),
    ],
)
def test_calls_of_servers_that_number_them_otherwise_are_told_apart(calls: Sequence[list[dict[str, Any]]]) -> None:
    message = joined(*(piece({"tool_calls": part}) for part in calls))
    assert [(name, json.loads(told)) for name, told in read(message)] == [("x", {"n": 1}), ("y", {})]


def test_fields_that_nobody_here_knows_are_kept_whole() -> None:
    signed = {**call(0, "a", "x", "{}"), "extra_content": {"google": {"thought_signature": "s1"}}}
    message = joined(piece({"tool_calls": [signed]}), piece({"details": [{"a": 1}]}), piece({"details": [{"a": 2}]}))
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "s1"}}
    assert message["details"] == [{"a": 1}, {"a": 2}]


# --- over a real wire ------------------------------------------------------------------------------------------------


class Endpoint:
    """Sends each of `bodies` in turn, the last one for ever, and cuts the wire where one is not `whole`."""

    def __init__(self, *bodies: bytes, whole: bool = True, kind: str = "text/event-stream", hold: bool = False) -> None:
        self.bodies, self.whole, self.kind, self.hold = list(bodies), whole, kind, hold
        self.requests: list[dict[str, Any]] = []

    async def handle(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received or not received.split(b"\r\n\r\n", 1)[1].endswith(b"}"):
                received += await stream.receive()
            self.requests.append(json.loads(received.split(b"\r\n\r\n", 1)[1]))
            body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
            head = f"HTTP/1.1 200 OK\r\ncontent-type: {self.kind}\r\ntransfer-encoding: chunked\r\n"
            end = b"0\r\n\r\n" if self.whole else b""
            await stream.send(
                head.encode() + b"connection: close\r\n\r\n" + f"{len(body):x}\r\n".encode() + body + b"\r\n" + end
            )
            if self.hold:
                await anyio.sleep_forever()


@asynccontextmanager
async def model_at(endpoint: Endpoint, *, retries: int = 0, timeout: float = 20.0) -> AsyncGenerator[Model]:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, endpoint.handle)
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/v1"
        async with AsyncOpenAI(api_key="k", base_url=url, max_retries=retries, timeout=timeout) as client:
            yield Model(client, "m", dialect=Dialect(stream=True))
        group.cancel_scope.cancel()


USED = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
WHOLE = sse(
    piece({"role": "assistant", "content": "He"}),
    piece({"content": "llo"}),
    piece({"tool_calls": [call(0, "c1", "add", '{"a"')]}),
    piece({"tool_calls": [call(0, None, None, ": 1}")]}),
    piece({}, "tool_calls"),
    piece(usage=USED),
    "[DONE]",
)
HALF = WHOLE[: WHOLE.index(b'"tool_calls": [')].rpartition(b"data:")[0]


async def test_a_streamed_reply_reads_like_one_that_came_whole() -> None:
    endpoint = Endpoint(WHOLE)
    async with model_at(endpoint) as model:
        reply = await model.complete(HI)

    assert endpoint.requests[0]["stream"] is True
    assert endpoint.requests[0]["stream_options"] == {"include_usage": True}
    assert (reply.text, reply.finish_reason) == ("Hello", "tool_calls")
    assert [(r.id, r.name, r.arguments) for r in reply.tool_requests] == [("c1", "add", '{"a": 1}')]
    assert "index" not in reply.message["tool_calls"][0]
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.is_estimated) == (9, 4, False)


async def test_usage_that_a_stream_does_not_tell_is_counted_here() -> None:
    async with model_at(Endpoint(sse(piece({"content": "Hello"}), piece({}, "stop"), "[DONE]"))) as model:
        reply = await model.complete(HI)
    assert reply.usage.is_estimated
    assert reply.usage.input_tokens


@pytest.mark.parametrize("whole", [True, False], ids=["ends in order", "wire cut"])
async def test_a_stream_that_just_stops_is_tried_again_and_is_never_an_answer(whole: bool) -> None:
    endpoint = Endpoint(HALF, whole=whole)
    async with model_at(endpoint, retries=1) as model:
        with pytest.raises(ModelUnavailable) as told:
            await model.complete(HI)
    assert len(endpoint.requests) == 2
    assert "\n" not in str(told.value)

    endpoint = Endpoint(HALF, WHOLE, whole=True)
    async with model_at(endpoint, retries=1) as model:
        assert (await model.complete(HI)).text == "Hello"


async def test_a_stream_that_stalls_is_given_up_after_the_time_limit() -> None:
    async with model_at(Endpoint(HALF, whole=False, hold=True), timeout=0.3) as model:
        with pytest.raises(ModelUnavailable, match="no answer in time"):
            await model.complete(HI)


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        (Endpoint(sse(piece({"content": "He"}), {"error": {"message": "overloaded"}})), "overloaded"),
        (Endpoint(sse(piece({"content": "He"}), "{nonsense")), "not JSON"),
        (Endpoint(b"<html>Log in</html>", kind="text/html"), "was asked for a stream and sent none"),
        (Endpoint(json.dumps({"choices": []}).encode(), kind="application/json"), "was asked for a stream"),
    ],
    ids=["error event", "garbage", "a page", "no stream"],
)
async def test_a_broken_stream_is_one_line(endpoint: Endpoint, told: str) -> None:
    async with model_at(endpoint) as model:
        with pytest.raises(ModelReplyBroken, match=told) as raised:
            await model.complete(HI)
    assert "\n" not in str(raised.value)
