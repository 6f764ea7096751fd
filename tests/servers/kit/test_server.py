"""memento_kit.server: what a client sees, in both eras of the protocol."""

import logging
from typing import Annotated, Any, Literal

import anyio
import pytest
from mcp import Client
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from memento_kit import Server, untrusted_result

pytestmark = pytest.mark.anyio

ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])
Era = Literal["auto", "legacy"]


class Page(BaseModel):
    title: str
    text: str
    next_offset: int | None = None
    author: str | None


class Note(BaseModel):
    name: str
    stars: int | None = Field(default=None, ge=1, le=5)


def notes_server() -> Server[Any]:
    server = Server[Any]("notes", version="1.2.3")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def find_notes(  # pyright: ignore[reportUnusedFunction]
        query: Annotated[str, Field(min_length=1, max_length=20, description="What to look for.")],
        limit: Annotated[int, Field(ge=1, le=50, description="How many.")] = 10,
        folder: Annotated[str | None, Field(description="Only in here.")] = None,
    ) -> Page:
        """Find notes.

        A second line, indented as docstrings are.
        """
        return Page(title=query, text=f"{limit} in {folder}", author=None)

    @server.tool()
    async def save_notes(notes: list[Note]) -> int:  # pyright: ignore[reportUnusedFunction]
        """Save notes."""
        return len(notes)

    @server.tool()
    async def read_page() -> Annotated[CallToolResult, Page]:  # pyright: ignore[reportUnusedFunction]
        """Read a page."""
        return untrusted_result(Page(title="t", text="x", author="a"), text="x", source="https://a.test")

    @server.tool()
    async def refuse() -> str:  # pyright: ignore[reportUnusedFunction]
        """Refuse."""
        raise ToolError("There is no note 'n9'. Use find_notes to see which there are.")

    @server.tool()
    async def crash(how: Literal["plain", "validation"] = "plain") -> str:  # pyright: ignore[reportUnusedFunction]
        """Crash."""
        if how == "validation":
            Note.model_validate({"stars": "the secret is 1234"})
        raise RuntimeError("the secret is 1234")

    @server.prompt()
    def summarise(note: str, style: str = "short") -> str:  # pyright: ignore[reportUnusedFunction]
        """Summarise a note."""
        return f"Summarise {note}, {style}."

    return server


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@ERAS
async def test_a_result_arrives_as_text_and_as_structure_nulls_included(era: Era) -> None:
    """The client validates the structure against the slim output schema: a null it did not allow would raise here."""
    async with Client(notes_server(), mode=era) as client:
        result = await client.call_tool("find_notes", {"query": "tides", "folder": None})
    assert not result.is_error
    assert result.structured_content == {"title": "tides", "text": "10 in None", "next_offset": None, "author": None}


@ERAS
async def test_an_untrusted_result_keeps_its_output_schema(era: Era) -> None:
    async with Client(notes_server(), mode=era) as client:
        tool = next(tool for tool in (await client.list_tools()).tools if tool.name == "read_page")
        result = await client.call_tool("read_page", {})
    assert tool.output_schema is not None
    assert set(tool.output_schema["properties"]) == {"title", "text", "next_offset", "author"}
    assert result.structured_content == {"title": "t", "text": "x", "author": "a"}
    assert text_of(result).startswith("<outside-text-")


@ERAS
async def test_the_catalogue_is_slim_and_says_that_other_arguments_are_refused(era: Era) -> None:
    async with Client(notes_server(), mode=era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["find_notes", "save_notes", "read_page", "refuse", "crash"]
    assert tools["find_notes"].description == "Find notes.\n\nA second line, indented as docstrings are."
    assert tools["find_notes"].annotations == ToolAnnotations(read_only_hint=True)
    assert tools["find_notes"].input_schema == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "minLength": 1, "maxLength": 20, "description": "What to look for."},
            "limit": {"type": "integer", "minimum": 1, "maximum": 50, "default": 10, "description": "How many."},
            "folder": {"type": "string", "description": "Only in here."},
        },
        "required": ["query"],
        "additionalProperties": False,
    }


