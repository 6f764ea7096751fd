"""memento-code environment create: real venv and pip, an index on loopback or none."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import anyio.to_thread
import pytest
from mcp import Client

from memento_code.server import Settings, build_server
from support.loopback import answer, loopback_server
from support.wheels import wheel

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def create(*arguments: str, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    isolated = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0", **environ}
    return subprocess.run(
        ["memento-code", "environment", "create", *arguments],
        env={**{name: value for name, value in os.environ.items() if not name.startswith("PIP_")}, **isolated},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


async def test_an_environment_is_made_once_and_sessions_import_from_it(
    tmp_path: Path, memento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMENTO_HOME", str(memento_home))
    async with loopback_server() as server:
        file = "tiny-1.0-py3-none-any.whl"
        page = f'<!DOCTYPE html><html><body><a href="/f/{file}">{file}</a></body></html>'
        server.answers["/simple/tiny/"] = answer(page.encode(), "Content-Type: text/html")
        server.answers[f"/f/{file}"] = answer(wheel("tiny", {"tiny.py": "VALUE = 42\n"}))
        index = {"PIP_INDEX_URL": f"{server.base}/simple/"}
        done = await anyio.to_thread.run_sync(lambda: create("--packages", "tiny", environ=index))
        again = await anyio.to_thread.run_sync(lambda: create("--packages", "tiny", environ=index))
    assert done.returncode == 0, done.stderr
    assert "Successfully installed tiny-1.0" in done.stderr
    assert done.stderr.endswith(f"memento-code: {memento_home}/code-environment is ready\n")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "exists already: remove it first" in again.stderr
    async with Client(build_server(Settings(isolation="namespace"))) as client:
        ran = await client.call_tool("run_python", {"code": "import tiny\ntiny.VALUE"})
    assert ran.structured_content is not None
    assert ran.structured_content["value"] == "42", ran.content


def test_without_an_index_one_line_says_so_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    done = create(str(folder), "--packages", "tiny", environ={"PIP_INDEX_URL": "http://127.0.0.1:9/simple"})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "memento-code: tiny could not be installed: see pip's words above, and check the network or PIP_INDEX_URL"
    )
    assert not folder.exists()
