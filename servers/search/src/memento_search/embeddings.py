"""How near texts are to a question by meaning, as an OpenAI-compatible embeddings endpoint sees it.

Owns the request, and the vectors already paid for: one SQLite file, a vector for each model and text. It ranks nothing.
Request and answer: https://platform.openai.com/docs/api-reference/embeddings/create
"""

import hashlib
import json
import math
import sqlite3
import time
from array import array
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from operator import mul
from pathlib import Path
from typing import Any

from anyio import to_thread

from memento_kit.model_use import note_model_use
from memento_kit.safe_http import HttpLimits, HttpTimedOut, SafeHttp, SafeHttpError

__all__ = ["EmbeddingFailed", "Embeddings"]

_MAX_CHARS = 2000
"""Of a text, what is sent: small models read no more than about 500 tokens."""
_MAX_VECTORS = 20_000
_BUSY_SECONDS = 5.0


class EmbeddingFailed(Exception):
    """The endpoint gave no usable vectors. The message says why, in our own words."""


class Embeddings:
    """Any number of questions at once."""

    def __init__(
        self, http: SafeHttp, url: str, model: str, key: str | None, file: Path, *, timeout_seconds: float
    ) -> None:
        self._http = http
        self._url = f"{url.rstrip('/')}/embeddings"
        self._model = model
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._file = file
        self._limits = HttpLimits(total_seconds=timeout_seconds, max_body_bytes=20_000_000, max_redirects=0)

    async def similarities(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return the cosine, -1 to 1, between the question and each of `texts`; one request, for what is not known yet.

        Raises:
            EmbeddingFailed: there are no vectors.
        """
        wanted = [text[:_MAX_CHARS] for text in [question, *texts]]
        keys = [hashlib.sha256(f"{self._model}\0{text}".encode("utf-8", "replace")).digest() for text in wanted]
        known = await to_thread.run_sync(self._known, keys)
        missing = {key: text for key, text in zip(keys, wanted, strict=True) if key not in known}
        if missing:
            vectors = await self._ask(list(missing.values()))
            new = dict(zip(missing, vectors, strict=True))
            await to_thread.run_sync(self._keep, new)
            known = {**known, **new}
        first, *others = [known[key] for key in keys]
        if any(len(other) != len(first) for other in others):
            raise EmbeddingFailed("gave vectors of several lengths for one model")
        return [sum(map(mul, first, other)) for other in others]

    async def _ask(self, texts: list[str]) -> list[Sequence[float]]:
        body = {"model": self._model, "input": texts, "encoding_format": "float"}
        try:
            answer = await self._http.fetch(
                self._url, method="POST", headers=self._headers, json=body, limits=self._limits
            )
        except HttpTimedOut:
            raise EmbeddingFailed("did not answer in time") from None
        except SafeHttpError:
            raise EmbeddingFailed("cannot be reached") from None
        if answer.status != 200:
            raise EmbeddingFailed(f"answered HTTP {answer.status}")
        try:
            told = json.loads(answer.body)
            note_model_use(self._model, self._url.removesuffix("/embeddings"), told, writes=False)
            data: list[Any] = sorted(told["data"], key=lambda each: each["index"])
            vectors = [_unit(each["embedding"]) for each in data]
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            raise EmbeddingFailed("answered, but not in its format") from None
        if len(vectors) != len(texts):
            raise EmbeddingFailed(f"gave {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, Sequence[float]]:
        try:
            with self._connection() as db:
                marks = ",".join("?" * len(keys))
                rows = db.execute(f"SELECT key, vector FROM vector WHERE key IN ({marks})", keys).fetchall()
                now = time.time()
                db.executemany("UPDATE vector SET used = ? WHERE key = ?", [(now, key) for key, _ in rows])
                return {key: array("f", vector) for key, vector in rows}
        except (sqlite3.Error, OSError, ValueError):  # without what was kept it costs a request more, and nothing worse
            return {}

    def _keep(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        try:
            with self._connection() as db:
                now = time.time()
                rows = [(key, array("f", vector).tobytes(), now) for key, vector in vectors.items()]
                db.executemany("INSERT OR REPLACE INTO vector VALUES (?, ?, ?)", rows)
                db.execute(
                    "DELETE FROM vector WHERE key IN (SELECT key FROM vector ORDER BY used DESC LIMIT -1 OFFSET ?)",
                    (_MAX_VECTORS,),
                )
        except (sqlite3.Error, OSError):
            return

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        db = sqlite3.connect(self._file, timeout=_BUSY_SECONDS)
        try:
            with db:
                db.execute("CREATE TABLE IF NOT EXISTS vector (key BLOB PRIMARY KEY, vector BLOB, used REAL)")
                yield db
        finally:
            db.close()


def _unit(vector: Sequence[float]) -> Sequence[float]:
    length = math.sqrt(sum(each * each for each in vector))
    if not vector or not math.isfinite(length) or not length:
        raise ValueError("no direction")
    return array("f", (each / length for each in vector))
