"""Files made to do harm, thirteen kinds: what a call on each costs the server, and whether it gets one bounded answer.

After guides/documents.md §5.3; each is made here, small, and no library's own test file.
"""

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from mcp import Client
from mcp.types import TextContent

from benchmarks.documents.processes import children, tree_cpu
from memento_documents.server import Settings, build_server

__all__ = ["HostileFigures", "make_hostile", "measure_hostile"]

_LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + at)} "{f"&{chr(97 + at)};" * 10}">' for at in range(9)
)
_FETCHES = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@dataclass
class HostileFigures:
    """What one call on one file did."""

    name: str
    cpu_seconds: float
    answer_chars: int
    said: str
    """The start of the answer or of the error."""
    lived: bool


def make_hostile(folder: Path) -> None:
    """Write the files into `folder`, and one that is fine."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fine.txt").write_text("Still here.", encoding="utf-8")
    for name, make in _FILES.items():
        (folder / name).write_bytes(make())


async def measure_hostile(folder: Path) -> list[HostileFigures]:
    """Read each through a server whose children may have a gigabyte."""
    settings = Settings(folders=(folder,), memory_megabytes=1_000, cache_megabytes=0)
    found: list[HostileFigures] = []
    async with Client(build_server(settings)) as client:
        await client.call_tool("read_document", {"source": "fine.txt"})
        (zygote,) = children(os.getpid())
        for name in _FILES:
            before = tree_cpu(zygote)
            with anyio.fail_after(200):
                result = await client.call_tool("read_document", {"source": name, "max_chars": 20_000})
            await anyio.sleep(0.2)  # so that the child's time is counted once it is gone
            cpu = tree_cpu(zygote) - before
            said = result.content[0].text if isinstance(result.content[0], TextContent) else ""
            alive = not (await client.call_tool("read_document", {"source": "fine.txt"})).is_error
            found.append(HostileFigures(name, cpu, len(said), " ".join(said.split())[:90], alive))
    return found


def _zip(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def _docx(body: str) -> bytes:
    return _zip({"[Content_Types].xml": b"<x/>", "word/document.xml": body.encode()})


def _sparse() -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet["A1"], sheet["XFD1048576"] = 1, 2
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def _million_rows() -> bytes:
    """A million rows of one cell, without the size that Excel would write at its start."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    kinds = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    rows = "".join(f'<row r="{at}"><c r="A{at}"><v>{at}</v></c></row>' for at in range(1, 1_000_001))
    relations = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
    one = '<Relationship Id="rId1" Type="' + kinds + '/{}" Target="{}"/>'
    types = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" '
        'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override '
        'PartName="/xl/s.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
        "</Types>"
    )
    sheets = '<sheets><sheet name="S" sheetId="1" r:id="rId1"/></sheets>'
    book = f'<workbook xmlns="{main}" xmlns:r="{kinds}">{sheets}</workbook>'
    return _zip(
        {
            "[Content_Types].xml": types.encode(),
            "_rels/.rels": relations.format(one.format("officeDocument", "xl/workbook.xml")).encode(),
            "xl/workbook.xml": book.encode(),
            "xl/_rels/workbook.xml.rels": relations.format(one.format("worksheet", "s.xml")).encode(),
            "xl/s.xml": f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>'.encode(),
        }
    )


def _huge_png() -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return start + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def _tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in ("../../etc/cron.d/x", "/etc/passwd"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        link = tarfile.TarInfo("way-out")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return content.getvalue()


def _encrypted_office() -> bytes:
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + "EncryptedPackage".encode("utf-16-le") + bytes(500)


_ALIASES = "a: &a [x, x]\n" + "".join(f"{chr(c)}: &{chr(c)} [*{chr(c - 1)}, *{chr(c - 1)}]\n" for c in range(98, 122))

_FILES: dict[str, Callable[[], bytes]] = {
    "bomb.docx": lambda: _docx("<x>" + " " * 700_000_000 + "</x>"),
    "laughs.docx": lambda: _docx(_LAUGHS + "]><x>&j;</x>"),
    "entities.docx": lambda: _docx(_FETCHES + "<x>&a;</x>"),
    "million.xlsx": _million_rows,
    "sparse.xlsx": _sparse,
    "huge.png": _huge_png,
    "zeros.gz": lambda: gzip.compress(bytes(400_000_000), 1),
    "out.tar": _tar,
    "deep.json": lambda: b"[" * 200_000 + b"]" * 200_000,
    "aliases.yaml": lambda: _ALIASES.encode(),
    "deep.html": lambda: b"<html>" + b"<div>" * 100_000 + b"x" + b"</div>" * 100_000,
    "locked.docx": _encrypted_office,
    "macros.docm": lambda: _zip({"word/document.xml": b"<x/>", "word/vbaProject.bin": b"Sub AutoOpen()"}),
}
