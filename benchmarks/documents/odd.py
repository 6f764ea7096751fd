"""Odd files: does each get an answer or one clear line, within the limits, and does the server live through all?

    .venv/bin/python -m benchmarks.documents.odd FOLDER [--limit 1000] [--seconds 30] [--only pdf,docx]

Every file below FOLDER is read, its tables are asked for and its first page is drawn, by one server. The tests of
pikepdf, pypdf, pdfminer.six and OCRmyPDF (in their sdists on PyPI) and of qpdf (Debian's source package) hold about
nine hundred PDFs; those of python-docx, python-pptx, odfpy, docx2python, python-calamine and unstructured office files.
Prints every line that was not a known one, to be judged by reading. Exits with 1 when a call got no answer and no line
about its file, when a parser failed for an unknown reason, or when the server was lost.
"""

import argparse
import logging
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
from mcp import Client
from mcp.types import TextContent

from memento_documents.server import Settings, build_server

_TOOLS = ("read_document", "extract_tables", "view_page")
_KNOWN_LINES = (
    ("encrypted", "password"),
    ("damaged", "damaged"),
    ("is empty", "empty"),
    ("CPU time", "CPU limit"),
    ("of memory", "memory limit"),
    ("took longer", "wall limit"),
    ("no page", "no such page"),
    ("no size", "page without size"),
    ("This is", "not of a kind the tool takes"),
    ("no slides", "empty"),
    ("entities", "hostile"),
)


def main() -> None:
    options = argparse.ArgumentParser(prog="benchmarks.documents.odd", description=(__doc__ or "").splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--limit", type=int, default=10_000, help="so many files at most")
    options.add_argument("--seconds", type=int, default=30, help="CPU limit of one call")
    options.add_argument("--only", default="", help="suffixes of the files to read, as `pdf,docx` (default: all files)")
    chosen = options.parse_args()
    if not chosen.folder.is_dir():
        sys.exit(f"{chosen.folder} is no folder.")
    suffixes = {f".{suffix}" for suffix in chosen.only.lower().split(",") if suffix}
    files = sorted(
        path
        for path in chosen.folder.rglob("*")
        if path.is_file() and (not suffixes or path.suffix.lower() in suffixes)
    )
    if not files:
        sys.exit(f"There is no such file below {chosen.folder}.")
    logging.disable(logging.INFO)  # a line for each call
    sys.exit(anyio.run(_read_all, chosen.folder, files[: chosen.limit], chosen.seconds))


async def _read_all(folder: Path, files: list[Path], seconds: int) -> int:
    settings = Settings(folders=(folder,), cpu_seconds=seconds, wall_seconds=2 * seconds, layout_megabytes=0)
    ends: dict[str, Counter[str]] = {tool: Counter() for tool in _TOOLS}
    slowest: dict[str, tuple[float, str]] = dict.fromkeys(_TOOLS, (0.0, ""))
    to_judge: Counter[str] = Counter()
    failures: list[str] = []
    async with Client(build_server(settings)) as client:
        for number, path in enumerate(files, start=1):
            for tool in _TOOLS:
                began = time.perf_counter()
                result = await client.call_tool(tool, {"source": str(path)})
                slowest[tool] = max(slowest[tool], (time.perf_counter() - began, path.name))
                said = result.content[0].text if isinstance(result.content[0], TextContent) else ""
                end = _end(said, str(path)) if result.is_error else "answered"
                ends[tool][end] += 1
                if end in ("untyped", "parser failed"):
                    failures.append(f"{tool} {path}: {said[:200]}")
                if end == "another clear line":
                    to_judge[f"{tool}: {said.partition(repr(str(path)))[2][2:202]}"] += 1
            if number % 50 == 0:
                print(f"{number} of {len(files)}", file=sys.stderr)
    kinds = Counter(path.suffix.lower() or "no suffix" for path in files)
    print(f"{len(files)} files, one server, {seconds} s CPU a call: {', '.join(f'{n} {k}' for k, n in kinds.items())}")
    for tool in _TOOLS:
        counted = ", ".join(f"{end} {count}" for end, count in ends[tool].most_common())
        print(f"{tool:15} {counted}; slowest {slowest[tool][0]:.1f} s ({slowest[tool][1]})")
    for line, count in to_judge.most_common():
        print(f"{count:4} x {line}")
    for line in failures:
        print(line)
    print("The server lived through all of them.")
    return int(bool(failures))


def _end(said: str, source: str) -> str:
    """Which clear line it was."""
    if repr(source) not in said:
        return "untyped"
    if "parser failed" in said:
        return "parser failed"
    return next((end for words, end in _KNOWN_LINES if words in said), "another clear line")


if __name__ == "__main__":
    main()