@ERAS
@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        pytest.param(
            "find_notes", {}, "Invalid arguments for find_notes: query: Field required", id="missing argument"
        ),
        pytest.param(
            "find_notes",
            {"query": "", "limit": 99},
            "Invalid arguments for find_notes: query: String should have at least 1 character (got ''); "
            "limit: Input should be less than or equal to 50 (got 99)",
            id="two out of bounds",
        ),
        pytest.param(
            "save_notes",
            {"notes": [{"name": "a"}, {"name": "b", "stars": 9}]},
            "Invalid arguments for save_notes: notes.1.stars: Input should be less than or equal to 5 (got 9)",
            id="deep inside",
        ),
        pytest.param(
            "find_notes",
            {"query": ["x" * 500]},
            "Invalid arguments for find_notes: query: Input should be a valid string (got ['" + "x" * 78 + "…)",
            id="long value cut",
        ),
        pytest.param(
            "find_notes",
            {"query": "x", "max_results": 3, "Limit": 3},
            "Invalid arguments for find_notes: there is no argument 'max_results', 'Limit'. "
            "It takes: query, limit, folder.",
            id="unknown arguments",
        ),
        pytest.param(
            "refuse",
            {"why": 1},
            "Invalid arguments for refuse: there is no argument 'why'. It takes none.",
            id="argument for a tool without any",
        ),
        pytest.param(
            "refuse",
            {},
            "Error executing tool refuse: There is no note 'n9'. Use find_notes to see which there are.",
            id="the tool's own words",
        ),
    ],
)
async def test_what_a_model_can_correct_is_an_error_result_that_says_how(
    era: Era, tool: str, arguments: dict[str, Any], told: str
) -> None:
    async with Client(notes_server(), mode=era) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert text_of(result) == told


@ERAS
@pytest.mark.parametrize("how", ["plain", "validation"])
async def test_a_crash_tells_the_model_nothing_and_the_log_everything(
    era: Era, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Client(notes_server(), mode=era) as client:
        result = await client.call_tool("crash", {"how": how})
    assert result.is_error
    assert text_of(result) == "Error executing tool crash"
    assert "the secret is 1234" in caplog.text


@ERAS
async def test_an_unknown_tool_is_a_protocol_error_that_lists_the_tools(era: Era) -> None:
    async with Client(notes_server(), mode=era) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("find_note", {})
    assert caught.value.code == -32602
    assert caught.value.message == (
        "Unknown tool: 'find_note'. This server has: find_notes, save_notes, read_page, refuse, crash."
    )


@ERAS
@pytest.mark.parametrize(
    ("prompt", "arguments", "told"),
    [
        ("summarize", {"note": "n1"}, "Unknown prompt: 'summarize'."),
        ("summarise", {}, "Missing required argument(s) for prompt 'summarise': note."),
        ("summarise", None, "Missing required argument(s) for prompt 'summarise': note."),
    ],
)
async def test_a_wrong_prompt_request_is_the_callers_error_and_not_an_internal_one(
    era: Era, prompt: str, arguments: dict[str, str] | None, told: str
) -> None:
    async with Client(notes_server(), mode=era) as client:
        with pytest.raises(MCPError) as caught:
            await client.get_prompt(prompt, arguments)
    assert (caught.value.code, caught.value.message) == (-32602, told)


@ERAS
async def test_a_right_prompt_request_is_answered(era: Era) -> None:
    async with Client(notes_server(), mode=era) as client:
        result = await client.get_prompt("summarise", {"note": "n1"})
    assert [message.content for message in result.messages] == [TextContent(text="Summarise n1, short.")]


async def test_each_call_is_one_log_line_without_its_arguments(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="memento_kit.server")
    async with Client(notes_server()) as client:
        await client.call_tool("find_notes", {"query": "private matter"})
        await client.call_tool("refuse", {})
        await client.call_tool("crash", {})
        await client.call_tool("find_notes", {"nope": 1})
        with pytest.raises(MCPError):
            await client.call_tool("no\nsuch", {})
    lines = [record.getMessage() for record in caplog.records if record.name == "memento_kit.server"]
    assert [line.rsplit(" after ", 1)[0] for line in lines] == [
        "tool 'find_notes' succeeded",
        "tool 'refuse' said it failed",
        "tool 'crash' crashed",
        "tool 'find_notes' said it failed",
        "tool 'no\\nsuch' said it failed",
    ]
    assert "private matter" not in caplog.text


async def test_a_cancelled_call_is_logged_as_such(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="memento_kit.server")
    server = Server[Any]("slow")
    started = anyio.Event()

    @server.tool()
    async def wait() -> None:  # pyright: ignore[reportUnusedFunction]
        """Wait."""
        started.set()
        await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                await server.call_tool("wait", {})

            tasks.start_soon(call)
            await started.wait()
            tasks.cancel_scope.cancel()
    assert "tool 'wait' was cancelled after" in caplog.text


async def test_a_server_reports_its_own_version_before_that_of_its_distribution() -> None:
    own, unversioned = notes_server(), Server[Any]("plain")
    for server, reported in ((own, "1.2.3"), (unversioned, "9.9")):
        server.default_version("9.9")
        async with Client(server) as client:
            assert client.server_info is not None
            assert client.server_info.version == reported
