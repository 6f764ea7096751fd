"""How much of a conversation is sent: old tool results give way first, then whole old turns, never the task.

Owns the trimming of one executor's history. A turn is an assistant message with all that answers it; a call and its
result are kept or dropped together, for the API refuses one without the other. Trimming changes what a provider has
cached, so it is done rarely and then thoroughly: only above the high-water mark, and down to the low one.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from memento.model import Message

__all__ = ["size_chars", "trimmed"]

_HEAD = 2
"""The system message and the task."""
_KEPT_TURNS = 2
"""The newest turns, which the model is at work on."""
_IMAGE_CHARS = 4_000
"""What an image is taken for: about a thousand tokens."""
_LEFT_OUT = "[Earlier turns of this work were left out here to keep the conversation short.]"
_SHORT_CHARS = 400
"""A result that is no longer than this saves nothing when it is put away."""


def size_chars(messages: Sequence[Message]) -> int:
    """Characters that `messages` hold, images at a flat rate."""
    return sum(_size(message) for message in messages)


def trimmed(
    messages: Sequence[Message], *, high_chars: int, low_chars: int, put_away: Callable[[str], str]
) -> list[Message]:
    """Return `messages` unchanged while they hold at most `high_chars`, else at most about `low_chars` of them.

    The first two messages and the two newest turns always stay as they are.

    Args:
        put_away: called with a result's text; stores it, and returns what stands for it.
    """
    if size_chars(messages) <= high_chars:
        return list(messages)
    head, turns = list(messages[:_HEAD]), _turns(messages[_HEAD:])
    old, new = turns[:-_KEPT_TURNS], turns[-_KEPT_TURNS:]
    excess = size_chars(messages) - low_chars
    for turn in old:
        for at, message in enumerate(turn):
            if excess <= 0:
                break
            text = message.get("content")
            if message.get("role") == "tool" and isinstance(text, str) and len(text) > _SHORT_CHARS:
                turn[at] = {**message, "content": put_away(text)}
                excess -= len(text) - len(turn[at]["content"])
            elif isinstance(text, list):  # images, which the model has seen
                turn[at] = {**message, "content": "[images that were shown here]"}
                excess -= _size(message) - _size(turn[at])
    note: list[Message] = []
    while old and excess > 0:
        excess -= size_chars(old.pop(0))
        note = [{"role": "user", "content": _LEFT_OUT}]
    return [*head, *note, *(message for turn in [*old, *new] for message in turn)]


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Each turn begins with an assistant message; what stands before the first is a turn of its own."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.get("role") == "assistant" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _size(message: Message) -> int:
    content = message.get("content")
    if isinstance(content, list):
        parts = cast(list[dict[str, Any]], content)
        size = sum(_IMAGE_CHARS if part.get("type") == "image_url" else len(str(part)) for part in parts)
    else:
        size = len(content or "")
    return size + len(str(message.get("tool_calls") or ""))
