"""XLSX workbooks as rows of what Excel shows: the first rows through openpyxl's streaming reader, all through calamine.

openpyxl knows number formats and reads no further than asked: the first rows of any workbook come in milliseconds.
calamine is ten times faster over a whole one. Formulas give the result Excel stored. Macros, external links
and embedded objects are never touched.
"""

import re
import warnings
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from xml.etree.ElementTree import ParseError

from memento_documents import progress
from memento_documents.cells import CellRange
from memento_documents.kinds import Kind, Unreadable
from memento_documents.number_format import display
from memento_documents.spreadsheet import refuse_sparse_bomb, sheet_values

if TYPE_CHECKING:
    from openpyxl.cell.read_only import ReadOnlyCell
    from openpyxl.workbook.workbook import Workbook
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

__all__ = [
    "MAX_RANGE_CELLS",
    "PEEKED_ROWS",
    "READ_WHOLE_CELLS",
    "SheetRows",
    "opened",
    "sheet_rows",
    "styled_rows",
    "whole_sheets",
]

READ_WHOLE_CELLS = 60_000
"""A workbook of more cells is shown by its first rows: parsing all of it takes seconds, and nobody can read it."""
PEEKED_ROWS = 100
_ROWS_BETWEEN_REPORTS = 1_000
MAX_RANGE_CELLS = 200_000
_MAX_SEARCHED_CELLS = 5_000_000
_DIMENSION = re.compile(rb'<(?:\w+:)?dimension ref="([A-Z]{1,3}\d{1,7}(?::[A-Z]{1,3}\d{1,7})?)"')
_SIZE_WITHIN_BYTES = 16_384


@dataclass(frozen=True)
class SheetRows:
    """Rows of one sheet as Excel shows them. `total_rows` is what the file says it has, None where it does not say."""

    name: str
    rows: list[list[str]]
    total_rows: int | None
    is_cut: bool
    """There are rows, of those asked for, that were not read."""
    notes: list[str] = field(default_factory=list[str])


def sheet_rows(file: BinaryIO, *, only: str | None = None, block: CellRange | None = None) -> Iterator[SheetRows]:
    """Yield each visible or hidden sheet's first rows, all of them in a small workbook.

    `only` names one sheet (any case), `block` a part of each.

    Raises:
        Unreadable: the workbook is damaged, or there is no such sheet.
    """
    bounds = block or CellRange(1, None, 1, None)
    with opened(file) as book:
        sheets = _wanted(book, only)
        # A sheet that does not say how large it is counts as large.
        sizes = [sheet.max_row * sheet.max_column if sheet.max_row and sheet.max_column else None for sheet in sheets]
        is_small = None not in sizes and sum(size or 0 for size in sizes) <= READ_WHOLE_CELLS
        for sheet in sheets:
            left = MAX_RANGE_CELLS if block or is_small else READ_WHOLE_CELLS
            most_rows = None if block or is_small else PEEKED_ROWS
            rows: list[list[str]] = []
            last_filled = 0
            is_cut = False
            reading = sheet.iter_rows(bounds.first_row, bounds.last_row, bounds.first_column, bounds.last_column)
            for number, row in enumerate(reading, start=1):
                if number % _ROWS_BETWEEN_REPORTS == 0 and sheet.max_row:
                    progress.report(number, sheet.max_row, "row")
                if left < 0 or len(rows) == most_rows:
                    is_cut = True
                    break
                cells = _without_blank_tail(row)  # pyright: ignore[reportArgumentType]
                rows.append([display(cell.value, cell.number_format or "General") for cell in cells])
                last_filled = len(rows) if cells else last_filled
                left -= len(cells) + 1
            yield SheetRows(
                sheet.title, rows[:last_filled], None if block else sheet.max_row if is_cut else None, is_cut
            )


