"""Binary workbooks of Excel 2007 and later (XLSB): values, number formats, colours, merged ranges and formulas.

Reads the records of [MS-XLSB] 2.4 directly; section numbers below are of it. Formulas are told from their tokens
(2.2.2); those with a token that is not among `_Formula`'s are counted and left out.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from memento_documents.kinds import Unreadable
from memento_documents.package import Package, open_package
from memento_documents.spreadsheet_functions import FUNCTIONS
from memento_documents.styled_cells import StyledCell, StyledSheet, as_moment

__all__ = ["rk_number", "xlsb_sheets"]

_MAX_TEXT_CHARS = 32_767
"""Excel's own limit for a cell."""
_ERRORS = {0x00: "#NULL!", 0x07: "#DIV/0!", 0x0F: "#VALUE!", 0x17: "#REF!", 0x1D: "#NAME?", 0x24: "#NUM!", 0x2A: "#N/A"}
_ROW, _BLANK, _RK, _ERROR, _BOOL, _REAL, _TEXT, _SHARED_TEXT = range(8)
_FORMULA_TEXT, _FORMULA_NUMBER, _FORMULA_BOOL, _FORMULA_ERROR = range(8, 12)
_RICH_TEXT = 62
_CELLS = frozenset({*range(_BLANK, _FORMULA_ERROR + 1), _RICH_TEXT})
_SIZE, _MERGED, _SHEET, _PROPERTIES, _STRING, _FONT, _FORMAT, _FILL, _LOOK, _LOOKS, _LOOKS_END = (
    148, 176, 156, 153, 19, 43, 44, 45, 47, 617, 618,
)  # fmt: skip


def xlsb_sheets(file: BinaryIO) -> Iterator[StyledSheet]:
    """Yield the sheets with their cells.

    Raises:
        Unreadable: damaged, or a part unpacks to too much.
    """
    try:
        with open_package(file, "The workbook") as package:
            book = _Book(package)
            for name, part in book.sheets:
                content = package.read(part)
                if content is None:
                    raise Unreadable(f"The workbook has no part {part!r}; it is damaged.")
                sheet = StyledSheet(name, iter(()))
                sheet.cells = _cells(book, content, sheet)
                yield sheet
    except (struct.error, IndexError) as exc:
        raise Unreadable("The workbook is damaged; open it in Excel and save it again.") from exc


def _records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and size are in seven-bit groups, the lowest first (2.1.4)."""
    at = 0
    while at < len(content):
        kind = content[at]
        at += 1
        if kind & 0x80:
            kind = kind & 0x7F | (content[at] & 0x7F) << 7
            at += 1
        size = shift = 0
        while True:
            size |= (content[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not content[at - 1] & 0x80 or shift > 21:
                break
        yield kind, content[at : at + size]
        at += size


def _text(body: bytes, at: int) -> tuple[str, int]:
    """A wide string (2.5.168) and where it ends."""
    (length,) = struct.unpack_from("<I", body, at)
    if length == 0xFFFFFFFF:
        return "", at + 4
    end = at + 4 + 2 * min(length, _MAX_TEXT_CHARS)
    return body[at + 4 : end].decode("utf-16-le", errors="replace"), end


@dataclass(frozen=True)
class _Look:
    number_format: str = "General"
    fill: str | None = None
    font_color: str | None = None
    bold: bool = False


@dataclass
class _Book:
    """What all sheets share."""

    package: Package
    sheets: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Name and part."""
    from_1904: bool = False
    strings: list[str] = field(default_factory=list[str])
    looks: list[_Look] = field(default_factory=list[_Look])

    def __post_init__(self) -> None:
        relations = self.package.relations("xl/workbook.bin")
        for kind, body in _records(self.package.read("xl/workbook.bin") or b""):
            if kind == _PROPERTIES:
                self.from_1904 = bool(body[0] & 1)
            elif kind == _SHEET:
                relation, at = _text(body, 8)
                known, part = relations.get(relation, ("", ""))
                if known == "worksheet":  # not a chart or macro sheet
                    self.sheets.append((_text(body, at)[0], part))
        records = _records(self.package.read("xl/sharedStrings.bin") or b"")
        self.strings = [_text(body, 1)[0] for kind, body in records if kind == _STRING]
        self.looks = _looks(self.package)


