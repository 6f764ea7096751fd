"""OpenDocument spreadsheets (ODS): cells as displayed, values, formulas, colours, merged ranges.

Reads `content.xml` directly (OpenDocument 1.3 part 3, §9 and §19). What a cell displays stands in the file as text, so
that no number format has to be applied.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from xml.etree.ElementTree import Element

from memento_documents.package import Package, open_package
from memento_documents.styled_cells import StyledCell, StyledSheet

__all__ = ["ods_sheets"]

_OASIS = "{urn:oasis:names:tc:opendocument:xmlns:"
_TEXT, _TABLE, _OFFICE, _STYLE = (f"{_OASIS}{name}:1.0}}" for name in ("text", "table", "office", "style"))
_FO = f"{_OASIS}xsl-fo-compatible:1.0}}"
_MAX_FILLED_REPEATS = 10_000
"""Cells that are filled and said to repeat more often are a trick."""


@dataclass(frozen=True)
class _Look:
    parent: str = ""
    fill: str | None = None
    font_color: str | None = None
    bold: bool | None = None


def ods_sheets(file: BinaryIO) -> Iterator[StyledSheet]:
    """Yield the sheets with their cells.

    Raises:
        Unreadable: damaged or too large.
    """
    with open_package(file, "The OpenDocument file") as package:
        content = package.required("content.xml")
        looks = _looks(package, content)
    body = content.find(f"{_OFFICE}body/{_OFFICE}spreadsheet")
    for table in body.iterfind(f"{_TABLE}table") if body is not None else ():
        sheet = StyledSheet(table.get(f"{_TABLE}name") or "", iter(()))
        sheet.cells = _cells(table, looks, sheet)
        yield sheet


def _looks(package: Package, content: Element) -> dict[str, _Look]:
    """The cell styles by name, the document's own and those written while editing."""
    found: dict[str, _Look] = {}
    for root in (package.xml("styles.xml"), content):
        for style in root.iter(f"{_STYLE}style") if root is not None else ():
            if style.get(f"{_STYLE}family") != "table-cell":
                continue
            cell, text = style.find(f"{_STYLE}table-cell-properties"), style.find(f"{_STYLE}text-properties")
            weight = None if text is None else text.get(f"{_FO}font-weight")
            found[style.get(f"{_STYLE}name") or ""] = _Look(
                style.get(f"{_STYLE}parent-style-name") or "",
                _color(None if cell is None else cell.get(f"{_FO}background-color")),
                _color(None if text is None else text.get(f"{_FO}color")),
                None if weight is None else weight == "bold" or (weight.isdecimal() and int(weight) >= 600),
            )
    return {name: _inherited(found, name) for name in found}


def _inherited(looks: dict[str, _Look], name: str) -> _Look:
    fill = font_color = bold = None
    for _ in range(16):  # styles in a ring would go on for ever
        look = looks.get(name)
        if look is None:
            break
        fill, font_color = fill or look.fill, font_color or look.font_color
        bold = look.bold if bold is None else bold
        name = look.parent
    return _Look("", None if fill == "transparent" else fill, None if font_color == "000000" else font_color, bold)


def _color(text: str | None) -> str | None:
    if text == "transparent":
        return text
    return text[1:].upper() if text and re.fullmatch("#[0-9A-Fa-f]{6}", text) else None


def _cells(table: Element, looks: dict[str, _Look], sheet: StyledSheet) -> Iterator[StyledCell]:
    defaults = _column_defaults(table)
    at = 1
    for row in table.iter(f"{_TABLE}table-row"):
        repeats = _number(row, "number-rows-repeated")
        cells = list(_row(row, at, looks, defaults, sheet))
        is_filled = any(cell.value is not None for cell in cells)
        for again in range(min(repeats, _MAX_FILLED_REPEATS) if is_filled else 1):
            for cell in cells:
                yield cell if not again else _moved(cell, again)
        at += repeats


def _moved(cell: StyledCell, rows: int) -> StyledCell:
    from dataclasses import replace

    return replace(cell, row=cell.row + rows, formula=None)


def _column_defaults(table: Element) -> list[tuple[int, str]]:
    """(last column, style) for each stretch of columns."""
    found: list[tuple[int, str]] = []
    last = 0
    for column in table.iter(f"{_TABLE}table-column"):
        last += _number(column, "number-columns-repeated")
        found.append((last, column.get(f"{_TABLE}default-cell-style-name") or ""))
    return found


def _row(
    row: Element, at: int, looks: dict[str, _Look], defaults: list[tuple[int, str]], sheet: StyledSheet
) -> Iterator[StyledCell]:
    column = 1
    for node in row:
        if node.tag not in (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
            continue
        repeats = _number(node, "number-columns-repeated")
        value, shown = _value(node)
        name = node.get(f"{_TABLE}style-name") or row.get(f"{_TABLE}default-cell-style-name")
        name = name or next((style for last, style in defaults if column <= last), "")
        look = looks.get(name, _Look())
        down, across = _number(node, "number-rows-spanned"), _number(node, "number-columns-spanned")
        if (down > 1 or across > 1) and node.tag == f"{_TABLE}table-cell":
            sheet.merged.append(f"{_at(at, column)}:{_at(at + down - 1, column + across - 1)}")
        formula = _formula(node.get(f"{_TABLE}formula"))
        # An empty stretch with a colour is the sheet's background as often as not: one cell stands for it.
        for again in range(min(repeats, _MAX_FILLED_REPEATS) if value is not None else 1 if look.fill else 0):
            yield StyledCell(
                at, column + again, value, "General", shown, formula, look.fill, look.font_color, bool(look.bold)
            )
        column += repeats


def _at(row: int, column: int) -> str:
    from openpyxl.utils import get_column_letter

    return f"{get_column_letter(min(column, 16_384))}{row}"


def _number(node: Element, name: str) -> int:
    text = node.get(f"{_TABLE}{name}") or "1"
    return max(1, min(int(text), 1 << 20)) if text.isdecimal() and len(text) < 9 else 1


def _value(cell: Element) -> tuple[str | float | bool | None, str | None]:
    """The value, and what is displayed."""
    paragraphs = ["".join(part.itertext()) for part in cell.iterfind(f"{_TEXT}p")]
    shown = "\n".join(paragraphs) if paragraphs else None
    kind = cell.get(f"{_OFFICE}value-type")
    if kind in ("float", "currency", "percentage"):
        try:
            return float(cell.get(f"{_OFFICE}value") or ""), shown
        except ValueError:
            return shown, shown
    if kind == "boolean":
        return cell.get(f"{_OFFICE}boolean-value") == "true", shown
    value = shown or cell.get(f"{_OFFICE}string-value") or cell.get(f"{_OFFICE}date-value")
    return value or cell.get(f"{_OFFICE}time-value"), shown


def _formula(text: str | None) -> str | None:
    """`of:=SUM([.A1:.B2])` as `=SUM(A1:B2)` (OpenFormula, §5.8)."""
    if text is None:
        return None
    plain = re.sub(r"^[a-z]+:(?==)", "", text)
    return re.sub(r"\[([^\]]*)\]", lambda match: match[1].replace(".", "!").replace(":!", ":").lstrip("!"), plain)
