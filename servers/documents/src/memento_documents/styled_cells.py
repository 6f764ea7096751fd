"""The cells of XLS, XLSB and ODS workbooks with what the format says of each: value, number format, colours, formula.

Owns the common shape and the choice of reader. `spreadsheet` is faster where values alone are wanted; XLSX is
`workbook`'s and `cell_details`'.
"""

import datetime as dt
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from memento_documents.kinds import Kind, Unreadable

__all__ = ["StyledCell", "StyledSheet", "as_moment", "styled_sheets"]


_WITHOUT_XLRD = (
    "Values alone: number formats, colours and formulas of XLS need xlrd (pip install 'memento-documents[xls]')."
)


@dataclass(frozen=True, slots=True)
class StyledCell:
    """One cell that holds something or has a style. Colours are RRGGBB, None where the file leaves the default."""

    row: int
    """1-based, as `column`."""
    column: int
    value: object = None
    """str, bool, number, date, time, or None."""
    number_format: str = "General"
    shown: str | None = None
    """What the program that wrote the file displayed, where the file says so."""
    formula: str | None = None
    fill: str | None = None
    font_color: str | None = None
    bold: bool = False


@dataclass
class StyledSheet:
    """`cells` come row by row; `merged` and `notes` are complete only once they are all taken."""

    name: str
    cells: Iterator[StyledCell]
    total_rows: int | None = None
    merged: list[str] = field(default_factory=list[str])
    """Ranges, as "A4:C5"."""
    notes: list[str] = field(default_factory=list[str])
    """What of the cells could not be read."""


def styled_sheets(file: BinaryIO, kind: Kind, only: str | None = None) -> Iterator[StyledSheet]:
    """Yield the workbook's sheets, or the one named `only` (any case). Take a sheet's cells before the next sheet.

    Raises:
        Unreadable: encrypted, damaged, or there is no such sheet.
    """
    match kind:
        case "xls" if importlib.util.find_spec("xlrd") is None:
            sheets = _plain_sheets
        case "xls":
            from memento_documents.xls import xls_sheets as sheets
        case "xlsb":
            from memento_documents.xlsb import xlsb_sheets as sheets
        case "ods":
            from memento_documents.ods import ods_sheets as sheets
        case _:
            raise AssertionError(kind)
    names: list[str] = []
    found = False
    for sheet in sheets(file):
        names.append(sheet.name)
        if only is None or sheet.name.casefold() == only.casefold():
            found = True
            yield sheet
    if not found:
        listed = ", ".join(map(repr, names))
        raise Unreadable(
            f"There is no sheet {only!r}; the workbook has: {listed}." if names else "The workbook has no sheets."
        )


def _plain_sheets(file: BinaryIO) -> Iterator[StyledSheet]:
    """The values alone, of an XLS workbook where xlrd is not installed."""
    from memento_documents.spreadsheet import sheet_values

    for name, rows in sheet_values(file):
        cells = (
            StyledCell(row, column, value)
            for row, values in enumerate(rows, start=1)
            for column, value in enumerate(values, start=1)
            if value != ""
        )
        yield StyledSheet(name, cells, notes=[_WITHOUT_XLRD])


def as_moment(value: float, number_format: str, *, from_1904: bool) -> float | dt.datetime | dt.date | dt.time:
    """A serial number as the date or time that its format shows it as; others as they are."""
    from openpyxl.styles.numbers import is_date_format

    calendar: Any = importlib.import_module("openpyxl.utils.datetime")
    if number_format == "General" or not is_date_format(number_format):
        return value
    try:
        epoch = calendar.CALENDAR_MAC_1904 if from_1904 else calendar.CALENDAR_WINDOWS_1900
        moment: Any = calendar.from_excel(value, epoch)
    except (ValueError, OverflowError):  # before 1900, or after 9999
        return value
    return value if moment is None or isinstance(moment, dt.timedelta) else moment
