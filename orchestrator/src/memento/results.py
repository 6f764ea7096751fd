"""Tool results: kept whole in the run's folder when they are long, given to the model in part, read back on demand.

Owns the files under `results/` of a run, what of them a model is given, and the one tool that is not an MCP tool,
`run__read_result` (DESIGN.md, "One tool path"). A result that would flood the history is replaced by what it is, its
head, its tail and where the rest lies; images and other files are kept as files. It does not know who asks.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from openai.types.chat import ChatCompletionFunctionToolParam
from pydantic import BaseModel, Field, ValidationError

from memento.events import StoredFile
from memento.outcomes import FilePart, ToolOutcome
from memento.synopsis import Table, as_json, as_table, synopsis
from memento_kit import fence, page_text, unfence

__all__ = ["READ_RESULT", "Given", "ResultStore"]

READ_RESULT = "run__read_result"
_HEAD_CHARS = 2_400
_TAIL_CHARS = 600
_MAX_MATCHES = 20
_MATCH_CONTEXT_CHARS = 300
_PATTERN_SECONDS = 2.0
"""How long a pattern may search: one that backtracks for ever must not hold up the run."""
_MAX_ROWS = 200
_ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp",
            "image/svg+xml": ".svg", "application/pdf": ".pdf", "text/csv": ".csv", "application/json": ".json",
            "audio/wav": ".wav", "audio/mpeg": ".mp3"}  # fmt: skip
_NOT_IN_A_FILE_NAME = re.compile(r"[^A-Za-z0-9._-]")


class _ReadResult(BaseModel):
    result: Annotated[
        str,
        Field(description="Name of the stored result, as given where it was cut, or the address of a linked resource"),
    ]
    offset: Annotated[int, Field(ge=0, description="First character to read")] = 0
    pattern: Annotated[
        str | None, Field(max_length=200, description="Regular expression (any case): return the passages around it")
    ] = None
    json_path: Annotated[
        str | None, Field(max_length=300, description="JSONPath, such as $.items[0:20].name, for a JSON result")
    ] = None
    rows: Annotated[
        str | None, Field(pattern=r"^\d+:\d+$", description="For a table: rows from:to, the first is 0, such as 40:60")
    ] = None
    columns: Annotated[
        list[Annotated[str, Field(max_length=200)]] | None, Field(max_length=50, description="For a table: only these")
    ] = None


@dataclass(frozen=True)
class Given:
    """What a model is given for a result, and what of it lies in the run's folder."""

    text: str
    stored_as: str | None = None
    files: tuple[StoredFile, ...] = ()


