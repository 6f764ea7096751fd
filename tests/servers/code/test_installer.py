"""memento_code: install_packages, by real pip from an index on loopback."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from memento_code.server import Settings, build_server
from support.loopback import LoopbackServer, answer, loopback_server
from support.wheels import wheel

pytestmark = pytest.mark.anyio


@pytest.fixture
async def index() -> AsyncGenerator[LoopbackServer]:
    async with loopback_server() as server:
        files = {
            "tiny": ("tiny-1.0-py3-none-any.whl", wheel("tiny", {"tiny.py": "VALUE = 42\n"})),
            "source": ("source-1.0.tar.gz", b"a source distribution would run its own code"),
        }
        for name, (file, content) in files.items():
            page = f'<!DOCTYPE html><html><body><a href="/files/{file}">{file}</a></body></html>'
            server.answers[f"/simple/{name}/"] = answer(page.encode(), "Content-Type: text/html")
            server.answers[f"/files/{file}"] = answer(content)
        yield server


def code_server(index: LoopbackServer, folder: Path, allowed: str, **settings: Any) -> Client:
    folder.chmod(0o755)
    given = {"package_index": f"{index.base}/simple/", "packages_folder": folder / "packages"}
    return Client(build_server(Settings(installable_packages=allowed, **given, **settings)))


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("level", ["namespace", "landlock"])
async def test_an_allowed_package_is_imported_by_a_session_that_was_there_before(
    index: LoopbackServer, open_folder: Path, level: Any
) -> None:
    async with code_server(index, open_folder, "Tiny, other", isolation=level) as client:
        before = await client.call_tool(
            "run_python", {"code": "import importlib.util; importlib.util.find_spec('tiny')"}
        )
        done = await client.call_tool("install_packages", {"packages": ["tiny==1.0"]})
        ran = await client.call_tool("run_python", {"code": "import tiny; tiny.VALUE"})
        planted = await client.call_tool("run_python", {"code": "open(tiny.__file__, 'w')"})
    assert before.structured_content is not None
    assert before.structured_content.get("value") is None
    assert done.structured_content == {"installed": ["tiny==1.0"]}, done.content
    assert ran.structured_content is not None
    assert (ran.structured_content["value"], ran.structured_content["state"]) == ("42", "kept")
    assert planted.is_error


@pytest.mark.parametrize(
    ("package", "told"),
    [
        ("evil", "'evil' may not be installed here. Allowed by the operator: source, tiny."),
        ("--index-url=http://169.254.169.254/", "is not the name of a package"),
        ("tiny @ http://169.254.169.254/x.whl", "is not the name of a package"),
        ("../tiny", "is not the name of a package"),
        ("source", "pip did not install it"),
    ],
)
async def test_what_is_not_allowed_or_no_wheel_is_refused(
    index: LoopbackServer, open_folder: Path, package: str, told: str
) -> None:
    async with code_server(index, open_folder, "tiny,source") as client:
        refused = await client.call_tool("install_packages", {"packages": [package]})
    assert refused.is_error
    assert told in str(refused.content)
    assert not any("/files/" in request.split()[1] for request in index.requests)


async def test_the_tool_is_not_there_unless_the_operator_allows_something() -> None:
    async with Client(build_server(Settings())) as client:
        assert "install_packages" not in [tool.name for tool in (await client.list_tools()).tools]
