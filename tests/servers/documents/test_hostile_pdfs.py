"""memento_documents: PDFs that mean harm get an answer or one clear line each, and the server lives."""

from pathlib import Path

import pytest
from mcp import Client
from mcp.types import CallToolResult, TextContent

from memento_documents.server import Settings, build_server
from support.document_files import make_pdf
from support.hostile_pdfs import SECRET, damaged_pdfs, hostile_pdfs

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MAX_CHARS = 2_000


def problems(name: str, tool: str, result: CallToolResult) -> list[str]:
    """What is wrong with an answer, whatever it says."""
    found: list[str] = []
    said = result.content[0]
    assert isinstance(said, TextContent)
    if SECRET in said.text:
        found.append("holds a file of the server's")
    if len(said.text) > 2 * MAX_CHARS + 3_000:
        found.append(f"{len(said.text)} characters")
    if result.is_error:
        line = said.text.removeprefix(f"Error executing tool {tool}: ")
        if not line.startswith(f"{name!r}: ") or "\n" in line or not line.endswith("."):
            found.append(f"not one clear line: {line[:200]!r}")
    return [f"{tool} {name}: {problem}" for problem in found]


async def read_all(folder: Path, files: dict[str, bytes], tools: list[str]) -> list[str]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    make_pdf(folder / "good.pdf", ["Still here"])
    settings = Settings(
        folders=(folder,), max_chars=MAX_CHARS, memory_megabytes=768, cpu_seconds=2, wall_seconds=30, layout_megabytes=0
    )
    found: list[str] = []
    async with Client(build_server(settings)) as client:
        for name in files:
            for tool in tools:
                found += problems(name, tool, await client.call_tool(tool, {"source": name}))
            good = await client.call_tool("read_document", {"source": "good.pdf"})
            if "Still here" not in str(good.content):
                found.append(f"after {name} a good file could not be read: {good.content}")
    return found


async def test_hostile_files_get_an_answer_or_one_clear_line_and_the_server_lives(tmp_path: Path) -> None:
    assert await read_all(tmp_path, hostile_pdfs(), ["read_document", "view_page"]) == []


async def test_damaged_files_get_an_answer_or_one_clear_line_and_the_server_lives(tmp_path: Path) -> None:
    assert await read_all(tmp_path, damaged_pdfs(60), ["read_document"]) == []
