"""Moving a bank to another embedder, resumably.

Owns the order of it: new vectors are written beside the old ones batch by batch; only when all are there does the
bank change over, in one transaction. An interrupted run goes on where it stopped, and until the end the old embedder
stays in force.
"""

from collections.abc import Callable
from pathlib import Path

from memento_casebank.chroma import ChromaIndex
from memento_casebank.embedders import Embedder
from memento_casebank.lock import BankLock
from memento_casebank.log import Log

__all__ = ["reembed"]

BATCH = 256


def reembed(
    folder: Path,
    embedder: Embedder,
    *,
    lock_timeout_seconds: float = 3.0,
    chroma_url: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Embed every case and every logged question anew; returns how many texts were embedded in this run.

    Raises:
        BankLocked: another process has the bank open.
        EmbedderError: the new embedder failed; what it did so far is kept for the next try.
    """
    lock = BankLock(folder)
    lock.acquire(lock_timeout_seconds)
    try:
        log = Log(folder / "bank.sqlite3")
        try:
            done = _embed_all(log, embedder, progress)
            _change_over(log, folder, embedder, chroma_url)
            return done
        finally:
            log.close()
    finally:
        lock.release()


def _embed_all(log: Log, embedder: Embedder, progress: Callable[[int, int], None] | None) -> int:
    counts = log.counts()
    total = counts["cases"] + counts["decisions"]
    earlier = log.embedded(embedder.id)
    done = after = 0
    while batch := log.texts_without_vector(embedder.id, after=after, limit=BATCH):
        vectors = embedder.embed([text for _, text in batch])
        log.begin()
        log.put_vectors(embedder.id, ((seq, vectors[i].tobytes()) for i, (seq, _) in enumerate(batch)))
        log.commit()
        after = batch[-1][0]
        done += len(batch)
        if progress is not None:
            progress(earlier + done, total)
    return done


def _change_over(log: Log, folder: Path, embedder: Embedder, chroma_url: str | None) -> None:
    old = log.meta("embedder")
    if old == embedder.id:
        return
    if old is not None:  # its collections would lie about for ever
        index = ChromaIndex(folder / "chroma", bank_id=log.meta("bank_id") or "", embedder_id=old, url=chroma_url)
        index.reset(log.namespaces())
        index.close()
    log.begin()
    log.set_meta("embedder", embedder.id)
    log.set_meta("dim", str(embedder.dim))
    log.set_meta("indexed_seq", "0")
    log.drop_vectors_except(embedder.id)
    log.drop_snapshots()
    log.commit()
