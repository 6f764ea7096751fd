"""What must not work inside a sandbox, tried from inside it. Sent there as text; prints one JSON object.

`_told` (from the host): `canary`, a file anyone may read; `folder`, where it lies; `pid` of the server; `port`, a TCP
port the server listens on. Each name maps to True when the attempt was *stopped*. An attempt that is stopped for a
trivial reason (a path that does not exist at all) counts as well: what is not there cannot be reached.
"""

import ctypes
import fcntl
import json
import os
import resource
import socket
from collections.abc import Callable

_told: dict[str, str | int] = globals()["_told"]
_libc = ctypes.CDLL(None, use_errno=True)


def _stopped(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


def _fails(result: int) -> bool:
    return result == -1


def _write(path: str) -> None:
    with open(path, "x", encoding="ascii"):
        os.unlink(path)


def _open_descriptors() -> int:
    return sum(not _stopped(lambda number=number: fcntl.fcntl(number, fcntl.F_GETFD)) for number in range(256))


_held = {
    "read a file of the owner": _stopped(lambda: open(_told["canary"], encoding="ascii").close()),
    "list the owner's folder": _stopped(lambda: os.listdir(_told["folder"])),
    "write outside its folder": all(_stopped(lambda at=at: _write(f"{at}/made")) for at in (_told["folder"], "/usr")),
    "signal the server": _stopped(lambda: os.kill(int(_told["pid"]), 0)),
    "read the server's environment": _stopped(lambda: open(f"/proc/{_told['pid']}/environ", "rb").close()),
    "see the server's secrets": set(os.environ) <= {"HOME", "LANG", "LC_CTYPE", "MPLBACKEND", "MPLCONFIGDIR",
        "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "PATH", "PWD", "TMPDIR", "TZ", "USER"},
    "open a TCP socket": _stopped(lambda: socket.create_connection(("127.0.0.1", int(_told["port"])), 2).close()),
    "open a Unix socket": _stopped(lambda: socket.socket(socket.AF_UNIX).close()),
    "open a netlink socket": _stopped(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
    "make a user namespace": _fails(_libc.unshare(0x10000000)),
    # An unknown file system: EPERM where mounting is refused, ENODEV (19) where it is not, and nothing is ever mounted:
    # a probe must do no harm where it succeeds. An earlier one mounted a tmpfs, and hid the project's folder.
    "mount": _fails(_libc.mount(b"none", b"/", b"no-such-file-system", 0, None)) and ctypes.get_errno() != 19,
    "trace a process": _fails(_libc.ptrace(0x4206, os.getppid(), 0, 0)),
    "be root": 0 not in os.getresuid() and 0 not in os.getresgid() and 0 not in os.getgroups(),
    "become root": _stopped(lambda: os.setuid(0)),
    "gain privileges": _libc.prctl(39, 0, 0, 0, 0) == 1,
    "use inherited descriptors": _open_descriptors() <= 6,
    "run without a system call filter": _libc.prctl(21, 0, 0, 0, 0) == 2,
    "use x32 system calls": os.uname().machine != "x86_64" or _fails(_libc.syscall(0x40000000 | 39)),
    "change the kernel's settings": _stopped(lambda: open("/proc/sys/kernel/core_pattern", "r+b").close()),
    "run without a process limit": resource.getrlimit(resource.RLIMIT_NPROC)[1] != resource.RLIM_INFINITY,
    "run without a memory limit": resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY,
}  # fmt: skip
print(json.dumps(_held))  # noqa: T201  its answer
