"""How a process gives up its own power: user, limits, file access, system calls.

This file runs *inside* the sandbox, sent there as text, before any of the caller's code: it must need nothing but the
standard library, on Linux with Landlock and seccomp. It owns no policy: what is allowed comes in `config` from
`sandbox.py`. Everything here fails loudly; whether the result holds is for the probe to find out, not assumed.

Sources: Linux Documentation/userspace-api/landlock.rst and seccomp_filter.rst, include/uapi/linux/{landlock,seccomp,
filter,audit}.h, the system call tables of x86_64 and of arm64.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import struct
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` would take a tenth of a session's start
    from typing import Any

__all__ = ["OVER_MEMORY", "confine", "landlock_abi", "restrict_files", "supervise", "tree_memory_bytes"]

OVER_MEMORY = 71
"""Exit code of a supervisor that found its session using too much memory (EX_OSERR)."""
_WATCH_SECONDS = 0.1

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_FS_EXECUTE, _FS_WRITE_FILE, _FS_READ_FILE, _FS_READ_DIR = 1, 2, 4, 8
_FS_ACCESSES_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many file access rights each Landlock ABI knows; from ABI 5 on there are 16."""
_FS_OF_A_FILE = 1 | 2 | 4 | 1 << 14 | 1 << 15
"""Rights that make sense for a single file: execute, write, read, truncate, ioctl on devices."""
_NET_BIND_AND_CONNECT_TCP = 3
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 3

_libc = ctypes.CDLL(None, use_errno=True)


