"""A server that nobody here wrote, from the npm registry, works through mcp.json."""

import json
import subprocess
from pathlib import Path

import anyio
import pytest

from memento.server_list import load_server_list
from memento.toolbox import open_toolbox
from support.node import NODE, NPM, node_environment

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PACKAGE = "@modelcontextprotocol/server-filesystem@2026.8.31"


@pytest.fixture(scope="session")
def npm_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The npm package, installed into a folder of its own; returns its script."""
    folder = tmp_path_factory.mktemp("npm")
    installed = subprocess.run(
        [NODE, NPM, "install", "--no-audit", "--no-fund", "--prefix", str(folder), PACKAGE],
        env=node_environment(),
        timeout=300,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    return folder / "node_modules" / "@modelcontextprotocol" / "server-filesystem" / "dist" / "index.js"


@pytest.mark.timeout(400)
async def test_a_server_from_the_npm_registry_is_plugged_in_by_mcp_json(npm_server: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("The needle lies in the hay.", encoding="utf-8")
    path = tmp_path / "mcp.json"
    entry = {"command": NODE, "args": [str(npm_server), "${NOTES:-/nowhere}"], "denyTools": ["write_*", "edit_*"]}
    path.write_text(json.dumps({"servers": {"files": entry}}), encoding="utf-8")
    servers = load_server_list(path, {"NOTES": str(tmp_path)}).servers
    with anyio.fail_after(60):
        async with open_toolbox(servers, log_folder=tmp_path / "logs") as box:
            assert box.problems == {}
            specs = {spec.name: spec for spec in box.specs()}
            outcome = await box.call(specs["files__read_text_file"], {"path": str(tmp_path / "note.txt")})
            outside = await box.call(specs["files__read_text_file"], {"path": "/etc/hostname"})
    assert outcome.text.strip() == "The needle lies in the hay."
    assert outside.is_error
    assert not any("write" in name or "edit" in name for name in specs)
