"""Archives (ZIP, TAR, and single files under gzip, bzip2 or xz): listed, and read inside; nothing goes to disk.

A member is addressed as `data.zip!/folder/table.csv`, one in an archive inside as `data.zip!/inner.tar.gz!/table.csv`.
Attachments of a mail and the parts of Office files are members too. Owns the limits that stop bombs: what one opening
may unpack in all, how deep archives may lie in archives, and how many members are looked at. Links inside a TAR are
listed and never followed.
"""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

from memento_documents import progress
from memento_documents.kinds import MEMBER_MARK, Unreadable, detect_kind
from memento_documents.reading import Document, Section

__all__ = ["open_member", "read_archive"]

_MAX_DEPTH = 4
_MAX_UNPACKED_BYTES = 200_000_000
"""Of one member; and of all that is unpacked to look through a compressed TAR."""
_MAX_MEMBERS = 100_000
_LISTED = 2_000
_PIECE_BYTES = 1 << 20
_LONG_BYTES = 4_000_000
"""Unpacking less is over before anybody asks how far it is."""
_UNPACKERS: dict[str, Callable[[BinaryIO], BinaryIO]] = {
    "gzip": lambda file: cast(BinaryIO, gzip.GzipFile(fileobj=file)),
    "bzip2": lambda file: cast(BinaryIO, bz2.BZ2File(file)),
    "xz": lambda file: cast(BinaryIO, lzma.LZMAFile(file)),  # noqa: SIM115  closed with the bytes it reads
}
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, NotImplementedError)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    what: str = ""
    """What stands in the way of reading it: a link, a password."""


def read_archive(file: BinaryIO, kind: Literal["zip", "tar"]) -> Document:
    """Return the list of members as one section.

    Raises:
        Unreadable: the archive is damaged, or a bomb.
    """
    with _translated():
        members = list(_members(file, kind))
    lines = [f"- {m.name} ({m.size} bytes{', ' + m.what if m.what else ''})" for m in members[:_LISTED]]
    notes = [f"Only the first {_LISTED} of {len(members)} members are listed."] if len(members) > _LISTED else []
    readable = next((member.name for member in members if not member.what), None)
    if readable:
        notes.append(f"Read a member as SOURCE{MEMBER_MARK}{readable}")
    heading = f"{len(members)} members, {sum(member.size for member in members)} bytes unpacked:"
    return Document(kind, [Section("\n".join([heading, "", *lines]) + "\n")], notes=notes)


def open_member(file: BinaryIO, name: str) -> tuple[BinaryIO, str]:
    """Follow the `!/` in `name` into `file`; return what is there, in memory, and its own name.

    A name without `!/` comes back as it is, with the file. What is a single file under gzip, bzip2 or xz is unpacked.

    Raises:
        Unreadable: no such member, too deep, too large, or no archive.
    """
    outer, *inner = name.split(MEMBER_MARK)
    if len(inner) > _MAX_DEPTH:
        raise Unreadable(f"Archives are opened {_MAX_DEPTH} deep at most.")
    file, outer = _unpacked(file, outer)
    for member in inner:
        kind = detect_kind(file, outer)
        with _translated():
            file = io.BytesIO(_content(file, kind, member, outer))
        file, outer = _unpacked(file, member.rpartition("/")[2] or member)
    return file, outer


def _unpacked(file: BinaryIO, name: str) -> tuple[BinaryIO, str]:
    for _ in range(_MAX_DEPTH):
        kind = detect_kind(file, name)
        if kind not in _UNPACKERS:
            return file, name
        with _translated():
            file = io.BytesIO(_read(_UNPACKERS[kind](file), f"{name!r}"))
        name = re.sub(r"\.(?:gz|gzip|bz2|xz)$", "", name, flags=re.IGNORECASE)
    raise Unreadable(f"It is compressed more than {_MAX_DEPTH} times over; it is not read.")


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except _DAMAGED as exc:
        raise Unreadable(f"The archive is damaged ({type(exc).__name__}).") from exc
    except RuntimeError as exc:  # zipfile's word for a password
        raise Unreadable("That member is encrypted with a password.") from exc


