"""The installed command `memento` as a process, with a home of its own and no key."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memento", "installed"]


def installed(name: str) -> str:
    """The path of a console script beside this interpreter."""
    return str(Path(sys.executable).parent / name)


@dataclass(frozen=True)
class Memento:
    home: Path
    folder: Path
    """Where the command is run."""

    def environ(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MEMENTO_", "OPENAI_"))}
        return {**kept, "MEMENTO_HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "100", **more}

    def run(
        self, *args: str, timeout_seconds: float = 120, environ: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [installed("memento"), *args],
            cwd=self.folder,
            env=self.environ(**(environ or {})),
            capture_output=True,
            encoding="utf-8",
            timeout=timeout_seconds,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def start(self, *args: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [installed("memento"), *args],
            cwd=self.folder,
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
