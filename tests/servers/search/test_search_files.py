"""search_files through its client, over real folders and a real index."""

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, TextContent, ToolAnnotations

from memento_documents.confinement import why_not_confined
from memento_kit import unfence
from memento_search import file_search
from memento_search.folder_scan import scan_folders
from memento_search.server import Settings, build_server
from support.document_files import make_pdf, make_xlsx

pytestmark = pytest.mark.anyio

FUNDY = (
    "# Tides\n\nThe Bay of Fundy has the highest tides.\n\n## Range\n\nAt Burntcoat Head the range is 16.3 metres.\n"
)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "fundy.md").write_text(FUNDY, encoding="utf-8")
    (folder / "boats.csv").write_text("boat,length_m\nPelican,12\nGannet,9\n", encoding="utf-8")
    (folder / "code").mkdir()
    (folder / "code" / "tide_table.py").write_text("def next_high_water(port):\n    return port\n", encoding="utf-8")
    (folder / "page.html").write_text("<h1>Harbour</h1><p>Moorings cost 30 a night.</p>", encoding="utf-8")
    return folder


@asynccontextmanager
async def search(*folders: Path, **settings: Any) -> AsyncGenerator[Client]:
    settings = {"folders": folders, **settings}
    async with Client(build_server(Settings(**settings))) as client:
        yield client


async def ask(client: Client, query: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool("search_files", {"query": query, **arguments})
    assert not result.is_error, said(result)
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, query: str, **arguments: Any) -> str:
    result = await client.call_tool("search_files", {"query": query, **arguments})
    assert result.is_error
    return said(result)


