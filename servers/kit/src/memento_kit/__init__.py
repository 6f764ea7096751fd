"""What every Memento MCP server shares, and nothing that only one of them needs.

The safe HTTP client is not re-exported here: `memento_kit.safe_http` is imported by the servers that fetch.
"""

from memento_kit.paging import TextPage, page_text
from memento_kit.paths import AllowedPaths, PathList, PathNotAllowed, memento_home
from memento_kit.schemas import slim_input_schema, slim_schema
from memento_kit.server import Server
from memento_kit.serving import serve
from memento_kit.settings import ServerSettings, StartupError
from memento_kit.untrusted import fence, strip_invisible, unfence, untrusted_result

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
