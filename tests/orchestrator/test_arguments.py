"""What models write as arguments: mended where one meaning is left, refused in one line where not."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.server import MCPServer

from memento.arguments import BadArguments, read_arguments
from memento.events import ToolCalled, ToolReturned
from support.scripted_model import answers, calls, plans, says, scene

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["query"],
    "properties": {
        "query": {"type": "string", "description": "What to look for"},
        "max_results": {"type": "integer", "maximum": 20},
        "share": {"type": "number"},
        "exact": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "years": {"type": "array", "items": {"type": "integer"}},
        "mode": {"enum": ["fast", "slow"]},
        "level": {"enum": [1, 2]},
        "when": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 3},
        "range": {"$ref": "#/$defs/Range"},
        "any": {},
        "text_or_number": {"type": ["string", "number"]},
    },
    "$defs": {
        "Range": {"type": "object", "required": ["from"],
                  "properties": {"from": {"type": "integer"}, "to": {"type": "integer"}}}
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param('"{\\"query\\": \\"a\\"}"', {}, id="the object as a string"),
        pytest.param('{"arguments": {"query": "a"}}', {}, id="the object wrapped"),
        pytest.param('{"query": "a", "max_results": "5"}', {"max_results": 5}, id="a whole number as text"),
        pytest.param('{"query": "a", "share": "0.25"}', {"share": 0.25}, id="a number as text"),
        pytest.param('{"query": "a", "exact": "True"}', {"exact": True}, id="a truth value as text"),
        pytest.param('{"query": "a", "tags": "[\\"x\\", \\"y\\"]"}', {"tags": ["x", "y"]}, id="a list as text"),
        pytest.param('{"query": "a", "years": ["1999", 2000]}', {"years": [1999, 2000]}, id="items as text"),
        pytest.param('{"query": "a", "tags": [7]}', {"tags": ["7"]}, id="a number where text is wanted"),
        pytest.param('{"query": "a", "level": "2"}', {"level": 2}, id="a choice of numbers as text"),
        pytest.param('{"query": "a", "range": "{\\"from\\": \\"1\\"}"}', {"range": {"from": 1}}, id="an inner object"),
        pytest.param('{"query": "a", "max_results": null, "range": {"from": 1, "to": null}}', {"range": {"from": 1}},
                     id="null for what is left out"),
        pytest.param('{"query": "a", "when": null}', {"when": None}, id="null that means something"),
        pytest.param('{"query": "a", "maxResults": 5}', {"max_results": 5}, id="another way to write a name"),
        pytest.param('{"query": "a", "any": "5", "text_or_number": "5"}', {"any": "5", "text_or_number": "5"},
                     id="text that may be text stays text"),
    ],
)  # fmt: skip
def test_what_has_one_meaning_is_mended(written: str, meant: dict[str, Any]) -> None:
    read = read_arguments(written, SCHEMA, tool="t")
    assert json.dumps(read, sort_keys=True) == json.dumps({"query": "a"} | meant, sort_keys=True)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        pytest.param('{"query": ', "not valid JSON (Expecting value at character 9)", id="no JSON"),
        pytest.param('{"query": "a", "share": NaN}', "not valid JSON: it has no NaN", id="not a number"),
        pytest.param("[" * 100_000, "nested too deeply", id="deep"),
        pytest.param("[1]", "must be one JSON object", id="a list"),
        pytest.param("{}", 'missing: {"query": {"type": "string", "description": "What to look for"}}', id="missing"),
        pytest.param('{"query": null}', "'query': None is not of type 'string'", id="null for what is required"),
        pytest.param('{"query": "a", "max_results": "many"}', "'many' is not of type 'integer'", id="type"),
        pytest.param('{"query": "a", "max_results": "5.5"}', "'5.5' is not of type 'integer'", id="part"),
        pytest.param('{"query": "a", "max_results": "50"}', "'max_results': 50 is greater than the maximum of 20. The "
                     'schema says {"type": "integer", "maximum": 20}.', id="bound"),
        pytest.param('{"query": "a", "share": "0.12345678901234567890123"}', "'share'", id="more digits than a float"),
        pytest.param('{"query": "a", "tags": "x, y"}', "'tags': 'x, y' is not of type 'array'", id="a list in words"),
        pytest.param('{"query": 1.1}', "'query': 1.1 is not of type 'string'", id="a version that lost its zero"),
        pytest.param('{"query": "a", "mode": "quick"}', "'mode': 'quick' is not one of ['fast', 'slow']", id="choice"),
        pytest.param('{"query": "a", "qurey": "b"}', "there is no 'qurey'. Did you mean 'query'?", id="extra, near"),
        pytest.param('{"query": "a", "zzz": 1}', "there is no 'zzz'. There are: query, max_results", id="extra, far"),
        pytest.param('{"query": "a", "range": {"to": 3}}', "in 'range' missing: {\"from\"", id="missing inside"),
    ],
)  # fmt: skip
def test_what_could_mean_two_things_is_refused_in_one_short_line_that_names_it(written: str, told: str) -> None:
    with pytest.raises(BadArguments) as caught:
        read_arguments(written, SCHEMA, tool="t")
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert len(message) < 900


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({}, id="none"),
        pytest.param({"type": "no such type"}, id="not a schema"),
        pytest.param({"$ref": "http://127.0.0.1:9/never-fetched.json"}, id="a reference to elsewhere"),
        pytest.param({"properties": {"a": {"$ref": "#/properties/a"}}}, id="a reference to itself"),
        pytest.param({"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}, {"type": "string"}]}}}, id="a circle"),
        pytest.param({"properties": {"a": {"pattern": "["}}}, id="a broken pattern"),
        pytest.param({"properties": []}, id="properties that are none"),
    ],
)
def test_a_schema_that_is_itself_wrong_leaves_the_judgement_to_the_server(schema: dict[str, Any]) -> None:
    assert read_arguments('{"a": "5"}', schema, tool="t") == {"a": "5"}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def fits_schema(arguments: dict[str, Any]) -> bool:
    validator: Any = jsonschema.Draft202012Validator(SCHEMA)
    return validator.is_valid(arguments)


@given(st.dictionaries(st.sampled_from(sorted(SCHEMA["properties"])), _VALUES))
def test_whatever_is_sent_fits_the_schema_and_what_fitted_is_sent_as_it_was(arguments: dict[str, Any]) -> None:
    fits = fits_schema(arguments)
    try:
        read = read_arguments(json.dumps(arguments), SCHEMA, tool="t")
    except BadArguments:
        assert not fits
        return
    assert fits_schema(read)
    if fits:
        assert json.dumps(read) == json.dumps(arguments)


@pytest.mark.anyio
async def test_the_tool_gets_mended_arguments_and_a_call_that_does_not_fit_is_never_sent(tmp_path: Path) -> None:
    server: MCPServer[Any] = MCPServer("calc")
    got: list[int] = []

    @server.tool()
    def double(number: int) -> int:
        """Double."""
        got.append(number)
        return 2 * number

    batch = calls(("calc__double", '"{\\"number\\": \\"4\\"}"'), ("calc__double", {"number": "four"}))
    async with scene(tmp_path, [plans("x"), batch, says("r"), answers("a")], servers={"calc": server}) as play:
        await play.run()
    assert got == [4]
    assert play.of(ToolCalled)[0].arguments == {"number": 4}, "on record is what was sent"
    assert "'number': 'four' is not of type 'integer'" in next(e.text for e in play.of(ToolReturned) if e.is_error)
    assert [message["content"][:5] for message in play.model.sent[2]["messages"][-2:]][1] == "Error"
