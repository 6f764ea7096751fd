"""Rows of cells: A1 ranges, the header row, and rows as a Markdown table.

Shared by spreadsheets and delimited files; knows neither format.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from memento_documents.kinds import Unreadable

__all__ = ["CellRange", "cut", "find_header", "markdown_table", "parse_range"]

_MAX_ROW = 1_048_576
_MAX_COLUMN = 16_384
_HEADER_WITHIN = 10
_HEADER_MIN_SHARE = 0.6
"""A header may leave some columns unnamed, a title fills one or two cells."""


@dataclass(frozen=True)
class CellRange:
    """A block of cells, 1-based and inclusive; `None` is open-ended."""

    first_row: int
    last_row: int | None
    first_column: int
    last_column: int | None


def parse_range(text: str) -> CellRange:
    """Read `B2:D20`, `A:C`, `5:12` or `B2`.

    Raises:
        Unreadable: it is none of these.
    """
    match = re.fullmatch(r"\$?([A-Za-z]{0,3})\$?(\d{0,7})(?::\$?([A-Za-z]{0,3})\$?(\d{0,7}))?", text.strip())
    if match is None or not (match[1] or match[2]) or (match[3] == "" and match[4] == ""):
        raise Unreadable(f"{text!r} is no cell range; write it as 'A1:D20', 'A:C' or '5:12'.")
    single = match[3] is None
    first_column, first_row = _column(match[1]) or 1, int(match[2] or 1)
    last_column = _column(match[1] if single else match[3])
    last_row = int(match[2] if single else match[4]) if (match[2] if single else match[4]) else None
    if (
        not 1 <= first_row <= (last_row or _MAX_ROW) <= _MAX_ROW
        or not first_column <= (last_column or _MAX_COLUMN) <= _MAX_COLUMN
    ):
        raise Unreadable(f"{text!r} is no cell range of a sheet (rows 1-{_MAX_ROW}, columns A-XFD, first before last).")
    return CellRange(first_row, last_row, first_column, last_column)


def _column(letters: str) -> int | None:
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number or None


def cut(rows: list[list[str]], block: CellRange) -> list[list[str]]:
    """Return the part of `rows` inside `block`; cells that are not there are left out."""
    return [row[block.first_column - 1 : block.last_column] for row in rows[block.first_row - 1 : block.last_row]]


def find_header(rows: Sequence[Sequence[object]]) -> int | None:
    """The index of the row that names the columns, or None when there is none to be seen.

    The first row near the top that is nearly as wide as the widest and holds only words, or years among words;
    narrower rows above it are titles and notes.
    """
    top = [[cell for cell in row if cell not in (None, "")] for row in rows[:_HEADER_WITHIN]]
    widest = max(map(len, top), default=0)
    for index, filled in enumerate(top[: len(rows) - 1]):
        if widest and len(filled) >= widest * _HEADER_MIN_SHARE:
            words = sum(not _is_number(cell) for cell in filled)
            is_header = words and all(_is_year(cell) for cell in filled if _is_number(cell))
            return index if is_header else None
    return None


def _is_number(cell: object) -> bool:
    return not isinstance(cell, str) or re.fullmatch(r"\s*[-+]?[\d.,]+\s*%?\s*", cell) is not None


def _is_year(cell: object) -> bool:
    return re.fullmatch(r"(?:1[89]|20)\d\d", str(cell).strip()) is not None


def markdown_table(rows: Sequence[Sequence[str]], *, header: int | None = None) -> str:
    """Rows as a Markdown table; its rule stands under the header row, or under an empty head when there is none.

    `header` is the index of the header row where the caller knows it; otherwise it is looked for. Titles and notes
    above it stay above the table as lines.
    """
    width = max((len(row) for row in rows), default=0)
    if not width:
        return ""
    header = find_header(rows) if header is None else header
    above = [] if header is None else [" ".join(cell for cell in row if cell) for row in rows[:header]]
    head = [""] * width if header is None else rows[header]
    body = rows if header is None else rows[header + 1 :]
    lines = [line for line in above if line]
    lines += [""] if lines else []
    lines += [_line(head, width), "|" + " --- |" * width, *(_line(row, width) for row in body)]
    return "\n".join(lines) + "\n"


def _line(row: Sequence[str], width: int) -> str:
    cells = [*row, *[""] * (width - len(row))]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ").strip() for cell in cells) + " |"
