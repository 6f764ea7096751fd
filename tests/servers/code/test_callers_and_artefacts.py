"""memento_code: whose session it is, what a run leaves behind, which limit it hit, and how it goes on."""

# ruff: noqa: E501 - code for the sandbox reads best on one line

import base64
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import BlobResourceContents, ResourceLink, TextContent

from memento_code.server import Settings, build_server
from support.server_process import http_server_process

pytestmark = pytest.mark.anyio

SERVE = [sys.executable, "-m", "memento_code.server", "--transport", "streamable-http"]


@asynccontextmanager
async def server(**settings: Any) -> AsyncGenerator[Client]:
    async with Client(build_server(Settings(**settings))) as client:
        yield client


async def run(client: Client, code: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool("run_python", {"code": code, **arguments})
    assert result.structured_content is not None, result.content
    return result.structured_content


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    with http_server_process(SERVE) as (_, url):
        yield url


@pytest.fixture(scope="module")
def outliving_url() -> Generator[str]:
    with http_server_process(SERVE, {"MEMENTO_CODE_SESSIONS_OUTLIVE_CLIENTS": "true"}) as (_, url):
        yield url


async def test_over_http_a_session_has_a_handle_nobody_can_guess(url: str) -> None:
    async with Client(url) as client:
        first = await run(client, "x = 41")
        other = await run(client, "'x' in globals()")
        second = await run(client, "x + 1", session=first["session"])
        guessed = await client.call_tool("run_python", {"code": "1", "session": "default"})
        nothing = await client.call_tool("reset_session", {})
    assert (second["value"], second["state"], other["value"]) == ("42", "kept", "False")
    assert len(first["session"]) == 24
    assert first["session"] != other["session"]
    for refused in (guessed, nothing):
        assert refused.is_error
    assert "There is no session 'default' of yours; leave `session` out" in str(guessed.content)


async def test_another_clients_handle_is_not_found_by_any_tool(url: str) -> None:
    async with Client(url, mode="legacy") as owner, Client(url, mode="legacy") as thief:
        session = (await run(owner, "open('f', 'w').write('mine')"))["session"]
        for tool, arguments in (
            ("run_python", {"code": "1"}),
            ("run_shell", {"command": "ls"}),
            ("read_file", {"path": "f"}),
            ("write_file", {"path": "f", "content": "theirs"}),
            ("list_files", {}),
            ("reset_session", {}),
        ):
            stolen = await thief.call_tool(tool, {**arguments, "session": session})
            assert stolen.is_error
            assert f"There is no session {session!r} of yours" in str(stolen.content)
        with pytest.raises(MCPError, match="There is no file 'f' in a session"):
            await thief.read_resource(f"sandbox://{session}/files/f")
        info = await thief.call_tool("sandbox_info", {})
        assert info.structured_content is not None
        assert session not in info.structured_content["sessions"]
        assert (await run(owner, "open('f').read()", session=session))["value"] == "'mine'"


@pytest.mark.parametrize("outlives", [False, True])
async def test_a_session_outlives_its_client_only_when_the_operator_wants(
    url: str, outliving_url: str, outlives: bool
) -> None:
    where = outliving_url if outlives else url
    async with Client(where, mode="legacy") as client:
        session = (await run(client, "x = 5"))["session"]
    async with Client(where, mode="legacy") as client:
        again = await client.call_tool("run_python", {"code": "x", "session": session})
    assert again.is_error is not outlives
    if outlives:
        assert again.structured_content is not None
        assert again.structured_content["value"] == "5"


async def test_files_a_run_made_are_named_linked_and_fetched_as_resources() -> None:
    async with server() as client:
        await client.call_tool("write_file", {"path": "given.csv", "content": "1"})
        code = (
            "import os\nos.mkdir('d')\nopen('d/a b.csv', 'w').write('x,y')\nopen('.hidden', 'w').close()\nos.chdir('d')"
        )
        made = await client.call_tool("run_python", {"code": code})
        links = [part for part in made.content if isinstance(part, ResourceLink)]
        fetched = (await client.read_resource(links[0].uri)).contents[0]
        again = await run(client, "1")
        changed = await run(client, "open('a b.csv', 'w').write('other')")
    assert made.structured_content is not None
    assert made.structured_content["files"] == [{"path": "d/a b.csv", "bytes": 3}]
    assert [(link.uri, link.size, link.mime_type) for link in links] == [
        ("sandbox://default/files/d/a%20b.csv", 3, "text/csv")
    ]
    assert isinstance(fetched, BlobResourceContents)
    assert base64.b64decode(fetched.blob) == b"x,y"
    assert again.get("files") is None
    assert changed["files"] == [{"path": "d/a b.csv", "bytes": 5}]


async def test_a_page_that_code_made_is_not_called_a_page() -> None:
    async with server() as client:
        made = await client.call_tool(
            "run_python", {"code": "for n in ('p.html', 'p.svg'): open(n, 'w').write('<script>')"}
        )
    assert [part.mime_type for part in made.content if isinstance(part, ResourceLink)] == [
        "application/octet-stream"
    ] * 2


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "link"])
async def test_a_resource_leads_nowhere_else(path: str) -> None:
    async with server() as client:
        await run(client, "import os; os.symlink('/etc/passwd', 'link')")
        with pytest.raises(MCPError):
            await client.read_resource(f"sandbox://default/files/{path}")


