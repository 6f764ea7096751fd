"""Bytes to text: the encoding of a text file, for every kind that is plain text."""

import codecs

from memento_documents.kinds import Unreadable

__all__ = ["decode", "find_encoding"]

_BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SNIFFED_BYTES = 64_000
"""How much of a file that is not UTF-8 is looked at to tell its encoding."""


def find_encoding(head: bytes) -> str:
    """Python's name of the encoding that a file beginning with `head` is in; the rest may still hold surprises.

    Raises:
        Unreadable: no encoding fits.
    """
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a character may be cut at the end
    except UnicodeDecodeError:
        return _guessed(head)
    return "utf-8"


def decode(content: bytes) -> tuple[str, str]:
    """Return the text and the encoding it was in; line ends become `\\n`.

    Raises:
        Unreadable: no encoding fits.
    """
    text, encoding = _decode(content)
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _decode(content: bytes) -> tuple[str, str]:
    for bom, encoding in _BOMS:
        if content.startswith(bom):
            return content.decode(encoding, errors="replace"), encoding.removesuffix("-sig")
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    encoding = _guessed(content)
    return content.decode(encoding, errors="replace"), encoding


def _guessed(content: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(content[:_SNIFFED_BYTES]).best()
    if best is None:
        raise Unreadable("The text is in no known encoding; save it as UTF-8.")
    return best.encoding
