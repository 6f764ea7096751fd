"""F1 of the main text on a labelled set of pages, beside other extractors in the same run.

The data is somebody else's and stays outside the repository. Three layouts are read:

- `ground-truth.json` and `html/NAME.html.gz`: scrapinghub/article-extraction-benchmark, scored by word 4-grams
  (precision and recall averaged over pages, F1 of the averages);
- `ground-truth/NAME.json` and `html/NAME.html.gz`: the web content extraction benchmark (WCXB), by words, F1 averaged
  over pages, and for each page type;
- `html/NAME.html` and `txt/NAME.txt`: pairs, scored as the first.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import anyio

from benchmarks.crawl.probes import converter
from memento_crawl.charset import decode_page
from memento_crawl.extraction import EXTRACT, extract_page
from memento_kit.worker_process import WorkerPool

_URL = "https://page.test/"


@dataclass(frozen=True)
class Labelled:
    html: str
    text: str
    url: str = _URL
    kind: str = "all"


@dataclass(frozen=True)
class DataSet:
    pages: dict[str, Labelled]
    is_by_words: bool


def load(folder: Path) -> DataSet:
    """Read one of the three layouts.

    Raises:
        SystemExit: the folder has none of them.
    """
    if (folder / "ground-truth.json").is_file():
        truth: dict[str, Any] = json.loads((folder / "ground-truth.json").read_text("utf-8"))
        whole = {
            name: Labelled(_html(folder / f"html/{name}.html.gz"), one["articleBody"], one.get("url") or _URL)
            for name, one in truth.items()
        }
        return DataSet(whole, is_by_words=False)
    if (folder / "ground-truth").is_dir():
        found: dict[str, Labelled] = {}
        for file in sorted((folder / "ground-truth").glob("*.json")):
            one: dict[str, Any] = json.loads(file.read_text("utf-8"))
            place = folder / f"html/{file.stem}.html.gz"
            if place.is_file():
                kind = one["_internal"]["page_type"]["primary"]
                found[file.stem] = Labelled(_html(place), one["ground_truth"]["main_content"], one["url"], kind)
        return DataSet(found, is_by_words=True)
    pairs = [
        (file, folder / f"txt/{file.stem}.txt")
        for file in sorted((folder / "html").glob("*.html"))
        if (folder / f"txt/{file.stem}.txt").is_file()
    ]
    if not pairs:
        raise SystemExit(f"{folder} has neither ground-truth.json nor ground-truth/ nor html/ and txt/")
    return DataSet({h.stem: Labelled(_html(h), t.read_text("utf-8")) for h, t in pairs}, is_by_words=False)


def _html(file: Path) -> str:
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return decode_page(data, "text/html").text


def shingle_score(found: str, wanted: str, size: int = 4) -> tuple[float, float]:
    """Precision and recall of the word `size`-grams, as multisets; 1 where both texts are empty."""
    have, want = _shingles(found, size), _shingles(wanted, size)
    common = sum((have & want).values())
    precision = common / sum(have.values()) if have else float(not want)
    return precision, common / sum(want.values()) if want else float(not have)


def _shingles(text: str, size: int) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    length = min(size, len(words)) or 1
    return Counter(tuple(words[at : at + length]) for at in range(len(words) - length + 1) if words)


def word_f1(found: str, wanted: str) -> float:
    """F1 of the lower-cased words, as multisets."""
    precision, recall = shingle_score(found.lower(), wanted.lower(), 1)
    return _f1(precision, recall)


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def without_marks(markdown: str) -> str:
    """Markdown's text, so that addresses of links do not count as words."""
    return re.sub(r"[*_`#|>\[\]]", " ", re.sub(r"\]\([^)\s]*\)", "] ", markdown))


def main(folder: Path, peers: Path) -> None:
    data = load(folder)
    print(f"{len(data.pages)} pages of {folder}, {'words' if data.is_by_words else 'word 4-grams'}")
    anyio.run(_run, data, peers)


async def _run(data: DataSet, peers: Path) -> None:
    kinds = sorted({page.kind for page in data.pages.values()}) if data.is_by_words else []
    print(f"{'extractor':26}{'F1':>8}{'P':>8}{'R':>8}{'chars':>9}" + "".join(f"{kind[:10]:>11}" for kind in kinds))
    _show("memento-crawl", await _ours(data), data, kinds)
    _show("memento-crawl, Markdown", await _ours(data, markdown=True), data, kinds)
    for name, extract in _LIBRARIES.items():
        try:
            _show(name, {key: extract(page.html) for key, page in data.pages.items()}, data, kinds)
        except ImportError:
            print(f"{name:26}   not installed")
    for name, place, peer in (
        ("mcp-server-fetch, no node", "fetch", "fetch-markdown"),
        ("crawl4ai, fit", "crawl4ai", "fit-markdown"),
        ("crawl4ai, raw", "crawl4ai", "raw-markdown"),
    ):
        python = peers / place / "bin/python"
        if not python.exists():
            print(f"{name:26}   not in --peers")
            continue
        async with converter(python, peer) as convert:
            _show(name, {key: without_marks(await convert(page.html)) for key, page in data.pages.items()}, data, kinds)


async def _ours(data: DataSet, *, markdown: bool = False) -> dict[str, str]:
    """As the server does it: in worker processes, since the extractor is not to be trusted with threads."""
    found: dict[str, str] = {}
    async with WorkerPool(EXTRACT, size=2, timeout_seconds=60, max_memory_bytes=3_000_000_000) as workers:

        async def extract(key: str, page: Labelled) -> None:
            arguments = {"html": page.html, "url": page.url, "content": "main"}
            text: str = (await workers.call({**arguments, "format": "markdown" if markdown else "text"}))["text"]
            found[key] = without_marks(text) if markdown else text

        async with anyio.create_task_group() as tasks:
            for key, page in data.pages.items():
                tasks.start_soon(extract, key, page)
    return found


def _show(name: str, found: dict[str, str], data: DataSet, kinds: list[str]) -> None:
    pairs = [(found[key], page) for key, page in data.pages.items()]
    scores = [shingle_score(text, page.text, 1 if data.is_by_words else 4) for text, page in pairs]
    precision, recall = mean(score[0] for score in scores), mean(score[1] for score in scores)
    f1 = mean(word_f1(text, page.text) for text, page in pairs) if data.is_by_words else _f1(precision, recall)
    chars = mean(len(text) for text, _ in pairs)
    by_kind = [mean(word_f1(text, page.text) for text, page in pairs if page.kind == kind) for kind in kinds]
    row = f"{name:26}{f1:8.3f}{precision:8.3f}{recall:8.3f}{chars:9.0f}"
    print(row + "".join(f"{each:11.3f}" for each in by_kind), flush=True)


def _trafilatura(*, precise: bool = False) -> Callable[[str], str]:
    def extract(html: str) -> str:
        import trafilatura

        return trafilatura.extract(html, include_comments=False, favor_precision=precise) or ""

    return extract


def _whole(html: str) -> str:
    return str(extract_page(html, _URL, "full", "text")["text"])


_LIBRARIES: dict[str, Callable[[str], str]] = {
    "trafilatura": _trafilatura(),
    "trafilatura, precision": _trafilatura(precise=True),
    "the whole page's text": _whole,
}
