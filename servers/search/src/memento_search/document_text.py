"""The text of PDF and office files, through the documents package's library where that is installed.

Owns nothing but the way there. `read_sections` runs in a worker process (`memento_kit.worker_process`): a
hostile file can hang or crash the parser. The package is optional and AGPL-licensed; this one does not need it.
"""

import importlib.util
from typing import Any

__all__ = ["READ_SECTIONS", "can_read_documents", "read_sections"]

READ_SECTIONS = "memento_search.document_text:read_sections"


def can_read_documents() -> bool:
    """Whether the documents package is installed. Imports none of it but its empty front."""
    return (
        importlib.util.find_spec("memento_documents") is not None
        and importlib.util.find_spec("memento_documents.reading") is not None
    )


def read_sections(path: str) -> list[dict[str, Any]]:
    """Return `{"text", "page", "sheet"}` for each page or sheet of the file."""
    from pathlib import Path

    from memento_documents.reading import read_text

    return [{"text": section.text, "page": section.page, "sheet": section.sheet} for section in read_text(Path(path))]
