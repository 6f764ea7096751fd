"""ZIP packages of XML parts, which is what DOCX, PPTX, ODT, ODP and EPUB are: opening one, and reading a part safely.

Owns the limits on what may unpack, and what a part may hold: no XML entities (no office program writes any), so
that none can expand without end or name a file. Macros and embedded objects are members that nobody here opens.
"""

import posixpath
import re
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError, fromstring

from memento_documents.kinds import Unreadable

__all__ = ["Package", "open_package", "plain", "walk"]

_MAX_PART_BYTES = 100_000_000
"""An unpacked part above this is a bomb, or a book no one reads here: bomb.docx unpacks 2.5 MB to 712 MB."""
_MAX_TOTAL_BYTES = 400_000_000
"""All parts that are read, together."""
_PROLOG_BYTES = 65_536
_BLOCK_MARK = re.compile(r"^(?=#{1,6} |\|)", re.MULTILINE)


class Package:
    """The open package. `left_bytes` is what may still be unpacked."""

    def __init__(self, archive: zipfile.ZipFile, what: str) -> None:
        self._archive = archive
        self._what = what
        self._left_bytes = _MAX_TOTAL_BYTES
        self.names = frozenset(archive.namelist())

    @property
    def has_macros(self) -> bool:
        """Whether there is a VBA project in it. It is never opened."""
        return any(name.endswith("vbaProject.bin") for name in self.names)

    def read(self, name: str) -> bytes | None:
        """Return a part unpacked, or None when there is no such part.

        Raises:
            Unreadable: it unpacks to too much.
        """
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            return None
        limit = min(_MAX_PART_BYTES, self._left_bytes)
        if info.file_size > limit:
            raise Unreadable(f"A part of it unpacks to {info.file_size / 1e6:.0f} MB, too large to be read here.")
        with self._archive.open(info) as part:
            content = part.read(limit + 1)  # the directory may lie about the size
        if len(content) > limit:
            raise Unreadable("A part of it is too large to be read here.")
        self._left_bytes -= len(content)
        return content

    def xml(self, name: str) -> Element | None:
        """Return a part as XML, or None when there is no such part.

        Raises:
            Unreadable: it declares entities, or is too large.
            ParseError: it is damaged; `open_package` turns that into `Unreadable`.
        """
        content = self.markup(name)
        # expat: fetches nothing, and refuses amplification in any encoding
        return None if content is None else fromstring(content)

    def markup(self, name: str) -> bytes | None:
        """Return a part's XML as it stands, or None when there is no such part.

        Raises:
            Unreadable: it declares entities, or is too large.
        """
        content = self.read(name)
        if content is not None and b"<!ENTITY" in content[:_PROLOG_BYTES]:
            raise Unreadable(f"{self._what} declares XML entities, which no office program does; it is not read.")
        return content

    def required(self, name: str) -> Element:
        """Return a part as XML without which there is no document.

        Raises:
            Unreadable: as for `xml`, or the part is missing.
        """
        root = self.xml(name)
        if root is None:
            raise Unreadable(f"{self._what} has no part {name!r}; it is damaged.")
        return root

    def main_part(self, usual: str) -> str:
        """Return the name of the part that is the document; nearly always it is the `usual` one."""
        if usual in self.names:
            return usual
        return next((member for kind, member in self.relations("").values() if kind == "officeDocument"), usual)

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """What a part of an Office file points to: relation id to (kind, member name); links outside are left out.

        ECMA-376 part 2, §9.3. The kind is the last word of the relation's type ("slide", "image").
        """
        folder, name = posixpath.split(part)
        root = self.xml(f"{folder}/_rels/{name}.rels" if folder else f"_rels/{name}.rels")
        found: dict[str, tuple[str, str]] = {}
        for relation in root if root is not None else ():
            if relation.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, relation.get("Target") or "")).lstrip("/")
                found[relation.get("Id") or ""] = ((relation.get("Type") or "").rpartition("/")[2], target)
        return found


@contextmanager
def open_package(file: BinaryIO, what: str) -> Generator[Package]:
    """Open `file`; `what` names it in messages ("The presentation").

    Raises:
        Unreadable: it is damaged, now or while the caller reads parts.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield Package(archive, what)
    except (zipfile.BadZipFile, ParseError, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as exc:
        # RuntimeError: a member with a ZIP password; ValueError: an encoding that the XML names and nobody knows.
        raise Unreadable(
            f"{what} is damaged ({type(exc).__name__}); open it where it was made and save it again."
        ) from exc


def plain(text: str) -> str:
    """A paragraph's text as Markdown: lines that begin as a heading or a table would are marked as neither."""
    return _BLOCK_MARK.sub(r"\\", text)


def walk(root: Element, skip: frozenset[str] = frozenset()) -> Iterator[Element]:
    """All elements in document order, without those named in `skip` and what is in them; no recursion."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.tag in skip:
            continue
        yield node
        waiting += reversed(node)