async def test_output_too_long_to_show_is_in_a_file() -> None:
    async with server(output_kilobytes=2) as client:
        ran = await client.call_tool("run_python", {"code": "for n in range(2000): print(n)"})
        back = await client.call_tool("read_file", {"path": ".output/stdout.txt", "max_bytes": 100_000})
    assert isinstance(ran.content[0], TextContent)
    assert "the first 8890 bytes of stdout are in .output/stdout.txt." in ran.content[0].text
    assert back.structured_content is not None
    assert back.structured_content["content"] == "".join(f"{n}\n" for n in range(2000))


LIMITS_HIT = {
    "memory limit of 300 MiB for one process": "bytearray(1 << 30)",
    "limit of 4 MiB for one file": "open('big', 'wb').write(bytes(8 << 20))",
    "limit of 32 open files": "held = [open('/dev/null') for _ in range(64)]",
    "limit of 12 processes and threads": "import threading, time\nfor _ in range(40): threading.Thread(target=time.sleep, args=(0.2,)).start()",
    "limit of 8 MiB for the session's folder": "for n in range(9): open(f'part{n}', 'wb').write(bytes(2 << 20))",
    "time limit of 0.5 s": "while True: pass",
}


@pytest.mark.parametrize("limit", LIMITS_HIT)
async def test_a_limit_that_was_hit_is_named_in_one_line_and_the_session_lives(limit: str) -> None:
    limits = {
        "process_memory_megabytes": 300,
        "file_megabytes": 4,
        "open_files": 32,
        "processes": 12,
        "folder_megabytes": 8,
    }
    async with server(timeout_seconds=0.5, **limits) as client:
        hit = await client.call_tool("run_python", {"code": LIMITS_HIT[limit]})
        after = await run(client, "1 + 1")
    assert hit.is_error
    assert hit.structured_content is not None
    assert hit.structured_content["limit"] == limit
    assert isinstance(hit.content[0], TextContent)
    assert limit in hit.content[0].text.splitlines()[0]
    assert (after["value"], after["state"]) == ("2", "kept")


async def test_a_pipe_that_is_empty_for_now_is_no_limit() -> None:
    code = "import os\nr, w = os.pipe()\nos.set_blocking(r, False)\nos.read(r, 1)"
    async with server() as client:
        ran = await run(client, code)
    assert (ran["error"]["name"], ran.get("limit")) == ("BlockingIOError", None)


async def test_a_long_run_tells_what_it_printed_last() -> None:
    told: list[tuple[float, str | None]] = []
    heard = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))
        heard.set()

    async with server() as client:
        code = "import os, time\nprint('step one', flush=True)\nwhile not os.path.exists('stop'): time.sleep(0.05)"
        with anyio.fail_after(30):
            await client.call_tool("run_python", {"code": code, "timeout_seconds": 1.5}, progress_callback=hear)
            await heard.wait()
    assert told[0] == (1, "step one")


async def test_a_file_of_the_task_is_copied_in_and_no_other_file_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "data.csv").write_text("a,b", encoding="utf-8")
    (tmp_path / "secret.csv").write_text("s", encoding="utf-8")
    (tmp_path / "open" / "link.csv").symlink_to(tmp_path / "secret.csv")
    async with server(folders=(tmp_path / "open",)) as client:
        added = await client.call_tool("add_file", {"path": str(tmp_path / "open" / "data.csv")})
        ran = await run(client, "open('data.csv').read()")
        for path in (str(tmp_path / "secret.csv"), "link.csv", "/etc/passwd", "../secret.csv", "nothing.csv"):
            refused = await client.call_tool("add_file", {"path": path})
            assert refused.is_error, path
    assert added.structured_content == {"session": "default", "path": "data.csv", "bytes": 3}
    assert (ran["value"], ran.get("files")) == ("'a,b'", None)


async def test_without_folders_no_file_of_the_host_is_copied(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1", encoding="utf-8")
    async with server() as client:
        refused = await client.call_tool("add_file", {"path": str(tmp_path / "x.csv")})
    assert refused.is_error
