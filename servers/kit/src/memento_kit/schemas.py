"""JSON schemas as a model should read them: pydantic's, without what costs tokens and says nothing.

Owns the trimming of schemas that pydantic made. It does not validate: the model behind the schema
still does, and still accepts `null` for an optional argument.
"""

from typing import Any, cast

__all__ = ["slim_schema"]

_NAME_TO_SCHEMA = frozenset({"properties", "$defs", "definitions", "patternProperties"})
"""Keywords whose value maps *names* to schemas, so a key "title" in there is a property, not a label."""


def slim_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of `schema` without pydantic's generated titles and without unions with null.

    An optional argument is one that is absent from `required`; `anyOf: [X, null]` with `default: null`
    says the same in six times the tokens (guides/mcp.md §1.10).
    """
    slim: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title":
            continue
        if key in _NAME_TO_SCHEMA and isinstance(value, dict):
            named = cast(dict[str, Any], value)
            slim[key] = {name: _slim_any(inner) for name, inner in named.items()}
        elif key in {"default", "const", "enum", "examples"}:
            slim[key] = value  # data, not schema
        else:
            slim[key] = _slim_any(value)
    return _without_null(slim)


def _slim_any(value: Any) -> Any:
    if isinstance(value, dict):
        return slim_schema(cast(dict[str, Any], value))
    if isinstance(value, list):
        return [_slim_any(item) for item in cast(list[Any], value)]
    return value


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    branches = schema.get("anyOf")
    if not isinstance(branches, list) or {"type": "null"} not in branches:
        return schema
    kept = [branch for branch in cast(list[dict[str, Any]], branches) if branch != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if rest.get("default", "") is None:
        del rest["default"]
    return {**kept[0], **rest} if len(kept) == 1 else {"anyOf": kept, **rest}
