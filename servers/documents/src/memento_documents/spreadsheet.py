"""Workbooks of other formats than XLSX (XLS, XLSB, ODS), and the values of large XLSX ones, through python-calamine.

calamine reads values, not number formats: dates and times are shown as ISO, numbers plainly. It lays each sheet out as
a dense grid and ends the process when that does not fit (guides/documents.md §5.3), so an XLSX file is looked at first:
`refuse_sparse_bomb`.
"""

import itertools
import re
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from memento_documents import progress
from memento_documents.cells import CellRange
from memento_documents.kinds import Unreadable

__all__ = ["refuse_sparse_bomb", "sheet_names", "sheet_values"]

MAX_CELLS = 20_000_000
"""Of the grid that a sheet spans, empty cells included."""
_MAX_SHEET_BYTES = 1_000_000_000
_LOOK_BYTES = 1 << 20
_LOOKED_AT_BYTES = 8 << 20
"""Of a sheet unpacked: a bomb is small, that is its point."""
_ROWS_BETWEEN_REPORTS = 5_000
_LAST_ROW = re.compile(rb'<row[^>]* r="(\d+)"')
_REFERENCE = re.compile(rb'<c r="([A-Z]{1,3})(\d{1,7})"')


def sheet_names(file: BinaryIO) -> list[str]:
    """The names of the sheets that hold cells.

    Raises:
        Unreadable: encrypted or damaged.
    """
    return [sheet.name for sheet in _workbook(file).sheets_metadata]


def sheet_values(
    file: BinaryIO, *, only: str | None = None, block: CellRange | None = None
) -> Iterator[tuple[str, Iterator[list[object]]]]:
    """Yield each sheet's name and its rows of str, float, bool, datetime, date, time or timedelta.

    Empty cells are "", those at a row's end are left out. Rows are made one by one: take them before the next sheet.

    Raises:
        Unreadable: encrypted, damaged, or there is no such sheet.
    """
    import python_calamine

    book = _workbook(file)
    names: list[str] = list(book.sheet_names)
    wanted = [name for name in names if only is None or name.casefold() == only.casefold()]
    if not wanted:
        raise Unreadable(f"There is no sheet {only!r}; the workbook has: {', '.join(map(repr, names))}.")
    for name in wanted:
        try:
            sheet = book.get_sheet_by_name(name)
            if sheet.total_height * sheet.total_width > MAX_CELLS:
                raise Unreadable(
                    f"Sheet {name!r} spans {sheet.total_height * sheet.total_width} cells, too many to read."
                )
        except python_calamine.CalamineError as exc:
            raise Unreadable(f"Sheet {name!r} of the workbook is damaged.") from exc
        yield name, _rows(sheet, block or CellRange(1, None, 1, None))


def _rows(sheet: Any, block: CellRange) -> Iterator[list[object]]:
    """calamine leaves out the empty columns before the data, but not the empty rows."""
    before: list[object] = [""] * (sheet.start[1] if sheet.start else 0)
    first, last = block.first_column - 1, block.last_column
    rows: Iterator[list[object]] = sheet.iter_rows()
    total = int(sheet.total_height)
    for number, row in enumerate(itertools.islice(rows, block.first_row - 1, block.last_row), start=block.first_row):
        if before or first or last:
            row = (before + row)[first:last]
        while row and row[-1] == "":
            row.pop()
        yield row
        if number % _ROWS_BETWEEN_REPORTS == 0:
            progress.report(number, total, "row")


def _workbook(file: BinaryIO) -> Any:
    import python_calamine

    file.seek(0)
    try:
        return python_calamine.CalamineWorkbook.from_filelike(file)
    except python_calamine.PasswordError as exc:
        raise Unreadable("The workbook is encrypted with a password; save a copy without one.") from exc
    except (python_calamine.CalamineError, OSError) as exc:
        raise Unreadable("The workbook is damaged; open it in a spreadsheet program and save it again.") from exc


def refuse_sparse_bomb(file: BinaryIO) -> None:
    """Refuse an XLSX file of which a sheet spans more than `MAX_CELLS`, or unpacks to more than a gigabyte.

    Looks at the references of the first and last cells of each sheet, where a file that is no trick has its extremes.
    A sheet of many megabytes is not looked at: looking costs a fifth of reading, and a trick costs no more than the
    child.

    Raises:
        Unreadable: it is one.
    """
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.filename.startswith("xl/") and info.file_size > _MAX_SHEET_BYTES:
                    raise Unreadable(
                        f"A part of the workbook unpacks to {info.file_size / 1e6:.0f} MB; it is not read."
                    )
                is_sheet = info.filename.startswith("xl/worksheets/") and info.filename.endswith(".xml")
                if is_sheet and info.file_size < _LOOKED_AT_BYTES:
                    _look_at_sheet(archive, info)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as exc:
        raise Unreadable("The workbook is damaged.") from exc
    finally:
        file.seek(0)


def _look_at_sheet(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    row = column = unpacked = 0
    tail = b""
    with archive.open(info) as sheet:
        while piece := sheet.read(_LOOK_BYTES):
            if not unpacked or info.file_size < 8 * _LOOK_BYTES:
                column = max([column, *(_column(letters) for letters, _ in _REFERENCE.findall(tail[-200:] + piece))])
            unpacked += len(piece)
            if unpacked > _MAX_SHEET_BYTES:
                raise Unreadable("A sheet of the workbook unpacks to more than a gigabyte; it is not read.")
            tail = tail[-_LOOK_BYTES:] + piece
    column = max([column, *(_column(letters) for letters, _ in _REFERENCE.findall(tail[-_LOOK_BYTES:]))])
    row = max((int(number) for number in _LAST_ROW.findall(tail)), default=0)
    if row * column > MAX_CELLS:
        raise Unreadable(
            f"A sheet of the workbook spans {row} rows and {column} columns, nearly all empty: too many to lay out."
        )


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number
