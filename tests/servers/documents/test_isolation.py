"""memento_documents.isolation: a parser that crashes, hangs or eats memory costs one call, never the server.

The bad parsers are real functions, run in real children: `ctypes.string_at(0)` is a real segmentation fault.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import TextContent

from memento_documents.confinement import why_not_confined
from memento_documents.isolation import Isolation, Limits
from memento_documents.kinds import Unreadable
from memento_documents.server import Settings, build_server
from support.document_files import make_pdf, zip_bytes

pytestmark = pytest.mark.anyio
confined = pytest.mark.skipif(why_not_confined() is not None, reason=f"not confined here: {why_not_confined()}")

LIMITS = Limits(memory_bytes=1 << 30, cpu_seconds=20, wall_seconds=20, answer_bytes=1 << 20)


@pytest.fixture
async def isolation() -> AsyncGenerator[Isolation]:
    async with Isolation(LIMITS, parallel=4) as isolation:
        yield isolation


async def still_works(isolation: Isolation) -> None:
    assert await isolation.run("operator:add", [20, 22]) == 42


async def zygote_children(isolation: Isolation) -> set[int]:
    """The children of the zygote, once those that were killed are gone."""
    process = isolation._process  # pyright: ignore[reportPrivateUsage]
    assert process is not None
    with anyio.fail_after(10):
        while True:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
            if not children:
                return set()
            await anyio.sleep(0.01)


async def test_a_segmentation_fault_is_one_clear_error(isolation: Isolation) -> None:
    with pytest.raises(Unreadable, match="The parser failed on it"):
        await isolation.run("ctypes:string_at", [0])
    await still_works(isolation)


async def test_a_hang_is_stopped_at_the_wall_limit_and_its_process_is_gone() -> None:
    async with Isolation(Limits(1 << 30, 20, 2.5, 1 << 20), parallel=1) as isolation:
        with pytest.raises(Unreadable, match=r"took longer than 2\.5 s"):
            await isolation.run("time:sleep", [600])
        assert await zygote_children(isolation) == set()
        await still_works(isolation)


async def test_an_endless_computation_is_stopped_at_the_cpu_limit() -> None:
    async with Isolation(Limits(1 << 30, 1, 30, 1 << 20), parallel=1) as isolation:
        with pytest.raises(Unreadable, match="more than 1 s of CPU time"):
            await isolation.run("builtins:pow", [7, 10**8])
        await still_works(isolation)


async def test_eating_memory_is_stopped_at_the_memory_limit(isolation: Isolation) -> None:
    with pytest.raises(Unreadable, match="more than 1073 MB of memory"):
        await isolation.run("builtins:bytearray", [3 << 30])
    await still_works(isolation)


async def test_an_answer_over_the_limit_is_cut_off_and_its_process_is_gone(isolation: Isolation) -> None:
    with pytest.raises(Unreadable, match="larger than 1 MB"):
        await isolation.run("operator:mul", ["x" * 1_000, 10_000])
    assert await zygote_children(isolation) == set()
    await still_works(isolation)


async def test_an_answer_that_fills_the_socket_arrives_whole(isolation: Isolation) -> None:
    """The child is gone before anybody reads: its end must neither be lost nor cut the answer."""
    assert await isolation.run("operator:mul", ["x", 900_000]) == "x" * 900_000


async def test_a_child_that_leaves_without_an_answer_is_an_error(isolation: Isolation) -> None:
    with pytest.raises(Unreadable, match="The parser failed on it"):
        await isolation.run("os:_exit", [0])
    with pytest.raises(Unreadable, match="The parser failed on it"):
        await isolation.run("os:kill", [0, 9])
    await still_works(isolation)


async def test_an_answer_that_is_no_json_value_is_an_error(isolation: Isolation) -> None:
    with pytest.raises(Unreadable, match="The parser failed on it"):
        await isolation.run("builtins:object", [])
    with pytest.raises(Unreadable, match="The parser failed on it"):
        await isolation.run("builtins:float", ["nan"])


async def test_a_child_cannot_write_a_file(isolation: Isolation, tmp_path: Path) -> None:
    """Without Landlock the size limit of zero ends the child, and opening alone leaves an empty file."""
    with pytest.raises(Unreadable):
        await isolation.run("builtins:eval", [f"open({str(tmp_path / 'copy')!r}, 'w', 1).write('text' + chr(10))"])
    assert not (tmp_path / "copy").exists() or (tmp_path / "copy").read_bytes() == b""


ATTACKS = {
    "read a file": "open('/etc/passwd').read()",
    "list a folder": "__import__('os').listdir('/home')",
    "open a socket": "__import__('socket').socket().fileno()",
    "start a program": "__import__('subprocess').call(['true'])",
    "signal the server": "__import__('os').kill(__import__('os').getppid(), 0)",
    "raise its limits": "__import__('resource').setrlimit(7, (9, 9))",
    "look into its parent": "open('/proc/' + str(__import__('os').getppid()) + '/environ').read()",
}


@confined
@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_taken_over_child_cannot(isolation: Isolation, attack: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unreadable):
        await isolation.run("builtins:eval", [ATTACKS[attack]])
    assert "PermissionError" in caplog.text or "not allowed" in caplog.text
    await still_works(isolation)


async def test_progress_is_told_page_by_page_and_never_lands_in_the_answer(isolation: Isolation) -> None:
    heard: list[tuple[int, int, str]] = []

    async def hear(done: int, total: int, what: str) -> None:
        heard.append((done, total, what))

    code = (
        "[__import__('memento_documents.progress').progress.report(page, 3) or __import__('time').sleep(0.12)"
        " for page in (1, 2, 3)]"
    )
    assert await isolation.run("builtins:eval", [code], on_progress=hear) == [None, None, None]
    assert heard[-1] == (3, 3, "page")
    assert heard == sorted(set(heard))


async def test_an_answer_that_looks_like_progress_is_an_answer(isolation: Isolation) -> None:
    assert await isolation.run("operator:mul", ['{"progress": [1, 2]}\n', 3]) == '{"progress": [1, 2]}\n' * 3


async def test_a_child_sees_no_secret_and_has_nothing_on_stdin(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert "sk-secret" not in str(await isolation.run("builtins:eval", ["str(__import__('os').environ)"]))
    assert await isolation.run("builtins:eval", ["__import__('sys').stdin.read()"]) == ""


async def test_what_a_parser_prints_goes_nowhere(isolation: Isolation) -> None:
    assert await isolation.run("builtins:print", ["noise"]) is None
    assert await isolation.run("builtins:eval", ["__import__('os').fstat(1).st_rdev"]) == os.stat("/dev/null").st_rdev


async def test_calls_run_side_by_side_and_one_that_dies_does_not_touch_the_others(isolation: Isolation) -> None:
    """One child waits on a pipe, handed to it as its document, until all the others have ended."""
    gate_read, gate_write = os.pipe()
    answers: list[Any] = []

    async def wait_at_the_gate() -> None:
        answers.append(await isolation.run("json:load", [], gate_read))

    async def crash() -> None:
        with pytest.raises(Unreadable):
            await isolation.run("ctypes:string_at", [0])

    async with anyio.create_task_group() as calls:
        calls.start_soon(wait_at_the_gate)
        async with anyio.create_task_group() as others:
            for _ in range(6):
                others.start_soon(crash)
                others.start_soon(still_works, isolation)
        os.write(gate_write, b'"open"')
        os.close(gate_write)
    os.close(gate_read)
    assert answers == ["open"]


async def test_what_a_parser_started_is_gone_with_it(isolation: Isolation) -> None:
    """A grandchild that sleeps: it must be gone once the answer is there."""
    forked = await isolation.run("builtins:eval", ["__import__('os').fork() or __import__('time').sleep(600)"])
    with anyio.fail_after(10):
        while Path(f"/proc/{forked}").exists():  # noqa: ASYNC110 - nothing tells us of its end
            await anyio.sleep(0.01)


async def test_an_idle_zygote_ends_and_the_next_job_starts_another() -> None:
    limits = Limits(1 << 30, 20, 20, 1 << 20)
    async with Isolation(limits, parallel=1, preload="builtins:list", idle_seconds=0.05) as isolation:
        first = await isolation.run("os:getppid", [])
        with anyio.fail_after(10):
            while Path(f"/proc/{first}").exists():  # noqa: ASYNC110 - nothing tells us of its end
                await anyio.sleep(0.01)
        assert await isolation.run("os:getppid", []) != first


async def test_a_zygote_at_work_is_not_idle() -> None:
    """Its job lasts twenty times as long as it may be idle."""
    limits = Limits(1 << 30, 20, 20, 1 << 20)
    async with Isolation(limits, parallel=1, preload="builtins:list", idle_seconds=0.05) as isolation:
        first = await isolation.run("os:getppid", [])
        async with anyio.create_task_group() as calls:
            calls.start_soon(isolation.run, "time:sleep", [1])
            assert await isolation.run("os:getppid", []) == first


async def test_cancelling_a_call_kills_its_child(isolation: Isolation) -> None:
    with anyio.move_on_after(0.2) as scope:
        await isolation.run("time:sleep", [600])
    assert scope.cancelled_caught
    assert await zygote_children(isolation) == set()


async def test_the_parsing_process_is_started_again_when_it_died(isolation: Isolation) -> None:
    await still_works(isolation)
    process = isolation._process  # pyright: ignore[reportPrivateUsage]
    assert process is not None
    process.kill()
    process.wait()
    await still_works(isolation)


async def test_the_parsing_process_leaves_with_the_server() -> None:
    async with Isolation(LIMITS, parallel=1) as isolation:
        await still_works(isolation)
        process = isolation._process  # pyright: ignore[reportPrivateUsage]
        assert process is not None
    assert process.returncode == 0


HOSTILE = {
    "nested.html": b"<!doctype html>" + b"<div>" * 200_000 + b"deep",
    "bomb.xlsx": zip_bytes(
        {
            "[Content_Types].xml": b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
            "xl/workbook.xml": b"<workbook>" + b"<a/>" * 30_000_000 + b"</workbook>",
        }
    ),
    "entities.xlsx": zip_bytes(
        {
            "xl/workbook.xml": b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
            b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY s SYSTEM "file:///etc/passwd">]><workbook>&c;&s;</workbook>',
        }
    ),
    "loop.pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Count 9999999/Kids[2 0 R 2 0 R]>>endobj\ntrailer<</Root 1 0 R>>",
    "quotes.csv": b'"' * 3_000_000,
    "lines.csv": b"," * 3_000_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_file_gets_an_answer_and_the_server_lives(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    make_pdf(tmp_path / "good.pdf", ["Still here"])
    settings = Settings(folders=(tmp_path,), memory_megabytes=1_024, cpu_seconds=10, wall_seconds=20)
    async with Client(build_server(settings)) as client:
        result = await client.call_tool("read_document", {"source": name})
        assert isinstance(result.content[0], TextContent)
        assert "root:" not in result.content[0].text
        assert len(result.content[0].text) < 25_000
        if result.is_error:
            assert result.content[0].text.startswith(f"Error executing tool read_document: '{name}': ")
        good = await client.call_tool("read_document", {"source": "good.pdf"})
        assert "Still here" in str(good.content)


def test_the_server_imports_no_parser_when_it_starts() -> None:
    code = "import sys, json, memento_documents.server; print(json.dumps(sorted(sys.modules)))"
    imported = set(json.loads(subprocess.check_output([sys.executable, "-c", code], text=True)))
    assert not imported & {"pymupdf", "fitz", "openpyxl", "sqlite3", "charset_normalizer", "lxml", "numpy"}


def test_the_parsing_process_starts_lean() -> None:
    """The MCP SDK alone would triple its start and its memory."""
    code = "import sys, json, memento_documents.zygote, memento_documents.jobs; print(json.dumps(sorted(sys.modules)))"
    imported = set(json.loads(subprocess.check_output([sys.executable, "-c", code], text=True)))
    assert not imported & {"mcp", "memento_kit", "pydantic", "anyio"}


def test_the_library_works_without_the_mcp_sdk_and_without_a_child(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", ["First", "Second"])
    code = (
        "import sys; from pathlib import Path; from memento_documents.reading import read_text; "
        f"print([(s.page, s.text.strip()) for s in read_text(Path({str(path)!r}))], 'mcp' in sys.modules, "
        "'pymupdf.layout' in sys.modules and sys.modules['pymupdf.layout'] is not None)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed == "[(1, 'First'), (2, 'Second')] False False\n"
