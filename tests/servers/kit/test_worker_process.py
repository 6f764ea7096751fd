"""memento_kit.worker_process: real child processes."""

import os
from pathlib import Path

import anyio
import pytest

from memento_kit.worker_process import WorkerCrashed, WorkerFailed, WorkerPool, WorkerTimedOut

pytestmark = pytest.mark.anyio


def pool(function: str, *, size: int = 1, timeout_seconds: float = 20, calls_per_process: int = 500) -> WorkerPool:
    return WorkerPool(
        f"support.worker_functions:{function}",
        size=size,
        timeout_seconds=timeout_seconds,
        max_memory_bytes=2**30,
        max_result_bytes=10_000,
        calls_per_process=calls_per_process,
    )


async def gone(pid: int) -> None:
    with anyio.fail_after(10):
        while True:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
            except (FileNotFoundError, ProcessLookupError):
                return
            if stat.rpartition(")")[2].split()[0] == "Z":  # dead, and waiting for init to notice
                return
            await anyio.sleep(0.01)


async def test_a_result_comes_back_as_it_was_and_the_same_process_serves_the_next_call() -> None:
    async with pool("echo") as workers:
        assert await workers.call({"value": {"text": "žluť", "n": [1, None]}}) == {"text": "žluť", "n": [1, None]}
    async with pool("pid") as workers:
        assert await workers.call({}) == await workers.call({})


async def test_a_process_is_replaced_after_its_share_of_calls() -> None:
    async with pool("pid", calls_per_process=2) as workers:
        first, second, third = [await workers.call({}) for _ in range(3)]
    assert first == second != third


async def test_no_process_is_left_when_the_block_ends() -> None:
    async with pool("pid") as workers:
        pid = await workers.call({})
    await gone(pid)


async def test_a_child_sees_no_key_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with pool("environment") as workers:
        seen = await workers.call({})
    assert "sk-secret" not in str(seen)
    assert set(seen) <= {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}


async def test_a_child_does_not_pay_for_the_mcp_sdk() -> None:
    async with pool("imported") as workers:
        assert not {"mcp", "pydantic", "anyio", "memento_kit"} & set(await workers.call({}))


async def test_a_call_that_overstays_is_killed_with_everything_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    async with pool("hang_with_a_child", timeout_seconds=3) as workers:
        with pytest.raises(WorkerTimedOut, match="3 seconds"):
            await workers.call({"pid_file": str(pid_file)})
    await gone(int(pid_file.read_text(encoding="ascii")))


async def test_cancelling_a_call_kills_its_process(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    async with pool("hang_with_a_child", timeout_seconds=60) as workers, anyio.create_task_group() as tasks:
        tasks.start_soon(workers.call, {"pid_file": str(pid_file)})
        with anyio.fail_after(20):
            while not (pid_file.exists() and pid_file.read_text(encoding="ascii")):  # noqa: ASYNC110 - it is not ours
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    await gone(int(pid_file.read_text(encoding="ascii")))


@pytest.mark.parametrize("function", ["crash", "eat_memory", "forge"])
async def test_a_child_that_dies_costs_one_call_and_never_the_server(function: str) -> None:
    async with pool(function) as workers:
        for _ in range(2):
            with pytest.raises(WorkerCrashed):
                await workers.call({})


async def test_a_result_over_the_limit_is_refused_without_being_read() -> None:
    async with pool("echo") as workers:
        with pytest.raises(WorkerCrashed, match="larger than 10000 bytes"):
            await workers.call({"value": "x" * 20_000})
        assert await workers.call({"value": "small"}) == "small"


async def test_what_the_function_raises_arrives_by_name_and_text() -> None:
    async with pool("fail") as workers:
        with pytest.raises(WorkerFailed, match="page 7 is torn") as failed:
            await workers.call({"message": "page 7 is torn"})
    assert failed.value.kind == "ValueError"


async def test_what_a_function_prints_does_not_reach_the_frames() -> None:
    async with pool("chatter") as workers:
        assert await workers.call({"value": 7}) == 7


async def test_no_more_processes_than_the_size_of_the_pool() -> None:
    async with pool("pid", size=2) as workers:
        pids: set[int] = set()

        async def ask() -> None:
            pids.add(await workers.call({}))

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(ask)
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
