"""CSV and its relatives: which character parts the columns, and the rows.

Owns the choice of delimiter and the reading of rows as text. `tables.py` turns them into numbers and SQL.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from memento_documents import progress
from memento_documents.kinds import Unreadable
from memento_documents.plain_text import decode, find_encoding

__all__ = ["DELIMITERS", "Delimited", "DelimitedStream", "find_delimiter", "looks_like_table", "read_rows"]

DELIMITERS = (",", "\t", ";", "|")
_SAMPLED_ROWS = 60
_MIN_TABLE_ROWS = 3
_FIELD_LIMIT_CHARS = 10_000_000
_HEAD_BYTES = 256_000
"""What delimiter and encoding of a large file are told by."""
_ROWS_BETWEEN_REPORTS = 20_000


def find_delimiter(text: str) -> str:
    """The delimiter that gives the most rows of one same width, the wider table among equals; a comma if none does.

    `csv.Sniffer` is not used: it guesses from character frequencies and refuses files with one column.
    """
    return max(DELIMITERS, key=lambda delimiter: _fit(text, delimiter))


def looks_like_table(head: bytes) -> bool:
    """Whether text of no telling name is a table: three rows or more, all of one width above one."""
    text = decode(head)[0]
    text = text[: text.rfind("\n") + 1]  # the last line may be cut
    return any(
        share == 1 and width > 1 and rows >= _MIN_TABLE_ROWS
        for share, width, rows in (_fit(text, delimiter) for delimiter in DELIMITERS)
    )


@dataclass(frozen=True)
class Delimited:
    """The rows of a delimited file, blank ones left out, and how they were written."""

    rows: list[list[str]]
    delimiter: str
    encoding: str


def read_rows(content: bytes) -> Delimited:
    """Read all rows as text."""
    text, encoding = decode(content)
    csv.field_size_limit(_FIELD_LIMIT_CHARS)
    delimiter = find_delimiter(text)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        return Delimited([row for row in rows if any(map(str.strip, row))], delimiter, encoding)
    except csv.Error as exc:
        raise Unreadable(f"Line {rows.line_num} of the table is damaged: {exc}.") from exc


class DelimitedStream:
    """A file's rows one by one, blank ones left out: the first of a gigabyte come at once.

    Delimiter and encoding are told by the beginning alone.

    Raises:
        Unreadable: the beginning is in no known encoding.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        self._size = file.seek(0, io.SEEK_END)
        self._python_encoding = find_encoding(head)
        self.encoding = self._python_encoding.removesuffix("-sig")
        text = head.decode(self._python_encoding, errors="replace")
        self.delimiter = find_delimiter(text.replace("\r\n", "\n").replace("\r", "\n"))

    def rows(self) -> Iterator[list[str]]:
        """All rows from the first.

        Raises:
            Unreadable: a line is damaged.
        """
        self._file.seek(0)
        text = io.TextIOWrapper(self._file, self._python_encoding, errors="replace")  # line ends become \n
        csv.field_size_limit(_FIELD_LIMIT_CHARS)
        reader = csv.reader(text, delimiter=self.delimiter)
        try:
            for number, row in enumerate(reader):
                if any(map(str.strip, row)):
                    yield row
                if number % _ROWS_BETWEEN_REPORTS == _ROWS_BETWEEN_REPORTS - 1:
                    progress.report(self._file.tell() // 1_000_000, self._size // 1_000_000, "megabyte")
        except csv.Error as exc:
            raise Unreadable(f"Line {reader.line_num} of the table is damaged: {exc}.") from exc
        finally:
            text.detach()

    def count_lines(self) -> int:
        """How many lines the file has: more than rows where lines are blank or cells hold line ends."""
        self._file.seek(0)
        unit = len("\n".encode(f"{self.encoding}-le" if self.encoding in ("utf-16", "utf-32") else self.encoding))
        count, last = 0, b"\n"
        while piece := self._file.read(1 << 20):
            # Of a wide character that ends a line one byte is the line end's; others with that byte are rare.
            count += piece.count(b"\n")
            last = piece[-unit:]
        return count + (b"\n" not in last)


def _fit(text: str, delimiter: str) -> tuple[float, int, int]:
    """How well a delimiter fits: share of sampled rows with the commonest width above one, that width, rows sampled."""
    widths: list[int] = []
    try:
        for row in csv.reader(io.StringIO(text), delimiter=delimiter):
            if row:
                widths.append(len(row))
            if len(widths) == _SAMPLED_ROWS:
                break
    except csv.Error:
        return 0.0, 0, 0
    counts = Counter(width for width in widths if width > 1)
    if not counts:
        return 0.0, 1, len(widths)
    width, rows = max(counts.items(), key=lambda item: (item[1], item[0]))
    return rows / len(widths), width, len(widths)
