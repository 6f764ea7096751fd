"""XLSB workbooks, record by record ([MS-XLSB] 2.4): no library writes them.

One sheet of texts, numbers and formulas; a cell may have a number format, a fill, a font colour and bold.
"""

import struct
from dataclasses import dataclass

from support.document_files import zip_bytes

__all__ = ["XlsbCell", "xlsb_bytes"]

Color = tuple[str, object]
"""("rgb", "FF0000"), ("theme", (4, 0.6)) or ("indexed", 10)."""


@dataclass(frozen=True)
class XlsbCell:
    value: str | float | None
    number_format: str = "General"
    fill: Color | None = None
    font_color: Color | None = None
    bold: bool = False
    formula: bytes | None = None
    """Parsed tokens (2.2.2), as `bytes([0x1E, 1, 0])` for the number 1."""


def xlsb_bytes(
    rows: list[list[object]], *, sheet: str = "Ports", merged: tuple[int, int, int, int] | None = None
) -> bytes:
    """The workbook; a plain value in `rows` is a cell without a style. `merged` is first and last row, then column."""
    cells = [[each if isinstance(each, XlsbCell) else XlsbCell(each) for each in row] for row in rows]  # type: ignore[arg-type]
    looks = list(dict.fromkeys([XlsbCell(None), *(_look(cell) for row in cells for cell in row)]))
    kinds = "http://schemas.openxmlformats.org/officeDocument/2006"
    schemas = "http://schemas.openxmlformats.org/package/2006"
    relation = '<Relationship Id="{}" Type="' + kinds + '/relationships/{}" Target="{}"/>'
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    relations = head + '<Relationships xmlns="' + schemas + '/relationships">{}</Relationships>'
    types = (
        head + f'<Types xmlns="{schemas}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="bin" ContentType="application/vnd.ms-excel.sheet.binary.macroEnabled.main"/></Types>'
    )
    book_relations = relation.format("rId1", "worksheet", "worksheets/sheet1.bin") + relation.format(
        "rId2", "styles", "styles.bin"
    )
    return zip_bytes(
        {
            "[Content_Types].xml": types.encode(),
            "_rels/.rels": relations.format(relation.format("rId1", "officeDocument", "xl/workbook.bin")).encode(),
            "xl/workbook.bin": _workbook(sheet),
            "xl/_rels/workbook.bin.rels": relations.format(book_relations).encode(),
            "xl/worksheets/sheet1.bin": _sheet(cells, looks, merged),
            "xl/styles.bin": _styles(looks),
        }
    )


def _look(cell: XlsbCell) -> XlsbCell:
    return XlsbCell(None, cell.number_format, cell.fill, cell.font_color, cell.bold)


def _record(kind: int, body: bytes = b"") -> bytes:
    """Type and size in seven-bit groups, the lowest first (2.1.4)."""
    head = bytes([kind]) if kind < 128 else bytes([kind & 0x7F | 0x80, kind >> 7])
    size, length = b"", len(body)
    while True:
        size += bytes([length & 0x7F | (0x80 if length > 0x7F else 0)])
        length >>= 7
        if not length:
            return head + size + body


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode("utf-16-le")


def _workbook(sheet: str) -> bytes:
    one = struct.pack("<II", 0, 1) + _text("rId1") + _text(sheet)
    return _record(131) + _record(143) + _record(156, one) + _record(144) + _record(132)


def _sheet(cells: list[list[XlsbCell]], looks: list[XlsbCell], merged: tuple[int, int, int, int] | None) -> bytes:
    width = max(map(len, cells))
    made = bytearray(_record(129) + _record(148, struct.pack("<IIII", 0, len(cells) - 1, 0, width - 1)) + _record(145))
    for number, row in enumerate(cells):
        made += _record(0, struct.pack("<IIHBBBII", number, 0, 300, 0, 0, 0, 1, 0) + struct.pack("<I", width - 1))
        for column, cell in enumerate(row):
            start = struct.pack("<II", column, looks.index(_look(cell)))
            if cell.formula is not None:
                body = struct.pack("<dHI", cell.value, 0, len(cell.formula)) + cell.formula + struct.pack("<I", 0)
                made += _record(9, start + body)
            elif isinstance(cell.value, str):
                made += _record(6, start + _text(cell.value))
            elif cell.value is None:
                made += _record(1, start)
            else:
                made += _record(5, start + struct.pack("<d", cell.value))
    made += _record(146)
    if merged is not None:
        made += _record(177, struct.pack("<I", 1)) + _record(176, struct.pack("<IIII", *merged)) + _record(178)
    return bytes(made + _record(130))


def _color(color: Color | None) -> bytes:
    match color:
        case ("rgb", str(rgb)):
            return bytes([0x05, 0, 0, 0]) + bytes.fromhex(rgb) + b"\xff"
        case ("theme", (int(number), float(tint))):
            return struct.pack("<BBh", 0x06, number, round(tint * 32767)) + bytes(4)
        case ("indexed", int(number)):
            return struct.pack("<BBh", 0x02, number, 0) + bytes(4)
        case _:
            return bytes(8)


def _styles(looks: list[XlsbCell]) -> bytes:
    made = _record(278)
    made += _record(615, struct.pack("<I", len(looks)))
    made += b"".join(
        _record(44, struct.pack("<H", 164 + at) + _text(each.number_format)) for at, each in enumerate(looks)
    )
    made += _record(616) + _record(611, struct.pack("<I", len(looks)))
    for each in looks:
        weight = 700 if each.bold else 400
        font = (
            struct.pack("<HHHHBBBB", 220, 0, weight, 0, 0, 0, 0, 0) + _color(each.font_color) + b"\0" + _text("Calibri")
        )
        made += _record(43, font)
    made += _record(612) + _record(603, struct.pack("<I", len(looks)))
    for each in looks:
        pattern = 1 if each.fill else 0
        made += _record(45, struct.pack("<I", pattern) + _color(each.fill) + bytes(8) + bytes(4 + 5 * 8 + 4))
    made += _record(604) + _record(617, struct.pack("<I", len(looks)))
    for at in range(len(looks)):
        made += _record(47, struct.pack("<HHHHHBBHH", 0, 164 + at, at, at, 0, 0, 0, 0, 0))
    return made + _record(618) + _record(279)
