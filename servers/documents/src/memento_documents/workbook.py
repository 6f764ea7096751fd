"""XLSX workbooks through openpyxl's streaming reader: sheets as rows of what Excel shows, or of raw values.

Formulas give the result Excel stored. Macros, external links and embedded objects are never touched.
"""

import warnings
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO
from xml.etree.ElementTree import ParseError

from memento_documents.cells import CellRange
from memento_documents.kinds import Unreadable
from memento_documents.number_format import display

if TYPE_CHECKING:
    from openpyxl.cell.read_only import ReadOnlyCell
    from openpyxl.workbook.workbook import Workbook

__all__ = ["MAX_CELLS", "sheet_rows", "sheet_values"]

MAX_CELLS = 2_000_000
"""Cells read from one workbook; more would only be cut off later, after costing minutes."""


def sheet_rows(
    file: BinaryIO, *, only: str | None = None, block: CellRange | None = None
) -> Iterator[tuple[str, list[list[str]], bool]]:
    """Yield each visible or hidden sheet's name, its rows as shown, and whether rows were left out at `MAX_CELLS`.

    `only` names one sheet (any case), `block` a part of each.

    Raises:
        Unreadable: the workbook is damaged, or there is no such sheet.
    """
    for name, rows, cut_short in _sheets(file, only, block):
        yield name, [[display(cell.value, cell.number_format or "General") for cell in row] for row in rows], cut_short


def sheet_values(file: BinaryIO, *, only: str | None = None) -> Iterator[tuple[str, list[list[object]], bool]]:
    """The same with the values themselves: numbers as numbers, dates as dates."""
    for name, rows, cut_short in _sheets(file, only, None):
        yield name, [[cell.value for cell in row] for row in rows], cut_short


def _sheets(
    file: BinaryIO, only: str | None, block: CellRange | None
) -> Iterator[tuple[str, "list[tuple[ReadOnlyCell, ...]]", bool]]:
    left = MAX_CELLS
    bounds = block or CellRange(1, None, 1, None)
    with _opened(file) as book:
        wanted = [sheet for sheet in book.worksheets if only is None or sheet.title.casefold() == only.casefold()]
        if not wanted:
            names = ", ".join(repr(sheet.title) for sheet in book.worksheets)
            raise Unreadable(f"There is no sheet {only!r}; the workbook has: {names}.")
        for sheet in wanted:
            rows: list[tuple[ReadOnlyCell, ...]] = []
            last_filled = 0
            cut_short = False
            for row in sheet.iter_rows(bounds.first_row, bounds.last_row, bounds.first_column, bounds.last_column):
                rows.append(_without_blank_tail(row))  # pyright: ignore[reportArgumentType]
                if rows[-1]:
                    last_filled = len(rows)
                left -= len(rows[-1]) + 1
                if left < 0:
                    cut_short = True
                    break
            yield sheet.title, rows[:last_filled], cut_short


def _without_blank_tail(row: "tuple[ReadOnlyCell, ...]") -> "tuple[ReadOnlyCell, ...]":
    end = len(row)
    while end and row[end - 1].value in (None, ""):
        end -= 1
    return row[:end]


@contextmanager
def _opened(file: BinaryIO) -> "Generator[Workbook]":
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about features it drops when writing; nothing is written here
        try:
            book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
        except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, TypeError, ParseError, EOFError) as exc:
            raise Unreadable(
                f"The workbook is damaged ({type(exc).__name__}); open it in Excel and save it again."
            ) from exc
        try:
            yield book
        except (zipfile.BadZipFile, ParseError, EOFError) as exc:
            raise Unreadable(f"A sheet of the workbook is damaged ({type(exc).__name__}).") from exc
        finally:
            book.close()