class ResultStore:
    """The results of one run, under its `folder`. A run that goes on finds them there again."""

    def __init__(self, folder: Path, max_chars: int) -> None:
        self._folder = folder
        self._max_chars = max_chars

    @cached_property  # making the schema takes milliseconds, and each turn offers the tool
    def tool(self) -> ChatCompletionFunctionToolParam:
        """The tool as a model is offered it."""
        from memento_kit import slim_schema

        return {
            "type": "function",
            "function": {
                "name": READ_RESULT,
                "description": "Read a tool result that was too long to be given whole, or a resource that a tool "
                "linked to; or search in it: by offset, by pattern, by JSONPath, by rows and columns of a table.",
                "parameters": slim_schema(_ReadResult.model_json_schema()),
            },
        }

    def give(self, outcome: ToolOutcome, *, source: str, name: str) -> Given:
        """Return what the model is given for a result, marked as outside text; what is long or no text is stored."""
        files = tuple(self._store_file(part, f"{name}-{number}") for number, part in enumerate(outcome.files, 1))
        shape = self._store_structured(outcome, name)
        named = [f"[{file.mime_type}, {file.size_bytes:,} bytes, stored as {file.name}]" for file in files]
        text = unfence(outcome.text)
        if len(text) <= self._max_chars:
            return Given(
                "\n".join([fence(text, source=source), *named] if text or not named else named), None, files + shape
            )
        stored = self._store_text(name, text)
        named += [f"[the same as JSON, for json_path: {file.name}]" for file in shape]
        return Given("\n".join([self._in_part(text, stored, source), *named]), stored, files + shape)

    def put_away(self, text: str) -> str:
        """Store a result that the model has read; returns what stands for it in the history."""
        cut = re.search(r"^\[stored as (\S+)[,\]]", text, re.MULTILINE)
        inside = unfence(text)
        digest = hashlib.sha256(inside.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        stored = cut[1] if cut else self._store_text(f"away-{digest}", inside)
        what = fence(synopsis(inside), source=stored)
        return f"[an earlier result, put away to save room; read it with {READ_RESULT}(result={stored!r})]\n{what}"

    def resource(self, uri: str) -> str | None:
        """Name of the stored text of a resource that was read before, or `None`."""
        name = f"results/{_resource_name(uri)}.txt"
        return name if (self._folder / name).is_file() else None

    def keep_resource(self, uri: str, text: str) -> str:
        """Store the text of a resource; returns its name, for `read`."""
        return self._store_text(_resource_name(uri), text)

    def data_url(self, file: StoredFile) -> str:
        """A stored file as a `data:` URL."""
        data = base64.b64encode((self._folder / file.name).read_bytes()).decode()
        return f"data:{file.mime_type};base64,{data}"

    def read(self, arguments: dict[str, Any]) -> ToolOutcome:
        """Answer a call of the tool. Blocks while it reads and searches; call it in a thread."""
        try:
            asked = _ReadResult.model_validate(arguments)
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            return ToolOutcome(f"Invalid arguments for {READ_RESULT}: {where}: {first['msg']}", is_error=True)
        known = self._names()
        if asked.result not in known:
            there = ", ".join(known[-10:]) or "none yet"
            return ToolOutcome(f"There is no stored result {asked.result!r}. Stored: {there}.", is_error=True)
        try:
            text = (self._folder / asked.result).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return ToolOutcome(f"{asked.result} is no text: use a tool that reads such files.", is_error=True)
        try:
            if asked.pattern:
                return ToolOutcome(self._matches(text, asked.pattern, asked.result))
            if asked.json_path:
                return ToolOutcome(self._page(_json_at(text, asked.json_path), asked.offset, asked.result))
            if asked.rows or asked.columns:
                return ToolOutcome(self._page(_slice(text, asked.rows, asked.columns), asked.offset, asked.result))
        except _NotReadable as exc:
            return ToolOutcome(str(exc), is_error=True)
        return ToolOutcome(self._page(text, asked.offset, asked.result))

    def _page(self, text: str, offset: int, name: str) -> str:
        page = page_text(text, offset=offset, max_chars=self._max_chars)
        more = f"continue with offset={page.next_offset}" if page.next_offset is not None else "this is the end"
        note = f"[characters {page.offset} to {page.offset + len(page.text)} of {page.total_chars}; {more}]"
        return f"{note}\n{fence(page.text, source=name)}"

    def _in_part(self, text: str, stored: str, source: str) -> str:
        head = page_text(text, max_chars=min(_HEAD_CHARS, self._max_chars * 3 // 4))
        tail_chars = min(_TAIL_CHARS, self._max_chars // 5)
        gap = len(text) - len(head.text) - tail_chars
        note = (
            f"[stored as {stored}, {len(text):,} characters; {gap:,} of them are left out here: read them with "
            f"{READ_RESULT}(result={stored!r}, offset={len(head.text)}), or find what you need with its pattern, "
            "json_path, or rows and columns]"
        )
        what = fence(synopsis(text), source=f"what {source} returned")
        return "\n".join([note, what, fence(head.text, source=source), "[…]", fence(text[-tail_chars:], source=source)])

    def _matches(self, text: str, pattern: str, name: str) -> str:
        import regex  # has a time limit, which re has not

        try:
            compiled = regex.compile(pattern, regex.IGNORECASE)
        except regex.error as exc:
            raise _NotReadable(f"The pattern is no regular expression ({exc}); escape its special signs.") from exc
        found: list[str] = []
        last_end = -1
        try:
            for match in compiled.finditer(text, timeout=_PATTERN_SECONDS, concurrent=True):
                start = max(0, match.start() - _MATCH_CONTEXT_CHARS)
                if start < last_end:
                    continue
                last_end = min(match.end(), match.start() + self._max_chars) + _MATCH_CONTEXT_CHARS
                found.append(f"(at {match.start()}) …{text[start:last_end]}…")
                if len(found) == _MAX_MATCHES or sum(map(len, found)) > self._max_chars:
                    break
        except TimeoutError as exc:
            raise _NotReadable(f"The pattern searched for over {_PATTERN_SECONDS:g} s; use a simpler one.") from exc
        if not found:
            return f"{pattern!r} does not occur in {name}."
        return fence("\n\n".join(found)[: self._max_chars], source=name)

    def _names(self) -> list[str]:
        folder = self._folder / "results"
        return sorted(f"results/{path.name}" for path in folder.iterdir()) if folder.is_dir() else []

    def _store_text(self, name: str, text: str) -> str:
        return self._store(f"{name}.txt", text.encode("utf-8", "surrogatepass"))

    def _store_file(self, part: FilePart, name: str) -> StoredFile:
        ending = _ENDINGS.get(part.mime_type, ".bin")
        stored = self._store(f"{name}{ending}", part.data)
        return StoredFile(name=stored, mime_type=part.mime_type, size_bytes=len(part.data))

    def _store_structured(self, outcome: ToolOutcome, name: str) -> tuple[StoredFile, ...]:
        """Keep structured content that is more than the text said in another form."""
        told = outcome.structured
        if told is None or as_json(outcome.text) == told or outcome.text == str(told.get("result")):
            return ()
        data = json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return (StoredFile(name=self._store(f"{name}.json", data), mime_type="application/json", size_bytes=len(data)),)

    def _store(self, name: str, data: bytes) -> str:
        folder = self._folder / "results"
        folder.mkdir(exist_ok=True)
        safe = _NOT_IN_A_FILE_NAME.sub("-", name)
        (folder / safe).write_bytes(data)
        return f"results/{safe}"


def _resource_name(uri: str) -> str:
    return f"resource-{hashlib.sha256(uri.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


class _NotReadable(Exception):
    """A stored result cannot be read in the way that was asked for. The message says what to do."""


def _json_at(text: str, path: str) -> str:
    import jsonpath_rfc9535  # RFC 9535

    parsed = as_json(text)
    if parsed is None:
        raise _NotReadable("This result is not JSON; read it by offset or pattern.")
    try:
        found = jsonpath_rfc9535.find(path, parsed).values()
    except jsonpath_rfc9535.JSONPathError as exc:
        raise _NotReadable(f"The JSONPath cannot be read: {exc}".splitlines()[0]) from exc
    except RecursionError as exc:
        raise _NotReadable("The JSON is nested too deeply for a JSONPath; read it by offset or pattern.") from exc
    if not found:
        raise _NotReadable(f"Nothing is at {path!r}. The result is {synopsis(text)}")
    return "\n".join(json.dumps(value, ensure_ascii=False) for value in found)


def _slice(text: str, rows: str | None, columns: Sequence[str] | None) -> str:
    table = as_table(text)
    if table is None:
        raise _NotReadable("This result is not one table; read it by offset or pattern.")
    start, end = map(int, rows.split(":")) if rows else (0, _MAX_ROWS)
    end = min(end, start + _MAX_ROWS, len(table.rows))
    places = _places(table, columns)
    lines = ["\t".join(table.columns[place] for place in places)]
    lines += ["\t".join(row[place] for place in places) for row in table.rows[start:end]]
    return f"rows {start} to {end} of {len(table.rows)}\n" + "\n".join(lines)


def _places(table: Table, columns: Sequence[str] | None) -> list[int]:
    if not columns:
        return list(range(len(table.columns)))
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise _NotReadable(f"There is no column {missing[0]!r}. There are: {', '.join(table.columns)}.")
    return [table.columns.index(column) for column in columns]
