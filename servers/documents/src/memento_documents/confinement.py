"""Giving up rights for good: no network, no other programs, no files but those below given folders.

For a process that parses what strangers made, after it has imported what it needs; and, with fewer rights given up,
for a program that does so. Owns the Linux system calls for that, Landlock (landlock(7), files and TCP) and seccomp
(seccomp(2), everything else), and nothing of limits on memory or time. Neither needs root. What is already open stays
usable: hand such a process its document as a descriptor.

The code server has confinement of its own (`memento_code.confine`): it must let programs run, write and start others.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Callable, Container, Iterable

__all__ = ["confine_files", "confine_network", "confine_system_calls", "why_not_confined"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_ACCESSES_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many access rights of the file system each version of Landlock knows; since version 5, 16."""
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_MAKE_SOCKET, _DEVICE_CONTROL = 1 << 9, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE_CONTROL
"""The rights that a rule on a single file may name."""
_TCP = 0b11
_SCOPES = 0b11
"""Abstract Unix sockets, and signals to processes outside."""
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2

_ALLOW, _KILL, _EPERM = 0x7FFF0000, 0x80000000, 0x00050001
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_FIRST_ARGUMENT, _THIRD_ARGUMENT = 16, 32
"""Offsets in `struct seccomp_data`."""
_X32 = 0x40000000
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# Numbers on x86_64 and on aarch64; None where there is no such call.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242),
    "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "pidfd_send_signal": (424, 424), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434), "setns": (308, 268), "unshare": (272, 97), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "shmget": (29, 194), "shmat": (30, 196),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "setuid": (105, 146), "setgid": (106, 144),
    "setresuid": (117, 147), "setresgid": (119, 149), "setpriority": (141, 140),
    "reboot": (169, 142), "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273),
    "memfd_create": (319, 279), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None),
    "fchown": (93, 55), "fchownat": (260, 54), "utimensat": (280, 88), "setxattr": (188, 5), "personality": (135, 92),
}  # fmt: skip
_TGKILL, _PRLIMIT64 = (234, 131), (302, 261)
_PROGRAM_NEEDS = frozenset({
    "socket", "socketpair", "bind", "listen", "accept", "accept4", "execve", "setpriority", "memfd_create", "chmod",
    "fchmod", "fchmodat", "chown", "fchown", "fchownat", "utimensat", "shmget", "shmat",
})  # fmt: skip
"""Refused to a parser, and left to a whole program, which listens on a Unix socket of its own and writes files."""
_UNIX = 1

_libc = ctypes.CDLL(None, use_errno=True)


def why_not_confined() -> str | None:
    """What is missing on this machine, or None when both functions below will hold."""
    if platform.system() != "Linux":
        return f"{platform.system()} has neither Landlock nor seccomp"
    if platform.machine() not in _MACHINES:
        return f"there is no table of system calls for {platform.machine()}"
    if _landlock_version() < 1:
        return "this kernel has no Landlock (Linux 5.13 or later, switched on)"
    return None


def confine_files(
    readable: Iterable[str],
    *,
    runnable: Iterable[str] = (),
    writable: Iterable[str] = (),
    sockets: Iterable[str] = (),
) -> None:
    """From now on this process and its children read only below these folders or files, and write, make and remove
    nothing but below `writable`, and Unix sockets below `sockets`; they start programs below `runnable` alone.

    Nor do they connect or listen over TCP (Landlock 4) or signal processes outside (Landlock 6). Paths that are not
    there are passed over.

    Raises:
        OSError: the kernel refused.
    """
    version = _landlock_version()
    everything = (1 << _ACCESSES_BY_ABI.get(version, 16)) - 1
    attributes = struct.pack("=Q", everything)
    if version >= 4:
        attributes += struct.pack("=Q", _TCP)
    if version >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for paths, access in (
            (readable, _READ_FILE | _READ_DIR),
            (runnable, _READ_FILE | _READ_DIR | _EXECUTE),
            (writable, everything & ~_EXECUTE),
            (sockets, _MAKE_SOCKET),
        ):
            for path in paths:
                _allow(ruleset, path, access)
        _give_up_privileges()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def confine_system_calls() -> None:
    """From now on this process opens no socket, starts no program and touches no other process.

    It may still fork, start threads and ask for its own limits. The refused calls answer EPERM; 32-bit calls end the
    process.

    Raises:
        OSError: the kernel refused, or there is no table for this machine.
    """
    _filter_system_calls(_calls_of_a_parser)


def confine_network() -> None:
    """From now on this process and its children have no network and touch no other process.

    They may start programs and listen on Unix sockets; they connect to none.

    Raises:
        OSError: as for `confine_system_calls`.
    """
    _filter_system_calls(_calls_of_a_program)


def _filter_system_calls(of_machine: Callable[[int], list[bytes]]) -> None:
    _give_up_privileges()
    program = _program(of_machine)
    code = ctypes.create_string_buffer(program)
    filter_program = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if _libc.prctl(_SET_SECCOMP, _FILTER_MODE, filter_program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused the system call filter")


def _landlock_version() -> int:
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))))


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            access &= _OF_FILES
        _call(_ADD_RULE, ruleset, 1, struct.pack("=Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)


def _give_up_privileges() -> None:
    if _libc.prctl(_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused PR_SET_NO_NEW_PRIVS")


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result


def _program(of_machine: Callable[[int], list[bytes]]) -> bytes:
    """The filter as classic BPF: refuse by number, allow the rest."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(38, f"no system call table for {machine}")
    architecture, column = _MACHINES[machine]
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, then=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, otherwise=1),
        _step(_RETURN, _KILL),
        *of_machine(column),
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(steps)


def _refused(column: int, but: Container[str] = ()) -> list[bytes]:
    steps: list[bytes] = []
    for name, numbers in _REFUSED.items():
        number = numbers[column]
        if number is not None and name not in but:
            steps += [_step(_EQUAL, number, otherwise=1), _step(_RETURN, _EPERM)]
    return steps


def _calls_of_a_parser(column: int) -> list[bytes]:
    return [
        *_refused(column),
        # A process may ask for its own limits, which is what getrlimit() does, and set none.
        _step(_EQUAL, _PRLIMIT64[column], otherwise=8),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_EQUAL, 0, otherwise=5),
        _step(_LOAD, _THIRD_ARGUMENT),
        _step(_EQUAL, 0, otherwise=3),
        _step(_LOAD, _THIRD_ARGUMENT + 4),
        _step(_EQUAL, 0, otherwise=1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _EPERM),
        # abort() signals its own process, which is fine.
        _step(_EQUAL, _TGKILL[column], otherwise=3),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_EQUAL, os.getpid(), then=1),
        _step(_RETURN, _EPERM),
    ]


def _calls_of_a_program(column: int) -> list[bytes]:
    socket = _REFUSED["socket"][column]
    assert socket is not None
    return [
        *_refused(column, but=_PROGRAM_NEEDS),
        _step(_EQUAL, socket, otherwise=3),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_EQUAL, _UNIX, then=1),
        _step(_RETURN, _EPERM),
    ]


def _step(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)
