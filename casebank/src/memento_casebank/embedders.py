"""Texts to vectors, behind one interface: `Embedder`.

Owns how a text becomes a unit vector, and the name under which a bank remembers who made its vectors. It does
not store or compare vectors. An embedder that needs the network or a model download is one that was asked for
by name; the default needs neither.
"""

import functools
import importlib
import itertools
import math
import os
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memento_casebank.records import EmbedderError
from memento_kit.model_use import note_model_use

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "EMBEDDERS",
    "Embedder",
    "EmbedderError",
    "HashingEmbedder",
    "MiniLMEmbedder",
    "OpenAIEmbedder",
    "SentenceTransformersEmbedder",
    "make_embedder",
    "tokenize",
]

Vectors = NDArray[np.float32]

_WORD = re.compile(r"[^\W_]+")
_STOP_TEXT = """
a about after all also am an and any are as at be been before being but by can could did do does for from get got had
has have he her here him his how i if in into is it its just me more most my no nor not of on or our out over own she
should so some such than that the their them then there these they this those to too under up us very was we were what
when where which while who whom whose why will with would you your
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())


class Embedder(Protocol):
    """Turns texts into unit vectors. The same text always gives the same vector while a bank is open."""

    @property
    def id(self) -> str:
        """Name and version, stored with the bank: vectors of different ids must never be compared."""
        ...

    @property
    def dim(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors (N, dim). Blocking: callers on an event loop run it in a thread.

        Raises:
            EmbedderError: the model or endpoint could not be used.
        """
        ...


def tokenize(text: str) -> list[str]:
    """Lower-cased words of `text` in order, in any script; what dense hashing and BM25 both count."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def is_stop_word(word: str) -> bool:
    """True for English function words, which say little about what a task is."""
    return word in _STOP_WORDS


class HashingEmbedder:
    """Words, word pairs and character n-grams, hashed into `dim` signed buckets. Offline, no fit, no state.

    Because nothing is fitted, a vector never changes as the bank grows: a stream can be replayed exactly. The
    price is that only spelling counts; synonyms are strangers. A fixed stop-word list and word length stand in
    for the inverse document frequency that a fitted model would have.
    """

    _WORD_WEIGHT = 0.5  # beside its n-grams, which say the same and tolerate inflection
    _PAIR_WEIGHT = 0.25
    _STOP_WEIGHT = 0.5
    _LENGTH_WEIGHT = 0.1  # per character up to 10: long words are rarer, so they tell more
    _NGRAM_SIZES = (3, 4, 5)
    _BUCKETS_PER_FEATURE = 4  # spreads collisions: two features that share one bucket still differ in three
    _MAX_WORDS = 2_000  # a task text, not a document: bounds the time spent on a pasted file

    def __init__(self, dim: int = 512) -> None:
        self._dim = dim
        self._word_vector: Callable[[str], Vectors] = functools.lru_cache(maxsize=20_000)(self._make_word_vector)

    @property
    def id(self) -> str:
        return f"hashing-2/{self._dim}"

    @property
    def dim(self) -> int:
        return self._dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors (N, dim); a text without a single word gives the zero vector, similar to nothing."""
        return np.stack([self._embed_one(text) for text in texts]) if texts else np.zeros((0, self._dim), np.float32)

    def _embed_one(self, text: str) -> Vectors:
        words = tokenize(text)[: self._MAX_WORDS]
        total = np.zeros(self._dim, np.float32)
        for word, count in Counter(words).items():
            total += np.float32(1.0 + math.log(count)) * self._word_vector(word)
        for first, second in itertools.pairwise(words):
            self._add(total, f"2 {first} {second}", self._PAIR_WEIGHT)
        norm = float(np.linalg.norm(total))
        return total / np.float32(norm) if norm > 0 else total

    def _make_word_vector(self, word: str) -> Vectors:
        vector = np.zeros(self._dim, np.float32)
        self._add(vector, f"1 {word}", self._WORD_WEIGHT)
        padded = f"<{word}>"
        grams = [padded[i : i + n] for n in self._NGRAM_SIZES for i in range(len(padded) - n + 1)]
        for gram in grams:
            self._add(vector, f"g {gram}", 1.0 / math.sqrt(len(grams)))
        weight = 1.0 + self._LENGTH_WEIGHT * min(len(word), 10)
        return vector * np.float32(weight * (self._STOP_WEIGHT if word in _STOP_WORDS else 1.0))

    def _add(self, vector: Vectors, feature: str, weight: float) -> None:
        """Add one feature at its signed buckets. CRC-32 is stable across processes, unlike `hash`."""
        state = zlib.crc32(feature.encode()) | (len(feature) << 32)
        for _ in range(self._BUCKETS_PER_FEATURE):
            state = _mix(state + 1)
            vector[state % self._dim] += weight if state >> 63 else -weight


def _mix(value: int) -> int:
    """Spread 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFF_FFFF_FFFF_FFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFF_FFFF_FFFF_FFFF
    return value ^ (value >> 31)


class OpenAIEmbedder:
    """Any endpoint that speaks OpenAI's `POST /embeddings` (OpenAI, Ollama, vLLM, llama.cpp, …)."""

    _BATCH = 128  # texts per request; the smallest limit among the servers named above is 256
    _MAX_CHARS = 8_000  # about 2,000 tokens; endpoints reject longer inputs instead of cutting them

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | None = None,
        dim: int | None = None,
        timeout_seconds: float = 30.0,
        transport: "httpx2.BaseTransport | None" = None,
    ) -> None:
        import httpx2

        self._model = model
        self._requested_dim = dim
        self._dim = dim
        key = api_key or os.environ.get("OPENAI_API_KEY", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(
            base_url=base_url.rstrip("/") + "/", headers=headers, timeout=timeout_seconds, transport=transport
        )

    @property
    def id(self) -> str:
        return f"openai:{self._model}/{self.dim}"

    @property
    def dim(self) -> int:
        """The vectors' length; asks the endpoint once when it was not configured."""
        if self._dim is None:
            self._dim = int(self.embed(["dimension"]).shape[1])
        return self._dim

    def close(self) -> None:
        self._http.close()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors (N, dim), in as many requests as needed.

        Raises:
            EmbedderError: the endpoint cannot be reached, refuses, or answers something else.
        """
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        parts = [self._request(texts[i : i + self._BATCH]) for i in range(0, len(texts), self._BATCH)]
        return _unit(np.concatenate(parts))

    def _request(self, texts: Sequence[str]) -> Vectors:
        import httpx2

        body: dict[str, Any] = {"model": self._model, "input": [text[: self._MAX_CHARS] or " " for text in texts]}
        if self._requested_dim is not None:
            body["dimensions"] = self._requested_dim
        where = f"the embeddings endpoint {self._http.base_url}embeddings"
        try:
            reply = self._http.post("embeddings", json=body)
            reply.raise_for_status()
            answer = reply.json()
            note_model_use(self._model, str(self._http.base_url), answer, writes=False)
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = np.asarray([row["embedding"] for row in rows], np.float32)
        except httpx2.HTTPStatusError as exc:
            raise EmbedderError(
                f"{where} answered {exc.response.status_code}; check MEMENTO_CASEBANK_EMBEDDER_URL, "
                f"MEMENTO_CASEBANK_EMBEDDER_MODEL ({self._model!r}) and the API key"
            ) from exc
        except httpx2.HTTPError as exc:
            raise EmbedderError(f"{where} cannot be reached ({exc}); check MEMENTO_CASEBANK_EMBEDDER_URL") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise EmbedderError(f"{where} did not answer with embeddings; is it an OpenAI-compatible server?") from exc
        if vectors.shape[0] != len(texts) or vectors.ndim != 2:
            raise EmbedderError(f"{where} answered {vectors.shape} vectors for {len(texts)} texts")
        if self._dim is not None and vectors.shape[1] != self._dim:
            raise EmbedderError(f"{where} answered {vectors.shape[1]} dimensions instead of {self._dim}")
        return vectors


class MiniLMEmbedder:
    """all-MiniLM-L6-v2 as ONNX, through chromadb. The model (80 MB) is downloaded at the first use."""

    id = "minilm-l6-v2/384"
    dim = 384

    def __init__(self) -> None:
        self._model: Any = None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors (N, 384).

        Raises:
            EmbedderError: the model is not on this machine and could not be downloaded.
        """
        if self._model is None:
            from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

            self._model = ONNXMiniLM_L6_V2()
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        try:
            vectors: Any = self._model(list(texts))
        except Exception as exc:
            raise EmbedderError(
                f"the MiniLM model could not be loaded or downloaded ({exc}); "
                "connect once, or use MEMENTO_CASEBANK_EMBEDDER=hashing"
            ) from exc
        return _unit(np.asarray(vectors, np.float32))


class SentenceTransformersEmbedder:
    """Any model that the `sentence-transformers` package loads, by name (downloaded at first) or folder."""

    def __init__(self, model: str = "all-MiniLM-L6-v2") -> None:
        """Load the model.

        Raises:
            EmbedderError: the extra is not installed, or there is no such model here or on the hub.
        """
        try:
            library: Any = importlib.import_module("sentence_transformers")
        except ImportError as exc:
            raise EmbedderError(
                "the embedder 'sentence-transformers' needs its extra: "
                "pip install 'memento-casebank[sentence-transformers]'"
            ) from exc
        self._name = model
        try:
            self._model: Any = library.SentenceTransformer(model)
        except (OSError, ValueError) as exc:  # not on this machine and no network; not a model
            raise EmbedderError(
                f"sentence-transformers cannot load the model {model!r} ({str(exc).splitlines()[0]}); set "
                "MEMENTO_CASEBANK_EMBEDDER_MODEL to a name on the Hugging Face hub or to a folder with a model"
            ) from exc
        self.dim = int(self._model.encode(["dimension"]).shape[1])

    @property
    def id(self) -> str:
        return f"sentence-transformers:{self._name}/{self.dim}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors (N, dim)."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return _unit(np.asarray(self._model.encode(list(texts), convert_to_numpy=True), np.float32))


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, np.float32(1e-12))


EMBEDDERS = ("hashing", "openai", "minilm", "sentence-transformers")
"""The names that `make_embedder` and MEMENTO_CASEBANK_EMBEDDER accept."""


def make_embedder(
    name: str = "hashing",
    *,
    model: str = "",
    base_url: str = "",
    api_key: str | None = None,
    dim: int | None = None,
    timeout_seconds: float = 30.0,
) -> Embedder:
    """Make an embedder by name; empty arguments mean that embedder's own default.

    Raises:
        EmbedderError: the extra it needs is not installed.
        ValueError: there is no embedder of that name.
    """
    if name == "hashing":
        return HashingEmbedder(dim) if dim else HashingEmbedder()
    if name == "openai":
        return OpenAIEmbedder(
            model or "text-embedding-3-small",
            base_url=base_url or "https://api.openai.com/v1",
            api_key=api_key,
            dim=dim,
            timeout_seconds=timeout_seconds,
        )
    if name == "minilm":
        return MiniLMEmbedder()
    if name == "sentence-transformers":
        return SentenceTransformersEmbedder(model or "all-MiniLM-L6-v2")
    raise ValueError(f"There is no embedder {name!r}; there are: {', '.join(EMBEDDERS)}.")
