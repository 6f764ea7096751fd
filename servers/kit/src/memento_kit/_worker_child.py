"""The child's side of `worker_process`: a loop that calls one function. Run as a script, standard library only."""

import importlib
import json
import os
import sys
from typing import Any, BinaryIO

_FRAME_HEADER_BYTES = 8


def main() -> None:
    setup: dict[str, Any] = json.loads(sys.argv[1])
    sys.path[:] = setup["path"]
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a parser prints must not end up between the frames.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _limit_memory(setup["max_memory_bytes"])
    while header := requests.read(_FRAME_HEADER_BYTES):
        request = requests.read(int.from_bytes(header, "big"))
        _send(answers, _answer(setup["function"], request))


def _answer(function: str, request: bytes) -> bytes:
    module, _, name = function.partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(**json.loads(request))
        return json.dumps({"result": result}).encode()
    except Exception as exc:  # noqa: BLE001 - a process edge: whatever it was, the other side is told
        return json.dumps({"error": type(exc).__name__, "message": str(exc)[:2000]}).encode()


def _send(answers: BinaryIO, frame: bytes) -> None:
    answers.write(len(frame).to_bytes(_FRAME_HEADER_BYTES, "big"))
    answers.write(frame)
    answers.flush()


def _limit_memory(max_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


if __name__ == "__main__":
    main()
