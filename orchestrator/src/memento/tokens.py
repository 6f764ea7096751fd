"""How many tokens a text has, about: for replies whose server does not say, and for the reckoning before a call.

Owns the counting without a tokenizer (none is downloaded) and its correction by what servers do report. The weights are
measured against o200k (guides/code_llm_scale.md B4: English -9 %, code -1 %, JSON -5 %, HTML -3 %, Chinese +18 %,
German +5 %); per model the ratio of reported to counted tokens then corrects them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

__all__ = ["TokenEstimator", "count_tokens"]

_PIECE = re.compile(
    r"(?P<blob>[A-Za-z0-9+/]{60,}={0,2})|(?P<word>[^\W\d_]+)|(?P<number>\d+)|(?P<space>\s+)|(?P<sign>.)", re.DOTALL
)
_PER_MESSAGE = 4
_PER_IMAGE = 1_000
_WEIGHT_OF_NEW = 0.3


@lru_cache(maxsize=1024)  # a conversation is counted anew in every turn, and most of it is what it was
def count_tokens(text: str) -> int:
    """Tokens of `text`, about."""
    total = 0.0
    for match in _PIECE.finditer(text):
        piece = match[0]
        match match.lastgroup:
            case "word" if piece.isascii():
                total += max(1.0, len(piece) / 6)
            case "word":
                total += max(1.0, len(piece) * (0.75 if ord(piece[0]) > 0x2E80 else 0.4))
            case "number":
                total += max(1.0, len(piece) / 3)
            case "blob":
                total += len(piece) * 0.75
            case "sign":
                total += 0.55
            case _:
                total += 0.1
    return round(total)


@dataclass
class TokenEstimator:
    """Of one model: counts, and learns from what its server reports."""

    correction: float = 1.0
    """Reported tokens over counted ones."""

    def input_tokens(self, messages: Sequence[dict[str, Any]], tools: Sequence[Any] = ()) -> int:
        counted = sum(_PER_MESSAGE + _message_tokens(message) for message in messages)
        return round(self.correction * (counted + (count_tokens(str(list(tools))) if tools else 0)))

    def output_tokens(self, message: dict[str, Any]) -> int:
        return round(self.correction * _message_tokens(message))

    def learn(self, counted: int, reported: int | None) -> None:
        """Take in that `counted` (with the correction so far) was `reported` by the server."""
        if reported and counted:
            ratio = min(4.0, max(0.25, reported / counted)) * self.correction
            self.correction += _WEIGHT_OF_NEW * (ratio - self.correction)


def _message_tokens(message: dict[str, Any]) -> int:
    content: Any = message.get("content")
    total = count_tokens(str(message["tool_calls"])) if message.get("tool_calls") else 0
    total += count_tokens(str(message.get("reasoning_content") or ""))
    if isinstance(content, list):
        for part in cast(list[dict[str, Any]], content):
            total += _PER_IMAGE if part.get("type") == "image_url" else count_tokens(str(part.get("text") or ""))
        return total
    return total + count_tokens(content or "")