def _members(file: BinaryIO, kind: Literal["zip", "tar"]) -> Iterator[_Member]:
    match kind:
        case "zip":
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                if len(archive.infolist()) > _MAX_MEMBERS:
                    raise Unreadable(f"The archive has more than {_MAX_MEMBERS} members; it is not read.")
                for info in archive.infolist():
                    if not info.is_dir():
                        encrypted = info.flag_bits & 0x1
                        yield _Member(info.filename, info.file_size, "encrypted with a password" if encrypted else "")
        case "tar":
            with _tar(file) as archive:
                for count, info in enumerate(archive):
                    if count >= _MAX_MEMBERS:
                        raise Unreadable(f"The archive has more than {_MAX_MEMBERS} members; it is not read.")
                    _report_place(file)
                    if not info.isdir():
                        what = "" if info.isreg() else "a link or device, not followed"
                        yield _Member(info.name, info.size, what)


def _content(file: BinaryIO, kind: str, member: str, outer: str) -> bytes:
    if kind == "eml":
        from memento_documents.mail import attachments

        found = {name: content for name, _, content in attachments(file)}
        if member in found:
            return found[member]
        raise _no_member(member, outer, list(found))
    if kind == "tar":
        with _tar(file) as archive:
            names: list[str] = []
            for info in archive:
                _report_place(file)
                names.append(info.name)
                if info.name == member and info.isreg():
                    inner = archive.extractfile(info)
                    assert inner is not None
                    return _read(cast(BinaryIO, inner), f"{member!r}", info.size)
        raise _no_member(member, outer, names)
    file.seek(0)
    if not zipfile.is_zipfile(file):
        raise Unreadable(f"{outer!r} is no archive; there is nothing inside it to read.")
    with zipfile.ZipFile(file) as archive:  # also DOCX, PPTX and the like, for the pictures in them
        try:
            info = archive.getinfo(member)
        except KeyError:
            raise _no_member(member, outer, archive.namelist()) from None
        with archive.open(info) as inner:
            return _read(cast(BinaryIO, inner), f"{member!r}", info.file_size)


def _report_place(file: BinaryIO) -> None:
    """How far into the packed archive one has come: a compressed TAR is unpacked all along to be listed."""
    place = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(place)
    if size > _LONG_BYTES:
        progress.report(place // 1_000, size // 1_000, "kilobyte")


def _no_member(member: str, outer: str, names: list[str]) -> Unreadable:
    near = [name for name in names if name.casefold().endswith(member.casefold().rpartition("/")[2])]
    shown = ", ".join((near or names)[:20]) + (", …" if len(near or names) > 20 else "")
    return Unreadable(f"There is no member {member!r} in {outer!r}; it holds: {shown or 'nothing'}.")


def _read(file: BinaryIO, what: str, promised: int = 0) -> bytes:
    limit = f"{_MAX_UNPACKED_BYTES // 1_000_000} MB, the most that is unpacked here"
    if promised > _MAX_UNPACKED_BYTES:
        raise Unreadable(f"{what} unpacks to {promised / 1e6:.0f} MB; over {limit}.")
    pieces: list[bytes] = []
    size = 0
    while piece := file.read(_PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > _MAX_UNPACKED_BYTES:
            raise Unreadable(f"{what} unpacks to over {limit}.")
        if promised > _LONG_BYTES:
            progress.report(size // 1_000_000, promised // 1_000_000, "megabyte")
    return b"".join(pieces)


class _Bounded(io.RawIOBase):
    """A stream that may give only so much: a TAR of zeros under gzip unpacks a thousandfold."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MAX_UNPACKED_BYTES

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size if size >= 0 else self._left + 1)
        self._left -= len(piece)
        if self._left < 0:
            raise Unreadable(f"The archive unpacks to over {_MAX_UNPACKED_BYTES // 1_000_000} MB; it is not read.")
        return piece


@contextmanager
def _tar(file: BinaryIO) -> Generator[tarfile.TarFile]:
    file.seek(0)
    head = file.read(6)
    file.seek(0)
    stream = next((unpack(file) for kind, unpack in _UNPACKERS.items() if head.startswith(_MAGIC[kind])), None)
    if stream is None:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            yield archive
        return
    with tarfile.open(fileobj=_Bounded(stream), mode="r|") as archive:
        yield archive


_MAGIC = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ\x00"}
