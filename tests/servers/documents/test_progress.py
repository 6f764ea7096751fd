"""memento_documents: long work that is no PDF tells how far it is, and ends when nobody wants it any more."""

import functools
import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from memento_documents import progress
from memento_documents.archive import open_member
from memento_documents.media import pictures
from memento_documents.reading import read_file
from memento_documents.server import Settings, build_server
from support.document_files import make_pdf, make_xlsx, zip_bytes
from support.office_files import gif_bytes, video_bytes

pytestmark = pytest.mark.anyio


@functools.cache
def large_workbook() -> bytes:
    rows: list[list[object]] = [["number", "name"], *([at, f"row {at}"] for at in range(21_000))]
    with tempfile.TemporaryDirectory() as folder:
        return make_xlsx(Path(folder) / "a.xlsx", {"Data": rows}).read_bytes()


def large_xlsx(_: Path) -> bytes:
    return large_workbook()


def tar_gz(_: Path) -> bytes:
    """Twenty members of noise, 6 MB packed."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as archive:
        for at in range(20):
            info = tarfile.TarInfo(f"{at}.bin")
            info.size = 300_000
            archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    return content.getvalue()


LONG: dict[str, tuple[Callable[[Path], bytes], Callable[[io.BytesIO], object], str]] = {
    "listing a compressed TAR": (tar_gz, lambda file: read_file(file, "x"), "kilobyte"),
    "unpacking a member": (
        lambda _: zip_bytes({"a.txt": b"words " * 1_000_000}),
        lambda file: open_member(file, "x.zip!/a.txt"),
        "megabyte",
    ),
    "frames of a video": (
        lambda _: video_bytes(4),
        lambda file: pictures(file, "video", 4, 0.0, None, 100_000),
        "frame",
    ),
    "frames of an animation": (
        lambda _: gif_bytes(4),
        lambda file: pictures(file, "image", 4, 0.0, None, 100_000),
        "frame",
    ),
    "a range of a large workbook": (
        large_xlsx,
        lambda file: read_file(file, "x", cells="A1:B5000"),
        "row",
    ),
    "all of a large workbook": (
        large_xlsx,
        lambda file: read_file(file, "x", whole=True),
        "row",
    ),
    "all of a large table": (
        lambda _: "".join(f"{at};name {at};{'x' * 100}\n" for at in range(60_000)).encode(),
        lambda file: read_file(file, "a.csv", whole=True),
        "megabyte",
    ),
}


@pytest.mark.parametrize("work", LONG)
def test_long_work_tells_how_far_it_is(work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, int, str]] = []
    monkeypatch.setattr(progress, "_listeners", [])
    progress.listen(lambda done, total, what: heard.append((done, total, what)))
    make, do, unit = LONG[work]
    do(io.BytesIO(make(tmp_path)))
    assert heard
    assert {what for _, _, what in heard} == {unit}
    places = [done for done, _, _ in heard]
    assert places == sorted(places)
    assert all(0 <= done <= total for done, total, _ in heard)
    assert places[-1] >= heard[-1][1] * 0.15


async def test_the_client_hears_the_progress_of_a_search_through_a_large_workbook(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(large_workbook())
    heard: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with Client(build_server(Settings(folders=(tmp_path,)))) as client:
        arguments = {"source": "a.xlsx", "query": "nothing"}
        await client.call_tool("search_document", arguments, progress_callback=hear)
    assert any(message and message.startswith("row ") for message in heard)


async def test_a_call_that_the_client_gives_up_ends_its_child_at_once_and_the_next_is_answered(tmp_path: Path) -> None:
    """The first progress cancels the call; there is one place for children, and it is free again."""
    make_pdf(tmp_path / "long.pdf", ["A page with some words on it. " * 30] * 400)
    (tmp_path / "a.txt").write_text("Still here.", encoding="utf-8")
    with anyio.fail_after(60):
        async with Client(build_server(Settings(folders=(tmp_path,), parallel=1))) as client:
            with anyio.CancelScope() as call:

                async def hear(progress: float, total: float | None, message: str | None) -> None:
                    call.cancel()

                await client.call_tool("read_document", {"source": "long.pdf"}, progress_callback=hear)
            assert call.cancelled_caught
            answer: Any = await client.call_tool("read_document", {"source": "a.txt"})
            assert answer.structured_content["text"] == "Still here.\n"
            while grandchildren(os.getpid()):  # noqa: ASYNC110 - nothing tells us of their end
                await anyio.sleep(0.01)


def grandchildren(process: int) -> set[int]:
    """The zygotes' children."""

    def children(each: int) -> set[int]:
        try:
            said = Path(f"/proc/{each}/task/{each}/children").read_text(encoding="ascii")
        except FileNotFoundError:
            return set()
        return {int(child) for child in said.split()}

    return {below for each in children(process) for below in children(each)}
