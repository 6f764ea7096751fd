"""What a parsing child does: the functions that `isolation` runs by name, in and out as plain JSON values."""

import dataclasses
from typing import Any, BinaryIO

from memento_documents.reading import read_file
from memento_documents.tables import query

__all__ = ["query_table", "read_document"]


def read_document(file: BinaryIO, name: str, sheet: str | None = None, cells: str | None = None) -> dict[str, Any]:
    """`reading.read_file` as JSON."""
    return dataclasses.asdict(read_file(file, name, sheet=sheet, cells=cells))


def query_table(
    file: BinaryIO, name: str, sql: str, sheet: str | None, max_rows: int, time_limit_seconds: float
) -> dict[str, Any]:
    """`tables.query` as JSON."""
    return dataclasses.asdict(
        query(file, name, sql, sheet=sheet, max_rows=max_rows, time_limit_seconds=time_limit_seconds)
    )
