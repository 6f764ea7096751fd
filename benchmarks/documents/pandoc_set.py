"""Office files and books that nobody here wrote: pandoc's own tests, whose truth is pandoc's document tree beside each.

    python -m benchmarks.documents.pandoc_set FOLDER [--peers PYTHON] [--worst 5]

FOLDER is `test` of pandoc's source (Debian's `pandoc_2.17.1.1.orig.tar.gz`); the program `pandoc` turns each tree into
GitHub's Markdown, from which words, headings and tables are taken. GPL-2, so nothing of it is committed. Its files are
small and each tries one feature; a tree keeps marks that a reader need not show (comments with authors, tracked
deletions), so nobody reaches 1.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.documents.__main__ import Figures, overall, run_tool, score
from benchmarks.documents.samples import Truth
from benchmarks.documents.scores import plain, tables_in, word_order

_PEERS = ("markitdown", "xberg", "kreuzberg")


def main() -> None:
    options = argparse.ArgumentParser(prog="benchmarks.documents.pandoc_set")
    options.add_argument("folder", type=Path)
    options.add_argument("--peers", help="the Python of an environment with markitdown, xberg and kreuzberg")
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--worst", type=int, default=0, help="name so many files of each format that we read worst")
    chosen = options.parse_args()
    if shutil.which("pandoc") is None:
        sys.exit("The program pandoc is not installed (apt-get install pandoc).")
    heads = " ".join(f"{head:>6}" for head in ("words", "heads", "tables", "all", "failed"))
    print(f"{'format':6} {'tool':14} {'ms/doc':>8} {heads}")
    for suffix, pairs in _pairs(chosen.folder).items():
        if not pairs:
            continue
        truths = {path: _truth(tree) for path, tree in pairs}
        for tool in ("memento files", *(_PEERS if chosen.peers else ())):
            said = run_tool(tool, list(truths), chosen)
            if said is None:
                continue
            texts = {path: said["files"][str(path)][0] or "" for path in truths}
            failed = sum(text is None for text, _ in said["files"].values())
            figures = Figures(statistics.median(1000 * cpu for _, cpu in said["files"].values()), 0.0, failed=failed)
            score(figures, texts, truths)
            shown = " ".join(
                f"{'-' if each is None else f'{each:.3f}':>6}"
                for each in (figures.words, figures.headings, figures.tables, overall(figures))
            )
            print(f"{suffix:6} {tool:14} {figures.ms_per_page:8.2f} {shown} {failed:6}")
            if tool == "memento files":
                scored = sorted((word_order(texts[path], truth), path) for path, truth in truths.items())
                for words, path in scored[: chosen.worst]:
                    print(f"    {words:.3f} {path.relative_to(chosen.folder)}")


def _pairs(folder: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Files with their trees, by format."""
    odt = [(path, folder / "odt" / "native" / f"{path.stem}.native") for path in folder.glob("odt/odt/*.odt")]
    beside = {
        suffix: [(path, path.with_suffix(".native")) for path in folder.glob(f"{suffix}/*.{suffix}")]
        for suffix in ("docx", "epub")
    }
    pptx = [(path, path.with_name("input.native")) for path in folder.glob("pptx/**/output.pptx")]
    found = {"docx": beside["docx"], "pptx": pptx, "odt": odt, "epub": beside["epub"]}
    return {suffix: sorted(pair for pair in pairs if pair[1].is_file()) for suffix, pairs in found.items()}


def _truth(tree: Path) -> Truth:
    command = ["pandoc", "-f", "native", "-t", "gfm", "--wrap=none", str(tree)]
    markdown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    blocks: list[tuple[str, str]] = []
    for line in markdown.splitlines():
        marks = len(line) - len(line.lstrip("#"))
        heading = 0 < marks < 7 and line[marks : marks + 1] == " "
        blocks.append((f"h{marks}", line[marks + 1 :]) if heading else ("p", plain(line)))
    return Truth(blocks, tables_in(markdown))


if __name__ == "__main__":
    main()
