"""Long tool results: kept whole in the run's folder, given to the model in part, and read back on demand.

Owns the one tool that is not an MCP tool, `run__read_result` (DESIGN.md, "One tool path"). A result that would
flood the history is replaced by its head, its tail and where the rest lies.
"""

import re
from typing import Annotated, Any

from openai.types.chat import ChatCompletionFunctionToolParam
from pydantic import BaseModel, Field, ValidationError

from memento.journal import RunLog
from memento.toolbox import ToolOutcome
from memento_kit import fence, page_text, unfence

__all__ = ["READ_RESULT", "ResultStore"]

READ_RESULT = "run__read_result"
_TAIL_SHARE = 0.2
_MAX_MATCHES = 20
_MATCH_CONTEXT_CHARS = 300


class _ReadResult(BaseModel):
    result: Annotated[str, Field(description="Name of the stored result, as given where it was cut")]
    offset: Annotated[int, Field(ge=0, description="First character to read")] = 0
    pattern: Annotated[
        str | None, Field(max_length=200, description="Return only passages that contain this text (any case)")
    ] = None


class ResultStore:
    """The long results of one run."""

    def __init__(self, log: RunLog, max_chars: int) -> None:
        self._log = log
        self._max_chars = max_chars
        self._texts: dict[str, str] = {}

    @property
    def tool(self) -> ChatCompletionFunctionToolParam:
        """The tool as a model is offered it."""
        from memento_kit import slim_schema

        return {
            "type": "function",
            "function": {
                "name": READ_RESULT,
                "description": "Read on in a tool result that was too long to be given whole, or search in it.",
                "parameters": slim_schema(_ReadResult.model_json_schema()),
            },
        }

    def fit(self, text: str, *, source: str, name: str) -> tuple[str, str | None]:
        """Return what the model is given for `text`, marked as outside text, and the stored name if it was cut."""
        text = unfence(text)
        if len(text) <= self._max_chars:
            return fence(text, source=source), None
        stored = self._log.store(f"{name}.txt", text)
        self._texts[stored] = text
        tail_chars = int(self._max_chars * _TAIL_SHARE)
        head = page_text(text, max_chars=self._max_chars - tail_chars)
        gap = len(text) - len(head.text) - tail_chars
        note = (
            f"[{gap} of {len(text)} characters left out here; read them with {READ_RESULT}(result={stored!r}, "
            f"offset={len(head.text)}), or search with its pattern]"
        )
        return f"{fence(head.text, source=source)}\n{note}\n{fence(text[-tail_chars:], source=source)}", stored

    def read(self, arguments: dict[str, Any]) -> ToolOutcome:
        """Answer a call of the tool."""
        try:
            asked = _ReadResult.model_validate(arguments)
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            return ToolOutcome(f"Invalid arguments for {READ_RESULT}: {where}: {first['msg']}", is_error=True)
        text = self._texts.get(asked.result)
        if text is None:
            known = ", ".join(self._texts) or "none yet"
            return ToolOutcome(f"There is no stored result {asked.result!r}. Stored: {known}.", is_error=True)
        if asked.pattern:
            return ToolOutcome(self._matches(text, asked.pattern, asked.result))
        page = page_text(text, offset=asked.offset, max_chars=self._max_chars)
        more = f"continue with offset={page.next_offset}" if page.next_offset is not None else "this is the end"
        note = f"[characters {page.offset} to {page.offset + len(page.text)} of {page.total_chars}; {more}]"
        return ToolOutcome(f"{note}\n{fence(page.text, source=asked.result)}")

    def _matches(self, text: str, pattern: str, name: str) -> str:
        found: list[str] = []
        last_end = -1
        for match in re.finditer(re.escape(pattern), text, re.IGNORECASE):
            start = max(0, match.start() - _MATCH_CONTEXT_CHARS)
            if start < last_end:
                continue
            last_end = match.end() + _MATCH_CONTEXT_CHARS
            found.append(f"(at {match.start()}) …{text[start:last_end]}…")
            if len(found) == _MAX_MATCHES or sum(map(len, found)) > self._max_chars:
                break
        if not found:
            return f"{pattern!r} does not occur in {name}."
        return fence("\n\n".join(found), source=name)
