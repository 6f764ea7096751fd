"""All that a session says and is told, over two streams: requests come in on 0, events go out on 1.

This file runs *inside* a container, sent there as text, as the parent of the session's own process: the engines of
containers hand on standard input and output and nothing else. What the session prints becomes events `stdout` and
`stderr`, as E2B's are. Owns the copying and nothing that confines; `confine.supervise` calls it while it waits.

Output is taken while a request is under way, and otherwise stays in its pipe, as it does without a container. No step
waits for one of the pipes: a host that writes a long request, and a session that prints without end, both get on.
"""

from __future__ import annotations

import codecs
import json
import os
import select
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` would take a tenth of a session's start
    from typing import Any

__all__ = ["Relay"]

_READ_BYTES = 1 << 16
_MAX_WAITING_BYTES = 1 << 20
"""Of what one side has said and the other has not taken; no more is read meanwhile."""
_MAX_EVENT_BYTES = 32 << 20
"""More without an end to the line is no event; the host will see to that."""
_END = b'"end_of_execution"}\n'
"""Nothing that the session shows looks so: quotes and line ends within an event are escaped."""


class Relay:
    """The pipes between a session's process, which is forked after this was made, and the container's streams."""

    def __init__(self) -> None:
        self._request_end, self._requests = os.pipe()
        self._events, self._event_end = os.pipe()
        self._outputs: dict[int, tuple[str, Any]] = {}
        self._output_ends: list[int] = []
        for name in ("stdout", "stderr"):
            output, end = os.pipe()
            self._outputs[output] = (name, codecs.getincrementaldecoder("utf-8")("replace"))
            self._output_ends.append(end)
        self.kept = [self._requests, self._events, *self._outputs]
        """What stays open in the parent, besides the container's own streams."""
        self._call: str | None = None
        """The request that is under way."""
        self._line = bytearray()
        """The beginning of a request."""
        self._event = bytearray()
        """The beginning of an event: only whole ones go on, or one would be cut in two by another."""
        self._to_session = bytearray()
        self._to_host = bytearray()

    def enter(self) -> tuple[int, int]:
        """In the forked process: take its ends. Returns where requests are read and where events are written."""
        empty = os.open("/dev/null", os.O_RDONLY)
        for number, end in enumerate((empty, *self._output_ends)):
            os.dup2(end, number)
            os.close(end)
        return self._request_end, self._event_end

    def begin(self) -> None:
        """In the parent, once it has closed all but `kept`."""
        for descriptor in (0, 1, *self.kept):
            os.set_blocking(descriptor, False)

    def waits_for(self) -> tuple[list[int], list[int]]:
        """What must become readable or writable for the next step."""
        reading = [0] if len(self._to_session) < _MAX_WAITING_BYTES else []
        if len(self._to_host) < _MAX_WAITING_BYTES:
            reading += [self._events] if self._events >= 0 else []
            reading += self._outputs if self._call is not None else []
        writing = [*([self._requests] if self._to_session else []), *([1] if self._to_host else [])]
        return reading, writing

    def step(self, readable: list[int], writable: list[int]) -> bool:
        """Copy what can be copied; False when the host is gone."""
        if 0 in readable and not self._take_requests():
            return False
        for descriptor in [each for each in readable if each in self._outputs]:
            self._take_output(descriptor)
        if self._events in readable:
            self._take_events()
        if self._requests in writable and not _write(self._requests, self._to_session):
            self._to_session.clear()  # the session's process says itself that it ended
        return 1 not in writable or _write(1, self._to_host)

    def finish(self, code: int) -> None:
        """All of the session's processes are gone: pass on what they said last, their complaint at the start too, and
        the exit code, which a virtual machine has no other way to tell."""
        while self._take_events():
            pass
        if self._call is None:
            os.write(2, b"".join(_read(each) or b"" for each, (name, _) in self._outputs.items() if name == "stderr"))
        self._take_all_output()
        self._to_host += json.dumps({"call": self._call, "type": "exit", "code": code}).encode() + b"\n"
        while self._to_host:
            readable, writable, _ = select.select([0], [1], [])
            if (readable and _read(0) == b"") or (writable and not _write(1, self._to_host)):
                return

    def _take_requests(self) -> bool:
        piece = _read(0)
        if piece is None:
            return True
        self._to_session += piece
        self._line += piece
        *lines, rest = self._line.split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "call" in request:
                self._call = request["call"]
        self._line = rest
        return bool(piece)

    def _take_events(self) -> bool:
        """Pass events on, behind the output that was written before them; False when there are none now."""
        piece = _read(self._events) if self._events >= 0 else None
        if piece is None:
            return False
        if not piece:
            os.close(self._events)
            self._events = -1
            return False
        self._event += piece
        whole = len(self._event) if len(self._event) > _MAX_EVENT_BYTES else self._event.rfind(b"\n") + 1
        if whole:
            self._take_all_output()
            events = self._event[:whole]
            del self._event[:whole]
            self._to_host += events
            if _END in events:
                self._call = None
        return True

    def _take_all_output(self) -> None:
        """What is in the pipes now: a pipe's worth at most."""
        for descriptor in list(self._outputs):
            self._take_output(descriptor)

    def _take_output(self, descriptor: int) -> None:
        name, decoder = self._outputs[descriptor]
        piece = _read(descriptor) if self._call is not None else None
        if piece is None:
            return
        if not piece:  # nobody has the other end any more
            os.close(descriptor)
            del self._outputs[descriptor]
        text = decoder.decode(piece, not piece)
        if text:
            event = {"call": self._call, "type": name, "text": text}
            self._to_host += json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _read(descriptor: int) -> bytes | None:
    """What is there, empty at the end; None when there is nothing now."""
    try:
        return os.read(descriptor, _READ_BYTES)
    except BlockingIOError:
        return None


def _write(descriptor: int, data: bytearray) -> bool:
    """Write what can be written, and take it out of `data`; False when nobody reads any more."""
    try:
        with suppress(BlockingIOError):
            del data[: os.write(descriptor, data[:_READ_BYTES])]
    except OSError:
        return False
    return True
