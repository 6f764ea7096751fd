"""`bench latency`: how long a read, a write and a rebuild take on a real bank, beside chromadb and plain numpy.

A bank is made in a temporary folder and filled with utterances (repeated with a number when there are too few). Reads
are whole: candidates, learner, propensities, the decision written to the log; only the embedding is left out. The
comparison queries the same vectors: chromadb's own index of this bank, and one exact numpy scan.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from memento_casebank.bench.world import Utterances
from memento_casebank.engine import Engine, EngineSettings, NewCase, Retrieved
from memento_casebank.records import Case, new_id

__all__ = ["LatencyResult", "RebuildResult", "measure_latency", "measure_rebuild"]

Vectors = NDArray[np.float32]
_NEAREST = 32


@dataclass(frozen=True)
class LatencyResult:
    """Milliseconds."""

    cases: int
    read_p50: float
    read_p95: float
    read_cpu_p95: float
    """Processor time: what `read_p95` is on a machine that has nothing else to do."""
    read_recall: float
    """Share of the 32 nearest that a read looks at: a large bank is scanned by sketches."""
    write_p50: float
    write_p95: float
    write_cpu_p95: float
    outcome_p95: float
    chromadb_p95: float | None
    """chromadb's own nearest-neighbour query; None when it was left out."""
    chromadb_recall: float | None
    """Share of the 32 nearest that it finds."""
    numpy_p95: float
    """An exact scan for the 32 nearest."""
    numpy_cpu_p95: float


@dataclass(frozen=True)
class RebuildResult:
    decisions: int
    seconds: float


def measure_latency(
    data: Utterances,
    cases: int,
    *,
    policy: str = "bag",
    queries: int = 300,
    chromadb: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> LatencyResult:
    """Fill a bank with `cases` cases and time `queries` reads, outcomes and writes."""
    texts, vectors = _repeat(data, cases + queries)
    with tempfile.TemporaryDirectory(prefix="casebank-bench-") as folder:
        settings = EngineSettings(policy=policy, seed=0)
        engine = Engine(Path(folder), embedder_id="bench", dim=vectors.shape[1], settings=settings)
        try:
            say(f"filling a bank with {cases:,} cases")
            _fill(engine, texts[:cases], vectors[:cases])
            say("waiting for chromadb's index")  # its thread would take turns with what is measured
            engine.index.flush()
            nearest, recall = _chromadb_times(engine, vectors[cases:]) if chromadb else (None, None)
            reads: list[Took] = []
            writes: list[Took] = []
            outcomes: list[Took] = []
            say(f"{queries} reads, outcomes and writes")
            for text, vector in zip(texts[cases:], vectors[cases:], strict=True):
                retrieved, took = _timed(lambda t=text, v=vector: _retrieve(engine, t, v), engine, synced=False)
                reads.append(took)
                decision = retrieved.decision.id
                _, took = _timed(lambda d=decision: engine.record_outcome(1.0, "verifier", decision_id=d), engine)
                outcomes.append(took)
                new = NewCase(question=text, plan={"answer": "x"}, answer="x")
                _, took = _timed(
                    lambda n=new, v=vector: engine.retain(n, v, reward=None, reward_kind="verifier"), engine
                )
                writes.append(took)
            shelf = engine.shelf("default")
            matrix = shelf.vectors
            looked_at = [shelf.nearest(vector, 2 * _NEAREST, None) for vector in vectors[cases:]]
            recall_of_reads = _recall(matrix, vectors[cases:], [rows[:_NEAREST] for rows in looked_at])
            scans = [_scan(matrix, vector) for vector in vectors[cases:]]
        finally:
            engine.close()
    return LatencyResult(
        cases=cases,
        read_p50=_percentile(reads, 50),
        read_p95=_percentile(reads, 95),
        read_cpu_p95=_percentile(reads, 95, cpu=True),
        read_recall=recall_of_reads,
        write_p50=_percentile(writes, 50),
        write_p95=_percentile(writes, 95),
        write_cpu_p95=_percentile(writes, 95, cpu=True),
        outcome_p95=_percentile(outcomes, 95),
        chromadb_p95=None if nearest is None else _percentile(nearest, 95),
        chromadb_recall=recall,
        numpy_p95=_percentile(scans, 95),
        numpy_cpu_p95=_percentile(scans, 95, cpu=True),
    )


def measure_rebuild(
    data: Utterances, decisions: int, *, policy: str = "bag", say: Callable[[str], None] = lambda text: None
) -> RebuildResult:
    """Log this many decisions with outcomes on a bank of 1,000 cases, then learn them all again from the log.

    Raises:
        RuntimeError: the rebuilt state differs from the one that was learned online.
    """
    texts, vectors = _repeat(data, 1_000)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="casebank-bench-") as folder:
        engine = Engine(
            Path(folder), embedder_id="bench", dim=vectors.shape[1], settings=EngineSettings(policy=policy, seed=0)
        )
        try:
            _fill(engine, texts, vectors)
            say(f"logging {decisions:,} decisions")

            def batch(size: int) -> None:
                for _ in range(size):
                    row = int(rng.integers(len(texts)))
                    retrieved = _retrieve(engine, texts[row], vectors[row])
                    engine.record_outcome(float(rng.random() < 0.5), "verifier", decision_id=retrieved.decision.id)

            for start in range(0, decisions, 500):
                size = min(500, decisions - start)
                engine.run(lambda s=size: batch(s))
            say("rebuilding")
            began = time.perf_counter()
            engine.run(lambda: engine.rebuild_learning())  # raises when it differs from what was learned online
            seconds = time.perf_counter() - began
        finally:
            engine.close()
    return RebuildResult(decisions, seconds)


