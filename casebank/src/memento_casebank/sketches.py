"""Bits that stand in for vectors: which few of very many rows are worth an exact look.

A sketch is the signs of a vector's coordinates after a random rotation, 768 bits whatever the dimension. The share of
bits in which two sketches differ grows with the angle between the vectors (Charikar 2002, random hyperplanes), so
counting differing bits ranks rows nearly as their cosines do, from 96 bytes a row where the vector itself has
thousands. The rotation is a random change of signs followed by a Walsh-Hadamard transform (Ailon & Chazelle 2009), as
two products with small matrices; vectors of fewer dimensions than bits are rotated several times.

Owns the bits. It neither keeps the vectors nor ranks: whoever asks looks at the returned rows exactly.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["BITS", "Sketches"]

Floats = NDArray[np.float32]

BITS = 768
_WORDS = BITS // 64
_BATCH_ROWS = 6_000
"""Rows rotated or compared at a time: fewer cost more calls, more do not stay in the processor's caches."""

_SURE = 6.0
"""Standard deviations of the number of differing bits that `within` allows for."""


class Sketches:
    """Sketches of the rows of a growing matrix that are made when they are first asked for."""

    def __init__(self, dim: int) -> None:
        dice = np.random.default_rng(dim)  # part of no record: only which rows are looked at depends on it
        log2 = max(dim - 1, 1).bit_length()  # dimensions are padded to a power of two
        self._left, self._right = _hadamard(log2 // 2), _hadamard(log2 - log2 // 2)
        self._signs = dice.choice(np.array([-1, 1], np.float32), (-(-BITS // 2**log2), dim))  # a row per rotation
        self._bits = np.zeros((_WORDS, 0), np.uint64)  # a row's bits stand in a column: words are compared one by one
        self._made = 0

    def closest(
        self, vectors: Floats, vector: Floats, count: int, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.intp]:
        """Rows of `vectors` (N, D) whose sketches are closest to that of `vector` (D,), in the order of the rows.

        At least `count` (fewer only where fewer are allowed), and all that are as close as the last of them.

        Args:
            vectors: the same matrix each time, with rows added at its end.
            vector: what to be close to.
            count: how many rows, at least 1.
            allowed: (N,) which rows may be returned; None: all.
        """
        differing = self._differing(vectors, vector)
        if allowed is not None:
            differing[~allowed] = BITS + 1
        count = min(count, len(vectors))
        rows_within = np.bincount(differing).cumsum()  # a third of the time of a partition: there are few distances
        furthest = min(int(rows_within.searchsorted(count)), BITS)
        return np.flatnonzero(differing <= furthest)

    def within(self, vectors: Floats, vector: Floats, cosine: float) -> NDArray[np.intp]:
        """Rows whose cosine to `vector` may be `cosine` or more, in their order; a nearer one is missed once in 10⁹."""
        angle = math.acos(min(max(cosine, -1.0), 1.0))  # a setting above 1 asks for none, and the exact look finds none
        share = angle / math.pi  # of the bits differs, in the mean
        most = BITS * share + _SURE * math.sqrt(BITS * share * (1.0 - share))
        return np.flatnonzero(self._differing(vectors, vector) <= most)

    def _differing(self, vectors: Floats, vector: Floats) -> NDArray[np.uint16]:
        """(N,) how many bits of each row's sketch differ from that of `vector`."""
        self._catch_up(vectors)
        wanted = self._sketch(vector[np.newaxis])[:, 0]
        differing = np.empty(len(vectors), np.uint16)
        for start in range(0, len(vectors), _BATCH_ROWS):
            part = slice(start, min(start + _BATCH_ROWS, len(vectors)))
            bits = np.bitwise_count(self._bits[:, part] ^ wanted[:, np.newaxis])
            bits.sum(axis=0, out=differing[part])
        return differing

    def _catch_up(self, vectors: Floats) -> None:
        """Make the sketches of the rows that were added since."""
        if len(vectors) > self._bits.shape[1]:
            longer = np.zeros((_WORDS, max(2 * self._made, len(vectors))), np.uint64)
            longer[:, : self._made] = self._bits[:, : self._made]
            self._bits = longer
        for start in range(self._made, len(vectors), _BATCH_ROWS):
            part = slice(start, min(start + _BATCH_ROWS, len(vectors)))
            self._bits[:, part] = self._sketch(vectors[part])
        self._made = len(vectors)

    def _sketch(self, vectors: Floats) -> NDArray[np.uint64]:
        """(words, N) bits of (N, D) vectors."""
        signed = vectors[:, np.newaxis] * self._signs  # (N, rotations, D)
        left, right = len(self._left), len(self._right)
        if signed.shape[2] < left * right:
            signed = np.pad(signed, ((0, 0), (0, 0), (0, left * right - signed.shape[2])))
        turned = self._left @ (signed.reshape(-1, left, right) @ self._right)
        bits = turned.reshape(len(vectors), -1)[:, :BITS] > 0
        return np.ascontiguousarray(np.packbits(bits, axis=1).view(np.uint64).T)


def _hadamard(log2: int) -> Floats:
    """(2^n, 2^n) signs with orthogonal rows."""
    matrix = np.ones((1, 1), np.float32)
    for _ in range(log2):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix
