"""What OpenAI-compatible endpoints do differently, all in one place: how a request is put, how a reply is read.

Owns the differences and nothing of the wire: pure functions over requests, replies and error texts. What an endpoint
can do is never guessed from a name: it is what the operator says, or what the endpoint itself said when it refused a
request. The forms are those of guides/code_llm_scale.md part B and of the servers' documentation.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

__all__ = ["Dialect", "adapted", "format_dialect", "learned", "parse_dialect", "strip_thinking", "text_calls"]

Message = dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """What an endpoint takes. The defaults are OpenAI's own."""

    limit_parameter: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """Name of the limit on a reply's length."""
    system_role: Literal["system", "developer", "user"] = "system"
    """Role of the instructions; `user`: the endpoint knows no such role, they stand before the first user message."""
    native_tools: bool = True
    """It takes `tools`. Where not, they are described in words, and calls are written as text."""
    tool_choice: bool = True
    """It takes `tool_choice: none`. Where not, the last turn leaves it to the words."""
    images: bool = True
    """It takes image parts in user messages. Where not, they are named."""
    temperature: bool = True
    reasoning_effort: bool = True
    seed: bool = True
    stream: bool = False
    """Replies come in pieces: for endpoints that answer no other way, or behind a proxy that cuts a long silence."""
    stream_usage: bool = True
    """It takes `stream_options: include_usage`."""


def parse_dialect(text: str) -> Dialect:
    """Read the operator's `name=value` pairs, such as `system_role=user,native_tools=false`.

    Raises:
        ValueError: there is no such capability, or it has no such value.
    """
    dialect = Dialect()
    is_flag = {field.name: isinstance(getattr(dialect, field.name), bool) for field in fields(Dialect)}
    allowed = {
        "limit_parameter": ("max_completion_tokens", "max_tokens"),
        "system_role": ("system", "developer", "user"),
    }
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (part.strip() for part in pair.partition("="))
        if name not in is_flag:
            raise ValueError(f"there is no capability {name!r}; there are {', '.join(is_flag)}")
        choices = allowed.get(name, ("true", "false"))
        if value not in choices:
            raise ValueError(f"{name} is one of {', '.join(choices)}, not {value!r}")
        dialect = replace(dialect, **{name: value == "true" if is_flag[name] else value})
    return dialect


def format_dialect(dialect: Dialect) -> str:
    """What differs from OpenAI's own dialect, as `parse_dialect` reads it."""
    told = [(field.name, getattr(dialect, field.name)) for field in fields(Dialect)]
    return ",".join(f"{name}={str(value).lower()}" for name, value in told if value != getattr(Dialect(), name))


# --- how a request is put -----------------------------------------------------------------------------------


