"""How far a parser is, told to whoever listens. In a parsing child that is the server's side of `isolation`.

A module-level listener, because a child does one job and the parsers in between should not carry it through.
"""

from collections.abc import Callable

__all__ = ["listen", "report"]

_listeners: list[Callable[[int, int, str], None]] = []


def listen(listener: Callable[[int, int, str], None]) -> None:
    """Call `listener(done, total, what)` at each report from now on."""
    _listeners.append(listener)


def report(done: int, total: int, what: str = "page") -> None:
    """Say that `done` of `total` are read; `what` is one of them: a page, a row, a member, a frame."""
    for listener in _listeners:
        listener(done, total, what)
