"""The floor: the openai client and the MCP client in a loop, and nothing else. It keeps no record and has no limits."""

import json

from harness import Measured, measure
from mcp import Client, StdioServerParameters
from openai import AsyncOpenAI


async def session(base_url: str, steps: int, server: list[str], measured: Measured) -> None:
    async with (
        AsyncOpenAI(api_key="k", base_url=base_url, max_retries=0) as openai,
        Client(StdioServerParameters(command=server[0], args=server[1:])) as client,
    ):
        listed = (await client.list_tools()).tools
        tools = [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": t.input_schema},
            }
            for t in listed
        ]

        async def run() -> object:
            messages = [{"role": "user", "content": "Add."}]
            while True:
                reply = await openai.chat.completions.create(model="scripted", messages=messages, tools=tools)
                message = reply.choices[0].message
                messages.append(message.model_dump(exclude_none=True))
                if not message.tool_calls:
                    return message.content
                for call in message.tool_calls:
                    result = await client.call_tool(call.function.name, json.loads(call.function.arguments))
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": result.content[0].text})

        await measured.both(run)


measure(session)
