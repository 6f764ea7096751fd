"""Files from the web, stored in the operator's download folder.

Owns the names files get there and which kinds are taken. A file never replaces another, is never executable, and
its name never leads out of the folder.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anyio
from anyio import to_thread

from memento_crawl.pages import PageProblem, check_status
from memento_kit.safe_http import HttpLimits, HttpStream, SafeHttp, SafeHttpError

__all__ = ["Download", "Downloads"]

_MAX_NAME_CHARS = 120
_UNSAFE = re.compile(r"[^\w.()+@=,-]+")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)
"""Names that mean devices on Windows."""


@dataclass(frozen=True)
class Download:
    path: Path
    url: str
    content_type: str
    size_bytes: int
    sha256: str


class Downloads:
    """Stores files in `folder`, which is made when the first one comes."""

    def __init__(self, http: SafeHttp, folder: Path, *, limits: HttpLimits, types: Sequence[str]) -> None:
        self._http = http
        self._folder = folder
        self._limits = limits
        self._types = tuple(types)

    async def fetch(self, url: str, name: str | None) -> Download:
        """Download `url`; `name` replaces the name that the server or the URL gives.

        Raises:
            PageProblem: it cannot be fetched, is not of a kind that is taken, or is too large.
            OSError: the folder cannot be written.
        """
        try:
            async with self._http.stream(url, limits=self._limits) as answer:
                check_status(answer.url, answer.status, answer.headers.get("retry-after", ""))
                content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
                if not (content_type or "application/octet-stream").startswith(self._types):
                    raise PageProblem(
                        f"{answer.url} is of type {content_type}, which the operator does not allow to be downloaded. "
                        f"Allowed: {', '.join(self._types)}."
                    )
                return await self._store(answer, _file_name(answer, name), content_type)
        except SafeHttpError as exc:
            raise PageProblem(str(exc)) from exc

    async def _store(self, answer: HttpStream, name: str, content_type: str) -> Download:
        await anyio.Path(self._folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        path, handle = await to_thread.run_sync(_new_file, self._folder, name)
        digest, size = hashlib.sha256(), 0
        try:
            async with anyio.wrap_file(os.fdopen(handle, "wb")) as file:
                async for chunk in answer.chunks():
                    digest.update(chunk)
                    size += len(chunk)
                    await file.write(chunk)
        except BaseException:
            with anyio.CancelScope(shield=True):  # half a file is worse than none, also after a cancellation
                await anyio.Path(path).unlink(missing_ok=True)
            raise
        return Download(path, answer.url, content_type, size, digest.hexdigest())


def _file_name(answer: HttpStream, wanted: str | None) -> str:
    """A plain file name, from what was wanted, what the server says, or the URL's last part."""
    header = Message()
    header["content-disposition"] = answer.headers.get("content-disposition", "")
    last_part = unquote(urlsplit(answer.url).path.rstrip("/").rpartition("/")[2])
    name = wanted or header.get_filename() or last_part or "download"
    name = _UNSAFE.sub("_", name.replace("\\", "/").rpartition("/")[2]).lstrip(".-").rstrip(".")
    stem, suffix = os.path.splitext(name)
    name = stem[: _MAX_NAME_CHARS - len(suffix[:20])] + suffix[:20]
    return f"_{name}" if not name or _RESERVED.match(name) else name


def _new_file(folder: Path, name: str) -> tuple[Path, int]:
    """Create a file that was not there: `report.pdf`, else `report-2.pdf`, and so on."""
    stem, suffix = os.path.splitext(name)
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
        try:
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
