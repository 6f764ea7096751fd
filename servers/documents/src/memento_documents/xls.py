"""Workbooks of before 2007 (XLS) through xlrd: values, number formats, colours, merged ranges and formulas.

xlrd reads a formula's result; its text is decompiled here from the sheet's own records ([MS-XLS] 2.4.127, 2.4.277).
Colours are those of the palette: what newer programs add beside it (themes) stands in records that are not read.
"""

import importlib
import io
import re
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from memento_documents.kinds import Unreadable
from memento_documents.styled_cells import StyledCell, StyledSheet, as_moment

__all__ = ["xls_sheets"]

_FORMULA, _SHARED_FORMULA, _END = 0x0006, 0x04BC, 0x000A
_SHARED_TOKEN = 0x01
_FORMULAS_BEHIND_BYTES = 22
_WHOLE_NUMBER = re.compile(r'"[^"]*"|\b(\d+)\.0\b')
"""xlrd writes the number 3 as 3.0; texts are left alone."""
_NOTE = "{} formulas use parts that are not read here and are left out."


def xls_sheets(file: BinaryIO) -> Iterator[StyledSheet]:
    """Yield the sheets with their cells.

    Raises:
        Unreadable: encrypted or damaged.
    """
    xlrd: Any = importlib.import_module("xlrd")
    file.seek(0)
    try:
        book: Any = xlrd.open_workbook(
            file_contents=file.read(), formatting_info=True, on_demand=True, logfile=io.StringIO()
        )
        for index, name in enumerate(book.sheet_names()):
            sheet: Any = book.sheet_by_index(index)
            made = StyledSheet(str(name), iter(()), total_rows=int(sheet.nrows))
            made.merged = [
                f"{_at(low, left)}:{_at(high - 1, right - 1)}" for low, high, left, right in sheet.merged_cells
            ]
            made.cells = _cells(book, sheet, index, made)
            yield made
            book.unload_sheet(index)
    except xlrd.XLRDError as exc:
        if "encrypted" in str(exc):
            raise Unreadable("The workbook is encrypted with a password; save a copy without one.") from exc
        raise Unreadable("The workbook is damaged; open it in a spreadsheet program and save it again.") from exc
    except (xlrd.compdoc.CompDocError, struct.error, IndexError, KeyError, AssertionError, ValueError) as exc:
        raise Unreadable("The workbook is damaged; open it in a spreadsheet program and save it again.") from exc


def _at(row: int, column: int) -> str:
    from openpyxl.utils import get_column_letter

    return f"{get_column_letter(column + 1)}{row + 1}"


def _cells(book: Any, sheet: Any, index: int, made: StyledSheet) -> Iterator[StyledCell]:
    xlrd: Any = importlib.import_module("xlrd")
    formulas, failed = _formulas(book, index)
    made.notes += [_NOTE.format(failed)] if failed else []
    looks: dict[int, dict[str, Any]] = {}
    for row in range(sheet.nrows):
        for column, (kind, value, style) in enumerate(
            zip(sheet.row_types(row), sheet.row_values(row), _styles(sheet, row), strict=False)
        ):
            if style not in looks:
                looks[style] = _look(book, style)
            look = looks[style]
            match kind:
                case xlrd.XL_CELL_EMPTY | xlrd.XL_CELL_BLANK:
                    shown: object = None
                case xlrd.XL_CELL_BOOLEAN:
                    shown = bool(value)
                case xlrd.XL_CELL_ERROR:
                    shown = xlrd.error_text_from_code.get(value, "#ERR")
                case xlrd.XL_CELL_NUMBER | xlrd.XL_CELL_DATE:
                    shown = as_moment(value, str(look["number_format"]), from_1904=book.datemode == 1)
                case _:
                    shown = str(value)
            cell = StyledCell(row + 1, column + 1, shown, formula=formulas.get((row, column)), **look)
            if cell.value is not None or cell.fill:
                yield cell


def _styles(sheet: Any, row: int) -> list[int]:
    return [sheet.cell_xf_index(row, column) for column in range(sheet.row_len(row))]


def _look(book: Any, style: int) -> dict[str, Any]:
    xf = book.xf_list[style]
    font, background = book.font_list[xf.font_index], xf.background
    known = book.format_map.get(xf.format_key)
    # A solid fill is painted in its pattern's colour.
    fill = book.colour_map.get(background.pattern_colour_index) if background.fill_pattern else None
    color = book.colour_map.get(font.colour_index)
    return {
        "number_format": str(known.format_str) if known is not None else "General",
        "fill": _hex(fill),
        "font_color": None if color == (0, 0, 0) else _hex(color),
        "bold": bool(font.bold) or font.weight >= 600,
    }


def _hex(color: tuple[int, int, int] | None) -> str | None:
    return None if color is None else "{:02X}{:02X}{:02X}".format(*color)


def _formulas(book: Any, index: int) -> tuple[dict[tuple[int, int], str], int]:
    """What was typed, by (row, column) from 0, and how many formulas could not be told."""
    if book.biff_version < 80:
        return {}, 0
    formula: Any = importlib.import_module("xlrd.formula")
    own: list[tuple[int, int, bytes, int]] = []
    sharing: list[tuple[int, int]] = []
    shared: list[tuple[int, int, int, int, bytes, int]] = []
    for code, data in _records(book, index):
        if code == _FORMULA and len(data) > _FORMULAS_BEHIND_BYTES:
            row, column = struct.unpack_from("<HH", data)
            (length,) = struct.unpack_from("<H", data, _FORMULAS_BEHIND_BYTES - 2)
            tokens = data[_FORMULAS_BEHIND_BYTES:]
            if tokens[0] == _SHARED_TOKEN:
                sharing.append((row, column))
            else:
                own.append((row, column, tokens, length))
        elif code == _SHARED_FORMULA and len(data) > 10:
            shared.append((*struct.unpack_from("<HHBB", data), data[10:], *struct.unpack_from("<H", data, 8)))
    told = {
        (row, column): _told(book, tokens, length, formula.FMLA_TYPE_CELL, row, column)
        for row, column, tokens, length in own
    }
    for row, column in sharing:
        told[row, column] = None
        for first_row, last_row, first_column, last_column, tokens, length in shared:
            if first_row <= row <= last_row and first_column <= column <= last_column:
                told[row, column] = _told(book, tokens, length, formula.FMLA_TYPE_SHARED, row, column)
    found = {at: text for at, text in told.items() if text is not None}
    return found, len(told) - len(found)


def _records(book: Any, index: int) -> Iterator[tuple[int, bytes]]:
    """The sheet's records, as (code, body)."""
    at: int = book._sh_abs_posn[index]
    while at + 4 <= len(book.mem):
        code, size = struct.unpack_from("<HH", book.mem, at)
        if code == _END:
            return
        yield code, bytes(book.mem[at + 4 : at + 4 + size])
        at += 4 + size


def _told(book: Any, tokens: bytes, length: int, kind: int, row: int, column: int) -> str | None:
    xlrd: Any = importlib.import_module("xlrd")
    formula: Any = importlib.import_module("xlrd.formula")
    try:
        text = formula.decompile_formula(book, tokens, length, kind, browx=row, bcolx=column)
    except (AssertionError, LookupError, ValueError, TypeError, struct.error, xlrd.XLRDError, formula.FormulaError):
        return None
    return "=" + _WHOLE_NUMBER.sub(lambda match: match[1] or match[0], text) if text else None
