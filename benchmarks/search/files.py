"""search_files measured from outside: the real server over stdio, and peers over the same documents in the same run."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters

from benchmarks.search.corpora import Corpus

__all__ = ["PEERS", "Row", "measure_ours", "measure_peer"]

PEERS = ("tantivy", "bm25s", "rank_bm25", "grep")
_MiB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One engine over one corpus. Memory is the process's peak: while building, and after (grep: its Python)."""

    name: str
    build_seconds: float
    memory_mb: float
    p50_ms: float
    p95_ms: float
    cpu_ms: float
    """Processor time of one question, the mean: what the clock says depends on what else the machine does."""
    recall_at_10: float
    """Share of the questions with a right document among the first ten."""
    precision_at_10: float
    """Share of the first ten that is right; for known items at most a tenth."""
    mrr: float
    query_memory_mb: float | None = None
    disk_mb: float | None = None


def measure_peer(name: str, python: Path, corpus: Corpus, questions: int) -> Row:
    """Run one peer in a process of its own; at most `questions` of the corpus's (the slow ones get fewer)."""
    asked = corpus.questions[:questions]
    given = {
        "documents": corpus.documents if name != "grep" else [],
        "questions": [question for question, _ in asked],
        "folder": str(corpus.folder),
    }
    done = subprocess.run(
        [str(python), str(Path(__file__).with_name("peer.py")), name],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-500:]}")
    result = json.loads(done.stdout)
    best = result["best"]
    if name == "grep":  # it finds files; the file of the right passage counts
        right = [frozenset(each.partition("#")[0] for each in names) for _, names in asked]
    else:
        right = [names for _, names in asked]
    return _row(
        name, result["build_seconds"], result["peak_bytes"], result["milliseconds"], result["cpu_ms"], best, right
    )


async def measure_ours(corpus: Corpus, scratch: Path) -> Row:
    """Index `corpus.folder` with a server of its own, then ask it. Each call scans the folder, as it always does."""
    index = Path(tempfile.mkdtemp(dir=scratch))
    environment = {
        "MEMENTO_SEARCH_FOLDERS": str(corpus.folder),
        "MEMENTO_SEARCH_INDEX_FOLDER": str(index),
        "MEMENTO_SEARCH_ENGINES": "none",
        "MEMENTO_SEARCH_INDEX_SECONDS": "10000",
    }
    command = StdioServerParameters(
        command=str(Path(sys.executable).with_name("memento-search")), args=["--log-level", "error"], env=environment
    )
    before = _children()
    async with Client(command, read_timeout_seconds=3600) as client:
        (pid,) = _children() - before
        started = time.perf_counter()
        await client.call_tool("search_files", {"query": "warmup"})
        build_seconds = time.perf_counter() - started
        peak = _memory(pid, "VmHWM")
        # A file just written is looked at again, since it may change within its clock's grain: let that pass.
        await anyio.sleep(2.5)
        await client.call_tool("search_files", {"query": "warmup"})
        milliseconds: list[float] = []
        best: list[list[str]] = []
        cpu = _cpu_seconds(pid)
        for question, _ in corpus.questions:
            started = time.perf_counter()
            answer = await client.call_tool("search_files", {"query": question, "limit": 10})
            milliseconds.append((time.perf_counter() - started) * 1000)
            hits = dict(answer.structured_content or {})["hits"]
            best.append([_name(hit, corpus.folder) for hit in hits])
        cpu_ms = (_cpu_seconds(pid) - cpu) * 1000 / len(corpus.questions)
        memory = _memory(pid, "VmRSS")
    right = [names for _, names in corpus.questions]
    disk = _size(index)
    row = _row("search_files", build_seconds, peak, milliseconds, cpu_ms, best, right)
    return replace(row, query_memory_mb=memory / _MiB, disk_mb=disk / _MiB)


def _name(hit: dict[str, str], folder: Path) -> str:
    name = os.path.relpath(hit["path"], folder)
    return f"{name}#{hit['heading']}" if hit.get("heading", "").startswith("Part ") else name


def _row(
    name: str,
    build_seconds: float,
    peak_bytes: float,
    milliseconds: list[float],
    cpu_ms: float,
    best: list[list[str]],
    right: list[frozenset[str]],
) -> Row:
    ranks = [
        next((rank for rank, found in enumerate(names, 1) if found in wanted), 0)
        for names, wanted in zip(best, right, strict=True)
    ]
    ordered = sorted(milliseconds)
    return Row(
        name=name,
        build_seconds=build_seconds,
        memory_mb=peak_bytes / _MiB,
        p50_ms=ordered[len(ordered) // 2],
        p95_ms=ordered[len(ordered) * 95 // 100],
        cpu_ms=cpu_ms,
        recall_at_10=sum(rank > 0 for rank in ranks) / len(ranks),
        precision_at_10=sum(found in wanted for names, wanted in zip(best, right, strict=True) for found in names[:10])
        / (10 * len(ranks)),
        mrr=sum(1 / rank for rank in ranks if rank) / len(ranks),
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def _memory(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
