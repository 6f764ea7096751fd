"""memento_kit.schemas: shorter schemas that still mean the same."""

import json
from typing import Any, Literal, cast

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from memento_kit import slim_input_schema, slim_schema


class Author(BaseModel):
    """Who wrote it."""

    title: str = Field(description="Dr, Ms, ...")
    born: int | None = None


class Book(BaseModel):
    title: str
    kind: Literal["novel", "poem"] = "novel"
    author: Author
    pages: int | None = None
    rating: float | None = 5.0
    series: str | None
    tags: list[str | int] | None = None
    notes: dict[str, str | None] = {"title": "a default, not a label"}


VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2))
AUTHORS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    cast(dict[str, Any], {"title": st.text(max_size=5)}), optional={"born": VALUES}
)
BOOKS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    cast(dict[str, Any], {}),
    optional={
        "title": VALUES,
        "kind": st.sampled_from(["novel", "poem", "play", None]),
        "author": st.one_of(VALUES, AUTHORS),
        "pages": VALUES,
        "rating": VALUES,
        "series": VALUES,
        "tags": VALUES,
        "notes": st.one_of(VALUES, st.dictionaries(st.text(max_size=3), VALUES, max_size=2)),
    },
)


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    validator: Any = jsonschema.Draft202012Validator(schema)
    return validator.is_valid(value)


def labels(schema: Any) -> int:
    """How often "title" stands where a schema would have its label."""
    if isinstance(schema, list):
        return sum(labels(item) for item in cast(list[Any], schema))
    if not isinstance(schema, dict):
        return 0
    items = cast(dict[str, Any], schema)
    own = isinstance(items.get("title"), str)
    return own + sum(labels(value) for key, value in items.items() if key != "default")


@given(book=BOOKS)
def test_a_slim_schema_accepts_exactly_what_the_whole_one_accepts(book: dict[str, Any]) -> None:
    whole = Book.model_json_schema()
    assert is_valid(book, slim_schema(whole)) == is_valid(book, whole)


@given(book=BOOKS)
def test_a_slim_input_schema_differs_only_in_nulls_that_are_the_default(book: dict[str, Any]) -> None:
    whole, slim = Book.model_json_schema(), slim_input_schema(Book.model_json_schema())
    trimmed = {key: value for key, value in book.items() if not (key in {"pages", "tags"} and value is None)}
    author: Any = trimmed.get("author")
    if isinstance(author, dict) and cast(dict[str, Any], author).get("born", 0) is None:
        trimmed["author"] = {"title": author["title"]}
    assert is_valid(trimmed, slim) == is_valid(book, whole)


@given(names=st.lists(st.sampled_from(["title", "default", "properties", "enum", "anyOf", "required"]), unique=True))
def test_arguments_may_be_called_like_keywords(names: list[str]) -> None:
    fields = cast(dict[str, Any], dict.fromkeys(names, (str, ...)))
    slim = slim_input_schema(create_model("Odd", **fields).model_json_schema())
    assert list(slim["properties"]) == names
    assert slim.get("required", []) == names


def test_labels_go_and_properties_defaults_and_descriptions_stay() -> None:
    slim = slim_schema(Book.model_json_schema())
    assert labels(Book.model_json_schema()) > 5
    assert labels(slim) == 0
    assert "title" in slim["properties"]
    assert slim["$defs"]["Author"]["description"] == "Who wrote it."
    assert slim["$defs"]["Author"]["properties"]["title"] == {"type": "string", "description": "Dr, Ms, ..."}
    assert slim["properties"]["notes"]["default"] == {"title": "a default, not a label"}


def test_only_a_null_that_is_the_default_is_dropped_from_the_input() -> None:
    fields = slim_input_schema(Book.model_json_schema())["properties"]
    assert fields["pages"] == {"type": "integer"}
    assert fields["rating"] == {"anyOf": [{"type": "number"}, {"type": "null"}], "default": 5.0}
    assert fields["series"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}


def test_the_schema_given_is_left_as_it_was() -> None:
    schema = Book.model_json_schema()
    before = json.dumps(schema)
    slim_schema(schema)
    slim_input_schema(schema)
    assert json.dumps(schema) == before


def test_a_schema_of_optional_arguments_is_a_third_shorter() -> None:
    """The saving that guides/mcp.md §1.10 measured, and the reason for this module."""

    class Arguments(BaseModel):
        query: str
        folder: str | None = None
        kind: Literal["a", "b"] | None = None
        limit: int | None = None

    schema = Arguments.model_json_schema()
    assert len(json.dumps(slim_input_schema(schema))) < 0.67 * len(json.dumps(schema))


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_a_tool_without_arguments_has_a_schema_too(schema: dict[str, Any]) -> None:
    assert slim_input_schema(schema) == {**schema, "additionalProperties": False}
