"""A policy's learned state as bytes and back, exactly, without pickle (a bank may come from someone else).

Owns the encoding only: JSON for the tree, numpy's own format for arrays.
"""

import io
import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["freeze", "thaw"]


def freeze(state: Mapping[str, Any]) -> bytes:
    """Encode plain values, lists, tuples, dicts (any plain keys) and arrays.

    Raises:
        TypeError: there is something else in it.
    """
    arrays: list[NDArray[Any]] = []
    tree = json.dumps(_plain(state, arrays)).encode()
    out = io.BytesIO()
    out.write(len(tree).to_bytes(8, "little"))
    out.write(tree)
    for array in arrays:
        np.save(out, array, allow_pickle=False)
    return out.getvalue()


def thaw(data: bytes) -> dict[str, Any]:
    """Decode what `freeze` made."""
    source = io.BytesIO(data)
    tree = json.loads(source.read(int.from_bytes(source.read(8), "little")))
    return _rebuilt(tree, source)


def _plain(value: object, arrays: list[NDArray[Any]]) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        arrays.append(cast(NDArray[Any], value))
        return {"array": None}
    if isinstance(value, np.generic):
        arrays.append(np.asarray(cast(Any, value)))
        return {"scalar": None}
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value).items()
        return {"dict": [[_plain(key, arrays), _plain(inner, arrays)] for key, inner in items]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_plain(inner, arrays) for inner in cast(list[object], value)]}
    raise TypeError(f"a policy's state may not hold {type(value).__name__}")


def _rebuilt(node: Any, source: io.BytesIO) -> Any:
    if not isinstance(node, dict):
        return node
    (kind, inner), *_ = cast(dict[str, Any], node).items()
    match kind:
        case "array":
            return np.load(source, allow_pickle=False)
        case "scalar":
            return np.load(source, allow_pickle=False)[()]
        case "dict":
            return {_rebuilt(key, source): _rebuilt(value, source) for key, value in inner}
        case "tuple":
            return tuple(_rebuilt(value, source) for value in inner)
        case _:
            return [_rebuilt(value, source) for value in inner]
