"""What models a tool call used, told to the client: whoever pays for a model behind a server wants to see it.

Owns the note that a tool call keeps, and its form in the result's `_meta` under `memento/models`: a list of objects
with `model`, `base_url`, `input_tokens` and `output_tokens`, where null is unknown. It prices nothing.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["MODELS_KEY", "ModelUse", "note_model_use", "noted_model_uses"]

MODELS_KEY = "memento/models"


@dataclass(frozen=True)
class ModelUse:
    """One request to a model. `base_url` is where the request went: a price belongs to a provider, not to a name."""

    model: str
    base_url: str
    input_tokens: int | None
    output_tokens: int | None


_noted: ContextVar[list[ModelUse] | None] = ContextVar("memento_model_uses", default=None)


def note_model_use(model: str, base_url: str, reply: object, *, writes: bool = True) -> None:
    """Note a request that the current tool call made, from the JSON of its `reply`; outside a tool call nothing is.

    Args:
        writes: the model writes tokens; without it (embeddings) the output is none, and is known to be.
    """
    noted = _noted.get()
    if noted is not None:
        read, written = _reported_tokens(reply)
        noted.append(ModelUse(model, base_url, read, written if writes else 0))


def _reported_tokens(reply: object) -> tuple[int | None, int | None]:
    """Input and output tokens as an OpenAI-compatible reply reports them under `usage`; `None` is unknown."""
    usage: object = cast(dict[str, Any], reply).get("usage") if isinstance(reply, dict) else None
    told = cast(dict[str, Any], usage) if isinstance(usage, dict) else {}
    read, written = (told.get("prompt_tokens"), told.get("completion_tokens"))
    if read is None:  # transcription endpoints use the other pair of names
        read, written = told.get("input_tokens"), told.get("output_tokens")
    return _count(read), _count(written)


@contextmanager
def noted_model_uses() -> Generator[list[ModelUse]]:
    """Collect what is noted inside, also in threads and tasks that are started there."""
    noted: list[ModelUse] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