def adapted(request: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Put a request of OpenAI's form into the form that the endpoint takes. The request itself is not changed."""
    put = dict(request)
    limit = put.pop("max_completion_tokens", None)
    if limit is not None:
        put[dialect.limit_parameter] = limit
    for name in ("temperature", "reasoning_effort", "seed"):
        if not getattr(dialect, name):
            put.pop(name, None)
    if not dialect.tool_choice:
        put.pop("tool_choice", None)
    if dialect.stream:
        put["stream"] = True
        if dialect.stream_usage:
            put["stream_options"] = {"include_usage": True}
    messages = [dict(message) for message in cast(list[Message], put["messages"])]
    if not dialect.images:
        messages = [_without_images(message) for message in messages]
    if not dialect.native_tools:
        tools = cast(list[dict[str, Any]], put.pop("tools", []))
        may_call = put.pop("tool_choice", "auto") != "none"
        messages = _tools_in_words(messages, tools if may_call else [])
    put["messages"] = _with_system_as(messages, dialect.system_role)
    return put


def _with_system_as(messages: list[Message], role: str) -> list[Message]:
    if role == "system":
        return messages
    if role == "developer":
        return [{**m, "role": "developer"} if m["role"] == "system" else m for m in messages]
    told = "\n\n".join(str(m["content"]) for m in messages if m["role"] == "system")
    rest = [m for m in messages if m["role"] != "system"]
    for at, message in enumerate(rest):
        if message["role"] == "user" and isinstance(message["content"], str) and told:
            return [*rest[:at], {**message, "content": f"{told}\n\n{message['content']}"}, *rest[at + 1 :]]
    return [{"role": "user", "content": told}, *rest] if told else rest


def _tools_in_words(messages: list[Message], tools: Sequence[dict[str, Any]]) -> list[Message]:
    """Calls and results as plain text, for an endpoint that knows neither."""
    put: list[Message] = []
    for message in messages:
        calls = cast(list[dict[str, Any]], message.pop("tool_calls", None) or [])
        if calls:
            written = "\n".join(_call_in_words(call["function"]) for call in calls)
            said = str(message.get("content") or "")
            message["content"] = said if "<tool_call>" in said else f"{said}\n{written}".strip()
        elif message["role"] == "tool":
            message = {"role": "user", "content": f"Result of {message['tool_call_id']}:\n{message['content']}"}
        put.append(message)
    if tools:
        lines: list[str] = [json.dumps(tool["function"], ensure_ascii=False) for tool in tools]
        told = "\n".join(["You can call these tools:", *lines, _HOW_TO_CALL])
        at = next((n for n, message in enumerate(put) if message["role"] == "system"), None)
        if at is None:
            put.insert(0, {"role": "system", "content": told})
        else:
            put[at] = {**put[at], "content": f"{put[at]['content']}\n\n{told}"}
    return _merged(put)


_HOW_TO_CALL = (
    'To call one, write a line <tool_call>{"name": "…", "arguments": {…}}</tool_call>, and nothing after your calls.'
)


def _call_in_words(function: dict[str, Any]) -> str:
    arguments = function.get("arguments") or "{}"
    return f'<tool_call>{{"name": {json.dumps(function["name"])}, "arguments": {arguments}}}</tool_call>'


def _merged(messages: list[Message]) -> list[Message]:
    """Several user messages in a row as one: templates that know no tools often want roles to alternate."""
    put: list[Message] = []
    for message in messages:
        last = put[-1] if put else {}
        if last.get("role") == message["role"] == "user" and all(
            isinstance(m["content"], str) for m in (last, message)
        ):
            put[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}"}
        else:
            put.append(message)
    return put


def _without_images(message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = cast(list[dict[str, Any]], content)
    texts = [str(part["text"]) if part.get("type") == "text" else "[an image that you cannot see]" for part in parts]
    return {**message, "content": "\n".join(texts)}


# --- what an endpoint's refusal tells ------------------------------------------------------------------------

_REFUSED: Sequence[tuple[re.Pattern[str], dict[str, Any]]] = [
    (re.compile(r"stream_options|include_usage", re.I), {"stream_usage": False}),
    (re.compile(r"\bstream(ing)?\b", re.I), {"stream": True}),
    (re.compile(r"reasoning[_ ]effort", re.I), {"reasoning_effort": False}),
    (re.compile(r"temperature", re.I), {"temperature": False}),
    (re.compile(r"\bseed\b", re.I), {"seed": False}),
    (re.compile(r"tool_choice", re.I), {"tool_choice": False}),
    (re.compile(r"image", re.I), {"images": False}),
    (re.compile(r"developer role|system role|role.{0,20}(system|developer)|(system|developer).{0,20}role", re.I), {}),
    (re.compile(r"\btools?\b|function.?call", re.I), {"native_tools": False}),
]
"""What an error text names, and what is then left out. The first that was in the request counts."""


def learned(dialect: Dialect, error: str, request: dict[str, Any]) -> Dialect | None:
    """The dialect after an endpoint refused `request` (as it was sent) with `error`; `None` when it taught nothing."""
    sent = {
        "stream_usage": "stream_options" in request,
        "stream": "stream" not in request,
        "reasoning_effort": "reasoning_effort" in request,
        "temperature": "temperature" in request,
        "seed": "seed" in request,
        "tool_choice": "tool_choice" in request,
        "images": "image_url" in str(request["messages"]),
        "native_tools": "tools" in request,
    }
    if dialect.limit_parameter in request and dialect.limit_parameter in error:
        other: Any = "max_tokens" if dialect.limit_parameter == "max_completion_tokens" else "max_completion_tokens"
        return replace(dialect, limit_parameter=other)
    for pattern, change in _REFUSED:
        if not pattern.search(error):
            continue
        if not change:  # a role: the next one that endpoints know
            following = {"system": "developer", "developer": "user"}.get(dialect.system_role)
            wanted = "user" if dialect.system_role == "system" and "developer" not in error else following
            if wanted is not None and any(m["role"] in {"system", "developer"} for m in request["messages"]):
                return replace(dialect, system_role=cast(Any, wanted))
            continue
        ((name, _),) = change.items()
        if sent[name]:
            return replace(dialect, **change)
    return None


# --- how a reply is read -------------------------------------------------------------------------------------

_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THINKING_CLOSED_ONLY = re.compile(r"^.*?</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)
_XML_CALL = re.compile(r"<(tool_call|function_call|tool)>\s*(.*?)\s*</\1>", re.DOTALL)
_OPEN_XML_CALL = re.compile(r"<(?:tool_call|function_call)>\s*(.*?)\s*$", re.DOTALL)
_FUNCTION_CALL = re.compile(r"<function[=\s]\"?(?P<name>[\w.-]+)\"?\s*>\s*(?P<body>.*?)\s*</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter[=\s]\"?(?P<name>[\w.-]+)\"?\s*>\s*(?P<value>.*?)\s*</parameter>", re.DOTALL)
_MISTRAL = re.compile(r"\[TOOL_CALLS\]\s*(.*)$", re.DOTALL)
_PYTHON_TAG = re.compile(r"<\|python_tag\|>\s*(.*?)(?:<\|eom_id\|>|$)", re.DOTALL)
_FENCE = re.compile(r"```(?:json|tool_call|tool_code|xml)?\s*\n(.*?)```", re.DOTALL)


def strip_thinking(text: str) -> str:
    """Remove a reasoning model's `<think>` blocks, also one whose opening tag the server kept for itself."""
    text = _THINKING.sub("", text)
    return _THINKING_CLOSED_ONLY.sub("", text, count=1).strip()


def text_calls(text: str, offered: Collection[str]) -> list[tuple[str, str]]:
    """Tool calls that a model wrote as text, as (name, arguments as JSON), of tools that were `offered`.

    Read are `<tool_call>` with JSON in it, `<function=NAME>` with JSON or `<parameter=…>` in it, `[TOOL_CALLS]`,
    `<|python_tag|>`, a fenced block, and a reply that is nothing but the JSON of a call.
    """
    said = strip_thinking(text)
    found = [call for call in _written_calls(said) if call[0] in offered]
    return list(dict.fromkeys(found))


def _written_calls(text: str) -> Iterator[tuple[str, str]]:
    bodies = [match[2] for match in _XML_CALL.finditer(text)]
    if not bodies:
        bodies = [match[1] for match in _OPEN_XML_CALL.finditer(text)]
    for match in _FUNCTION_CALL.finditer(text):
        parameters = {p["name"]: _value(p["value"]) for p in _PARAMETER.finditer(match["body"])}
        yield match["name"], json.dumps(parameters, ensure_ascii=False) if parameters else match["body"] or "{}"
    bodies += [match[1] for pattern in (_MISTRAL, _PYTHON_TAG, _FENCE) for match in pattern.finditer(text)]
    if text.startswith(("{", "[")):
        bodies.append(text)
    for body in bodies:
        yield from _json_calls(body)


def _json_calls(body: str) -> Iterator[tuple[str, str]]:
    decoder, at = json.JSONDecoder(), 0
    while (at := _next_json(body, at)) >= 0:
        try:
            value, at = decoder.raw_decode(body, at)
        except (json.JSONDecodeError, RecursionError):
            return
        for item in cast(list[Any], value) if isinstance(value, list) else [value]:
            call = _json_call(item)
            if call is not None:
                yield call


def _next_json(text: str, at: int) -> int:
    places = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
    return min(places, default=-1)


def _json_call(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, dict):
        return None
    members = cast(dict[str, Any], value)
    if isinstance(members.get("function"), dict):
        members = cast(dict[str, Any], members["function"])
    name = members.get("name") or members.get("tool") or members.get("function")
    arguments: Any = members.get("arguments", members.get("parameters", {}))
    if not isinstance(name, str):
        return None
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
