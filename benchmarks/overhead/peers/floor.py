"""The floor: the openai client and the MCP client in a loop, and nothing else. It keeps no record and has no limits.

The request goes out in wire form, so that the SDK does not walk the history in every call; `plain_loop.py` is the same
loop as anybody would write it.
"""

import json

from harness import Measured, measure
from mcp import Client, StdioServerParameters
from openai import AsyncOpenAI


async def session(
    base_url: str, steps: int, server: list[str], measured: Measured, *, in_wire_form: bool = True
) -> None:
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
                request = {"model": "scripted", "messages": messages, "tools": tools}
                asked = {"model": "scripted", "messages": [], "extra_body": request} if in_wire_form else request
                reply = await openai.chat.completions.create(**asked)
                message = reply.choices[0].message
                messages.append(message.model_dump(exclude_none=True))
                if not message.tool_calls:
                    return message.content
                for call in message.tool_calls:
                    result = await client.call_tool(call.function.name, json.loads(call.function.arguments))
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": result.content[0].text})

        await measured.both(run)


if __name__ == "__main__":
    measure(session)
