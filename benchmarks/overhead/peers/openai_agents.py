"""openai-agents: an agent with one MCP server, tracing off."""

from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from agents.mcp import MCPServerStdio
from harness import Measured, measure
from openai import AsyncOpenAI


async def session(base_url: str, steps: int, server: list[str], measured: Measured) -> None:
    set_tracing_disabled(True)
    openai = AsyncOpenAI(api_key="k", base_url=base_url, max_retries=0)
    params = {"command": server[0], "args": server[1:]}
    async with MCPServerStdio(params=params, cache_tools_list=True, client_session_timeout_seconds=30) as mcp:
        agent = Agent(name="a", model=OpenAIChatCompletionsModel("scripted", openai), mcp_servers=[mcp])

        async def run() -> object:
            return (await Runner.run(agent, "Add.", max_turns=steps + 5)).final_output

        await measured.both(run)


measure(session)
