"""CPU time of processes and what they started, read from /proc."""

import os
from pathlib import Path

__all__ = ["children", "tree_cpu"]


def children(pid: int) -> set[int]:
    """The processes that `pid`'s threads started and that still live."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found |= {int(child) for child in (task / "children").read_text(encoding="ascii").split()}
    return found


def tree_cpu(pid: int) -> float:
    """Seconds of a process, its living descendants, and those it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(tree_cpu(child) for child in children(pid))
