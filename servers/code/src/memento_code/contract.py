"""What every backend must do, as checks that its author can run: `python -m memento_code.contract [--isolation LEVEL]`.

A backend is whatever has `start(max_value_chars=…, output_bytes=…)` and gives sessions with `ask`, `end` and `ended`,
as `sandbox.Sandbox` and `e2b.E2BSandbox` do. `check` runs all checks against one and returns what failed. How strong the
isolation is, is not looked at here: that is for `probe.py` and for the attacks in `tests/support/escapes.py`.
"""

# ruff: noqa: E501 - code for a session reads best on one line

import argparse
import base64
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import anyio

from memento_code.execution import Outcome
from memento_code.sandbox import Level, Limits, find_sandbox
from memento_code.session import SessionLost

__all__ = ["CHECKS", "Backend", "BackendSession", "check"]

_SECONDS = 30.0
_OUTPUT_BYTES = 4_096
_VALUE_CHARS = 2_000


class BackendSession(Protocol):
    """A Python that keeps its variables."""

    ended: str | None

    async def ask(self, request: dict[str, Any], *, timeout_seconds: float) -> Outcome: ...
    async def end(self, reason: str) -> None: ...


class Backend(Protocol):
    """Where sessions come from."""

    async def start(self, *, max_value_chars: int, output_bytes: int) -> BackendSession: ...


@dataclass(frozen=True)
class _Code:
    """Run `code` after `before`, and look at how it ended."""

    code: str
    holds: Callable[[Outcome], bool]
    before: str = ""
    seconds: float = _SECONDS


def _value(expected: str) -> Callable[[Outcome], bool]:
    """Quotes aside: E2B strips those of a text."""
    return lambda ran: ran.value is not None and ran.value.strip("'") == expected and ran.error is None


def _raises(name: str) -> Callable[[Outcome], bool]:
    return lambda ran: ran.error is not None and ran.error.name == name and ran.lost is None


def _prints(expected: str) -> Callable[[Outcome], bool]:
    return lambda ran: ran.stdout.text == expected


