"""memento_documents: a PDF's headings, lists, tables, columns, running heads and links as Markdown.

The PDFs are set by MuPDF's own HTML engine, or written operator by operator where the file itself is the point.
"""

import io
from collections.abc import Sequence
from typing import Any

import pytest

from memento_documents.pdf import find_tessdata, import_pymupdf, read_pdf

BODY = "The quick brown fox jumps over the lazy dog while the band plays on and the rain falls. " * 4
TABLE = [["Name", "Height", "Born"], ["Ada Lovelace", "1.65", "1815"], ["Alan Turing", "1.78", "1912"]]


def markdown(content: bytes, **options: Any) -> str:
    return "\n\n".join(section.text for section in read_pdf(io.BytesIO(content), **options).sections)


def set_in_type(html: str, css: str = "") -> bytes:
    """One or more A4 pages from HTML. MuPDF writes no tags."""
    pymupdf = import_pymupdf()
    out = io.BytesIO()
    story = pymupdf.Story(html, user_css=css)
    writer = pymupdf.DocumentWriter(out)
    more = 1
    while more:
        device = writer.begin_page(pymupdf.paper_rect("a4"))
        more, _ = story.place(pymupdf.Rect(50, 50, 545, 792))
        story.draw(device)
        writer.end_page()
    writer.close()
    return out.getvalue()


def placed(
    pages: Sequence[Sequence[tuple[float, float, str, float]]], rules: Sequence[tuple[float, ...]] = ()
) -> bytes:
    """Pages of text pieces as (x, y, text, size), in that order in the file, and lines as (x0, y0, x1, y1)."""
    pymupdf = import_pymupdf()
    document = pymupdf.open()
    for pieces in pages:
        page = document.new_page()
        for x, y, text, size in pieces:
            page.insert_text((x, y), text, fontsize=size)
        for x0, y0, x1, y1 in rules:
            page.draw_line((x0, y0), (x1, y1))
    return bytes(document.tobytes())


def test_headings_without_tags_get_their_level_from_their_size() -> None:
    text = markdown(set_in_type(f"<h1>Birds</h1><p>{BODY}</p><h2>Owls</h2><p>{BODY}</p><h3>Barn owl</h3><p>{BODY}</p>"))
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# Birds", "## Owls", "### Barn owl"]


def test_a_bold_line_of_its_own_is_a_heading_and_bold_words_in_a_sentence_are_not() -> None:
    html = f"<p>{BODY}</p><p><b>Materials and methods</b></p><p>{BODY} <b>Never shake it</b> before use.</p>"
    text = markdown(set_in_type(html))
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# Materials and methods"]


def test_section_numbers_say_how_deep_a_heading_is() -> None:
    html = "".join(f"<p><b>{title}</b></p><p>{BODY}</p>" for title in ("1 Start", "1.1 Where", "1.2 When", "2 End"))
    lines = [line for line in markdown(set_in_type(html)).splitlines() if line.startswith("#")]
    assert lines == ["# 1 Start", "## 1.1 Where", "## 1.2 When", "# 2 End"]


def test_the_outline_decides_over_the_type() -> None:
    pymupdf = import_pymupdf()
    document = pymupdf.open(stream=set_in_type(f"<h3>Small</h3><p>{BODY}</p><h3>Other</h3><p>{BODY}</p>"))
    document.set_toc([[1, "Small", 1], [2, "Other", 1]])
    assert [line for line in markdown(document.tobytes()).splitlines() if line.startswith("#")] == [
        "# Small",
        "## Other",
    ]


def test_text_that_is_all_of_one_size_has_no_headings() -> None:
    assert "#" not in markdown(set_in_type(f"<p>{BODY}</p><p>Short line</p><p>{BODY}</p>"))


def test_lists_keep_their_marks_and_their_depth() -> None:
    pieces = [(50, 80, BODY[:80], 11), (50, 110, "• apples", 11), (70, 126, "• red ones", 11), (50, 142, "• pears", 11),
              (50, 180, "1. wash", 11), (50, 196, "2. cut", 11)]  # fmt: skip
    assert markdown(placed([pieces])).split("\n\n", 1)[1] == "- apples\n  - red ones\n- pears\n1. wash\n2. cut"