def said(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


def paths(result: dict[str, Any]) -> list[str]:
    return [Path(hit["path"]).name for hit in result["hits"]]


async def test_a_plain_question_finds_the_passage_with_its_place(library: Path) -> None:
    async with search(library) as client:
        result = await ask(client, "What is the range at Burntcoat Head?")
    best = result["hits"][0]
    assert best == {
        "path": str(library / "fundy.md"),
        "snippet": "## Range\n\nAt Burntcoat Head the range is 16.3 metres.",
        "heading": "Tides › Range",
        "first_line": 5,
        "last_line": 7,
    }
    assert result["indexed_files"] == 4
    assert result["skipped"] == []


@pytest.mark.parametrize(
    ("query", "file"),
    [
        ("how long is the Gannet", "boats.csv"),
        ("high water", "tide_table.py"),
        ("tide table", "tide_table.py"),
        ("what does a mooring cost", "page.html"),
        ('"highest tides"', "fundy.md"),
    ],
)
async def test_each_kind_of_text_file_is_found(library: Path, query: str, file: str) -> None:
    async with search(library) as client:
        assert paths(await ask(client, query))[0] == file


async def test_the_text_part_is_fenced_and_our_words_stand_outside(library: Path) -> None:
    async with search(library) as client:
        note, _, fenced = said(await client.call_tool("search_files", {"query": "Gannet"})).partition("\n")
    assert note == "Passages 1-1 of 1; 4 files searched."
    shown = unfence(fenced)
    assert shown == f"1. {library / 'boats.csv'} (lines 1-3)\nboat,length_m\nPelican,12\nGannet,9"


async def test_nothing_found_is_an_answer_and_not_an_error(library: Path) -> None:
    async with search(library) as client:
        result = await ask(client, "zeppelin")
    assert (result["hits"], result["total"], result["indexed_files"]) == ([], 0, 4)


async def test_changed_new_and_deleted_files_are_noticed_at_the_next_call(library: Path) -> None:
    async with search(library) as client:
        assert paths(await ask(client, "Gannet")) == ["boats.csv"]
        (library / "boats.csv").write_text("boat,length_m\nPelican,12\nPuffin,9\n", encoding="utf-8")
        (library / "new.txt").write_text("The Gannet was sold.", encoding="utf-8")
        (library / "page.html").unlink()
        assert paths(await ask(client, "Gannet")) == ["new.txt"]
        assert paths(await ask(client, "Puffin")) == ["boats.csv"]
        result = await ask(client, "moorings")
        assert (result["hits"], result["indexed_files"]) == ([], 4)


async def test_a_change_that_keeps_size_and_time_right_after_indexing_is_noticed(library: Path) -> None:
    """Within a clock's grain a file can change and look as it did; size and time alone would miss it."""
    file = library / "note.txt"
    file.write_text("first", encoding="utf-8")
    async with search(library) as client:
        await ask(client, "first")
        before = file.stat()
        file.write_text("later", encoding="utf-8")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert paths(await ask(client, "later")) == ["note.txt"]
        assert paths(await ask(client, "first")) == []


async def test_an_old_file_is_read_once_however_often_it_is_asked_for(library: Path) -> None:
    file = library / "old.txt"
    file.write_text("ancient", encoding="utf-8")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    async with search(library) as client:
        assert paths(await ask(client, "ancient")) == ["old.txt"]
        file.write_bytes(b"changed")  # as long as before, and made to look as old: only reading could tell
        os.utime(file, (1_000_000_000, 1_000_000_000))
        assert paths(await ask(client, "ancient")) == ["old.txt"]


async def test_pdf_pages_and_sheets_are_found_through_the_documents_library(library: Path) -> None:
    pytest.importorskip("memento_documents.reading")
    make_pdf(library / "report.pdf", ["Nothing here.", "The lighthouse burned down in 1874."])
    make_xlsx(library / "costs.xlsx", {"Fuel": [["port", "litres"], ["Digby", 420]], "Crew": [["name"], ["Ann"]]})
    async with search(library) as client:
        hit = (await ask(client, "When did the lighthouse burn down?"))["hits"][0]
        assert (hit["path"], hit["page"]) == (str(library / "report.pdf"), 2)
        assert "1874" in hit["snippet"]
        hit = (await ask(client, "litres in Digby", kinds=["table"]))["hits"][0]
        assert (hit["path"], hit["sheet"]) == (str(library / "costs.xlsx"), "Fuel")


async def test_a_broken_document_costs_itself_only_and_is_tried_once(library: Path) -> None:
    pytest.importorskip("memento_documents.reading")
    (library / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing more")
    async with search(library) as client:
        for _ in range(2):
            result = await ask(client, "Gannet")
            assert paths(result) == ["boats.csv"]
            (left_out,) = result["skipped"]
            assert left_out["examples"] == [str(library / "broken.pdf")]
            assert left_out["why"].startswith("cannot be read")


async def test_a_document_that_takes_too_long_is_left_out_with_the_reason(library: Path) -> None:
    pytest.importorskip("memento_documents.reading")
    make_pdf(library / "report.pdf", ["x"])
    async with search(library, document_seconds=0.001) as client:
        (left_out,) = (await ask(client, "Gannet"))["skipped"]
    assert left_out["why"] == "took longer than 0.001 seconds to read"


async def test_without_the_documents_library_its_files_are_named_and_the_rest_is_found(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library / "report.pdf").write_bytes(b"%PDF-1.7")
    monkeypatch.setitem(sys.modules, "memento_documents", None)  # as if it were not installed
    async with search(library) as client:
        result = await ask(client, "Gannet")
        assert paths(result) == ["boats.csv"]
        (left_out,) = result["skipped"]
        assert "memento-documents" in left_out["why"]
        assert left_out["examples"] == [str(library / "report.pdf")]


async def test_what_is_not_searched_is_counted_by_reason(library: Path) -> None:
    (library / "big.txt").write_text("gannet " * 1000, encoding="utf-8")
    for number in range(7):
        (library / f"p{number}.png").write_bytes(b"\x89PNG")
    (library / "blob").write_bytes(b"gannet\x00\x01")
    async with search(library, max_file_bytes=5000) as client:
        skipped = {
            left["why"]: (left["files"], len(left["examples"])) for left in (await ask(client, "gannet"))["skipped"]
        }
    assert skipped == {
        "larger than 5000 bytes": (1, 1),
        "no text is read from .png files": (7, 5),
        "binary file": (1, 1),
    }


async def test_hidden_files_tool_folders_and_links_are_not_searched(library: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("gannet password", encoding="utf-8")
    (library / "link.txt").symlink_to(tmp_path / "secret.txt")
    (library / "linked").symlink_to(tmp_path)
    for name in (".env", ".git/config", "node_modules/x.js"):
        (library / name).parent.mkdir(exist_ok=True)
        (library / name).write_text("gannet", encoding="utf-8")
    async with search(library) as client:
        result = await ask(client, "gannet")
        assert (paths(result), result["skipped"]) == (["boats.csv"], [])
    async with search(library, include_hidden=True) as client:
        assert sorted(paths(await ask(client, "gannet"))) == [".env", "boats.csv"]


async def test_a_folder_or_file_narrows_the_search_and_kinds_do_too(library: Path) -> None:
    (library / "code" / "gannet.md").write_text("Gannet", encoding="utf-8")
    async with search(library) as client:
        assert paths(await ask(client, "gannet", folder="code")) == ["gannet.md"]
        assert paths(await ask(client, "gannet", folder=str(library / "boats.csv"))) == ["boats.csv"]
        assert paths(await ask(client, "gannet", kinds=["table", "code"])) == ["boats.csv"]
        narrowed = await ask(client, "gannet", folder="code", kinds=["table"])
    assert (narrowed["hits"], narrowed["total"], narrowed["indexed_files"]) == ([], 0, 0)


async def test_a_sibling_whose_name_begins_alike_is_not_inside(library: Path, tmp_path: Path) -> None:
    other = tmp_path / "library-private"
    other.mkdir()
    (other / "x.txt").write_text("gannet", encoding="utf-8")
    async with search(library, other) as client:
        assert sorted(paths(await ask(client, "gannet"))) == ["boats.csv", "x.txt"]
        assert paths(await ask(client, "gannet", folder=str(library))) == ["boats.csv"]
    async with search(library) as client:
        assert paths(await ask(client, "gannet")) == ["boats.csv"]


async def test_what_lies_outside_the_allowed_folders_cannot_be_asked_for(library: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("gannet", encoding="utf-8")
    async with search(library) as client:
        for folder in ("..", str(tmp_path), "../secret.txt", "/etc", "nowhere", "a\x00b"):
            assert "llowed" in await refused(client, "gannet", folder=folder) or folder == "a\x00b"


async def test_a_single_allowed_file_is_searched_alone(library: Path) -> None:
    async with search(library / "boats.csv") as client:
        result = await ask(client, "gannet tides mooring")
    assert (paths(result), result["indexed_files"]) == (["boats.csv"], 1)


async def test_a_missing_folder_is_the_operators_to_correct(tmp_path: Path) -> None:
    async with search(tmp_path / "gone") as client:
        assert "MEMENTO_SEARCH_FOLDERS" in await refused(client, "gannet")


async def test_hits_come_in_pages_that_do_not_overlap(library: Path) -> None:
    for number in range(25):
        (library / f"n{number:02}.txt").write_text(f"puffin number {number}", encoding="utf-8")
    seen: list[str] = []
    offset: int | None = 0
    async with search(library) as client:
        while offset is not None:
            result = await ask(client, "puffin", limit=10, offset=offset)
            assert result["total"] == 25
            seen += paths(result)
            offset = result.get("next_offset")
    assert len(seen) == len(set(seen)) == 25


async def test_a_long_passage_is_shown_around_the_match(library: Path) -> None:
    filler = "Nothing to see in this sentence at all. " * 12
    (library / "long.txt").write_text(f"{filler}The kittiwake nests on Brier Island. {filler}", encoding="utf-8")
    async with search(library) as client:
        snippet = (await ask(client, "Where does the kittiwake nest?"))["hits"][0]["snippet"]
    assert "kittiwake nests on Brier Island" in snippet
    assert len(snippet) < 450
    assert snippet.startswith("…")
    assert snippet.endswith("…")


async def test_when_time_is_short_the_rest_is_announced_and_indexed_by_later_calls(library: Path) -> None:
    for number in range(30):
        (library / f"n{number:02}.txt").write_text(f"puffin {number}", encoding="utf-8")
    async with search(library, index_seconds=1e-9) as client:
        first = await ask(client, "puffin")
        assert first["pending_files"] == 34
    async with search(library) as client:
        assert (await ask(client, "puffin"))["pending_files"] == 0


async def test_progress_is_told_while_files_are_read(library: Path) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async with search(library) as client:
        await client.call_tool("search_files", {"query": "gannet"}, progress_callback=listen)
    assert told[0] == (0, 4, "reading text files")


async def test_several_calls_at_once_share_one_index(library: Path) -> None:
    for number in range(200):
        (library / f"n{number}.txt").write_text(f"puffin {number}", encoding="utf-8")
    totals: list[int] = []
    async with search(library) as client:

        async def call() -> None:
            totals.append((await ask(client, "puffin"))["total"])

        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(call)
    assert totals == [200] * 6


def age(folder: Path) -> None:
    """Make all files old: one just written is read again at each call, as it may change within its clock's grain."""
    for path in folder.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))


async def test_a_large_folder_is_not_looked_at_all_the_time_but_again_when_its_time_is_over(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_search, "_QUICK_LOOK_SECONDS", -1)
    age(library)
    for pause, seen in ((1e9, []), (0, ["new.txt"])):
        monkeypatch.setattr(file_search, "_LOOK_PAUSE", pause)
        async with search(library) as client:
            for _ in range(2):  # the first reads, the second finds nothing to read
                assert paths(await ask(client, "gannet")) == ["boats.csv"]
            (library / "new.txt").write_text("shearwater", encoding="utf-8")
            assert paths(await ask(client, "shearwater")) == seen
        (library / "new.txt").unlink()


async def test_a_look_is_not_believed_any_longer_when_another_server_has_changed_the_index(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one may even have forgotten files, having been told to leave some out."""
    monkeypatch.setattr(file_search, "_QUICK_LOOK_SECONDS", -1)
    monkeypatch.setattr(file_search, "_LOOK_PAUSE", 1e9)
    (library / ".hidden.txt").write_text("shearwater", encoding="utf-8")
    age(library)
    async with search(library, include_hidden=True) as client, search(library) as other:
        for _ in range(2):
            assert paths(await ask(client, "shearwater")) == [".hidden.txt"]
        assert paths(await ask(other, "shearwater")) == []
        assert paths(await ask(client, "shearwater")) == [".hidden.txt"]


async def test_a_file_that_is_larger_than_it_said_is_left_out(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (library / "log.txt").write_text("shearwater " * 100, encoding="utf-8")

    def scan_before_it_grew(*args: Any, **limits: Any) -> Any:
        return scan_folders(*args, **{**limits, "max_file_bytes": 10**9})

    monkeypatch.setattr(file_search, "scan_folders", scan_before_it_grew)
    async with search(library, max_file_bytes=500) as client:
        result = await ask(client, "shearwater")
    assert result["hits"] == []
    assert result["skipped"] == [{"why": "larger than 500 bytes", "files": 1, "examples": [str(library / "log.txt")]}]


async def test_strange_names_and_things_that_are_no_files_do_no_harm(library: Path) -> None:
    (library / "two\nlines.txt").write_text("shearwater", encoding="utf-8")
    (library / "名前 'quoted\" %s.txt").write_text("shearwater", encoding="utf-8")
    os.mkfifo(library / "pipe.txt")
    with anyio.fail_after(60):
        async with search(library) as client:
            result = await ask(client, "shearwater")
            for path in (hit["path"] for hit in result["hits"]):
                assert (await ask(client, "shearwater", folder=path))["total"] == 1
    assert sorted(paths(result)) == ["two\nlines.txt", "名前 'quoted\" %s.txt"]


@pytest.mark.slow
@pytest.mark.skipif(why_not_confined() is not None, reason=str(why_not_confined()))
async def test_a_process_that_has_parsed_a_document_opens_no_socket_and_starts_no_program(tmp_path: Path) -> None:
    make_pdf(tmp_path / "x.pdf", ["shearwater"])
    script = (
        "import socket, subprocess, sys\n"
        "from memento_search.document_text import read_sections\n"
        "print(read_sections(sys.argv[1])[0]['text'].strip())\n"
        "for attempt in (socket.socket, lambda: subprocess.run(['/bin/true'])):\n"
        "    try:\n"
        "        attempt()\n"
        "    except PermissionError:\n"
        "        print('refused')\n"
    )
    process = await anyio.run_process([sys.executable, "-c", script, str(tmp_path / "x.pdf")])
    assert process.stdout.decode().split() == ["shearwater", "refused", "refused"]


@pytest.mark.slow
async def test_a_full_disk_is_told_and_the_index_goes_on_when_there_is_room(library: Path, tmp_path: Path) -> None:
    for number in range(300):
        (library / f"n{number}.txt").write_text(f"puffin {number}\n" * 200, encoding="utf-8")
    script = (
        "import anyio, resource\n"
        "from mcp import Client\n"
        "from memento_search.server import Settings, build_server\n"
        "async def main():\n"
        "    async with Client(build_server(Settings())) as client:\n"
        "        result = await client.call_tool('search_files', {'query': 'puffin'})\n"
        "    print(result.is_error, result.content[0].text)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "anyio.run(main)\n"
    )
    parameters = command(library, tmp_path / "home")
    process = await anyio.run_process([sys.executable, "-c", script], env={**os.environ, **(parameters.env or {})})
    told = process.stdout.decode()
    assert told.startswith("True")
    assert "MEMENTO_SEARCH_INDEX_FOLDER" in told
    with anyio.fail_after(60):
        async with Client(parameters) as client:
            assert (await ask(client, "puffin"))["indexed_files"] == 304


async def test_a_damaged_index_is_built_anew(library: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    async with search(library, index_folder=index) as client:
        await ask(client, "gannet")
        (file,) = index.glob("*.sqlite3")
        file.write_bytes(b"this is no database" * 100)
        for other in index.glob("*.sqlite3-*"):
            other.unlink()
        assert paths(await ask(client, "gannet")) == ["boats.csv"]


async def test_an_index_that_cannot_be_written_names_the_setting(library: Path) -> None:
    async with search(library, index_folder=library / "boats.csv" / "index") as client:
        assert "MEMENTO_SEARCH_INDEX_FOLDER" in await refused(client, "gannet")


async def test_the_index_is_for_its_owner_alone(library: Path, tmp_path: Path) -> None:
    async with search(library, index_folder=tmp_path / "index") as client:
        await ask(client, "gannet")
    assert (tmp_path / "index").stat().st_mode & 0o077 == 0


async def test_a_bad_argument_is_stopped_by_the_schema(library: Path) -> None:
    async with search(library) as client:
        for arguments in ({"query": ""}, {"query": "x", "limit": 51}, {"query": "x", "kinds": ["films"]}):
            assert (await client.call_tool("search_files", arguments)).is_error


async def test_the_model_sees_exactly_these_arguments_and_hints() -> None:
    async with Client(build_server(Settings())) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    search_files = tools["search_files"]
    assert set(search_files.input_schema["properties"]) == {"query", "folder", "limit", "offset", "kinds"}
    assert search_files.annotations == ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)


def command(library: Path, home: Path) -> StdioServerParameters:
    environment = {"MEMENTO_SEARCH_FOLDERS": str(library), "MEMENTO_HOME": str(home)}
    return StdioServerParameters(command=str(Path(sys.executable).with_name("memento-search")), env=environment)


@pytest.mark.slow
async def test_several_server_processes_share_an_index(library: Path, tmp_path: Path) -> None:
    for number in range(300):
        (library / f"n{number}.txt").write_text(f"puffin {number}", encoding="utf-8")
    totals: list[int] = []

    async def serve_and_ask() -> None:
        async with Client(command(library, tmp_path / "home")) as client:
            for _ in range(5):
                totals.append((await ask(client, "puffin"))["total"])

    with anyio.fail_after(100):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(serve_and_ask)
    assert totals == [300] * 15


@pytest.mark.slow
async def test_a_server_killed_while_indexing_leaves_an_index_that_the_next_one_completes(
    library: Path, tmp_path: Path
) -> None:
    for number in range(3000):
        (library / f"n{number}.txt").write_text(f"puffin {number}\n" * 30, encoding="utf-8")
    script = (
        "import os, pathlib, sys\n"
        "from memento_search import file_index\n"
        "store = file_index.FileIndex.store\n"
        "def store_and_die(self, files, **rest):\n"
        "    store(self, files, **rest)\n"
        "    db = self._open(); db.execute('BEGIN IMMEDIATE'); db.execute('DELETE FROM file')\n"
        f"    os.kill(os.getpid(), {signal.SIGKILL:d})\n"
        "file_index.FileIndex.store = store_and_die\n"
        "import anyio\n"
        "from mcp import Client\n"
        "from memento_search.server import Settings, build_server\n"
        "async def main():\n"
        "    async with Client(build_server(Settings())) as client:\n"
        "        await client.call_tool('search_files', {'query': 'puffin'})\n"
        "anyio.run(main)\n"
    )
    parameters = command(library, tmp_path / "home")
    process = await anyio.run_process(
        [sys.executable, "-c", script], check=False, env={**os.environ, **(parameters.env or {})}
    )
    assert process.returncode == -signal.SIGKILL
    with anyio.fail_after(60):
        async with Client(parameters) as client:
            result = await ask(client, "puffin")
    assert (result["total"], result["indexed_files"], result["pending_files"]) == (3000, 3004, 0)