def confine(config: dict[str, Any]) -> None:
    """Apply everything in `config`, in the order that still permits the next step.

    Raises:
        OSError: the kernel refused a step; the process must not go on to run foreign code.
    """
    os.umask(0o077)
    _close_all_but(config["keep_descriptors"])
    for name, limit in config["limits"].items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    with suppress(OSError):
        os.nice(config["nice"])
    if config["user_id"] is not None:
        os.setgroups([])
        os.setresgid(config["user_id"], config["user_id"], config["user_id"])
        os.setresuid(config["user_id"], config["user_id"], config["user_id"])
    if config["filter"]:
        restrict_files(config["read_only"], config["read_write"])
        _restrict_system_calls()


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def supervise(life: int | None, relay: Any = None, total_memory_bytes: int = 0) -> None:
    """Fork: the child returns and goes on; the parent stays as the one that cleans up, and never returns.

    Where there is no process namespace, a daemon of the sandbox would outlive it. As a subreaper the parent inherits
    such orphans; when the child ends, or the other end of the pipe `life` closes, it kills every descendant and leaves.
    In a container there is no such pipe but a `relay` (`relay.py`), which sees as well when the host is gone; and since
    the host sees no process in there, the memory of all of them is watched here.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # Blocked from before the fork until the handler is there, so that no end of a child is missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        return
    code = 1
    try:
        woken, waker = os.pipe()
        os.set_blocking(waker, False)
        _close_all_but([woken, waker, *([] if life is None else [life]), *([] if relay is None else relay.kept)])
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        if relay is not None:
            relay.begin()
        code = _wait_for_the_end(child, woken, life, relay, total_memory_bytes)
        _kill_descendants()
        if relay is not None:
            relay.finish(code)
    finally:
        os._exit(code)


def _nothing(_signal: int, _frame: object) -> None:
    pass


def _wait_for_the_end(child: int, woken: int, life: int | None, relay: Any, total_memory_bytes: int) -> int:
    """Until the host is gone or the child ends; returns the exit code to leave with (128 + signal, as shells do)."""
    watched_at = 0.0
    while True:
        reading, writing = _waits_for(life, relay)
        readable, writable, _ = select.select([woken, *reading], writing, [], None if relay is None else _WATCH_SECONDS)
        if relay is not None and time.monotonic() - watched_at > _WATCH_SECONDS:
            watched_at = time.monotonic()
            if tree_memory_bytes(child) > total_memory_bytes:
                return OVER_MEMORY
        if life in readable or (relay is not None and not relay.step(readable, writable)):
            return 1
        if woken not in readable:
            continue
        os.read(woken, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 1
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return 128 - code if code < 0 else code


def _waits_for(life: int | None, relay: Any) -> tuple[list[int], list[int]]:
    if relay is not None:
        return relay.waits_for()
    return ([] if life is None else [life]), []


def _kill_descendants() -> None:
    """Freeze first, so that a fork bomb cannot refill the places of those already killed."""
    frozen: set[int] = set()
    while fresh := _descendants(os.getpid()) - frozen:
        for pid in fresh:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
        frozen |= fresh
    while alive := _descendants(os.getpid()):
        for pid in alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _descendants(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
                if fields[0] != "Z" or int(fields[1]) == root:
                    parents[int(name)] = int(fields[1])
    found: set[int] = set()
    grown = {root}
    while grown:
        grown = {pid for pid, parent in parents.items() if parent in grown} - found
        found |= grown
    return found


def tree_memory_bytes(root: int) -> int:
    """Private memory of `root` and all below it. Pages that forks still share count once per process."""
    pages = 0
    waiting = [str(root)]
    while waiting:
        pid = waiting.pop()
        try:
            resident, shared = _words(f"/proc/{pid}/statm")[1:3]
            pages += int(resident) - int(shared)
            for task in os.listdir(f"/proc/{pid}/task"):
                waiting += _words(f"/proc/{pid}/task/{task}/children")
        except (OSError, ValueError):
            continue  # it has just ended
    return pages * os.sysconf("SC_PAGE_SIZE")


def _words(path: str) -> list[str]:
    with open(path, encoding="ascii") as file:
        return file.read().split()


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def _close_all_but(descriptors: list[int]) -> None:
    kept = sorted({0, 1, 2, *descriptors})
    for first, last in zip(kept, [*kept[1:], 1 << 20], strict=True):
        os.closerange(first + 1, last)


# --- Landlock ------------------------------------------------------------------------------------------------------


def restrict_files(read_only: list[str], read_write: list[str], *, may_connect: bool = False) -> None:
    """Refuse this process all files but these, abstract sockets and signals beyond itself, and TCP unless it may."""
    abi = landlock_abi()
    if abi < 1:
        raise OSError(ctypes.get_errno(), "this kernel has no Landlock")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)  # else only root may restrict itself
    every_access = (1 << _FS_ACCESSES_BY_ABI.get(abi, 16)) - 1
    attributes = struct.pack("=Q", every_access)
    if abi >= 4:
        attributes += struct.pack("=Q", 0 if may_connect else _NET_BIND_AND_CONNECT_TCP)
    if abi >= 6:
        attributes += struct.pack("=Q", _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS)
    ruleset = _checked(_libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    for path in read_only:
        _allow(ruleset, path, _FS_EXECUTE | _FS_READ_FILE | _FS_READ_DIR)
    for path in read_write:
        _allow(ruleset, path, every_access)
    _checked(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # what the session's user cannot reach need not be allowed
    try:
        if not os.path.isdir(path):
            access &= _FS_OF_A_FILE
        rule = struct.pack("=Qi", access, descriptor)
        _checked(_libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0))
    finally:
        os.close(descriptor)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return int(result)


# --- seccomp -------------------------------------------------------------------------------------------------------

_EPERM, _EACCES, _ENOSYS = 1, 13, 38
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
"""Byte offsets in `struct seccomp_data`; each argument is 8 bytes, its low half first on both machines."""
_X32_BIT = 0x40000000
_LAST_REVIEWED = 462
"""mseal(2), Linux 6.10. Newer calls answer ENOSYS, as on an older kernel, until someone has looked at them."""

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the tables below, and AUDIT_ARCH."""

