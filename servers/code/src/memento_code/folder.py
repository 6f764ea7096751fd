"""The session's files, read and written from inside.

This file runs *inside* the sandbox, sent there as text: the host never opens a path that the code could have laid out.
What the session may not reach, these functions cannot reach either.
"""

from __future__ import annotations

import binascii
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` would take a tenth of a session's start
    from typing import Any

__all__ = ["changed", "list_files", "read_file", "write_file"]

_MAX_LISTED = 500
_MAX_LOOKED_AT = 2_000
_MAX_CHANGED = 20
_seen: dict[str, tuple[int, int]] = {}
"""Size and time of change of each file when it was last looked at."""


def write_file(path: str, content: str) -> dict[str, Any]:
    """Write base64 `content` to `path`; folders on the way are made."""
    data = binascii.a2b_base64(content)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return {"bytes": len(data)}


def read_file(path: str, offset: int, max_bytes: int) -> dict[str, Any]:
    """Return bytes of the regular file `path` as base64, and its size."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for ever
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        file.seek(offset)
        return {
            "content": binascii.b2a_base64(file.read(max_bytes), newline=False).decode(),
            "total_bytes": status.st_size,
        }


def list_files(path: str) -> dict[str, Any]:
    """Return what lies under `path`, at most `_MAX_LISTED` entries, sorted; links are named and not followed."""
    entries: list[dict[str, Any]] = []
    total = 0
    if not os.path.isdir(path):
        raise NotADirectoryError(20, "not a folder", path)
    for root, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            total += 1
            if len(entries) < _MAX_LISTED:
                full = os.path.join(root, name)
                status = os.lstat(full)
                kind = "link" if stat.S_ISLNK(status.st_mode) else "file" if stat.S_ISREG(status.st_mode) else "special"
                entries.append({"path": os.path.relpath(full, path), "bytes": status.st_size, "kind": kind})
    return {"entries": entries, "total": total}


def changed(folder: str) -> list[dict[str, Any]]:
    """Return the regular files of `folder` made or changed since the last call, the newest first.

    At most `_MAX_CHANGED`. Hidden files and the session's tmp are left out.
    """
    found: list[tuple[int, str, int]] = []
    looked_at = 0
    for root, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each[0] != "." and (root, each) != (folder, "tmp")]
        for name in names:
            looked_at += 1
            if name[0] == "." or looked_at > _MAX_LOOKED_AT:
                continue
            status = os.lstat(os.path.join(root, name))
            path = os.path.relpath(os.path.join(root, name), folder)
            stamp = (status.st_size, status.st_mtime_ns)
            if stat.S_ISREG(status.st_mode) and _seen.get(path) != stamp:
                _seen[path] = stamp
                found.append((status.st_mtime_ns, path, status.st_size))
    found.sort(reverse=True)
    return [{"path": path, "bytes": size} for _, path, size in found[:_MAX_CHANGED]]
