"""What pages of Office files look like: LibreOffice prints them to PDF, and PDF pages are drawn here already.

Owns the one program that is neither Python nor a library: its profile, its command line, its limits, its end. Each
file is printed by a process of its own, in a temporary folder that is all it may write to, with macros off, links
not followed and, where the kernel can do it, no network and no file of the user's (`office_child`). One at a time:
it takes seconds and hundreds of megabytes. Knows nothing of caches; `library` keeps what comes out.
"""

import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from memento_documents.confinement import why_not_confined
from memento_documents.kinds import Unreadable

__all__ = ["OFFICE_KINDS", "OfficePages", "no_office"]

logger = logging.getLogger(__name__)

_WRITER = "pdf:writer_pdf_Export"
_IMPRESS = 'pdf:impress_pdf_Export:{"ExportHiddenSlides":{"type":"boolean","value":"true"}}'
_CALC = 'pdf:calc_pdf_Export:{"SinglePageSheets":{"type":"boolean","value":"true"}}'
"""A slide is then always its own number's page, and a sheet one page, as wide and long as its cells."""

# fmt: off
OFFICE_KINDS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("docx", "odt", "rtf", "doc"), ("libreoffice-writer-nogui", _WRITER)),
    **dict.fromkeys(("pptx", "odp", "ppt"), ("libreoffice-impress-nogui", _IMPRESS)),
    **dict.fromkeys(("xlsx", "xlsb", "xls", "ods"), ("libreoffice-calc-nogui", _CALC)),
}
# fmt: on
"""Kind, which is also the file's suffix: the Debian package that reads it, and the export filter."""

_SETTINGS = (
    ("Office.Common/Security/Scripting", "DisableMacrosExecution", "true"),
    ("Office.Common/Security/Scripting", "MacroSecurityLevel", "3"),
    ("Office.Common/Security/Scripting", "BlockUntrustedRefererLinks", "true"),
    ("Office.Common/Security/Scripting", "DisableActiveContent", "true"),
    ("Office.Common/Misc", "UseLocking", "false"),
    ("Office.Writer/Content/Update", "Link", "0"),  # never
    ("Office.Calc/Content/Update", "Link", "2"),  # never
)


def no_office(kind: str) -> Unreadable:
    """What to say of an Office file when LibreOffice is not there."""
    return Unreadable(
        f"This is {kind}; how its pages look cannot be shown, because LibreOffice is not installed here (on Debian "
        f"apt-get install --no-install-recommends {OFFICE_KINDS[kind][0]}). Read it with read_document, look at its "
        "pictures with describe_media, or have it saved as PDF."
    )


