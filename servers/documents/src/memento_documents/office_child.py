"""The last step before LibreOffice: limits and confinement for this process, which then becomes that program.

Run as `python -m memento_documents.office_child FOLDER MEMORY_BYTES CPU_SECONDS FILE_BYTES PROGRAM ARGUMENT...`.
FOLDER is the one place the program may write to. Where the kernel can do it (`confinement`), it reads nothing of a
user's but what lies there, and has no network. `office_pages` is the other end.
"""

import os
import resource
import sys
from pathlib import Path

from memento_documents.confinement import confine_files, confine_network, why_not_confined

__all__ = ["main"]

_RUNNABLE = ("/usr", "/bin", "/lib", "/lib64")
_READABLE = ("/etc/fonts", "/etc/libreoffice", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime",
             "/var/cache/fontconfig", "/var/lib/libreoffice", "/var/spool/libreoffice", "/sys/devices/system/cpu",
             "/proc/cpuinfo", "/proc/meminfo", "/dev/urandom", "/dev/random")  # fmt: skip


def main() -> None:
    """Give up rights, then become the program. Returns only by raising."""
    folder, memory_bytes, cpu_seconds, file_bytes, program, *arguments = sys.argv[1:]
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, int(file_bytes)),
        (resource.RLIMIT_AS, int(memory_bytes)),
        (resource.RLIMIT_CPU, int(cpu_seconds)),
    ):
        resource.setrlimit(what, (most, most))
    if why_not_confined() is None:
        installed = Path(program).resolve().parent.parent  # of .../libreoffice/program/soffice
        confine_files(
            _READABLE, runnable=[*_RUNNABLE, str(installed)], writable=[folder, "/dev/null"], sockets=["/tmp"]
        )
        confine_network()
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main()