def _looks(package: Package) -> list[_Look]:
    """One for each index that a cell may name (BrtXF in BrtBeginCellXFs, 2.4.876)."""
    from openpyxl.styles.numbers import BUILTIN_FORMATS

    from memento_documents.cell_details import theme_colors

    theme = theme_colors(package.read("xl/theme/theme1.xml"))
    formats: dict[int, str] = dict(BUILTIN_FORMATS)
    fonts: list[tuple[str | None, bool]] = []
    fills: list[str | None] = []
    looks: list[_Look] = []
    of_cells = False
    for kind, body in _records(package.read("xl/styles.bin") or b""):
        if kind == _FORMAT:
            formats[struct.unpack_from("<H", body)[0]] = _text(body, 2)[0]
        elif kind == _FONT:
            color = _color(body[12:20], theme)
            fonts.append((None if color == "000000" else color, struct.unpack_from("<H", body, 4)[0] >= 600))
        elif kind == _FILL:
            # A solid fill is painted in its foreground colour (2.4.679).
            fills.append(_color(body[4:12], theme) if struct.unpack_from("<I", body)[0] else None)
        elif kind in (_LOOKS, _LOOKS_END):
            of_cells = kind == _LOOKS
        elif kind == _LOOK and of_cells:
            number, font, fill = struct.unpack_from("<HHH", body, 2)
            looks.append(_Look(formats.get(number, "General"), fills[fill], *fonts[font]))
    return looks


def _color(body: bytes, theme: list[str]) -> str | None:
    """BrtColor (2.5.5): RRGGBB, or None for the default."""
    from openpyxl.styles import Color

    from memento_documents.cell_details import resolve_color

    kind, number, tint = body[0] >> 1, body[1], struct.unpack_from("<h", body, 2)[0] / 32767
    match kind:
        case 1:
            return resolve_color(Color(indexed=number, tint=tint), theme, [])
        case 2:
            return resolve_color(Color(rgb=body[4:7].hex().upper(), tint=tint), theme, [])
        case 3:
            return resolve_color(Color(theme=number, tint=tint), theme, [])
        case _:
            return None


def _cells(book: _Book, content: bytes, sheet: StyledSheet) -> Iterator[StyledCell]:
    row = untold = 0
    for kind, body in _records(content):
        if kind == _ROW:
            row = struct.unpack_from("<I", body)[0] + 1
        elif kind == _SIZE:
            sheet.total_rows = struct.unpack_from("<I", body, 4)[0] + 1
        elif kind == _MERGED:
            first_row, last_row, first, last = struct.unpack_from("<IIII", body)
            sheet.merged.append(f"{_at(first_row, first)}:{_at(last_row, last)}")
        elif kind in _CELLS:
            column, style = struct.unpack_from("<II", body)
            look = book.looks[style & 0xFFFFFF] if style & 0xFFFFFF < len(book.looks) else _Look()
            value, tokens = _value(book, kind, body)
            if isinstance(value, float):
                value = as_moment(value, look.number_format, from_1904=book.from_1904)
            formula = None if tokens is None else _Formula().told(tokens)
            untold += tokens is not None and formula is None
            if value is not None or look.fill:
                yield StyledCell(
                    row, column + 1, value, look.number_format, None, formula, look.fill, look.font_color, look.bold
                )
    if untold:
        sheet.notes.append(f"{untold} formulas use parts that are not read here and are left out.")


def _at(row: int, column: int) -> str:
    from openpyxl.utils import get_column_letter

    return f"{get_column_letter(min(column, 16_383) + 1)}{row + 1}"


def _value(book: _Book, kind: int, body: bytes) -> tuple[object, bytes | None]:
    """The value, and a formula's tokens (2.4.674 and following)."""
    value: object = None
    end = 8
    if kind == _RK:
        value = rk_number(struct.unpack_from("<I", body, 8)[0])
    elif kind in (_ERROR, _FORMULA_ERROR):
        value, end = _ERRORS.get(body[8], "#ERR"), 9
    elif kind in (_BOOL, _FORMULA_BOOL):
        value, end = bool(body[8]), 9
    elif kind in (_REAL, _FORMULA_NUMBER):
        value, end = struct.unpack_from("<d", body, 8)[0], 16
    elif kind == _SHARED_TEXT:
        number = struct.unpack_from("<I", body, 8)[0]
        value = book.strings[number] if number < len(book.strings) else ""
    elif kind == _RICH_TEXT:
        value = _text(body, 9)[0]
    elif kind != _BLANK:
        value, end = _text(body, 8)
    if kind not in range(_FORMULA_TEXT, _FORMULA_ERROR + 1):
        return value, None
    (length,) = struct.unpack_from("<I", body, end + 2)  # two bytes of flags before it
    return value, body[end + 6 : end + 6 + length]


