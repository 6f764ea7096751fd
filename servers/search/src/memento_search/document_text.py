"""The text of PDF and office files, through the documents package's library where that is installed.

Owns nothing but the way there. `read_sections` runs in a worker process (`memento_kit.worker_process`): a
hostile file can hang or crash the parser. The package is optional and AGPL-licensed; this one does not need it.
"""

import functools
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


@functools.cache
def _confine() -> None:
    """Once, for good: this process opens no socket and starts no program, whatever a document makes of its parser."""
    from memento_documents.confinement import confine_system_calls, why_not_confined

    if why_not_confined() is None:
        confine_system_calls()


def read_sections(path: str) -> list[dict[str, Any]]:
    """Return `{"text", "page", "sheet"}` for each page or sheet of the file."""
    from pathlib import Path

    from memento_documents.reading import read_text

    _confine()
    return [{"text": section.text, "page": section.page, "sheet": section.sheet} for section in read_text(Path(path))]
