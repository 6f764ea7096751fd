"""pydantic-ai: an agent with one MCP toolset, no limit on requests."""

from fastmcp.client.transports import StdioTransport
from harness import Measured, measure
from pydantic_ai import Agent, UsageLimits
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


async def session(base_url: str, steps: int, server: list[str], measured: Measured) -> None:
    model = OpenAIChatModel("scripted", provider=OpenAIProvider(base_url=base_url, api_key="k"))
    agent = Agent(model, toolsets=[MCPToolset(StdioTransport(server[0], server[1:]))])
    async with agent:

        async def run() -> object:
            return (await agent.run("Add.", usage_limits=UsageLimits(request_limit=None))).output

        await measured.both(run)


measure(session)
