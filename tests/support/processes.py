"""Which processes of this machine run what, while others come and go."""

from pathlib import Path

__all__ = ["running_with"]


def running_with(word: str) -> list[int]:
    """Return the process ids whose command line holds `word`. Choose one that no other test's processes have."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:  # it ended between the listing and the reading
            continue
        if word.encode() in command:
            found.append(int(entry.name))
    return found
