"""PDFs that mean harm, made on the spot: loops, bombs, lies about sizes, and good files that were damaged."""

import random
import zlib

from support.document_files import pdf_bytes

__all__ = ["SECRET", "damaged_pdfs", "hostile_pdfs"]

SECRET = "root:"
"""What stands in /etc/passwd; no answer may hold it."""
_PAGE = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>"
_FONT = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
_TEXT = b"BT /F 12 Tf 50 700 Td (Hello from the page) Tj ET"


def _stream(content: bytes, entries: str = "") -> bytes:
    return b"<</Length %d%s>>stream\n%s\nendstream" % (len(content), entries.encode(), content)


def _pdf(objects: dict[int, str | bytes], trailer: str = "<</Root 1 0 R/Size 99>>") -> bytes:
    """A file without a cross-reference table: every reader then looks for the objects itself."""
    whole: dict[int, str | bytes] = {
        1: "<</Type/Catalog/Pages 2 0 R>>",
        2: "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: _PAGE,
        4: _stream(_TEXT),
        5: _FONT,
        **objects,
    }
    parts = [b"%PDF-1.7\n"]
    for number, value in whole.items():
        parts.append(b"%d 0 obj\n%s\nendobj\n" % (number, value.encode() if isinstance(value, str) else value))
    return b"".join(parts) + f"trailer{trailer}\n%%EOF".encode()


