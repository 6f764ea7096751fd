"""memento_crawl.charset: what a page says about its encoding, and what it really is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_crawl.charset import decode_page

META = '<meta charset="{}">'


@pytest.mark.parametrize(
    ("body", "content_type", "text", "encoding"),
    [
        ("žluť".encode(), "text/html", "žluť", "utf-8"),
        ("žluť".encode("cp1250"), "text/html; charset=windows-1250", "žluť", "cp1250"),
        (META.format("windows-1250").encode() + "žluť".encode("cp1250"), "text/html", None, "cp1250"),
        ("naïve “café”".encode("cp1252"), "text/html; charset=ISO-8859-1", "naïve “café”", "cp1252"),
        ("日本語".encode("cp932"), 'text/html; charset="Shift_JIS"', "日本語", "cp932"),
        ("汉字".encode("gb18030"), "text/html; charset=gb2312", "汉字", "gb18030"),
        (b"\xef\xbb\xbf" + "é".encode(), "text/html; charset=iso-8859-1", "é", "utf-8"),
        ("é".encode("utf-16"), "text/html", "é", "utf-16-le"),
        # The header is wrong, the page is right: windows-1251 bytes are no UTF-8.
        (META.format("windows-1251").encode() + "мир".encode("cp1251"), "text/html; charset=utf-8", None, "cp1251"),
        # The page is wrong, the header is right.
        (META.format("utf-8").encode() + "é".encode("cp1252"), "text/html; charset=cp1252", None, "cp1252"),
        (b"+ADw-script+AD4-", "text/html; charset=utf-7", "+ADw-script+AD4-", "utf-8"),
        (b"abc", "text/html; charset=rot13", "abc", "utf-8"),
        (b"abc", "text/html; charset=no-such", "abc", "utf-8"),
        (b"", "", "", "utf-8"),
    ],
)
def test_an_encoding_is_believed_when_it_fits(body: bytes, content_type: str, text: str | None, encoding: str) -> None:
    decoded = decode_page(body, content_type)
    assert (decoded.encoding, decoded.is_guess) == (encoding, False)
    assert text is None or decoded.text == text


def test_one_bad_byte_does_not_unseat_the_declared_encoding() -> None:
    decoded = decode_page("Größe ".encode() * 400 + b"\xff", "text/html; charset=utf-8")
    assert (decoded.encoding, decoded.is_guess, decoded.text.count("�")) == ("utf-8", False, 1)


def test_an_undeclared_encoding_is_guessed_and_said_to_be() -> None:
    text = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20
    decoded = decode_page(text.encode("cp1251"), "text/html")
    assert decoded.is_guess
    assert "французских" in decoded.text


@given(st.binary(max_size=3000), st.text(max_size=60))
def test_any_bytes_under_any_declaration_are_read(body: bytes, content_type: str) -> None:
    assert isinstance(decode_page(body, content_type).text, str)
