"""Every server in mcp.json under the MCP Inspector's command line: a client, and a linter, that we did not write.

It comes from the npm registry, once, into a cache folder; the node that runs it comes with the development
dependencies. Without a network and without that cache there is nothing to run, and the tests say so.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from support.node import NODE, NPM, node_environment
from support.repository import SERVERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"


@pytest.fixture(scope="session")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that starts the Inspector, installed if it was not yet."""
    folder = platformdirs.user_cache_path("memento-tests") / INSPECTOR.rpartition("/")[2]
    program = folder / "node_modules" / ".bin" / "mcp-inspector"
    if not program.exists():
        npm = [NODE, NPM, "install", "--no-audit", "--no-fund", "--prefix", str(folder), INSPECTOR]
        installed = run(npm, cwd=tmp_path_factory.mktemp("npm"))
        if installed.returncode != 0 and ("ENOTFOUND" in installed.stderr or "EAI_AGAIN" in installed.stderr):
            pytest.skip("the npm registry cannot be reached, and the Inspector is not in the cache")
        assert installed.returncode == 0, installed.stderr
    return [NODE, str(program.resolve()), "--cli"]


def run(command: Sequence[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env={**node_environment(), **env},
        capture_output=True,
        encoding="utf-8",
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("name", SERVERS)
def test_the_inspector_lists_every_tool_and_its_strict_lint_finds_nothing(
    name: str, inspector: list[str], tmp_path: Path
) -> None:
    entry = SERVERS[name]
    done = run(
        [*inspector, entry.command, *entry.args, "--method", "tools/list", "--strict", "--format", "json"],
        tmp_path,
        **entry.env,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    listed: Any = json.loads(done.stdout)
    assert listed["result"]["tools"]


def test_the_strict_lint_would_find_something(inspector: list[str], tmp_path: Path) -> None:
    """Otherwise the test above could not fail."""
    server = tmp_path / "sloppy.py"
    server.write_text(
        "from mcp.server.lowlevel import Server\n"
        "from mcp.server.stdio import stdio_server\n"
        "from mcp.types import ListToolsResult, Tool\n"
        "import anyio\n"
        "async def tools(ctx, params):\n"
        "    schema = {'type': 'object', 'properties': {'a': {'type': ['string', 'null']}}}\n"
        "    return ListToolsResult(tools=[Tool(name='t', description='d', input_schema=schema)])\n"
        "server = Server('sloppy', on_list_tools=tools)\n"
        "async def main():\n"
        "    async with stdio_server() as (read, write):\n"
        "        await server.run(read, write, server.create_initialization_options())\n"
        "anyio.run(main)\n"
    )
    done = run([*inspector, "python", str(server), "--method", "tools/list", "--strict", "--format", "json"], tmp_path)
    assert done.returncode != 0 or "warning" in done.stderr.lower(), (done.stdout, done.stderr)
