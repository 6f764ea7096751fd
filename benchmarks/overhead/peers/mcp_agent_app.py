"""mcp-agent: an augmented model with one MCP server."""

from harness import Measured, measure
from mcp_agent.agents.agent import Agent
from mcp_agent.app import MCPApp
from mcp_agent.config import LoggerSettings, MCPServerSettings, MCPSettings, OpenAISettings, Settings
from mcp_agent.workflows.llm.augmented_llm import RequestParams
from mcp_agent.workflows.llm.augmented_llm_openai import OpenAIAugmentedLLM


async def session(base_url: str, steps: int, server: list[str], measured: Measured) -> None:
    settings = Settings(
        execution_engine="asyncio",
        logger=LoggerSettings(type="none"),
        mcp=MCPSettings(servers={"calc": MCPServerSettings(command=server[0], args=server[1:])}),
        openai=OpenAISettings(api_key="k", base_url=base_url, default_model="scripted"),
    )
    async with (
        MCPApp(name="bench", settings=settings).run(),
        Agent(name="a", instruction="Add.", server_names=["calc"]) as agent,
    ):
        llm = await agent.attach_llm(OpenAIAugmentedLLM)

        async def run() -> object:
            params = RequestParams(model="scripted", max_iterations=steps + 5, use_history=False)
            return await llm.generate_str("Add.", params)

        await measured.both(run)


measure(session)
