"""The bank against crashes, second owners and lost caches: real processes, real files, real chromadb."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from memento_casebank import BankError, BankLocked, CaseBank, EngineSettings, HashingEmbedder, chroma
from memento_casebank.chroma import ChromaIndex, IndexRow
from memento_casebank.engine import Engine
from memento_casebank.lock import BankLock
from memento_casebank.log import Log

pytestmark = pytest.mark.anyio

QUICK = EngineSettings(lock_timeout_seconds=0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_writer_killed_a_hundred_times_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    script = Path(__file__).with_name("killed_writer.py")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

    run = await anyio.run_process([sys.executable, str(script), str(folder), "110"], env=environment, check=False)

    assert run.returncode == 0, run.stderr.decode()[-2000:]
    result = json.loads(run.stdout)
    assert result["kills"] >= 100
    assert len(result["acknowledged"]) > 100
    with sqlite3.connect(folder / "bank.sqlite3") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    log = Log(folder / "bank.sqlite3", read_only=True)
    assert [record_id for record_id in result["acknowledged"] if not log.has(record_id)] == []
    log.close()
    async with CaseBank.open(folder, embedder=HashingEmbedder(64), settings=QUICK) as bank:
        await bank.flush()
        index = await bank.index_check()
        assert (index.missing, index.indexed) == (0, index.cases)  # nothing lost, and nothing that no log knows
        await bank.rebuild()  # raises when what was learned is not what the log gives


async def test_a_second_process_gets_one_error_that_names_the_server_mode(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from memento_casebank.lock import BankLock\n"
        "lock = BankLock(Path(sys.argv[1])); lock.acquire(1); print('held', flush=True); time.sleep(60)"
    )
    async with await anyio.open_process([sys.executable, "-c", code, str(tmp_path)]) as holder:
        assert holder.stdout is not None
        assert (await holder.stdout.receive()).startswith(b"held")

        with pytest.raises(BankLocked, match=rf"pid {holder.pid}.*--transport streamable-http") as refused:
            async with CaseBank.open(tmp_path, settings=QUICK):
                pass

        assert "\n" not in str(refused.value)
        holder.kill()

    async with CaseBank.open(tmp_path, settings=QUICK) as bank:  # a dead owner's lock is free again
        assert (await bank.stats()).records["cases"] == 0


async def test_a_second_server_on_one_bank_exits_with_that_error(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path, settings=QUICK):
        environment = {
            **os.environ,
            "MEMENTO_CASEBANK_PATH": str(tmp_path),
            "MEMENTO_CASEBANK_LOCK_TIMEOUT_SECONDS": "0",
        }
        second = await anyio.run_process(
            [sys.executable, "-m", "memento_casebank"], input=b"", env=environment, check=False
        )

    assert second.returncode == 2
    assert second.stderr.decode().count("\n") == 1
    assert b"--transport streamable-http" in second.stderr


async def test_a_lost_index_comes_back_from_the_log(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path) as bank:
        for number in range(20):
            await bank.retain(f"question {number}", {"way": number})
        await bank.flush()
    shutil.rmtree(tmp_path / "chroma")

    async with CaseBank.open(tmp_path, settings=EngineSettings(policy="similarity")) as bank:
        assert len((await bank.retrieve("question 3")).shown) > 0
        await bank.rebuild()
        index = await bank.index_check()

    assert (index.indexed, index.missing) == (20, 0)


async def test_an_index_whose_writer_was_killed_in_the_middle_is_made_anew(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path) as bank:
        for number in range(3):
            await bank.retain(f"question {number}", {"way": number})
        await bank.flush()
    assert not (tmp_path / "chroma.writing").exists()
    (tmp_path / "chroma" / "chroma.sqlite3").write_bytes(b"cut off")  # what a kill leaves, files and marker
    (tmp_path / "chroma.writing").touch()

    async with CaseBank.open(tmp_path) as bank:
        await bank.flush()
        index = await bank.index_check()

    assert (index.cases, index.indexed, index.missing) == (3, 3, 0)
    assert not (tmp_path / "chroma.writing").exists()


async def test_a_damaged_index_does_not_stop_the_bank_and_is_rebuilt(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path) as bank:
        await bank.retain("a question", {"way": 1})
        await bank.flush()
    (tmp_path / "chroma" / "chroma.sqlite3").write_bytes(b"not a database" * 100)

    async with CaseBank.open(tmp_path) as bank:
        assert len((await bank.search("a question")).cases) == 1
        await bank.rebuild()
        assert (await bank.index_check()).indexed == 1


async def test_what_was_not_indexed_before_the_end_is_indexed_by_the_next_owner(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path) as bank:  # ends before the index was ever opened
        await bank.retain("a question", {"way": 1})

    async with CaseBank.open(tmp_path) as bank:
        await bank.flush()
        assert (await bank.index_check()).indexed == 1


async def test_an_edit_the_index_had_not_taken_when_the_process_was_killed_is_caught_up(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path / "bank") as bank:
        case = await bank.retain("a question", {"way": 1})
        await bank.flush()
    async with CaseBank.open(tmp_path / "bank") as bank:
        await bank.edit(case.id, "disable")
        shutil.copytree(tmp_path / "bank", tmp_path / "killed")  # before the index's thread wakes up

    async with CaseBank.open(tmp_path / "killed") as bank:
        await bank.record_outcome(0.5, case_id=case.id)
        await bank.flush()
        index = bank._engine.index  # pyright: ignore[reportPrivateUsage]
        row = index._collection("default").get(ids=[case.id], include=["metadatas"])  # pyright: ignore[reportPrivateUsage]
    assert (row["metadatas"][0]["status"], row["metadatas"][0]["reward"]) == ("disabled", 0.5)


async def test_the_lock_goes_back_only_when_nobody_writes_to_the_index_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more waiting than one batch: the rest is left to the next owner."""
    monkeypatch.setattr(chroma, "BATCH", 5)
    monkeypatch.setattr(chroma, "FIRST_BATCH_SECONDS", 0.0)
    writing = threading.Event()
    written: list[int] = []
    upsert = ChromaIndex._upsert  # pyright: ignore[reportPrivateUsage]

    def slow(index: ChromaIndex, rows: list[IndexRow]) -> None:
        writing.set()
        assert index._stop.wait(30)  # pyright: ignore[reportPrivateUsage] - until the bank is being closed
        upsert(index, rows)
        written.append(len(rows))

    monkeypatch.setattr(ChromaIndex, "_upsert", slow)
    async with CaseBank.open(tmp_path) as bank:
        for number in range(20):
            await bank.retain(f"question {number}", {"way": number})
        assert await anyio.to_thread.run_sync(writing.wait, 30)
    lock = BankLock(tmp_path)
    lock.acquire(0.05)
    assert len(written) == 1
    assert not any(thread.name == "casebank-index" for thread in threading.enumerate())
    lock.release()
    with pytest.raises(BankError, match="closed"):
        await bank.flush()
    monkeypatch.undo()

    async with CaseBank.open(tmp_path) as bank:
        await bank.flush()
        assert (await bank.index_check()).missing == 0