T = TypeVar("T")


class Took(NamedTuple):
    """Seconds on the clock, and of the processor in this thread."""

    wall: float
    cpu: float


def _timed(call: Callable[[], T], engine: Engine, *, synced: bool = True) -> tuple[T, Took]:
    """What `call` gives inside the engine, and how long it took until it was safe to rely on."""
    return _clocked(lambda: engine.run(call, synced=synced))


def _clocked(call: Callable[[], T]) -> tuple[T, Took]:
    wall, cpu = time.perf_counter(), time.thread_time()
    result = call()
    return result, Took(time.perf_counter() - wall, time.thread_time() - cpu)


def _retrieve(engine: Engine, text: str, vector: Vectors) -> Retrieved:
    return engine.retrieve(text, vector, k=4, namespace="default")


def _fill(engine: Engine, texts: Sequence[str], vectors: Vectors) -> None:
    def enter(start: int, stop: int) -> None:
        for row in range(start, stop):
            case = Case(id=new_id("case"), created=time.time(), question=texts[row], plan={"answer": "x"}, answer="x")
            engine.enter(case, vectors[row])

    for start in range(0, len(texts), 1_000):
        engine.run(lambda s=start: enter(s, min(s + 1_000, len(texts))))


def _chromadb_times(engine: Engine, vectors: Vectors) -> tuple[list[Took], float]:
    """How long each query took, and the share of the 32 nearest that were found."""
    shelf = engine.shelf("default")
    times: list[Took] = []
    answers: list[NDArray[np.intp]] = []
    for vector in vectors:
        rows, took = _clocked(lambda v=vector: engine.index.query("default", v, _NEAREST))
        times.append(took)
        answers.append(np.array([shelf.row_of[case_id] for case_id, _ in rows], np.intp))
    return times, _recall(shelf.vectors, vectors, answers)


def _recall(matrix: Vectors, vectors: Vectors, answers: Sequence[NDArray[np.intp]]) -> float:
    """Share of the 32 nearest rows of `matrix` that the answers to `vectors` hold, by an exact scan."""
    found = 0
    for vector, rows in zip(vectors, answers, strict=True):
        found += len(np.intersect1d(rows, np.argpartition(matrix @ vector, len(matrix) - _NEAREST)[-_NEAREST:]))
    return found / (_NEAREST * len(vectors))


def _scan(matrix: Vectors, vector: Vectors) -> Took:
    def nearest() -> NDArray[np.intp]:
        cosine = matrix @ vector
        best = np.argpartition(cosine, len(cosine) - _NEAREST)[-_NEAREST:]
        return best[np.argsort(-cosine[best])]

    return _clocked(nearest)[1]


def _repeat(data: Utterances, count: int) -> tuple[list[str], Vectors]:
    """`count` texts and vectors; repeats are told apart by a number and a little noise, so none is a duplicate."""
    rng = np.random.default_rng(0)
    rows = np.arange(count) % len(data.texts)
    texts = [data.texts[row] + (f" {at}" if at >= len(data.texts) else "") for at, row in enumerate(rows.tolist())]
    vectors = data.vectors[rows] + rng.normal(0.0, 0.03, (count, data.vectors.shape[1])).astype(np.float32)
    return texts, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _percentile(times: Sequence[Took], percent: float, *, cpu: bool = False) -> float:
    return float(np.percentile([took.cpu if cpu else took.wall for took in times], percent)) * 1_000.0
