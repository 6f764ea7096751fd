"""The Python session itself: runs one piece of code after another and keeps the variables.

This file runs *inside* the sandbox, sent there as text, next to code that may do anything to it: nothing it says is
trusted. Standard library only. Requests come as JSON lines on one pipe; on another go out, as they happen, the events
that E2B's code interpreter sends (`execution.py` names them), each with the `call` that it belongs to. Only what is
printed goes through descriptors 1 and 2 as it is: child processes are heard as well, and the host cuts it.
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
# Taken before the session's code can replace them: it may, and is then still answered.
_dumps, _loads, _write, _process_id, _exit = json.dumps, json.loads, os.write, os.getpid, os._exit


def serve(requests: BinaryIO, events: int, config: dict[str, Any], rendering: Any, folder: Any) -> None:
    """Answer requests until the host closes the pipe. Never returns.

    `rendering` and `folder` are the modules of these names, which cannot be imported in here.
    """
    _Worker(requests, events, config, rendering, folder).run()


class _Worker:
    def __init__(self, requests: BinaryIO, events: int, config: dict[str, Any], rendering: Any, folder: Any) -> None:
        self._rendering = rendering
        self._folder = folder
        self._requests = requests
        self._events = events
        self._home = str(config["folder"])
        self._packages: list[str] = config["packages"]
        self._max_value_chars = int(config["max_value_chars"])
        self._waiting: deque[dict[str, Any]] = deque()
        self._arrived = threading.Semaphore(0)
        self._call = ""
        self._running: str | None = None
        """The call that an interrupt may still stop."""
        self._sending = threading.Lock()
        self._is_sending = self._is_interrupted = False
        self._process = os.getpid()
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
        _link_font_list(self._packages)
        threading.Thread(target=self._listen, daemon=True).start()
        self._send("ready")
        while True:
            self._arrived.acquire()
            request = self._waiting.popleft()
            self._call = request["call"]
            self._answer(request)
            if _process_id() != self._process:  # a fork that fell out of its cell
                _exit(0)
            with suppress(BaseException):  # the code may have laid out what cannot be listed
                self._send("files", files=self._files_since(request))
            with suppress(BaseException):  # the session may have closed or replaced them
                sys.stdout.flush()
            with suppress(BaseException):
                sys.stderr.flush()
            self._send("end_of_execution")

    def _listen(self) -> None:
        """In a thread of its own, so that an interrupt is heard while code runs."""
        for line in self._requests:
            request = _loads(line)
            if "interrupt" in request:
                if request["interrupt"] == self._running:
                    signal.pthread_kill(self._main, signal.SIGINT)
            else:
                self._waiting.append(request)
                self._arrived.release()
        _exit(0)

    def _interrupted(self, *_: object) -> None:
        if self._is_sending:  # half an event would end the session
            self._is_interrupted = True
        elif self._running is not None:
            raise KeyboardInterrupt

    def _send(self, kind: str, **event: Any) -> None:
        if _process_id() != self._process:
            return  # a forked child has nobody to tell
        line = _dumps({"call": self._call, "type": kind, **event}, allow_nan=False, ensure_ascii=False)
        data = line.encode("utf-8", "replace") + b"\n"
        is_main = threading.get_ident() == self._main
        with self._sending:
            self._is_sending = is_main or self._is_sending
            try:
                while data:
                    data = data[_write(self._events, data) :]
            except OSError:
                _exit(_LOST)
            finally:
                self._is_sending = not is_main and self._is_sending
        if is_main and self._is_interrupted:
            self._is_interrupted = False
            self._interrupted()

    def _answer(self, request: dict[str, Any]) -> None:
        signal.signal(signal.SIGINT, self._interrupted)
        self._is_interrupted = False
        try:
            try:
                self._running = self._call
                self._do(request)
            finally:
                self._running = None  # nothing interrupts from here on
        except SystemExit as exc:
            if exc.code not in (None, 0):
                self._send("error", name="SystemExit", value=str(exc.code), traceback="")
        except BaseException as exc:  # noqa: BLE001  the process edge: whatever the code raises is its result
            self._send("error", **self._error(exc), errno=exc.errno if isinstance(exc, OSError) else None)

    def _do(self, request: dict[str, Any]) -> None:
        if "code" in request:
            self._run_code(str(request["code"]))
        elif "shell" in request:
            self._send("result", text=str(self._run_shell(str(request["shell"]))), is_main_result=True)
        else:
            path, *rest = request["arguments"]
            self._send("file", file=getattr(self._folder, request["do"])(os.path.join(self._home, path), *rest))

    def _files_since(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """What this request made or changed; a file that the host wrote is known to it."""
        changed = self._folder.changed(self._home)
        return [] if "do" in request else changed

    def _run_code(self, code: str) -> None:
        self._cells += 1
        name = f"<cell {self._cells}>"
        self._sources[name] = code
        self._send("number_of_executions", execution_count=self._cells)
        value = self._execute(code, name)
        if value is not None:
            self._variables["_"] = value
            forms = self._rendering.rich(value, self._max_value_chars)
            self._send("result", text=_cut(repr(value), self._max_value_chars), is_main_result=True, **forms)
        for forms in self._rendering.figures():
            self._send("result", is_main_result=False, **forms)

    def _display(self, *values: object) -> None:
        """What the session knows as `display`: shows a table or picture before the end of the run."""
        for value in values:
            forms = self._rendering.rich(value, self._max_value_chars)
            if forms:
                self._send("result", text=_cut(repr(value), self._max_value_chars), is_main_result=False, **forms)
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
        tree: Any = compile(code, name, "exec", ast.PyCF_ONLY_AST)  # as `ast.parse`, whose frame a traceback would show
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
            "value": _cut(message, self._max_value_chars),
            "traceback": _cut(shown, self._max_value_chars),
        }


def _link_font_list(packages: list[str]) -> None:
    """matplotlib takes a second to list the fonts; `environment.py` had it done once, beside the packages."""
    for folder in packages:
        with suppress(OSError):
            for name in os.listdir(f"{folder}/_memento_fonts"):
                os.makedirs(os.environ["MPLCONFIGDIR"], exist_ok=True)
                os.symlink(f"{folder}/_memento_fonts/{name}", f"{os.environ['MPLCONFIGDIR']}/{name}")


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    head, tail = max_chars * 2 // 3, max_chars // 3
    return f"{text[:head]}… {len(text) - head - tail} characters left out …{text[-tail:]}"