_PNG = "b'\\x89PNG\\r\\n\\x1a\\n' + bytes(20)"
_CODE: dict[str, _Code] = {
    "the last expression is the value": _Code("1 + 1", _value("2")),
    "a statement has no value": _Code("x = 1", lambda ran: ran.value is None and ran.error is None),
    "None is no value": _Code("None", lambda ran: ran.value is None),
    "only the last expression is the value": _Code("1\n2\n3", _value("3")),
    "a text is a value": _Code("'a' + 'b'", _value("ab")),
    "text of any script is a value": _Code("'é漢😀'", _value("é漢😀")),
    "variables are kept": _Code("x + 1", _value("42"), before="x = 41"),
    "imports are kept": _Code("math.floor(2.5)", _value("2"), before="import math"),
    "functions are kept": _Code("f(3)", _value("6"), before="def f(n): return n * 2"),
    "classes are kept": _Code("A().n", _value("5"), before="class A: n = 5"),
    "the working folder is kept": _Code("os.path.basename(os.getcwd())", _value("deeper"), before="import os; os.mkdir('deeper'); os.chdir('deeper')"),
    "files are kept": _Code("open('kept.txt').read()", _value("yes"), before="open('kept.txt', 'w').write('yes')"),
    "variables survive an error": _Code("y", _value("7"), before="y = 7\n1 / 0"),
    "await works at the top": _Code("import asyncio\nawait asyncio.sleep(0, 'awaited')", _value("awaited")),
    "pickling finds what the session defines": _Code("import pickle\npickle.loads(pickle.dumps(B())).n", _value("1"), before="class B: n = 1"),
    "stdout is seen": _Code("print('out')", _prints("out\n")),
    "stderr is seen": _Code("import sys; print('err', file=sys.stderr)", lambda ran: ran.stderr.text == "err\n" and not ran.stdout.text),
    "output keeps its order": _Code("for n in range(5): print(n)", _prints("0\n1\n2\n3\n4\n")),
    "output before an error is seen": _Code("print('first')\n1 / 0", lambda ran: ran.stdout.text == "first\n" and ran.error is not None),
    "child processes are heard": _Code("import subprocess; subprocess.run(['echo', 'child'])", lambda ran: "child\n" in ran.stdout.text),
    "terminal text passes": _Code("print('tab\\there')", _prints("tab\there\n")),
    "long output keeps beginning and end": _Code("print('first')\nfor _ in range(500): print('x' * 99)\nprint('last')", lambda ran: ran.stdout.text.startswith("first") and ran.stdout.text.endswith("last\n") and len(ran.stdout.text) < 2 * _OUTPUT_BYTES),
    "what is left out of output is counted": _Code("print('x' * 50_000)", lambda ran: ran.stdout.dropped_bytes == 50_001 - _OUTPUT_BYTES),
    "a long value is cut": _Code("'v' * 100_000", lambda ran: ran.value is not None and len(ran.value) < _VALUE_CHARS + 100),
    "an exception is named": _Code("1 / 0", _raises("ZeroDivisionError")),
    "an exception has its message": _Code("raise ValueError('because')", lambda ran: ran.error is not None and ran.error.message == "because"),
    "an exception has a traceback": _Code("def g(): return {}['k']\ng()", lambda ran: ran.error is not None and "KeyError" in ran.error.traceback),
    "bad syntax is an error": _Code("x = = 1", _raises("SyntaxError")),
    "an unknown name is an error": _Code("nowhere", _raises("NameError")),
    "endless recursion is an error": _Code("def r(): return r()\nr()", _raises("RecursionError")),
    "an exception of its own is named": _Code("class Mine(Exception): pass\nraise Mine('m')", _raises("Mine")),
    "a repr that raises is an error": _Code("class C:\n    def __repr__(self): raise ValueError('no')\nC()", lambda ran: ran.lost is None),
    "input does not wait": _Code("input()", lambda ran: ran.error is not None and ran.lost is None),
    "a picture is a picture": _Code(f"class P:\n    def _repr_png_(self): return {_PNG}\nP()", lambda ran: len(ran.images) == 1 and ran.images[0].startswith(b"\x89PNG")),
    "display shows before the end": _Code(f"class Q:\n    def _repr_png_(self): return {_PNG}\ndisplay(Q())\n'after'", lambda ran: len(ran.images) == 1 and (ran.value or "").strip("'") == "after"),
    "a made file is named": _Code("open('made.csv', 'w').write('1,2')", lambda ran: [(made.path, made.bytes) for made in ran.files] == [("made.csv", 3)]),
    "an untouched file is not named again": _Code("1", lambda ran: ran.files == [], before="open('old.csv', 'w').write('1')"),
    "code over its time ends in time": _Code("import time\ntime.sleep(60)", lambda ran: ran.interrupted == "time limit of 0.5 s" and ran.seconds < 5, seconds=0.5),
    "code that will not stop is stopped": _Code("import time\nwhile True:\n    try:\n        while True: time.sleep(0.01)\n    except BaseException: pass", lambda ran: ran.lost is not None and ran.seconds < 10, seconds=0.5),
}  # fmt: skip


async def _shell(session: BackendSession) -> bool:
    ran = await session.ask({"shell": "echo shell; echo oops >&2; exit 3"}, timeout_seconds=_SECONDS)
    return (ran.value, ran.stdout.text, ran.stderr.text) == ("3", "shell\n", "oops\n")


async def _shell_and_python_share_a_folder(session: BackendSession) -> bool:
    await session.ask({"code": "open('shared', 'w').write('by python')"}, timeout_seconds=_SECONDS)
    return (await session.ask({"shell": "cat shared"}, timeout_seconds=_SECONDS)).stdout.text == "by python"


async def _written(session: BackendSession, path: str, data: bytes) -> Outcome:
    given = base64.b64encode(data).decode()
    return await session.ask({"do": "write_file", "arguments": [path, given]}, timeout_seconds=_SECONDS)


async def _read(session: BackendSession, path: str, offset: int = 0, max_bytes: int = 1 << 20) -> Outcome:
    return await session.ask({"do": "read_file", "arguments": [path, offset, max_bytes]}, timeout_seconds=_SECONDS)


async def _bytes_come_back(session: BackendSession) -> bool:
    data = bytes(range(256)) * 50
    await _written(session, "deep/er/x.bin", data)
    got = (await _read(session, "deep/er/x.bin")).file or {}
    return base64.b64decode(got["content"]) == data and got["total_bytes"] == len(data)


async def _a_piece_is_read(session: BackendSession) -> bool:
    await _written(session, "p", b"0123456789")
    got = (await _read(session, "p", 3, 4)).file or {}
    return base64.b64decode(got["content"]) == b"3456" and got["total_bytes"] == 10


async def _a_file_is_replaced(session: BackendSession) -> bool:
    await _written(session, "r", b"long and old")
    await _written(session, "r", b"new")
    return base64.b64decode(((await _read(session, "r")).file or {})["content"]) == b"new"


async def _code_sees_a_written_file(session: BackendSession) -> bool:
    await _written(session, "seen.csv", b"a,b\n1,2\n")
    ran = await session.ask({"code": "open('seen.csv').read().count(',')"}, timeout_seconds=_SECONDS)
    return ran.value == "2" and ran.files == []


async def _a_missing_file_is_an_error(session: BackendSession) -> bool:
    ran = await _read(session, "nothing/here")
    return ran.error is not None and ran.file is None and session.ended is None


async def _files_are_listed(session: BackendSession) -> bool:
    await _written(session, "d/b.txt", b"22")
    await _written(session, "a.txt", b"1")
    ran = await session.ask({"do": "list_files", "arguments": ["."]}, timeout_seconds=_SECONDS)
    entries = [(entry["path"], entry["bytes"]) for entry in (ran.file or {})["entries"] if entry["path"][:3] != "tmp"]
    return sorted(entries) == [("a.txt", 1), ("d/b.txt", 2)]


async def _a_dead_process_is_told(session: BackendSession) -> bool:
    ran = await session.ask({"code": "import os\nos._exit(3)"}, timeout_seconds=_SECONDS)
    return ran.lost is not None and session.ended is not None


async def _an_ended_session_says_so(session: BackendSession) -> bool:
    await session.end("the check wanted it")
    await session.end("again")
    try:
        await session.ask({"code": "1"}, timeout_seconds=_SECONDS)
    except SessionLost as exc:
        return str(exc) == "the check wanted it"
    return False


async def _requests_wait_for_one_another(session: BackendSession) -> bool:
    values: list[str | None] = []

    async def add() -> None:
        values.append((await session.ask({"code": "n += 1\nn"}, timeout_seconds=_SECONDS)).value)

    await session.ask({"code": "n = 0"}, timeout_seconds=_SECONDS)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(add)
    return sorted(values, key=str) == ["1", "2", "3", "4", "5"]


def _code_check(case: _Code) -> Callable[[BackendSession], Awaitable[bool]]:
    async def run(session: BackendSession) -> bool:
        if case.before:
            await session.ask({"code": case.before}, timeout_seconds=_SECONDS)
        return case.holds(await session.ask({"code": case.code}, timeout_seconds=case.seconds))

    return run


CHECKS: dict[str, Callable[[BackendSession], Awaitable[bool]]] = {
    **{name: _code_check(case) for name, case in _CODE.items()},
    "the shell's streams and exit code are seen": _shell,
    "shell and Python share a folder": _shell_and_python_share_a_folder,
    "bytes go in and come back": _bytes_come_back,
    "a piece of a file is read": _a_piece_is_read,
    "a file is replaced": _a_file_is_replaced,
    "code sees a written file": _code_sees_a_written_file,
    "a missing file is an error": _a_missing_file_is_an_error,
    "files are listed": _files_are_listed,
    "a process that ended itself is told": _a_dead_process_is_told,
    "an ended session says so": _an_ended_session_says_so,
    "requests wait for one another": _requests_wait_for_one_another,
}
"""Each has a session of its own."""


async def check(backend: Backend, *, only: str | None = None) -> list[str]:
    """Run all checks, or the one called `only`, each in a fresh session; returns the names of those that failed."""
    failed: list[str] = []
    for name, holds in CHECKS.items():
        if only not in (None, name):
            continue
        session = await backend.start(max_value_chars=_VALUE_CHARS, output_bytes=_OUTPUT_BYTES)
        try:
            if not await holds(session):
                failed.append(name)
        finally:
            with anyio.CancelScope(shield=True):
                await session.end("the check is over")
    return failed


async def _main(level: Level | None, kernel: Path | None) -> int:
    limits = Limits(1 << 30, 3 << 29, 48, 256, 64 << 20, 256 << 20, 600)
    if level == "e2b":
        from memento_code.e2b import E2BSandbox

        backend: Any = E2BSandbox(limits)
    else:
        backend = await find_sandbox(limits, wanted=level, allow_none=level == "none", kernel=kernel)
    failed = await check(backend)
    for name in CHECKS:
        print(f"{'FAILED' if name in failed else 'ok':8}{name}")  # noqa: T201 - the command's answer
    print(f"{backend.level}: {len(CHECKS) - len(failed)} of {len(CHECKS)}")  # noqa: T201
    return bool(failed)


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="memento_code.contract", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--isolation", choices=get_args(Level))
    options.add_argument("--kernel", type=Path, help="of the virtual machines of microvm")
    chosen = options.parse_args()
    sys.exit(anyio.run(_main, chosen.isolation, chosen.kernel))
