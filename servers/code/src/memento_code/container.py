"""Level `podman`: a container around the session, from a folder of this machine; no image and no registry.

Owns the command line and how the session's pipes get through it: podman hands on descriptors from 3 upwards and no
others, so they are moved there before it and back inside. Those of the output as well: what podman copies arrives late.
What confines the code within the container is `confine.py`'s, as at every level; that it holds is for the probe to find
out.

Docker has no way to hand descriptors on, and is not supported. Source: podman-run(1), 4.3.
"""

import json
import os
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["BOOT_INSIDE", "make_root", "podman_command"]

_BEFORE = """
import fcntl, json, os, sys
told, command = json.loads(sys.argv[1]), sys.argv[2:]
inside = command.index('-i') + 1
high = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 600) for each in [*command[-3:], 1, 2]]
for number, each in enumerate(high, 3):
    os.dup2(each, number)
os.closerange(8, 1 << 20)
command[inside:inside] = [f'{name}={value}' for name, value in os.environ.items()]
os.execve(told['podman'], command, told['environment'])
"""
BOOT_INSIDE = """
import fcntl, os, sys
wanted = [*(int(each) for each in sys.argv[1:4]), 1, 2]
high = [fcntl.fcntl(each, fcntl.F_DUPFD, max(wanted) + 1) for each in range(3, 8)]
for each, number in zip(high, wanted):
    os.dup2(each, number)
"""
"""Goes before what starts a session elsewhere: its descriptors then have the numbers that it is told."""
_MOUNT_POINTS = ("usr", "etc", "proc", "dev", "sys", "tmp", "run", "sandbox")


def podman_command(
    root: Path,
    *,
    read_only: Sequence[str],
    sizes: dict[str, int],
    memory_bytes: int,
    processes: int,
) -> list[str]:
    """Return the command up to the interpreter inside.

    `root` is a folder that `make_root` laid out, `read_only` are paths of this machine that are seen inside at the same
    place, `sizes` the folders in memory with their bytes.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # podman's default is more than an ordinary user may give
    command = ["podman", *_runtime(), "run", "--rm", "--log-driver=none", "--preserve-fds=5", "--network=none"]
    command += ["--read-only", "--read-only-tmpfs=false", "--ipc=private", "--uts=private", "--hostname=sandbox"]
    command += ["--security-opt=no-new-privileges", "--cap-drop=ALL"]
    if os.geteuid() == 0:
        # To take the session's user id, and for the supervisor to kill what has it
        command += ["--cap-add=SETUID", "--cap-add=SETGID", "--cap-add=KILL"]
    else:
        command += ["--userns=keep-id"]
    command += [f"--memory={memory_bytes}", f"--memory-swap={memory_bytes}", f"--pids-limit={processes}"]
    command += [f"--ulimit=nofile={most}:{most}", f"--ulimit=nproc={processes}:{processes}"]
    for path, size in sizes.items():
        if path == "/dev/shm":
            command += [f"--shm-size={size}"]
        else:
            command += [f"--tmpfs={path}:rw,exec,nosuid,nodev,size={size},mode=0777,notmpcopyup"]
    for path in read_only:
        if os.path.exists(path) and not os.path.islink(path):
            command += [f"--volume={path}:{path}:ro"]
    command += ["--rootfs", str(root), "/usr/bin/env", "-i"]  # and the session's variables, known when it starts
    for_podman = {
        name: os.environ[name] for name in ("HOME", "XDG_RUNTIME_DIR", "CONTAINERS_CONF") if name in os.environ
    }
    for_podman["PATH"] = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    told = {"podman": shutil.which("podman"), "environment": for_podman}
    return [sys.executable, "-I", "-S", "-c", _BEFORE, json.dumps(told), *command]


def make_root(folder: Path) -> None:
    """Lay out an empty system in `folder`: mount points, and the links that lead into /usr."""
    for name in _MOUNT_POINTS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "sandbox"):
        (folder / name).chmod(0o777)  # runc gives what is mounted there the mode of what is under it
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}") and not (folder / name).is_symlink():
            (folder / name).symlink_to(os.readlink(f"/{name}"))


def _runtime() -> list[str]:
    """crun, the default, refuses to work where version 1 and 2 of cgroups are mixed; runc does not."""
    is_mixed = not os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    return ["--runtime=runc"] if is_mixed and shutil.which("runc", path="/usr/bin:/usr/sbin:/usr/local/sbin") else []