def rk_number(number: int) -> float:
    """A number in 30 bits (2.5.122): an integer or the upper part of a double, maybe in hundredths."""
    if number & 2:
        value = float(struct.unpack("<i", struct.pack("<I", number))[0] >> 2)
    else:
        (value,) = struct.unpack("<d", struct.pack("<II", 0, number & 0xFFFFFFFC))
    return value / 100 if number & 1 else value


_OPERATORS = {0x03: "+", 0x04: "-", 0x05: "*", 0x06: "/", 0x07: "^", 0x08: "&", 0x09: "<", 0x0A: "<=", 0x0B: "=",
              0x0C: ">=", 0x0D: ">", 0x0E: "<>", 0x0F: " ", 0x10: ",", 0x11: ":"}  # fmt: skip


class _Formula:
    """Tokens in reverse Polish order to text. Parentheses are tokens of their own, so that none are made up."""

    def __init__(self) -> None:
        self._stack: list[str] = []

    def told(self, tokens: bytes) -> str | None:
        """The formula with its equals sign, or None when there is a token that is not known here."""
        at = 0
        try:
            while at < len(tokens):
                size = self._take(tokens[at], tokens, at + 1)
                if size is None:
                    return None
                at += 1 + size
            return f"={self._stack[0]}" if len(self._stack) == 1 else None
        except (struct.error, IndexError):
            return None

    def _take(self, token: int, tokens: bytes, at: int) -> int | None:  # noqa: C901 - one case per kind of token
        """Apply one token; return how many bytes belong to it."""
        stack = self._stack
        if token in _OPERATORS:
            right, left = stack.pop(), stack.pop()
            stack.append(f"{left}{_OPERATORS[token]}{right}")
            return 0
        if token >= 0x20:
            return self._classed(token & 0x1F | 0x20, tokens, at)
        match token:
            case 0x12 | 0x13:
                stack.append(("+" if token == 0x12 else "-") + stack.pop())
                return 0
            case 0x14:
                stack.append(stack.pop() + "%")
                return 0
            case 0x15:
                stack.append(f"({stack.pop()})")
                return 0
            case 0x16:
                stack.append("")
                return 0
            case 0x17:
                (length,) = struct.unpack_from("<H", tokens, at)
                text = tokens[at + 2 : at + 2 + 2 * length].decode("utf-16-le", errors="replace")
                stack.append('"' + text.replace('"', '""') + '"')
                return 2 + 2 * length
            case 0x19:
                return self._attribute(tokens, at)
            case 0x1C:
                stack.append(_ERRORS.get(tokens[at], "#ERR"))
                return 1
            case 0x1D:
                stack.append("TRUE" if tokens[at] else "FALSE")
                return 1
            case 0x1E:
                stack.append(str(struct.unpack_from("<H", tokens, at)[0]))
                return 2
            case 0x1F:
                stack.append(f"{struct.unpack_from('<d', tokens, at)[0]:.15g}")
                return 8
            case _:
                return None

    def _attribute(self, tokens: bytes, at: int) -> int | None:
        if tokens[at] & 0x10:  # a SUM of one argument has a token of its own
            self._stack.append(f"SUM({self._stack.pop()})")
        elif tokens[at] & 0x04:  # CHOOSE with its jump table
            return 3 + 2 * (struct.unpack_from("<H", tokens, at + 1)[0] + 1)
        return 3

    def _classed(self, token: int, tokens: bytes, at: int) -> int | None:
        """Tokens that come in three classes: reference, value, array."""
        match token:
            case 0x21 | 0x22:
                has_count = token == 0x22
                (number,) = struct.unpack_from("<H", tokens, at + has_count)
                name, count = FUNCTIONS.get(number & 0x7FFF, (None, None))
                count = tokens[at] & 0x7F if has_count else count
                if name is None or count is None:
                    return None
                taken = [self._stack.pop() for _ in range(count)]
                self._stack.append(f"{name}({','.join(reversed(taken))})")
                return 2 + has_count
            case 0x24:
                row, column = struct.unpack_from("<IH", tokens, at)
                self._stack.append(_reference(row, column))
                return 6
            case 0x25:
                first, last, left, right = struct.unpack_from("<IIHH", tokens, at)
                self._stack.append(f"{_reference(first, left)}:{_reference(last, right)}")
                return 12
            case 0x2A:
                self._stack.append("#REF!")
                return 6
            case _:
                return None


def _reference(row: int, column: int) -> str:
    """RgceLoc (2.5.97.89): the two upper bits of the column say what is relative."""
    from openpyxl.utils import get_column_letter

    letters = get_column_letter((column & 0x3FFF) + 1)
    return f"{'' if column & 0x4000 else '$'}{letters}{'' if column & 0x8000 else '$'}{row + 1}"
