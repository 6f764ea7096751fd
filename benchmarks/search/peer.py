"""One search library over documents in memory, run by the Python of the peers' environment. It imports nothing of ours.

    PYTHON peer.py NAME < {"documents": [[name, text], ...], "questions": [...], "folder": ...}

Prints one JSON object: seconds to build, milliseconds per question, peak resident bytes, and the ten best names of each
question. Peers get the passages ready made; ours has to read files and cut them.
"""

# pyright: basic, reportMissingImports=false
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

Search = Callable[[str], list[str]]
Documents = list[tuple[str, str]]


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def tantivy(documents: Documents) -> Search:
    import tantivy

    schema = tantivy.SchemaBuilder()
    schema.add_text_field("name", stored=True, tokenizer_name="raw")
    schema.add_text_field("text", tokenizer_name="en_stem")
    index = tantivy.Index(schema.build(), path=tempfile.mkdtemp())
    writer = index.writer()
    for name, text in documents:
        writer.add_document(tantivy.Document(name=name, text=text))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def search(question: str) -> list[str]:
        query = index.parse_query(" ".join(words_of(question)), ["text"])
        return [searcher.doc(address)["name"][0] for _, address in searcher.search(query, 10).hits]

    return search


def bm25s(documents: Documents) -> Search:
    import bm25s

    index = bm25s.BM25()
    tokens = bm25s.tokenize([text for _, text in documents], stopwords="en", show_progress=False)
    index.index(tokens, show_progress=False)

    def search(question: str) -> list[str]:
        asked = bm25s.tokenize([question], stopwords="en", show_progress=False)
        return [documents[at][0] for at in index.retrieve(asked, k=10, show_progress=False)[0][0]]

    return search


def rank_bm25(documents: Documents) -> Search:
    import numpy
    from rank_bm25 import BM25Okapi

    index = BM25Okapi([words_of(text) for _, text in documents])

    def search(question: str) -> list[str]:
        scores = index.get_scores(words_of(question))
        return [documents[at][0] for at in numpy.argsort(-scores)[:10]]

    return search


def grep(documents: Documents, folder: str) -> Search:
    """The floor: which files hold most of the words, as a shell can tell. Knows files only, no ranking by rarity."""

    def search(question: str) -> list[str]:
        found: dict[str, int] = {}
        for word in dict.fromkeys(words_of(question)):
            command = ["grep", "-rliwF", "--", word, "."]
            listed = subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout
            for name in listed.splitlines():
                found[name[2:]] = found.get(name[2:], 0) + 1
        return sorted(found, key=lambda name: -found[name])[:10]

    return search


def main() -> None:
    given: dict[str, Any] = json.load(sys.stdin)
    documents: Documents = [(name, text) for name, text in given["documents"]]
    started = time.perf_counter()
    name = sys.argv[1]
    search = grep(documents, given["folder"]) if name == "grep" else globals()[name](documents)
    build_seconds = time.perf_counter() - started
    milliseconds: list[float] = []
    best: list[list[str]] = []
    cpu = sum(os.times()[:4])  # children too: grep is one
    for question in given["questions"]:
        started = time.perf_counter()
        best.append(search(question))
        milliseconds.append((time.perf_counter() - started) * 1000)
    cpu_ms = (sum(os.times()[:4]) - cpu) * 1000 / len(given["questions"])
    # Not getrusage: its peak is inherited from whoever started this process.
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    result = {"build_seconds": build_seconds, "milliseconds": milliseconds, "peak_bytes": peak, "best": best}
    json.dump({**result, "cpu_ms": cpu_ms}, sys.stdout)


if __name__ == "__main__":
    main()
