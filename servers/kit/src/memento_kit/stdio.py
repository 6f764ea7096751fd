"""A standard input that can be ended from inside the process.

The SDK reads stdin in a worker thread that nothing can interrupt, so a server that is told to stop, or
whose start failed, would wait until its client happens to send a line. Here a socket pair stands between
the real stdin and file descriptor 0: a daemon thread copies into it, and shutting it down reads as the
end of the input, after which everything unwinds the way it does when a client leaves.

Owns fd 0 while it is open. It does not read messages. POSIX only: on Windows it does nothing.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["exit_on_signals", "stoppable_stdin"]

_CHUNK_BYTES = 65_536
_STDIN_FD = 0


@contextmanager
def stoppable_stdin() -> Generator[Callable[[], None]]:
    """Give a function that ends the process's standard input; calling it twice is harmless.

    The process is expected to end afterwards: the copying thread may have taken bytes that nobody reads.
    """
    if sys.platform == "win32" or not _is_fd_0(sys.stdin):
        yield lambda: None
        return
    source = os.dup(_STDIN_FD)
    reader, writer = socket.socketpair()
    os.dup2(reader.fileno(), _STDIN_FD)
    reader.close()

    def copy() -> None:
        # OSError: the writing side was shut down by stop(), or the client's end of stdin broke.
        with suppress(OSError):
            while chunk := os.read(source, _CHUNK_BYTES):
                writer.sendall(chunk)
        stop()

    def stop() -> None:
        # shutdown, not close: the copying thread may be about to write to this descriptor's number.
        with suppress(OSError):
            writer.shutdown(socket.SHUT_WR)

    threading.Thread(target=copy, name="stdin", daemon=True).start()
    try:
        yield stop
    finally:
        stop()
        os.dup2(source, _STDIN_FD)


@contextmanager
def exit_on_signals(stop: Callable[[], None]) -> Generator[None]:
    """Call `stop` on the first SIGTERM or SIGINT; a second one kills the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        for number in before:
            signal.signal(number, signal.SIG_DFL)
        stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_fd_0(stream: object) -> bool:
    try:
        return stream.fileno() == _STDIN_FD  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    except (AttributeError, OSError, ValueError):
        return False
