"""Bytes of a web page as text.

Owns the order in which a page's encoding is looked for, and the names that are believed. Names mean what
browsers take them for (https://encoding.spec.whatwg.org/#names-and-labels): `iso-8859-1` is windows-1252.
"""

import codecs
import re
from typing import NamedTuple

__all__ = ["Decoded", "decode_page"]

_SAME_AS_BROWSERS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
_BELIEVED = re.compile(
    r"utf-8|utf-16(-le|-be)?|cp125\d|cp874|cp866|cp932|cp949|iso8859-\d+|koi8-[ru]|gb18030|big5hkscs|euc_jp|iso2022_jp"
    r"|mac-(roman|cyrillic)"
)
"""Python knows codecs that no page is written in, and some (utf-7) that hide text from filters."""
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]{2,40})", re.IGNORECASE)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w:.-]{2,40})", re.IGNORECASE)
_META_WITHIN_BYTES = 4096
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class Decoded(NamedTuple):
    text: str
    encoding: str
    is_guess: bool
    """No declared encoding fitted, so characters may be wrong."""


def decode_page(body: bytes, content_type: str) -> Decoded:
    """Decode by byte order mark, then the first *declared* encoding that fits, then UTF-8, then a guess."""
    for bom, encoding in _BOMS:
        if body.startswith(bom):
            return Decoded(body[len(bom) :].decode(encoding, errors="replace"), encoding, is_guess=False)
    head = body[:_META_WITHIN_BYTES]
    in_header = re.search(r"charset\s*=\s*[\"']?\s*([\w:.-]{2,40})", content_type, re.IGNORECASE)
    in_page = _XML.search(head) or _META.search(head)
    declared = [
        in_header[1] if in_header else None,
        in_page[1].decode("ascii", "replace") if in_page else None,
        "utf-8",
    ]
    encodings = [encoding for label in declared if label and (encoding := _codec(label))]
    for encoding in dict.fromkeys(encodings):
        try:
            return Decoded(body.decode(encoding), encoding, is_guess=False)
        except UnicodeDecodeError:
            continue
    if _is_nearly(body, encodings[0]):
        return Decoded(body.decode(encodings[0], errors="replace"), encodings[0], is_guess=False)
    from charset_normalizer import from_bytes

    best = from_bytes(body[:200_000]).best()
    encoding = best.encoding if best is not None else "cp1252"
    return Decoded(body.decode(encoding, errors="replace"), encoding, is_guess=True)


def _codec(label: str) -> str | None:
    try:
        name = codecs.lookup(label).name
    except LookupError:
        return None
    name = _SAME_AS_BROWSERS.get(name, name)
    return name if _BELIEVED.fullmatch(name) else None


def _is_nearly(body: bytes, encoding: str) -> bool:
    """Whether the encoding fits but for a few bytes: a page cut in a character, or with one bad quotation."""
    return body.decode(encoding, errors="replace").count("\ufffd") <= 1 + len(body) // 2000
