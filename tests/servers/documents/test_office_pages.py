"""memento_documents.office_pages: pages of Office files as pictures, by LibreOffice or a script in its place."""

import base64
import importlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import CallToolResult, ImageContent, TextContent
from PIL import Image

from memento_documents.confinement import why_not_confined
from memento_documents.kinds import Unreadable
from memento_documents.office_pages import OfficePages
from memento_documents.server import Settings, build_server
from memento_kit import StartupError
from support.document_files import make_xlsx, pdf_bytes, zip_bytes
from support.loopback import loopback_server
from support.office_files import docx_bytes, odt_bytes, pptx_bytes

pytestmark = pytest.mark.anyio
confined = pytest.mark.skipif(why_not_confined() is not None, reason=f"not confined here: {why_not_confined()}")
with_office = pytest.mark.skipif(
    shutil.which("soffice") is None,
    reason="no LibreOffice here (apt-get install --no-install-recommends libreoffice-writer-nogui "
    "libreoffice-impress-nogui libreoffice-calc-nogui)",
)

_FIND_OUT = 'while [ "$1" != --outdir ]; do shift; done; out=$2/document.pdf\n'
"""Shell: where the PDF is to be written."""


def office(folder: Path, script: str, *, seconds: float = 20, max_pdf_bytes: int = 1_000_000) -> OfficePages:
    """LibreOffice's place taken by a shell script."""
    return OfficePages(str(program(folder, script)), seconds=seconds, memory_bytes=1 << 30, max_pdf_bytes=max_pdf_bytes)


def program(folder: Path, script: str) -> Path:
    path = folder / "office" / "program" / "soffice"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}", encoding="ascii")
    path.chmod(0o755)
    return path


