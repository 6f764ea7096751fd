"""How fast, how large and how good search_files is, beside search libraries; and how long a web search waits.

    .venv/bin/python -m benchmarks.search [made] [docstrings] [banking] [web]   which parts; all but banking by default
        --passages 100000        size of the corpus that `made` makes
        --folder PATH            a folder of your own instead of the made corpus
        --banking PATH           banking77 as CSV (text, category): same-intent retrieval
        --peers PYTHON           an environment with tantivy, bm25s and rank-bm25; without it only grep is beside us
        --questions 300  --json

Peers get passages ready made and keep them in memory; ours is the real server over stdio: it reads files, cuts and
stores them, looks for changes at every call, and sends text and JSON back.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import anyio

from benchmarks.search import corpora, web
from benchmarks.search.corpora import Corpus
from benchmarks.search.files import PEERS, Row, measure_ours, measure_peer

GOAL_P95_MS = 50
FEWER = {"rank_bm25": 50, "grep": 20}
"""Questions for those that take seconds for each."""


def main() -> None:
    args = _arguments()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        for part in args.parts:
            if part == "web":
                results[part] = _web(args.rounds)
                continue
            folder = Path(scratch) / part
            folder.mkdir()
            corpus = _corpora(args)[part](folder)
            if not corpus.questions:
                sys.exit(f"{part}: no question could be made from {corpus.folder}")
            print(f"{part}: {len(corpus.documents)} documents, {len(corpus.questions)} questions", file=sys.stderr)
            rows = [anyio.run(measure_ours, corpus, Path(scratch))]
            for peer in PEERS:
                if peer == "grep" or args.peers:
                    print(f"{part}: {peer}", file=sys.stderr)
                    python = Path(sys.executable) if peer == "grep" else args.peers
                    rows.append(measure_peer(peer, python, corpus, FEWER.get(peer, len(corpus.questions))))
            results[part] = [asdict(row) for row in rows]
            if not args.json:
                _print(part, corpus, rows)
    if args.json:
        print(json.dumps({"machine": _machine(), **results}, indent=1))
    else:
        print(_machine())


def _corpora(args: argparse.Namespace) -> dict[str, Callable[[Path], Corpus]]:
    questions: int = args.questions
    return {
        "made": lambda folder: (
            corpora.own_folder(args.folder, questions)
            if args.folder
            else corpora.made(folder, args.passages, questions)
        ),
        "docstrings": lambda folder: corpora.docstrings(folder, args.packages, questions),
        "banking": lambda folder: corpora.banking(folder, args.banking, questions),
    }


def _print(part: str, corpus: Corpus, rows: list[Row]) -> None:
    print(f"\n{part}: {len(corpus.documents)} documents, {len(corpus.questions)} questions")
    columns = ("build", "peak", "p50", "p95", "CPU each", "recall@10", "P@10", "MRR", "p95 ratio")
    print(f"{'':13}" + "".join(f"{column:>11}" for column in columns))
    ours = rows[0]
    for row in rows:
        times = "".join(f"{ms:8.1f} ms" for ms in (row.p50_ms, row.p95_ms, row.cpu_ms))
        scores = "".join(f"{score:11.3f}" for score in (row.recall_at_10, row.precision_at_10, row.mrr))
        ratio = row.p95_ms / ours.p95_ms
        print(f"{row.name:13}{row.build_seconds:9.1f} s{row.memory_mb:8.0f} MB{times}{scores}{ratio:9.2f} x")
    met = "met" if ours.p95_ms <= GOAL_P95_MS else "NOT met"
    print(
        f"ours: {ours.query_memory_mb:.0f} MB while asked, {ours.disk_mb:.0f} MB on disk; p95 <= {GOAL_P95_MS} ms {met}"
    )


def _web(rounds: int) -> list[dict[str, object]]:
    print(f"\n{'web search':36}{'side by side':>14}{'in turn':>10}{'ratio':>8}")
    found: list[dict[str, object]] = []
    for name, delays in web.SCENES.items():
        together, in_turn = anyio.run(web.measure, delays, rounds)
        print(f"{name:36}{together:12.2f} s{in_turn:8.2f} s{in_turn / together:8.1f}")
        found.append({"scene": name, "together_seconds": together, "in_turn_seconds": in_turn})
    return found


def _machine() -> str:
    load = os.getloadavg()[0]
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}, {platform.platform()}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.search", description="search_files and web_search, beside peers")
    parser.add_argument("parts", nargs="*", help="made, docstrings, banking, web (default: all but banking)")
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3, help="of the web part")
    parser.add_argument("--folder", type=Path, help="index this folder instead of the made corpus")
    parser.add_argument("--packages", type=Path, default=Path(os.__file__).parent, help="Python files with docstrings")
    parser.add_argument("--banking", type=Path, help="banking77 as CSV")
    parser.add_argument("--peers", type=Path, help="the Python of an environment with the peers")
    parser.add_argument("--scratch", type=Path, help="where the corpora go (default: the temporary folder)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.parts = args.parts or ["made", "docstrings", "web", *(["banking"] if args.banking else [])]
    unknown = set(args.parts) - {"made", "docstrings", "banking", "web"}
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are: made, docstrings, banking, web")
    if "banking" in args.parts and not args.banking:
        parser.error("the part banking needs --banking PATH")
    for path in (args.folder, args.banking, args.peers, args.packages):
        if path and not path.exists():
            parser.error(f"there is nothing at {path}")
    return args


if __name__ == "__main__":
    main()
