"""The files of a session, as tools (put one in, read one, list them) and as MCP resources.

Each goes through the session's own process (`folder.py` inside the sandbox); this side opens nothing. What comes back
is checked for shape like everything that a session says.
"""

import base64
import binascii
import mimetypes
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from anyio.to_thread import run_sync
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.types import CallToolResult, ImageContent, ResourceLink, ToolAnnotations
from pydantic import BaseModel, Field, ValidationError

from memento_code.execution import MadeFile
from memento_code.session import SessionLost
from memento_code.sessions import NoSuchSession, SessionName, Sessions
from memento_kit import AllowedPaths, PathNotAllowed, Server, untrusted_result

__all__ = ["add_file_tools", "file_link"]

_FILE_SECONDS = 20.0
_MAX_PICTURE_BYTES = 2 << 20
_FILE_URI = "sandbox://{session}/files/{+path}"
_RESOURCE_PIECE_BYTES = 2 << 20
_MAX_RESOURCE_BYTES = 16 << 20
_SHOWN_TYPES = {"text/plain", "text/csv", "application/json", "image/png", "image/jpeg", "application/pdf"}

FilePath = Annotated[str, Field(min_length=1, max_length=1_000, description="Path in the session's folder")]


class WrittenFile(BaseModel):
    """A file that was written."""

    session: str
    path: str
    bytes: int


class ReadFile(BaseModel):
    """A stretch of a file. Offsets and sizes count bytes."""

    session: str
    path: str
    content: str
    encoding: str = Field(description="text, base64, or picture: shown beside this, not in `content`")
    offset: int
    total_bytes: int
    next_offset: int | None = Field(default=None, description="Pass as `offset` for the next piece; absent at the end")


class FileEntry(BaseModel):
    """One file."""

    path: str
    bytes: int
    kind: str = Field(description="file, link or special; only files can be read")


class FileList(BaseModel):
    """The files of a folder and its subfolders, by path."""

    session: str
    path: str
    entries: list[FileEntry]
    total: int = Field(description="How many there are, listed or not")


def file_link(session: str, made: MadeFile) -> ResourceLink:
    """Where a client fetches a file that code made."""
    uri = f"sandbox://{session}/files/{quote(made.path)}"
    return ResourceLink(
        type="resource_link", name=made.path, uri=uri, size=made.bytes, mime_type=_media_type(made.path)
    )


def _media_type(path: str) -> str:
    """What to call it: never a type that a client would run as a page."""
    guessed = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return guessed if guessed in _SHOWN_TYPES else "application/octet-stream"


