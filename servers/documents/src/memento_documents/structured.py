"""JSON, JSON Lines, XML and YAML: the text as it is, an outline of what is in it, and its records as tables.

The text is the file's own, laid out when it came on one line. YAML is composed to nodes and never constructed, so that
aliases do not multiply and tags make no objects; XML entities are refused. A file that breaks the rules of its
format is still text, with a note.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Literal, cast
from xml.etree.ElementTree import Element, ParseError, fromstring

from memento_documents.kinds import Unreadable
from memento_documents.package import walk
from memento_documents.plain_text import decode
from memento_documents.reading import Document, Section

__all__ = ["StructuredKind", "read_structured", "record_tables"]

StructuredKind = Literal["json", "jsonl", "xml", "yaml"]

_MAX_OUTLINE_LINES = 120
_MAX_OUTLINE_DEPTH = 4
_SAMPLED_ITEMS = 200
"""How many items of a list are looked at for the keys they have."""
_LONG_LINE_CHARS = 2_000


class _Broken(Exception):
    """The text is not what it says; one line says where."""


def read_structured(file: BinaryIO, kind: StructuredKind) -> Document:
    """Return the text as one section, with an outline of keys, elements and types.

    Raises:
        Unreadable: XML with entities, or nested too deeply.
    """
    text, encoding = decode(file.read())
    notes = [] if encoding in ("utf-8", "ascii") else [f"Decoded as {encoding}; odd characters may be a wrong guess."]
    try:
        if kind == "xml":
            outline = _xml_outline(_xml(text))
        elif kind == "yaml":
            outline = _yaml_outline(text)
        else:
            value = _json(text) if kind == "json" else _json_lines(text)
            outline = list(_json_outline(value, "", 0))
            if kind == "json" and max(map(len, text.splitlines()), default=0) > _LONG_LINE_CHARS:
                text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    except _Broken as exc:
        return Document(kind, [Section(text)], notes=[*notes, f"Shown as plain text: {exc}"])
    if len(outline) > _MAX_OUTLINE_LINES:
        outline = [*outline[:_MAX_OUTLINE_LINES], "…"]
    return Document(kind, [Section(text)], notes=notes, outline=outline)


def record_tables(file: BinaryIO, kind: str) -> list[tuple[str | None, list[list[object]]]]:
    """Lists of records as tables with a header row: the whole file, or each list under a key of the top object.

    Raises:
        Unreadable: there are no records in it, or it is broken.
    """
    text = decode(file.read())[0]
    try:
        value = _json(text) if kind == "json" else _json_lines(text)
    except _Broken as exc:
        raise Unreadable(str(exc)) from exc
    named: Iterable[tuple[str | None, Any]] = [(None, value)]
    if isinstance(value, dict):
        top = cast(dict[str, Any], value)
        lists = {key: cast(list[Any], each) for key, each in top.items() if isinstance(each, list)}
        named = lists.items() if lists else [(None, [top])]
    tables = [(name, _rows(cast(list[Any], each))) for name, each in named if isinstance(each, list) and each]
    if not tables:
        raise Unreadable("There is no list of records in it; read it with read_document.")
    return tables


def _rows(items: list[Any]) -> list[list[object]]:
    records = [cast(dict[str, Any], item) if isinstance(item, dict) else {"value": item} for item in items]
    columns = list(dict.fromkeys(key for record in records for key in record))
    return [list(columns), *([_cell(record.get(column)) for column in columns] for record in records)]


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        raise _Broken(f"It is no valid JSON: {exc.msg} in line {exc.lineno}, column {exc.colno}.") from exc
    except ValueError as exc:  # a number of more digits than Python converts
        raise _Broken(f"It is no JSON that can be read here: {exc}.") from exc


def _json_lines(text: str) -> list[Any]:
    values: list[Any] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError as exc:
                raise _Broken(f"Line {number} is no valid JSON.") from exc
    return values


def _json_outline(value: Any, name: str, depth: int) -> Iterator[str]:
    label = "  " * depth + (f"{name}: " if name else "")
    if isinstance(value, dict):
        record = cast(dict[str, Any], value)
        yield f"{label}object with {len(record)} keys"
        if depth < _MAX_OUTLINE_DEPTH:
            for key, each in list(record.items())[:_MAX_OUTLINE_LINES]:
                yield from _json_outline(each, key, depth + 1)
    elif isinstance(value, list):
        items = cast(list[Any], value)
        yield f"{label}list of {len(items)}"
        records = [cast(dict[str, Any], item) for item in items[:_SAMPLED_ITEMS] if isinstance(item, dict)]
        if records and depth < _MAX_OUTLINE_DEPTH:
            merged = {key: each for record in reversed(records) for key, each in record.items()}
            yield from _json_outline(merged, "each", depth + 1)
    else:
        yield f"{label}{_TYPE_NAMES.get(type(cast(object, value)), 'null')}"


_TYPE_NAMES: dict[type, str] = {str: "text", int: "number", float: "number", bool: "true or false"}


def _xml(text: str) -> Element:
    if "<!ENTITY" in text:
        raise Unreadable("The XML declares entities; they are never resolved here, so it is not read.")
    try:
        return fromstring(text.encode())  # its own declaration of an encoding no longer holds
    except ParseError as exc:
        raise _Broken(f"It is no well-formed XML: {exc}.") from exc


def _xml_outline(root: Element) -> list[str]:
    """Each path of elements once, with how often it occurs; no recursion."""
    counts: dict[tuple[str, ...], int] = {}
    waiting: list[tuple[Element, tuple[str, ...]]] = [(root, ())]
    while waiting:
        node, above = waiting.pop()
        path = (*above, node.tag.rpartition("}")[2])
        counts[path] = counts.get(path, 0) + 1
        if len(path) <= _MAX_OUTLINE_DEPTH:
            waiting += [(child, path) for child in reversed(node)]
    total = sum(1 for _ in walk(root))
    lines = ["  " * (len(path) - 1) + path[-1] + (f" ×{count}" if count > 1 else "") for path, count in sorted(
        counts.items())]  # fmt: skip
    return [f"{total} elements", *lines]


def _yaml_outline(text: str) -> list[str]:
    import yaml

    loader = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
    try:
        documents: list[Any] = list(cast(Any, yaml).compose_all(text, Loader=loader))
    except yaml.YAMLError as exc:
        raise _Broken(f"It is no valid YAML: {' '.join(str(exc).split())[:200]}.") from exc
    lines: list[str] = []
    for document in documents:
        lines += _yaml_lines(document, "", 0)
        if len(lines) > _MAX_OUTLINE_LINES:
            break
    return lines


def _yaml_lines(node: Any, name: str, depth: int) -> Iterator[str]:
    label = "  " * depth + (f"{name}: " if name else "")
    if node.id == "mapping":
        yield f"{label}object with {len(node.value)} keys"
        if depth < 2:  # aliases make a graph; a tree of it may not end
            for key, value in node.value[:_MAX_OUTLINE_LINES]:
                yield from _yaml_lines(value, str(key.value)[:80] if key.id == "scalar" else "…", depth + 1)
    elif node.id == "sequence":
        yield f"{label}list of {len(node.value)}"
    else:
        yield f"{label}{str(node.tag).rpartition(':')[2]}"
