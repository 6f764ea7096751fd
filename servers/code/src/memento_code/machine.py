"""Level `microvm`: a virtual machine of its own around the session, by QEMU, with a kernel that the operator names.

Owns the machine: its command line, its initial file system, and what QEMU itself may do on this host. The machine has
no network and no disk; this computer's `/usr` and the chosen Python are shared with it read-only (9p), its folders are
in its own memory, and requests and events go through one port (`relay.py`). `guest.py` is its first process. What
confines the code within it is `confine.py`'s, as at every level; that it holds is for the probe to find out.

The machine is QEMU's q35: its `microvm` has too few clocks, and without KVM the kernel hung in half of the starts.

Sources: qemu(1) of QEMU 7.2; Linux Documentation/x86/boot.rst (the kernel's version in
its image) and driver-api/early-userspace/buffer-format.rst (cpio).
"""

import atexit
import functools
import importlib.resources
import json
import lzma
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from memento_code.container import EngineCommand

__all__ = ["Accelerator", "machine_command", "missing_for_machine"]

Accelerator = Literal["kvm", "tcg"]
"""The processor's own virtualisation; or QEMU's translation of every instruction: as isolated, several times slower."""
_QEMU = "qemu-system-x86_64"
_DRIVERS = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_console",
    "netfs", "fscache", "9pnet", "9pnet_virtio", "9p",
)  # fmt: skip
"""In the order in which they need one another; a kernel may have any of them built in."""
_LOADER = "/lib64/ld-linux-x86-64.so.2"
"""What every program for x86_64 names as its loader."""
_MACHINE_BYTES = 192 << 20
"""For the machine's own kernel and initial file system, beside what the session may use."""
_TRANSLATED_MEGABYTES = 64
_BECOME_QEMU = """
import ctypes, os, sys
plan = __import__('json').loads(sys.argv[1])
confine = type(sys)('confine')
exec(plan['confine'], confine.__dict__)
if plan['user_id'] is not None:
    os.setgroups(plan['groups'])
    os.setresgid(plan['user_id'], plan['user_id'], plan['user_id'])
    os.setresuid(plan['user_id'], plan['user_id'], plan['user_id'])
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() == 1:
    sys.exit('the server is gone')
confine.restrict_files(plan['read_only'], plan['read_write'])
confine._restrict_system_calls()
os.execv(plan['command'][0], plan['command'])
"""
"""Dies with the server (PR_SET_PDEATHSIG), can open what the machine is made of and nothing else (Landlock), and makes
no socket and no process of another program (seccomp: ours, and QEMU's own `-sandbox`)."""
_FILES_OF_PYTHON = """
import json, sys
exec(sys.argv[1], {'__name__': 'guest'})
mapped = {line.split(None, 5)[5].strip() for line in open('/proc/self/maps') if '.so' in line or 'ld-' in line}
sources = {module.__file__ for module in sys.modules.values() if getattr(module, '__file__', None)}
print(json.dumps([sys.executable, sorted(mapped | sources)]))
"""
"""What `guest.py` needs of the interpreter before anything is mounted, asked of the interpreter itself."""


@dataclass(frozen=True)
class _Laid:
    kernel: Path
    initial: Path


def missing_for_machine(kernel: Path | None) -> str | None:
    """Why there can be no machine here; None when it can be tried."""
    if platform.machine() != "x86_64":
        return f"only written for x86_64, this is {platform.machine()}"
    if shutil.which(_QEMU) is None:
        return f"QEMU (`{_QEMU}`) is not installed"
    if kernel is None:
        return "no kernel is named: set MEMENTO_CODE_KERNEL, as to /boot/vmlinuz-VERSION"
    if not os.access(kernel, os.R_OK):
        return f"MEMENTO_CODE_KERNEL {str(kernel)!r} is not a file that can be read"
    return None


