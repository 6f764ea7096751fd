"""memento_documents: XLS, XLSB and ODS: number formats, colours, formulas, merged ranges; and files with passwords."""

import importlib
import io
import struct
import sys
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from memento_documents.archive import open_member
from memento_documents.cell_details import read_cells
from memento_documents.kinds import Unreadable
from memento_documents.reading import read_file
from memento_documents.styled_cells import styled_sheets
from support.document_files import zip_bytes
from support.office_files import ROWS, ods_bytes, odt_bytes, xls_bytes
from support.xlsb_file import XlsbCell, xlsb_bytes


def details(content: bytes, cells: str) -> dict[str, dict[str, Any]]:
    """Each cell's facts by its name, those that are absent left out."""
    found: dict[str, dict[str, Any]] = {}
    for cell in read_cells(io.BytesIO(content), "x", None, cells).cells:
        facts = {name: getattr(cell, name) for name in cell.__dataclass_fields__ if name != "cell"}
        found[cell.cell] = {name: value for name, value in facts.items() if value not in (None, False)}
    return found


def text(content: bytes, **choice: Any) -> str:
    return read_file(io.BytesIO(content), "x", **choice).sections[0].text


def styled_xls() -> bytes:
    import xlwt

    book: Any = xlwt.Workbook()
    easy: Any = importlib.import_module("xlwt").easyxf
    sheet = book.add_sheet("Old")
    sheet.write(0, 0, "Blue", easy("pattern: pattern solid, fore_colour blue; font: bold on, colour white"))
    sheet.write(0, 1, 0.125, easy(num_format_str="0.0%"))
    sheet.write(0, 2, 45352, easy(num_format_str="yyyy-mm-dd"))
    sheet.write(1, 0, 4)
    sheet.write(1, 1, xlwt.Formula('SUM(A2;3)*2&" ships"'))
    sheet.write(2, 1, xlwt.Formula("IF($A$2>1;A2/B1;-A2^2)"))
    sheet.write_merge(3, 4, 0, 2, "wide")
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def test_an_xls_workbook_gives_formats_colours_formulas_and_merged_ranges() -> None:
    assert details(styled_xls(), "A1:C5") == {
        "A1": {"shown": "Blue", "fill": "0000FF", "font_color": "FFFFFF", "bold": True},
        "B1": {"shown": "12.5%", "value": 0.125},
        "C1": {"shown": "2024-03-01"},
        "A2": {"shown": "4"},
        "B2": {"shown": "", "formula": '=SUM(A2,3)*2&" ships"'},
        "B3": {"shown": "", "formula": "=IF($A$2>1,A2/B1,-A2^2)"},
        "A4": {"shown": "wide", "merged": "A4:C5"},
    }
    assert text(styled_xls()).splitlines()[2] == "| Blue | 12.5% | 2024-03-01 |"


def test_without_xlrd_an_xls_workbook_gives_its_values_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing_found(_: str) -> None:
        return None

    monkeypatch.setitem(sys.modules, "xlrd", None)
    monkeypatch.setattr("importlib.util.find_spec", nothing_found)
    document = read_file(io.BytesIO(styled_xls()), "x")
    assert "| Blue | 0.125 |" in document.sections[0].text
    assert document.notes == [
        "Values alone: number formats, colours and formulas of XLS need xlrd (pip install 'memento-documents[xls]')."
    ]
    assert read_cells(io.BytesIO(styled_xls()), "x", None, "A1:B2").notes[0] == document.notes[0]


def ref(row: int, column: int) -> bytes:
    """A relative reference's token."""
    return b"\x44" + struct.pack("<IH", row, column | 0xC000)


def styled_xlsb() -> bytes:
    area = b"\x25" + struct.pack("<IIHH", 0, 1, 1, 1)  # $B$1:$B$2
    total = area + b"\x19\x10\x00\x00" + b"\x1e\x02\x00" + b"\x05"  # SUM, 2, *
    choice = ref(0, 1) + b"\x1e\x0a\x00\x0d" + b"\x17\x03\x00" + "big".encode("utf-16-le") + b"\x16"
    choice += b"\x42\x03\x01\x00"  # IF of three
    return xlsb_bytes(
        [
            [XlsbCell("Blue", fill=("rgb", "0000FF"), font_color=("indexed", 9), bold=True), XlsbCell(0.125, "0.0%")],
            [XlsbCell(None, fill=("theme", (4, 0.5999938962981048))), XlsbCell(45352.0, "yyyy-mm-dd")],
            [XlsbCell(9.0, formula=total), XlsbCell(1.0, formula=choice)],
            [XlsbCell(2.0, formula=b"\x23\x01\x00\x00\x00")],  # a defined name: not told
            ["wide"],
        ],
        merged=(4, 5, 0, 1),
    )