class OfficePages:
    """Prints Office files to PDF with the LibreOffice at `program`.

    One file may take `seconds` of wall and of CPU time and `memory_bytes` of address space; no file that it writes is
    larger than `max_pdf_bytes`.
    """

    def __init__(self, program: str, *, seconds: float, memory_bytes: int, max_pdf_bytes: int) -> None:
        self._program = program
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._max_pdf_bytes = max_pdf_bytes
        self._one_at_a_time = anyio.Lock()

    def version(self) -> str:
        """Changes when another LibreOffice is installed; starts nothing. Blocking."""
        program = Path(self._program).resolve()
        marks = [str(program)]
        for path in (program, *(program.with_name(name) for name in ("soffice.bin", "versionrc"))):
            with suppress(OSError):
                status = path.stat()
                marks.append(f"{status.st_size}-{status.st_mtime_ns}")
        return " ".join(marks)

    async def to_pdf(self, kind: str, write: Callable[[Path], None]) -> bytes:
        """The PDF of a file of this kind, which `write` puts at the path it is given; it is called in a thread.

        Raises:
            Unreadable: LibreOffice cannot read it, or went over a limit.
        """
        async with self._one_at_a_time:
            folder = Path(await anyio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="memento-office-")))
            try:
                document = folder / f"document.{kind}"
                await anyio.to_thread.run_sync(_prepare, folder, self._program)
                await anyio.to_thread.run_sync(write, document)
                code = await self._run(folder, document, OFFICE_KINDS[kind][1])
                return await anyio.to_thread.run_sync(self._result, folder / "out" / "document.pdf", kind, code)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(_clear, folder)

    async def _run(self, folder: Path, document: Path, export: str) -> int | None:
        if missing := why_not_confined():
            logger.warning("LibreOffice can read files and open sockets here: %s", missing)
        limits = (self._memory_bytes, max(1, round(self._seconds)), self._max_pdf_bytes)
        process = await anyio.open_process(
            [
                sys.executable, "-I", "-m", "memento_documents.office_child", str(folder), *map(str, limits),
                self._program, f"-env:UserInstallation={_profile(folder)}", "--headless", "--norestore",
                "--nologo", "--nodefault", "--nolockcheck", "--convert-to", export, "--outdir", str(folder / "out"),
                str(document),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server's stdout is the MCP stream
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(folder),
                "TMPDIR": str(folder / "tmp"),
                "LC_ALL": "C.UTF-8",
                "SAL_USE_VCLPLUGIN": "svp",  # draws without a display
                "DISABLE_EXTENSION_SYNCHRONIZATION": "1",
            },
            start_new_session=True,
        )  # fmt: skip
        try:
            with anyio.move_on_after(self._seconds) as scope:
                await process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.wait()
        if scope.cancelled_caught:
            raise Unreadable(f"LibreOffice took longer than {self._seconds:g} s to draw it and was stopped.")
        return process.returncode

    def _result(self, path: Path, kind: str, code: int | None) -> bytes:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        if not content.startswith(b"%PDF-"):
            logger.warning("LibreOffice made no PDF of a file of kind %s and ended with code %s", kind, code)
            raise Unreadable(
                "LibreOffice could not draw it: it is damaged, needs more memory or time than it may have, or "
                f"LibreOffice's part for {kind} is not installed (Debian package {OFFICE_KINDS[kind][0]})."
            )
        if len(content) >= self._max_pdf_bytes:  # where the limit on its files cut it off
            raise Unreadable(
                f"Printed, it is larger than {self._max_pdf_bytes / 1e6:g} MB, the most that is read here."
            )
        return content


def _profile(folder: Path) -> str:
    return (folder / "profile").as_uri()


def _prepare(folder: Path, program: str) -> None:
    for name in ("out", "tmp", "profile/user/extensions"):
        (folder / name).mkdir(parents=True)
    # A profile without this mark is made anew by a first start, and then LibreOffice starts a second time.
    versionrc = Path(program).resolve().with_name("versionrc")
    with suppress(OSError):
        if build := re.search(r"^buildid=(.+)$", versionrc.read_text(encoding="utf-8"), re.MULTILINE):
            (folder / "profile/user/extensions/buildid").write_text(build[1], encoding="utf-8")
    items = "".join(
        f'<item oor:path="/org.openoffice.{path}"><prop oor:name="{name}" oor:op="fuse"><value>{value}</value></prop>'
        "</item>\n"
        for path, name, value in _SETTINGS
    )
    (folder / "profile/user/registrymodifications.xcu").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<oor:items xmlns:oor="http://openoffice.org/2001/registry" '
        f'xmlns:xs="http://www.w3.org/2001/XMLSchema">\n{items}</oor:items>\n',
        encoding="utf-8",
    )


def _clear(folder: Path) -> None:
    """Remove the folder, and the socket that LibreOffice leaves in /tmp when it is killed, or may remove nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    digest = hashlib.md5(_profile(folder).encode("utf-16-le"), usedforsecurity=False).digest()
    mark = "".join(f"{byte:x}" for byte in digest)  # as it writes it, without leading zeros
    for socket in Path("/tmp").glob(f"OSL_PIPE_*SingleOfficeIPC_{mark}"):
        socket.unlink(missing_ok=True)