def test_lines_of_a_paragraph_are_joined_and_parted_words_made_whole() -> None:
    pieces = [(50, 100, "Nothing in the file says that these lines are one para-", 11), (50, 114, "graph of text.", 11)]
    assert markdown(placed([pieces])) == "Nothing in the file says that these lines are one paragraph of text."


def cells(
    left: float, top: float, widths: Sequence[float], height: float = 20
) -> list[tuple[float, float, str, float]]:
    return [
        (left + sum(widths[:x]) + 4, top + y * height + 14, text, 10)
        for y, row in enumerate(TABLE)
        for x, text in enumerate(row)
    ]


EXPECTED_TABLE = (
    "| Name | Height | Born |\n| --- | --- | --- |\n| Ada Lovelace | 1.65 | 1815 |\n| Alan Turing | 1.78 | 1912 |"
)


def test_a_table_with_ruled_cells_becomes_rows() -> None:
    ys, xs = [100, 120, 140, 160], [50, 150, 210, 270]
    rules = [(xs[0], y, xs[-1], y) for y in ys] + [(x, ys[0], x, ys[-1]) for x in xs]
    pieces = [(50, 80, "Before the table.", 10), *cells(50, 100, [100, 60]), (50, 200, "After the table.", 10)]
    assert markdown(placed([pieces], rules)) == f"Before the table.\n\n{EXPECTED_TABLE}\n\nAfter the table."


def test_a_table_without_any_rule_becomes_rows() -> None:
    pieces = [(50, 80, "Before the table.", 10), *cells(50, 100, [120, 90]), (50, 220, "After the table.", 10)]
    assert markdown(placed([pieces])) == f"Before the table.\n\n{EXPECTED_TABLE}\n\nAfter the table."


def test_two_columns_of_prose_are_no_table_and_are_read_one_after_the_other() -> None:
    left = [(50, 100 + 14 * line, f"left column line {line} goes on and on", 10) for line in range(12)]
    right = [(320, 100 + 14 * line, f"right column line {line} goes on and on", 10) for line in range(12)]
    text = markdown(placed([[*left, *right]]))
    assert "|" not in text
    assert text.index("left column line 11") < text.index("right column line 0")


def test_a_page_whose_file_jumps_back_and_forth_is_put_in_reading_order() -> None:
    lines = [(50, 100 + 40 * line, f"This is sentence {line} of the page.", 10) for line in range(12)]
    text = markdown(placed([[*lines[1::2], *lines[0::2]]]))
    assert [f"sentence {line} " in part for line, part in enumerate(text.split("\n\n"))] == [True] * 12


def test_running_heads_and_page_numbers_are_left_out_and_named() -> None:
    pages = [
        [
            (50, 40, "Annual report 2024", 9),
            (50, 100, f"Chapter text of page {number}.", 11),
            (280, 810, str(number), 9),
        ]
        for number in range(1, 6)
    ]
    document = read_pdf(io.BytesIO(placed(pages)))
    assert [section.text for section in document.sections] == [f"Chapter text of page {n}." for n in range(1, 6)]
    assert document.notes == ["Left out where pages repeat it: 'Annual report …'."]


def test_a_first_line_that_no_other_page_has_stays() -> None:
    pages = [[(50, 40, f"{word} things", 9), (50, 100, BODY[:60], 11)] for word in ("One", "Other", "Third")]
    assert "Other things" in markdown(placed(pages))


def test_a_link_is_written_where_its_words_are() -> None:
    pymupdf = import_pymupdf()
    document = pymupdf.open(stream=placed([[(50, 100, "Read the paper first.", 11)]]))
    (where,) = document[0].search_for("the paper")
    document[0].insert_link({"kind": pymupdf.LINK_URI, "from": where, "uri": "https://example.org/a"})
    assert markdown(document.tobytes()) == "Read [the paper](https://example.org/a) first."


def test_monospaced_lines_are_a_listing_and_their_comments_no_headings() -> None:
    text = markdown(set_in_type(f"<p>{BODY}</p><pre># not a heading\nprint(1)</pre>"))
    assert text.endswith("```\n# not a heading\nprint(1)\n```")


