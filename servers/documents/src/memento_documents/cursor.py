"""The one cursor of all tools: where an answer ended, tied to the question that it answered.

A cursor is opaque to the caller: it comes as `next_cursor`, or with a passage or heading, and goes back with the same
arguments. Position and a checksum of the question are in it, so that one that is passed with another file or other
pages is refused instead of answered with something else. It is no secret and grants nothing.
"""

import base64
import hashlib
import json

from memento_documents.kinds import Unreadable

__all__ = ["position_of", "reading", "to_cursor"]

_CHECK_BYTES = 4
_MAX_POSITION_BYTES = 6


def to_cursor(position: int, *question: object) -> str:
    """Name a position (characters, rows, entries, milliseconds: the tool knows) in the answer to `question`."""
    body = position.to_bytes(max(1, (position.bit_length() + 7) // 8), "big")
    return base64.urlsafe_b64encode(_check(question) + body).decode("ascii").rstrip("=")


def position_of(cursor: str | None, *question: object) -> int:
    """The position that `cursor` names; 0 without one.

    Raises:
        Unreadable: it is no cursor, or one of another question.
    """
    if cursor is None:
        return 0
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
    if not 1 <= len(body) <= _MAX_POSITION_BYTES:
        raise Unreadable(f"{cursor!r} is no cursor; leave it out to begin, and pass `next_cursor` of an answer then.")
    if check != _check(question):
        raise Unreadable(
            "This cursor belongs to another call: pass it with the same source and the same other arguments as the "
            "call that gave it, or leave it out to begin anew."
        )
    return int.from_bytes(body, "big")


def reading(
    source: str, pages: str | None = None, sheet: str | None = None, range: str | None = None, format: str = "markdown"
) -> tuple[object, ...]:
    """The question of `read_document`; passages and headings give cursors of the whole document's."""
    return "read_document", source, pages, sheet, range, format


def _check(question: tuple[object, ...]) -> bytes:
    return hashlib.sha256(json.dumps(question).encode()).digest()[:_CHECK_BYTES]
