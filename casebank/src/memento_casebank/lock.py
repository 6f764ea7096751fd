"""One owner per bank: an exclusive lock on its folder, held as long as the bank is open.

Two processes on one embedded chromadb folder corrupt it without an error (guides/code_llm_scale.md C2), and
learned values live in the owner's memory. So the second process is refused, and told how to share.
"""

import json
import os
import time
from pathlib import Path

from filelock import FileLock, Timeout

from memento_casebank.records import BankError, BankLocked

__all__ = ["BankLock"]


class BankLock:
    """The lock file `bank.lock`; released by the operating system when its owner dies, however it dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / "bank.lock", thread_local=False)
        self._note = folder / "bank.owner"

    def acquire(self, timeout_seconds: float) -> None:
        """Take the lock, waiting at most `timeout_seconds` for an owner that is just leaving.

        Raises:
            BankLocked: another process holds it.
            BankError: the folder cannot be made or written to.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=timeout_seconds, poll_interval=0.02)
        except Timeout as exc:
            raise BankLocked(
                f"The case bank {self._folder} is open in another process{self._owner()}. "
                "Share it: run one server with `memento-casebank --transport streamable-http --port 8765` and point "
                "every client at http://127.0.0.1:8765/mcp, or give this one a bank of its own with "
                "MEMENTO_CASEBANK_PATH."
            ) from exc
        except OSError as exc:
            raise BankError(
                f"{self._folder} cannot hold a case bank ({exc.strerror or exc}); name a folder that can be written to "
                "with --bank or MEMENTO_CASEBANK_PATH."
            ) from exc
        self._note.write_text(json.dumps({"pid": os.getpid(), "since": time.time()}), encoding="utf-8")

    def release(self) -> None:
        self._note.unlink(missing_ok=True)
        self._lock.release()

    def _owner(self) -> str:
        try:
            return f" (pid {json.loads(self._note.read_text(encoding='utf-8'))['pid']})"
        except (OSError, ValueError, KeyError):
            return ""  # just arrived or just leaving: the message does without
