"""What the search benchmark searches: files to index, and questions with the file or files that answer each.

Owns the corpora and their protocol; it measures nothing. Every corpus is the same again on the same machine.
"""

import ast
import csv
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Corpus", "banking", "docstrings", "made", "own_folder"]

WORDS = 60_000
PASSAGES_PER_FILE = 20
WORDS_PER_PASSAGE = 90
WORDS_PER_QUESTION = 6


@dataclass(frozen=True)
class Corpus:
    """`documents` are what peers index, one each: (name, text). Ours indexes files in `folder`.

    A name is `file` or `file#heading`; `questions` are (words, names of the documents that answer).
    """

    folder: Path
    documents: Sequence[tuple[str, str]]
    questions: Sequence[tuple[str, frozenset[str]]]


def made(folder: Path, passages: int, questions: int, seed: int = 0) -> Corpus:
    """Passages of words drawn by Zipf's law, twenty to a Markdown file; a question is six words out of one of them."""
    rng = random.Random(seed)
    words = sorted({"".join(rng.choices("aeioubcdfglmnprstv", k=rng.randint(3, 10))) for _ in range(WORDS)})
    rng.shuffle(words)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    documents: list[tuple[str, str]] = []
    for number in range(passages):
        text = " ".join(rng.choices(words, cum_weights=weights, k=WORDS_PER_PASSAGE))
        documents.append((f"f{number // PASSAGES_PER_FILE}.md#Part {number}", text))
    for start in range(0, passages, PASSAGES_PER_FILE):
        parts = [
            f"# {name.partition('#')[2]}\n\n{text}\n" for name, text in documents[start : start + PASSAGES_PER_FILE]
        ]
        (folder / f"f{start // PASSAGES_PER_FILE}.md").write_text("\n".join(parts), encoding="utf-8")
    asked = [
        (" ".join(rng.sample(text.split(), WORDS_PER_QUESTION)), frozenset([name]))
        for name, text in rng.sample(documents, questions)
    ]
    return Corpus(folder, documents, asked)


def docstrings(folder: Path, packages: Path, questions: int, seed: int = 0) -> Corpus:
    """Known items in real prose: a docstring's summary line is the question, the rest of that docstring the answer.

    Every public docstring below `packages` with a summary of 4 to 20 words and at least 25 words after it, one text
    file each, the summary left out; of equal ones only the first. Nobody here wrote them. Only the very docstring
    counts as right, though another may answer as well, so the figure is a lower bound.
    """
    found: dict[str, str] = {}
    for file in sorted(packages.rglob("*.py")):
        for docstring in _docstrings_of(file):
            summary, _, rest = docstring.partition("\n\n")
            summary = " ".join(summary.split())
            if 4 <= len(summary.split()) <= 20 and len(rest.split()) >= 25:
                found.setdefault(rest, summary)
    documents = [(f"d{number}.txt", text) for number, text in enumerate(found)]
    for name, text in documents:
        (folder / name).write_text(text, encoding="utf-8")
    counts: dict[str, int] = {}
    for summary in found.values():
        counts[summary] = counts.get(summary, 0) + 1
    telling = [
        (summary, frozenset([name]))
        for (name, _), summary in zip(documents, found.values(), strict=True)
        if counts[summary] == 1
    ]
    return Corpus(folder, documents, random.Random(seed).sample(telling, min(questions, len(telling))))


def banking(folder: Path, file: Path, questions: int, seed: int = 0) -> Corpus:
    """Utterances of bank customers (banking77): a held-out one asks, and any of the same intent is right."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(lines)]
    random.Random(seed).shuffle(rows)
    asked, kept = rows[:questions], rows[questions:]
    documents = [(f"u{number}.txt", text) for number, (text, _) in enumerate(kept)]
    for name, text in documents:
        (folder / name).write_text(text, encoding="utf-8")
    of_intent: dict[str, set[str]] = {}
    for (name, _), (_, intent) in zip(documents, kept, strict=True):
        of_intent.setdefault(intent, set()).add(name)
    return Corpus(folder, documents, [(text, frozenset(of_intent[intent])) for text, intent in asked])


def own_folder(folder: Path, questions: int, seed: int = 0) -> Corpus:
    """A folder of the caller's: questions are six words out of one of its text files, and that file is right."""
    documents = [
        (str(path.relative_to(folder)), path.read_text(encoding="utf-8", errors="replace"))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".md", ".txt", ".rst", ".py", ".html", ".csv")
    ]
    rng = random.Random(seed)
    asked: list[tuple[str, frozenset[str]]] = []
    for name, text in rng.sample(documents, min(questions, len(documents))):
        words = sorted(set(re.findall(r"[A-Za-z]{4,}", text)))
        if len(words) >= WORDS_PER_QUESTION:
            asked.append((" ".join(rng.sample(words, WORDS_PER_QUESTION)), frozenset([name])))
    return Corpus(folder, documents, asked)


def _docstrings_of(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring
