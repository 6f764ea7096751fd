"""What a long text is and holds, in a few lines: the shape of JSON, the columns of a table, the headings of a page.

Owns the telling of kinds and the bounded description. It never runs anything on the text but parsers of the standard
library, and a text of an unknown kind is simply so many lines.
"""

import csv
import io
import json
import re
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["Table", "as_json", "as_table", "synopsis"]

_MAX_CHARS = 900
_MAX_KEYS = 12
_MAX_DEPTH = 4
_MAX_NAME_CHARS = 40
_MIN_TABLE_ROWS = 3
_HEADING = re.compile(r"^(#{1,6} .{1,200})$", re.MULTILINE)
_RULE_ROW = re.compile(r"^\s*\|?[\s:|-]+\|?\s*$")


@dataclass(frozen=True)
class Table:
    """Rows of cells under one heading row; every row has as many cells as there are columns."""

    columns: list[str]
    rows: list[list[str]]


def synopsis(text: str) -> str:
    """Describe `text` in at most 900 characters."""
    parsed = as_json(text)
    if parsed is not None:
        return _cut(f"JSON: {_shape(parsed, 0)}")
    table = as_table(text)
    if table is not None:
        return _cut(f"table: {len(table.rows):,} rows, columns {', '.join(map(_name, table.columns))}")
    lines = text.count("\n") + 1
    headings = [match[1].strip() for match in _HEADING.finditer(text)]
    if headings:
        return _cut(f"text: {lines:,} lines, {len(headings)} headings: {'; '.join(headings)}")
    return f"text: {lines:,} lines"


def as_json(text: str) -> Any | None:
    """The JSON object or list that `text` is, or that its lines are (JSON Lines); `None` when it is neither."""
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return None
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError):
        pass
    try:
        rows = [json.loads(line) for line in stripped.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None
    return rows if len(rows) > 1 else None


def as_table(text: str) -> Table | None:
    """The table that `text` is, as CSV, TSV, semicolons or a Markdown table; `None` when it is none."""
    first = text.lstrip("\n").split("\n", 1)[0]
    if first.lstrip().startswith("|"):
        rows = [_markdown_cells(line) for line in text.splitlines() if line.strip() and not _RULE_ROW.match(line)]
    else:
        counts = {mark: first.count(mark) for mark in ("\t", ";", ",", "|")}
        separator = max(counts, key=lambda mark: counts[mark])
        if not counts[separator]:
            return None
        try:
            rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
        except csv.Error:
            return None
    if len(rows) < _MIN_TABLE_ROWS or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        return None
    return Table([cell.strip() for cell in rows[0]], rows[1:])


def _markdown_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _shape(value: Any, depth: int) -> str:
    if isinstance(value, dict):
        members = cast(dict[str, Any], value)
        if depth >= _MAX_DEPTH:
            return f"object of {len(members)}"
        shown = [f"{_name(key)}: {_shape(member, depth + 1)}" for key, member in list(members.items())[:_MAX_KEYS]]
        more = [f"… {len(members) - _MAX_KEYS} more"] if len(members) > _MAX_KEYS else []
        return "{" + ", ".join([*shown, *more]) + "}"
    if isinstance(value, list):
        items = cast(list[Any], value)
        return f"list of {len(items):,} × {_shape(items[0], depth + 1)}" if items else "empty list"
    if value is None:
        return "null"
    return {bool: "true/false", int: "number", float: "number", str: "text"}[type(value)]


def _name(text: str) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= _MAX_NAME_CHARS else folded[: _MAX_NAME_CHARS - 1] + "…"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 1] + "…"
