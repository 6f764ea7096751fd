"""The chromadb index of case vectors and texts: a cache of the log that other tools can read too.

Owns the collections, the catching up after a crash and the one background thread that writes in batches (a single
upsert takes about 35 ms, so no retain waits for it). Nothing here is the truth: a lost or damaged index is rebuilt
from the log. Embedded by default; with a URL it talks to a `chroma run` server instead.

A process killed while chromadb writes leaves files cut off, on which the next one fails or, measured with an empty
`header.bin`, hangs for ever. So a marker lies beside the folder for as long as chromadb is at work.
"""

import hashlib
import logging
import re
import shutil
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from memento_casebank.records import BankError

__all__ = ["ChromaIndex", "IndexRow"]

logger = logging.getLogger(__name__)

BATCH = 1000
"""Rows per upsert; chromadb refuses more than 5461."""

BATCH_SECONDS = 0.5
FIRST_BATCH_SECONDS = 2.0
CLOSE_SECONDS = 60.0
"""Longest wait for the batch being written when the bank is closed; 1,000 rows take about one."""
CLOSE_SERVER_SECONDS = 1.5
"""The same when a server has the files."""

Metadata = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class IndexRow:
    """One case as chromadb holds it."""

    id: str
    namespace: str
    document: str
    vector: NDArray[np.float32]
    metadata: Metadata