def add_file_tools(server: Server[Sessions], folders: AllowedPaths, max_file_bytes: int) -> None:
    """Add `add_file`, `write_file`, `read_file`, `list_files` and the resource `sandbox://{session}/files/{path}`."""

    @server.resource(
        "sandbox://{session}/files/{+path}", title="A file of a session", mime_type="application/octet-stream"
    )
    async def session_file(session: str, path: str, ctx: Context[Sessions]) -> bytes:
        """A file that code made, as run_python linked it."""
        return await _whole_file(ctx, session, path)

    @server.tool(
        title="Add a file of the task",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def add_file(
        ctx: Context[Sessions],
        path: Annotated[str, Field(min_length=1, max_length=4_000, description="The file, as the task names it")],
        session: SessionName = None,
    ) -> WrittenFile:
        """Copy a file that came with the task into the session's folder, under its own name, for code to work on."""
        try:
            source = folders.resolve(path)
            data = await run_sync(_read_whole, source, max_file_bytes)
        except (PathNotAllowed, OSError) as exc:
            raise ToolError(str(exc)) from exc
        name, done = await _do(ctx, session, "write_file", source.name, base64.b64encode(data).decode())
        return WrittenFile(session=name, path=source.name, bytes=int(done["bytes"]))

    @server.tool(
        title="Write a file",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def write_file(
        ctx: Context[Sessions],
        path: FilePath,
        content: Annotated[str, Field(max_length=20_000_000, description="The whole new content of the file")],
        encoding: Annotated[Literal["text", "base64"], Field(description="How `content` is given")] = "text",
        session: SessionName = None,
    ) -> WrittenFile:
        """Put a file into the session's folder, for code to work on; an old one of that name is replaced."""
        try:
            data = content.encode() if encoding == "text" else base64.b64decode(content, validate=True)
        except (binascii.Error, UnicodeEncodeError) as exc:
            raise ToolError(f"`content` is not valid {encoding}: {exc}.") from exc
        name, done = await _do(ctx, session, "write_file", path, base64.b64encode(data).decode())
        return WrittenFile(session=name, path=path, bytes=int(done["bytes"]))

    @server.tool(title="Read a file", annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    async def read_file(
        ctx: Context[Sessions],
        path: FilePath,
        offset: Annotated[int, Field(ge=0, description="Byte to start at: next_offset of the answer before")] = 0,
        max_bytes: Annotated[int, Field(ge=1, le=2_000_000, description="Size of the piece wanted")] = 20_000,
        session: SessionName = None,
    ) -> Annotated[CallToolResult, ReadFile]:
        """Read a file of the session: text in pieces, a PNG picture as a picture, anything else as base64."""
        wanted = max(max_bytes, _MAX_PICTURE_BYTES) if path.lower().endswith(".png") and offset == 0 else max_bytes
        name, got = await _do(ctx, session, "read_file", path, offset, wanted)
        try:
            data, total = base64.b64decode(str(got["content"])), int(got["total_bytes"])
        except (KeyError, ValueError) as exc:
            raise ToolError("The session gave no usable answer; reset_session starts it afresh.") from exc
        is_picture = data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) == total
        text, encoding, used = _as_text(data, is_end=offset + len(data) >= total)
        end = offset + (len(data) if is_picture else used)
        result = ReadFile(
            session=name,
            path=path,
            content="" if is_picture else text,
            encoding="picture" if is_picture else encoding,
            offset=offset,
            total_bytes=total,
            next_offset=end if end < total else None,
        )
        note = f"bytes {offset}-{end} of {total}."
        answer = untrusted_result(result, text=result.content, source=f"{path} in session {name}", note=note)
        if not is_picture:
            return answer
        picture = ImageContent(data=base64.b64encode(data).decode(), mime_type="image/png")
        return answer.model_copy(update={"content": [*answer.content, picture]})

    @server.tool(title="List files", annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    async def list_files(
        ctx: Context[Sessions],
        path: FilePath = ".",
        session: SessionName = None,
    ) -> FileList:
        """List the files in the session's folder, or in a folder of it, with their sizes."""
        name, got = await _do(ctx, session, "list_files", path)
        try:
            return FileList.model_validate({"session": name, "path": path, **got})
        except ValidationError as exc:
            raise ToolError("The session gave no usable answer; reset_session starts it afresh.") from exc


async def _whole_file(ctx: Context[Sessions], session: str, path: str) -> bytes:
    content = b""
    while True:
        try:
            _, got = await _do(ctx, session, "read_file", path, len(content), _RESOURCE_PIECE_BYTES)
            piece, total = base64.b64decode(str(got["content"])), int(got["total_bytes"])
        except (ToolError, KeyError, ValueError) as exc:
            raise ResourceNotFoundError(f"There is no file {path!r} in a session {session!r} of yours.") from exc
        if total > _MAX_RESOURCE_BYTES:
            raise ResourceError(f"{path!r} has {total} bytes, too many for a resource; read_file gives it in pieces.")
        content += piece
        if not piece or len(content) >= total:
            return content


async def _do(ctx: Context[Sessions], session: str | None, do: str, *arguments: object) -> tuple[str, dict[str, Any]]:
    """Have the session do it; returns what the session is called, and its answer."""
    request = {"do": do, "arguments": list(arguments)}
    sessions = ctx.request_context.lifespan_context
    try:
        ran = await sessions.ask(sessions.caller(ctx), session, request, timeout_seconds=_FILE_SECONDS)
    except NoSuchSession as exc:
        raise ToolError(str(exc)) from exc
    except SessionLost as exc:
        raise ToolError(f"No session could be had: {exc}.") from exc
    outcome = ran.outcome
    if outcome.error is not None:
        raise ToolError(f"{outcome.error.message}. Paths are relative to the session's folder; see list_files.")
    if outcome.file is None:
        raise ToolError(f"The session gave no answer: {outcome.lost or outcome.interrupted}.")
    return ran.session, outcome.file


def _read_whole(path: Path, max_bytes: int) -> bytes:
    if not path.is_file():
        raise OSError(f"{path.name!r} is not a file.")
    if path.stat().st_size > max_bytes:
        raise OSError(f"{path.name!r} is larger than {max_bytes >> 20} MiB, the most a session's file may have.")
    return path.read_bytes()


def _as_text(data: bytes, *, is_end: bool) -> tuple[str, str, int]:
    """The text, how it is encoded, and how many bytes it took: a character cut at the end waits for the next piece."""
    for cut in range(4 if not is_end else 1):
        try:
            return data[: len(data) - cut].decode("utf-8"), "text", len(data) - cut
        except UnicodeDecodeError:
            continue
    return base64.b64encode(data).decode(), "base64", len(data)
