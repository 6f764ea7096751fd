"""Files of many kinds, each made by the library that people write it with; nothing binary lies in the repository."""

import gzip
import importlib
import io
import json
import tarfile
import zipfile
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from support.document_files import make_xlsx, pdf_bytes, zip_bytes

__all__ = [
    "docx_bytes",
    "eml_bytes",
    "epub_bytes",
    "gif_bytes",
    "make_folder",
    "ods_bytes",
    "odt_bytes",
    "png_bytes",
    "pptx_bytes",
    "raised_pptx_bytes",
    "tar_gz_bytes",
    "video_bytes",
    "wav_bytes",
    "xls_bytes",
]


def png_bytes(size: tuple[int, int] = (64, 48), description: str = "The harbour of Bergen in winter") -> bytes:
    """A blue PNG with a description in it."""
    from PIL import Image, PngImagePlugin

    facts = PngImagePlugin.PngInfo()
    facts.add_text("Description", description)
    content = io.BytesIO()
    Image.new("RGB", size, "navy").save(content, "PNG", pnginfo=facts)
    return content.getvalue()


def gif_bytes(frames: int) -> bytes:
    """An animation, each frame of another grey."""
    from PIL import Image

    content = io.BytesIO()
    first, *rest = [Image.new("L", (8, 8), 255 * at // frames) for at in range(frames)]
    first.save(content, "GIF", save_all=True, append_images=rest)
    return content.getvalue()


def pptx_bytes() -> bytes:
    """Two slides: a title, bullets on two levels and speaker notes; a table, a chart and a picture."""
    import pptx
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE

    show: Any = pptx.Presentation()
    first = show.slides.add_slide(show.slide_layouts[1])
    first.shapes.title.text = "Plan of 2024"
    text = first.placeholders[1].text_frame
    text.text = "The ferry was built in Turku."
    below = text.add_paragraph()
    below.text, below.level = "By night", 1
    first.notes_slide.notes_text_frame.text = "Thank the yard"
    second = show.slides.add_slide(show.slide_layouts[5])
    second.shapes.title.text = "Numbers"
    table = second.shapes.add_table(2, 2, 0, 0, 900_000, 900_000).table
    for at, value in enumerate(["Port", "Ships", "Turku", "12"]):
        table.cell(at // 2, at % 2).text = value
    data: Any = CategoryChartData()
    data.categories = ["2023", "2024"]
    data.add_series("Passengers", (1.5, 2))
    second.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, 900_000, 900_000, data)
    second.shapes.add_picture(io.BytesIO(png_bytes()), 0, 0)
    content = io.BytesIO()
    show.save(content)
    return content.getvalue()


def raised_pptx_bytes() -> bytes:
    """A slide with a power and a formula."""
    import pptx

    show: Any = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[5])
    paragraph = slide.shapes.add_textbox(0, 0, 9_000_000, 900_000).text_frame.paragraphs[0]
    for text, baseline in [("10", None), ("2", "30000"), (" m, H", "0"), ("2", "-25000"), ("O", None)]:
        run = paragraph.add_run()
        run.text = text
        if baseline is not None:
            run.font._rPr.set("baseline", baseline)
    content = io.BytesIO()
    show.save(content)
    return content.getvalue()


def docx_bytes() -> bytes:
    """Heading, text, counted and plain list, table, picture, page header, comment."""
    import docx

    document: Any = docx.Document()
    document.add_heading("Report", 1)
    commented = document.add_paragraph("The bridge was designed by Ida Holm.")
    document.add_paragraph("first", style="List Number")
    document.add_paragraph("second", style="List Number")
    document.add_paragraph("point", style="List Bullet")
    table = document.add_table(2, 2)
    for at, value in enumerate(["Span", "Metres", "Main", "420"]):
        table.cell(at // 2, at % 2).text = value
    document.add_picture(io.BytesIO(png_bytes()))
    document.sections[0].header.paragraphs[0].text = "Confidential"
    document.add_comment(commented.runs, "Are we sure?", author="Ann")
    content = io.BytesIO()
    document.save(content)
    return content.getvalue()


def xls_bytes(rows: list[list[object]]) -> bytes:
    """A workbook as Excel 97 wrote it."""
    import xlwt

    book: Any = xlwt.Workbook()
    sheet = book.add_sheet("Old")
    for down, row in enumerate(rows):
        for across, value in enumerate(row):
            sheet.write(down, across, value)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def _odf_table(name: str, rows: list[list[object]]) -> Any:
    odf_table: Any = importlib.import_module("odf.table")
    odf_text: Any = importlib.import_module("odf.text")
    table: Any = odf_table.Table(name=name)
    for row in rows:
        line: Any = odf_table.TableRow()
        table.addElement(line)
        for value in row:
            kind = {"valuetype": "float", "value": value} if isinstance(value, int | float) else {"valuetype": "string"}
            cell: Any = odf_table.TableCell(**kind)
            cell.addElement(odf_text.P(text=str(value)))
            line.addElement(cell)
    return table


def ods_bytes(rows: list[list[object]]) -> bytes:
    """An OpenDocument spreadsheet of one sheet, "Ports"."""
    from odf.opendocument import OpenDocumentSpreadsheet

    document: Any = OpenDocumentSpreadsheet()
    document.spreadsheet.addElement(_odf_table("Ports", rows))
    content = io.BytesIO()
    document.write(content)
    return content.getvalue()


def odt_bytes() -> bytes:
    """An OpenDocument text: heading, text with a footnote, list, table."""
    from odf.opendocument import OpenDocumentText

    odf_text: Any = importlib.import_module("odf.text")
    document: Any = OpenDocumentText()
    document.text.addElement(odf_text.H(outlinelevel=1, text="Letter"))
    paragraph: Any = odf_text.P(text="The organ was restored by Nils Berg.")
    note: Any = odf_text.Note(id="n1", noteclass="footnote")
    note.addElement(odf_text.NoteCitation(text="1"))
    body: Any = odf_text.NoteBody()
    body.addElement(odf_text.P(text="In 1911."))
    note.addElement(body)
    paragraph.addElement(note)
    document.text.addElement(paragraph)
    listed: Any = odf_text.List()
    item: Any = odf_text.ListItem()
    item.addElement(odf_text.P(text="pipes"))
    listed.addElement(item)
    document.text.addElement(listed)
    document.text.addElement(_odf_table("T", [["Stop", "Feet"], ["Principal", 8]]))
    content = io.BytesIO()
    document.write(content)
    return content.getvalue()


def epub_bytes() -> bytes:
    """A book of two chapters with a table of contents (EPUB 3)."""
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Tides</dc:title><dc:creator>M. Vik</dc:creator>'
        '</metadata><manifest><item id="n" href="nav.xhtml" properties="nav"/><item id="a" href="a.xhtml"/>'
        '<item id="b" href="b%20c.xhtml"/></manifest><spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
    )
    navigation = (
        '<html xmlns="http://www.w3.org/1999/xhtml"><body><nav><ol><li><a href="a.xhtml">Ebb</a></li>'
        '<li><a href="b%20c.xhtml">Flood</a></li></ol></nav></body></html>'
    )
    return zip_bytes(
        {
            "mimetype": b"application/epub+zip",
            "META-INF/container.xml": b'<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            b'<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
            "OEBPS/book.opf": package.encode(),
            "OEBPS/nav.xhtml": navigation.encode(),
            "OEBPS/a.xhtml": b"<html><body><h1>Ebb</h1><p>The lighthouse was kept by Jon&nbsp;Vik.</p></body></html>",
            "OEBPS/b c.xhtml": b"<html><head><title>Tides</title></head><body>"
            b"<h2>Flood</h2><ul><li>one</li></ul></body></html>",
        }
    )


def eml_bytes(attachments: dict[str, bytes]) -> bytes:
    """A mail with attachments."""
    message = EmailMessage()
    message["From"] = "Ann Lee <ann@example.org>"
    message["To"] = "bob@example.org"
    message["Subject"] = "Harbour dues"
    message["Date"] = "Fri, 01 Mar 2024 10:00:00 +0000"
    message.set_content("The dues were set by Karin Lund.\n")
    message.add_alternative("<p>The dues were set by <b>Karin Lund</b>.</p>", subtype="html")
    for name, content in attachments.items():
        message.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    return message.as_bytes()


def tar_gz_bytes(members: dict[str, bytes]) -> bytes:
    """A TAR under gzip, with a link out of it as well."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("way-out")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return content.getvalue()


def wav_bytes(seconds: float) -> bytes:
    """A tone."""
    import math
    import struct
    import wave

    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(
            b"".join(struct.pack("<h", int(8_000 * math.sin(at / 5))) for at in range(int(seconds * 8_000)))
        )
    return content.getvalue()


def video_bytes(seconds: int = 4) -> bytes:
    """A video that grows lighter each second, ten frames a second, titled "Ferry"."""
    import av
    from PIL import Image

    content = io.BytesIO()
    library: Any = av
    with library.open(content, "w", format="matroska") as file:
        file.metadata["title"] = "Ferry"
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for at in range(seconds * 10):
            frame = library.VideoFrame.from_image(Image.new("RGB", (64, 48), (at // 10 * 60,) * 3))
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return content.getvalue()


ROWS: list[list[object]] = [["Port", "Ships"], ["Turku", 12], ["Bergen", 30]]


def make_folder(folder: Path) -> dict[str, str]:
    """One file of every kind, some with a wrong or upper-case ending; file name to the kind it is."""
    book = make_xlsx(folder / "ports.XLSX", {"Ports": ROWS}).read_bytes()
    files: dict[str, tuple[str, bytes]] = {
        "paper.pdf": ("pdf", pdf_bytes(["The pier was opened by Queen Maud."])),
        "report.DOCX": ("docx", docx_bytes()),
        "deck.pdf": ("pptx", pptx_bytes()),
        "ports.XLSX": ("xlsx", book),
        "ports.doc": ("xls", xls_bytes(ROWS)),
        "ports.ods": ("ods", ods_bytes(ROWS)),
        "letter.odt": ("odt", odt_bytes()),
        "tides.zip": ("epub", epub_bytes()),
        "ports.csv": ("table", b"Port,Ships\nTurku,12\nBergen,30\n"),
        "ports.tsv": ("table", b"Port\tShips\nTurku\t12\nBergen\t30\n"),
        "page.txt": ("html", b"<!DOCTYPE html><html><body><h1>Quay</h1><p>The crane was made by Olav Moe.</p></body>"),
        "ports.json": ("json", json.dumps({"ports": [{"port": "Turku", "ships": 12}]}).encode()),
        "ports.jsonl": ("jsonl", b'{"port": "Turku", "ships": 12}\n{"port": "Bergen", "ships": 30}\n'),
        "ports.xml": ("xml", b"<?xml version='1.0'?><ports><port>Turku</port><port>Bergen</port></ports>"),
        "ports.yaml": ("yaml", b"ports:\n  - Turku\n  - Bergen\n"),
        "notes.md": ("text", b"# Notes\n\nThe buoy was laid by Per Dahl.\n"),
        "code.PY": ("text", b"# a, b, c\nSHIPS = {'Turku': 12}\n"),
        "dues.eml": ("eml", eml_bytes({"ports.xls": xls_bytes(ROWS)})),
        "photo.PNG": ("image", png_bytes()),
        "tone.wav": ("audio", wav_bytes(2)),
        "ferry.mkv": ("video", video_bytes()),
        "data.tar": ("tar", tar_gz_bytes({"deep/ports.csv": b"Port,Ships\nTurku,12\n"})),
        "ports.csv.gz": ("table", gzip.compress(b"Port,Ships\nTurku,12\nBergen,30\n")),
    }  # fmt: skip
    files["data.zip"] = (
        "zip",
        zip_bytes(
            {"in/ports.csv": files["ports.csv"][1], "inner.tgz": files["data.tar"][1], "d.eml": files["dues.eml"][1]}
        ),
    )
    for name, (_, content) in files.items():
        (folder / name).write_bytes(content)
    return {name: kind for name, (kind, _) in files.items()}


def macro_docx_bytes() -> bytes:
    """A Word document with a (made up) VBA project in it."""
    content = io.BytesIO(docx_bytes())
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("word/vbaProject.bin", b"\xd0\xcf\x11\xe0macros")
    return content.getvalue()
