"""The Python session itself: runs one piece of code after another and keeps the variables.

This file runs *inside* the sandbox, sent there as text, next to code that may do anything to it: nothing it says is
trusted. Standard library only. Requests come as JSON lines on one pipe, one answer per request goes out on another;
what is printed goes through descriptors 1 and 2 as they are, so that child processes are seen as well.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import signal
import sys
import threading
import warnings
from collections import deque
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` would take a tenth of a session's start
    from typing import Any, BinaryIO

__all__ = ["serve"]

_MAX_FRAMES = 12
_LOST = 70
"""Exit code when the pipe to the host cannot be used any more (EX_SOFTWARE)."""


def serve(requests: BinaryIO, answers: int, config: dict[str, Any], rendering: Any, folder: Any) -> None:
    """Answer requests until the host closes the pipe. Never returns.

    `rendering` and `folder` are the modules of these names, which cannot be imported in here.
    """
    _Worker(requests, answers, config, rendering, folder).run()


class _Worker:
    def __init__(self, requests: BinaryIO, answers: int, config: dict[str, Any], rendering: Any, folder: Any) -> None:
        self._rendering = rendering
        self._folder = folder
        self._shown: list[object] = []
        self._requests = requests
        self._answers = answers
        self._home = str(config["folder"])
        self._max_value_chars = int(config["max_value_chars"])
        self._waiting: deque[dict[str, Any]] = deque()
        self._arrived = threading.Semaphore(0)
        self._running: str | None = None
        self._cells = 0
        self._sources: dict[str, str] = {}
        """What each cell was, for the lines of a traceback."""
        self._main = threading.get_ident()
        main = type(sys)("__main__")  # pickling and `__main__` lookups then find what the session defines
        main.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = main
        self._variables = main.__dict__
        self._variables["display"] = self._display

    def run(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
        signal.signal(signal.SIGINT, self._interrupted)
        # Figures are collected at the end of a run; matplotlib need not say that it opens no window.
        warnings.filterwarnings("ignore", message=".*is non-interactive, and thus cannot be shown")
        threading.Thread(target=self._listen, daemon=True).start()
        self._send({"ready": os.getpid()})
        while True:
            self._arrived.acquire()
            request = self._waiting.popleft()
            answer = self._answer(request)
            self._running = None
            with suppress(BaseException):  # the code may have laid out what cannot be listed
                answer["files"] = self._files_since(request)
            with suppress(BaseException):  # the session may have closed or replaced them
                sys.stdout.flush()
            with suppress(BaseException):
                sys.stderr.flush()
            self._send({"call": request["call"], **answer})

    def _listen(self) -> None:
        """In a thread of its own, so that an interrupt is heard while code runs."""
        for line in self._requests:
            request = json.loads(line)
            if "interrupt" in request:
                if request["interrupt"] == self._running:
                    signal.pthread_kill(self._main, signal.SIGINT)
            else:
                self._waiting.append(request)
                self._arrived.release()
        os._exit(0)

    def _interrupted(self, *_: object) -> None:
        if self._running is not None:
            raise KeyboardInterrupt

    def _send(self, answer: dict[str, Any]) -> None:
        line = json.dumps(answer, allow_nan=False).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._answers, line) :]
        except OSError:
            os._exit(_LOST)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        signal.signal(signal.SIGINT, self._interrupted)
        try:
            self._running = request["call"]
            if "code" in request:
                return self._run_code(str(request["code"]))
            if "shell" in request:
                return {"value": str(self._run_shell(str(request["shell"])))}
            path, *rest = request["arguments"]
            return {"file": getattr(self._folder, request["do"])(os.path.join(self._home, path), *rest)}
        except SystemExit as exc:
            if exc.code in (None, 0):
                return {}
            return {"error": {"name": "SystemExit", "message": str(exc.code), "traceback": ""}}
        except BaseException as exc:  # noqa: BLE001  the process edge: whatever the code raises is its result
            return {"error": self._error(exc), "errno": exc.errno if isinstance(exc, OSError) else None}

    def _files_since(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """What this request made or changed; a file that the host wrote is known to it."""
        changed = self._folder.changed(self._home)
        return [] if "do" in request else changed

    def _run_code(self, code: str) -> dict[str, Any]:
        self._cells += 1
        name = f"<cell {self._cells}>"
        self._sources[name] = code
        self._shown.clear()
        value = self._execute(code, name)
        parts: dict[str, Any] = {"images": [], "tables": []}
        for found in [self._rendering.rich(shown) for shown in [*self._shown, value]] + [self._rendering.figures()]:
            for kind, items in found.items():
                parts[kind] += items
        if value is not None:
            self._variables["_"] = value
            parts["value"] = _cut(repr(value), self._max_value_chars)
        return parts

    def _display(self, *values: object) -> None:
        """What the session knows as `display`: shows a table or picture before the end of the run."""
        for value in values:
            if self._rendering.rich(value):
                self._shown.append(value)
            else:
                print(repr(value))  # noqa: T201  the session's own output

    @staticmethod
    def _run_shell(command: str) -> int:
        import subprocess

        shell = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL)
        try:
            return shell.wait()
        finally:  # also when interrupted
            shell.kill()
            shell.wait()

    def _execute(self, code: str, name: str) -> object:
        """Run the statements, and return the value of the last one when it is an expression."""
        tree = ast.parse(code, name)
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
        self._run(compile(tree, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), exec)
        if not isinstance(last, ast.Expr):
            return None
        return self._run(compile(ast.Expression(last.value), name, "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), eval)

    def _run(self, code: Any, run: Any) -> object:
        if not code.co_flags & 0x80:  # CO_COROUTINE: there is an await outside any function
            return run(code, self._variables)
        import asyncio

        return asyncio.run(eval(code, self._variables))

    def _error(self, exc: BaseException) -> dict[str, str]:
        try:
            message = str(exc)
        except BaseException as inner:  # noqa: BLE001  a hostile __str__
            message = f"<its __str__ raised {type(inner).__name__}>"
        # Here and not above: they take as long to import as the rest of this file together.
        import linecache
        import traceback

        for name, code in self._sources.items():
            linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        try:
            steps = [step for step in traceback.extract_tb(exc.__traceback__) if step.filename != "worker.py"]
            lines = traceback.format_list(steps[-_MAX_FRAMES:])
            left_out = len(steps) - _MAX_FRAMES
            head = [f"  … {left_out} frames left out\n"] if left_out > 0 else []
            shown = "".join([*head, *lines, *traceback.format_exception_only(type(exc), exc)])
        except BaseException:  # noqa: BLE001  the same
            shown = ""
        return {
            "name": type(exc).__name__,
            "message": _cut(message, self._max_value_chars),
            "traceback": _cut(shown, self._max_value_chars),
        }


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    head, tail = max_chars * 2 // 3, max_chars // 3
    return f"{text[:head]}… {len(text) - head - tail} characters left out …{text[-tail:]}"