def writes(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def temporary_folders(folder: Path) -> list[Path]:
    return list(folder.glob("memento-office-*"))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the conversions' folders are made, so that a test sees whether they are gone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


async def view(folder: Path, *calls: dict[str, Any], soffice: str) -> list[CallToolResult]:
    chosen = Settings(folders=(folder,), cache_folder=folder / "cache", soffice=soffice)
    async with Client(build_server(chosen)) as client:
        return [await client.call_tool("view_page", arguments) for arguments in calls]


def told(result: CallToolResult) -> str:
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def picture(result: CallToolResult) -> Image.Image:
    assert not result.is_error, result.content
    assert isinstance(result.content[1], ImageContent)
    return Image.open(io.BytesIO(base64.b64decode(result.content[1].data))).convert("RGB")


async def test_what_goes_out_says_how_it_is_printed_and_nothing_of_this_process(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script's PDF is what it was given: arguments, environment, limits, profile, document."""
    monkeypatch.setenv("MEMENTO_SECRET", "hush")
    tells = office(
        tmp_path,
        'said="$*"; ' + _FIND_OUT + 'shift 2; { echo "%PDF-"; echo "$said"; export -p; echo "limits $(ulimit -v) '
        '$(ulimit -f) $(ulimit -t)"; cat "$HOME/profile/user/registrymodifications.xcu" "$1"; } > "$out"',
    )
    said = (await tells.to_pdf("pptx", writes(b"the document"))).decode()
    assert "--headless" in said
    assert '--convert-to pdf:impress_pdf_Export:{"ExportHiddenSlides":{"type":"boolean","value":"true"}}' in said
    assert "-env:UserInstallation=file://" in said
    assert 'oor:name="DisableMacrosExecution" oor:op="fuse"><value>true' in said
    assert 'oor:name="BlockUntrustedRefererLinks" oor:op="fuse"><value>true' in said
    assert said.endswith("the document")
    assert "hush" not in said
    assert f"limits {1 << 20} " in said  # KiB
    assert " 20\n" in said
    assert "SinglePageSheets" in (await tells.to_pdf("xlsx", writes(b""))).decode()
    assert not temporary_folders(temporary)


@confined
async def test_the_program_reads_no_file_of_the_users_and_writes_in_its_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush", encoding="ascii")
    reads = office(
        tmp_path,
        f'secret="{tmp_path}/secret"; {_FIND_OUT} {{ echo "%PDF-"; cat "$secret" || echo unread; '
        '(echo x > "$secret") || echo unwritten; } > "$out" 2>&1',
    )
    said = (await reads.to_pdf("odt", writes(b""))).decode()
    assert "hush" not in said
    assert "unread" in said
    assert "unwritten" in said
    assert (tmp_path / "secret").read_text(encoding="ascii") == "hush"


async def test_a_program_that_does_not_end_is_stopped_with_all_that_it_started(tmp_path: Path, temporary: Path) -> None:
    seconds = f"86{os.getpid()}"  # a command line that nothing else has

    def sleepers() -> list[str]:
        found: list[str] = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if path.read_bytes() == f"sleep\0{seconds}\0".encode():
                    found.append(path.parent.name)
            except OSError:  # gone meanwhile
                continue
        return found

    hangs = office(tmp_path, f"sleep {seconds} & wait", seconds=600)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hangs.to_pdf, "docx", writes(b""))
            while not sleepers():  # noqa: ASYNC110  another process's state
                await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
        while sleepers():  # noqa: ASYNC110
            await anyio.sleep(0.02)
    assert not temporary_folders(temporary)
    slow = office(tmp_path, f"sleep {seconds}", seconds=0.2)
    with pytest.raises(Unreadable, match=r"took longer than 0\.2 s"):
        await slow.to_pdf("docx", writes(b""))


async def test_no_pdf_is_one_line_that_names_what_may_be_missing(tmp_path: Path) -> None:
    for script in ("exit 0", "exit 1", _FIND_OUT + 'echo no > "$out"'):
        with pytest.raises(Unreadable, match="libreoffice-calc-nogui"):
            await office(tmp_path, script).to_pdf("xlsx", writes(b""))
    larger = office(tmp_path, _FIND_OUT + 'echo %PDF- > "$out"; cat /bin/sh /bin/sh >> "$out"', max_pdf_bytes=2_000)
    with pytest.raises(Unreadable, match=r"larger than 0\.002 MB"):
        await larger.to_pdf("ods", writes(b""))


async def test_a_document_is_printed_once_whatever_page_is_looked_at_and_whoever_asks(tmp_path: Path) -> None:
    path = program(tmp_path, f'printed="${{0%/*}}/printed.pdf"; {_FIND_OUT} cp "$printed" "$out"')
    printed = path.with_name("printed.pdf")
    printed.write_bytes(pdf_bytes(["One.", "Two."]))
    (tmp_path / "REPORT.DOCX").write_bytes(docx_bytes())
    (tmp_path / "old").write_bytes(rb"{\rtf1 Old.}")
    (tmp_path / "all.zip").write_bytes(zip_bytes({"a/b.docx": docx_bytes()}))
    calls: list[dict[str, Any]] = [
        {"source": "REPORT.DOCX"}, {"source": "REPORT.DOCX", "page": 2, "region": [0, 0, 1, 0.5]},
        {"source": "old"}, {"source": "all.zip!/a/b.docx"}, {"source": "REPORT.DOCX", "page": 3},
    ]  # fmt: skip
    first, region, old, member, beyond = await view(tmp_path, *calls, soffice=str(path))
    assert picture(first).height > picture(first).width
    assert picture(region).width > picture(region).height
    assert picture(old).size == picture(member).size == picture(first).size
    assert first.structured_content is not None
    assert first.structured_content["total"] == 2
    assert "pages 1-2" in told(beyond)
    printed.unlink()
    (again,) = await view(tmp_path, {"source": "REPORT.DOCX", "page": 2}, soffice=str(path))
    assert not again.is_error
    os.utime(path, (1, 1))  # as another version
    (anew,) = await view(tmp_path, {"source": "REPORT.DOCX", "page": 2}, soffice=str(path))
    assert "could not draw" in told(anew)


async def test_without_libreoffice_each_kind_is_told_what_to_install(tmp_path: Path) -> None:
    files = {
        "libreoffice-writer-nogui": docx_bytes(),
        "libreoffice-impress-nogui": pptx_bytes(),
        "libreoffice-calc-nogui": make_xlsx(tmp_path / "made.xlsx", {"A": [["x"]]}).read_bytes(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    answers = await view(tmp_path, *({"source": name} for name in files), soffice="")
    for name, answer in zip(files, answers, strict=True):
        assert f"apt-get install --no-install-recommends {name})" in told(answer)
        assert "read_document" in told(answer)


def test_a_path_where_no_libreoffice_is_stops_the_start() -> None:
    with pytest.raises(StartupError, match="MEMENTO_DOCUMENTS_SOFFICE: there is no program at '/nowhere/soffice'"):
        Settings(soffice="/nowhere/soffice")


# --- LibreOffice itself ---


@with_office
async def test_libreoffice_draws_documents_slides_and_whole_sheets(tmp_path: Path) -> None:
    styles: Any = importlib.import_module("openpyxl.styles")
    workbook: Any = importlib.import_module("openpyxl").Workbook()
    for row in range(1, 91):  # more than one sheet of paper, and one page all the same
        workbook.active.cell(row, 1, row).fill = styles.PatternFill(
            "solid", fgColor="FFFF0000" if row <= 45 else "FF0000FF"
        )
    workbook.create_sheet("Second")["A1"] = "x"
    workbook.save(tmp_path / "map.xlsx")
    (tmp_path / "letter.odt").write_bytes(odt_bytes())
    (tmp_path / "deck.pptx").write_bytes(pptx_bytes())
    calls = [{"source": name} for name in ("map.xlsx", "letter.odt", "deck.pptx")]
    sheet, letter, deck = await view(tmp_path, *calls, soffice="soffice")
    shown = picture(sheet)
    across = shown.width // 2
    assert shown.getpixel((across, shown.height // 4)) == (255, 0, 0)
    assert shown.getpixel((across, shown.height * 3 // 4)) == (0, 0, 255)
    assert picture(letter).height > picture(letter).width
    assert picture(deck).width > picture(deck).height
    totals = [answer.structured_content and answer.structured_content["total"] for answer in (sheet, letter, deck)]
    assert totals == [2, 1, 2]


@with_office
@confined
async def test_libreoffice_follows_no_link_and_runs_no_macro(tmp_path: Path) -> None:
    """By itself it fetches the one picture and reads the other; opened by hand with macros allowed, this one runs."""
    pymupdf: Any = importlib.import_module("pymupdf")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "local.png")
    program = shutil.which("soffice")
    assert program is not None
    printer = OfficePages(program, seconds=60, memory_bytes=2 << 30, max_pdf_bytes=10_000_000)
    async with loopback_server() as server:
        links = [f"{server.base}/far.png", (tmp_path / "local.png").as_uri()]
        pdf = await printer.to_pdf("odt", writes(_odt_with_links_and_macro(links)))
        assert not server.requests
    with pymupdf.open(stream=pdf) as document:
        page: Any = document[0]
        assert page.get_text().strip() == "quiet"
        assert not page.get_images()


def _odt_with_links_and_macro(links: list[str]) -> bytes:
    names = {
        "office": "urn:oasis:names:tc:opendocument:xmlns:office:1.0",
        "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
        "draw": "urn:oasis:names:tc:opendocument:xmlns:drawing:1.0",
        "svg": "urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0",
        "script": "urn:oasis:names:tc:opendocument:xmlns:script:1.0",
        "manifest": "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0",
        "xlink": "http://www.w3.org/1999/xlink",
        "ooo": "http://openoffice.org/2004/office",
        "dom": "http://www.w3.org/2001/xml-events",
        "library": "http://openoffice.org/2000/library",
    }
    spaces = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in names.items())
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    frame = '<draw:frame text:anchor-type="as-char" svg:width="5cm" svg:height="5cm"><draw:image xlink:type="simple" '
    pictures = "".join(f'<text:p>{frame}xlink:href="{link}"/></draw:frame></text:p>' for link in links)
    on_load = (
        '<office:scripts><office:event-listeners><script:event-listener script:language="ooo:script" '
        'script:event-name="dom:load" xlink:type="simple" '
        'xlink:href="vnd.sun.star.script:Standard.Module1.Main?language=Basic&amp;location=document"/>'
        "</office:event-listeners></office:scripts>"
    )
    parts = {
        "content.xml": f'{head}<office:document-content {spaces} office:version="1.2">{on_load}<office:body>'
        f"<office:text><text:p>quiet</text:p>{pictures}</office:text></office:body></office:document-content>",
        "Basic/script-lc.xml": f'{head}<library:libraries {spaces}><library:library library:name="Standard" '
        'library:link="false"/></library:libraries>',
        "Basic/Standard/script-lb.xml": f'{head}<library:library {spaces} library:name="Standard" '
        'library:readonly="false" library:passwordprotected="false"><library:element library:name="Module1"/>'
        "</library:library>",
        "Basic/Standard/Module1.xml": f'{head}<script:module xmlns:script="http://openoffice.org/2000/script" '
        'script:name="Module1" script:language="StarBasic">Sub Main\nThisComponent.Text.String = "ran"\nEnd Sub\n'
        "</script:module>",
    }
    text = "application/vnd.oasis.opendocument.text"
    entry = '<manifest:file-entry manifest:full-path="{}" manifest:media-type="{}"/>'
    entries = entry.format("/", text) + "".join(entry.format(name, "text/xml") for name in parts)
    manifest = f'{head}<manifest:manifest {spaces} manifest:version="1.2">{entries}</manifest:manifest>'
    members = {"mimetype": text, **parts, "META-INF/manifest.xml": manifest}
    return zip_bytes({name: content.encode() for name, content in members.items()})
