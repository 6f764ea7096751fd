"""Real files for the tests of the documents server, made on the spot: nothing binary lies in the repository."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["ENCRYPTED_OFFICE", "make_pdf", "make_xlsx", "pdf_bytes", "zip_bytes"]

ENCRYPTED_OFFICE = (
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + "EncryptedPackage".encode("utf-16-le") + bytes(1000)
)
"""The start of what Word, Excel and PowerPoint write with a password: an OLE2 file with this stream's name in it."""


def pdf_bytes(
    pages: Sequence[str], *, outline: Sequence[tuple[int, str]] = (), title: str = "", password: str | None = None
) -> bytes:
    """A PDF with one page per text, outline entries as (page, title), encrypted when there is a password."""
    from memento_documents.pdf import import_pymupdf

    pymupdf = import_pymupdf()
    document = pymupdf.open()
    for text in pages:
        document.new_page().insert_textbox((50, 50, 550, 800), text)
    document.set_toc([[1, entry, page] for page, entry in outline])
    document.set_metadata({"title": title})
    options: dict[str, Any] = {}
    if password is not None:
        options = {"encryption": pymupdf.PDF_ENCRYPT_AES_256, "user_pw": password, "owner_pw": password}
    content = bytes(document.tobytes(**options))
    document.close()
    return content


def make_pdf(path: Path, pages: Sequence[str], **options: Any) -> Path:
    path.write_bytes(pdf_bytes(pages, **options))
    return path


def make_xlsx(
    path: Path, sheets: dict[str, list[list[object]]], formats: dict[tuple[str, str], str] | None = None
) -> Path:
    """A workbook; `formats` gives cells, as (sheet, "B2"), a number format."""
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet: Any = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    for (name, cell), number_format in (formats or {}).items():
        book[name][cell].number_format = number_format
    book.save(path)
    return path


def zip_bytes(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()