async def test_rows_the_index_could_not_take_are_written_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(index: ChromaIndex, rows: list[IndexRow]) -> None:
        raise RuntimeError("no space")

    async with CaseBank.open(tmp_path) as bank:
        await bank.retain("a question", {"way": 1})
        monkeypatch.setattr(ChromaIndex, "_upsert", refuse)
        with pytest.raises(BankError, match=r"RuntimeError: no space.*memento-casebank rebuild"):
            await bank.flush()
        monkeypatch.undo()
        await bank.flush()
        assert (await bank.index_check()).indexed == 1


async def test_an_error_after_a_write_stops_the_bank_and_loses_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may be ahead of the log then; nothing more is written before it is opened again."""

    def crash(engine: Engine, record: object) -> None:
        raise ZeroDivisionError("a bug")

    async with CaseBank.open(tmp_path) as bank:
        case = await bank.retain("a question", {"way": 1})
        monkeypatch.setattr(Engine, "_apply_outcome", crash)
        with pytest.raises(ZeroDivisionError):
            await bank.record_outcome(1.0, case_id=case.id)
        with pytest.raises(BankError, match=r"internal error \(ZeroDivisionError: a bug\); reopen it"):
            await bank.retain("another", {})
        monkeypatch.undo()
    async with CaseBank.open(tmp_path) as bank:
        stats = await bank.stats()
    assert (stats.records["cases"], stats.records["outcomes"]) == (1, 0)


async def test_the_log_refuses_to_forget(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path) as bank:
        case = await bank.retain("a question", {"way": 1}, reward=1.0)

    with sqlite3.connect(tmp_path / "bank.sqlite3") as db:
        for statement in ("DELETE FROM cases", "UPDATE outcomes SET body = ''"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)
    assert case.id


async def test_something_else_in_the_folder_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "bank.sqlite3").write_bytes(b"x" * 4096)

    with pytest.raises(BankError, match=r"bank\.sqlite3 cannot be opened as a case bank"):
        async with CaseBank.open(tmp_path):
            pass


async def test_syncing_every_write_is_a_setting_and_decisions_never_wait(tmp_path: Path) -> None:
    embedder = HashingEmbedder()
    vector = embedder.embed(["q"])[0]
    levels: list[tuple[int, int]] = []
    for every_write in (False, True):
        settings = EngineSettings(sync_every_write=every_write)
        engine = Engine(tmp_path / str(every_write), embedder_id=embedder.id, dim=embedder.dim, settings=settings)
        write = engine.run(lambda e=engine: e.log.sync_level())
        read = engine.run(
            lambda e=engine: (e.retrieve("q", vector, k=1, namespace="n"), e.log.sync_level())[1], synced=False
        )
        levels.append((write, read))
        engine.close()

    assert levels == [(1, 1), (2, 1)]  # SQLite: 1 NORMAL, 2 FULL


async def test_many_clients_at_once_all_find_what_they_wrote(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path) as bank:
        kept: list[str] = []

        async def one_client(number: int) -> None:
            for turn in range(5):
                found = await bank.retrieve(f"client {number} turn {turn}", run_id=f"run-{number}-{turn}")
                case = await bank.retain(f"client {number} turn {turn}", {"way": turn}, decision_id=found.decision.id)
                await bank.record_outcome(1.0, "verifier", case_id=case.id)
                kept.append(case.id)

        async with anyio.create_task_group() as group:
            for number in range(16):
                group.start_soon(one_client, number)
        stats = await bank.stats()

    assert len(set(kept)) == 80
    assert stats.records == {"cases": 80, "decisions": 80, "outcomes": 80, "edits": 0}
    assert stats.namespaces[0].learned_from == 80


@pytest.fixture(scope="module")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `chroma run`, ready when its port answers."""
    import socket

    import httpx2

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("chroma-run")
    command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx2.Client(transport=httpx2.HTTPTransport(retries=8)) as http:
            assert http.get(f"{url}/api/v2/heartbeat", timeout=20).status_code == 200
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
async def test_two_banks_share_one_chroma_server_without_seeing_each_other(tmp_path: Path, chroma_server: str) -> None:
    shared = EngineSettings(chroma_url=chroma_server)
    async with (
        CaseBank.open(tmp_path / "a", settings=shared) as first,
        CaseBank.open(tmp_path / "b", settings=shared) as second,
    ):
        for number in range(30):
            await first.retain(f"question {number}", {"way": number})
        await second.retain("another question", {"way": 1})
        await first.flush()
        await second.flush()

        assert (await first.index_check()).indexed == 30
        assert (await second.index_check()).indexed == 1
        await first.rebuild()
        assert ((await first.index_check()).indexed, (await second.index_check()).indexed) == (30, 1)
        assert not (tmp_path / "a" / "chroma").exists()


