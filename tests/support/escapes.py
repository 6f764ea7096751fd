"""Attacks on the sandbox, as the code that a hostile caller would run. Each prints `ESCAPED` when it worked.

`told` holds what the test set up for them to go for. All are safe to run confined; only those in `SAFE_UNCONFINED`
may ever run without isolation, to show that the attack itself works.
"""

# ruff: noqa: E501 - an attack reads best on one line

import os
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ESCAPES", "KEY", "PROTOCOL_ATTACKS", "SAFE_UNCONFINED", "SLOW", "Prey", "ending", "lay_out_prey", "prelude"]

KEY = "sk-secret-0123456789"
"""The caller puts it into its own environment, for the attacks to find."""


@dataclass
class Prey:
    """What the attacks go for, and whether anything reached it."""

    told: dict[str, object]
    victim: "subprocess.Popen[bytes]"
    listeners: list[socket.socket]
    folder: Path

    def was_reached(self) -> list[str]:
        """Looked at from outside, whatever the attacker said."""
        reached: list[str] = []
        if self.victim.poll() is not None:
            reached.append("the process was killed")
        if (self.folder / "planted").exists():
            reached.append("a file was planted")
        for listener in self.listeners:
            try:
                listener.recvfrom(1) if listener.type == socket.SOCK_DGRAM else listener.accept()
                reached.append(f"{listener.getsockname()} was reached")
            except BlockingIOError:
                continue
        return reached


