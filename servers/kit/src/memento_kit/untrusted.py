"""Text from outside, marked as what it is: data that someone else wrote.

Owns the fence, and what is taken out of a text before a model sees it. It cannot stop a model from obeying
what stands inside; it makes the border visible and keeps the text from forging it: the mark is random and
made after the text, and nothing that looks like a fence survives inside one.
"""

import re
import secrets
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

if TYPE_CHECKING:
    from mcp.types import CallToolResult

__all__ = ["fence", "strip_invisible", "unfence", "untrusted_result"]

_MAX_SOURCE_CHARS = 300

_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\)|[ -/]*[0-Z\\^-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
"""ECMA-48 escape sequences: CSI, *terminated* control strings (an open one would swallow the rest), the others."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_HIDDEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's default-ignorable characters (DerivedCoreProperties.txt) but for joiners and variation selectors."""
_JOINERS = "\u200c\u200d"
_SELECTORS = "\ufe00-\ufe0f"
_JOINABLE = rf"[^\x00-\u02ff\s{_HIDDEN}{_JOINERS}]"
"""Persian, Indic scripts and emoji need joiners *between* two of their characters; nothing else does."""
_INVISIBLE = re.compile(
    # The look ahead is only for speed: it rules most characters out at once.
    rf"(?=[{_HIDDEN}{_JOINERS}{_SELECTORS}])(?:[{_HIDDEN}]|[{_JOINERS}](?!{_JOINABLE})|(?<!{_JOINABLE})[{_JOINERS}]"
    # A selector says how the one symbol before it is drawn; a run of them is a hidden message.
    rf"|(?<=[\x00-\u02ff\s{_HIDDEN}{_JOINERS}{_SELECTORS}])[{_SELECTORS}]|\A[{_SELECTORS}])"
)

_SUSPECT = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{_HIDDEN}{_JOINERS}{_SELECTORS}]")
"""Whatever the patterns above take out holds one of these."""

_FENCE = re.compile(r"<outside-text-([0-9a-f]{16}) source=\"[^\"\n]*\">\n(.*?)\n</outside-text-\1>", re.DOTALL)
_LOOKALIKE = re.compile(r"<(?=\s*/?\s*outside-text)", re.IGNORECASE)


def strip_invisible(text: str) -> str:
    """Remove what a person cannot see: terminal escapes, control codes, zero-width, bidi and tag characters.

    Kept: tab, line feed, carriage return; a joiner between two characters of a script (or emoji) that joins; one
    variation selector after a symbol. Stripping twice changes nothing more.
    """
    if not _SUSPECT.search(text):  # a sixth of the time, and most texts hold none
        return text
    text = _CONTROL.sub("", _ANSI.sub("", text))
    while (stripped := _INVISIBLE.sub("", text)) != text:  # taking one out can leave its neighbour alone
        text = stripped
    return text


def fence(text: str, *, source: str) -> str:
    """Put `text` between marks that name its `source` and that the text cannot contain."""
    inside = _LOOKALIKE.sub("&lt;", strip_invisible(text))
    origin = re.sub(r'["<>]', "'", " ".join(strip_invisible(source).split()))[:_MAX_SOURCE_CHARS]
    mark = secrets.token_hex(8)
    return f'<outside-text-{mark} source="{origin}">\n{inside}\n</outside-text-{mark}>'


def unfence(text: str) -> str:
    """Return `text` with every fence taken off and what stood inside left in place."""
    return _FENCE.sub(lambda match: match[2], text)


def untrusted_result(result: BaseModel, *, text: str, source: str, note: str = "") -> "CallToolResult":
    """Build a tool result whose text part is fenced and whose structured part is `result`.

    `text` is what a model should read (a page, passages, printed output), `note` one line of our own about
    it ("characters 0-8000 of 21450; continue with offset=8000"), which stays outside the fence.
    Declare the tool's return type as `Annotated[CallToolResult, ResultModel]`: the output schema stays.
    Fields that are None are left out of the structured part, so an optional field needs a default; its
    strings are stripped as the text is, because some clients show a model that part instead.
    """
    from mcp.types import CallToolResult, TextContent  # .7 s: who calls this is a server and has it loaded

    body = fence(text, source=source)
    return CallToolResult(
        content=[TextContent(text=f"{note}\n{body}" if note else body)],
        structured_content=cast(dict[str, Any], _stripped(result.model_dump(mode="json", exclude_none=True))),
    )


def _stripped(value: object) -> object:
    if isinstance(value, str):
        return strip_invisible(value)
    if isinstance(value, list):
        return [_stripped(item) for item in cast(list[object], value)]
    if isinstance(value, dict):
        return {key: _stripped(item) for key, item in cast(dict[str, object], value).items()}
    return value