def machine_command(
    accelerator: Accelerator,
    kernel: Path,
    *,
    inside: Sequence[str],
    variables: Mapping[str, str],
    read_only: Sequence[str],
    sizes: Mapping[str, int],
    memory_bytes: int,
    user_id: int | None,
) -> EngineCommand:
    """Return what starts a machine that runs `inside`.

    `read_only` are paths of this computer that are seen inside at the same place: folders are shared, files copied.
    `sizes` are the folders in the machine's memory with their bytes, which come on top of `memory_bytes` for processes.
    QEMU runs as `user_id` where that is not None.

    Raises:
        OSError: something of it cannot be read or run.
    """
    links = {path: os.readlink(path) for path in read_only if os.path.islink(path)}
    folders = [path for path in read_only if path not in links and os.path.isdir(path)]
    shares = [path for path in folders if not path.startswith("/etc/")]
    copied = [path for path in read_only if path not in links and path not in shares and os.path.exists(path)]
    plan = {"shares": shares, "sizes": dict(sizes), "command": list(inside), "environment": dict(variables)}
    laid = _laid_out(kernel, json.dumps(plan), tuple(sorted(links.items())), tuple(copied))
    qemu = shutil.which(_QEMU)
    assert qemu is not None
    megabytes = (memory_bytes + sum(sizes.values()) + _MACHINE_BYTES) >> 20
    is_kvm = accelerator == "kvm"
    command = [qemu, "-M", "q35,vmport=off", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    command += ["-accel", "kvm" if is_kvm else f"tcg,tb-size={_TRANSLATED_MEGABYTES}"]
    command += ["-cpu", "host" if is_kvm else "max", "-smp", "1", "-m", str(megabytes), "-nic", "none"]
    command += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    command += ["-kernel", str(laid.kernel), "-initrd", str(laid.initial)]
    command += ["-append", "quiet loglevel=0 panic=-1 random.trust_cpu=on rdinit=/init"]
    command += ["-device", "virtio-serial-pci", "-chardev", "stdio,id=port,signal=off,mux=off"]
    command += ["-device", "virtserialport,chardev=port,name=session"]
    for number, path in enumerate(shares):
        share = f"local,id=share{number},path={path},security_model=none,readonly=on,multidevs=remap"
        command += ["-fsdev", share, "-device", f"virtio-9p-pci,fsdev=share{number},mount_tag=share{number}"]
    become = {
        "confine": (importlib.resources.files("memento_code") / "confine.py").read_text(encoding="utf-8"),
        "user_id": user_id,
        "groups": _groups_for_kvm() if is_kvm else [],
        "read_only": ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/proc", str(laid.initial.parent), *shares],
        "read_write": ["/dev/null", "/dev/urandom", *(["/dev/kvm"] if is_kvm else [])],
        "command": command,
    }
    wrapper = ["/usr/bin/env", "-i", inside[0], "-I", "-S", "-B", "-c", _BECOME_QEMU, json.dumps(become)]
    return EngineCommand(wrapper, {}, takes_command=False)


def _groups_for_kvm() -> list[int]:
    kvm = os.stat("/dev/kvm")
    return [kvm.st_gid] if kvm.st_gid != 0 and kvm.st_mode & stat.S_IWGRP else []


@functools.cache
def _laid_out(kernel: Path, plan: str, links: tuple[tuple[str, str], ...], copied: tuple[str, ...]) -> _Laid:
    """The kernel and the initial file system, where QEMU's user can read them; the same for all sessions."""
    folder = Path(tempfile.mkdtemp(prefix="memento-machine-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    laid = _Laid(folder / "kernel", folder / "initial.cpio")
    drivers = _drivers(kernel)
    told: dict[str, Any] = {**json.loads(plan), "drivers": list(drivers)}
    archive = _Archive()
    for path in ("/dev", "/proc"):
        archive.add_folder(path)
    for path, target in links:
        archive.add_link(path, target)
    guest = (importlib.resources.files("memento_code") / "guest.py").read_text(encoding="utf-8")
    python, files = _files_of(told["command"][0], guest)
    for path in (*copied, *files):
        archive.add_tree(path)
    archive.add_file("/init", f"#!{python} -ISB\n{guest}".encode(), 0o755)
    archive.add_file("/plan.json", json.dumps(told).encode(), 0o644)
    for name, data in drivers.items():
        archive.add_file(f"/drivers/{name}", data, 0o644)
    laid.initial.write_bytes(archive.packed())
    laid.kernel.write_bytes(_ready_to_run(kernel))
    for path in (laid.kernel, laid.initial):
        path.chmod(0o644)
    return laid


def _files_of(python: str, guest: str) -> tuple[str, list[str]]:
    said = subprocess.run([python, "-I", "-S", "-B", "-c", _FILES_OF_PYTHON, guest], capture_output=True, check=False)
    if said.returncode != 0:
        raise OSError(f"{python} could not say what it is made of")
    executable, files = json.loads(said.stdout)
    return executable, [executable, _LOADER, *files, *(link for file in files for link in _library_names(file))]


def _library_names(file: str) -> Iterator[str]:
    """The links by which a library is looked for, as `libz.so.1` for `libz.so.1.2.13`."""
    stem, is_library, version = os.path.basename(file).partition(".so")
    if is_library and version:
        folder = os.path.dirname(file)
        for name in os.listdir(folder):
            link = os.path.join(folder, name)
            if name.startswith(f"{stem}.so") and os.path.islink(link) and os.path.realpath(link) == file:
                yield link


def _drivers(kernel: Path) -> dict[str, bytes]:
    """What `_DRIVERS` the folder of this kernel's modules has, in their order; empty where all is built in."""
    head = kernel.read_bytes()[:0x10000]
    if head[0x202:0x206] != b"HdrS":
        raise OSError(f"MEMENTO_CODE_KERNEL {str(kernel)!r} is not a kernel for x86_64 (bzImage)")
    at = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    version = head[at : head.index(b" ", at)].decode("ascii", "replace")
    beside = kernel.resolve().parent.parent
    found: dict[str, Path] = {}
    for modules in (
        beside / "lib/modules" / version,
        beside / "usr/lib/modules" / version,
        Path("/lib/modules", version),
    ):
        for path in modules.rglob("*.ko*"):
            found.setdefault(path.name.partition(".ko")[0].replace("-", "_"), path)
    drivers = [found[name] for name in _DRIVERS if name in found]
    return {path.name.removesuffix(".xz"): _unpacked(path) for path in drivers}


def _ready_to_run(kernel: Path) -> bytes:
    """The kernel unpacked, where it is xz in its image: each machine is then spared the work (and QEMU takes both)."""
    image = kernel.read_bytes()
    at = (image[0x1F1] + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    packed = image[at : at + int.from_bytes(image[0x24C:0x250], "little")]
    if not packed.startswith(b"\xfd7zXZ\0"):
        return image
    return lzma.LZMADecompressor().decompress(packed)


def _unpacked(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


class _Archive:
    """An initial file system, in the kernel's cpio format ("newc"). Everything in it is root's."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def add_folder(self, path: str) -> None:
        self._add(path, stat.S_IFDIR | 0o755, b"")

    def add_file(self, path: str, data: bytes, mode: int) -> None:
        self._add(path, stat.S_IFREG | mode, data)

    def add_link(self, path: str, target: str) -> None:
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def add_tree(self, path: str) -> None:
        """A file or folder of this computer at its own place, what it links to as well, and the way there."""
        for each in _below(path):
            real = os.path.join(os.path.realpath(os.path.dirname(each)), os.path.basename(each))
            if os.path.islink(real):
                self.add_link(real, os.readlink(real))
                if path == each and os.path.exists(real):
                    self.add_tree(os.path.realpath(real))
            elif os.path.isdir(real):
                self.add_folder(real)
            elif os.path.isfile(real) and os.access(real, os.R_OK):
                self.add_file(real, Path(real).read_bytes(), 0o755 if os.access(real, os.X_OK) else 0o644)

    def packed(self) -> bytes:
        self._parts.append(_entry("TRAILER!!!", 0, b"", 0))
        return b"".join(self._parts)

    def _add(self, path: str, mode: int, data: bytes) -> None:
        if path in self._names:
            return
        parent = os.path.dirname(path)
        if parent != "/":
            self.add_folder(parent)
        self._names.add(path)
        self._parts.append(_entry(path.lstrip("/"), mode, data, len(self._names)))


def _below(path: str) -> Iterator[str]:
    yield path
    if os.path.isdir(path) and not os.path.islink(path):
        for root, folders, names in os.walk(path):
            yield from (os.path.join(root, name) for name in sorted([*folders, *names]))


def _entry(name: str, mode: int, data: bytes, number: int) -> bytes:
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name.encode()) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
