"""memento_code: files in and out, the shell, tables and pictures, through the server."""

# ruff: noqa: E501 - code for the sandbox reads best on one line

import base64
import os
import struct
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult, ImageContent, TextContent

from memento_code.sandbox import Level
from memento_code.server import Settings, build_server
from memento_kit import unfence
from support.repository import ROOT

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["namespace", "landlock"])
def level(request: pytest.FixtureRequest) -> Level:
    return request.param


@asynccontextmanager
async def server(level: Level | None = None, **settings: Any) -> AsyncGenerator[Client]:
    async with Client(build_server(Settings(isolation=level, **settings))) as client:
        yield client


async def ask(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.structured_content is not None, result.content
    return result.structured_content


async def refusal(client: Client, tool: str, /, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def png(width: int = 2, height: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\xff\0\0" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def test_a_file_put_in_is_there_for_code_and_comes_back(level: Level) -> None:
    async with server(level) as client:
        written = await ask(client, "write_file", path="data/in.csv", content="a,b\n1,2\n")
        ran = await ask(client, "run_python", code="open('out.txt', 'w').write(open('data/in.csv').read() * 2)")
        back = await ask(client, "read_file", path="out.txt")
        listed = await ask(client, "list_files")
    assert written == {"session": "default", "path": "data/in.csv", "bytes": 8}
    assert ran["value"] == "16"
    assert (back["content"], back["encoding"], back["total_bytes"]) == ("a,b\n1,2\na,b\n1,2\n", "text", 16)
    entries = [entry for entry in listed["entries"] if not entry["path"].startswith("tmp")]
    assert entries == [
        {"path": "out.txt", "bytes": 16, "kind": "file"},
        {"path": "data/in.csv", "bytes": 8, "kind": "file"},
    ]


async def test_bytes_go_in_and_out_as_base64_and_pieces_join(level: Level) -> None:
    content = bytes(range(256)) * 40
    async with server(level) as client:
        given = base64.b64encode(content).decode()
        await ask(client, "write_file", path="x.bin", content=given, encoding="base64")
        pieces: list[bytes] = []
        offset: int | None = 0
        while offset is not None:
            piece = await ask(client, "read_file", path="x.bin", offset=offset, max_bytes=3_000)
            pieces.append(base64.b64decode(piece["content"]))
            offset = piece.get("next_offset")
    assert b"".join(pieces) == content
    assert len(pieces) == 4


async def test_text_in_pieces_never_cuts_a_character() -> None:
    text = "aé€😀" * 50
    async with server() as client:
        await ask(client, "write_file", path="t.txt", content=text)
        pieces: list[str] = []
        offset: int | None = 0
        while offset is not None:
            piece = await ask(client, "read_file", path="t.txt", offset=offset, max_bytes=7)
            assert piece["encoding"] == "text"
            pieces.append(piece["content"])
            offset = piece.get("next_offset")
    assert "".join(pieces) == text


async def test_a_picture_is_read_as_a_picture() -> None:
    async with server() as client:
        given = base64.b64encode(png()).decode()
        await ask(client, "write_file", path="p.png", content=given, encoding="base64")
        result = await client.call_tool("read_file", {"path": "p.png"})
    assert result.content[1] == ImageContent(data=given, mime_type="image/png")


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "nothing.txt", "."])
async def test_what_the_session_cannot_read_the_tool_cannot_read(level: Level, path: str) -> None:
    async with server(level) as client:
        told = await refusal(client, "read_file", path=path)
    assert "Paths are relative to the session's folder; see list_files." in told


async def test_a_link_that_code_laid_out_leads_nowhere(level: Level, tmp_path: Path) -> None:
    """The host never opens a path of the session: a link named plot.png would else show any file of the server's user."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        if os.stat(folder).st_uid == os.getuid():
            folder.chmod(0o755)
    async with server(level) as client:
        await ask(client, "run_python", code=f"import os; os.symlink({str(secret)!r}, 'plot.png')")
        listed = await ask(client, "list_files")
        told = await refusal(client, "read_file", path="plot.png")
    assert [entry["kind"] for entry in listed["entries"] if entry["path"] == "plot.png"] == ["link"]
    assert "Permission denied" in told or "No such file" in told


async def test_a_pipe_is_not_waited_on() -> None:
    async with server() as client:
        await ask(client, "run_python", code="import os; os.mkfifo('p')")
        told = await refusal(client, "read_file", path="p")
    assert "not a regular file" in told


async def test_a_session_that_lies_about_its_files_is_an_error() -> None:
    """The code runs in the process that answers for the files; its word is checked for shape."""
    lie = "import gc, types\nfor m in gc.get_objects():\n    if isinstance(m, types.ModuleType) and m.__name__ == 'folder':\n"
    lie += "        m.read_file = lambda *a: {'content': 5}\n        m.list_files = lambda *a: {'entries': 'x'}"
    async with server() as client:
        await ask(client, "run_python", code=lie)
        for tool, arguments in (("read_file", {"path": "x"}), ("list_files", {})):
            assert "no usable answer" in await refusal(client, tool, **arguments)


async def test_a_shell_command_runs_in_the_same_folder_and_its_exit_code_is_the_value(level: Level) -> None:
    async with server(level) as client:
        await ask(client, "run_python", code="open('a.txt', 'w').write('from python')")
        good = await client.call_tool("run_shell", {"command": "cat a.txt; echo; echo oops >&2"})
        bad = await client.call_tool("run_shell", {"command": "exit 3"})
    assert good.structured_content is not None
    assert bad.structured_content is not None
    assert (good.structured_content["stdout"], good.structured_content["stderr"]) == ("from python\n", "oops\n")
    assert (good.structured_content["value"], good.is_error) == ("0", False)
    assert (bad.structured_content["value"], bad.is_error) == ("3", True)


async def test_a_shell_command_over_its_time_is_stopped_and_the_session_lives(level: Level) -> None:
    async with server(level) as client:
        await ask(client, "run_python", code="x = 1")
        slow = await ask(client, "run_shell", command="sleep 98765.5", timeout_seconds=0.3)
        after = await ask(client, "run_python", code="import os; x")
    assert slow["limit"] == "time limit of 0.3 s"
    assert (after["value"], after["state"]) == ("1", "kept")


async def test_an_object_that_shows_itself_as_a_picture_is_a_picture() -> None:
    code = (
        f"class P:\n    def _repr_png_(self): return {png()!r}\n    def __repr__(self): return 'P'\ndisplay(P())\nP()"
    )
    async with server() as client:
        result = await client.call_tool("run_python", {"code": code})
    picture = ImageContent(data=base64.b64encode(png()).decode(), mime_type="image/png")
    assert result.content[1:] == [picture, picture]
    assert result.structured_content is not None
    assert (result.structured_content["pictures"], result.structured_content["value"]) == (2, "P")


async def test_what_only_claims_to_be_a_picture_is_left_out() -> None:
    code = "class P:\n    def _repr_png_(self): return b'<svg onload=alert(1)>'\nP()"
    async with server() as client:
        result = await client.call_tool("run_python", {"code": code})
    assert len(result.content) == 1


RICH = """
class Everything:
    def __repr__(self): return 'everything'
    def _repr_html_(self): return '<b>bold</b>'
    def _repr_markdown_(self): return '**bold**'
    def _repr_svg_(self): return '<svg xmlns="http://www.w3.org/2000/svg"/>'
    def _repr_latex_(self): return '$x^2$'
    def _repr_json_(self): return {'a': [1, None, 'é']}, {'expanded': True}
    def _repr_jpeg_(self): return b'\\xff\\xd8\\xff' + bytes(9)
class Bundle:
    def __repr__(self): return 'bundle'
    def _repr_mimebundle_(self, include=None, exclude=None): return {'text/html': '<i>it</i>', 'text/plain': 'x'}
    def _repr_latex_(self): raise ValueError('broken')
display(Bundle())
Everything()
"""


async def test_every_form_of_a_result_is_kept(level: Level) -> None:
    async with server(level) as client:
        result = await client.call_tool("run_python", {"code": RICH})
    assert result.structured_content is not None
    bundle, everything = result.structured_content["results"]
    assert bundle == {"text": "bundle", "html": "<i>it</i>", "is_main_result": False}
    assert everything == {
        "html": "<b>bold</b>",
        "markdown": "**bold**",
        "svg": '<svg xmlns="http://www.w3.org/2000/svg"/>',
        "latex": "$x^2$",
        "json": '{"a": [1, null, "é"]}',
        "picture": 1,
        "is_main_result": True,
    }
    assert result.structured_content["value"] == "everything"
    assert isinstance(result.content[1], ImageContent)
    assert result.content[1].mime_type == "image/jpeg"
    assert 'json:\n{"a": [1, null, "é"]}' in text_of(result)
    assert "latex:\n$x^2$" in text_of(result)


async def test_a_form_that_is_too_long_is_named_and_a_wrong_one_passed_over() -> None:
    code = """
class Odd:
    def __repr__(self): return 'odd'
    def _repr_html_(self): return 'x' * 1_001
    def _repr_svg_(self): return b'bytes'
    def _repr_json_(self): return {1, 2}
    def _repr_latex_(self): return 'x' * 1_000
    def _repr_markdown_(self): return None
from unittest.mock import Mock
display(Mock())
Odd()
"""
    async with server(max_value_chars=1_000) as client:
        result = await ask(client, "run_python", code=code)
    (odd,) = result["results"]
    assert odd["left_out"] == ["html", "json", "svg"]
    assert set(odd) == {"latex", "left_out", "is_main_result"}
    assert result["stdout"].startswith("<Mock id=")


async def test_what_was_shown_before_the_time_limit_is_kept(level: Level) -> None:
    code = "class L:\n    def _repr_latex_(self): return '$1$'\ndisplay(L())\nimport time\ntime.sleep(60)"
    async with server(level) as client:
        result = await ask(client, "run_python", code=code, timeout_seconds=0.5)
    assert result["limit"] == "time limit of 0.5 s"
    assert result["results"][0]["latex"] == "$1$"


async def test_code_that_shows_things_without_end_is_stopped_and_its_session_lives() -> None:
    code = "class L:\n    def _repr_latex_(self): return 'x' * 9_000\nl = L()\nwhile sum(range(3_000)): display(l)"
    async with server() as client:
        result = await ask(client, "run_python", code=code, timeout_seconds=0.1)
        after = await ask(client, "run_python", code="l.__class__.__name__")
    assert (result["limit"], len(result["results"])) == ("time limit of 0.1 s", 50)
    assert (after["value"], after["state"]) == ("'L'", "kept")


ANALYSIS = Path(os.environ.get("TEST_ANALYSIS_PYTHON", ROOT / ".tools" / "analysis" / "bin" / "python"))
needs_analysis = pytest.mark.skipif(
    not ANALYSIS.exists(), reason="no pandas and matplotlib: `scripts/setup --for-tests`, or TEST_ANALYSIS_PYTHON"
)


def text_of(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return unfence(result.content[0].text)


@needs_analysis
async def test_a_csv_is_analysed_and_drawn(level: Level) -> None:
    code = """
import pandas as pd, matplotlib.pyplot as plt
frame = pd.read_csv("sales.csv")
frame.plot.bar(x="city", y="units")
plt.show()
frame.groupby("city").sum()
"""
    if level == "landlock" and os.getuid() == 0 and not all(os.stat(each).st_mode & 1 for each in ANALYSIS.parents):
        pytest.skip("a session's own user cannot reach the environment in this private folder")
    async with server(level, python=ANALYSIS) as client:
        await ask(client, "write_file", path="sales.csv", content="city,units\nOslo,10\nBergen,3\nOslo,5\n")
        result = await client.call_tool("run_python", {"code": code})
        again = await client.call_tool("run_python", {"code": "1"})
    assert not result.is_error, text_of(result)
    assert isinstance(result.content[1], ImageContent)
    content = base64.b64decode(result.content[1].data)
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (640, 480)
    assert result.structured_content is not None
    assert result.structured_content["tables"] == [
        {"columns": ["city", "units"], "rows": [["Bergen", 3], ["Oslo", 15]], "total_rows": 2}
    ]
    assert result.structured_content["stderr"] == ""
    assert len(again.content) == 1  # a figure is shown once


@needs_analysis
async def test_a_huge_figure_is_drawn_small_and_a_huge_table_cut() -> None:
    code = "import matplotlib.pyplot as plt, pandas as pd\nplt.figure(figsize=(400, 300))\npd.DataFrame({'x': range(10**5)})"
    async with server(python=ANALYSIS) as client:
        result = await client.call_tool("run_python", {"code": code})
    assert isinstance(result.content[1], ImageContent)
    width, height = struct.unpack(">II", base64.b64decode(result.content[1].data)[16:24])
    assert 1_900_000 < width * height <= 2_000_000
    assert result.structured_content is not None
    (table,) = result.structured_content["tables"]
    assert (len(table["rows"]), table["total_rows"]) == (50, 100_000)


async def test_a_python_that_does_not_run_stops_the_server_with_its_setting_named() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with server(python=Path("/nowhere/python")) as client:
            await ask(client, "run_python", code="1")
    shown = repr(caught.value)
    assert "MEMENTO_CODE_PYTHON '/nowhere/python' is not a Python that runs" in shown