@contextmanager
def lay_out_prey(folder: Path) -> Generator[Prey]:
    """A file that anyone may read, a process, and listeners of every kind."""
    secret = folder / "secret.txt"
    secret.write_text("private", encoding="utf-8")
    for path in (secret, folder, *folder.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            with suppress(PermissionError):  # not ours, when this runs as an ordinary user
                path.chmod(0o755)  # so that only the sandbox stands between the attack and the file
    secret.chmod(0o644)
    with _listeners(folder) as (listeners, where), subprocess.Popen(["sleep", "600"]) as victim:
        told: dict[str, object] = {
            "secret": str(secret),
            "folder": str(folder),
            "key": KEY,
            "victim": victim.pid,
            **where,
        }
        try:
            yield Prey(told, victim, listeners, folder)
        finally:
            victim.kill()


@contextmanager
def _listeners(folder: Path) -> Generator[tuple[list[socket.socket], dict[str, object]]]:
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0memento-test-{os.getpid()}")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(folder / "s"))
    os.chmod(folder / "s", 0o777)
    abstract.listen()
    unix.listen()
    listeners = [tcp, udp, abstract, unix]
    for listener in listeners:
        listener.setblocking(False)
    try:
        yield (
            listeners,
            {
                "tcp": tcp.getsockname()[1],
                "udp": udp.getsockname()[1],
                "abstract": f"\0memento-test-{os.getpid()}",
                "unix": str(folder / "s"),
            },
        )
    finally:
        for listener in listeners:
            listener.close()


def prelude(told: dict[str, object]) -> str:
    return f"""
import os, sys, socket, ctypes, struct, time
told = {told!r}
libc = ctypes.CDLL(None, use_errno=True)
def escaped(done=True):
    if done: print("ESCAPED")
def tries(*attempts):
    for attempt in attempts:
        try:
            done = attempt()
        except (OSError, ValueError, MemoryError):
            continue
        if done is not False: print("ESCAPED")
def calls(*numbers_and_arguments):
    for number, *arguments in numbers_and_arguments:
        if libc.syscall(number, *arguments) >= 0: print("ESCAPED")
"""


ESCAPES: dict[str, str] = {
    "read a private file": "tries(lambda: open(told['secret']).read())",
    "read a private file through a hard link": "tries(lambda: (os.link(told['secret'], 'x'), open('x').read()))",
    "read a private file through a symbolic link": "tries(lambda: (os.symlink(told['secret'], 'y'), open('y').read()))",
    "read a private file through /proc/1/root": "tries(lambda: open('/proc/1/root' + told['secret']).read())",
    "list a home": "tries(lambda: os.listdir(told['folder']), lambda: os.listdir('/root'), lambda: os.listdir('/home'))",
    "read the users and their passwords": "tries(lambda: open('/etc/passwd').read(), lambda: open('/etc/shadow').read())",
    "write outside": "tries(*[lambda at=at: open(at + '/planted', 'w') for at in (told['folder'], '/usr', '/etc', '/')])",
    "plant code in the packages": "tries(*[lambda at=at: open(at + '/planted.pth', 'w') for at in sys.path if at])",
    "find a secret in the environment": "escaped(told['key'] in str(os.environ))",
    "find a secret in its own /proc": "tries(lambda: told['key'].encode() in open('/proc/self/environ', 'rb').read())",
    "find a secret in any /proc": """
for pid in range(1, 40_000):
    tries(lambda: told['key'].encode() in open(f'/proc/{pid}/environ', 'rb').read())""",
    "connect to the host by TCP": "tries(lambda: socket.create_connection(('127.0.0.1', told['tcp']), 1))",
    "connect to the host by TCP over IPv6": "tries(lambda: socket.create_connection(('::1', told['tcp']), 1))",
    "send to the host by UDP": "tries(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', told['udp'])))",
    "connect to an abstract socket": "tries(lambda: socket.socket(socket.AF_UNIX).connect(told['abstract']))",
    "connect to a socket in the file system": "tries(lambda: socket.socket(socket.AF_UNIX).connect(told['unix']))",
    "open a netlink, packet or vsock socket": "tries(*[lambda f=f: socket.socket(f, socket.SOCK_RAW) for f in (16, 17, 40)])",
    "kill a process of the host": "tries(lambda: os.kill(told['victim'], 9))",
    "kill every process": """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
tries(lambda: (os.kill(-1, 15), False)[1])""",
    "trace a process of the host": "escaped(libc.ptrace(0x4206, told['victim'], 0, 0) == 0)",
    "read the memory of a process of the host": "tries(lambda: open(f\"/proc/{told['victim']}/mem\", 'rb').read(1))",
    "make a user namespace": "escaped(libc.unshare(0x10000000) == 0)",
    "make namespaces by clone": """
if (child := libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)) == 0: os._exit(0)
escaped(child > 0)""",
    "mount": "escaped(libc.mount(b'none', os.getcwd().encode(), b'tmpfs', 0, None) == 0)",
    "change the root": "tries(lambda: os.chroot('.'))",
    "use the wide kernel interfaces": "calls((321, 0, 0, 0), (298, ctypes.create_string_buffer(128), 0, -1, -1, 0), (323, 0), "
    "(425, 8, ctypes.create_string_buffer(256)), (250, 0, -3, 1), (248, b'user', b'k', b'v', 1, -3))",
    "open a device": "tries(*[lambda at=at: os.open(at, os.O_RDWR) for at in ('/dev/kvm', '/dev/fuse', '/dev/mem', "
    "'/dev/kmsg', '/dev/vda', '/dev/sda', '/dev/loop-control', '/dev/net/tun')])",
    "change the kernel": "tries(*[lambda at=at: os.open(at, os.O_WRONLY) for at in ('/proc/sys/kernel/core_pattern', "
    "'/proc/sysrq-trigger', '/proc/sys/vm/drop_caches', '/sys/fs/cgroup/cgroup.procs', '/sys/kernel/uevent_helper')])",
    "be root again": "tries(lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0))",
    "run a setuid program as root": """
import subprocess
done = subprocess.run(['/bin/su', '-c', 'id -u'], capture_output=True, text=True, stdin=subprocess.DEVNULL)
escaped(done.stdout.strip() == '0')""",
    "hold a capability": """
header, data = struct.pack('=Ii', 0x20080522, 0), ctypes.create_string_buffer(24)
libc.capget(header, data)
escaped(struct.unpack('=6I', data.raw)[0] != 0 or struct.unpack('=6I', data.raw)[1] != 0)""",
    "use a descriptor of the server": """
import fcntl, stat
for number in range(3, 1024):
    tries(lambda: not stat.S_ISFIFO(os.fstat(number).st_mode))""",
    "make x32 system calls": "calls((0x40000000 | 39,), (0x40000000 | 41, 2, 1, 0))",
    "put words into the terminal": """
import fcntl
tries(lambda: fcntl.ioctl(os.open('/dev/ptmx', os.O_RDWR), 0x5412, b'x'))""",
    "share memory with the host": "calls((29, 0, 4096, 0o1000 | 0o600), (240, b'queue', 0o102, 0o600, 0))",
    "raise its own limits": """
import resource
for name in ('RLIMIT_AS', 'RLIMIT_NPROC', 'RLIMIT_FSIZE', 'RLIMIT_CPU'):
    tries(lambda: resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)))""",
    "take 3 GB of memory": "tries(lambda: len(bytearray(3 << 30)) > 0)",
    "write a file of 2 GB": """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open('big', 'wb') as file: tries(lambda: file.truncate(2 << 30), lambda: file.write(bytes(200 << 20)))""",
    "fill /dev/shm": "tries(lambda: open('/dev/shm/big', 'wb').write(bytes(300 << 20)))",
    "bomb with forks": """
children = []
try:
    for _ in range(300):
        if (child := os.fork()) == 0: time.sleep(30); os._exit(0)
        children.append(child)
except OSError: pass
escaped(len(children) > 100)
for child in children: os.kill(child, 9)""",
    "fill the disk with many files": """
def fill():
    for n in range(40):
        with open(f'part{n}', 'wb') as file:
            for _ in range(60): file.write(bytes(1 << 20))
tries(fill)""",
    "take 3 GB over six processes": """
children = []
for _ in range(6):
    if (child := os.fork()) == 0:
        hoard = bytearray(b'x') * (500 << 20)
        time.sleep(20)
        os._exit(0)
    children.append(child)
time.sleep(15)
escaped()""",
}

SLOW = {"take 3 GB over six processes", "fill the disk with many files", "bomb with forks"}
SAFE_UNCONFINED = {
    "read a private file",
    "read a private file through a symbolic link",
    "list a home",
    "read the users and their passwords",
    "connect to the host by TCP",
    "send to the host by UDP",
    "connect to an abstract socket",
    "connect to a socket in the file system",
    "kill a process of the host",
    "open a netlink, packet or vsock socket",
}
"""They touch nothing but what the test made for them, and a process of its own."""

PROTOCOL_ATTACKS: dict[str, tuple[str, str]] = {
    "exit": ("import sys; sys.exit(4)", "error"),
    "exit without a code": ("import sys; sys.exit()", "fine"),
    "endless recursion": ("def f(): return f()\nf()", "error"),
    "a repr that raises": ("class A:\n    def __repr__(self): raise ValueError('no')\nA()", "error"),
    "a repr of another type": ("class A:\n    def __repr__(self): return 3\nA()", "error"),
    "an exception whose text raises": ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "error"),
    "a repr that never ends": ("class A:\n    def __repr__(self):\n        while True: pass\nA()", "limit"),
    "input": ("input()", "error"),
    "all descriptors closed": ("import os\nos.closerange(0, 1024)", "lost"),
    "stdout closed": ("import sys\nsys.stdout.close()", "fine"),
    "stdout gone": ("import sys\nsys.stdout = sys.stderr = None", "fine"),
    "stdout of another kind": ("import sys\nsys.stdout = 5", "fine"),
    "binary on stdout": ("import os\nos.write(1, bytes(range(256)))\nNone", "fine"),
    "terminal sequences": ("print('\\x1b[2J\\x1b]0;owned\\x07')", "fine"),
    "a lone surrogate": ("print('\\ud800')\n'\\ud800'", "fine"),
    "not a number": ("float('nan')", "fine"),
    "a deep list": ("x = []\nfor _ in range(100000): x = [x]\nx", "error"),
    "its own json module": ("open('json.py', 'w').write('raise SystemExit')", "fine"),
    "builtins deleted": ("import builtins\nfor n in list(vars(builtins)): delattr(builtins, n) if n != 'delattr' else 0", "lost"),
    "json.dumps replaced": ("import json\njson.dumps = lambda *a, **k: 'junk'", "fine"),
    "os.write replaced": ("import os\nos.write = lambda *a: 0", "fine"),
    "garbage in every pipe": ("import os\nfor n in range(3, 30):\n    try: os.write(n, b'garbage\\n')\n    except OSError: pass", "lost"),
    "an endless line in every pipe": ("import os\nfor n in range(3, 30):\n    try:\n        while True: os.write(n, b'x' * 65536)\n"
    "    except OSError: pass", "lost"),
    "a forged answer": ("import os\nfor n in range(3, 30):\n    try: os.write(n, b'{\"call\": \"0\", \"value\": \"FORGED\"}\\n')\n"
    "    except OSError: pass\n'true'", "fine"),
    "a fork that keeps the pipes": ("import os, time\nif os.fork() == 0:\n    time.sleep(60)\n    os._exit(0)\n'parent'", "fine"),
    "signals ignored": ("import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nwhile True: pass", "killed"),
    "a thread that never ends": ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()", "fine"),
    "null bytes": ("x = 1\x00", "error"),
    "syntax": ("x = = 1", "error"),
    "nested parentheses": ("(" * 5000 + ")" * 5000, "error"),
    "a flood of prints": ("while True: print('x' * 100_000)", "limit"),
    "a value of 200 MB": ("'x' * 200_000_000", "fine"),
    "a crash": ("import ctypes\nctypes.string_at(0)", "lost"),
    "an end without a word": ("import os\nos._exit(0)", "lost"),
    "only a kill ends it": ("import time\nwhile True:\n    try:\n        while True: time.sleep(0.01)\n    except BaseException: pass", "killed"),
    "a late word of a thread": ("import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()", "fine"),
    "a zombie": ("import os\nif os.fork() == 0: os._exit(0)\n'parent'", "fine"),
    "stdin closed": ("import os\nos.close(0)", "fine"),
    "files that are no files": ("import os\nos.mkfifo('fifo.png')\nopen('sparse', 'wb').truncate(60 << 20)\nos.symlink('/etc/passwd', 'link.png')", "fine"),
}  # fmt: skip
"""Code that goes for the session's own process and pipes, and how the run ends.

fine; error: the code raised; limit: interrupted at the time limit; killed: over the limit it did not heed the interrupt;
lost: the session ended otherwise. The time limit is half a second for `limit` and `killed`, and ample for the rest.
Whatever it does, the server must answer, believe nothing forged, and give a working session afterwards."""


def ending(ran: dict[str, Any]) -> str:
    """How a run of `run_python` ended, in the words of `PROTOCOL_ATTACKS`."""
    if ran.get("lost"):
        return "killed" if "could not be interrupted" in ran["lost"] else "lost"
    return "limit" if ran.get("limit") == "time limit of 0.5 s" else "error" if ran.get("error") else "fine"
