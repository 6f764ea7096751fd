"""Which models a tool call used, told in its result."""

from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent

from memento_kit import Server
from memento_kit.model_use import MODELS_KEY, note_model_use

pytestmark = pytest.mark.anyio


def server() -> Server[Any]:
    served: Server[Any] = Server("test")

    @served.tool()
    async def embed(texts: list[str]) -> CallToolResult:
        """Embed."""
        for text in texts:
            reply = {"usage": {"prompt_tokens": len(text), "total_tokens": len(text)}}
            await anyio.to_thread.run_sync(lambda: note_model_use("e", "http://e/v1", reply, writes=False))  # noqa: B023
        return CallToolResult(content=[TextContent(text="done")], _meta={"own": 1})

    @served.tool()
    async def hear(reply: dict[str, Any], fails: bool) -> str:
        """Hear."""
        note_model_use("s", "http://s/v1", reply)
        if fails:
            raise ToolError("nobody speaks")
        return "words"

    return served


async def test_a_result_tells_each_use_beside_what_the_tool_told_itself() -> None:
    async with Client(server()) as client:
        result = await client.call_tool("embed", {"texts": ["four", "sixsix"]})
        without = await client.call_tool("embed", {"texts": []})

    use = {"model": "e", "base_url": "http://e/v1", "input_tokens": 4, "output_tokens": 0}
    assert result.meta is not None
    assert result.meta["own"] == 1
    assert result.meta[MODELS_KEY] == [use, {**use, "input_tokens": 6}]
    assert MODELS_KEY not in (without.meta or {})


@pytest.mark.parametrize(
    ("reply", "tokens"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 2}}, (3, 2)),
        ({"usage": {"type": "tokens", "input_tokens": 3, "output_tokens": 2}}, (3, 2)),
        ({"usage": {"type": "duration", "seconds": 3}}, (None, None)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": "2"}}, (None, None)),
        ({}, (None, None)),
    ],
)
async def test_what_an_endpoint_does_not_say_is_unknown(reply: dict[str, Any], tokens: tuple[int, int]) -> None:
    async with Client(server()) as client:
        result = await client.call_tool("hear", {"reply": reply, "fails": False})

    assert result.meta is not None
    assert [(u["input_tokens"], u["output_tokens"]) for u in result.meta[MODELS_KEY]] == [tokens]


async def test_a_call_that_failed_after_a_model_was_used_tells_it_too() -> None:
    async with Client(server()) as client:
        result = await client.call_tool("hear", {"reply": {}, "fails": True})

    assert result.is_error
    assert "nobody speaks" in getattr(result.content[0], "text", "")
    assert result.meta is not None
    assert result.meta[MODELS_KEY][0]["model"] == "s"
