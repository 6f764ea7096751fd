"""The one way to a model: an OpenAI-compatible Chat Completions endpoint, and what can be wrong with its reply.

Owns the client, the retries, the reading of replies (some servers answer 200 with an error page, without
choices, with arguments as an object …: guides/code_llm_scale.md §B1) and the usage of each call. It does not
know what is asked, nor why.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionFunctionToolParam

from memento.events import Usage
from memento.prices import price_usd

__all__ = [
    "Message",
    "Model",
    "ModelError",
    "ModelRefused",
    "ModelReplyBroken",
    "ModelUnavailable",
    "Reply",
    "ToolRequest",
    "read_message",
]

Message = dict[str, Any]
"""A chat message as it goes over the wire. The model's own messages are kept verbatim: some carry signatures
that the server wants back (guides/code_llm_scale.md §B1)."""

_MAX_QUOTED_CHARS = 300


class ModelError(Exception):
    """No usable reply. The message is one line and says what to do."""


class ModelUnavailable(ModelError):
    """No answer in time, no connection, too many requests, or a 5xx, also after the retries: it may work later."""


class ModelRefused(ModelError):
    """The endpoint said no (key, model name, request): the operator must change something."""


class ModelReplyBroken(ModelError):
    """The endpoint answered with something that is not a chat completion."""


@dataclass(frozen=True)
class ToolRequest:
    """A tool call that the model wrote. `arguments` is its JSON, not yet parsed."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    message: Message
    """What goes back into the history."""
    text: str
    tool_requests: list[ToolRequest]
    finish_reason: str | None
    usage: Usage
    seconds: float
    refusal: str | None = None


@dataclass
class Model:
    """One model at one endpoint. The caller owns `client` and closes it."""

    client: AsyncOpenAI
    name: str
    temperature: float | None = None
    reasoning_effort: str | None = None
    max_output_tokens: int | None = None
    seed: int | None = None
    is_free: bool = False
    """Costs nothing by construction: the built-in stand-in."""
    _limit_parameter: str = field(default="max_completion_tokens", init=False)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ChatCompletionFunctionToolParam] = (),
        use_tools: bool = True,
    ) -> Reply:
        """Ask for the next message.

        With `use_tools=False` the tools stay in the request and may not be called: the list is part of what a
        provider caches.

        Raises:
            ModelUnavailable: it may work later.
            ModelRefused: the key, the model's name or the request is not accepted.
            ModelReplyBroken: the endpoint's answer cannot be read.
        """
        request: dict[str, Any] = {"model": self.name, "messages": list(messages)}
        if tools:
            request["tools"] = list(tools)
            if not use_tools:
                request["tool_choice"] = "none"
        optional = {
            "temperature": self.temperature,
            "reasoning_effort": self.reasoning_effort,
            "seed": self.seed,
            self._limit_parameter: self.max_output_tokens,
        }
        request.update({key: value for key, value in optional.items() if value is not None})
        started = time.monotonic()
        completion = await self._send(request)
        return self._read(completion, time.monotonic() - started)

    async def _send(self, request: dict[str, Any]) -> ChatCompletion:
        try:
            return await self._create(request)
        except openai.BadRequestError as exc:
            other = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}[
                self._limit_parameter
            ]
            if self._limit_parameter not in request or self._limit_parameter not in str(exc):
                raise self._refused(exc) from exc
            # Older servers know only max_tokens, OpenAI's reasoning models only the other (defect 15): the server
            # has just told us which, so it is asked once more and the answer remembered.
            request[other] = request.pop(self._limit_parameter)
            self._limit_parameter = other
        try:
            return await self._create(request)
        except openai.BadRequestError as exc:
            raise self._refused(exc) from exc

    async def _create(self, request: dict[str, Any]) -> ChatCompletion:
        where = f"{self.name} at {self.client.base_url}"
        try:
            return cast(ChatCompletion, await self.client.chat.completions.create(**request))
        except openai.APITimeoutError as exc:
            raise ModelUnavailable(f"{where} gave no answer in time.") from exc
        except openai.APIConnectionError as exc:
            cause = exc.__cause__ or exc
            raise ModelUnavailable(f"{where} cannot be reached ({type(cause).__name__}: {_line(cause)}).") from exc
        except openai.RateLimitError as exc:
            raise ModelUnavailable(f"{where} says too many requests or no quota (429): {_line(exc)}") from exc
        except openai.InternalServerError as exc:
            raise ModelUnavailable(f"{where} failed with HTTP {exc.status_code}: {_line(exc)}") from exc
        except openai.BadRequestError:
            raise  # `_send` looks at it first
        except openai.APIStatusError as exc:
            raise self._refused(exc) from exc
        except (json.JSONDecodeError, openai.APIError) as exc:
            # The SDK lets a broken body through as a bare JSONDecodeError.
            raise ModelReplyBroken(f"{where} answered with something that is not JSON: {_line(exc)}") from exc

    def _refused(self, exc: openai.APIStatusError) -> ModelRefused:
        hint = {
            401: " Check the API key (OPENAI_API_KEY or MEMENTO_API_KEY).",
            403: " The key may not use this model.",
            404: " Check the model's name and the base URL (it usually ends in /v1).",
        }.get(exc.status_code, "")
        return ModelRefused(
            f"{self.name} at {self.client.base_url} refused the request (HTTP {exc.status_code}): {_line(exc)}.{hint}"
        )

    def _read(self, completion: ChatCompletion, seconds: float) -> Reply:
        # Typed as a completion, but the SDK returns what came: a str for an HTML page, choices=None for {"error": …}.
        choices: Any = getattr(completion, "choices", None)
        choice: Any = cast(list[Any], choices)[0] if isinstance(choices, list) and choices else None
        written: Any = getattr(choice, "message", None)
        if not hasattr(written, "model_dump"):
            raise ModelReplyBroken(
                f"{self.name} at {self.client.base_url} answered without any choice: {_line(completion)}. "
                "Is the base URL right (it usually ends in /v1)?"
            )
        # warnings=False: what a server sends need not fit the SDK's types, and is read below with care.
        message = cast(Message, written.model_dump(exclude_none=True, warnings=False))
        finish_reason = _text_or_none(getattr(choice, "finish_reason", None))
        return read_message(message, finish_reason, self._usage(completion), seconds)

    def _usage(self, completion: ChatCompletion) -> Usage:
        told: Any = getattr(completion, "usage", None)
        details: Any = getattr(told, "prompt_tokens_details", None)
        usage = Usage(
            input_tokens=_count(getattr(told, "prompt_tokens", None)),
            output_tokens=_count(getattr(told, "completion_tokens", None)),
            cached_tokens=None if told is None else _count(getattr(details, "cached_tokens", None)) or 0,
        )
        cost = 0.0 if self.is_free else price_usd(self.name, str(self.client.base_url), usage)
        return usage.model_copy(update={"cost_usd": cost})


