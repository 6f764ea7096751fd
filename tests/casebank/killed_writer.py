"""Run by test_durability.py: forks writers, kills each with SIGKILL, and prints what they had acknowledged as JSON.

A script of its own, because a fork wants a process without threads. Each child opens the bank as any owner would,
indexes without lingering so that chromadb is written to as well, and acknowledges through a pipe.
"""

import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import chromadb  # noqa: F401  # pyright: ignore[reportUnusedImport] - imported here once, not in every child

from memento_casebank import chroma
from memento_casebank.embedders import HashingEmbedder
from memento_casebank.engine import Engine, EngineSettings, NewCase

chroma.FIRST_BATCH_SECONDS = chroma.BATCH_SECONDS = 0.0  # pyright: ignore[reportConstantRedefinition]


def write_until_killed(folder: Path, acknowledge: int, seed: int) -> None:
    embedder = HashingEmbedder(64)
    rng = random.Random(seed)
    engine = Engine(folder, embedder_id=embedder.id, dim=embedder.dim, settings=EngineSettings())
    while True:
        question = f"task {rng.randrange(50)} of kind {rng.randrange(5)}"
        vector = embedder.embed([question])[0]
        retrieve = partial(engine.retrieve, question, vector, k=4, namespace="default")
        found = engine.run(retrieve, synced=False)
        new = NewCase(question=question, plan={"way": rng.randrange(3)}, decision_id=found.decision.id)
        case = engine.run(partial(engine.retain, new, vector, reward=None, reward_kind="self"))
        outcome = engine.run(partial(engine.record_outcome, float(rng.random() < 0.5), "judge", case_id=case.id))
        os.write(acknowledge, f"{found.decision.id} {case.id} {outcome.id}\n".encode())


def kill_one(folder: Path, seed: int) -> list[str]:
    """Start a writer, kill it at a random moment, return the ids it acknowledged before."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            write_until_killed(folder, writing, seed)
        finally:
            os._exit(9)  # only reached when it could not open or write: the parent sees it
    os.close(writing)
    time.sleep(random.Random(seed).uniform(0.0, 0.4))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"the writer of round {seed} stopped by itself")
    with os.fdopen(reading, "rb") as pipe:
        return [
            word.decode()
            for line in pipe.read().splitlines(keepends=True)
            if line.endswith(b"\n")
            for word in line.split()
        ]


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    acknowledged: list[str] = []
    for seed in range(kills):
        acknowledged += kill_one(folder, seed)
    result: dict[str, Any] = {"kills": kills, "acknowledged": acknowledged}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
