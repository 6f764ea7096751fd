"""What every Memento MCP server shares, and nothing that only one of them needs.

The safe HTTP client is not re-exported here: `memento_kit.safe_http` is imported by the servers that fetch.
`Server` and `serve` are loaded when first used: they bring the MCP SDK along (.7 s of processor time), which the case
bank as a library and the commands have no use for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from memento_kit.paging import TextPage, page_text
from memento_kit.paths import AllowedPaths, PathList, PathNotAllowed, memento_home
from memento_kit.schemas import slim_input_schema, slim_schema
from memento_kit.settings import ServerSettings, StartupError
from memento_kit.untrusted import fence, strip_invisible, unfence, untrusted_result

if TYPE_CHECKING:
    from memento_kit.server import Server
    from memento_kit.serving import serve

__all__ = [
    "AllowedPaths",
    "PathList",
    "PathNotAllowed",
    "Server",
    "ServerSettings",
    "StartupError",
    "TextPage",
    "fence",
    "memento_home",
    "page_text",
    "serve",
    "slim_input_schema",
    "slim_schema",
    "strip_invisible",
    "unfence",
    "untrusted_result",
]

_HOME = {"Server": "server", "serve": "serving"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
