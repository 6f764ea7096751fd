"""memento_crawl.extraction: which part of a page is taken for its main content; and the benchmark that measures it."""

import gzip
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from memento_crawl.extraction import extract_page
from support.repository import ROOT

URL = "https://sea.test/2024/tides"
SENTENCES = [
    "The highest tides in the world run in the Bay of Fundy.",
    "At Burntcoat Head the sea rises by sixteen metres twice a day.",
    "Fishermen there tie their boats to ladders and climb down to them at low water.",
]
ARTICLE = "".join(f"<p>{sentence}</p>" for sentence in SENTENCES)
OTHERS = "".join(
    f'<div class="teaser"><a href="/{number}">Another story, number {number}, of something else entirely</a>'
    f"<p>What story {number} is about stands here in a few words of its own, {number} times.</p></div>"
    for number in range(60)
)
ARTICLE_TYPE = '<meta property="og:type" content="article">'


def page(main: str, head: str = "") -> str:
    body = f"<article><h1>Tides</h1>{main}</article><section>{OTHERS}</section>"
    return f"<html><head><title>Tides</title>{head}</head><body>{body}</body></html>"


def test_a_short_article_on_a_page_full_of_other_things_is_the_article_alone() -> None:
    found = extract_page(page(ARTICLE, ARTICLE_TYPE), URL, "main", "markdown")
    assert found["method"] == "main"
    assert all(sentence in found["text"] for sentence in SENTENCES)
    assert "Another story" not in found["text"]


def test_of_a_page_that_is_no_article_more_is_kept_than_a_small_part() -> None:
    found = extract_page(page(ARTICLE), URL, "main", "markdown")
    assert "story 7 is about" in found["text"]


def test_words_are_counted_where_none_are_spaced() -> None:
    """A Chinese paragraph is one run of letters; taken for one word, it would be too little beside any menu."""
    article = "<p>芬迪湾的潮汐是世界上最高的，海水每天两次上涨十六米，渔民们把船系在梯子上，等待退潮。</p>" * 3
    links = "".join(f'<a href="/{number}">{number} link</a> ' for number in range(30))
    found = extract_page(f"<body><main>{article}</main><div>{links}</div></body>", URL, "main", "markdown")
    assert found["method"] == "main"
    assert "芬迪湾" in found["text"]


def test_a_shadow_tree_that_comes_with_the_page_is_read_as_it_is_shown() -> None:
    inner = "<x-y><template shadowrootmode=closed><i>within</i> <slot></slot></template>deep</x-y>"
    slots = "<slot name=a>fallback a</slot> - <slot>fallback</slot> - <slot name=b>fallback b</slot>"
    template = f"<template shadowrootmode=open><h2>Head</h2>{slots} {inner}</template>"
    host = f"<x-x>one {template}two <b>three</b><u slot=a>four</u> five<s slot=c>SIX</s></x-x>"
    found = extract_page(f"<body><p>Before.</p>{host}<p>After.</p></body>", URL, "full", "text")
    shown = "Before. Head four - one two three five - fallback b within deep After."
    assert " ".join(found["text"].split()) == shown


# --- benchmarks/crawl/extraction.py ----------------------------------------------------------------------------------


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    return importlib.import_module("benchmarks.crawl.extraction")


def write(folder: Path, layout: str) -> None:
    (folder / "html").mkdir()
    text = "\n".join(SENTENCES)
    if layout == "pairs":
        (folder / "txt").mkdir()
        (folder / "html/a.html").write_text(page(ARTICLE, ARTICLE_TYPE))
        (folder / "txt/a.txt").write_text(text)
        return
    (folder / "html/a.html.gz").write_bytes(gzip.compress(page(ARTICLE, ARTICLE_TYPE).encode()))
    if layout == "one file":
        (folder / "ground-truth.json").write_text(json.dumps({"a": {"articleBody": text, "url": URL}}))
        return
    (folder / "ground-truth").mkdir()
    truth = {
        "url": URL,
        "_internal": {"page_type": {"primary": "forum"}},
        "ground_truth": {"main_content": text},
    }
    (folder / "ground-truth/a.json").write_text(json.dumps(truth))


@pytest.mark.parametrize("layout", ["pairs", "one file", "one file for each page"])
def test_the_benchmark_reads_each_layout_and_scores_every_extractor(
    bench: Any, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, layout)
    bench.main(tmp_path, Path("/nowhere"))
    rows = {line[:26].strip(): line[26:].split() for line in capsys.readouterr().out.splitlines()[2:]}
    assert float(rows["memento-crawl"][0]) > 0.9
    assert float(rows["the whole page's text"][0]) < 0.5
    assert rows["crawl4ai, fit"] == ["not", "in", "--peers"]
    assert len(rows["memento-crawl"]) == (5 if layout == "one file for each page" else 4)


def test_a_folder_without_data_is_one_line(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has neither"):
        bench.main(tmp_path, Path("/nowhere"))


def test_scores_are_precision_and_recall_of_word_sequences(bench: Any) -> None:
    assert bench.shingle_score("a b c d e", "a b c d e") == (1.0, 1.0)
    assert bench.shingle_score("a b c d e", "a b c d x") == (0.5, 0.5)
    assert bench.shingle_score("", "a b") == (0.0, 0.0)
    assert bench.word_f1("Tide tide", "tide sea") == 0.5
    assert bench.without_marks("see **the [bay](https://a.test/x)**").split() == ["see", "the", "bay"]
