"""What a model wrote as the arguments of a tool: repaired where nothing can be lost, else refused in one line.

Owns the way from the text of a tool call to the object that is sent. Models write numbers as text, null for what they
leave out, `maxResults` for `max_results`, or the whole object as a string. Each of these has one meaning only, so it is
mended; whatever could mean two things is an error that names the argument and what the schema says of it. A schema that
is itself wrong checks nothing: then the server judges.
"""

import difflib
import json
import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast

__all__ = ["BadArguments", "read_arguments"]

_WRAPPERS = frozenset({"arguments", "parameters", "input"})
"""Names under which some models put the whole object once more."""
_MAX_QUOTED_CHARS = 300
_MAX_UNION_DEPTH = 5
_EVERY_TYPE = frozenset({"string", "integer", "number", "boolean", "null", "array", "object"})


class BadArguments(Exception):
    """The arguments cannot be sent. The message is for the model: which argument, and what the schema asks for."""


def read_arguments(written: str, schema: dict[str, Any], *, tool: str) -> dict[str, Any]:
    """Read and mend the arguments of a call of `tool`, whose JSON Schema is `schema`.

    Raises:
        BadArguments: they are no JSON object, or do not fit the schema and cannot be mended without a guess.
    """
    arguments = _unwrapped(_parsed_object(written), schema)
    arguments = cast(dict[str, Any], _mended(arguments, schema, schema))
    _check(arguments, schema, tool)
    return arguments


def _parsed_object(written: str) -> dict[str, Any]:
    try:
        parsed = json.loads(written.strip() or "{}", parse_constant=_refuse)
        if isinstance(parsed, str):  # the object, encoded twice
            parsed = json.loads(parsed, parse_constant=_refuse)
    except json.JSONDecodeError as exc:
        raise BadArguments(
            f"The arguments are not valid JSON ({exc.msg} at character {exc.pos}). Send one JSON object."
        ) from exc
    except ValueError as exc:
        raise BadArguments(f"The arguments are not valid JSON: it has no {exc}.") from exc
    except RecursionError as exc:
        raise BadArguments("The arguments are nested too deeply. Send one flat JSON object.") from exc
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise BadArguments("The arguments must be one JSON object.")
    return cast(dict[str, Any], parsed)


