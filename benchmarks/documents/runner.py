"""One extractor over some files, in a process of its own; any Python that has the extractor can run this file.

    python runner.py TOOL ROUNDS FILE...

Prints one JSON line: {import_seconds, files: {path: [text, least CPU seconds]}, peak_bytes}. CPU is of all threads.
Knows nothing of this project, so that a peer's environment needs none of it.
"""

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any


def _memento(text_format: str) -> Callable[[str], str]:
    pdf: Any = importlib.import_module("memento_documents.pdf")
    pdf.import_pymupdf()

    def read(path: str) -> str:
        with open(path, "rb") as file:
            return "\n\n".join(section.text for section in pdf.read_pdf(file, text_format=text_format).sections)

    return read


def _memento_files() -> Callable[[str], str]:
    reading: Any = importlib.import_module("memento_documents.reading")
    path: Any = importlib.import_module("pathlib").Path
    return lambda name: "\n\n".join(section.text for section in reading.read_text(path(name)))


def _mammoth() -> Callable[[str], str]:
    mammoth: Any = importlib.import_module("mammoth")

    def read(path: str) -> str:
        with open(path, "rb") as file:
            return str(mammoth.convert_to_markdown(file).value)

    return read


def _markitdown() -> Callable[[str], str]:
    converter: Any = importlib.import_module("markitdown").MarkItDown()
    return lambda path: str(converter.convert(path).text_content)


def _liteparse() -> Callable[[str], str]:
    liteparse: Any = importlib.import_module("liteparse")
    parser = liteparse.LiteParse(ocr_enabled=False, output_format="markdown", quiet=True)
    return lambda path: str(parser.parse(path).text)


def _kreuzberg() -> Callable[[str], str]:
    kreuzberg: Any = importlib.import_module("kreuzberg")
    config = kreuzberg.ExtractionConfig(output_format="markdown", use_cache=False)
    return lambda path: str(kreuzberg.extract_file_sync(path, config=config).content)


def _xberg() -> Callable[[str], str]:
    xberg: Any = importlib.import_module("xberg")

    async def read(path: str) -> str:
        answer: Any = await xberg.extract(
            xberg.ExtractInput(kind="uri", uri=path), xberg.ExtractionConfig(output_format="markdown", use_cache=False)
        )
        return str(answer.results[0].content)

    return lambda path: asyncio.run(read(path))


def _pypdfium2() -> Callable[[str], str]:
    pypdfium2: Any = importlib.import_module("pypdfium2")

    def read(path: str) -> str:
        document: Any = pypdfium2.PdfDocument(path)
        return "\n\n".join(page.get_textpage().get_text_range() for page in document)

    return read


def _pymupdf4llm() -> Callable[[str], str]:
    pymupdf4llm: Any = importlib.import_module("pymupdf4llm")
    return lambda path: str(pymupdf4llm.to_markdown(path, show_progress=False))


TOOLS: dict[str, Callable[[], Callable[[str], str]]] = {
    "memento": lambda: _memento("markdown"),
    "memento text": lambda: _memento("text"),
    "memento files": _memento_files,
    "mammoth": _mammoth,
    "liteparse": _liteparse,
    "kreuzberg": _kreuzberg,
    "xberg": _xberg,
    "pypdfium2": _pypdfium2,
    "markitdown": _markitdown,
    "pymupdf4llm": _pymupdf4llm,
}


def main() -> None:
    """See the module's docstring."""
    tool, rounds, *paths = sys.argv[1:]
    began = time.process_time()
    read = TOOLS[tool]()
    import_seconds = time.process_time() - began
    files: dict[str, tuple[str | None, float]] = {}
    for path in paths:
        least = float("inf")
        text: str | None = None
        for _ in range(int(rounds)):
            began = time.process_time()
            try:
                text = read(path)
            except Exception:  # noqa: BLE001  a peer's failure is a result
                text = None
            least = min(least, time.process_time() - began)
        files[path] = (text, least)
    with open("/proc/self/status", encoding="ascii") as status:  # getrusage still counts the parent, before exec
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    print()  # what an extractor printed may lack a newline
    print(json.dumps({"import_seconds": import_seconds, "files": files, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
