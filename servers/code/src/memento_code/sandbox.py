"""Isolation: which level this machine really gives, and how a process is started at it.

A level is never believed by name. `find_sandbox` starts a session at each, strongest first, runs a probe
*inside* it that tries what must not work, and takes the first level at which nothing did.

- `microvm`: a virtual machine + Landlock + seccomp + limits; only where the operator names a kernel
- `namespace`: bubblewrap (own file system, process, network and IPC namespaces) + Landlock + seccomp + limits
- `landlock`: Landlock + seccomp + limits, where no namespaces can be made (most containers)
- `podman`, `docker`: a container + Landlock + seccomp + limits; only when the operator asks for it
- `none`: a process with limits and a clean environment; only when the operator said so

Shared with the host at every level but `microvm`: the kernel. See the README for what that leaves open.
"""

import errno
import functools
import importlib.resources
import importlib.util
import itertools
import json
import logging
import marshal
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from anyio.to_thread import run_sync

from memento_code.confine import landlock_abi
from memento_code.container import Engine, EngineCommand, engine_command, make_root
from memento_code.machine import Accelerator, machine_command, missing_for_machine
from memento_code.session import Session, SessionLost, session_environment
from memento_kit import memento_home

__all__ = ["Level", "Limits", "NoSandbox", "Sandbox", "find_sandbox", "inside_sources"]

logger = logging.getLogger(__name__)

Level = Literal["microvm", "namespace", "landlock", "podman", "docker", "none", "e2b"]
_LEVELS: tuple[Level, ...] = ("microvm", "namespace", "landlock", "none")
WORK = "/sandbox"
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin")
_SYSTEM_FILES = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone", "/etc/fonts",
    "/etc/mime.types", "/etc/alternatives",
)  # fmt: skip
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SHARED_MEMORY_BYTES = 64 << 20
_USER_IDS = (600_000, 60_000)
"""Where sessions' user ids begin: above every range that systems hand out, or in a small id map below 65,536."""
_START_SECONDS = 20.0
_PROBE_SECONDS = 20.0
_BOOT = """
import sys, os, json, marshal
requests, events = os.fdopen(int(sys.argv[1]), 'rb', closefd=False), int(sys.argv[2])
boot = json.loads(requests.readline())
def load(name):
    module = type(sys)(name)
    if boot['magic'] == sys.modules['_frozen_importlib_external'].MAGIC_NUMBER.hex():
        code = marshal.loads(bytes.fromhex(boot['compiled'][name]))
    else:
        code = compile(boot['sources'][name], name + '.py', 'exec')
    exec(code, module.__dict__)
    return module
confine, worker, rendering, folder = map(load, ('confine', 'worker', 'rendering', 'folder'))
config = boot['config']
relay = load('relay').Relay() if config['relayed'] else None
if relay is not None or config['life'] is not None:
    confine.supervise(config['life'], relay, config['total_memory_bytes'])
if relay is not None:
    ends = relay.enter()
    requests, events, config['keep_descriptors'] = os.fdopen(ends[0], 'rb'), ends[1], list(ends)
confine.confine(config)
sys.path.extend(config['packages'])
os.chdir(config['folder'])
worker.serve(requests, events, config, rendering, folder)
"""
"""What the interpreter is started with: it fetches the rest through the request pipe, so that nothing of this package
has to be readable inside the sandbox."""
_INSIDE = ("confine", "worker", "rendering", "folder", "relay")
_ENGINES: tuple[Engine, ...] = ("podman", "docker")
_OWN_FILES: tuple[Level, ...] = ("microvm", "namespace", *_ENGINES)
"""Levels with a file system of their own, and with it a folder that no one sees from outside."""
_BOOT_SECONDS: dict[Accelerator, float] = {"kvm": 10.0, "tcg": 60.0}
_MENDS: dict[Level, str] = {
    "microvm": "Install QEMU (apt install qemu-system-x86) and name a kernel in MEMENTO_CODE_KERNEL",
    "namespace": "Install bubblewrap (apt install bubblewrap)",
    "landlock": "Use Linux 6.12 or newer with Landlock",
    "podman": "Install podman (apt install podman) or mend what it complains of",
    "docker": "Install docker or start its daemon (systemctl start docker)",
    "none": "Set MEMENTO_CODE_ALLOW_UNSANDBOXED=true",
}
"""What an operator can do to have a level."""