async def test_a_chroma_server_that_is_not_there_is_named_when_the_index_is_needed(tmp_path: Path) -> None:
    nowhere = EngineSettings(chroma_url="http://127.0.0.1:9")
    async with CaseBank.open(tmp_path, settings=nowhere) as bank:
        await bank.retain("a question", {"way": 1})
        assert len((await bank.retrieve("a question")).shown) <= 1  # reading needs no index

        with pytest.raises(BankError, match=r"http://127\.0\.0\.1:9.*MEMENTO_CASEBANK_CHROMA_URL"):
            await bank.flush()


def test_the_engine_refuses_work_after_it_was_closed(tmp_path: Path) -> None:
    embedder = HashingEmbedder()
    engine = Engine(tmp_path, embedder_id=embedder.id, dim=embedder.dim, settings=QUICK)
    engine.close()
    engine.close()

    with pytest.raises(BankError, match="closed"):
        engine.run(lambda: None)


async def test_two_clients_of_one_server_share_what_they_learn(tmp_path: Path) -> None:
    """The server mode that a refused second process is pointed to: a real process, over HTTP."""
    import re

    from mcp import Client

    environment = {**os.environ, "MEMENTO_CASEBANK_PATH": str(tmp_path)}
    command = [sys.executable, "-m", "memento_casebank", "--transport", "streamable-http", "--port", "0"]
    async with await anyio.open_process(command, env=environment, stdin=subprocess.DEVNULL) as server:
        assert server.stderr is not None
        told = ""
        with anyio.fail_after(30):
            while "listening on" not in told:
                told += (await server.stderr.receive()).decode()
        found = re.search(r"http://\S+", told)
        assert found is not None
        with anyio.fail_after(30):
            async with Client(found[0]) as first, Client(found[0]) as second:
                kept = await first.call_tool("retain_case", {"question": "book a room", "plan": {"a": 1}, "reward": 1})
                page = await second.call_tool("search_cases", {"text": "book a room"})
        server.terminate()

    assert kept.structured_content is not None
    assert page.structured_content is not None
    assert page.structured_content["cases"][0]["case_id"] == kept.structured_content["case_id"]
