"""The MCP server object that every Memento server is: the SDK's, with answers a model can act on.

Owns what mcp 2.3 leaves rough and every server needs alike (guides/mcp.md §1.4, §1.9, §1.10): argument
errors without pydantic's URLs, protocol errors with the codes of the specification, slim schemas.
It does not start anything: `serving.serve` does.
"""

import inspect
from typing import Any, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, GetPromptResult, InputRequiredResult
from mcp.types import Tool as MCPTool
from pydantic import ValidationError

from memento_kit.schemas import slim_schema

__all__ = ["Server"]

_INVALID_PARAMS = -32602
_MAX_SHOWN_CHARS = 80

LifespanT = TypeVar("LifespanT")


class Server(MCPServer[LifespanT]):
    """An `MCPServer` whose errors and schemas are written for the reader on the other side."""

    async def list_tools(self) -> list[MCPTool]:
        """List the tools, in the order they were added, with slim schemas and dedented descriptions."""
        return [
            tool.model_copy(
                update={
                    "description": inspect.cleandoc(tool.description or ""),
                    "input_schema": slim_schema(tool.input_schema),
                    "output_schema": None if tool.output_schema is None else slim_schema(tool.output_schema),
                }
            )
            for tool in await super().list_tools()
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[LifespanT, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool.

        Raises:
            MCPError: -32602, there is no such tool (MCP specification, server/tools, error handling).
            ToolError: the arguments are wrong, or the tool said why it could not do it.
            UnexpectedToolError: the tool crashed; its own text stays in the log.
        """
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise
        except ToolError as exc:
            if isinstance(exc.__cause__, ValidationError):
                raise ToolError(_argument_errors(name, exc.__cause__)) from exc.__cause__
            if exc.__cause__ is None:  # the SDK's "Unknown tool" is the only one that wraps nothing
                names = [tool.name for tool in await super().list_tools()]
                if name not in names:
                    text = f"Unknown tool: {name!r}. This server has: {', '.join(names)}."
                    raise MCPError(_INVALID_PARAMS, text) from exc
            raise

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[LifespanT, Any] | None = None
    ) -> GetPromptResult | InputRequiredResult:
        """Render a prompt.

        Raises:
            MCPError: -32602, there is no such prompt, or a required argument is missing.
        """
        prompt = next((prompt for prompt in await self.list_prompts() if prompt.name == name), None)
        if prompt is None:
            raise MCPError(_INVALID_PARAMS, f"Unknown prompt: {name!r}.")
        required = [argument.name for argument in prompt.arguments or [] if argument.required]
        missing = [argument for argument in required if argument not in (arguments or {})]
        if missing:
            raise MCPError(_INVALID_PARAMS, f"Missing required argument(s) for prompt {name!r}: {', '.join(missing)}.")
        return await super().get_prompt(name, arguments, context)


def _argument_errors(tool: str, error: ValidationError) -> str:
    """One line a model can correct itself by: which argument, what is wrong with it, what was given."""
    lines: list[str] = []
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"]) or "arguments"
        given = "" if problem["type"] == "missing" else f" (got {_shown(problem['input'])})"
        lines.append(f"{where}: {problem['msg']}{given}")
    return f"Invalid arguments for {tool}: " + "; ".join(lines)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "…"
