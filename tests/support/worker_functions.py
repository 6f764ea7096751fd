"""What the tests of `memento_kit.worker_process` run in a child. JSON in, JSON out."""

import os
import subprocess
import sys
import time
from typing import Any


def echo(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def environment() -> dict[str, str]:
    return dict(os.environ)


def imported() -> list[str]:
    return sorted(sys.modules)


def hang() -> None:
    time.sleep(600)


def hang_with_a_child(pid_file: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(pid_file, "w", encoding="ascii") as file:
        file.write(str(child.pid))
    time.sleep(600)


def crash() -> None:
    os.abort()


def eat_memory() -> int:
    return len(bytearray(8 * 2**30))


def fail(message: str) -> None:
    raise ValueError(message)


def chatter(value: Any) -> Any:
    print("noise", flush=True)  # noqa: T201 - the noise is the point
    os.write(1, b"more noise")
    return value


def forge() -> None:
    """Write a frame of its own, as a child that was taken over could."""
    for fd in range(3, 20):
        try:
            os.write(fd, (9).to_bytes(8, "big") + b"not json!")
        except OSError:
            continue
    os._exit(0)
