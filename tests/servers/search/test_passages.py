"""memento_search.passages: decoding, headings, tables, and where passages end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_search.passages import PASSAGE_CHARS, Block, NotText, file_passages, passages_of, section_passages

LINE = "The sea rises by sixteen metres in the Bay of Fundy, more than anywhere."


def test_a_text_is_cut_at_empty_lines_with_its_line_numbers() -> None:
    paragraph = "\n".join([LINE] * 12)
    first, second = file_passages(f"{paragraph}\n\n{paragraph}".encode(), "text")
    assert (first.first_line, first.last_line, second.first_line, second.last_line) == (1, 12, 14, 25)


def test_each_markdown_heading_opens_a_passage_under_its_trail() -> None:
    text = "intro\n# Tides\nx\n## Fundy ##\ny\n```\n# no heading\n```\n# Currents\nz"
    passages = file_passages(text.encode(), "markdown")
    assert [(passage.heading, passage.first_line) for passage in passages] == [
        ("", 1),
        ("Tides", 2),
        ("Tides › Fundy", 4),
        ("Currents", 9),
    ]


def test_each_passage_of_a_table_opens_with_the_header_row() -> None:
    rows = "".join(f"\nplace {number},{number * 7 % 17}.5,{'x' * 40}" for number in range(60))
    passages = file_passages(f"place,range,note{rows}".encode(), "table")
    assert len(passages) > 2
    assert all(passage.text.startswith("place,range,note\n") for passage in passages)
    assert (passages[0].first_line, passages[-1].last_line) == (1, 61)


def test_html_gives_its_visible_text_by_source_line_and_heading() -> None:
    html = (
        "<html><head><title>Sea\n Site</title><style>p{}</style></head>\n<body>\n<h1>Tides</h1>\n"
        "<p>High <b>water</b>\nat noon.</p><script>bad()</script>\n<p hidden>secret<p>Low water\n"
        '<div style="display: none">gone<div>too</div></div><ul><li>one<li>two</ul>\n'
        "<table><tr><td>Fundy</td><td>16</td></tr></table>"
    )
    passages = file_passages(html.encode(), "html")
    assert [(passage.heading, passage.text, passage.first_line) for passage in passages] == [
        ("Sea Site", "Sea Site", 1),
        ("Tides", "Tides\nHigh water at noon.\nLow water\none\ntwo\nFundy | 16", 4),
    ]


def test_a_line_longer_than_a_passage_is_cut_at_a_sentence() -> None:
    passages = list(passages_of([Block(LINE + " " + (LINE + " ") * 40, line=7)]))
    assert len(passages) > 1
    assert all(len(passage.text) <= PASSAGE_CHARS for passage in passages)
    assert all((passage.first_line, passage.last_line) == (7, 7) for passage in passages)
    assert all(passage.text.endswith("anywhere.") for passage in passages)


def test_a_passage_never_crosses_a_page_and_keeps_its_sheets_header() -> None:
    assert [p.page for p in section_passages("one\ntwo", page=3, sheet=None)] == [3]
    table = "| a | b |\n" + "\n".join(f"| {n} | {'y' * 60} |" for n in range(40))
    passages = section_passages(table, page=None, sheet="Costs")
    assert len(passages) > 1
    assert {p.sheet for p in passages} == {"Costs"}
    assert all(p.text.startswith("| a | b |\n") for p in passages)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("\ufeffžluť".encode(), "žluť"),
        ("žluť".encode("utf-16"), "žluť"),
        (("Съешь же ещё этих мягких французских булок. " * 5).encode("cp1251"), "французских"),
    ],
)
def test_text_in_other_encodings_is_read(content: bytes, text: str) -> None:
    assert text in file_passages(content, "text")[0].text


def test_binary_content_is_not_taken_for_text() -> None:
    with pytest.raises(NotText, match="binary"):
        file_passages(b"\x7fELF\x02\x01\x00\x00", "text")


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00\x02\x03\ufeff"), max_size=200), max_size=60)
)
def test_every_word_of_a_text_is_in_some_passage_at_its_line(lines: list[str]) -> None:
    content = "\n".join(lines)
    passages = file_passages(content.encode(), "text")
    kept = "".join("".join(passage.text.split()) for passage in passages)
    assert kept == "".join(content.split())
    spans = [(passage.first_line, passage.last_line) for passage in passages]
    assert spans == sorted(spans, key=lambda span: span[0] or 0)
    assert all(len(passage.text) <= PASSAGE_CHARS + len(passage.text.splitlines()) for passage in passages)


@given(st.text(max_size=500))
def test_any_html_is_read(html: str) -> None:
    file_passages(html.replace("\x00", "").encode("utf-8", "replace"), "html")
