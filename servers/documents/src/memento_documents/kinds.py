"""What a file is, judged by its first bytes and never by its name alone.

Owns the table of signatures and the one-line reasons for files that cannot be read here. The name is a
hint only between kinds that are all plain text (a `.py` file full of commas is not a table).
"""

import bz2
import gzip
import lzma
import re
import zipfile
import zlib
from pathlib import PurePath
from typing import BinaryIO, Literal

__all__ = ["MEMBER_MARK", "Kind", "OldOfficeKind", "Unreadable", "detect_kind", "old_office_kind"]

MEMBER_MARK = "!/"
"""Between an archive and the member of it that is meant: `data.zip!/table.csv`."""

# fmt: off
Kind = Literal[
    "pdf", "docx", "pptx", "xlsx", "xlsb", "xls", "ods", "odt", "odp", "epub", "table", "html", "json", "jsonl", "xml",
    "yaml", "eml", "text", "image", "audio", "video", "zip", "tar", "gzip", "bzip2", "xz",
]
# fmt: on

OldOfficeKind = Literal["rtf", "doc", "ppt"]
"""What is not read here, but can be drawn where LibreOffice is installed."""

_PEEK_BYTES = 4096
_PDF_HEADER_WITHIN = 1024
"""PDF 1.7, implementation note 13: readers accept `%PDF-` anywhere in the first 1024 bytes."""

# fmt: off
_SIGNATURES: tuple[tuple[bytes, Kind], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image"), (b"\xff\xd8\xff", "image"), (b"GIF8", "image"), (b"II*\x00", "image"),
    (b"MM\x00*", "image"), (b"BM", "image"), (b"ID3", "audio"), (b"fLaC", "audio"), (b"#!AMR", "audio"),
    (b"\xff\xfb", "audio"), (b"\xff\xf3", "audio"), (b"\xff\xf2", "audio"), (b"\xff\xfa", "audio"),
    (b"\xff\xf1", "audio"), (b"\xff\xf9", "audio"), (b"FLV\x01", "video"), (b"\x1aE\xdf\xa3", "video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video"), (b"\x00\x00\x01\xba", "video"), (b"\x00\x00\x01\xb3", "video"),
    (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"),
)
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"), (b"Rar!", "a RAR archive"), (b"{\\rtf", "an RTF document"),
    (b"SQLite format 3\x00", "an SQLite database"), (b"\x7fELF", "a program"), (b"MZ", "a Windows program"),
)
_RIFF: dict[bytes, Kind] = {b"WAVE": "audio", b"AVI ": "video", b"WEBP": "image"}
_TEXT_NAMES: dict[str, Kind] = {
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".yaml": "yaml", ".yml": "yaml",
    ".csv": "table", ".tsv": "table", ".tab": "table", ".psv": "table",
    ".txt": "text", ".md": "text", ".markdown": "text", ".rst": "text", ".py": "text", ".js": "text", ".ts": "text",
    ".c": "text", ".h": "text", ".cpp": "text", ".hpp": "text", ".rs": "text", ".go": "text", ".java": "text",
    ".rb": "text", ".sh": "text", ".sql": "text", ".css": "text", ".tex": "text", ".toml": "text", ".ini": "text",
    ".cfg": "text", ".log": "text",
}
# fmt: on
_ZIP_MEMBERS: tuple[tuple[str, Kind], ...] = (
    ("xl/workbook.xml", "xlsx"),
    ("xl/workbook.bin", "xlsb"),
    ("word/document.xml", "docx"),
    ("ppt/presentation.xml", "pptx"),
    ("META-INF/container.xml", "epub"),
)
_CONTENT_TYPES = "[Content_Types].xml"
_CONTENT_TYPES_BYTES = 1_000_000
_MAIN_PARTS: tuple[tuple[bytes, Kind], ...] = (
    (b"wordprocessingml.document.main+xml", "docx"),
    (b"presentationml.presentation.main+xml", "pptx"),
    (b"spreadsheetml.sheet.main+xml", "xlsx"),
)
"""What the main part of an Office file is, where it does not have its usual name."""
_HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body")
_MAIL_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]{1,60}:[ \t]")
_MAIL_HEADERS_KNOWN = re.compile(
    rb"^(?:From|Received|Return-Path|Message-ID|MIME-Version|Delivered-To|Subject|Date|To):[ \t]", re.I | re.M
)
_TAR_MAGIC_AT = 257
_MANIFEST_BYTES = 1_000_000
_OLE_START = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_SEARCHED_BYTES = 8 << 20
_WORKBOOK_START = b"\x09\x08\x10\x00\x00\x06\x05\x00"
"""BOF of a workbook of Excel 97 or later ([MS-XLS] 2.4.21)."""