class NoSandbox(Exception):
    """No permitted level holds on this machine. The message says what failed at each, and what to do."""


@dataclass(frozen=True)
class Limits:
    """What one session may use. Memory counts per process and over all of them; the rest as named."""

    process_memory_bytes: int
    total_memory_bytes: int
    processes: int
    open_files: int
    file_bytes: int
    folder_bytes: int
    cpu_seconds: int

    def hit_by(self, error: str, number: int | None, traceback: str) -> str | None:
        """Name the limit that made code raise `error` (with errno `number`); None when it was none of these."""
        mebibytes = 1 << 20
        if error == "MemoryError" or number == errno.ENOMEM:
            return f"memory limit of {self.process_memory_bytes // mebibytes} MiB for one process"
        if (number == errno.EAGAIN and "fork" in traceback) or "can't start new thread" in traceback:
            return f"limit of {self.processes} processes and threads"
        if number == errno.EMFILE:
            return f"limit of {self.open_files} open files"
        if number == errno.EFBIG:
            return f"limit of {self.file_bytes // mebibytes} MiB for one file"
        if number in (errno.ENOSPC, errno.EDQUOT):
            return f"limit of {self.folder_bytes // mebibytes} MiB for the session's folder"
        return None


@dataclass(frozen=True)
class Sandbox:
    """A level that holds here, and what the probe at it said."""

    level: Level
    limits: Limits
    python: str
    packages: tuple[str, ...]
    """Folders of installed packages that sessions may import from."""
    mechanisms: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    """What the probe tried inside and found impossible."""
    kernel: Path | None = None
    accelerator: Accelerator | None = None
    """Both of a virtual machine."""
    rejected: dict[str, str] = field(default_factory=dict[str, str])
    """Stronger levels that do not hold here, and why."""

    def command(self, user_id: int | None, folder: Path | None) -> tuple[list[str], dict[str, Any]]:
        """The argument vector, but for the engine's of a container, and what `confine` is told inside."""
        inside = str(folder or WORK)
        config: dict[str, Any] = {
            "limits": self._resource_limits(user_id),
            "total_memory_bytes": self.limits.total_memory_bytes,
            "nice": 5,
            "user_id": user_id,
            "filter": self.level != "none",
            "read_only": [*_SYSTEM, *_SYSTEM_FILES, *self._python_folders()],
            "read_write": [inside, *_DEVICES],
            "packages": list(self.packages),
            "folder": inside,
        }
        python = [self.python, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT]
        if folder is not None:
            return python, config
        config["read_write"] += ["/tmp", "/dev/shm"]
        config["read_only"] += ["/proc"]  # of the own process namespace
        if self.level in (*_ENGINES, "microvm"):
            return python, config
        return [*self._bubblewrap(privileged=user_id is not None), *python], config

    def _resource_limits(self, user_id: int | None) -> dict[str, int]:
        limits = self.limits
        return {
            "RLIMIT_AS": limits.process_memory_bytes,
            "RLIMIT_CPU": limits.cpu_seconds,
            "RLIMIT_FSIZE": limits.file_bytes,
            "RLIMIT_NOFILE": limits.open_files,
            # The kernel counts per user: without a namespace or a user id of its own, all the user's processes.
            "RLIMIT_NPROC": limits.processes
            + (0 if user_id or self.level in _OWN_FILES else _processes_of(os.getuid())),
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
        }

    def _python_folders(self) -> list[str]:
        prefix = str(Path(os.path.realpath(self.python)).parent.parent)
        folders = [prefix, *self.packages] if prefix != "/usr" else list(self.packages)
        return [folder for folder in folders if not folder.startswith("/usr/")] if prefix == "/usr" else folders

    def _bubblewrap(self, *, privileged: bool) -> list[str]:
        arguments = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
        arguments += ["--hostname", "sandbox", "--unshare-cgroup-try"]
        if privileged:
            # No user namespace: a user id of its own per session is stronger than root mapped to root, and the two
            # capabilities are what it takes to change to it; they are gone afterwards.
            arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            arguments += ["--unshare-user", "--cap-drop", "ALL"]
        arguments += ["--proc", "/proc", "--dev", "/dev"]
        # Before the packages, which may lie in a folder under /tmp
        sized = [
            (WORK, self.limits.folder_bytes),
            ("/tmp", self.limits.folder_bytes),
            ("/dev/shm", _SHARED_MEMORY_BYTES),
        ]
        for path, size in sized:
            arguments += ["--perms", "0777", "--size", str(size), "--tmpfs", path]
        for path in _SYSTEM:
            if os.path.islink(path):
                arguments += ["--symlink", os.readlink(path), path]
            elif os.path.isdir(path):
                arguments += ["--ro-bind", path, path]
        made = {"/", "/tmp", "/usr"}
        for path in (*_SYSTEM_FILES, *self._python_folders()):
            if os.path.exists(path):
                for parent in reversed(Path(path).parents[:-1]):
                    if str(parent) not in made:
                        # bubblewrap would make them 0700, and the session's user could not pass
                        arguments += ["--perms", "0755", "--dir", str(parent)]
                        made.add(str(parent))
                arguments += ["--ro-bind", path, path]
                made.add(path)
        return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"]

    def engine(self, user_id: int | None) -> EngineCommand | None:
        """What starts the container or machine that the level is made of; None where there is none.

        Raises:
            OSError: the engine did not take what the container is made from.
        """
        limits = self.limits
        if self.accelerator is not None and self.kernel is not None:
            return machine_command(
                self.accelerator,
                self.kernel,
                inside=self.command(user_id, None)[0],
                variables=session_environment(WORK, "/tmp"),
                read_only=[*_SYSTEM, *_SYSTEM_FILES, *self._python_folders()],
                sizes={WORK: limits.folder_bytes, "/tmp": limits.folder_bytes, "/dev/shm": _SHARED_MEMORY_BYTES},
                memory_bytes=limits.total_memory_bytes,
                user_id=user_id if os.geteuid() == 0 else None,
            )
        if self.level not in _ENGINES:
            return None
        make_root(_container_root())
        return engine_command(
            self.level,
            _container_root(),
            read_only=[*_SYSTEM, *_SYSTEM_FILES, *self._python_folders()],
            sizes={WORK: limits.folder_bytes, "/tmp": limits.folder_bytes, "/dev/shm": _SHARED_MEMORY_BYTES},
            memory_bytes=limits.total_memory_bytes,
            processes=limits.processes + 1,  # the supervisor
        )

    async def start(self, *, max_value_chars: int, output_bytes: int) -> Session:
        """Start a session at this level.

        Raises:
            SessionLost: it could not be started.
        """
        becomes_another = self.level == "microvm" or (os.geteuid() == 0 and self.level != "none")
        user_id = _free_user_id() if becomes_another else None
        try:
            engine = await run_sync(self.engine, user_id)
        except OSError as exc:
            raise SessionLost(str(exc)) from exc
        folder = None if self.level in _OWN_FILES else _make_folder(user_id)
        command, config = self.command(user_id, folder)
        session = Session(
            command,
            boot=_boot_parts(contained=engine is not None),
            config={**config, "max_value_chars": max_value_chars},
            supervised=self.level not in ("microvm", "namespace"),  # these end with their first process
            folder=folder,
            output_bytes=output_bytes,
            memory_bytes=self.limits.total_memory_bytes,
            folder_bytes=self.limits.folder_bytes,
            engine=engine,
            start_seconds=_START_SECONDS if self.accelerator is None else _BOOT_SECONDS[self.accelerator],
        )
        await session.open()
        return session


