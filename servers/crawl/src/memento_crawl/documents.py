"""Documents met on the web, through the documents package's library where that is installed.

Owns nothing but the way there; runs in a worker process. The package is optional and AGPL-licensed.
"""

from pathlib import Path

__all__ = ["read_document"]


def read_document(path: str) -> str:
    """Return the document's text with each page and sheet marked."""
    from memento_documents.reading import read_text

    parts: list[str] = []
    for section in read_text(Path(path)):
        mark = f"[page {section.page}]\n" if section.page else f"[sheet {section.sheet}]\n" if section.sheet else ""
        parts.append(mark + section.text)
    return "\n\n".join(parts)