class Unreadable(Exception):
    """The file cannot be read here. The message is one line for the model, without the file's name."""


def detect_kind(file: BinaryIO, name: str) -> Kind:
    """Say what `file` is; leaves it at its start.

    Raises:
        Unreadable: it is empty, encrypted, or of a kind that is not read here.
    """
    file.seek(0)
    head = file.read(_PEEK_BYTES)
    file.seek(0)
    if not head:
        raise Unreadable("The file is empty.")
    if b"%PDF-" in head[:_PDF_HEADER_WITHIN]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _kind_of_zip(file)
    if head.startswith(_OLE_START):
        return _kind_of_ole(file)
    kind = _kind_of_binary(head)
    if kind is not None:
        return _tar_inside(head, kind) if kind in ("gzip", "bzip2", "xz") else kind
    for signature, what in _REFUSED:
        if head.startswith(signature) and not _is_mostly_text(head):
            raise Unreadable(f"This is {what}, whatever its name says; it has no text that can be read here.")
    if not head.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\x00" in head:
        raise Unreadable("This is a binary file of an unknown kind; there is no text to read in it.")
    return _kind_of_text(head, name)


def old_office_kind(file: BinaryIO) -> OldOfficeKind | None:
    """Which of the kinds that `detect_kind` refuses as too old `file` is, if any; leaves it at its start."""
    file.seek(0)
    content = file.read(_OLE_SEARCHED_BYTES)
    file.seek(0)
    if content.startswith(b"{\\rtf"):
        return "rtf"
    if not content.startswith(_OLE_START) or _utf16("EncryptedPackage") in content:
        return None
    if _utf16("WordDocument") in content:
        return "doc"
    return "ppt" if _utf16("PowerPoint Document") in content else None


def _kind_of_binary(head: bytes) -> Kind | None:
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "audio"
    if head[4:8] == b"ftyp":  # ISO base media: the brand says what for
        brand = head[8:12].lower()
        if brand.startswith((b"hei", b"avi", b"mif", b"msf")):
            return "image"
        return "audio" if brand.startswith((b"m4a", b"m4b", b"f4a")) else "video"
    if head.startswith(b"OggS"):
        return "video" if b"theora" in head[:200] else "audio"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return "video"  # MPEG transport stream
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return "tar"
    if head.startswith((b"\xff\xfe\x00\x00", b"\xff\xfe")):
        return None  # UTF-16 and UTF-32 text
    return next((kind for start, kind in _SIGNATURES if head.startswith(start) and not _is_mostly_text(head)), None)


def _tar_inside(head: bytes, kind: Kind) -> Kind:
    """A TAR under gzip is one archive, not a compressed file with an archive in it."""
    try:
        match kind:
            case "gzip":
                start = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(head, 512)
            case "bzip2":
                start = bz2.BZ2Decompressor().decompress(head, 512)
            case _:
                start = lzma.LZMADecompressor().decompress(head, 512)
    except (OSError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile):
        return kind
    return "tar" if start[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar" else kind


def _kind_of_zip(file: BinaryIO) -> Kind:
    try:
        with zipfile.ZipFile(file) as archive:
            members = frozenset(archive.namelist())
            mimetype = _start_of(archive, "mimetype", 100).decode("ascii", errors="replace").strip()
            content_types = _start_of(archive, _CONTENT_TYPES, _CONTENT_TYPES_BYTES)
            is_encrypted = b"encryption-data" in _start_of(archive, "META-INF/manifest.xml", _MANIFEST_BYTES)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, RuntimeError, OSError, EOFError, zlib.error) as exc:
        raise Unreadable("The file starts like a ZIP or Office file but its directory is damaged.") from exc
    finally:
        file.seek(0)
    for member, kind in _ZIP_MEMBERS:
        if member in members:
            return kind
    for content_type, kind in _MAIN_PARTS:
        if content_type in content_types:
            return kind
    if "content.xml" in members and "META-INF/manifest.xml" in members:
        if is_encrypted:
            raise Unreadable("The OpenDocument file is encrypted with a password; save a copy without one.")
        return "ods" if "spreadsheet" in mimetype else "odp" if "presentation" in mimetype else "odt"
    return "zip"