async def find_sandbox(
    limits: Limits, *, wanted: Level | None, allow_none: bool, python: Path | None = None, kernel: Path | None = None
) -> Sandbox:
    """Return the strongest level that passes the probe; `wanted` asks for one and no other.

    `python` is the interpreter of the environment whose packages sessions may import; default, the server's own.
    `kernel` is that of virtual machines; without one there is no level `microvm`, and without KVM it must be asked for.

    Raises:
        NoSandbox: none of the permitted levels holds here.
    """
    interpreters = await run_sync(_interpreters, python)
    rejected: dict[str, str] = {}
    for level in _LEVELS if wanted is None else (wanted,):
        if (level == "none" and not allow_none) or (level == "microvm" and wanted is None and kernel is None):
            continue
        missing = _missing(level) or (missing_for_machine(kernel) if level == "microvm" else None)
        if missing:
            rejected[level] = missing
            continue
        reasons: list[str] = []
        for accelerator, (interpreter, packages) in itertools.product(_accelerators(level, wanted), interpreters):
            candidate = Sandbox(
                level, limits, interpreter, packages, _mechanisms(level, accelerator),
                kernel=kernel, accelerator=accelerator, rejected=dict(rejected),
            )  # fmt: skip
            if level == "none":  # never probed: what the probe tries would work
                return candidate
            reason = await _weakness(candidate)
            if reason is None:
                return replace(candidate, verified=tuple(sorted(_PROBE_NAMES)))
            reasons.append(f"{reason} ({', '.join([*([accelerator] if accelerator else []), interpreter])})")
        rejected[level] = "; ".join(reasons)
        logger.warning("isolation level %s does not hold here: %s", level, rejected[level])
    tried = "; ".join(f"{level}: {reason}" for level, reason in rejected.items())
    if not sys.platform.startswith("linux"):
        raise NoSandbox(
            f"no isolation holds on {sys.platform}: every level of this computer needs Linux. "
            "Use Linux (on Windows, WSL2), or MEMENTO_CODE_ISOLATION=e2b"
        )
    if wanted is not None:
        raise NoSandbox(
            f"the isolation asked for does not hold on this machine ({tried}). {_MENDS[wanted]}, "
            "or leave MEMENTO_CODE_ISOLATION out for the strongest level that holds"
        )
    raise NoSandbox(
        f"no isolation holds on this machine ({tried}). {_MENDS['namespace']}, "
        "or set MEMENTO_CODE_ALLOW_UNSANDBOXED=true to run code with no isolation at all"
    )


