"""What lies in the folders right now: names, sizes and times, nothing read.

Owns which files are looked at and which are left out, and why. Links are not followed.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from memento_search.passages import KINDS, Kind, file_suffix

__all__ = ["FoundFile", "Scan", "scan_folders"]

_TOOL_FOLDERS = """
__pycache__ node_modules bower_components site-packages .git .hg .svn .venv venv .tox .nox .mypy_cache .pytest_cache
.ruff_cache .cache .idea .vscode $RECYCLE.BIN
"""
_NEVER = frozenset(_TOOL_FOLDERS.split())
"""Folders that tools fill and people do not read."""

_BINARY_SUFFIXES = """
.png .jpg .jpeg .gif .webp .bmp .tif .tiff .ico .heic .avif .mp3 .wav .ogg .flac .m4a .mp4 .mkv .mov .avi .webm
.zip .gz .bz2 .xz .zst .7z .rar .tar .tgz .jar .whl .exe .dll .so .dylib .a .o .obj .pyc .pyo .class .wasm .bin .dat
.iso .dmg .img .db .sqlite .sqlite3 .sqlite-wal .sqlite-shm .parquet .feather .npy .npz .pkl .pt .onnx .gguf
.safetensors .ttf .otf .woff .woff2 .eot .doc .xls .ppt
"""
_NO_TEXT = frozenset(_BINARY_SUFFIXES.split())
"""Not worth opening: no text inside, or (old binary Office) none that anything here can read."""


class FoundFile(NamedTuple):  # a hundred thousand of them are made and compared at a call: a tuple is quick
    kind: Kind
    size_bytes: int
    mtime_ns: int


@dataclass
class Scan:
    """Paths are plain strings here and in the index: a hundred thousand `Path` objects would take most of the time."""

    files: dict[str, FoundFile] = field(default_factory=dict[str, FoundFile])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    """Files and folders a reader might miss, with the reason."""


def scan_folders(roots: Iterable[Path], *, max_files: int, max_file_bytes: int, include_hidden: bool) -> Scan:
    """Walk real, existing `roots` (folders or single files). A file named as a root is taken whatever its name."""
    scan = Scan()
    for root in roots:
        if root.is_file():
            _take(scan, str(root), os.stat(root), max_file_bytes)
            continue
        for entry in _walk(root, scan, include_hidden=include_hidden):
            if entry.path in scan.files:
                continue
            if not _is_unicode(entry.path):
                scan.left_out[str(root)] = "holds a file whose name is not valid Unicode"
                continue
            if len(scan.files) >= max_files:
                scan.left_out[str(root)] = f"holds more than the {max_files} files that are indexed at most"
                break
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # gone since it was listed
            _take(scan, entry.path, status, max_file_bytes)
    return scan


def _take(scan: Scan, path: str, status: os.stat_result, max_file_bytes: int) -> None:
    suffix = file_suffix(path)
    if suffix in _NO_TEXT:
        scan.left_out[path] = f"no text is read from {suffix} files"
    elif status.st_size > max_file_bytes:
        scan.left_out[path] = f"larger than {max_file_bytes} bytes"
    else:
        scan.files[path] = FoundFile(KINDS.get(suffix, "text"), status.st_size, status.st_mtime_ns)


def _walk(folder: Path, scan: Scan, *, include_hidden: bool) -> Iterator[os.DirEntry[str]]:
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as exc:
            scan.left_out[here] = f"cannot be listed ({exc.strerror})"
            continue
        for entry in entries:
            if entry.name in _NEVER or (entry.name.startswith(".") and not include_hidden):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry


def _is_unicode(path: str) -> bool:
    """Whether the name can be stored and sent: on POSIX a name may be any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
