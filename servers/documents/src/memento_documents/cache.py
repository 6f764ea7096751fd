"""Parsed documents on disk, so that a document read once costs nearly nothing the next time, in any run.

Owns the files: one per document, named by the hash of its content, of what was asked of it, and of the version of the
parsers, so that a changed file or a new parser is never answered from here. Losing the folder loses nothing. The text
of what was read lies there unencrypted, readable by its owner alone; `MEMENTO_DOCUMENTS_CACHE_MEGABYTES=0` keeps none.
"""

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["DocumentCache", "engine_version"]

logger = logging.getLogger(__name__)

_PARSERS = ("pymupdf", "openpyxl", "python-calamine", "pillow", "pyyaml", "av")
_SUFFIX = ".json.z"


@functools.cache
def engine_version() -> str:
    """A hash that changes with this package's code, the parsing libraries, and whether there is OCR."""
    digest = hashlib.sha256()
    for name in _PARSERS:
        with suppress(importlib.metadata.PackageNotFoundError):
            digest.update(f"{name}={importlib.metadata.version(name)}\n".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    from memento_documents.pdf import find_tessdata

    digest.update(str(find_tessdata()).encode())
    return digest.hexdigest()[:16]


class DocumentCache:
    """At most `max_bytes` of files in `folder`; the longest unused goes first. Blocking: call in a thread."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def get(self, key: tuple[str, ...]) -> Any:
        """Return the JSON value kept under `key`, or None."""
        path = self._path(key)
        try:
            value = json.loads(zlib.decompress(path.read_bytes()))
            os.utime(path)
        except (OSError, ValueError, zlib.error):  # not there, half gone, or damaged: then it is parsed again
            return None
        return value

    def put(self, key: tuple[str, ...], value: Any) -> None:
        """Keep a JSON value. A disk that is full or read-only is no reason to fail; it is logged."""
        content = zlib.compress(json.dumps(value).encode(), 1)
        if len(content) > self._max_bytes:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:  # mode 600
                file.write(content)
            Path(file.name).replace(self._path(key))
            self._forget()
        except OSError as exc:
            logger.warning("a parsed document could not be kept in %s: %s", self._folder, exc.strerror)

    def _path(self, key: tuple[str, ...]) -> Path:
        name = hashlib.sha256(json.dumps([engine_version(), *key]).encode()).hexdigest()
        return self._folder / f"{name}{_SUFFIX}"

    def _forget(self) -> None:
        files: list[tuple[float, int, str]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another server tidies the same folder
                    status = entry.stat()
                    files.append((status.st_mtime, status.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._max_bytes:
                return
            with suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