def test_an_xlsb_workbook_gives_formats_theme_colours_formulas_and_merged_ranges() -> None:
    assert details(styled_xlsb(), "A1:B6") == {
        "A1": {"shown": "Blue", "fill": "0000FF", "font_color": "FFFFFF", "bold": True},
        "B1": {"shown": "12.5%", "value": 0.125},
        "A2": {"shown": "", "fill": "B5C6E8"},  # accent 1 of Office's theme, 4472C4, 60 % lighter
        "B2": {"shown": "2024-03-01"},
        "A3": {"shown": "9", "formula": "=SUM($B$1:$B$2)*2"},
        "B3": {"shown": "1", "formula": '=IF(B1>10,"big",)'},
        "A4": {"shown": "2"},
        "A5": {"shown": "wide", "merged": "A5:B6"},
    }
    notes = read_cells(io.BytesIO(styled_xlsb()), "x", None, "A1:B6").notes
    assert notes[0] == "1 formulas use parts that are not read here and are left out."
    assert "| Blue | 12.5% |" in text(styled_xlsb())


@pytest.mark.parametrize(
    ("packed", "value"),
    [(0x3FF00000, 1.0), (0x3FF00001, 0.01), ((12 << 2) | 2, 12.0), ((1234 << 2) | 3, 12.34), (0xFFFFFFFE, -1.0)],
)
def test_a_number_in_thirty_bits_is_unpacked(packed: int, value: float) -> None:
    """The examples of [MS-XLSB] 2.5.122: a double's upper half or an integer, maybe in hundredths."""
    from memento_documents.xlsb import rk_number

    assert rk_number(packed) == value


def test_a_range_a_wrong_sheet_and_a_large_one_are_answered_as_for_xlsx() -> None:
    assert text(xlsb_bytes(ROWS), cells="A2:A3") == "| Turku |\n| --- |\n| Bergen |\n"
    with pytest.raises(Unreadable, match=r"There is no sheet 'Nope'; the workbook has: 'Ports'"):
        text(xlsb_bytes(ROWS), sheet="Nope")
    rows: list[list[object]] = [["number", "name"], *([at, f"row {at}"] for at in range(30_000))]
    large = read_file(io.BytesIO(xlsb_bytes(rows)), "x")
    assert large.is_cut
    assert large.notes[0].startswith("Sheet 'Ports' has 30001 rows; the first 100 are shown.")
    assert large.sections[0].text.count("\n") == 101
    (whole,) = read_file(io.BytesIO(xlsb_bytes(rows)), "x", whole=True).sections
    assert whole.text.splitlines()[29_000] == "28999 | row 28999"


def styled_ods() -> bytes:
    opendocument: Any = importlib.import_module("odf.opendocument")
    style, table, odf_text = (importlib.import_module(f"odf.{name}") for name in ("style", "table", "text"))
    document = opendocument.OpenDocumentSpreadsheet()
    base = style.Style(name="base", family="table-cell")
    base.addElement(style.TextProperties(color="#ffffff", fontweight="bold"))
    blue = style.Style(name="blue", family="table-cell", parentstylename="base")
    blue.addElement(style.TableCellProperties(backgroundcolor="#0000ff"))
    document.styles.addElement(base)
    document.automaticstyles.addElement(blue)
    sheet = table.Table(name="Map")
    formula = "of:=SUM([.B1:.B2];[Other.$A$1])*2"
    for row in (
        [("Blue", {"valuetype": "string", "stylename": blue}), ("12.5 %", {"valuetype": "percentage", "value": 0.125})],
        [
            ("", {"stylename": blue}),
            ("9", {"valuetype": "float", "value": 9, "formula": formula}),
        ],
        [("wide", {"valuetype": "string", "numbercolumnsspanned": 2, "numberrowsspanned": 2})],
        [("same", {"valuetype": "string", "numbercolumnsrepeated": 3})],
    ):
        line = table.TableRow()
        for shown, facts in row:
            cell = table.TableCell(**facts)
            if shown:
                cell.addElement(odf_text.P(text=shown))
            line.addElement(cell)
        sheet.addElement(line)
    document.spreadsheet.addElement(sheet)
    content = io.BytesIO()
    document.write(content)
    return content.getvalue()


def test_an_ods_workbook_gives_what_is_displayed_colours_formulas_and_merged_ranges() -> None:
    blue = {"fill": "0000FF", "font_color": "FFFFFF", "bold": True}
    assert details(styled_ods(), "A1:C9") == {
        "A1": {"shown": "Blue", **blue},
        "B1": {"shown": "12.5 %", "value": 0.125},
        "A2": {"shown": "", **blue},
        "B2": {"shown": "9", "formula": "=SUM(B1:B2;Other!$A$1)*2"},
        "A3": {"shown": "wide", "merged": "A3:B4"},
        "A4": {"shown": "same"},
        "B4": {"shown": "same"},
        "C4": {"shown": "same"},
    }
    assert "| Blue | 12.5 % |" in text(styled_ods())


def test_an_ods_sheet_that_says_it_repeats_a_billion_times_is_no_bomb() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(ods_bytes(ROWS))) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "content.xml":
                data = data.replace(b"<table:table-row>", b'<table:table-row table:number-rows-repeated="99999999">')
            new.writestr(name, data)
    (sheet,) = styled_sheets(content, "ods")
    assert sum(1 for _ in sheet.cells) == 60_000
    assert len(read_file(content, "x").sections[0].text) < 300_000


