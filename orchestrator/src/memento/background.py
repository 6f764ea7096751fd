"""Tasks that serve a block of code and end with it.

Owns one thing that anyio leaves to its users: a task group wraps whatever its block raises into an
`ExceptionGroup`, and a caller who wrote `except ConfigError` would no longer catch it.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

__all__ = ["background_tasks"]


@asynccontextmanager
async def background_tasks() -> AsyncGenerator[TaskGroup]:
    """A task group whose tasks are cancelled when the block ends; the block's own exception comes out as it is."""
    raised: Exception | None = None
    async with anyio.create_task_group() as group:
        try:
            yield group
        except Exception as exc:  # noqa: BLE001 - carried past the group's edge and raised again below
            raised = exc
        group.cancel_scope.cancel()
    if raised is not None:
        raise raised
