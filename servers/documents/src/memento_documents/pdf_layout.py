"""Tables by pymupdf's layout model: the best recogniser measured (guides: documents §4.2), and a dear one.

A fifth of a second a page and 300 MB, so it runs only on pages that may have a table, and only in the zygote that
`preload`ed it, never in the server or in the parsing children. Absent with pymupdf 1.28 and in slim installs.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

from memento_documents import progress
from memento_documents.pdf import import_pymupdf, open_pdf

__all__ = ["find_layout_tables", "is_installed", "preload"]


def is_installed() -> bool:
    """Whether the layout model is here; imports nothing."""
    found = importlib.util.find_spec("pymupdf")
    if found is None or found.origin is None or importlib.util.find_spec("onnxruntime") is None:
        return False
    return (Path(found.origin).parent / "layout" / "onnx").is_dir()


def preload() -> Any:
    """Import pymupdf with its model, on one thread: a pool of threads would not live through a fork.

    The model is the one without image features, a bit less sure and twice as fast (guides: documents §4.2), and without
    the network for the grid of a table's cells: `find_tables` takes the tables' boxes alone and makes the grids itself.
    """
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options: Any = onnxruntime.SessionOptions

    def one_thread() -> Any:
        made = options()
        made.intra_op_num_threads = made.inter_op_num_threads = 1
        return made

    onnxruntime.SessionOptions = one_thread
    try:
        pymupdf = import_pymupdf()
        sys.modules.pop("pymupdf.layout", None)  # which `import_pymupdf` holds back
        pymupdf._get_layout = _nothing  # so that importing the layout code does not load its usual, larger model
        analyzer: Any = importlib.import_module("pymupdf.layout").DocumentLayoutAnalyzer
        model: Any = analyzer.get_model(feature_set_name="rf")
        model._model.table_grid_extractor = None
        pymupdf._get_layout = model.predict
    finally:
        onnxruntime.SessionOptions = options
    pymupdf.no_recommend_layout()
    # Characters' boxes as the font says them, as pymupdf4llm has it: cells are cut by them (F1 .953 instead of .914).
    pymupdf.TOOLS.unset_quad_corrections(True)
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    return pymupdf


def _nothing(*_: object) -> None:
    pass


def find_layout_tables(file: BinaryIO, pages: list[int]) -> list[dict[str, Any]]:
    """The tables of these pages as {page, box, rows}; `box` is x0, y0, x1, y1 in points.

    Raises:
        Unreadable: the PDF cannot be opened.
    """
    pymupdf: Any = importlib.import_module("pymupdf")
    found: list[dict[str, Any]] = []
    with open_pdf(pymupdf, file) as document:
        for done, number in enumerate(pages, start=1):
            page = document[number - 1]
            tables = page.find_tables(use_layout=True).tables
            words = cast(list[tuple[Any, ...]], page.get_text("words") if tables else [])
            for table in tables:
                rows = _rows(table, words)
                if rows:
                    found.append({"page": number, "box": [round(float(each), 1) for each in table.bbox], "rows": rows})
            progress.report(done, len(pages))
    return found


def _rows(table: Any, words: list[tuple[Any, ...]]) -> list[list[str]]:
    """The words in each cell's box: pymupdf's own `extract` parts words that a font kerns, and moves full stops."""
    rows: list[list[str]] = []
    for row in table.rows:
        cells: list[str] = []
        for cell in row.cells:
            if cell is None:  # covered by a cell that spans
                cells.append("")
                continue
            x0, y0, x1, y1 = cell
            inside = [
                str(word[4])
                for word in words
                if x0 <= (word[0] + word[2]) / 2 < x1 and y0 <= (word[1] + word[3]) / 2 < y1
            ]
            cells.append(" ".join(inside))
        if any(cells):
            rows.append(cells)
    return rows
