"""Every server in mcp.json, as the process that a client would start: what MCP and this house ask of all of them.

What each tool does is tested with its server. Here is what must hold for any tool, those yet to come included.
"""

import importlib.metadata
import json
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest

from memento.server_list import ServerEntry
from support.repository import SERVERS, tools_of
from support.server_process import INITIALIZE, ServerProcess, http_server_process, server_process

pytestmark = pytest.mark.timeout(60)

OUR_SERVERS = pytest.mark.parametrize("name", SERVERS)

MAX_NAME_CHARS = 64
"""Some model APIs take no longer one, the `server__` that a host puts before it included."""
MAX_CATALOGUE_CHARS = 24_000
"""About 6 000 tokens: what a model reads before it has done anything (guides/mcp.md §7)."""


@contextmanager
def running(name: str, folder: Path) -> Generator[ServerProcess]:
    entry = SERVERS[name]
    with server_process([entry.command, *entry.args], entry.env, folder) as process:
        yield process


@OUR_SERVERS
def test_it_starts_lists_its_tools_and_stops_with_exit_code_0_and_nothing_else_on_stdout(
    name: str, tmp_path: Path
) -> None:
    with running(name, tmp_path) as server:
        info = server.initialize()
        tools = server.request("tools/list")["result"]["tools"]
        server.stdin.close()
        code, rest, log = server.end()
    assert (code, rest) == (0, [])
    assert "Traceback" not in "\n".join(log)
    assert tools
    assert info["serverInfo"]["name"] == name
    assert info["serverInfo"]["version"] == importlib.metadata.version(f"memento-{name}")
    assert info["instructions"]


@OUR_SERVERS
def test_it_offers_the_same_over_http_as_over_stdio(name: str, tmp_path: Path) -> None:
    entry: ServerEntry = SERVERS[name]
    command = [entry.command, *entry.args, "--transport", "streamable-http"]
    headers = {"Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2025-06-18"}
    with http_server_process(command, entry.env, tmp_path) as (server, url), httpx2.Client(timeout=30) as http:
        opened = http.post(url, json=INITIALIZE, headers=headers)
        headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        answer = http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=headers)
        server.process.terminate()
        code, rest, _ = server.end()
    (message,) = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    assert json.loads(message)["result"]["tools"] == tools_of(name)
    assert (code, rest) == (0, [])


@OUR_SERVERS
def test_each_tool_is_described_for_the_model_and_annotated_for_the_host(name: str) -> None:
    for tool in tools_of(name):
        assert re.fullmatch(r"[a-z][a-z0-9_]*", tool["name"])
        assert len(f"{name}__{tool['name']}") <= MAX_NAME_CHARS
        assert len(tool["description"].split()) >= 5, tool["name"]
        assert tool["annotations"].keys() & {"readOnlyHint", "destructiveHint"}, tool["name"]
        assert tool["outputSchema"]["type"] == "object", tool["name"]
        for argument, schema in tool["inputSchema"].get("properties", {}).items():
            assert schema.get("description"), f"{tool['name']}: {argument} has no description"


@OUR_SERVERS
def test_each_input_is_bounded_and_slim(name: str) -> None:
    """A text without a length, or a number without a limit, is memory and time that a caller decides about."""
    for tool in tools_of(name):
        assert tool["inputSchema"]["additionalProperties"] is False, tool["name"]
        for path, schema in _schemas(tool["inputSchema"], tool["name"]):
            assert not isinstance(schema.get("title"), str), f"{path} has a label"
            if schema.get("type") == "string" and not schema.keys() & {"enum", "const", "pattern"}:
                assert "maxLength" in schema or "format" in schema, f"{path} has no maxLength"
            if schema.get("type") in {"integer", "number"}:
                limits = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "const"}
                assert schema.keys() & limits, f"{path} has no limit"
            if schema.get("type") == "array":
                assert "maxItems" in schema, f"{path} has no maxItems"


