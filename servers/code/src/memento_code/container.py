"""Levels `podman` and `docker`: a container around the session, of an empty folder of this machine; no registry.

Owns the command line of the engine, which both share. How requests and events get through the container's standard
streams is `relay.py`'s. What confines the code within the container is `confine.py`'s, as at every level; that it holds
is for the probe to find out.

Sources: podman-run(1) of 4.3, `docker run` of 20.10 and 28.
"""

import functools
import hashlib
import io
import os
import resource
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Engine", "EngineCommand", "docker_image", "engine_command", "make_root"]

Engine = Literal["podman", "docker"]
_MOUNT_POINTS = ("usr", "etc", "proc", "dev", "sys", "tmp", "run", "sandbox")
_FOR_THE_ENGINE = (
    "HOME", "XDG_RUNTIME_DIR", "CONTAINERS_CONF",
    "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY",
)  # fmt: skip
_IMPORT_SECONDS = 30.0


@dataclass(frozen=True)
class EngineCommand:
    """What starts a container: up to the variables of the session, which the interpreter and its arguments follow."""

    command: list[str]
    environment: dict[str, str]
    """Of the engine's client; the session sees none of it."""
    takes_command: bool = True
    """Whether the session's variables and command follow; else what is started knows them."""


def engine_command(
    engine: Engine,
    root: Path,
    *,
    read_only: Sequence[str],
    sizes: dict[str, int],
    memory_bytes: int,
    processes: int,
) -> EngineCommand:
    """Return the command of `engine`.

    `root` is a folder that `make_root` laid out, `read_only` are paths of this machine that are seen inside at the same
    place, `sizes` the folders in memory with their bytes.

    Raises:
        OSError: docker did not take the folder as an image.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # podman's default is more than an ordinary user may give
    is_podman = engine == "podman"
    command = [engine, *(_runtime() if is_podman else []), "run", "--rm", "--interactive", "--log-driver=none"]
    command += ["--network=none", "--read-only", "--ipc=private", "--hostname=sandbox"]
    command += ["--security-opt=no-new-privileges", "--cap-drop=ALL"]
    if os.geteuid() == 0:
        # To take the session's user id, and for the supervisor to kill what has it
        command += ["--cap-add=SETUID", "--cap-add=SETGID", "--cap-add=KILL"]
    else:
        command += ["--userns=keep-id"] if is_podman else [f"--user={os.getuid()}:{os.getgid()}"]
    command += [f"--memory={memory_bytes}", f"--memory-swap={memory_bytes}", f"--pids-limit={processes}"]
    command += [f"--ulimit=nofile={most}:{most}", f"--ulimit=nproc={processes}:{processes}"]
    for path, size in sizes.items():
        if path == "/dev/shm":
            command += [f"--shm-size={size}"]
        else:
            options = f"rw,exec,nosuid,nodev,size={size},mode=0777" + (",notmpcopyup" if is_podman else "")
            command += [f"--tmpfs={path}:{options}"]
    for path in read_only:
        if os.path.exists(path) and not os.path.islink(path):
            command += [f"--volume={path}:{path}:ro"]
    if is_podman:
        command += ["--read-only-tmpfs=false", "--uts=private", "--rootfs", str(root)]
    else:
        command += ["--pull=never", docker_image(root)]
    return EngineCommand([*command, "/usr/bin/env", "-i"], _environment())


def make_root(folder: Path) -> None:
    """Lay out an empty system in `folder`: mount points, and the links that lead into /usr."""
    for name in _MOUNT_POINTS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "sandbox"):
        (folder / name).chmod(0o777)  # runc gives what is mounted there the mode of what is under it
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}") and not (folder / name).is_symlink():
            (folder / name).symlink_to(os.readlink(f"/{name}"))


@functools.cache
def docker_image(root: Path) -> str:
    """The name of the image that is `root`: docker starts no container from a folder.

    Raises:
        OSError: docker did not take it.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(root.iterdir()):
            entry = archive.gettarinfo(path, path.name)
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            archive.addfile(entry)
    name = f"memento-code-root:{hashlib.sha256(packed.getvalue()).hexdigest()[:16]}"
    is_there = _docker("image", "inspect", name)
    if is_there.returncode != 0:
        taken = _docker("import", "-", name, packed=packed.getvalue())
        if taken.returncode != 0:
            said = taken.stderr.decode(errors="replace").strip().splitlines()
            raise OSError(f"docker import failed: {said[-1] if said else 'it did not say why'}")
    return name


def _docker(*arguments: str, packed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["docker", *arguments],
            input=packed, capture_output=True, check=False, env=_environment(), timeout=_IMPORT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise OSError(f"docker {arguments[0]} gave no answer in {_IMPORT_SECONDS:g} s") from exc


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _FOR_THE_ENGINE if name in os.environ}
    return {**kept, "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"}


def _runtime() -> list[str]:
    """crun, the default, refuses to work where version 1 and 2 of cgroups are mixed; runc does not."""
    is_mixed = not os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    return ["--runtime=runc"] if is_mixed and shutil.which("runc", path="/usr/bin:/usr/sbin:/usr/local/sbin") else []