# Not there on one of the machines: None.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # the network: no socket of any family; pairs of Unix sockets are judged below
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242), "bind": (49, 200),
    "listen": (50, 201),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "move_pages": (279, 239), "migrate_pages": (256, 238), "mbind": (237, 235), "set_mempolicy": (238, 237),
    # mounts and namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "statmount": (457, 457), "listmount": (458, 458), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # wide kernel interfaces with a long record of holes
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "memfd_secret": (447, 447),
    "vmsplice": (278, 75), "modify_ldt": (154, None), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42),
    "uselib": (134, None), "ustat": (136, None), "sysfs": (139, None), "lsm_set_self_attr": (460, 460),
    # System V objects are shared with the host where there is no IPC namespace
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semctl": (66, 191),
    "msgget": (68, 186), "msgctl": (71, 187), "mq_open": (240, 180),
    # the machine
    "reboot": (169, 142), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "swapon": (167, 224), "swapoff": (168, 225),
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "syslog": (103, 116), "iopl": (172, None), "ioperm": (173, None), "vhangup": (153, 58),
    "personality": (135, 92),
}  # fmt: skip
_CLONE, _CLONE3, _SOCKETPAIR, _IOCTL = (56, 220), (435, 435), (53, 199), (16, 29)
_CLONE_NEW_NAMESPACE = (
    0x00000080 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 1 << 30
)
_TERMINAL_INJECTION = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX put input into the terminal of whoever started the server."""


def _restrict_system_calls() -> None:
    program = _program(os.uname().machine)
    code = ctypes.create_string_buffer(program)
    filter_program = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused the system call filter")


def _program(machine: str) -> bytes:
    """The filter as classic BPF. Denies by name, refuses what is newer than the list, allows the rest.

    Raises:
        OSError: there is no table for this machine.
    """
    if machine not in _MACHINES:
        raise OSError(_ENOSYS, f"no system call table for {machine}")
    column, arch = _MACHINES[machine]
    program = [
        _step(_LOAD, _ARCH_AT),
        _step(_JUMP_EQUAL, arch, jump_true=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
        # 32-bit numbers of x32 lie far above the reviewed range as well
        _step(_JUMP_GREATER_EQUAL, _LAST_REVIEWED + 1, jump_false=1),
        _step(_RETURN, _ERRNO | _ENOSYS),
        # glibc then falls back to clone, whose flags can be seen; clone3's lie in memory
        *_when(_CLONE3[column], [_step(_RETURN, _ERRNO | _ENOSYS)]),
    ]
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number is not None:
            program += _when(
                number, [_step(_RETURN, _ERRNO | (_EACCES if number == _REFUSED["socket"][column] else _EPERM))]
            )
    program += _when(
        _CLONE[column],
        [
            _step(_LOAD, _ARGUMENTS_AT),
            _step(_JUMP_ANY_BIT, _CLONE_NEW_NAMESPACE, jump_false=1),
            _step(_RETURN, _ERRNO | _EPERM),
            _step(_RETURN, _ALLOW),
        ],
    )
    program += _when(
        _SOCKETPAIR[column],
        [
            _step(_LOAD, _ARGUMENTS_AT),
            _step(_JUMP_EQUAL, 1, jump_true=1),  # AF_UNIX
            _step(_RETURN, _ERRNO | _EACCES),
            _step(_RETURN, _ALLOW),
        ],
    )
    program += _when(
        _IOCTL[column],
        [
            _step(_LOAD, _ARGUMENTS_AT + 8),
            _step(_JUMP_EQUAL, _TERMINAL_INJECTION[0], jump_true=1),
            _step(_JUMP_EQUAL, _TERMINAL_INJECTION[1], jump_false=1),
            _step(_RETURN, _ERRNO | _EPERM),
            _step(_RETURN, _ALLOW),
        ],
    )
    return b"".join([*program, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, *, jump_true: int = 0, jump_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, jump_true, jump_false, value)


def _when(number: int, then: list[bytes]) -> list[bytes]:
    """`then` runs, and must return, when the loaded system call number is `number`."""
    return [_step(_JUMP_EQUAL, number, jump_false=len(then)), *then]
