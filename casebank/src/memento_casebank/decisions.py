"""The numbers of a decision as one binary column: every candidate with its features, scores and propensities.

Owns the packing and unpacking; 1e5 decisions of 48 candidates each are read back in seconds, not minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memento_casebank.policies.base import CANDIDATE_DTYPE, Choice

__all__ = ["DecisionNumbers", "pack", "packed_size", "unpack", "unpack_table"]

_SCORES = ("value", "value_sd", "sampled", "lead_probability", "inclusion")


@dataclass(frozen=True)
class DecisionNumbers:
    """One row per candidate, in the order the policy saw them."""

    seqs: NDArray[np.int64]
    """(n,) place of each candidate case in the log."""
    table: NDArray[np.void]
    """(n,) of `CANDIDATE_DTYPE`."""
    value: NDArray[np.float64]
    value_sd: NDArray[np.float64]
    sampled: NDArray[np.float64]
    lead_probability: NDArray[np.float64]
    inclusion: NDArray[np.float64]


def pack(seqs: NDArray[np.int64], table: NDArray[np.void], choice: Choice) -> bytes:
    scores: Sequence[NDArray[np.float64]] = [np.asarray(getattr(choice, name), np.float64) for name in _SCORES]
    return b"".join([seqs.tobytes(), table.tobytes(), *(column.tobytes() for column in scores)])


def packed_size(n: int) -> int:
    """Bytes that `pack` makes of `n` candidates."""
    return n * (8 + CANDIDATE_DTYPE.itemsize + 8 * len(_SCORES))


def unpack(packed: bytes, n: int) -> DecisionNumbers:
    """Read back what `pack` wrote about `n` candidates."""
    seqs = np.frombuffer(packed, np.int64, n)
    at = seqs.nbytes
    table = unpack_table(packed, n)
    at += table.nbytes
    columns: list[NDArray[np.float64]] = []
    for _ in _SCORES:
        columns.append(np.frombuffer(packed, np.float64, n, at))
        at += 8 * n
    return DecisionNumbers(seqs, table, *columns)


def unpack_table(packed: bytes, n: int) -> NDArray[np.void]:
    """Read back only the features, (n,) of `CANDIDATE_DTYPE`: all that learning needs."""
    return np.frombuffer(packed, CANDIDATE_DTYPE, n, n * np.dtype(np.int64).itemsize)
