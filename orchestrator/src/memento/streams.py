"""A reply that comes in pieces, put together as if it had come whole.

Owns the joining of Chat Completions chunks and nothing of the wire. Chunks are read with care: some servers leave out
the index of a tool call, send its arguments at once, or add fields of their own, which are kept (a signature that is
not sent back is refused: guides/code_llm_scale.md §B1).
"""

from typing import Any, cast

__all__ = ["JoinedReply"]

_REPLACED = {"role", "id", "type", "name", "index"}
"""Fields that are told once, or told again in each chunk; every other text goes on where it stopped."""


class JoinedReply:
    """Give `add` every chunk as a dict; `completion` is the reply so far in the form of one that was not streamed."""

    def __init__(self) -> None:
        self.is_empty = True
        self.finish_reason: str | None = None
        self._head: dict[str, Any] = {}
        self._message: dict[str, Any] = {"role": "assistant"}
        self._calls: list[dict[str, Any]] = []

    def add(self, chunk: dict[str, Any]) -> None:
        self.is_empty = False
        self._head |= {key: value for key, value in chunk.items() if key != "choices" and value is not None}
        choices: object = chunk.get("choices")
        first = cast(list[object], choices)[0] if isinstance(choices, list) and choices else None
        if not isinstance(first, dict):
            return
        choice = cast(dict[str, Any], first)
        delta = choice.get("delta") or choice.get("message")  # some servers end with the whole message
        if isinstance(delta, dict):
            self._add_delta(dict(cast(dict[str, Any], delta)))
        if isinstance(choice.get("finish_reason"), str):
            self.finish_reason = choice["finish_reason"]

    def completion(self) -> dict[str, Any]:
        message = {**self._message, **({"tool_calls": self._calls} if self._calls else {})}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice]}

    def _add_delta(self, delta: dict[str, Any]) -> None:
        calls: object = delta.pop("tool_calls", None)
        for call in cast(list[object], calls) if isinstance(calls, list) else []:
            if isinstance(call, dict):
                self._add_call(dict(cast(dict[str, Any], call)))
        _join(self._message, delta)

    def _add_call(self, call: dict[str, Any]) -> None:
        """Go on with the call of this index or id; without either, one that has a name is a new call."""
        at, id_ = call.get("index"), call.get("id")
        known = next(
            (
                c
                for c in self._calls
                if (at is not None and c.get("index") == at and id_ in {None, "", c.get("id")})
                or (at is None and id_ and c.get("id") == id_)
            ),
            None,
        )
        if known is None and at is None and not id_ and self._calls and not _name(call):
            known = self._calls[-1]
        if known is None:
            self._calls.append(known := {"type": "function", "function": {"arguments": ""}})
        _join(known, call)


def _join(so_far: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        before = so_far.get(key)
        if value is None or (value == "" and before is not None):
            continue
        if isinstance(before, dict) and isinstance(value, dict):
            _join(cast(dict[str, Any], before), cast(dict[str, Any], value))
        elif isinstance(before, str) and isinstance(value, str) and key not in _REPLACED:
            so_far[key] = before + value
        elif isinstance(before, list) and isinstance(value, list):
            so_far[key] = [*cast(list[Any], before), *cast(list[Any], value)]
        else:
            so_far[key] = dict(cast(dict[str, Any], value)) if isinstance(value, dict) else value


def _name(call: dict[str, Any]) -> object:
    function: object = call.get("function")
    return cast(dict[str, Any], function).get("name") if isinstance(function, dict) else None
