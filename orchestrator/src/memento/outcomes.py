"""What came of a tool call, read from MCP's result: words for the model, files, and what the call cost.

Owns every content part that MCP has, and what servers tell beside it in `_meta`: how long the result holds, what it
cost, which models it used. It calls nothing and keeps nothing.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from memento.events import ModelUse, Usage, reported_count
from memento.prices import price_usd

__all__ = ["FilePart", "ToolOutcome", "links_to", "read_contents", "read_models", "read_result", "result_text"]

_COST_KEY = "memento/cost_usd"
_MODELS_KEY = "memento/models"


@dataclass(frozen=True)
class FilePart:
    """A part of a result that is no text: an image, audio, an embedded file."""

    mime_type: str
    data: bytes


@dataclass(frozen=True)
class ToolOutcome:
    """What came of a call, in words for the model, and the parts that are no words."""

    text: str
    is_error: bool = False
    structured: dict[str, Any] | None = None
    files: tuple[FilePart, ...] = ()
    cached: bool = False
    """It is the answer to an earlier call."""
    cost_usd: float = 0.0
    """What the server says that the call cost, in the result's `_meta` under `memento/cost_usd`."""
    models: tuple[ModelUse, ...] = ()
    """Models that the server says it used for the call, in the result's `_meta` under `memento/models`."""
    may_be_kept: bool = True
    """It is the tool's own answer; a server that was lost or too slow is not."""
    holds_seconds: float | None = None
    """How long it holds at most, where the server says so: `ttlMs` in the result's `_meta`, as MCP 2026-07-28 names
    the same thing on lists and resources."""


def result_text(result: CallToolResult) -> str:
    """All parts of a tool result as text; what cannot be text is left out."""
    return read_result(result).text


def read_result(result: CallToolResult) -> ToolOutcome:
    """All parts of a tool result: text and links as text, images, audio and embedded files as files.

    Structured content is its own field, and the text where there is no other.
    """
    texts: list[str] = []
    files: list[FilePart] = []
    for block in result.content:
        match block:
            case TextContent():
                texts.append(block.text)
            case ImageContent() | AudioContent():
                files.append(FilePart(block.mime_type, _decoded(block.data)))
            case ResourceLink():
                texts.append(f"[resource: {block.uri} {block.description or block.name}]")
            case EmbeddedResource():
                inner = read_contents([block.resource])
                texts += [inner.text] if isinstance(block.resource, TextResourceContents) else []
                files += inner.files
    structured = result.structured_content
    if structured is not None and not texts:
        texts.append(json.dumps(structured, ensure_ascii=False))
    return ToolOutcome(
        "\n".join(texts),
        result.is_error or False,
        structured,
        tuple(files),
        holds_seconds=_told_seconds(result),
        cost_usd=_told_cost_usd(result),
        models=read_models(result),
    )


def read_contents(contents: Sequence[TextResourceContents | BlobResourceContents]) -> ToolOutcome:
    """A resource as what a model is given: its text, and what is no text as files."""
    texts = [part.text for part in contents if isinstance(part, TextResourceContents)]
    blobs = [part for part in contents if not isinstance(part, TextResourceContents)]
    files = [FilePart(part.mime_type or "application/octet-stream", _decoded(part.blob)) for part in blobs]
    return ToolOutcome("\n".join(texts), files=tuple(files))


def links_to(text: str, uri: str) -> bool:
    """Whether the text of a result tells of this resource."""
    return f"[resource: {uri} " in text


def _told_seconds(result: CallToolResult) -> float | None:
    milliseconds: object = (result.meta or {}).get("ttlMs")
    if not isinstance(milliseconds, int | float) or isinstance(milliseconds, bool):
        return None
    return max(0.0, milliseconds / 1_000)


def _told_cost_usd(result: CallToolResult) -> float:
    """What a server says that a call cost; 0 where it says nothing that can be read."""
    cost: object = (result.meta or {}).get(_COST_KEY)
    return float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0 else 0.0


def read_models(result: CallToolResult) -> tuple[ModelUse, ...]:
    """The models that a server says it used for a call, priced by where they are; what cannot be read is unknown."""
    told: object = (result.meta or {}).get(_MODELS_KEY)
    if not isinstance(told, list):
        return ()
    uses = [cast(dict[str, Any], use) if isinstance(use, dict) else {} for use in cast(list[object], told)]
    return tuple(_model_use(use) for use in uses)


def _model_use(use: dict[str, Any]) -> ModelUse:
    model = str(use.get("model") or "a model")
    read, written = (reported_count(use.get(key)) for key in ("input_tokens", "output_tokens"))
    usage = Usage(input_tokens=read, output_tokens=written, cached_tokens=0)
    return ModelUse(
        model=model,
        usage=usage.model_copy(update={"cost_usd": price_usd(model, str(use.get("base_url") or ""), usage)}),
    )


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except ValueError:
        return data.encode()  # a server that did not encode: kept as it came
