"""EPUB books: a section per chapter, in reading order, with the titles of the table of contents.

Follows container.xml → package document → spine (EPUB 3.3, §4 and §5); chapters are HTML. Encrypted chapters (DRM) are
named, not read. Scripts, remote resources and fonts are never touched.
"""

import posixpath
from typing import BinaryIO
from urllib.parse import unquote
from xml.etree.ElementTree import Element, ParseError

from memento_documents.html import html_to_text
from memento_documents.kinds import Unreadable
from memento_documents.package import Package, open_package
from memento_documents.plain_text import decode
from memento_documents.reading import Document, Section

__all__ = ["read_epub"]

_CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_OPF = "{http://www.idpf.org/2007/opf}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_NCX = "{http://www.daisy.org/z3986/2005/ncx/}"
_XHTML = "{http://www.w3.org/1999/xhtml}"
_ENC = "{http://www.w3.org/2001/04/xmlenc#}"


def read_epub(file: BinaryIO) -> Document:
    """Return one section per chapter file of the spine; `page` is its number.

    Raises:
        Unreadable: it is damaged, or nothing in it can be read.
    """
    with open_package(file, "The book") as package:
        root_file = next((node.get("full-path") for node in package.required("META-INF/container.xml").iter(
            f"{_CONTAINER}rootfile")), None)  # fmt: skip
        book = package.required(root_file or "")
        folder = posixpath.dirname(root_file or "")
        members = {
            item.get("id") or "": (_member(folder, item.get("href")), item.get("properties") or "")
            for item in book.iter(f"{_OPF}item")
        }
        titles = _titles(package, book, members)
        encrypted = _encrypted(package)
        sections: list[Section] = []
        missing: list[str] = []
        for reference in book.iter(f"{_OPF}itemref"):
            member = members.get(reference.get("idref") or "", ("", ""))[0]
            content = None if member in encrypted else package.read(member)
            if content is None:
                missing.append(member or "a chapter without a file")
                continue
            title = titles.get(member)  # better than that of the file, which is mostly the book's
            text = html_to_text(decode(content)[0], with_title=title is None)
            sections.append(Section(text, page=len(sections) + 1, title=title))
        title = next((node.text for node in book.iter(f"{_DC}title")), None)
        author = ", ".join(node.text for node in book.iter(f"{_DC}creator") if node.text)
    if not sections:
        raise Unreadable("No chapter of the book can be read: it is protected, or damaged.")
    notes = [f"Not read, protected or missing: {', '.join(missing[:5])}."] if missing else []
    return Document("epub", sections, title=f"{title} ({author})" if title and author else title, notes=notes)


def _member(folder: str, href: str | None) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote((href or "").partition("#")[0])))


def _titles(package: Package, book: Element, members: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Chapter file to its first title in the table of contents; a broken one is none."""
    titles: dict[str, str] = {}
    spine = book.find(f"{_OPF}spine")
    ncx = members.get("" if spine is None else spine.get("toc") or "", ("", ""))[0]
    navigation = next((member for member, properties in members.values() if "nav" in properties.split()), "")
    for member in (navigation, ncx):
        try:
            root = package.xml(member)
        except (ParseError, Unreadable):  # named entities, as HTML has them, are no XML
            continue
        folder = posixpath.dirname(member)
        for link in root.iter(f"{_XHTML}a") if root is not None else ():
            titles.setdefault(_member(folder, link.get("href")), " ".join("".join(link.itertext()).split()))
        for point in root.iter(f"{_NCX}navPoint") if root is not None else ():
            source = point.find(f"{_NCX}content")
            label = " ".join((point.findtext(f"{_NCX}navLabel/{_NCX}text") or "").split())
            titles.setdefault(_member(folder, None if source is None else source.get("src")), label)
    return {member: title for member, title in titles.items() if title}


def _encrypted(package: Package) -> set[str]:
    root = package.xml("META-INF/encryption.xml")
    return set() if root is None else {unquote(node.get("URI") or "") for node in root.iter(f"{_ENC}CipherReference")}
