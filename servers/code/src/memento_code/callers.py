"""Who is asking: which sessions a request may name, and what a session is called for it.

On stdio one client owns the process, so a plain word names a session. Over HTTP many clients share the server: a
session then has an unguessable handle that the server gives, bound to the token and to the MCP session of whoever
started it. Another client's handle is as unknown as one that never was (MCP, Security Best Practices: session hijack).
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp.server.mcpserver import Context

__all__ = ["Caller", "caller_of", "new_handle"]

_HANDLE_BYTES = 18
_MCP_SESSION = "mcp-session-id"


@dataclass(frozen=True)
class Caller:
    """One client, as far as it can be told from others."""

    identity: str = ""
    shares_server: bool = False
    """Other clients use the same server: sessions are found by handles, never by names of the client's choosing."""


def caller_of(ctx: Context[Any], *, outlives_client: bool) -> Caller:
    """Return who asks. With `outlives_client`, a new connection with the same token is the same caller."""
    request: Any = ctx.request_context.request
    headers: Mapping[str, str] | None = getattr(request, "headers", None)
    if headers is None:
        return Caller()
    connection = "" if outlives_client else headers.get(_MCP_SESSION, "")
    parts = "\0".join((headers.get("authorization", ""), connection))
    return Caller(hashlib.sha256(parts.encode()).hexdigest(), shares_server=True)


def new_handle() -> str:
    """A name nobody can guess: 144 random bits."""
    return secrets.token_urlsafe(_HANDLE_BYTES)
