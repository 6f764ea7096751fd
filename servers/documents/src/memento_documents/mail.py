"""Mail messages (EML, RFC 5322 and MIME): headers, the text, and the attachments as members to be read on their own.

An attachment is addressed as `mail.eml!/name`; `archive` opens it. A message inside a message is such an attachment.
Signatures are not checked, encrypted mail (S/MIME, PGP) is named and not read.
"""

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import BinaryIO, cast

from memento_documents.html import html_to_text
from memento_documents.kinds import Unreadable
from memento_documents.reading import Document, Section

__all__ = ["attachments", "read_mail"]

_SHOWN_HEADERS = ("From", "To", "Cc", "Reply-To", "Date", "Subject")
_MAX_PARTS = 2_000
_MAX_HEADER_CHARS = 2_000


def read_mail(file: BinaryIO) -> Document:
    """Return headers, text and the list of attachments as one section.

    Raises:
        Unreadable: there are more parts in it than any mail has.
    """
    message = _parsed(file)
    headers = [f"{name}: {value}" for name in _SHOWN_HEADERS if (value := _header(message, name))]
    blocks = ["\n".join(headers), _body(message)]
    attached = attachments(message)
    if attached:
        lines = [f"- {name} ({part.get_content_type()}, {len(content)} bytes)" for name, part, content in attached]
        blocks.append("## Attachments\n\n" + "\n".join(lines))
    notes = [f"Read an attachment as SOURCE!/{attached[0][0]}"] if attached else []
    if message.get_content_type() in ("multipart/encrypted", "application/pkcs7-mime"):
        notes.append("The message is encrypted; its text cannot be read.")
    text = "\n\n".join(block for block in blocks if block)
    return Document("eml", [Section(text + "\n")], title=_header(message, "Subject") or None, notes=notes)


def attachments(message: "EmailMessage | BinaryIO") -> list[tuple[str, EmailMessage, bytes]]:
    """Every part that is not the shown text: its unique name, the part, its decoded bytes."""
    if not isinstance(message, EmailMessage):
        message = _parsed(message)
    found: list[tuple[str, EmailMessage, bytes]] = []
    taken: set[str] = set()
    shown = {id(part) for part in _shown_parts(message)}
    for part in _leaves(message):
        if id(part) in shown:
            continue
        name = (part.get_filename() or part.get_content_type().replace("/", ".")).replace("/", "_")
        base, number = name, 2
        while name in taken:
            name, number = f"{number}-{base}", number + 1
        taken.add(name)
        found.append((name, part, _content(part)))
    return found


def _parsed(file: BinaryIO) -> EmailMessage:
    return message_from_bytes(file.read(), policy=policy.default)


def _header(message: EmailMessage, name: str) -> str:
    try:
        values = [str(value) for value in message.get_all(name, [])]
    except (ValueError, LookupError, IndexError, AttributeError, TypeError):
        return "(damaged)"  # the standard library's header parser fails on odd ones (bpo-27931 and relatives)
    return " ".join(" ".join(values).split())[:_MAX_HEADER_CHARS]


def _leaves(message: EmailMessage) -> Iterator[EmailMessage]:
    """All parts that hold content, in order; a message inside the message is one of them. No recursion."""
    waiting = [message]
    count = 0
    while waiting:
        part = waiting.pop()
        count += 1
        if count > _MAX_PARTS:
            raise Unreadable(f"The message has more than {_MAX_PARTS} parts; it is not read.")
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            waiting += reversed(cast(list[EmailMessage], part.get_payload()))
        else:
            yield part


def _shown_parts(message: EmailMessage) -> list[EmailMessage]:
    """The text parts that a mail program shows: plain text, or HTML where there is no plain text."""
    texts = [
        part
        for part in _leaves(message)
        if part.get_content_maintype() == "text" and part.get_content_disposition() != "attachment"
    ]
    plain = [part for part in texts if part.get_content_subtype() == "plain"]
    html = [part for part in texts if part.get_content_subtype() == "html"]
    return [*plain, *html] if plain else html


def _body(message: EmailMessage) -> str:
    shown = _shown_parts(message)
    plain = [part for part in shown if part.get_content_subtype() == "plain"]
    if plain:
        return "\n\n".join(_text(part) for part in plain).strip()
    return "\n\n".join(html_to_text(_text(part)) for part in shown).strip()


def _text(part: EmailMessage) -> str:
    content = _content(part)
    try:
        text = content.decode(part.get_content_charset() or "utf-8", errors="replace")
    except LookupError:  # a charset nobody knows
        text = content.decode("utf-8", errors="replace")
    return text.replace("\r\n", "\n")


def _content(part: EmailMessage) -> bytes:
    if part.get_content_type() == "message/rfc822" and part.is_multipart():
        return b"".join(inner.as_bytes() for inner in cast(list[EmailMessage], part.get_payload()))
    decoded = part.get_payload(decode=True)
    return decoded if isinstance(decoded, bytes) else b""