def read_message(message: Message, finish_reason: str | None, usage: Usage, seconds: float) -> Reply:
    """What an assistant message says. Reading the `message` of a reply again gives the same reply."""
    message = dict(message)
    requests: list[tuple[ToolRequest, dict[str, Any]]] = []
    taken: set[str] = set()
    for number, call in enumerate(message.get("tool_calls") or []):
        request = _tool_request(call, number, taken)
        if request is not None:
            requests.append((request, call))
            taken.add(request.id)
    if requests:
        message["tool_calls"] = [_as_sent(request, call) for request, call in requests]
    else:
        message.pop("tool_calls", None)
        message.setdefault("content", "")
    content = message.get("content")
    return Reply(
        message=message,
        text=content if isinstance(content, str) else _text_of_parts(content),
        tool_requests=[request for request, _ in requests],
        finish_reason=finish_reason,
        usage=usage,
        seconds=seconds,
        refusal=_text_or_none(message.get("refusal")),
    )


def _count(value: object) -> int | None:
    """A token count, or unknown when the server sent something else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _tool_request(call: dict[str, Any], number: int, taken: set[str]) -> ToolRequest | None:
    function = call.get("function")
    if not isinstance(function, dict):
        return None
    named = cast(dict[str, Any], function)
    arguments = named.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    id_ = str(call.get("id") or f"call_{number}")
    while id_ in taken:  # some servers give two calls of a turn one id, and an API refuses results that share one
        id_ = f"{id_}_{number}"
    return ToolRequest(id=id_, name=str(named.get("name") or ""), arguments=text)


def _as_sent(request: ToolRequest, call: dict[str, Any]) -> dict[str, Any]:
    """The call verbatim, with the id and the argument text that the next request needs."""
    function = {**cast(dict[str, Any], call["function"]), "arguments": request.arguments}
    kept = {key: value for key, value in call.items() if key != "index"}  # a leftover of some servers' streaming
    return {**kept, "id": request.id, "type": "function", "function": function}


def _text_of_parts(content: Any) -> str:
    parts = cast(list[Any], content) if isinstance(content, list) else []
    texts = [cast(dict[str, Any], part).get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _line(problem: object) -> str:
    text = " ".join(str(problem).split())
    return text if len(text) <= _MAX_QUOTED_CHARS else text[:_MAX_QUOTED_CHARS] + "…"
