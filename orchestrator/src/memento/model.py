"""The one way to a model: an OpenAI-compatible Chat Completions endpoint, and what can be wrong with its reply.

Owns the client, the retries, the reading of replies (some servers answer 200 with an error page, without
choices, with arguments as an object …: guides/code_llm_scale.md §B1) and the usage of each call. How endpoints
differ is `dialects`' business. It does not know what is asked, nor why.
"""

import json
import logging
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionFunctionToolParam

from memento.dialects import Dialect, adapted, learned, text_calls
from memento.events import Usage, reported_count
from memento.prices import price_usd
from memento.streams import JoinedReply
from memento.tokens import TokenEstimator

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
_MAX_LESSONS = 5
"""Refusals of one request from which something is learned."""
_FILTERED = "the provider's content filter stopped the reply"

_REFUSALS = (openai.BadRequestError, openai.UnprocessableEntityError, openai.InternalServerError)
"""Answers that may teach something. Of a 500 only one thing is believed, that no images are taken, because llama.cpp's
server says it so; else a failure that happens to name tools or streams would take them away."""

logger = logging.getLogger(__name__)


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
    dialect: Dialect = field(default_factory=Dialect)
    """What the endpoint takes; learns from what it refuses."""
    estimator: TokenEstimator = field(default_factory=TokenEstimator)

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
            "max_completion_tokens": self.max_output_tokens,
        }
        request.update({key: value for key, value in optional.items() if value is not None})
        started = time.monotonic()
        completion = await self._send(request)
        reply = self._read(completion, time.monotonic() - started, [t["function"]["name"] for t in tools if use_tools])
        return replace(reply, usage=self._counted(reply, messages, tools))

    async def _send(self, request: dict[str, Any]) -> ChatCompletion:
        """Send a request in the endpoint's dialect; what a refusal teaches is remembered, and it is sent once more."""
        for _ in range(_MAX_LESSONS):
            put = adapted(request, self.dialect)
            try:
                return await self._create(put)
            except _REFUSALS as exc:
                taught = learned(self.dialect, str(exc), put)
                is_failure = isinstance(exc, openai.InternalServerError)
                if taught is None or (is_failure and taught != replace(self.dialect, images=False)):
                    raise self._refused(exc) from exc
                logger.info("%s at %s: %s", self.name, self.client.base_url, taught)
                self.dialect = taught
        put = adapted(request, self.dialect)
        try:
            return await self._create(put)
        except _REFUSALS as exc:
            raise self._refused(exc) from exc

    async def _create(self, request: dict[str, Any]) -> ChatCompletion:
        where = f"{self.name} at {self.client.base_url}"
        try:
            # `request` is in wire form already: as arguments, the SDK would walk the whole history in every turn to
            # rename what needs no renaming (13 ms of processor time a call after a hundred turns).
            if request.get("stream"):
                return await self._streamed(request, where)
            return await self.client.chat.completions.create(model=request["model"], messages=[], extra_body=request)
        except openai.APITimeoutError as exc:
            raise ModelUnavailable(f"{where} gave no answer in time.") from exc
        except openai.APIConnectionError as exc:
            cause = exc.__cause__ or exc
            raise ModelUnavailable(f"{where} cannot be reached ({type(cause).__name__}: {_line(cause)}).") from exc
        except openai.RateLimitError as exc:
            raise ModelUnavailable(f"{where} says too many requests or no quota (429): {_line(exc)}") from exc
        except _REFUSALS:
            raise  # `_send` looks at it first
        except openai.APIStatusError as exc:
            raise self._refused(exc) from exc
        except (json.JSONDecodeError, openai.APIError) as exc:
            # The SDK lets a broken body through as a bare JSONDecodeError.
            raise ModelReplyBroken(f"{where} answered with something that is not JSON: {_line(exc)}") from exc

    async def _streamed(self, request: dict[str, Any], where: str) -> ChatCompletion:
        """A streamed reply as a whole. The client's time limit is that between two pieces.

        The SDK takes a stream that just stops for one that ended, and retries none that broke: both are done here.
        """
        for attempt in range(self.client.max_retries + 1):
            reply = JoinedReply()
            try:
                stream = await self.client.chat.completions.create(
                    model=request["model"], messages=[], stream=True, extra_body=request
                )
                async with stream:
                    async for chunk in stream:
                        reply.add(chunk.to_dict())
            except openai.APIConnectionError:
                if reply.is_empty or attempt == self.client.max_retries:
                    raise
                continue
            if reply.is_empty:
                raise ModelReplyBroken(f"{where} was asked for a stream and sent none.")
            if reply.finish_reason is not None:
                return ChatCompletion.construct(**reply.completion())
        raise ModelUnavailable(f"{where} stopped in the middle of its answer.")

    def _refused(self, exc: openai.APIStatusError) -> ModelError:
        if isinstance(exc, openai.InternalServerError):
            where = f"{self.name} at {self.client.base_url}"
            return ModelUnavailable(f"{where} failed with HTTP {exc.status_code}: {_line(exc)}")
        hint = {
            401: " Check the API key (OPENAI_API_KEY or MEMENTO_API_KEY).",
            403: " The key may not use this model.",
            404: " Check the model's name and the base URL (it usually ends in /v1).",
        }.get(exc.status_code, "")
        return ModelRefused(
            f"{self.name} at {self.client.base_url} refused the request (HTTP {exc.status_code}): {_line(exc)}.{hint}"
        )

    def _read(self, completion: ChatCompletion, seconds: float, offered: Collection[str]) -> Reply:
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
        if offered and not message.get("tool_calls"):
            _take_text_calls(message, offered)
        return read_message(message, finish_reason, self._usage(completion), seconds)

    def _usage(self, completion: ChatCompletion) -> Usage:
        told: Any = getattr(completion, "usage", None)
        prompt: Any = getattr(told, "prompt_tokens_details", None)
        written: Any = getattr(told, "completion_tokens_details", None)
        sound = [reported_count(getattr(details, "audio_tokens", None)) for details in (prompt, written)]
        return self._priced(
            Usage(
                input_tokens=reported_count(getattr(told, "prompt_tokens", None)),
                output_tokens=reported_count(getattr(told, "completion_tokens", None)),
                cached_tokens=None if told is None else reported_count(getattr(prompt, "cached_tokens", None)) or 0,
                reasoning_tokens=reported_count(getattr(written, "reasoning_tokens", None)),
                audio_tokens=None if sound == [None, None] else sum(filter(None, sound)),
                image_tokens=reported_count(getattr(prompt, "image_tokens", None)),
            )
        )

    def _counted(
        self, reply: Reply, messages: Sequence[Message], tools: Sequence[ChatCompletionFunctionToolParam]
    ) -> Usage:
        """The usage that the server told, or our own count of it, marked; a count is corrected by what is told."""
        usage, counted = reply.usage, self.estimator.input_tokens(messages, tools)
        if usage.input_tokens is not None and usage.output_tokens is not None:
            self.estimator.learn(counted, usage.input_tokens)
            return usage
        estimated = usage.model_copy(
            update={
                "input_tokens": counted if usage.input_tokens is None else usage.input_tokens,
                "output_tokens": self.estimator.output_tokens(reply.message)
                if usage.output_tokens is None
                else usage.output_tokens,
                "cached_tokens": usage.cached_tokens or 0,
                "is_estimated": True,
            }
        )
        return self._priced(estimated)

    def _priced(self, usage: Usage) -> Usage:
        cost = 0.0 if self.is_free else price_usd(self.name, str(self.client.base_url), usage)
        return usage.model_copy(update={"cost_usd": cost})


def _take_text_calls(message: Message, offered: Collection[str]) -> None:
    """Tool calls that were written as text become calls of the message, whose text stays as it came."""
    content = message.get("content")
    calls = text_calls(content, offered) if isinstance(content, str) else []
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{secrets.token_hex(4)}", "type": "function", "function": {"name": name, "arguments": written}}
            for name, written in calls
        ]


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
        refusal=_text_or_none(message.get("refusal")) or (_FILTERED if finish_reason == "content_filter" else None),
    )


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
