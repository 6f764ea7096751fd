"""Text from outside, marked as what it is: data that someone else wrote.

Owns the fence. It cannot stop a model from obeying what stands inside; it makes the border visible, and
keeps the text from forging it (the fence carries a random mark that the text cannot know).
"""

import re
import secrets

from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel

__all__ = ["fence", "strip_invisible", "unfence", "untrusted_result"]

_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f]")
"""Zero-width, bidirectional-control and tag characters: invisible to a person, read by a model."""
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FENCE = re.compile(r"<outside-text-([0-9a-f]{8}) source=\"[^\"]*\">\n(.*?)\n</outside-text-\1>", re.DOTALL)


def strip_invisible(text: str) -> str:
    """Remove characters that a person cannot see: zero-width, bidi controls, terminal escapes, control codes."""
    return _CONTROL.sub("", _ANSI.sub("", _INVISIBLE.sub("", text)))


def fence(text: str, *, source: str) -> str:
    """Put `text` between marks that name its `source` and that the text cannot contain."""
    mark = secrets.token_hex(4)
    origin = strip_invisible(source).replace('"', "'").replace("\n", " ")
    return f'<outside-text-{mark} source="{origin}">\n{strip_invisible(text)}\n</outside-text-{mark}>'


def unfence(text: str) -> str:
    """Return `text` with every fence taken off and what stood inside left in place."""
    return _FENCE.sub(lambda match: match[2], text)


def untrusted_result(result: BaseModel, *, text: str, source: str, note: str = "") -> CallToolResult:
    """Build a tool result whose text part is fenced and whose structured part is `result`.

    `text` is what a model should read (a page, passages, printed output), `note` one line of our own about
    it ("characters 0-8000 of 21450; continue with offset=8000"), which stays outside the fence.
    Declare the tool's return type as `Annotated[CallToolResult, ResultModel]`: the output schema stays.
    """
    body = fence(text, source=source)
    return CallToolResult(
        content=[TextContent(text=f"{note}\n{body}" if note else body)],
        structured_content=result.model_dump(mode="json", exclude_none=True),
    )
