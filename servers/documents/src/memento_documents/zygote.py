"""The warm process that parsing children are forked from, and nothing that parses in itself.

It imports the parsers once, gives up the rights that no parser needs, and then forks one child per job: a child costs
milliseconds, holds nothing of another document, and may crash, hang or eat its memory limit alone. Where the kernel
can do it (`confinement`), neither it nor a child opens a file outside Python's own folders, and a child
opens no socket and starts no program. Run as `python -m memento_documents.zygote FD PRELOAD`, where
FD is a Unix stream socket. A job arrives there as one JSON line with one or two descriptors: the job's own socket,
and the document. On the job's socket go lines of JSON with the child's progress, its answer, then a newline and the
zygote's word on how the child ended; closing the other end kills the child. `isolation` is the other end.

`multiprocessing`'s fork server was tried first: it re-imports the caller's `__main__`, and with it the MCP SDK,
in every child, and speaks pickle.
"""

import importlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any, cast

from memento_documents.confinement import confine_files, confine_system_calls, why_not_confined
from memento_documents.pdf import find_tessdata

__all__ = ["MAX_JOB_BYTES", "main"]

MAX_JOB_BYTES = 1 << 20
_PRELOADED = ("openpyxl", "csv", "sqlite3", "html.parser", "memento_documents.jobs")
_CRASH_TEXT_CHARS = 300
_PROGRESS_EVERY_SECONDS = 0.1
_READABLE = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/dev/null",
             "/dev/urandom", "/sys/devices/system/cpu", "/proc/cpuinfo")  # fmt: skip
"""What libraries load late, besides Python's own folders. Nothing of a user's."""


def main() -> None:
    """Serve jobs until the other end of the control socket closes; then kill what is still running."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in _PRELOADED:
        importlib.import_module(name)
    module, _, function = sys.argv[2].partition(":")
    getattr(importlib.import_module(module), function)()
    confined = why_not_confined() is None
    if confined:
        confine_files([*_READABLE, sys.prefix, sys.base_prefix, *sys.path, find_tessdata() or os.devnull])
    _Zygote(control, confined=confined).serve()


class _Zygote:
    def __init__(self, control: socket.socket, *, confined: bool) -> None:
        self._control = control
        self.confined = confined
        self._jobs: dict[int, socket.socket] = {}
        """The running children: process id to the job's socket."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        # A child's end wakes the selector through this pair.
        woken, self._waker = socket.socketpair()
        woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(woken, selectors.EVENT_READ)
        self._woken = woken
        signal.signal(signal.SIGCHLD, _nothing)  # a handler must be there for the wake-up to be written
        signal.set_wakeup_fd(self._waker.fileno())

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    if not self._accept():
                        self._kill_all()
                        return
                elif key.fileobj is self._woken:
                    with suppress(BlockingIOError):
                        self._woken.recv(4096)
                    self._reap()
                elif isinstance(key.data, bytes):
                    self._finish(cast(socket.socket, key.fileobj), key.data)
                else:
                    self._kill(int(key.data))

    def _accept(self) -> bool:
        line, descriptors, _, _ = socket.recv_fds(self._control, MAX_JOB_BYTES, 2)
        if not line:
            return False
        while not line.endswith(b"\n"):
            line += self._control.recv(MAX_JOB_BYTES)
        job = socket.socket(fileno=descriptors[0])
        child = os.fork()
        if child == 0:
            _run_child(line, job, descriptors[1:], self)
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        self._jobs[child] = job
        # The other end sends nothing, so that readable means closed.
        self._selector.register(job, selectors.EVENT_READ, child)
        return True

    def _kill(self, child: int) -> None:
        self._selector.unregister(self._jobs[child])
        _kill_group(child)

    def _reap(self) -> None:
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if child == 0:
                return
            job = self._jobs.pop(child)
            _kill_group(child)  # whatever it started
            try:
                self._selector.unregister(job)
            except KeyError:  # killed because the other end had closed
                job.close()
                continue
            verdict = b"\n" + json.dumps({"exit": os.waitstatus_to_exitcode(status)}).encode()
            # The child may have left the socket full, so the verdict waits its turn.
            self._selector.register(job, selectors.EVENT_WRITE, verdict)

    def _finish(self, job: socket.socket, verdict: bytes) -> None:
        self._selector.unregister(job)
        with job, suppress(OSError):  # nobody may be listening any more
            job.sendall(verdict)

    def _kill_all(self) -> None:
        for child in self._jobs:
            _kill_group(child)

    def close_in_child(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for inherited in (self._control, self._woken, self._waker, *self._jobs.values()):
            inherited.close()
        # Jobs whose verdict is still to be sent are not closed here; they hold nothing that reads from them.


def _nothing(_signal: int, _frame: object) -> None:
    pass


def _kill_group(child: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with suppress(ProcessLookupError):  # in the moment before it has a group of its own
        os.kill(child, signal.SIGKILL)


def _run_child(line: bytes, job: socket.socket, documents: list[int], zygote: _Zygote) -> None:
    """The child's whole life. Never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        zygote.close_in_child()
        spec: dict[str, Any] = json.loads(line)
        _limit(spec["limits"])
        if zygote.confined:
            confine_system_calls()
        job.setblocking(True)
        _tell_progress_to(job)
        answer = _answer(spec, documents)
        job.sendall(json.dumps(answer, allow_nan=False).encode())
        code = 0
    except MemoryError:
        with suppress(OSError, MemoryError):
            job.sendall(b'{"limit": "memory"}')
        code = 0
    finally:
        os._exit(code)


def _limit(limits: dict[str, int]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"], limits["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_seconds"], limits["cpu_seconds"] + 1))


def _tell_progress_to(job: socket.socket) -> None:
    from memento_documents import progress

    last = -_PROGRESS_EVERY_SECONDS  # the first page is told at once

    def tell(done: int, total: int, what: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_EVERY_SECONDS:
            last = now
            job.sendall(json.dumps({"progress": [done, total, what]}).encode() + b"\n")

    progress.listen(tell)


def _answer(spec: dict[str, Any], documents: list[int]) -> dict[str, Any]:
    from memento_documents.kinds import Unreadable

    module, _, function = str(spec["function"]).partition(":")
    arguments = cast(list[Any], spec["arguments"])
    if documents:
        arguments = [os.fdopen(documents[0], "rb"), *arguments]
    try:
        return {"result": getattr(importlib.import_module(module), function)(*arguments)}
    except Unreadable as exc:
        return {"unreadable": str(exc)}
    except RecursionError:
        return {"unreadable": "The file is nested too deeply to be read."}
    except MemoryError:
        return {"limit": "memory"}
    except Exception as exc:  # noqa: BLE001  a process edge: parsers raise anything on a hostile file
        return {"crash": f"{type(exc).__name__}: {exc}"[:_CRASH_TEXT_CHARS]}


if __name__ == "__main__":
    main()
