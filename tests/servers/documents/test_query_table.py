"""memento_documents: query_table, through the server."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult, TextContent

from memento_documents.cursor import to_cursor
from memento_documents.server import Settings, build_server
from support.document_files import make_pdf, make_xlsx

pytestmark = pytest.mark.anyio


async def query(folder: Path, source: str, sql: str, **more: Any) -> CallToolResult:
    settings = Settings(folders=(folder,), **more.pop("settings", {}))
    async with Client(build_server(settings)) as client:
        return await client.call_tool("query_table", {"source": source, "sql": sql, **more})


async def rows(folder: Path, source: str, sql: str, **more: Any) -> list[list[Any]]:
    result = await query(folder, source, sql, **more)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content["rows"]


async def refusal(folder: Path, sql: str, **more: Any) -> str:
    result = await query(folder, "sales.csv", sql, **more)
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sales.csv").write_text(
        'City,Units sold,Unit price,Code\nOslo,10,"1,250.50",007\nBergen,3,99,\nOslo,5,20.25,12a\n', encoding="utf-8"
    )
    return tmp_path


async def test_numbers_are_numbers_blanks_are_null_and_codes_stay_text(folder: Path) -> None:
    assert await rows(folder, "sales.csv", "SELECT * FROM data") == [
        ["Oslo", 10, 1250.5, "007"],
        ["Bergen", 3, 99, None],
        ["Oslo", 5, 20.25, "12a"],
    ]


async def test_a_sum_by_group_is_right(folder: Path) -> None:
    sql = "SELECT city, sum(units_sold * unit_price) FROM data GROUP BY city ORDER BY 2 DESC"
    assert await rows(folder, "sales.csv", sql) == [["Oslo", 12606.25], ["Bergen", 297]]


async def test_the_answer_names_tables_columns_and_original_headers(folder: Path) -> None:
    result = await query(folder, "sales.csv", "SELECT city FROM data", max_rows=1)
    assert result.structured_content == {
        "source": "sales.csv",
        "columns": ["city"],
        "rows": [["Oslo"]],
        "total": 3,
        "next_cursor": to_cursor(1, "query_table", "sales.csv", "SELECT city FROM data", None),
        "tables": [
            {
                "name": "data",
                "columns": ["city", "units_sold", "unit_price", "code"],
                "headers": ["City", "Units sold", "Unit price", "Code"],
                "rows": 3,
            }
        ],
    }


async def test_a_quoted_original_header_means_its_column(folder: Path) -> None:
    """SQLite alone would take an unknown name in double quotes for a text, and sum it to zero."""
    assert await rows(folder, "sales.csv", """SELECT sum("Units sold"), 'City' FROM data""") == [[18, "City"]]


async def test_decimal_commas_of_a_semicolon_file_are_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "euro.csv").write_text("Ort;Preis;Menge\nBonn;1,5;2\nKiel;1.250,75;3\n", encoding="utf-8")
    assert await rows(tmp_path, "euro.csv", "SELECT sum(preis), sum(menge) FROM data") == [[1252.25, 5]]


async def test_sheets_are_tables_and_can_be_joined(tmp_path: Path) -> None:
    make_xlsx(
        tmp_path / "book.xlsx",
        {
            "Sales 2024": [["Report of sales"], [], ["City", "Sold on", "Total"], ["Oslo", dt.date(2024, 5, 1), 7]],
            "Cities": [["City", "Country"], ["Oslo", "Norway"]],
        },
    )
    sql = "SELECT country, sold_on, total FROM sales_2024 JOIN cities USING (city)"
    assert await rows(tmp_path, "book.xlsx", sql) == [["Norway", "2024-05-01", 7]]


async def test_one_sheet_can_be_loaded_alone(tmp_path: Path) -> None:
    make_xlsx(tmp_path / "book.xlsx", {"A": [["x"], [1]], "B": [["x"], [2]]})
    result = await query(tmp_path, "book.xlsx", "SELECT name FROM sqlite_schema", sheet="B")
    assert result.structured_content is not None
    assert result.structured_content["rows"] == [["b"]]


async def test_double_unnamed_and_reserved_headers_get_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("Name,Name,,Group,2024\na,b,c,d,e\n", encoding="utf-8")
    result = await query(tmp_path, "odd.csv", "SELECT name, name_2, column_3, _group, _2024 FROM data")
    assert result.structured_content is not None
    assert result.structured_content["rows"] == [["a", "b", "c", "d", "e"]]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE data",
        "DELETE FROM data",
        "UPDATE data SET city = 'x'",
        "CREATE TABLE t (x)",
        "ATTACH '/tmp/x.db' AS x",
        "PRAGMA database_list",
        "VACUUM INTO '/tmp/memento-documents-test.db'",
        "SELECT load_extension('/tmp/x.so')",
        "WITH x AS (SELECT 1) INSERT INTO data SELECT 1,2,3,4",
    ],
)
async def test_anything_but_a_select_is_refused(folder: Path, sql: str) -> None:
    told = await refusal(folder, sql)
    assert "Only SELECT is allowed." in told or "SQL error" in told
    assert not Path("/tmp/memento-documents-test.db").exists()


async def test_two_statements_are_refused(folder: Path) -> None:
    assert "One SELECT at a time." in await refusal(folder, "SELECT 1; SELECT 2")


async def test_a_wrong_column_is_an_error_that_lists_the_right_ones(folder: Path) -> None:
    assert await refusal(folder, "SELECT price FROM data") == (
        "Error executing tool query_table: 'sales.csv': SQL error: no such column: price. Tables: data (3 rows): "
        "city (header 'City'), units_sold (header 'Units sold'), unit_price (header 'Unit price'), "
        "code (header 'Code')."
    )


async def test_an_endless_query_is_stopped_by_its_time_limit(folder: Path) -> None:
    sql = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    told = await refusal(folder, sql, settings={"query_seconds": 0.2})
    assert "The query took longer than 0.2 s" in told


@pytest.mark.parametrize(
    "sql", ["SELECT zeroblob(1000000000)", "SELECT replace(hex(zeroblob(400000)), '00', 'xxxxxxxxxxxx')"]
)
async def test_a_huge_value_is_refused(folder: Path, sql: str) -> None:
    assert "too big" in await refusal(folder, sql)


async def test_an_answer_over_the_bound_is_refused_with_the_way_out(folder: Path) -> None:
    sql = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 900) SELECT x, 'many words' FROM n"
    assert "Select fewer columns or rows." in await refusal(folder, sql, settings={"max_chars": 1_000}, max_rows=900)


async def test_infinity_and_bytes_are_shown_as_text(folder: Path) -> None:
    assert await rows(folder, "sales.csv", "SELECT 9e999, x'00ff'") == [["inf", "<2 bytes>"]]


async def test_sql_on_a_pdf_is_an_error_that_says_what_to_use(tmp_path: Path) -> None:
    make_pdf(tmp_path / "a.pdf", ["x"])
    result = await query(tmp_path, "a.pdf", "SELECT 1")
    assert result.is_error
    assert "Read it with read_document." in str(result.content[0])


async def test_a_csv_that_needs_more_memory_than_there_is_costs_one_line_and_not_the_server(folder: Path) -> None:
    (folder / "huge.csv").write_bytes(b"a,b,c,d\n" + b"1,2,3,4\n" * 3_000_000)
    async with Client(build_server(Settings(folders=(folder,), memory_megabytes=256))) as client:
        refused = await client.call_tool("query_table", {"source": "huge.csv", "sql": "SELECT count(*) FROM data"})
        answered = await client.call_tool("query_table", {"source": "sales.csv", "sql": "SELECT count(*) FROM data"})
    assert refused.is_error
    assert isinstance(refused.content[0], TextContent)
    assert "needs more than 268 MB of memory" in refused.content[0].text
    assert "\n" not in refused.content[0].text
    assert answered.structured_content is not None
    assert answered.structured_content["rows"] == [[3]]
