"""JSON schemas as a model should read them: pydantic's, without what costs tokens and says nothing.

Owns the trimming of schemas that pydantic made. It validates nothing: the model behind the schema does.
"""

from typing import Any, cast

__all__ = ["slim_input_schema", "slim_schema"]

_NAME_TO_SCHEMA = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
"""Keywords whose value maps *names* to schemas, so a key "title" in there is a property, not a label."""

_DATA = frozenset({"default", "const", "enum", "examples", "example", "required", "dependentRequired", "discriminator"})
"""Keywords whose value is data or names, not schemas."""


def slim_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of `schema` without pydantic's generated titles. It accepts exactly what `schema` accepts."""
    return _slim(schema, drop_null=False)


def slim_input_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a tool's arguments as short as it can be while it says the same.

    An optional argument is one that is absent from `required`: `anyOf: [X, null]` with `default: null` says that
    again in six times the tokens (guides/mcp.md §1.10), so its null goes. The tool still accepts null. A null that
    means something (the default is another value, or there is none) stays. Arguments the tool does not have are
    refused, and the schema says so.
    """
    return {**_slim(schema, drop_null=True), "additionalProperties": False}


def _slim(schema: dict[str, Any], *, drop_null: bool) -> dict[str, Any]:
    def any_value(value: Any) -> Any:
        if isinstance(value, dict):
            return _slim(cast(dict[str, Any], value), drop_null=drop_null)
        if isinstance(value, list):
            return [any_value(item) for item in cast(list[Any], value)]
        return value

    slim: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title":
            continue
        if key in _NAME_TO_SCHEMA and isinstance(value, dict):
            slim[key] = {name: any_value(inner) for name, inner in cast(dict[str, Any], value).items()}
        else:
            slim[key] = value if key in _DATA else any_value(value)
    return _without_default_null(slim) if drop_null else slim


def _without_default_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop `null` from a union whose default it is."""
    branches: list[dict[str, Any]] = schema.get("anyOf", [])
    if {"type": "null"} not in branches or schema.get("default", "none given") is not None:
        return schema
    kept = [branch for branch in branches if branch != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    return {**kept[0], **rest} if len(kept) == 1 else {"anyOf": kept, **rest}
