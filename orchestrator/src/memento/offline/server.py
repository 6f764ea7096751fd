"""The stand-in's wire: Chat Completions and the model list over real HTTP on loopback, and faults on demand.

Owns the HTTP. Which message comes next is decided by `planner` and `executor`. It speaks the same protocol as a
real endpoint, so the whole client path is used; it never pretends to be one (the model is called `offline`).
"""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from memento.loopback import serve_on_loopback
from memento.offline.executor import ToolCallWanted, as_tool_calls, executor_reply
from memento.offline.planner import planner_reply

__all__ = ["OFFLINE_MODEL", "Fault", "StandIn", "serve_stand_in"]

OFFLINE_MODEL = "offline"
_CHARS_PER_TOKEN = 4


@dataclass(frozen=True)
class Fault:
    """A misbehaviour of the endpoint, for tests of the client: it answers one request with it."""

    kind: Literal[
        "401",
        "429",
        "500",
        "hang",
        "html",
        "no_choices",
        "broken_json",
        "text_and_tools",
        "unknown_tool",
        "refusal",
        "thinking",
        "empty",
        "bad_arguments",
        "prose",
    ]
    role: Literal["planner", "executor", "any"] = "any"


@dataclass
class StandIn:
    """The rules behind an ASGI app. `faults` are used up in order, each by the first request of its role."""

    faults: list[Fault] = field(default_factory=list[Fault])
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Every request body that came in, for tests to look at."""
    keep_requests: bool = False

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._models, methods=["GET"]),
            ]
        )

    async def _models(self, request: Request) -> Response:
        return JSONResponse(
            {"object": "list", "data": [{"id": OFFLINE_MODEL, "object": "model", "owned_by": "memento"}]}
        )

    async def _complete(self, request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        if self.keep_requests:
            self.requests.append(body)
        role = "executor" if body.get("tools") else "planner"
        fault = self._take_fault(role)
        if fault is not None:
            answer = await _faulty(fault, body)
            if isinstance(answer, Response):
                return answer
            return JSONResponse(_completion(body, answer))
        return JSONResponse(_completion(body, _rule_message(body, role)))

    def _take_fault(self, role: str) -> Fault | None:
        for fault in self.faults:
            if fault.role in (role, "any"):
                self.faults.remove(fault)
                return fault
        return None


@asynccontextmanager
async def serve_stand_in(stand_in: StandIn | None = None) -> AsyncGenerator[str]:
    """Serve on a free loopback port; yields the base URL and stops when the block ends."""
    async with serve_on_loopback((stand_in or StandIn()).app) as origin:
        yield f"{origin}/v1"


def _rule_message(body: dict[str, Any], role: str) -> dict[str, Any]:
    messages: list[dict[str, Any]] = body["messages"]
    if role == "planner":
        return {"role": "assistant", "content": planner_reply(messages, seed=int(body.get("seed") or 0))}
    names = [tool["function"]["name"] for tool in body["tools"]]
    reply = executor_reply(messages, names)
    if isinstance(reply, str):
        return {"role": "assistant", "content": reply}
    if body.get("tool_choice") == "none":
        return {"role": "assistant", "content": "Nothing found: no more tool calls are possible."}
    return _calling(reply, messages)


def _calling(wanted: ToolCallWanted, messages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    call_id = f"call_{sum(message.get('role') == 'tool' for message in messages)}"
    return {"role": "assistant", "content": None, "tool_calls": as_tool_calls(wanted, call_id)}


async def _faulty(fault: Fault, body: dict[str, Any]) -> Response | dict[str, Any]:
    """What a misbehaving endpoint answers: a whole response, or a message to put into one."""
    match fault.kind:
        case "401" | "429" | "500":
            headers = {"retry-after": "0"} if fault.kind == "429" else {}
            error = {"message": f"fault {fault.kind}", "type": "fault"}
            return JSONResponse({"error": error}, status_code=int(fault.kind), headers=headers)
        case "hang":
            await anyio.sleep_forever()
        case "html":
            return Response("<html>It works!</html>", media_type="text/html")
        case "no_choices":
            return JSONResponse({"error": {"message": "overloaded"}})
        case "broken_json":
            return Response('{"id": "x", "choices": [', media_type="application/json")
        case _:
            pass
    return _faulty_message(fault, body)


def _faulty_message(fault: Fault, body: dict[str, Any]) -> dict[str, Any]:
    good = _rule_message(body, "executor" if body.get("tools") else "planner")
    match fault.kind:
        case "text_and_tools":
            return good | {"content": "Let me look that up first."}
        case "unknown_tool":
            return good | {"tool_calls": as_tool_calls(ToolCallWanted("nope__nothing", {}), "call_x")}
        case "bad_arguments":
            calls = as_tool_calls(ToolCallWanted(body["tools"][0]["function"]["name"], {}), "call_x")
            calls[0]["function"]["arguments"] = '{"query": "tru'
            return good | {"tool_calls": calls}
        case "refusal":
            return {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
        case "thinking":
            return good | {"content": f"<think>Is it {{this}}?</think>\n{good.get('content') or ''}"}
        case "prose":
            return {"role": "assistant", "content": "Sure! I would first look around and then decide."}
        case _:
            return {"role": "assistant", "content": ""}


def _completion(body: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """Wrap a message up as a chat completion. Token counts are a rough four characters each."""
    sent, written = len(json.dumps(body["messages"])), len(json.dumps(message))
    prompt_tokens, completion_tokens = sent // _CHARS_PER_TOKEN, written // _CHARS_PER_TOKEN
    return {
        "id": "chatcmpl-offline",
        "object": "chat.completion",
        "created": 0,
        "model": OFFLINE_MODEL,
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }
