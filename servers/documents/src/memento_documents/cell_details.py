"""Everything about a few cells of a workbook: value as shown, formula, colours, merged ranges.

XLSX is read with openpyxl's streaming reader, twice: once for results, once for formulas. Colours are resolved to RGB:
theme colours from the workbook's theme with their tint (ECMA-376 part 1, §18.8.19), indexed ones from the old palette.
Not evaluated: conditional formatting, table styles, pattern fills beyond their main
colour. XLS, XLSB and ODS come through `styled_cells`.
"""

import colorsys
import re
import zipfile
from dataclasses import dataclass
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError, fromstring

from memento_documents.cells import CellRange, parse_range
from memento_documents.kinds import Kind, Unreadable, detect_kind
from memento_documents.number_format import display
from memento_documents.styled_cells import StyledCell

__all__ = ["MAX_CELLS", "CellDetails", "SheetCells", "read_cells", "resolve_color", "theme_colors"]

MAX_CELLS = 5_000
"""In one range; a larger one is for read_document or query_table."""
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_THEME_ORDER = ("lt1", "dk1", "lt2", "dk2", "accent1", "accent2", "accent3", "accent4", "accent5", "accent6", "hlink",
                "folHlink")  # fmt: skip
"""How Excel counts theme colours: light and dark change places against the file's order."""
_MERGED = re.compile(rb'<mergeCell ref="([A-Z]{1,3}\d{1,7}:[A-Z]{1,3}\d{1,7})"')
_MERGE_LOOK_BYTES = 1 << 20
_HLS_STEPS = 240
_CONDITIONAL = "Colours of conditional formatting are not among these."


@dataclass(frozen=True)
class CellDetails:
    """One cell that holds something or has a colour. Colours are RRGGBB."""

    cell: str
    shown: str
    value: int | float | str | bool | None = None
    """The value itself, where `shown` is a rounded or formatted form of it."""
    formula: str | None = None
    fill: str | None = None
    font_color: str | None = None
    bold: bool = False
    merged: str | None = None
    """The range that this cell is merged with, given on its first cell."""


@dataclass(frozen=True)
class SheetCells:
    """The cells of a range, row by row, empty and plain ones left out."""

    sheet: str
    range: str
    cells: list[CellDetails]
    notes: list[str]


def read_cells(file: BinaryIO, name: str, sheet: str | None, cells: str) -> SheetCells:
    """Read a range of one sheet, the first where none is named.

    Raises:
        Unreadable: no spreadsheet, no such sheet, no range, or one of more than `MAX_CELLS`.
    """
    block = parse_range(cells)
    kind = detect_kind(file, name)
    if kind == "xlsx":
        return _of_xlsx(file, sheet, block, cells)
    if kind in ("xls", "xlsb", "ods"):
        return _of_others(file, kind, sheet, block, cells)
    raise Unreadable(
        f"Only a workbook has cells with formulas and colours; this is {kind}. Use read_document with range."
    )


def _of_xlsx(file: BinaryIO, wanted: str | None, block: CellRange, cells: str) -> SheetCells:
    from openpyxl.utils import get_column_letter

    from memento_documents.workbook import opened

    with opened(file) as book:
        sheet = _sheet(book, wanted)
        title, part = sheet.title, str(sheet._worksheet_path)
        bounds = _bounds(block, sheet.max_row, sheet.max_column)
        theme = theme_colors(book.loaded_theme)
        palette: list[str] = list(getattr(book, "_colors", ()))
        shown = [[_facts(cell, theme, palette) for cell in row] for row in sheet.iter_rows(*bounds)]
    with opened(file, formulas=True) as book:
        rows = book[title].iter_rows(*bounds)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        formulas = [[_formula(cell.value) for cell in row] for row in rows]  # pyright: ignore[reportUnknownVariableType]
    merged = {each.partition(":")[0]: each for each in _merged_ranges(file, part)}
    found: list[CellDetails] = []
    for down, row in enumerate(shown):
        for across, facts in enumerate(row):
            at = f"{get_column_letter(bounds[2] + across)}{bounds[0] + down}"
            formula = formulas[down][across] if down < len(formulas) and across < len(formulas[down]) else None
            details = CellDetails(at, formula=formula, merged=merged.get(at), **facts)
            if details != CellDetails(at, ""):
                found.append(details)
    return SheetCells(title, cells, found, [_CONDITIONAL])


def _of_others(file: BinaryIO, kind: Kind, wanted: str | None, block: CellRange, cells: str) -> SheetCells:
    from openpyxl.utils import get_column_letter

    from memento_documents.styled_cells import styled_sheets

    sheet = next(styled_sheets(file, kind, wanted))
    last_row, last_column = block.last_row or 1 << 20, block.last_column or 1 << 14
    inside: list[StyledCell] = []
    for cell in sheet.cells:  # to the end: merged ranges and notes come after the cells
        if block.first_row <= cell.row <= last_row and block.first_column <= cell.column <= last_column:
            inside.append(cell)
            if len(inside) > MAX_CELLS:
                raise Unreadable(f"That range has over {MAX_CELLS} cells that hold something; name a smaller one.")
    merged = {each.partition(":")[0]: each for each in sheet.merged}
    found: list[CellDetails] = []
    for cell in inside:
        at = f"{get_column_letter(cell.column)}{cell.row}"
        shown = display(cell.value, cell.number_format) if cell.shown is None else cell.shown
        value = None
        if isinstance(cell.value, int | float) and not isinstance(cell.value, bool) and display(cell.value) != shown:
            value = int(cell.value) if float(cell.value).is_integer() else cell.value
        found.append(CellDetails(at, shown, value, cell.formula, cell.fill, cell.font_color, cell.bold, merged.get(at)))
    return SheetCells(sheet.name, cells, found, [*sheet.notes, _CONDITIONAL])


def _sheet(book: Any, wanted: str | None) -> Any:
    sheets = [sheet for sheet in book.worksheets if wanted is None or sheet.title.casefold() == wanted.casefold()]
    if not sheets:
        names = ", ".join(repr(sheet.title) for sheet in book.worksheets)
        raise Unreadable(f"There is no sheet {wanted!r}; the workbook has: {names}.")
    return sheets[0]


def _bounds(block: CellRange, max_row: int | None, max_column: int | None) -> tuple[int, int, int, int]:
    """Of an open-ended range the sheet's own end, where it is known."""
    last_row = min(block.last_row or 1 << 20, max(max_row or 1 << 20, block.first_row))
    last_column = min(block.last_column or 1 << 14, max(max_column or 1 << 14, block.first_column))
    count = (last_row - block.first_row + 1) * (last_column - block.first_column + 1)
    if count > MAX_CELLS:
        raise Unreadable(f"That range has {count} cells, over {MAX_CELLS}; name a smaller one.")
    return block.first_row, last_row, block.first_column, last_column


def _facts(cell: Any, theme: list[str], palette: list[str]) -> dict[str, Any]:
    value = cell.value
    shown = display(value, getattr(cell, "number_format", None) or "General")
    facts: dict[str, Any] = {"shown": shown}
    if isinstance(value, int | float) and not isinstance(value, bool) and str(value) != shown:
        facts["value"] = value
    if not getattr(cell, "has_style", False):
        return facts
    fill, font = cell.fill, cell.font
    if fill is not None and fill.fill_type:
        # A solid fill is painted in its foreground colour (§18.8.32).
        stops = getattr(fill, "stop", None)
        facts["fill"] = resolve_color(stops[0].color if stops else getattr(fill, "fgColor", None), theme, palette)
    if font is not None:
        color = resolve_color(font.color, theme, palette)
        facts["font_color"] = None if color == "000000" else color
        facts["bold"] = bool(font.b)
    return facts


def _formula(value: Any) -> str | None:
    text = getattr(value, "text", value)  # an array formula is an object
    return text if isinstance(text, str) and text.startswith("=") else None


def resolve_color(color: Any, theme: list[str], palette: list[str]) -> str | None:
    """RRGGBB, or None where it is the default or means nothing."""
    if color is None:
        return None
    if color.type == "rgb" and isinstance(color.rgb, str):
        base = color.rgb[-6:] if re.fullmatch(r"[0-9A-Fa-f]{6}|[0-9A-Fa-f]{8}", color.rgb) else None
    elif color.type == "theme" and isinstance(color.theme, int):
        base = theme[color.theme] if 0 <= color.theme < len(theme) else None
    elif color.type == "indexed" and isinstance(color.indexed, int):
        from openpyxl.styles.colors import COLOR_INDEX

        colors = palette or list(COLOR_INDEX)
        base = colors[color.indexed][-6:] if 0 <= color.indexed < len(colors) else None  # 64 and 65: the system's
    else:
        base = None
    return None if base is None else _tinted(base.upper(), float(color.tint or 0.0))


def _tinted(rgb: str, tint: float) -> str:
    """Excel's tint changes the lightness of hue-lightness-saturation: towards black below zero, white above.

    Computed in 240 steps as Windows does; within 2 of 255 of what Excel itself shows (its palettes, eleven compared).
    """
    if not tint:
        return rgb
    parts = colorsys.rgb_to_hls(*(int(rgb[at : at + 2], 16) / 255 for at in (0, 2, 4)))
    hue, lightness, saturation = (round(part * _HLS_STEPS) for part in parts)
    lightness = round(lightness * (1 + tint) if tint < 0 else lightness * (1 - tint) + _HLS_STEPS * tint)
    mixed = colorsys.hls_to_rgb(
        hue / _HLS_STEPS, min(max(lightness, 0), _HLS_STEPS) / _HLS_STEPS, saturation / _HLS_STEPS
    )
    return "".join(f"{int(part * 255 + 0.5):02X}" for part in mixed)


def theme_colors(theme: Any) -> list[str]:
    """The theme's twelve colours in Excel's order; Office's own where the workbook has none, or a broken one."""
    office = ["FFFFFF", "000000", "E7E6E6", "44546A", "4472C4", "ED7D31", "A5A5A5", "FFC000", "5B9BD5", "70AD47",
              "0563C1", "954F72"]  # fmt: skip
    if not theme or b"<!ENTITY" in theme:
        return office
    try:
        scheme = fromstring(theme).find(f"{_A}themeElements/{_A}clrScheme")
    except ParseError:
        return office
    found: list[str] = []
    for name, otherwise in zip(_THEME_ORDER, office, strict=True):
        entry = None if scheme is None else scheme.find(f"{_A}{name}")
        color = entry[0] if entry is not None and len(entry) else None
        rgb = None if color is None else color.get("lastClr") or color.get("val")
        found.append(rgb.upper() if rgb and re.fullmatch(r"[0-9A-Fa-f]{6}", rgb) else otherwise)
    return found


def _merged_ranges(file: BinaryIO, part: str) -> list[str]:
    """They stand after the sheet's rows; the streaming reader never gets there."""
    file.seek(0)
    tail = b""
    with zipfile.ZipFile(file) as archive, archive.open(part.lstrip("/")) as sheet:
        while piece := sheet.read(_MERGE_LOOK_BYTES):
            tail = tail[-_MERGE_LOOK_BYTES:] + piece
    return [each.decode() for each in _MERGED.findall(tail)]
