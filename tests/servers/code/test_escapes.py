"""What hostile code can do from inside the sandbox, at each level this machine gives, and what it could without."""

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from mcp import Client

from memento_code.sandbox import Level, inside_sources
from memento_code.server import Settings, build_server
from support.escapes import ESCAPES, KEY, SAFE_UNCONFINED, SLOW, Prey, lay_out_prey, prelude
from support.processes import running_with

pytestmark = pytest.mark.anyio

CONFINED: tuple[Level, ...] = ("namespace", "landlock")


@pytest.fixture
def prey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Prey]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with lay_out_prey(tmp_path) as prey:
        yield prey


@asynccontextmanager
async def server_at(level: Level, **settings: Any) -> AsyncGenerator[Client]:
    async with Client(build_server(Settings(isolation=level, allow_unsandboxed=level == "none", **settings))) as client:
        yield client


async def run(client: Client, code: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool("run_python", {"code": code, **arguments})
    assert result.structured_content is not None, result.content
    return result.structured_content


def attacks() -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [], id=name) for name in ESCAPES]


@pytest.mark.parametrize("level", CONFINED)
@pytest.mark.parametrize("attack", attacks())
async def test_the_attack_is_stopped(prey: Prey, level: Level, attack: str) -> None:
    async with server_at(level) as client:
        ran = await run(client, prelude(prey.told) + ESCAPES[attack], timeout_seconds=30)
        again = await run(client, "1 + 1")
    assert "ESCAPED" not in ran["stdout"], ran
    assert ran.get("error") is None or ran["error"]["name"] in ("MemoryError", "OSError"), ran
    assert ran["isolation"] == level
    assert prey.was_reached() == []
    assert again["value"] == "2"


@pytest.mark.parametrize("attack", sorted(SAFE_UNCONFINED))
async def test_the_same_attack_works_without_isolation(prey: Prey, attack: str) -> None:
    """Else the tests above would pass for an attack that could never work."""
    async with server_at("none") as client:
        ran = await run(client, prelude(prey.told) + ESCAPES[attack])
    assert "ESCAPED" in ran["stdout"], ran


@pytest.mark.parametrize("level", CONFINED)
async def test_a_daemon_does_not_outlive_its_session(level: Level, tmp_path: Path) -> None:
    word = f"98765.{os.getpid():08}"
    code = f"""
import os, subprocess
child = subprocess.Popen(["sleep", "{word}"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "{word}"])
    os._exit(0)
"""
    async with server_at(level) as client:
        await run(client, code)
        await _until(lambda: len(running_with(word)) == 2)
        await client.call_tool("reset_session", {})
        await _until(lambda: running_with(word) == [])


async def _until(happened: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not happened():  # noqa: ASYNC110 - nothing tells us when a process of a process starts or ends
            await anyio.sleep(0.02)


@pytest.mark.parametrize("level", CONFINED)
async def test_one_session_cannot_reach_another(level: Level) -> None:
    async with server_at(level) as client:
        first = await run(client, "import os\nopen('mine', 'w').write('x')\nos.getpid(), os.getcwd()", session="a")
        pid, folder = eval(first["value"])
        attack = f"""
import os
for attempt in (lambda: os.kill({pid}, 9) if {pid} != os.getpid() else 1/0, lambda: open({folder!r} + '/mine').read()):
    try: attempt(); print('REACHED')
    except (OSError, ZeroDivisionError): pass
"""
        second = await run(client, attack, session="b")
        third = await run(client, "open('mine').read()", session="a")
    assert second["stdout"] == ""
    assert third["value"] == "'x'"
    assert third["state"] == "kept"


async def test_the_server_refuses_to_start_when_nothing_isolates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("memento_code.sandbox.landlock_abi", lambda: 0)
    monkeypatch.setenv("MEMENTO_CODE_ISOLATION", "")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with Client(build_server(Settings())) as client:
            await client.call_tool("run_python", {"code": "1"})
    text = str(_leaves(caught.value))
    assert "MEMENTO_CODE_ALLOW_UNSANDBOXED=true" in text
    assert "the kernel has no Landlock" in text


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    inner = cast(BaseExceptionGroup[BaseException], error).exceptions
    return [leaf for each in inner for leaf in _leaves(each)]


async def test_a_level_whose_probe_finds_a_hole_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that lets sockets through, as on a kernel where it does not work: the probe sees it, not the name."""
    monkeypatch.setattr("memento_code.sandbox.inside_sources", _with_a_hole)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with Client(build_server(Settings())) as client:
            await client.call_tool("run_python", {"code": "1"})
    assert "the probe could: open a Unix socket" in str(_leaves(caught.value))


def _with_a_hole() -> dict[str, str]:
    sources = inside_sources()
    assert '"socket": (41, 198)' in sources["confine"]
    return {**sources, "confine": sources["confine"].replace('"socket": (41, 198)', '"socket": (335, 335)')}


def test_the_command_says_in_one_line_why_it_will_not_start() -> None:
    code = (
        "import memento_code.sandbox as s; s.landlock_abi = lambda: 0; "
        "import memento_code.server as m; import sys; sys.argv = ['memento-code']; m.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert said.startswith("memento-code: no isolation holds on this machine (namespace: ")
