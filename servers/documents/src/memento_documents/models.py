"""The operator's models for pictures and speech, behind any OpenAI-compatible endpoint.

Owns the two requests (`/chat/completions` with pictures, `/audio/transcriptions`) and what their failures are called.
Which endpoint, which model and which key are settings; nothing a caller says changes where the data goes.
Wire: https://platform.openai.com/docs/api-reference (chat/create, audio/createTranscription).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import httpx2

from memento_kit.model_use import note_model_use

__all__ = ["Endpoint", "ModelFailed", "Models"]

_MAX_ANSWER_TOKENS = 1_500


class ModelFailed(Exception):
    """The model gave nothing usable. The message is one line for the model that asked."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is. `key` is sent as bearer token; None sends none."""

    base_url: str
    model: str
    key: str | None
    timeout_seconds: float


class Models:
    """Asks them. Use as an async context manager; `transport` is replaced by tests."""

    def __init__(
        self, vision: Endpoint | None, speech: Endpoint | None, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self.vision = vision
        self.speech = speech
        self._client = httpx2.AsyncClient(transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def describe(self, question: str, pictures: Sequence[tuple[str, str]]) -> str:
        """Ask the vision model about pictures, each a label and a JPEG in base64.

        Raises:
            ModelFailed: no answer, an error, or an empty answer.
        """
        assert self.vision is not None
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        for label, jpeg in pictures:
            content += [{"type": "text", "text": label}] if label else []
            content.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg}"}})
        body = {
            "model": self.vision.model,
            "messages": [{"role": "user", "content": content}],
            "max_completion_tokens": _MAX_ANSWER_TOKENS,
        }
        answer = await self._post(self.vision, "vision", "/chat/completions", json=body)
        try:
            text: Any = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str) or not text.strip():
            raise ModelFailed(f"The vision model {self.vision.model!r} gave no text.")
        return text.strip()

    async def transcribe(self, ogg: bytes, language: str | None) -> str:
        """Turn Ogg Opus sound into text; empty where nobody speaks.

        Raises:
            ModelFailed: no answer, or an error.
        """
        assert self.speech is not None
        fields = {"model": self.speech.model, "response_format": "json"} | ({"language": language} if language else {})
        files = {"file": ("sound.ogg", ogg, "audio/ogg")}
        answer = await self._post(self.speech, "transcription", "/audio/transcriptions", data=fields, files=files)
        text = answer.get("text")
        if not isinstance(text, str):
            raise ModelFailed(f"The transcription model {self.speech.model!r} gave no text.")
        return text.strip()

    async def _post(self, endpoint: Endpoint, what: str, path: str, **request: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        named = f"The {what} model {endpoint.model!r}"
        try:
            answer = await self._client.post(
                endpoint.base_url.rstrip("/") + path, headers=headers, timeout=endpoint.timeout_seconds, **request
            )
        except httpx2.TimeoutException as exc:
            raise ModelFailed(f"{named} did not answer within {endpoint.timeout_seconds:g} s.") from exc
        except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
            raise ModelFailed(f"{named} cannot be reached ({type(exc).__name__}).") from exc
        if answer.status_code >= 400:
            raise ModelFailed(f"{named} refused with HTTP {answer.status_code}: {' '.join(answer.text.split())[:200]}")
        try:
            value: object = answer.json()
        except ValueError as exc:
            raise ModelFailed(f"{named} answered with something that is no JSON.") from exc
        if not isinstance(value, dict):
            raise ModelFailed(f"{named} answered with something that is no object.")
        told = cast(dict[str, Any], value)
        note_model_use(endpoint.model, endpoint.base_url, told)
        return told
