"""Long text in bounded pieces.

Owns where a piece ends and how the next one is named (`next_offset`). It does not know what the text is.
"""

from pydantic import BaseModel, Field

__all__ = ["TextPage", "page_text"]

_BREAK_WINDOW = 0.2
"""A piece may end up to this share of its size early, so that it ends at a paragraph, line or word."""


class TextPage(BaseModel):
    """One piece of a longer text. Offsets and sizes count characters, not bytes."""

    text: str
    offset: int = Field(description="Where this piece starts in the whole text")
    total_chars: int = Field(description="Length of the whole text")
    next_offset: int | None = Field(default=None, description="Pass as `offset` for the next piece; absent at the end")


def page_text(text: str, *, offset: int = 0, max_chars: int) -> TextPage:
    """Cut at most `max_chars` characters from `offset` on, ending at a paragraph, line or word where one is near.

    An offset past the end gives an empty piece, so that reading on from a last page is never an error.
    Pieces joined in order are the whole text again, character by character.

    Raises:
        ValueError: `offset` is negative or `max_chars` is not positive.
    """
    if offset < 0 or max_chars < 1:
        raise ValueError(f"offset must be >= 0 and max_chars >= 1, not {offset} and {max_chars}")
    start = min(offset, len(text))
    end = min(start + max_chars, len(text))
    if end < len(text):
        end = _near_break(text, start, end)
    return TextPage(
        text=text[start:end], offset=start, total_chars=len(text), next_offset=end if end < len(text) else None
    )


def _near_break(text: str, start: int, end: int) -> int:
    earliest = end - int((end - start) * _BREAK_WINDOW)
    for separator in ("\n\n", "\n", " "):
        at = text.rfind(separator, max(start, earliest - len(separator)), end)
        if at >= 0:
            return at + len(separator)
    return end