def _start_of(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    if name not in archive.NameToInfo:
        return b""
    with archive.open(name) as member:
        return member.read(size)


def _kind_of_ole(file: BinaryIO) -> Kind:
    """OLE2 holds both the Office formats before 2007 and every password-protected Office file since."""
    content = file.read(_OLE_SEARCHED_BYTES)
    file.seek(0)
    if _utf16("EncryptedPackage") in content:
        raise Unreadable("The Office file is encrypted with a password; save a copy without one.")
    if _utf16("WordDocument") in content or _utf16("PowerPoint Document") in content:
        raise Unreadable("This is a Word or PowerPoint file from before 2007 (.doc, .ppt); save it in a newer format.")
    if _utf16("Workbook") in content or _utf16("Book") in content:
        if _is_encrypted_workbook(content):
            raise Unreadable("The workbook is encrypted with a password; save a copy without one.")
        return "xls"
    if _utf16("__substg1.0_") in content:
        raise Unreadable("This is an Outlook message (.msg), which is not read here; save it as .eml or text.")
    raise Unreadable("This is an old Office or Windows file (OLE) of a kind that is not read here.")


def _is_encrypted_workbook(content: bytes) -> bool:
    """A workbook's first record (BOF) is then followed by FilePass ([MS-XLS] 2.4.117), or by WriteProtect before it."""
    at = content.find(_WORKBOOK_START)
    if at < 0:
        return False
    after = content[at + 4 + content[at + 2] :]
    after = after[4:] if after.startswith(b"\x86\x00\x00\x00") else after
    return after.startswith(b"\x2f\x00")


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def _is_mostly_text(head: bytes) -> bool:
    """`BM` and `MZ` also start English sentences."""
    return b"\x00" not in head and sum(byte < 9 or 13 < byte < 32 or byte > 126 for byte in head) * 20 < len(head)


def _kind_of_text(head: bytes, name: str) -> Kind:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    suffix = PurePath(name).suffix.lower()
    if start.lower().startswith(_HTML_STARTS):
        return "html"
    if start.startswith(b"<?xml"):
        return "html" if b"<html" in start.lower() else "xml"
    if suffix in _TEXT_NAMES:
        return _TEXT_NAMES[suffix]
    if _is_mail(start, sure=suffix == ".eml"):
        return "eml"
    if re.match(rb"<[A-Za-z!]", start):
        return "html" if suffix in (".html", ".htm") or re.search(rb"</?(?:p|div|a|br)\b", start, re.I) else "xml"
    if re.match(rb"[\[{]\s*(?:[\"\[{\]}]|-?\d|true|false|null)", start):
        return "jsonl" if re.match(rb"\{[^\n]*\}\s*\n\s*\{", start) else "json"
    from memento_documents.delimited import looks_like_table

    return "table" if looks_like_table(head) else "text"


def _is_mail(start: bytes, *, sure: bool) -> bool:
    """Header lines at the start, some of them a mail's; a file that is called .eml needs one."""
    if start.startswith(b"From ") and not sure:
        start = start.partition(b"\n")[2]  # as mail spools write it
    if not _MAIL_HEADER.match(start):
        return False
    headers = re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0]
    if sure:
        return True
    known = {match.lower() for match in _MAIL_HEADERS_KNOWN.findall(headers)}
    return len(known) >= 3 and all(
        _MAIL_HEADER.match(line) or line[:1] in (b" ", b"\t") for line in headers.splitlines()[:20] if line
    )