def _schemas(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for keyword in ("properties", "$defs"):
        for key, inner in schema.get(keyword, {}).items():
            yield from _schemas(inner, f"{path}.{key}")
    for keyword in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(keyword, []):
            yield from _schemas(inner, path)
    if isinstance(schema.get("items"), dict):
        yield from _schemas(schema["items"], f"{path}[]")


@OUR_SERVERS
def test_the_catalogue_is_short_enough_to_be_read(name: str) -> None:
    length = sum(len(str(tool)) for tool in tools_of(name))
    assert length < MAX_CATALOGUE_CHARS


WRONG_VALUES: list[Any] = [
    "\x00 not json",
    "x" * 1_000_000,
    -1,
    10**400,
    1e308,
    True,
    None,
    [],
    {"": {"": []}},
    [[[[]]]],
]


def wrong_arguments(tool: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Arguments that the tool's own schema refuses: none, one too many, and each one wrong in many ways."""
    schema = tool["inputSchema"]
    properties: dict[str, Any] = schema.get("properties", {})
    validator: Any = jsonschema.Draft202012Validator(schema)
    right = {argument: _right(properties[argument], schema) for argument in schema.get("required", [])}
    candidates = [{}, {**right, "no_such_argument": 1}, dict.fromkeys(properties)]
    candidates += [{**right, argument: value} for argument in properties for value in WRONG_VALUES]
    for candidate in candidates:
        nulls = {argument for argument, value in candidate.items() if value is None}
        # Two things are accepted that the schema does not promise: null for an optional argument
        # (memento_kit.schemas), and a truth value for a number (pydantic, as Python does).
        numbers = {
            argument for argument, value in candidate.items() if value is True and _is_number(properties[argument])
        }
        if not nulls - set(schema.get("required", [])) and not numbers and not validator.is_valid(candidate):
            yield candidate


def _is_number(schema: dict[str, Any]) -> bool:
    return any(each.get("type") in {"integer", "number"} for each in [schema, *schema.get("anyOf", [])])


def _right(schema: dict[str, Any], whole: dict[str, Any]) -> Any:
    """Some value that `schema` accepts, or near enough: it only has to leave the fault to another argument."""
    if "$ref" in schema:
        return _right(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _right(schema["anyOf"][0], whole)
    kind = str(schema.get("type"))
    if kind == "object":
        return {key: _right(schema["properties"][key], whole) for key in schema.get("required", [])}
    if kind == "array":
        return [_right(schema["items"], whole)] * schema.get("minItems", 0)
    simple: dict[str, Any] = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": False}
    return simple.get(kind, "x")


@OUR_SERVERS
def test_wrong_arguments_are_an_error_the_model_can_read_and_never_an_internal_one(name: str, tmp_path: Path) -> None:
    with running(name, tmp_path) as server:
        server.initialize()
        for tool in tools_of(name):
            told_apart = 0
            for arguments in wrong_arguments(tool):
                answer = server.request("tools/call", {"name": tool["name"], "arguments": arguments})
                shown = f"{tool['name']}({str(arguments)[:200]}) -> {str(answer)[:400]}"
                assert answer.get("result", {}).get("isError") is True, shown
                text = answer["result"]["content"][0]["text"]
                assert text.startswith(f"Invalid arguments for {tool['name']}"), shown
                assert len(text) < 5_000, shown
                assert "pydantic" not in text, shown
                told_apart += 1
            assert told_apart, f"no wrong arguments were found for {tool['name']}"
        server.stdin.close()
        code, _, log = server.end()
    assert code == 0
    assert "Traceback" not in "\n".join(log)


@OUR_SERVERS
@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"name": "no_such_tool", "arguments": {}}, id="unknown tool"),
        pytest.param({"name": "", "arguments": {}}, id="empty name"),
        pytest.param({"name": 7}, id="name is a number"),
        pytest.param({"arguments": {}}, id="no name"),
        pytest.param({"name": "no_such_tool", "arguments": [1]}, id="arguments are a list"),
        pytest.param({"name": "no_such_tool", "arguments": "{}"}, id="arguments are a text"),
        pytest.param([], id="params are a list"),
    ],
)
def test_a_wrong_request_is_refused_as_the_callers_mistake(name: str, params: object, tmp_path: Path) -> None:
    with running(name, tmp_path) as server:
        server.initialize()
        if params == []:  # not a request at all in MCP, so nothing may answer; the next one must
            server.send({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params})  # pyright: ignore[reportArgumentType]
        else:
            assert server.request("tools/call", params)["error"]["code"] == -32602
        assert server.request("tools/list")["result"]["tools"]