def _unwrapped(arguments: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if len(arguments) == 1:
        ((name, inner),) = arguments.items()
        known = _properties(schema)
        if isinstance(inner, dict) and known and name in _WRAPPERS and name not in known:
            return cast(dict[str, Any], inner)
    return arguments


def _mended(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """`value` as the schema wants it, where there is one way to read it so; else as it came."""
    schema = _resolved(schema, root)
    wanted = _types(schema, root)
    if not wanted & _types_of(value):
        value = _read_as(value, wanted)
    if isinstance(value, dict):
        return _mended_object(cast(dict[str, Any], value), _branch(schema, "object", root), root)
    if isinstance(value, list):
        listed = cast(list[Any], value)
        items = _branch(schema, "array", root).get("items")
        return (
            [_mended(item, cast(dict[str, Any], items), root) for item in listed] if isinstance(items, dict) else listed
        )
    return value


def _mended_object(given: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    properties = _properties(schema)
    required = schema.get("required", [])
    by_letters: dict[str, list[str]] = {}
    for name in properties:
        by_letters.setdefault(_letters(name), []).append(name)
    mended: dict[str, Any] = {}
    for name, value in given.items():
        meant = by_letters.get(_letters(name), [])
        if name not in properties and len(meant) == 1 and meant[0] not in given and meant[0] not in mended:
            name = meant[0]
        inner = properties.get(name)
        if not isinstance(inner, dict):
            mended[name] = value
            continue
        inner = cast(dict[str, Any], inner)
        if value is None and name not in required and "null" not in _types(inner, root):
            continue  # not given, in other words
        mended[name] = _mended(value, inner, root)
    return mended


def _read_as(value: Any, wanted: frozenset[str]) -> Any:
    """The one value of a wanted type that `value`, of another type, can stand for; else `value`."""
    if isinstance(value, str):
        try:
            parsed = json.loads(value, parse_constant=_refuse)
        except (ValueError, RecursionError):
            parsed = {"true": True, "false": False}.get(value.strip().lower())
        if parsed is None or not wanted & _types_of(parsed):
            return value
        if isinstance(parsed, float) and Decimal(value.strip()) != Decimal(repr(parsed)):
            return value  # a float does not hold all of its digits
        return parsed
    if isinstance(value, int) and not isinstance(value, bool) and "string" in wanted:
        return str(value)  # a float would not do: 1.10 has become 1.1 by now
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _check(arguments: dict[str, Any], schema: dict[str, Any], tool: str) -> None:
    import jsonschema.exceptions
    from referencing.exceptions import Unresolvable

    validator = _validator(json.dumps(schema))
    if validator is None:
        return
    try:
        error = cast(Any, jsonschema.exceptions).best_match(validator.iter_errors(arguments))
    except (Unresolvable, re.error, RecursionError):
        return
    if error is not None:
        raise BadArguments(f"The arguments of {tool} do not fit its schema: {_told(error, schema)}")


@lru_cache(maxsize=512)
def _validator(schema_text: str) -> Any:
    """A validator, or `None` when the server's schema is no JSON Schema. References outside of it are never fetched."""
    import jsonschema
    import referencing
    from jsonschema.validators import validator_for

    schema = json.loads(schema_text)
    if _goes_in_circles(schema):  # jsonschema would follow it until the process's stack is used up
        return None
    kind = cast(Any, validator_for(schema, default=jsonschema.Draft202012Validator))
    try:
        kind.check_schema(schema)
    except (jsonschema.SchemaError, re.error, RecursionError):
        return None
    return kind(schema, registry=cast(Any, referencing).Registry())


_SAME_VALUE = ("anyOf", "oneOf", "allOf", "not", "if", "then", "else", "dependentSchemas")
"""Keywords whose schemas judge the same value again."""


def _goes_in_circles(root: dict[str, Any]) -> bool:
    """Whether some schema in `root` comes back to itself without going deeper into the value."""
    done, above = set[int](), set[int]()

    def circles(node: Any) -> bool:
        if not isinstance(node, dict) or id(cast(object, node)) in done:
            return False
        schema = cast(dict[str, Any], node)
        if id(schema) in above:
            return True
        above.add(id(schema))
        following: list[Any] = [_target(schema, root)] if "$ref" in schema else []
        for keyword in _SAME_VALUE:
            inner = schema.get(keyword)
            following += cast(list[Any], inner) if isinstance(inner, list) else [inner]
        found = any(circles(other) for other in following)
        above.discard(id(schema))
        done.add(id(schema))
        return found

    def everywhere(node: Any) -> bool:
        if isinstance(node, dict):
            members = cast(dict[str, Any], node)
            return circles(members) or any(everywhere(member) for member in members.values())
        return isinstance(node, list) and any(everywhere(item) for item in cast(list[Any], node))

    try:
        return everywhere(root)
    except RecursionError:
        return True


def _target(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    reference = schema["$ref"]
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    at: Any = root
    for step in filter(None, reference[1:].split("/")):
        at = cast(dict[str, Any], at).get(step) if isinstance(at, dict) else None
    return at


def _told(error: Any, schema: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    said = _short(error.message)
    properties = _properties(cast(dict[str, Any], error.schema))
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        parts = {name: properties.get(name, {}) for name in missing}
        return f"{f'in {where!r} ' if where else ''}missing: {_short(json.dumps(parts, ensure_ascii=False))}"
    if error.validator == "additionalProperties":
        extra = [str(name) for name in error.instance if name not in properties]
        near = [close for name in extra for close in difflib.get_close_matches(name, properties, n=1, cutoff=0.5)]
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(properties)}."
        return f"there is no {', '.join(map(repr, extra[:5]))}{f' in {where!r}' if where else ''}. {hint}"
    part = _short(json.dumps(error.schema, ensure_ascii=False))
    return f"{where!r}: {said}. The schema says {part}." if where else f"{said}. The schema says {part}."


def _short(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED_CHARS else text[: _MAX_QUOTED_CHARS - 1] + "…"


def _letters(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    found = schema.get("properties")
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = schema.get("anyOf") or schema.get("oneOf")
    listed = cast(list[Any], found) if isinstance(found, list) else []
    return [cast(dict[str, Any], branch) for branch in listed if isinstance(branch, dict)]


def _branch(schema: dict[str, Any], kind: str, root: dict[str, Any]) -> dict[str, Any]:
    """The one branch of a union that describes values of `kind`; the schema itself where there is no union."""
    fitting = [_resolved(branch, root) for branch in _branches(schema)]
    fitting = [branch for branch in fitting if kind in _types(branch, root)]
    if not _branches(schema):
        return schema
    return fitting[0] if len(fitting) == 1 else {}


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference into the schema's own definitions; any other is not followed."""
    for _ in range(8):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        at: Any = root
        for step in reference[2:].split("/"):
            at = cast(dict[str, Any], at).get(step) if isinstance(at, dict) else None
        if not isinstance(at, dict):
            return {}
        schema = cast(dict[str, Any], at)
    return {}


def _types(schema: dict[str, Any], root: dict[str, Any], depth: int = 0) -> frozenset[str]:
    """The JSON types that a schema allows."""
    schema = _resolved(schema, root)
    if depth > _MAX_UNION_DEPTH:  # a union that refers to itself
        return _EVERY_TYPE
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset({kind})
    if isinstance(kind, list):
        return frozenset(map(str, cast(list[Any], kind)))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        listed = cast(list[Any], values) if isinstance(values, list) else []
        return frozenset[str]().union(*map(_types_of, listed)) or _EVERY_TYPE
    branches = _branches(schema)
    if branches:
        return frozenset[str]().union(*(_types(branch, root, depth + 1) for branch in branches))
    return _EVERY_TYPE


def _types_of(value: Any) -> frozenset[str]:
    if isinstance(value, bool):
        return frozenset({"boolean"})
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return frozenset({"integer", "number"})
    kinds = {float: "number", str: "string", type(None): "null", list: "array", dict: "object"}
    return frozenset({kinds[type(value)]})
