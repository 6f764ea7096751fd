"""What a run said: E2B's stream of events, read into an `Outcome`. The one reader for every backend.

An event is a JSON object (E2B, code-interpreter `template/server`, and its SDK's `models.py`): `stdout` and `stderr`
with `text`; `result` with any of `text`, `html`, `markdown`, `svg`, `latex`, `json`, `png`, `jpeg` (base64), `data` (a
frame's columns) and `is_main_result`; `error` with `name`, `value`, `traceback`; `end_of_execution`. Our worker adds
`files` (what changed), `file` (what an operation on one gave), and `total_rows`, `left_out` and `errno` to E2B's.

Everything here comes from where foreign code runs: it is counted, cut and checked for shape.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import Base64Bytes, BaseModel, Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_json

__all__ = ["DataTable", "Execution", "MadeFile", "Outcome", "Output", "OutputSink", "RaisedError", "Result", "cut"]

_MAX_RESULTS = 50
_MAX_IMAGES = 10
_MAX_IMAGE_BYTES = 5 << 20
_MAX_FILES = 20
_MAX_TABLE_ROWS = 50
_LAST_LINE_BYTES = 400
_SPOOLED_BYTES = 4 << 20
"""How much of an overlong output is kept to be written into a file of the session."""
_MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}
_TEXT_FORMS = ("html", "markdown", "svg", "latex")


class RaisedError(BaseModel):
    """What the code raised."""

    name: str
    message: str
    traceback: str


class DataTable(BaseModel):
    """The beginning of a data frame."""

    columns: list[str]
    rows: list[list[int | float | str | bool | None]]
    total_rows: int


class MadeFile(BaseModel):
    """A file in the session's folder."""

    path: str = Field(max_length=1_000)
    bytes: int


@dataclass
class Result:
    """One thing that a run showed, in each form that it has: the value of the last line, a `display`, a figure."""

    text: str | None = None
    html: str | None = None
    markdown: str | None = None
    svg: str | None = None
    latex: str | None = None
    json: JsonValue = None
    png: Base64Bytes | None = None
    jpeg: Base64Bytes | None = None
    data: DataTable | None = None
    is_main_result: bool = False
    left_out: list[str] = field(default_factory=list[str])
    """Forms that it has and that were too long."""

    @property
    def image(self) -> bytes | None:
        """Its picture: PNG before JPEG."""
        return self.png or self.jpeg


@dataclass(frozen=True)
class Output:
    """What was written to one stream: the beginning and the end, with the number of bytes left out between."""

    text: str = ""
    dropped_bytes: int = 0
    spooled: bytes = b""
    """When something was left out: the stream from its beginning, as far as it was kept."""


@dataclass(frozen=True)
class Outcome:
    """How one run ended. `interrupted` names the limit that stopped it; the session lives on all the same."""

    stdout: Output
    stderr: Output
    results: list[Result] = field(default_factory=list[Result])
    error: RaisedError | None = None
    errno: int | None = None
    """Of an `OSError` that the code raised."""
    files: list[MadeFile] = field(default_factory=list[MadeFile])
    """What the code made or changed in its folder."""
    file: dict[str, Any] | None = None
    """What an operation on a file gave."""
    seconds: float = 0.0
    interrupted: str | None = None
    lost: str | None = None
    """Why the session ended with this run; a next run starts a new one."""

    @property
    def value(self) -> str | None:
        """The text of the last line's value."""
        return next((result.text for result in self.results if result.is_main_result), None)

    @property
    def images(self) -> list[bytes]:
        """PNG and JPEG files, in the order in which they were shown."""
        return [image for result in self.results if (image := result.image) is not None]

    @property
    def tables(self) -> list[DataTable]:
        """Data frames, in the order in which they were shown."""
        return [result.data for result in self.results if result.data is not None]