def hostile_pdfs() -> dict[str, bytes]:
    """Name to content."""
    good = _pdf({})
    zeros = zlib.compress(bytes(60_000_000), 9)
    twice = zlib.compress(zlib.compress(b"0 0 m 1 1 l S " * 6_000_000, 9), 9)
    chain = {10 + n: f"<</Type/Pages/Kids[{11 + n} 0 R]/Count 1/Parent {9 + n} 0 R>>" for n in range(3_000)}
    elements = {10 + n: f"<</Type/StructElem/S/Sect/P {9 + n} 0 R/K {11 + n} 0 R>>" for n in range(5_000)}
    xref_loop = good.replace(b"%%EOF", b"startxref\n%d\n%%%%EOF" % good.index(b"trailer"))
    return {
        "empty.pdf": b"",
        "header only.pdf": b"%PDF-1.7\n",
        "no header.pdf": good[9:],
        "zeros.pdf": b"%PDF-1.4\n" + bytes(100_000),
        "no objects.pdf": b"%PDF-1.4\ntrailer<</Root 1 0 R>>\n%%EOF",
        "page tree loop.pdf": _pdf({2: "<</Type/Pages/Kids[2 0 R 2 0 R]/Count 9999999>>"}),
        "page is its own parent.pdf": _pdf({3: _PAGE.replace("2 0 R", "3 0 R")}),
        "deep page tree.pdf": _pdf({2: "<</Type/Pages/Kids[10 0 R]/Count 1>>", **chain}),
        "a billion pages.pdf": _pdf({2: "<</Type/Pages/Kids[3 0 R]/Count 1000000000>>"}),
        "negative pages.pdf": _pdf({2: "<</Type/Pages/Kids[3 0 R]/Count -5>>"}),
        "many times one page.pdf": _pdf({2: f"<</Type/Pages/Kids[{'3 0 R ' * 3_000}]/Count 3000>>"}),
        "huge page.pdf": _pdf({3: _PAGE.replace("600 800", "1e9 1e9")}),
        "page without size.pdf": _pdf({3: _PAGE.replace("0 0 600 800", "0 0 0 0")}),
        "upside-down page.pdf": _pdf({3: _PAGE.replace("0 0 600 800", "600 800 -600 -9e30")}),
        "xref loop.pdf": xref_loop.replace(b"/Size 99", b"/Size 99/Prev %d" % xref_loop.index(b"trailer")),
        "bomb of zeros.pdf": _pdf({4: _stream(zeros, "/Filter/FlateDecode")}),
        "bomb in a bomb.pdf": _pdf({4: _stream(twice, "/Filter[/FlateDecode/FlateDecode]")}),
        "filter of filters.pdf": _pdf({4: _stream(_TEXT, f"/Filter[{'/ASCIIHexDecode' * 500}]")}),
        "length lies.pdf": _pdf({4: b"<</Length 999999999>>stream\n" + _TEXT + b"\nendstream"}),
        "length of itself.pdf": _pdf({4: b"<</Length 4 0 R>>stream\n" + _TEXT + b"\nendstream"}),
        "form draws itself.pdf": _pdf(
            {
                3: _PAGE.replace("/Font", "/XObject<</X 6 0 R>>/Font"),
                4: _stream(b"/X Do"),
                6: _stream(
                    b"/X Do /X Do", "/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 6 0 R>>>>"
                ),
            }
        ),
        "forms of forms.pdf": _pdf(
            {
                3: _PAGE.replace("/Font", "/XObject<</X 10 0 R>>/Font"),
                4: _stream(b"/X Do"),
                **{
                    10 + n: _stream(
                        b"/X Do " * 10, f"/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X {11 + n} 0 R>>>>"
                    )
                    for n in range(12)
                },
            }
        ),
        "image of a terapixel.pdf": _pdf(
            {
                3: _PAGE.replace("/Font", "/XObject<</X 6 0 R>>/Font"),
                4: _stream(b"600 0 0 800 0 0 cm /X Do"),
                6: _stream(b"x", "/Subtype/Image/Width 1000000/Height 1000000/BitsPerComponent 8/ColorSpace/DeviceRGB"),
            }
        ),
        "bad fax, JPEG 2000 and JBIG2.pdf": _pdf(
            {
                3: _PAGE.replace("/Font", "/XObject<</X 6 0 R/Y 7 0 R/Z 8 0 R>>/Font"),
                4: _stream(b"99 0 0 99 0 0 cm /X Do /Y Do /Z Do"),
                **{
                    6 + n: _stream(
                        random.Random(n).randbytes(999),
                        f"/Subtype/Image/Width 900/Height 900/BitsPerComponent 8/ColorSpace/DeviceGray/Filter/{kind}",
                    )
                    for n, kind in enumerate(("CCITTFaxDecode", "JPXDecode", "JBIG2Decode"))
                },
            }
        ),
        "outline loop.pdf": _pdf(
            {
                1: "<</Type/Catalog/Pages 2 0 R/Outlines 6 0 R>>",
                6: "<</First 7 0 R/Last 7 0 R/Count 9>>",
                7: "<</Title(Again)/Parent 6 0 R/Next 7 0 R/First 7 0 R/Dest[3 0 R/Fit]>>",
            }
        ),
        "tags loop.pdf": _pdf(
            {
                1: "<</Type/Catalog/Pages 2 0 R/MarkInfo<</Marked true>>/StructTreeRoot 6 0 R>>",
                4: _stream(b"/H1 <</MCID 0>> BDC " + _TEXT + b" EMC"),
                6: "<</Type/StructTreeRoot/K 7 0 R/ParentTree<</Nums[0[7 0 R]]>>>>",
                7: "<</Type/StructElem/S/H1/P 7 0 R/K[0 7 0 R]/Pg 3 0 R>>",
            }
        ),
        "deep tags.pdf": _pdf(
            {
                1: "<</Type/Catalog/Pages 2 0 R/MarkInfo<</Marked true>>/StructTreeRoot 9 0 R>>",
                3: _PAGE.replace("/Contents", "/StructParents 0/Contents"),
                4: _stream(b"/P <</MCID 0>> BDC " + _TEXT + b" EMC"),
                9: "<</Type/StructTreeRoot/K 10 0 R/ParentTree<</Nums[0[5010 0 R]]>>>>",
                **elements,
                5010: "<</Type/StructElem/S/P/P 5009 0 R/K 0/Pg 3 0 R>>",
            }
        ),
        "roles in a ring.pdf": _pdf(
            {
                1: "<</Type/Catalog/Pages 2 0 R/MarkInfo<</Marked true>>/StructTreeRoot 6 0 R>>",
                4: _stream(b"/A <</MCID 0>> BDC " + _TEXT + b" EMC"),
                6: "<</Type/StructTreeRoot/RoleMap<</A/B/B/A>>/K 7 0 R/ParentTree<</Nums[0[7 0 R]]>>>>",
                7: "<</Type/StructElem/S/A/P 6 0 R/K 0/Pg 3 0 R>>",
            }
        ),
        "nested arrays.pdf": _pdf(
            {6: "[" * 200_000 + "]" * 200_000, 3: _PAGE.replace("/Contents", "/X 6 0 R/Contents")}
        ),
        "nested graphics states.pdf": _pdf({4: _stream(b"q " * 1_000_000 + _TEXT)}),
        "many drawn lines.pdf": _pdf({4: _stream(_TEXT + b" 0 0 m 9 9 l S 9 0 m 0 9 l S" * 40_000)}),
        "many words.pdf": _pdf({4: _stream(b"BT /F 1 Tf " + b"1 1 Td (w) Tj " * 100_000 + b"ET")}),
        "script.pdf": _pdf({1: "<</Type/Catalog/Pages 2 0 R/OpenAction<</S/JavaScript/JS(while(1);)>>>>"}),
        "launch.pdf": _pdf({1: "<</Type/Catalog/Pages 2 0 R/OpenAction<</S/Launch/F(/bin/sh)>>>>"}),
        "embedded file.pdf": _pdf(
            {
                1: "<</Type/Catalog/Pages 2 0 R/Names<</EmbeddedFiles<</Names[(x.exe) 6 0 R]>>>>>>",
                6: "<</Type/Filespec/F(../../x.exe)/EF<</F 7 0 R>>>>",
                7: _stream(b"MZ" + bytes(100), "/Type/EmbeddedFile"),
            }
        ),
        "text from another file.pdf": _pdf({4: b"<</Length 0/F(/etc/passwd)/FFilter[]>>stream\n\nendstream"}),
        "form in XML with an entity.pdf": _pdf(
            {
                1: "<</Type/Catalog/Pages 2 0 R/AcroForm<</XFA 6 0 R/Fields[]>>>>",
                6: _stream(b'<!DOCTYPE x [<!ENTITY s SYSTEM "file:///etc/passwd">]><x>&s;</x>'),
            }
        ),
        "encrypted.pdf": pdf_bytes(["Secret"], password="open sesame"),
        "encrypted by a nonsense.pdf": _pdf({}, "<</Root 1 0 R/Encrypt<</Filter/Standard/V 99/R -1/O()/U()/P 0>>>>"),
        "font without end.pdf": _pdf(
            {5: "<</Type/Font/Subtype/Type0/BaseFont/X/Encoding 5 0 R/DescendantFonts[5 0 R]/ToUnicode 5 0 R>>"}
        ),
    }


def damaged_pdfs(count: int) -> dict[str, bytes]:
    """Good files with bytes changed, pieces cut out or doubled, or the end missing; the same ones each time."""
    good = [
        pdf_bytes(["First page of text", "Second page of text"], outline=[(1, "One"), (2, "Two")], title="Good"),
        _pdf({}),
    ]
    damaged: dict[str, bytes] = {}
    for number in range(count):
        dice = random.Random(number)
        content = bytearray(good[number % len(good)])
        match number % 4:
            case 0:
                del content[dice.randrange(9, len(content)) :]
            case 1:
                for _ in range(dice.choice((1, 5, 50))):
                    content[dice.randrange(len(content))] = dice.randrange(256)
            case 2:
                at = dice.randrange(len(content))
                del content[at : at + dice.randrange(1, 300)]
            case _:
                at = dice.randrange(len(content))
                content[at:at] = content[at : at + dice.randrange(1, 300)] * dice.choice((1, 20))
        damaged[f"damaged {number}.pdf"] = bytes(content)
    return damaged