def _missing(level: Level) -> str | None:
    if not sys.platform.startswith("linux"):  # level `none` as well: limits and the end of a session are Linux's
        return f"needs Linux, this is {sys.platform}"
    if level == "none":
        return None
    if level != "microvm" and landlock_abi() < 1:
        return "the kernel has no Landlock (Linux 5.13 or newer, and `landlock` among its security modules)"
    if level in _ENGINES and shutil.which(level) is None:
        return f"{level} is not installed"
    if level == "namespace" and shutil.which("bwrap") is None:
        return "bubblewrap (`bwrap`) is not installed"
    return None


def _accelerators(level: Level, wanted: Level | None) -> tuple[Accelerator | None, ...]:
    """How a virtual machine may be run, fastest first. Translation is for those who asked for a machine by name."""
    if level != "microvm":
        return (None,)
    has_kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    return (*(("kvm",) if has_kvm else ()), *(("tcg",) if wanted == "microvm" else ()))


def _mechanisms(level: Level, accelerator: Accelerator | None) -> tuple[str, ...]:
    if level == "none":
        return ("resource limits",)
    if level == "microvm":
        return (f"a virtual machine of QEMU ({accelerator})", "Landlock", "seccomp", "resource limits", "own user id")
    own_user = ("own user id",) if os.geteuid() == 0 else ()
    both = (f"Landlock ABI {landlock_abi()}", "seccomp", "resource limits", *own_user)
    if level in _ENGINES:
        return (f"a container of {level}", *both)
    return ("bubblewrap namespaces", *both) if level == "namespace" else both


def _boot_parts(*, contained: bool) -> dict[str, Any]:
    """What `_BOOT` loads: sources, and the same compiled, which a Python of this version can take as it is."""
    sources = {name: source for name, source in inside_sources().items() if contained or name != "relay"}
    compiled = {name: _compiled(name, source) for name, source in sources.items()}
    return {"sources": sources, "compiled": compiled, "magic": importlib.util.MAGIC_NUMBER.hex()}


@functools.cache
def _compiled(name: str, source: str) -> str:
    return marshal.dumps(compile(source, f"{name}.py", "exec")).hex()


def inside_sources() -> dict[str, str]:
    """The modules that are sent into every sandbox, by name."""
    files = importlib.resources.files("memento_code")
    return {name: (files / f"{name}.py").read_text(encoding="utf-8") for name in _INSIDE}


def _interpreters(wanted: Path | None) -> list[tuple[str, tuple[str, ...]]]:
    """Pythons that sessions may run on, best first, each with the folders of packages it can import.

    First `wanted` or the server's own, without the virtual environment around it. It may lie in a private home that a
    session's user cannot enter; the system's Python of the same version then takes its place, with the same packages.

    Raises:
        NoSandbox: `wanted` does not run.
    """
    real, version, path = (
        (os.path.realpath(sys.executable), list(sys.version_info[:2]), sys.path) if wanted is None else _asked(wanted)
    )
    packages = tuple(each for each in path if each.endswith(("site-packages", "dist-packages")) and os.path.isdir(each))
    system = os.path.realpath("/usr/bin/python3")
    is_same_version = system.endswith(".".join(map(str, version)))
    return [(real, packages), *([(system, packages)] if system != real and is_same_version else [])]


