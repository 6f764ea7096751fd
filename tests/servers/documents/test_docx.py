"""What Word documents written by others taught (pandoc's tests): odd names of parts, lists that go on, raised text."""

import io

from memento_documents.archive import open_member
from memento_documents.reading import read_file
from memento_documents.text_format import in_format
from support.document_files import zip_bytes

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_R = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_KIND = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"


def read(body: str, *, main: str = "word/document.xml", **parts: str) -> str:
    """The text of a document whose main part is `main`, with `styles`, `numbering` and such under odd names."""
    folder, _, name = main.rpartition("/")
    points_to = "".join(f'<Relationship Id="r{kind}" Type="{_KIND}/{kind}" Target="my-{kind}.xml"/>' for kind in parts)
    members = {
        "[Content_Types].xml": f'<Types><Override PartName="/{main}" ContentType="{_MAIN}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="r1" '
        f'Type="{_KIND}/officeDocument" Target="/{main}"/></Relationships>',
        f"{folder}/_rels/{name}.rels": f'<Relationships xmlns="{_RELATIONS}">{points_to}<Relationship Id="p" '
        f'Type="{_KIND}/image" Target="media/1.png"/></Relationships>',
        main: f"<w:document {_W} {_R}><w:body>{body}</w:body></w:document>",
    } | {f"{folder}/my-{kind}.xml": f"<w:{kind} {_W}>{content}</w:{kind}>" for kind, content in parts.items()}
    content = zip_bytes({member: text.encode() for member, text in members.items()})
    document = read_file(*open_member(io.BytesIO(content), "report"))
    assert document.kind == "docx"
    return document.sections[0].text


def paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def item(text: str, numbering: int, level: int = 0) -> str:
    return paragraph(text, f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{numbering}"/></w:numPr>')


def level(at: int, start: int, number_format: str = "decimal") -> str:
    return f'<w:lvl w:ilvl="{at}"><w:start w:val="{start}"/><w:numFmt w:val="{number_format}"/></w:lvl>'


_NUMBERING = (
    f'<w:abstractNum w:abstractNumId="7">{level(0, 1)}{level(1, 1, "lowerLetter")}</w:abstractNum>'
    f'<w:abstractNum w:abstractNumId="8">{level(0, 5)}</w:abstractNum>'
    '<w:num w:numId="1"><w:abstractNumId w:val="7"/></w:num>'
    '<w:num w:numId="2"><w:abstractNumId w:val="7"/></w:num>'
    '<w:num w:numId="3"><w:abstractNumId w:val="7"/>'
    '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="1"/></w:lvlOverride></w:num>'
    '<w:num w:numId="4"><w:abstractNumId w:val="8"/></w:num>'
)


def test_the_main_part_and_those_it_points_to_may_have_any_name() -> None:
    styles = '<w:style w:type="paragraph" w:styleId="x"><w:name w:val="heading 2"/></w:style>'
    text = read(
        paragraph("Tides", '<w:pStyle w:val="x"/>') + paragraph("They rise twice a day."),
        main="word/document2.xml",
        styles=styles,
        header=paragraph("Confidential"),
        comments=f'<w:comment w:author="Ann">{paragraph("Always?")}</w:comment>',
    )
    assert text == (
        "## Tides\n\nThey rise twice a day.\n\nComments:\n\n- Ann: Always?\n\nPage headers:\n\n- Confidential\n"
    )


def test_a_list_goes_on_counting_after_an_interruption_and_starts_anew_where_it_says_so() -> None:
    text = read(
        item("a", 1) + item("b", 1) + item("deep", 1, 1) + paragraph("Meanwhile.") + item("c", 2) + item("deep", 2, 1)
        + paragraph("New.") + item("one", 3) + item("two", 3) + paragraph("Five.") + item("five", 4),
        numbering=_NUMBERING,
    )  # fmt: skip
    assert text == (
        "1. a\n2. b\n  1. deep\n\nMeanwhile.\n\n3. c\n  1. deep\n\nNew.\n\n1. one\n2. two\n\nFive.\n\n5. five\n"
    )


def test_a_style_at_the_level_of_the_body_is_no_heading_though_it_is_based_on_one() -> None:
    styles = (
        '<w:style w:type="paragraph" w:styleId="h"><w:name w:val="heading 1"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="toc"><w:name w:val="TOC Heading"/><w:basedOn w:val="h"/>'
        '<w:outlineLvl w:val="9"/></w:style>'
    )
    contents = paragraph("Contents", '<w:pStyle w:val="toc"/>')
    text = read(contents + paragraph("Tides", '<w:pStyle w:val="h"/>'), styles=styles)
    assert text == "Contents\n\n# Tides\n"


def test_a_large_first_letter_belongs_to_the_word_that_it_begins() -> None:
    drop = '<w:framePr w:dropCap="drop" w:lines="3"/>'
    assert read(paragraph("T", drop) + paragraph("ides rise.")) == "Tides rise.\n"
    assert read(paragraph("T", drop)) == "T\n"
    long = "A paragraph in a frame is not a letter."
    assert read(paragraph(long, drop) + paragraph("Next.")) == f"{long}\n\nNext.\n"


def test_raised_and_lowered_text_is_told_from_the_line_in_each_format() -> None:
    body = (
        "<w:p><w:r><w:t>10</w:t></w:r>"
        '<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:t>2</w:t></w:r><w:r><w:t> m of H</w:t></w:r>'
        '<w:r><w:rPr><w:vertAlign w:val="subscript"/></w:rPr><w:t>2</w:t></w:r><w:r><w:t>O</w:t></w:r></w:p>'
    )
    assert read(body) == "10<sup>2</sup> m of H<sub>2</sub>O\n"
    content = zip_bytes({"word/document.xml": f"<w:document {_W}><w:body>{body}</w:body></w:document>".encode()})
    document = read_file(*open_member(io.BytesIO(content), "a.docx"))
    assert in_format(document, "a.docx", "text").sections[0].text == "10^2 m of H_2O\n"


def test_a_picture_of_older_word_is_shown_where_it_stands() -> None:
    picture = (
        '<w:p><w:r><w:pict><v:shape xmlns:v="urn:schemas-microsoft-com:vml"><v:imagedata r:id="p" '
        'xmlns:o="urn:schemas-microsoft-com:office:office" o:title="The pier"/></v:shape></w:pict></w:r></w:p>'
    )
    assert read(picture) == "![The pier](word/media/1.png)\n"
