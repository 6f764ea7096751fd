"""What all tools do around a call into the library: name its failures to the model, pass its progress to the client."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from memento_documents.isolation import OnProgress
from memento_documents.kinds import Unreadable
from memento_kit import PathNotAllowed

__all__ = ["CURSOR", "NEXT_CURSOR", "going_on", "progress_to", "told_to_model"]

CURSOR: Any = Field(
    max_length=40, description="Where to read on: `next_cursor` of the answer before, with the same other arguments"
)
"""The field of every tool that takes a cursor."""
NEXT_CURSOR: Any = Field(default=None, description="Pass as `cursor` for what follows; absent at the end")


@contextmanager
def told_to_model(source: str) -> Generator[None]:
    """Turn what is wrong with a file, or with what was asked of it, into an error that the model reads."""
    try:
        yield
    except PathNotAllowed as exc:
        raise ToolError(str(exc)) from exc
    except Unreadable as exc:
        raise ToolError(f"{source!r}: {exc}") from exc


def progress_to(ctx: Context[Any]) -> OnProgress:
    """A listener that passes progress on to the client of this call."""

    async def tell(done: int, total: int, what: str) -> None:
        await ctx.report_progress(done, total, f"{what} {done} of {total}")

    return tell


def going_on(cursor: str | None) -> str:
    """The end of an answer's one line about itself."""
    return f" Continue with cursor={cursor}" if cursor else ""