def styled_rows(
    file: BinaryIO, kind: Kind, *, only: str | None = None, block: CellRange | None = None
) -> Iterator[SheetRows]:
    """`sheet_rows` for XLS, XLSB and ODS, whose readers give the cells that there are, one by one.

    Raises:
        Unreadable: the workbook is encrypted or damaged, or there is no such sheet.
    """
    from memento_documents.styled_cells import styled_sheets

    bounds = block or CellRange(1, None, 1, None)
    last_row, last_column = bounds.last_row or 1 << 20, bounds.last_column or 1 << 14
    for sheet in styled_sheets(file, kind, only):
        left = MAX_RANGE_CELLS if block else READ_WHOLE_CELLS
        rows: list[list[str]] = []
        is_cut = False
        for cell in sheet.cells:
            if cell.row > last_row:
                break
            if cell.value in (None, "") or cell.row < bounds.first_row:
                continue
            if not bounds.first_column <= cell.column <= last_column:
                continue
            down, across = cell.row - bounds.first_row, cell.column - bounds.first_column
            left -= max(0, down + 1 - len(rows)) + 1
            if left < 0:
                is_cut = True
                break
            rows += [[] for _ in range(down + 1 - len(rows))]
            rows[down] += [""] * (across + 1 - len(rows[down]))
            rows[down][across] = display(cell.value, cell.number_format) if cell.shown is None else cell.shown
        if is_cut and not block:
            rows = rows[:PEEKED_ROWS]
        yield SheetRows(sheet.name, rows, sheet.total_rows if is_cut and not block else None, is_cut, sheet.notes)


def whole_sheets(file: BinaryIO, kind: Kind, only: str | None = None) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield each sheet's name and all its rows, numbers shown plainly: fast enough for a hundred thousand rows.

    Raises:
        Unreadable: the workbook is damaged, a sparse bomb, or there is no such sheet.
    """
    left = _MAX_SEARCHED_CELLS
    if kind == "xlsx":
        refuse_sparse_bomb(file)
    for name, rows in sheet_values(file, only=only):
        shown: list[list[str]] = []
        for row in rows:
            left -= len(row) + 1
            if left < 0:
                raise Unreadable(f"The workbook has more than {_MAX_SEARCHED_CELLS} cells; use query_table.")
            shown.append([display(cell).replace("\n", " ") for cell in row])
        yield name, shown


def _wanted(book: "Workbook", only: str | None) -> "list[ReadOnlyWorksheet]":
    found = [sheet for sheet in book.worksheets if only is None or sheet.title.casefold() == only.casefold()]
    if not found:
        names = ", ".join(repr(sheet.title) for sheet in book.worksheets)
        raise Unreadable(f"There is no sheet {only!r}; the workbook has: {names}.")
    return cast("list[ReadOnlyWorksheet]", found)


def _without_blank_tail(row: "tuple[ReadOnlyCell, ...]") -> "tuple[ReadOnlyCell, ...]":
    end = len(row)
    while end and row[end - 1].value in (None, ""):
        end -= 1
    return row[:end]


@contextmanager
def opened(file: BinaryIO, *, formulas: bool = False) -> "Generator[Workbook]":
    """Open the workbook for streaming; cells hold results, or with `formulas` what was typed.

    Raises:
        Unreadable: it is damaged, now or while the caller reads on.
    """
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

    # openpyxl parses a whole sheet to find out that it does not say how large it is: seconds instead of milliseconds.
    cast(Any, ReadOnlyWorksheet)._get_size = _read_size

    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about features it drops when writing; nothing is written here
        try:
            book = load_workbook(file, read_only=True, data_only=not formulas, keep_links=False)
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


def _read_size(sheet: Any) -> None:
    """Set the sheet's size if it says one, which stands before its rows (ECMA-376 part 1, §18.3.1.99)."""
    from openpyxl.utils import range_boundaries

    with sheet._get_source() as source:
        said = _DIMENSION.search(source.read(_SIZE_WITHIN_BYTES))
    if said is not None:
        sheet._min_column, sheet._min_row, sheet._max_column, sheet._max_row = range_boundaries(said[1].decode())
