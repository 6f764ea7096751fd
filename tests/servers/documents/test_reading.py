"""The parts of memento_documents that need no server: cells, delimiters, encodings, passages."""

import csv
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_documents.cells import CellRange, find_header, markdown_table, parse_range
from memento_documents.delimited import find_delimiter, read_rows
from memento_documents.html import html_to_text
from memento_documents.passages import find_passages
from memento_documents.plain_text import decode
from memento_documents.reading import Section, Unreadable, read_text
from support.document_files import make_pdf, make_xlsx


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("A1:D20", CellRange(1, 20, 1, 4)),
        ("b2", CellRange(2, 2, 2, 2)),
        ("A:C", CellRange(1, None, 1, 3)),
        ("5:12", CellRange(5, 12, 1, None)),
        ("$AA$3:$AB$4", CellRange(3, 4, 27, 28)),
    ],
)
def test_a_range_is_read_as_excel_writes_it(text: str, block: CellRange) -> None:
    assert parse_range(text) == block


@pytest.mark.parametrize("text", ["", ":", "A0", "D1:A1", "A5:A2", "A1:", "1A", "A1:B2:C3", "ZZZZ1", "A9999999"])
def test_what_is_no_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Unreadable, match=r"A1:D20|first before last"):
        parse_range(text)


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        pytest.param([["Item", "Price"], ["Pen", "1"]], 0, id="first row"),
        pytest.param([["Sales of the year"], [""], ["Item", "Price"], ["Pen", "1"]], 2, id="under a title"),
        pytest.param([["Item", "2023", "2024"], ["Pen", "1", "2"]], 0, id="years"),
        pytest.param([["1", "2"], ["3", "4"]], None, id="numbers only"),
        pytest.param([["Item", "Price"]], None, id="nothing below"),
        pytest.param([], None, id="empty"),
    ],
)
def test_the_header_is_the_row_that_names_the_columns(rows: list[list[str]], header: int | None) -> None:
    assert find_header(rows) == header


def test_titles_stay_above_the_table() -> None:
    assert markdown_table([["Sales"], ["Item", "Price"], ["Pen", "1"]]) == (
        "Sales\n\n| Item | Price |\n| --- | --- |\n| Pen | 1 |\n"
    )


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), min_size=1, max_size=8).map(
    lambda t: f"x{t}"
)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=3, max_size=20), st.sampled_from(",;\t|"))
def test_what_the_csv_module_writes_is_read_back(rows: list[list[str]], delimiter: str) -> None:
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    assert find_delimiter(written.getvalue()) == delimiter
    assert read_rows(written.getvalue().encode()).rows == rows


@given(st.text(st.characters(codec="utf-8")))
def test_utf_8_is_decoded_exactly(text: str) -> None:
    expected = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    assert decode(text.encode())[0] == expected


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(content: bytes) -> None:
    with suppress(Unreadable):
        assert isinstance(decode(content)[0], str)


@given(st.text(alphabet="<>/ abdivtlescrp\"'=!-&;\n", max_size=200))
def test_any_html_becomes_text(html: str) -> None:
    assert html_to_text(html).endswith("\n")


@given(st.lists(st.text(alphabet="ab .\n", max_size=1500), max_size=4), st.text(alphabet="ab ", max_size=10))
def test_a_passage_stands_where_it_says_it_does(sections: list[str], query: str) -> None:
    for hit in find_passages(sections, query):
        assert hit.text == sections[hit.section][hit.start :][: len(hit.text) + 600].strip()[: len(hit.text)]


def test_the_library_function_returns_pages_sheets_or_one_section(tmp_path: Path) -> None:
    make_pdf(tmp_path / "a.pdf", ["One", "Two"], outline=[(2, "Second")])
    make_xlsx(tmp_path / "b.xlsx", {"S": [["x", "y"], [1, 2]]})
    (tmp_path / "c.md").write_text("# Title\nText\n", encoding="utf-8")
    assert read_text(tmp_path / "a.pdf") == [Section("One", page=1), Section("Two", page=2, title="Second")]
    assert read_text(tmp_path / "b.xlsx") == [
        Section("| x | y |\n| --- | --- |\n| 1 | 2 |\n", sheet="S", rows=2, columns=2)
    ]
    assert read_text(tmp_path / "c.md") == [Section("# Title\nText\n")]
