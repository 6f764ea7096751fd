"""memento_code.machine: what a virtual machine is made of, and one that runs where there is QEMU and a kernel.

A real one needs `qemu-system-x86` of apt and a kernel with drivers: MEMENTO_CODE_KERNEL=/boot/vmlinuz-… pytest …
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from memento_code.container import EngineCommand
from memento_code.contract import check
from memento_code.machine import machine_command, missing_for_machine
from memento_code.sandbox import Limits, NoSandbox, find_sandbox

pytestmark = pytest.mark.anyio

KERNEL = os.environ.get("MEMENTO_CODE_KERNEL")  # taken before the tests' own environment begins
LIMITS = Limits(1 << 30, 3 << 29, 48, 256, 64 << 20, 256 << 20, 600)
VERSION = "6.1.0-made-for-a-test"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What looks like an image of a kernel, with modules beside it; and a program that is there for QEMU."""
    image = bytearray(0x4000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x3000 - 0x200).to_bytes(2, "little")
    image[0x3000 : 0x3000 + len(VERSION) + 1] = VERSION.encode() + b" "
    file = tmp_path / "boot" / "vmlinuz"
    file.parent.mkdir()
    file.write_bytes(image)
    modules = tmp_path / "lib" / "modules" / VERSION / "kernel"
    modules.mkdir(parents=True)
    for name in ("virtio", "virtio_ring", "9p", "e1000"):
        (modules / f"{name}.ko").write_bytes(name.encode())
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return file


def command(kernel: Path, shared: Path, *, user_id: int | None = None) -> EngineCommand:
    return machine_command(
        "tcg",
        kernel,
        inside=["/usr/bin/python3", "-c", "pass"],
        variables={"HOME": "/sandbox"},
        read_only=["/usr", "/bin", str(shared)],
        sizes={"/sandbox": 256 << 20, "/tmp": 256 << 20},
        memory_bytes=1 << 30,
        user_id=user_id,
    )


@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="a machine's Python is the system's here")
def test_the_machine_has_no_network_its_shares_are_read_only_and_qemu_is_confined(kernel: Path, tmp_path: Path) -> None:
    started = command(kernel, tmp_path, user_id=600_123)
    assert not started.takes_command
    assert started.environment == {}
    told = json.loads(started.command[-1])
    line = " ".join(told["command"])
    assert "-nic none" in line
    assert "-nodefaults" in line
    assert "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny" in line
    assert [each for each in told["command"] if "security_model" in each] == [
        f"local,id=share{number},path={path},security_model=none,readonly=on,multidevs=remap"
        for number, path in enumerate(["/usr", str(tmp_path)])
    ]
    megabytes = int(told["command"][told["command"].index("-m") + 1])
    assert megabytes == 1024 + 512 + 192
    assert told["user_id"] == 600_123
    assert set(told["read_write"]) == {"/dev/null", "/dev/urandom"}


@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="a machine's Python is the system's here")
def test_the_first_file_system_has_drivers_in_their_order_and_python(kernel: Path, tmp_path: Path) -> None:
    told = json.loads(command(kernel, tmp_path).command[-1])
    files = unpacked(Path(told["command"][told["command"].index("-initrd") + 1]).read_bytes())
    plan = json.loads(files["plan.json"])
    assert plan["drivers"] == ["virtio_ring.ko", "virtio.ko", "9p.ko"]
    assert files["drivers/virtio_ring.ko"] == b"virtio_ring"
    assert plan["shares"] == ["/usr", str(tmp_path)]
    interpreter = files["init"].splitlines()[0].removeprefix(b"#!").removesuffix(b" -ISB").decode()
    assert files[os.path.realpath(interpreter).lstrip("/")].startswith(b"\x7fELF")


def unpacked(archive: bytes) -> dict[str, bytes]:
    """The entries of a cpio archive, by name."""
    entries: dict[str, bytes] = {}
    at = 0
    while archive[at : at + 6] == b"070701":
        size, name_size = int(archive[at + 54 : at + 62], 16), int(archive[at + 94 : at + 102], 16)
        name = archive[at + 110 : at + 109 + name_size].decode()
        data = at + 110 + name_size + -(110 + name_size) % 4
        entries[name] = archive[data : data + size]
        at = data + size + -size % 4
    return entries


def test_what_is_missing_is_named(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_for_machine(kernel) is None
    assert "MEMENTO_CODE_KERNEL" in str(missing_for_machine(None))
    assert "is not a file that can be read" in str(missing_for_machine(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert missing_for_machine(kernel) == "QEMU (`qemu-system-x86_64`) is not installed"


def test_what_is_no_kernel_is_a_reason(kernel: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(0x4000))
    with pytest.raises(OSError, match=r"other' is not a kernel for x86_64"):
        command(other, tmp_path)


async def test_without_a_kernel_the_level_is_not_tried_unless_asked_for() -> None:
    assert "microvm" not in (await find_sandbox(LIMITS, wanted=None, allow_none=True)).rejected
    with pytest.raises(NoSandbox, match="MEMENTO_CODE_KERNEL"):
        await find_sandbox(LIMITS, wanted="microvm", allow_none=False)


@pytest.mark.slow
@pytest.mark.skipif(
    KERNEL is None or shutil.which("qemu-system-x86_64") is None, reason="needs QEMU and MEMENTO_CODE_KERNEL"
)
@pytest.mark.parametrize("name", ["variables are kept", "shell and Python share a folder", "bytes go in and come back"])
async def test_a_machine_passes_the_probe_and_keeps_the_contract(name: str) -> None:
    assert KERNEL is not None
    sandbox = await find_sandbox(LIMITS, wanted="microvm", allow_none=False, kernel=Path(KERNEL))
    assert await check(sandbox, only=name) == []
