"""What a file is, judged by its first bytes and never by its name alone.

Owns the table of signatures and the one-line reasons for files that cannot be read here. The name is a
hint only between kinds that are all plain text (a `.py` file full of commas is not a table).
"""

import zipfile
from pathlib import PurePath
from typing import BinaryIO, Literal

__all__ = ["Kind", "Unreadable", "detect_kind"]

Kind = Literal["pdf", "docx", "xlsx", "table", "html", "text"]

_PEEK_BYTES = 4096
_PDF_HEADER_WITHIN = 1024
"""PDF 1.7, implementation note 13: readers accept `%PDF-` anywhere in the first 1024 bytes."""

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"BM", "a BMP image"),
    (b"ID3", "an MP3 recording"),
    (b"OggS", "an Ogg recording"),
    (b"fLaC", "a FLAC recording"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"{\\rtf", "an RTF document"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
)
_ZIP_MEMBERS: tuple[tuple[str, str], ...] = (
    ("ppt/", "a PowerPoint presentation (PPTX)"),
    ("META-INF/container.xml", "an EPUB book"),
    ("content.xml", "an OpenDocument file"),
)
# fmt: off
_TEXT_NAMES = frozenset({
    ".txt", ".md", ".markdown", ".rst", ".py", ".js", ".ts", ".c", ".h", ".cpp", ".hpp", ".rs", ".go", ".java",
    ".rb", ".sh", ".sql", ".css", ".tex", ".toml", ".ini", ".cfg", ".yaml", ".yml", ".xml", ".json", ".jsonl",
    ".log", ".eml",
})
# fmt: on
_TABLE_NAMES = frozenset({".csv", ".tsv", ".tab", ".psv"})
_HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body")


class Unreadable(Exception):
    """The file cannot be read here. The message is one line for the model, without the file's name."""


def detect_kind(file: BinaryIO, name: str) -> Kind:
    """Say what `file` is; leaves it at its start.

    Raises:
        Unreadable: it is empty, encrypted, or of a kind that is not read here.
    """
    head = file.read(_PEEK_BYTES)
    file.seek(0)
    if not head:
        raise Unreadable("The file is empty.")
    if b"%PDF-" in head[:_PDF_HEADER_WITHIN]:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(file)
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        raise Unreadable(_ole_reason(file))
    for signature, what in _SIGNATURES:
        if head.startswith(signature) and not _is_mostly_text(head):
            raise Unreadable(f"This is {what}, whatever its name says; it has no text that can be read here.")
    if not head.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\x00" in head:
        raise Unreadable("This is a binary file of an unknown kind; there is no text to read in it.")
    return _kind_of_text(head, name)


def _kind_of_zip(file: BinaryIO) -> Kind:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as exc:
        raise Unreadable("The file starts like a ZIP or Office file but its directory is damaged.") from exc
    finally:
        file.seek(0)
    if "xl/workbook.xml" in members:
        return "xlsx"
    if "word/document.xml" in members:
        return "docx"
    if "xl/workbook.bin" in members:
        raise Unreadable("This is a binary Excel workbook (XLSB), which is not read here; save it as .xlsx or .csv.")
    for start, what in _ZIP_MEMBERS:
        if any(member.startswith(start) for member in members):
            raise Unreadable(f"This is {what}, which is not read here yet; save it as PDF or text.")
    raise Unreadable(f"This is a ZIP archive with {len(members)} members; unpack it and read one of them.")


def _ole_reason(file: BinaryIO) -> str:
    """OLE2 holds both the Office formats before 2007 and every password-protected Office file since."""
    content = file.read(1 << 20)
    file.seek(0)
    if "EncryptedPackage".encode("utf-16-le") in content:
        return "The Office file is encrypted with a password; save a copy without one."
    return (
        "This is an Office file from before 2007 (.doc, .xls, .ppt), which is not read here; save it in a newer format."
    )


def _is_mostly_text(head: bytes) -> bool:
    """`BM` and `MZ` also start English sentences."""
    return b"\x00" not in head and sum(byte < 9 or 13 < byte < 32 or byte > 126 for byte in head) * 20 < len(head)


def _kind_of_text(head: bytes, name: str) -> Kind:
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML_STARTS):
        return "html"
    suffix = PurePath(name).suffix.lower()
    if suffix in _TABLE_NAMES:
        return "table"
    if suffix in _TEXT_NAMES:
        return "text"
    from memento_documents.delimited import looks_like_table

    return "table" if looks_like_table(head) else "text"
