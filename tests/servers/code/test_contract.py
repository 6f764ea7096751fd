"""memento_code: the contract of backends, held by every backend that this machine can run."""

import base64
import os
import shutil
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from memento_code.container import Engine, EngineCommand
from memento_code.contract import CHECKS, BackendSession, check
from memento_code.e2b import E2BSandbox
from memento_code.execution import Outcome
from memento_code.sandbox import Level, Limits, NoSandbox, Sandbox, find_sandbox
from memento_code.session import SessionLost
from support.e2b_server import e2b_server

pytestmark = pytest.mark.anyio

LIMITS = Limits(1 << 30, 3 << 29, 48, 256, 64 << 20, 256 << 20, 600)


@pytest.mark.parametrize("level", ["namespace", "landlock", pytest.param("none", marks=pytest.mark.slow)])
async def test_a_local_level_keeps_the_contract(level: Level) -> None:
    assert await check(await find_sandbox(LIMITS, wanted=level, allow_none=True)) == []


async def test_an_interpreter_that_cannot_be_started_is_a_reason_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python3"
    python.write_text("", encoding="ascii")  # it may not be run

    def interpreters(wanted: Path | None) -> list[tuple[str, tuple[str, ...]]]:
        return [(str(python), ())]

    monkeypatch.setattr("memento_code.sandbox._interpreters", interpreters)
    with pytest.raises(NoSandbox, match="no isolation holds on this machine"):
        await find_sandbox(LIMITS, wanted=None, allow_none=False)
    with pytest.raises(SessionLost, match=r"python3 could not be started \(Permission denied\)"):
        async with await (await find_sandbox(LIMITS, wanted="none", allow_none=True)).start(
            max_value_chars=1_000, output_bytes=1_000
        ):
            pass


async def test_off_linux_the_server_says_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memento_code.sandbox.sys.platform", "darwin")
    for wanted in (None, "none", "namespace"):
        with pytest.raises(NoSandbox, match=r"on darwin: every level of this computer needs Linux\. Use Linux .*=e2b"):
            await find_sandbox(LIMITS, wanted=cast("Level | None", wanted), allow_none=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="tried as root alone")
@pytest.mark.parametrize("engine", ["podman", "docker"])
async def test_a_container_keeps_the_contract(engine: Engine) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed")
    try:
        sandbox = await find_sandbox(LIMITS, wanted=engine, allow_none=False)
    except NoSandbox as exc:
        pytest.skip(f"{engine} does not work on this machine: {exc}")
    assert await check(sandbox) == []


@pytest.fixture
def through_two_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the containers, with no container: requests over standard input, events over standard output."""

    def engine(self: Sandbox, user_id: int | None) -> EngineCommand:
        return EngineCommand(["/usr/bin/env", "-i"], {})

    monkeypatch.setattr(Sandbox, "engine", engine)


@pytest.mark.usefixtures("through_two_streams")
async def test_what_engines_hand_on_is_enough_for_the_contract() -> None:
    assert await check(await find_sandbox(LIMITS, wanted="landlock", allow_none=False)) == []


@pytest.mark.usefixtures("through_two_streams")
async def test_a_long_request_gets_in_while_the_session_prints_without_end() -> None:
    sandbox = await find_sandbox(LIMITS, wanted="landlock", allow_none=False)
    async with await sandbox.start(max_value_chars=1_000, output_bytes=1_000) as session:
        printing = "import threading\ndef say():\n    while True: print('x' * 1_000)\n"
        await session.run(printing + "threading.Thread(target=say, daemon=True).start()", timeout_seconds=30)
        given = base64.b64encode(bytes(4 << 20)).decode()
        ran = await session.ask({"do": "write_file", "arguments": ["long", given]}, timeout_seconds=30)
        assert (ran.file, ran.lost, ran.interrupted) == ({"bytes": 4 << 20}, None, None)
        assert (await session.run("2 + 2", timeout_seconds=30)).value == "4"


@pytest.mark.usefixtures("through_two_streams")
async def test_memory_of_all_processes_is_watched_where_the_host_cannot_see_them() -> None:
    """In a container: its supervisor watches. Six processes of 80 MiB, of which each alone is allowed."""
    limits = Limits(1 << 30, 300 << 20, 48, 256, 64 << 20, 256 << 20, 600)
    children = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        held = b"x" * (80 << 20)
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""
    sandbox = await find_sandbox(limits, wanted="landlock", allow_none=False)
    async with await sandbox.start(max_value_chars=1_000, output_bytes=1_000) as session:
        ran = await session.run(children, timeout_seconds=30)
    assert ran.lost == "its processes used more than 300 MiB of memory together"


@pytest.mark.usefixtures("through_two_streams")
@pytest.mark.parametrize(
    "said", ['{"type": "exit"}', '{"type": "exit", "code": null}', '{"type": "exit", "code": "9"}']
)
async def test_an_exit_that_the_code_makes_up_costs_its_own_session_and_no_more(said: str) -> None:
    forge = f"""
import os
for descriptor in range(3, 256):
    try:
        os.write(descriptor, {said.encode()!r} + b"\\n")
    except OSError:
        pass
"""
    sandbox = await find_sandbox(LIMITS, wanted="landlock", allow_none=False)
    async with await sandbox.start(max_value_chars=1_000, output_bytes=1_000) as session:
        ran = await session.run(forge, timeout_seconds=30)
    assert ran.lost == "the code wrote into the session's own pipe"


async def test_an_engine_that_does_not_work_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> None:
        return None

    monkeypatch.setattr("memento_code.sandbox.shutil.which", nowhere)
    for engine, advice in {"podman": "Install podman", "docker": "Install docker or start its daemon"}.items():
        with pytest.raises(NoSandbox) as caught:
            await find_sandbox(LIMITS, wanted=cast(Engine, engine), allow_none=False)
        assert f"({engine}: {engine} is not installed). {advice}" in str(caught.value)
        assert "or leave MEMENTO_CODE_ISOLATION out" in str(caught.value)
        assert "bubblewrap" not in str(caught.value)


async def test_e2b_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    async with e2b_server("key") as server:
        monkeypatch.setenv("E2B_API_KEY", "key")
        monkeypatch.setenv("E2B_API_URL", server.url)
        monkeypatch.setenv("E2B_SANDBOX_URL", server.url)
        assert await check(E2BSandbox(LIMITS)) == []


def test_the_contract_has_at_least_forty_checks() -> None:
    assert len(CHECKS) >= 40


class Forgetful:
    """A backend that starts afresh for every request, and says nothing when it ends."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def start(self, *, max_value_chars: int, output_bytes: int) -> BackendSession:
        sandbox = self._sandbox

        class Session:
            ended: str | None = None

            async def ask(self, request: dict[str, Any], *, timeout_seconds: float) -> Outcome:
                async with await sandbox.start(max_value_chars=max_value_chars, output_bytes=output_bytes) as session:
                    return await session.ask(request, timeout_seconds=timeout_seconds)

            async def end(self, reason: str) -> None:
                await anyio.lowlevel.checkpoint()

        return Session()


async def test_a_backend_that_forgets_fails_the_checks_about_keeping() -> None:
    forgetful = Forgetful(await find_sandbox(LIMITS, wanted="landlock", allow_none=False))
    for name in ("variables are kept", "code sees a written file", "an ended session says so"):
        assert await check(forgetful, only=name) == [name]
    assert await check(forgetful, only="the last expression is the value") == []