@dataclass
class OutputSink:
    """Collects a stream: its first half and its last half, counting what falls out between."""

    limit_bytes: int
    _head: bytearray = field(default_factory=bytearray)
    _tail: bytearray = field(default_factory=bytearray)
    _total: int = 0
    _spool: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Take in what was written next."""
        self._total += len(data)
        self._spool += data[: max(0, _SPOOLED_BYTES - len(self._spool))]
        room = max(0, self.limit_bytes // 2 - len(self._head))
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > self.limit_bytes:
            del self._tail[: -(self.limit_bytes // 2)]

    def output(self) -> Output:
        """What is kept."""
        tail = bytes(self._tail[-(self.limit_bytes // 2) :]) if self._tail else b""
        dropped = self._total - len(self._head) - len(tail)
        head = bytes(self._head).decode("utf-8", "replace")
        if not dropped:
            return Output((bytes(self._head) + tail).decode("utf-8", "replace"))
        text = f"{head}\n… {dropped} bytes left out …\n{tail.decode('utf-8', 'replace')}"
        return Output(text, dropped, bytes(self._spool))

    def last_line(self) -> str:
        """The line written last."""
        end = bytes((self._tail or self._head)[-_LAST_LINE_BYTES:]).decode("utf-8", "replace").rstrip("\n")
        return end.rpartition("\n")[2]


class Execution:
    """One run while it goes on: takes event after event, and keeps what is within the limits."""

    def __init__(self, *, max_value_chars: int, output_bytes: int) -> None:
        self._max_chars = max_value_chars
        self.stdout = OutputSink(output_bytes)
        self.stderr = OutputSink(output_bytes)
        self.is_over = False
        self._results: list[Result] = []
        self._error: RaisedError | None = None
        self._errno: int | None = None
        self._files: list[MadeFile] = []
        self._file: dict[str, Any] | None = None

    def take(self, event: object) -> None:
        """Read the next event. Kinds that are not known are passed over, as E2B's own reader does.

        Raises:
            ValueError: it is no event.
        """
        if not isinstance(event, dict) or not isinstance(kind := cast("dict[str, Any]", event).get("type"), str):
            raise ValueError("an event is an object that has a type")
        told = cast("dict[str, Any]", event)
        if kind in ("stdout", "stderr"):
            getattr(self, kind).add(_TEXT.validate_python(told.get("text")).encode("utf-8", "replace"))
        elif kind == "result" and len(self._results) < _MAX_RESULTS:
            self._results.append(self._bounded(told))
        elif kind == "error":
            raised = {"name": told.get("name"), "message": told.get("value"), "traceback": told.get("traceback")}
            error = RaisedError.model_validate(raised)
            self._error = RaisedError(
                name=cut(error.name, self._max_chars),
                message=cut(error.message, self._max_chars),
                traceback=cut(error.traceback, self._max_chars),
            )
            self._errno = _NUMBER.validate_python(told.get("errno"))
        elif kind == "files":
            self._files = _FILES.validate_python(told.get("files"))[:_MAX_FILES]
        elif kind == "file":
            self._file = _FILE.validate_python(told.get("file"))
        elif kind == "end_of_execution":
            self.is_over = True

    def last_line(self) -> str:
        """What was said last, for whoever waits."""
        shown = self._results[-1].text if self._results else None
        return self.stdout.last_line() or shown or ""

    def outcome(self, *, seconds: float, interrupted: str | None, lost: str | None) -> Outcome:
        """What was taken so far."""
        return Outcome(
            self.stdout.output(),
            self.stderr.output(),
            results=self._results,
            error=self._error,
            errno=self._errno,
            files=self._files,
            file=self._file,
            seconds=seconds,
            interrupted=interrupted,
            lost=lost,
        )

    def _bounded(self, event: dict[str, Any]) -> Result:
        result = _RESULT.validate_python({**event, "data": _table(event.get("data"), event.get("total_rows"))})
        if result.text is not None:
            result.text = cut(result.text, self._max_chars)
        for form in _TEXT_FORMS:
            if len(getattr(result, form) or "") > self._max_chars:
                setattr(result, form, None)
                result.left_out.append(form)
        if result.json is not None and len(to_json(result.json)) > self._max_chars:
            result.json = None
            result.left_out.append("json")
        pictures = sum(other.image is not None for other in self._results)
        for form, magic in _MAGIC.items():
            content: bytes | None = getattr(result, form)
            if content is None:
                continue
            # Only what says that it is such a file; it is still a picture from outside to whoever decodes it.
            if not content.startswith(magic) or len(content) > _MAX_IMAGE_BYTES or pictures >= _MAX_IMAGES:
                setattr(result, form, None)
                result.left_out.append(form)
        result.left_out = sorted({cut(form, 20) for form in result.left_out})[:20]
        return result


_TEXT, _NUMBER = TypeAdapter(str), TypeAdapter[int | None](int | None)
_FILES, _FILE = TypeAdapter(list[MadeFile]), TypeAdapter(dict[str, Any])
_RESULT = TypeAdapter(Result)


def _table(data: object, total_rows: object) -> DataTable | None:
    """From `DataFrame.to_dict(orient="list")`, which is E2B's; what is no table is left out."""
    if not isinstance(data, dict):
        return None
    columns = cast("dict[Any, Any]", data)
    try:
        rows = [list(row) for row in zip(*_cells(columns.values()), strict=True)]
        total = max(len(rows), total_rows) if isinstance(total_rows, int) else len(rows)
        return DataTable(columns=[str(name) for name in columns], rows=rows[:_MAX_TABLE_ROWS], total_rows=total)
    except (ValidationError, ValueError, TypeError):
        return None


def _cells(columns: Iterable[Any]) -> list[list[Any]]:
    return [list(column) for column in columns]


def cut(text: str, max_chars: int) -> str:
    """Return the beginning and the end of `text`, and between them how much is left out."""
    if len(text) <= max_chars:
        return text
    head, tail = max_chars * 2 // 3, max_chars // 3
    return f"{text[:head]}… {len(text) - head - tail} characters left out …{text[-tail:]}"