class ChromaIndex:
    """Opened at the first write or query, because importing chromadb takes seconds."""

    def __init__(self, folder: Path, *, bank_id: str, embedder_id: str, url: str | None = None) -> None:
        self._folder = folder
        self._marker = folder.with_name(f"{folder.name}.writing") if url is None else None
        self._url = url
        self._bank_id = bank_id
        self._embedder_id = embedder_id
        self._client: Any = None
        self._collections: dict[str, Any] = {}
        self._pending: dict[str, IndexRow] = {}
        self._gate = threading.Lock()  # guards _pending
        self._using = threading.Lock()  # one thread in chromadb at a time
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._closed = False
        self._writer: threading.Thread | None = None
        self._failure: str | None = None

    @property
    def is_open(self) -> bool:
        return self._client is not None

    @property
    def is_clean(self) -> bool:
        """True when nothing waits to be written and nothing is being written."""
        if self._using.acquire(blocking=False):
            try:
                return not self._pending and self._failure is None
            finally:
                self._using.release()
        return False

    @property
    def failure(self) -> str | None:
        """Why the last background write failed; None: it did not. The log has the rows, `rebuild` brings them back."""
        return self._failure

    @property
    def was_interrupted(self) -> bool:
        """True when the last process failed or ended in the middle of chromadb: its files are not to be opened again.

        To be asked before the first use; `reset` is the answer.
        """
        return self._marker is not None and self._marker.exists()

    def put(self, rows: Iterable[IndexRow]) -> None:
        """Queue rows to be written soon by the background thread; a row replaces an earlier one of the same id."""
        with self._gate:
            for row in rows:
                self._pending[row.id] = row
        self._wake.set()
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_on, name="casebank-index", daemon=True)
            self._writer.start()

    def flush(self) -> None:
        """Write what is queued before returning.

        Raises:
            BankError: chromadb cannot be opened or reached, or failed.
        """
        try:
            self._write_queued()
        except BankError:
            raise
        except Exception as exc:  # chromadb raises many kinds, from several languages
            raise BankError(
                f"The chromadb index could not be written ({type(exc).__name__}: {exc}). Every case is in the log; "
                "`memento-casebank rebuild` makes the index anew."
            ) from exc

    def _write_queued(self) -> None:
        with self._use():
            while batch := self._take(BATCH):
                try:
                    self._upsert(batch)
                except BaseException:
                    self._put_back(batch)
                    raise
                if self._stop.is_set():
                    return

    def query(self, namespace: str, vector: NDArray[np.float32], limit: int) -> list[tuple[str, float]]:
        """Return (case id, cosine) of the nearest rows of a namespace, best first (approximate: HNSW)."""
        with self._use():
            reply = self._collection(namespace).query(query_embeddings=[vector], n_results=limit, include=["distances"])
        return [(str(i), 1.0 - float(d)) for i, d in zip(reply["ids"][0], reply["distances"][0], strict=True)]

    def ids(self, namespace: str) -> set[str]:
        """All ids the index holds of a namespace."""
        with self._use():
            return set(self._collection(namespace).get(include=[])["ids"])

    def count(self, namespace: str) -> int:
        with self._use():
            return int(self._collection(namespace).count())

    def reset(self, namespaces: Iterable[str]) -> None:
        """Drop everything this bank has in the index, to be filled again with `put`.

        An embedded index is removed from the disk, so that a damaged one is mended too.
        """
        with self._gate:
            self._pending.clear()
        with self._using:
            self._collections.clear()
            if self._url is None:
                self._close_client()
                shutil.rmtree(self._folder, ignore_errors=True)
                self._unmark()
                return
            client = self._open()
            wanted = {self._collection_name(namespace) for namespace in namespaces}
            for collection in client.list_collections():
                if collection.name in wanted:
                    client.delete_collection(collection.name)

    def close(self) -> None:
        """Stop the background thread after the batch it is at; the rest is caught up at the next open.

        The files of an embedded index belong to whoever holds the bank's lock, so that thread is waited for.
        """
        self._stop.set()
        self._wake.set()
        if self._writer is not None:
            self._writer.join(CLOSE_SECONDS if self._url is None else CLOSE_SERVER_SECONDS)
        # A call of `flush` may be in another thread, whose task is gone.
        if not self._using.acquire(timeout=CLOSE_SECONDS if self._url is None else CLOSE_SERVER_SECONDS):
            # In the middle of chromadb: closing under it would be worse than not closing.
            logger.error("the chromadb index is still being written at the end; the next opening looks after it")
            return
        try:
            self._closed = True
            self._close_client()
        finally:
            self._using.release()

    @contextmanager
    def _use(self) -> Generator[None]:
        """Have chromadb to oneself, opened, with the marker lying there meanwhile, and after a failure for good."""
        with self._using:
            if self._closed:
                raise BankError("The bank is closed.")
            self._open()
            if self._marker is not None:
                self._marker.touch()
            yield
            self._unmark()

    def _unmark(self) -> None:
        if self._marker is not None:
            self._marker.unlink(missing_ok=True)

    def _close_client(self) -> None:
        if self._client is None:
            return
        shared, own = self._client._server, self._client._admin_client._server
        self._client.close()
        self._client = None
        self._collections.clear()
        # chromadb 1.5 stops its HTTP api with the last client in the process, but leaves its sockets open.
        for api in (own, *([] if shared._running else [shared])):
            if (session := getattr(api, "_session", None)) is not None:
                session.close()

    def _take(self, count: int) -> list[IndexRow]:
        with self._gate:
            keys = list(self._pending)[:count]
            return [self._pending.pop(key) for key in keys]

    def _put_back(self, rows: list[IndexRow]) -> None:
        with self._gate:
            self._pending = {row.id: row for row in rows} | self._pending

    def _write_on(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            # Gather a batch; before the first one wait longer, for a process that is about to end anyway.
            stopping = self._stop.wait(BATCH_SECONDS if self.is_open else FIRST_BATCH_SECONDS)
            if stopping and not self.is_open:
                return
            try:
                self._write_queued()
                self._failure = None
            except Exception as exc:  # the edge of this thread; the log still has every row
                self._failure = f"{type(exc).__name__}: {exc}"
                logger.exception("the chromadb index could not be written; `memento-casebank rebuild` restores it")
            if self._stop.is_set():
                return

    def _upsert(self, rows: list[IndexRow]) -> None:
        by_namespace: dict[str, list[IndexRow]] = {}
        for row in rows:
            by_namespace.setdefault(row.namespace, []).append(row)
        for namespace, part in by_namespace.items():
            self._collection(namespace).upsert(
                ids=[row.id for row in part],
                documents=[row.document for row in part],
                embeddings=[row.vector for row in part],
                metadatas=[dict(row.metadata) for row in part],
            )

    def _collection(self, namespace: str) -> Any:
        if namespace not in self._collections:
            self._collections[namespace] = self._open().get_or_create_collection(
                self._collection_name(namespace),
                metadata={"namespace": namespace, "bank": self._bank_id, "embedder": self._embedder_id},
                configuration={"hnsw": {"space": "cosine"}},
                embedding_function=None,
            )
        return self._collections[namespace]

    def _collection_name(self, namespace: str) -> str:
        """Unique per bank, namespace and embedder; chromadb allows [a-zA-Z0-9._-] only."""
        readable = re.sub(r"[^a-zA-Z0-9]+", "-", namespace).strip("-")[:40] or "ns"
        digest = hashlib.blake2b(f"{namespace}\0{self._embedder_id}".encode(), digest_size=6).hexdigest()
        return f"memento-{self._bank_id[-8:]}-{readable}-{digest}"

    def _open(self) -> Any:
        if self._client is None:
            import chromadb
            from chromadb.config import Settings

            quiet = Settings(anonymized_telemetry=False)
            if self._url is None:
                self._client = chromadb.PersistentClient(str(self._folder), settings=quiet)
            else:
                parts = urlsplit(self._url)
                secure = parts.scheme == "https"
                try:
                    self._client = chromadb.HttpClient(
                        host=parts.hostname or "localhost",
                        port=parts.port or (443 if secure else 8000),
                        ssl=secure,
                        settings=quiet,
                    )
                except ValueError as exc:
                    raise BankError(
                        f"There is no chroma server at {self._url} ({exc}); start one with `chroma run --path FOLDER` "
                        "or unset MEMENTO_CASEBANK_CHROMA_URL"
                    ) from exc
        return self._client