def _asked(python: Path) -> tuple[str, list[int], list[str]]:
    """Where an interpreter really lies, its version, and where it imports from."""
    code = "import json, os, sys; print(json.dumps([os.path.realpath(sys.executable), sys.version_info[:2], sys.path]))"
    try:
        said = subprocess.run(
            [str(python.expanduser()), "-I", "-c", code], capture_output=True, check=True, timeout=_PROBE_SECONDS
        ).stdout
        real, version, path = json.loads(said)
    except (OSError, ValueError, subprocess.SubprocessError) as exc:
        raise NoSandbox(f"MEMENTO_CODE_PYTHON {str(python)!r} is not a Python that runs ({exc})") from exc
    return str(real), list(version), [str(each) for each in path]


def _processes_of(user_id: int) -> int:
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                count += os.stat(f"/proc/{name}").st_uid == user_id
    return count


def _free_user_id() -> int:
    """A user id that nothing else has, so that limits count per session and none can signal another."""
    first = _USER_IDS[0] if _is_mapped(_USER_IDS[0] + 1_000_000) else _USER_IDS[1]
    span = 1_000_000 if first == _USER_IDS[0] else 4_000
    return first + random.SystemRandom().randrange(span)


def _is_mapped(user_id: int) -> bool:
    for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines():
        inside, _, count = (int(number) for number in line.split())
        if inside <= user_id < inside + count:
            return True
    return False


def _container_root() -> Path:
    return memento_home() / "code-container-root"


def _make_folder(user_id: int | None) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="memento-code-"))
    (folder / "tmp").mkdir(mode=0o700)
    if user_id is not None:
        for path in (folder, folder / "tmp"):
            os.chown(path, user_id, user_id)
    return folder


# --- the probe -----------------------------------------------------------------------------------------------------


async def _weakness(candidate: Sandbox) -> str | None:
    """Start a session and try inside what must fail. Returns what worked all the same, or None when all was stopped.

    Only for levels that confine: the attempts are real, and unconfined root would mount over /usr.
    """
    assert candidate.level != "none"
    try:
        with _canary() as told:
            async with await candidate.start(max_value_chars=10_000, output_bytes=10_000) as session:
                outcome = await session.run(f"_told = {told!r}\n{_probe_source()}", timeout_seconds=_PROBE_SECONDS)
    except SessionLost as exc:
        return str(exc)
    if outcome.error is not None:
        return f"the probe did not run: {outcome.error.name}: {outcome.error.message}"
    try:
        held: dict[str, bool] = json.loads(outcome.stdout.text)
        worked = sorted(name for name in _PROBE_NAMES if held.get(name) is not True)
    except (ValueError, AttributeError):
        return "the probe gave no answer"
    return f"the probe could: {', '.join(worked)}" if worked else None


@contextmanager
def _canary() -> Generator[dict[str, str | int]]:
    """What the probe goes for: a file that any user may read, a listening port, this process."""
    with (
        tempfile.TemporaryDirectory(prefix="memento-probe-") as name,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        os.chmod(name, 0o755)
        canary = Path(name, "canary")
        canary.write_text("canary", encoding="ascii")
        canary.chmod(0o644)
        yield {"canary": str(canary), "folder": name, "pid": os.getpid(), "port": listener.getsockname()[1]}


_PROBE_NAMES: frozenset[str] = frozenset(
    {
        "read a file of the owner", "write outside its folder", "list the owner's folder", "signal the server",
        "read the server's environment", "see the server's secrets", "open a TCP socket", "open a Unix socket",
        "open a netlink socket", "make a user namespace", "mount", "trace a process", "be root", "become root",
        "gain privileges", "use inherited descriptors", "run without a system call filter", "use x32 system calls",
        "change the kernel's settings", "run without a process limit", "run without a memory limit",
    }
)  # fmt: skip


def _probe_source() -> str:
    return (importlib.resources.files("memento_code") / "probe.py").read_text(encoding="utf-8")
