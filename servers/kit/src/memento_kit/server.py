"""The MCP server object that every Memento server is: the SDK's, with answers a model can act on.

Owns what mcp 2.3 leaves rough and every server needs alike (guides/mcp.md §1.4, §1.9, §1.10): argument
errors without pydantic's URLs, protocol errors with the codes of the specification, slim schemas.
It does not start anything: `serving.serve` does.
"""

import inspect
import logging
import sys
import time
from dataclasses import asdict
from typing import Any, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, GetPromptResult, InputRequiredResult, TextContent
from mcp.types import Tool as MCPTool
from pydantic import ValidationError

from memento_kit.model_use import MODELS_KEY, noted_model_uses
from memento_kit.schemas import slim_input_schema, slim_schema
from memento_kit.stdio import exit_on_signals, stoppable_stdin

__all__ = ["Server"]

logger = logging.getLogger(__name__)

_INVALID_PARAMS = -32602
_MAX_SHOWN_CHARS = 80

LifespanT = TypeVar("LifespanT")


class Server(MCPServer[LifespanT]):
    """An `MCPServer` whose errors and schemas are written for the reader on the other side."""

    def default_version(self, version: str) -> None:
        """Report `version` to clients, unless this server was made with one. The SDK would report an empty text."""
        self._lowlevel_server.version = self._lowlevel_server.version or version

    async def run_stdio_async(self) -> None:
        """Serve over stdin and stdout until the client leaves, or on SIGTERM or SIGINT.

        Raises:
            BaseExceptionGroup: the server could not start, or the client stopped reading (`BrokenPipeError`).
        """
        with stoppable_stdin() as stop, exit_on_signals(stop):
            async with stdio_server() as (read_stream, write_stream):
                server = self._lowlevel_server
                try:
                    await server.run(read_stream, write_stream, server.create_initialization_options())
                finally:
                    stop()
                    # What a tool printed and nobody flushed would come out at exit, on the wire that is stdout again.
                    sys.stdout.flush()

    async def list_tools(self) -> list[MCPTool]:
        """List the tools, in the order they were added, with slim schemas and dedented descriptions."""
        return [
            tool.model_copy(
                update={
                    "description": inspect.cleandoc(tool.description or ""),
                    "input_schema": slim_input_schema(tool.input_schema),
                    "output_schema": None if tool.output_schema is None else slim_schema(tool.output_schema),
                }
            )
            for tool in await super().list_tools()
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[LifespanT, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; log one line with its name, outcome and duration, never its arguments.

        Raises:
            MCPError: -32602, there is no such tool (MCP specification, server/tools, error handling).
            ToolError: the arguments are wrong, or the tool said why it could not do it.
            UnexpectedToolError: the tool crashed; its own text stays in the log.
        """
        started = time.monotonic()
        outcome = "was cancelled"
        try:
            self._check_names(name, arguments)
            result = await self._call_noted(name, arguments, context)
            outcome = "said it failed" if isinstance(result, CallToolResult) and result.is_error else "succeeded"
            return result
        except UnexpectedToolError:
            outcome = "crashed"
            raise
        except (ToolError, MCPError):
            outcome = "said it failed"
            raise
        finally:
            logger.info("tool %s %s after %.0f ms", _shown(name), outcome, (time.monotonic() - started) * 1000)

    def _check_names(self, name: str, arguments: dict[str, Any]) -> None:
        """Refuse what pydantic would let pass: an unknown tool, and an argument that no tool has heard of."""
        tools = {tool.name: tool for tool in self._tool_manager.list_tools()}
        if name not in tools:
            text = f"Unknown tool: {_shown(name)}. This server has: {', '.join(tools)}."
            raise MCPError(_INVALID_PARAMS, text)
        known = list(tools[name].parameters.get("properties", {}))
        unknown = [_shown(argument) for argument in arguments if argument not in known]
        if unknown:
            takes = f"It takes: {', '.join(known)}." if known else "It takes none."
            raise ToolError(f"Invalid arguments for {name}: there is no argument {', '.join(unknown)}. {takes}")

    async def _call_noted(
        self, name: str, arguments: dict[str, Any], context: Context[LifespanT, Any] | None
    ) -> CallToolResult | InputRequiredResult:
        """Call the tool; the result says which models it used, also that of a call which failed after using them."""
        with noted_model_uses() as uses:
            try:
                result = await self._call(name, arguments, context)
            except UnexpectedToolError:
                raise
            except ToolError as exc:
                if not uses:
                    raise
                result = CallToolResult(content=[TextContent(text=str(exc))], is_error=True)
        if not uses or not isinstance(result, CallToolResult):
            return result
        return result.model_copy(update={"meta": {**(result.meta or {}), MODELS_KEY: [asdict(use) for use in uses]}})

    async def _call(
        self, name: str, arguments: dict[str, Any], context: Context[LifespanT, Any] | None
    ) -> CallToolResult | InputRequiredResult:
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise
        except ToolError as exc:
            # Only the arguments: a ValidationError inside the tool is a crash, and one that the tool
            # itself turned into a ToolError is the cause of that ToolError, not of this one.
            if isinstance(exc.__cause__, ValidationError):
                raise ToolError(_argument_errors(name, exc.__cause__)) from exc.__cause__
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
