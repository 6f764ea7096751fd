"""The first process of a session's virtual machine: makes of an empty kernel a system with Python in it.

This file runs *inside* the machine, as `/init` of the initial file system that `machine.py` packs, and never on the
host. It loads drivers, mounts what the host shares, waits for the host on the machine's one port, and becomes the
interpreter that `sandbox.py` starts at every level, with standard input and output on that port. It confines nothing.

Sources: Linux Documentation/filesystems/9p.rst and admin-guide/initrd.rst; finit_module(2), mount(2).
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import time
from contextlib import suppress

__all__ = ["main"]

_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
_MODULE_IS_COMPRESSED = 4
_READ_ONLY, _NO_SET_ID, _NO_DEVICES = 1, 2, 4
_PORT = "/dev/vport0p1"
_PORT_SECONDS = 60.0
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    with open("/plan.json", encoding="utf-8") as file:
        plan = json.load(file)
    for name in plan["drivers"]:
        _load(f"/drivers/{name}")
    _mount("devtmpfs", "/dev", "devtmpfs", 0, "")
    port = _open_port()
    for number in (0, 1, 2):  # from here on a failure is heard by the host
        os.dup2(port, number)
    os.close(port)
    _mount("proc", "/proc", "proc", _NO_SET_ID | _NO_DEVICES, "")
    for path, size in plan["sizes"].items():
        os.makedirs(path, exist_ok=True)
        _mount("tmpfs", path, "tmpfs", _NO_SET_ID | _NO_DEVICES, f"mode=0777,size={size}")
    for number, path in enumerate(plan["shares"]):
        os.makedirs(path, exist_ok=True)
        options = "trans=virtio,version=9p2000.L,msize=512000,cache=loose"
        _mount(f"share{number}", path, "9p", _READ_ONLY | _NO_SET_ID | _NO_DEVICES, options)
    os.environ.clear()
    os.execve(plan["command"][0], [*plan["command"], "0", "1"], plan["environment"])


def _load(path: str) -> None:
    """A driver that this kernel has already, or cannot use, is no failure: what is missing shows when it is needed."""
    descriptor = os.open(path, os.O_RDONLY)
    flags = 0 if path.endswith(".ko") else _MODULE_IS_COMPRESSED
    _libc.syscall(_FINIT_MODULE[os.uname().machine], descriptor, b"", flags)
    os.close(descriptor)


def _mount(what: str, where: str, kind: str, flags: int, options: str) -> None:
    if _libc.mount(what.encode(), where.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"{kind} cannot be mounted on {where}: {os.strerror(ctypes.get_errno())}")


def _open_port() -> int:
    """The port, once the host has written to it: before, it may read as closed."""
    waits_until = time.monotonic() + _PORT_SECONDS
    port = -1
    while time.monotonic() < waits_until:
        if port < 0:
            with suppress(FileNotFoundError):
                port = os.open(_PORT, os.O_RDWR)
        elif select.select([port], [], [], 0)[0] and _has_data(port):
            return port
        time.sleep(0.005)
    raise OSError(f"{_PORT}: the host says nothing")


def _has_data(port: int) -> bool:
    poll = select.poll()
    poll.register(port, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(0))


if __name__ == "__main__":
    main()
