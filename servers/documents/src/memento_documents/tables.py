"""Spreadsheets and delimited files as SQL tables, and the one SELECT a caller may run on them.

Owns table and column names, what counts as a number, and SQLite's leash: an authorizer that allows reading and
nothing else, a step budget, a cap on rows and on the size of a value. The process it runs in is `isolation`'s job.
"""

import datetime as dt
import itertools
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from memento_documents.cells import find_header
from memento_documents.kinds import Unreadable, detect_kind

__all__ = ["QueryResult", "Table", "load_tables", "query"]

_ALLOWED_ACTIONS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_STEPS_BETWEEN_CHECKS = 10_000
_MAX_VALUE_BYTES = 1_000_000
_COUNTED_SECONDS = 1.0
"""How long the rows after those returned are counted; a careless join has billions."""
_NUMBER = re.compile(r"[-+]?(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d*)?(?:[eE][-+]?\d+)?|[-+]?\.\d+(?:[eE][-+]?\d+)?")
_MAX_SAFE_INTEGER_DIGITS = 18
"""SQLite holds 64-bit integers; longer numbers (identifiers) stay text."""


@dataclass(frozen=True, slots=True)
class Table:
    """One sheet as SQL sees it. `columns` are SQL names, `headers` what the file calls them."""

    name: str
    sheet: str | None
    columns: list[str]
    headers: list[str]
    rows: int

    def describe(self) -> str:
        """One line: the table, its rows, its columns, original names where they differ."""
        named = [
            column if column == header or not header else f"{column} (header {header!r})"
            for column, header in zip(self.columns, self.headers, strict=True)
        ]
        return f"{self.name} ({self.rows} rows): {', '.join(named)}"


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Rows of a SELECT, at most as many as were asked for. `total` is None where counting all took too long."""

    columns: list[str]
    rows: list[list[int | float | str | None]]
    more: bool
    total: int | None
    tables: list[Table] = field(default_factory=list[Table])


def load_tables(file: BinaryIO, name: str, database: sqlite3.Connection, only: str | None = None) -> list[Table]:
    """Create one table per sheet (`data` for a delimited file), or for the one named `only`, and fill it.

    Raises:
        Unreadable: the file is no spreadsheet or table, is damaged, or holds no rows.
    """
    tables: list[Table] = []
    for sheet, rows in _sheets(file, name, only):
        if rows:
            tables.append(
                _create(database, _unused(_sql_name(sheet or "data", "sheet"), [t.name for t in tables]), sheet, rows)
            )
    if not tables:
        raise Unreadable("There are no rows in it.")
    return tables


def query(
    file: BinaryIO,
    name: str,
    sql: str,
    *,
    sheet: str | None = None,
    first_row: int = 0,
    max_rows: int,
    time_limit_seconds: float,
) -> QueryResult:
    """Load `file` into memory, run one SELECT, and return its rows from `first_row` (0-based) on.

    Raises:
        Unreadable: from `load_tables`, or the SQL is refused, wrong or too slow; the message lists tables and columns.
    """
    database = sqlite3.connect(":memory:")
    try:
        tables = load_tables(file, name, database, sheet)
        return _select(database, sql, tables, first_row, max_rows, time_limit_seconds)
    finally:
        database.close()


def _sheets(file: BinaryIO, name: str, only: str | None) -> list[tuple[str | None, Sequence[Sequence[object]]]]:
    match detect_kind(file, name):
        case "xlsx":
            from memento_documents.spreadsheet import refuse_sparse_bomb, sheet_values

            refuse_sparse_bomb(file)
            return [(name, [*rows]) for name, rows in sheet_values(file, only=only)]
        case "xls" | "xlsb" | "ods":
            from memento_documents.spreadsheet import sheet_values

            return [(name, [*rows]) for name, rows in sheet_values(file, only=only)]
        case "json" | "jsonl" as kind:
            from memento_documents.structured import record_tables

            return [*record_tables(file, kind)]
        case "table":
            from memento_documents.delimited import read_rows

            table = read_rows(file.read())
            number = _NumberReader(table.rows, table.delimiter)
            return [(None, [[number(cell) for cell in row] for row in table.rows])]
        case kind:
            raise Unreadable(
                f"SQL works on spreadsheets, CSV, TSV and lists of JSON records; this is {kind}. "
                "Read it with read_document."
            )


class _NumberReader:
    """Turns a cell into a number where it is one and nothing but; leading zeros and overlong digits are names.

    Where a comma is the decimal mark, columns are parted by semicolons: such a file with `1,5` and no `1.5` in it
    is read that way, all of it.
    """

    def __init__(self, rows: list[list[str]], delimiter: str) -> None:
        self._decimal_comma = delimiter == ";" and not any(
            re.fullmatch(r"[-+]?\d+\.\d{1,2}", cell.strip()) for row in rows for cell in row
        )

    def __call__(self, cell: str) -> str | int | float | None:
        text = cell.strip()
        if self._decimal_comma:
            text = text.translate(_SWAP_MARKS)
        if not text:
            return None
        digits = text.lstrip("+-")
        if not _NUMBER.fullmatch(text) or (len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()):
            return cell
        plain = text.replace(",", "")
        if re.fullmatch(r"[-+]?\d+", plain):
            return int(plain) if len(plain) <= _MAX_SAFE_INTEGER_DIGITS else cell
        return float(plain)


_SWAP_MARKS = str.maketrans({",": ".", ".": ","})


def _create(database: sqlite3.Connection, name: str, sheet: str | None, rows: Sequence[Sequence[object]]) -> Table:
    width = max(len(row) for row in rows)
    header = find_header(rows)
    headers = [""] * width if header is None else [_text(cell) for cell in [*rows[header], *[""] * width][:width]]
    columns: list[str] = []
    for index, text in enumerate(headers):
        columns.append(_unused(_sql_name(text, f"column_{index + 1}"), columns))
    body = rows if header is None else rows[header + 1 :]
    # No declared types: SQLite then keeps each value as it comes, and a column of numbers adds up.
    quoted = ", ".join(f'"{column}"' for column in columns)
    database.execute(f'CREATE TABLE "{name}" ({quoted})')
    filled = (row for row in body if any(cell not in (None, "") for cell in row))
    database.executemany(
        f'INSERT INTO "{name}" VALUES ({", ".join("?" * width)})',
        ([_stored(cell) for cell in [*row, *[None] * (width - len(row))]] for row in filled),
    )
    (count,) = database.execute(f'SELECT count(*) FROM "{name}"').fetchone()
    return Table(name, sheet, columns, headers, count)


def _text(cell: object) -> str:
    return "" if cell is None else " ".join(str(cell).split())


def _stored(cell: object) -> int | float | str | None:
    match cell:
        case bool():
            return int(cell)
        case int():
            return cell if abs(cell) < 2**63 else str(cell)
        case float():
            return int(cell) if cell.is_integer() and abs(cell) < 1e15 else cell
        case str():
            return cell or None
        case None:
            return None
        case dt.datetime():
            return cell.date().isoformat() if cell.time() == dt.time() else cell.isoformat(" ")
        case dt.date() | dt.time():
            return cell.isoformat()
        case _:
            return str(cell)


def _sql_name(text: str, otherwise: str) -> str:
    """`text` as a name that needs no quotes in SQL: letters, digits and underscores of any script."""
    name = re.sub(r"\W+", "_", text).strip("_").lower()[:60].rstrip("_")
    if not name:
        return otherwise
    return f"_{name}" if name[0].isdigit() or name.upper() in _RESERVED else name


# fmt: off
_RESERVED = frozenset({
    "ALL", "AND", "AS", "BETWEEN", "BY", "CASE", "CHECK", "COLUMN", "CREATE", "DEFAULT", "DELETE", "DISTINCT",
    "DROP", "ELSE", "EXCEPT", "EXISTS", "FROM", "GROUP", "HAVING", "IN", "INDEX", "INSERT", "INTERSECT", "INTO",
    "IS", "ISNULL", "JOIN", "LIMIT", "NOT", "NOTNULL", "NULL", "ON", "OR", "ORDER", "PRIMARY", "REFERENCES",
    "SELECT", "SET", "TABLE", "THEN", "TO", "TRANSACTION", "UNION", "UNIQUE", "UPDATE", "USING", "VALUES",
    "WHEN", "WHERE",
})
# fmt: on


def _unused(name: str, taken: Sequence[str]) -> str:
    number = 2
    unused = name
    while unused in taken:
        unused, number = f"{name}_{number}", number + 1
    return unused


def _select(
    database: sqlite3.Connection,
    sql: str,
    tables: list[Table],
    first_row: int,
    max_rows: int,
    time_limit_seconds: float,
) -> QueryResult:
    deadline = time.monotonic() + time_limit_seconds
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    database.set_authorizer(_authorize)
    database.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_CHECKS)
    help_line = "Tables: " + "; ".join(table.describe() for table in tables) + "."
    try:
        cursor = database.execute(_with_headers_as_columns(sql, tables))
        passed_over = sum(1 for _ in itertools.islice(cursor, first_row))
        rows = cursor.fetchmany(max_rows + 1)
    except (sqlite3.Error, sqlite3.Warning) as exc:
        raise Unreadable(f"{_reason(exc, time_limit_seconds)} {help_line}") from exc
    if cursor.description is None:
        raise Unreadable(f"Write one SELECT. {help_line}")
    total: int | None = None
    deadline = min(deadline, time.monotonic() + _COUNTED_SECONDS)
    with suppress(sqlite3.OperationalError):  # time is up; the rows are good all the same
        total = passed_over + len(rows) + sum(1 for _ in cursor)
    return QueryResult(
        [str(column[0]) for column in cursor.description],
        [[_shown(value) for value in row] for row in rows[:max_rows]],
        len(rows) > max_rows,
        total,
        tables,
    )


def _with_headers_as_columns(sql: str, tables: list[Table]) -> str:
    """Let `"Unit price"` mean the column `unit_price`: SQLite takes an unknown quoted name for a text."""
    columns = {
        header.casefold(): column
        for table in reversed(tables)
        for column, header in zip(table.columns, table.headers, strict=True)
    }

    def renamed(match: re.Match[str]) -> str:
        column = columns.get((match[1] or "").casefold())
        return f'"{column}"' if column and not match[0].startswith("'") else match[0]

    return re.sub(r"'(?:[^']|'')*'|\"([^\"]+)\"", renamed, sql)


def _authorize(action: int, _first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() == "load_extension":
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED_ACTIONS else sqlite3.SQLITE_DENY


def _reason(error: Exception, time_limit_seconds: float) -> str:
    text = str(error)
    if text == "interrupted":
        return f"The query took longer than {time_limit_seconds:g} s; narrow it down."
    if text in ("not authorized", "authorization denied") or "prohibited" in text:
        return "Only SELECT is allowed."
    if "one statement" in text:
        return "One SELECT at a time."
    return f"SQL error: {text.rstrip('.')}."


def _shown(value: object) -> int | float | str | None:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    assert value is None or isinstance(value, int | float | str)
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)  # not JSON
    return value