@pytest.mark.parametrize("damage", range(40, 1_500, 91))
def test_a_damaged_xlsb_workbook_is_read_or_refused_and_nothing_else(damage: int) -> None:
    """A byte in the middle of each part is changed."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(styled_xlsb())) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            data = bytearray(old.read(name))
            if name.endswith(".bin"):
                data[damage % len(data)] ^= 0xFF
            new.writestr(name, bytes(data))
    with suppress(Unreadable):
        read_file(content, "x")
    with suppress(Unreadable):
        read_cells(content, "x", None, "A1:C6")


# --- Passwords --------------------------------------------------------------------------------------------------------


def encrypted_zip(password: bytes, name: str, data: bytes) -> bytes:
    """A ZIP with the classic encryption (APPNOTE 6.1), which Python's zipfile reads but does not write."""
    keys = [0x12345678, 0x23456789, 0x34567890]
    table = [zlib.crc32(bytes([at]), 0xFFFFFFFF) ^ 0xFFFFFFFF for at in range(256)]

    def step(crc: int, byte: int) -> int:
        return (crc >> 8) ^ table[(crc ^ byte) & 0xFF]

    def update(byte: int) -> None:
        keys[0] = step(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = step(keys[2], keys[1] >> 24)

    def encrypted(content: bytes) -> bytes:
        made = bytearray()
        for byte in content:
            temporary = keys[2] | 2
            made.append(byte ^ (((temporary * (temporary ^ 1)) >> 8) & 0xFF))
            update(byte)
        return bytes(made)

    for byte in password:
        update(byte)
    crc = zlib.crc32(data)
    body = encrypted(bytes(11) + bytes([crc >> 24]) + data)
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr(name, data)
    whole = bytearray(plain.getvalue())
    start, end = 30 + len(name), 30 + len(name) + len(data)
    central = whole.index(b"PK\x01\x02")
    whole[6] |= 1
    whole[central + 8] |= 1
    whole[18:22] = whole[central + 20 : central + 24] = struct.pack("<I", len(body))
    directory_at = whole.index(b"PK\x05\x06") + 16
    whole[directory_at : directory_at + 4] = struct.pack("<I", central + len(body) - len(data))
    whole[start:end] = body
    return bytes(whole)


def encrypted_xls() -> bytes:
    """A workbook that says, right after its beginning, that what follows is encrypted ([MS-XLS] 2.4.117)."""
    content = bytearray(xls_bytes(ROWS))
    start = content.index(b"\x09\x08\x10\x00") + 20  # after the first BOF record
    content[start : start + 10] = struct.pack("<HHHHH", 0x2F, 6, 0, 0x1234, 0x5678)
    return bytes(content)


def encrypted_odf(content: bytes) -> bytes:
    """What an office program writes for a password: parts of noise, and a manifest that says how to decrypt them."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "META-INF/manifest.xml":
                data = data.replace(b"</manifest:manifest>", b"<manifest:encryption-data/></manifest:manifest>")
            elif name in ("content.xml", "styles.xml"):
                data = bytes(range(256)) * 4
            new.writestr(name, data)
    return made.getvalue()


def test_the_encrypted_archive_of_this_test_is_a_real_one() -> None:
    with zipfile.ZipFile(io.BytesIO(encrypted_zip(b"open", "a.txt", b"secret words"))) as archive:
        assert archive.read("a.txt", pwd=b"open") == b"secret words"


def test_a_zip_with_a_password_is_listed_and_its_member_is_one_clear_line() -> None:
    content = encrypted_zip(b"open", "a.txt", b"secret words")
    listed = read_file(io.BytesIO(content), "a.zip").sections[0].text
    assert "- a.txt (12 bytes, encrypted with a password)" in listed
    with pytest.raises(Unreadable, match="That member is encrypted with a password"):
        open_member(io.BytesIO(content), "a.zip!/a.txt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xls", encrypted_xls()),
        ("a.ods", encrypted_odf(ods_bytes(ROWS))),
        ("a.odt", encrypted_odf(odt_bytes())),
    ],
    ids=["XLS", "ODS", "ODT"],
)
def test_an_office_file_with_a_password_is_one_clear_line(name: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"is encrypted with a password; save a copy without one\.$"):
        read_file(io.BytesIO(content), name)
    if not name.endswith(".odt"):
        from memento_documents.tables import query

        with pytest.raises(Unreadable, match="encrypted with a password"):
            query(io.BytesIO(content), name, "SELECT 1", max_rows=1, time_limit_seconds=5)


def test_a_document_with_a_password_inside_an_archive_says_so_too() -> None:
    content = zip_bytes({"a.xls": encrypted_xls()})
    with pytest.raises(Unreadable, match="encrypted with a password"):
        read_file(*open_member(io.BytesIO(content), "x.zip!/a.xls"))