def tagged_pdf() -> bytes:
    """A page whose tags contradict its type: the small line is a heading, the large one is not; a table, a list."""
    marked = [("H2", 60, 9, "Small but a heading"), ("P", 90, 30, "Loud text"),
              ("TH", 130, 10, "Name"), ("TH", 130, 10, "Size"),
              ("TD", 145, 10, "Cat"), ("TD", 145, 10, "4"), ("LBody", 180, 10, "an item")]  # fmt: skip
    stream = "".join(
        f"/{tag} <</MCID {i}>> BDC BT /F1 {size} Tf {50 + 120 * (i in (3, 5))} {800 - y} Td ({text}) Tj ET EMC\n"
        for i, (tag, y, size, text) in enumerate(marked)
    )
    leaf = "<</Type/StructElem/S/{}/P {} 0 R/Pg 4 0 R/K {}>>"
    objects = {
        1: "<</Type/Catalog/Pages 2 0 R/MarkInfo<</Marked true>>/StructTreeRoot 6 0 R>>",
        2: "<</Type/Pages/Kids[4 0 R]/Count 1>>",
        3: "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        4: "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 840]/Contents 5 0 R/StructParents 0"
        "/Resources<</Font<</F1 3 0 R>>>>>>",
        5: f"<</Length {len(stream)}>>stream\n{stream}endstream",
        6: "<</Type/StructTreeRoot/K 7 0 R/ParentTree 20 0 R>>",
        7: "<</Type/StructElem/S/Document/P 6 0 R/K[8 0 R 9 0 R 10 0 R 17 0 R]>>",
        8: leaf.format("H2", 7, 0),
        9: leaf.format("P", 7, 1),
        10: "<</Type/StructElem/S/Table/P 7 0 R/K[11 0 R 12 0 R]>>",
        11: "<</Type/StructElem/S/TR/P 10 0 R/K[13 0 R 14 0 R]>>",
        12: "<</Type/StructElem/S/TR/P 10 0 R/K[15 0 R 16 0 R]>>",
        13: leaf.format("TH", 11, 2),
        14: leaf.format("TH", 11, 3),
        15: leaf.format("TD", 12, 4),
        16: leaf.format("TD", 12, 5),
        17: "<</Type/StructElem/S/L/P 7 0 R/K[18 0 R]>>",
        18: "<</Type/StructElem/S/LI/P 17 0 R/K[19 0 R]>>",
        19: leaf.format("LBody", 18, 6),
        20: "<</Nums[0[8 0 R 9 0 R 13 0 R 14 0 R 15 0 R 16 0 R 19 0 R]]>>",
    }
    body = "%PDF-1.7\n" + "".join(f"{number} 0 obj{value}endobj\n" for number, value in objects.items())
    return (body + "trailer<</Root 1 0 R/Size 21>>").encode("latin-1")


def test_the_files_own_tags_count_more_than_its_type() -> None:
    assert markdown(tagged_pdf()) == (
        "## Small but a heading\n\nLoud text\n\n| Name | Size |\n| --- | --- |\n| Cat | 4 |\n\n- an item"
    )


def scanned() -> bytes:
    """A page with words and a page that is only a picture of words."""
    pymupdf = import_pymupdf()
    words = pymupdf.open(stream=set_in_type("<h1>Readable by machine</h1>"))
    document = pymupdf.open(stream=set_in_type(f"<p>{BODY}</p>"))
    document.new_page().insert_image((0, 0, 595, 842), pixmap=words[0].get_pixmap(dpi=150))
    return bytes(document.tobytes())


def test_a_scanned_page_says_so_where_there_is_no_ocr() -> None:
    document = read_pdf(io.BytesIO(scanned()), tessdata=None)
    assert document.sections[1].text == ""
    assert len(document.notes) == 1
    assert document.notes[0].startswith("No text, or next to none, on page 2: scanned or drawn; there is no OCR here")


@pytest.mark.skipif(find_tessdata() is None, reason="no Tesseract language data (apt-get install tesseract-ocr-eng)")
def test_ocr_reads_the_scanned_page_and_leaves_the_others_alone() -> None:
    document = read_pdf(io.BytesIO(scanned()), tessdata=find_tessdata())
    assert "Readable by machine" in document.sections[1].text
    assert document.sections[0].text.startswith("The quick brown fox")
    assert document.notes == ["Read by OCR, may hold mistakes: page 2."]


def test_plain_text_can_be_had_instead() -> None:
    assert markdown(set_in_type("<h1>Title</h1><p>Words</p>"), text_format="text") == "Title\nWords\n"
