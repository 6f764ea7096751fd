"""Numbers kept per case, cluster or plan: a table that grows by key and looks many keys up at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memento_casebank.policies.base import Floats

__all__ = ["SlotTable", "UnitClusters"]


class SlotTable:
    """Columns of floats addressed by integer keys. Row 0 is the prior: what an unseen key is worth."""

    def __init__(self, prior: Sequence[float]) -> None:
        self._row_of: dict[int, int] = {}
        self._data: Floats = np.tile(np.asarray(prior, np.float64), (64, 1))

    def __len__(self) -> int:
        return len(self._row_of)

    def look(self, keys: Sequence[int]) -> Floats:
        """Values (len(keys), columns); unseen keys give the prior."""
        row_of = self._row_of
        return self._data[[row_of.get(key, 0) for key in keys]]

    def rows(self, keys: Sequence[int]) -> NDArray[np.intp]:
        """Rows of `data` for these keys, made from the prior where they are new."""
        return np.asarray([self._row(key) for key in keys], dtype=np.intp)

    @property
    def data(self) -> Floats:
        """(rows, columns), to be changed in place at what `rows` returned. It moves when the table grows."""
        return self._data

    def _row(self, key: int) -> int:
        row = self._row_of.get(key)
        if row is None:
            row = len(self._row_of) + 1
            self._row_of[key] = row
            if row == len(self._data):
                self._data = np.concatenate([self._data, np.repeat(self._data[:1], row, axis=0)])
        return row

    def state_dict(self) -> dict[str, Any]:
        used = len(self._row_of) + 1
        return {"keys": np.fromiter(self._row_of, np.int64, used - 1), "data": self._data[:used].copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        keys: NDArray[np.int64] = state["keys"]
        self._row_of = {int(key): row for row, key in enumerate(keys, start=1)}
        data: Floats = np.asarray(state["data"], np.float64)
        spare = max(64, 2 * len(data)) - len(data)
        self._data = np.concatenate([data, np.repeat(data[:1], spare, axis=0)])


class UnitClusters:
    """Online spherical k-means: a coarse answer to "what kind of question is this?".

    The first questions that are far from every centroid become centroids themselves until there are `count`; after
    that a centroid moves to a new member by 1/n. Only `learn` may call `assign`, so that the clusters are a function
    of the log; `nearest` just looks.
    """

    _NEW_BELOW = 0.5  # cosine: a question less similar than this to every centroid founds a cluster while there is room

    def __init__(self, count: int) -> None:
        self._count = count
        self._centroids: Floats | None = None
        self._sizes: Floats = np.zeros(0)

    def nearest(self, vector: NDArray[np.floating[Any]]) -> int:
        """Index of the closest centroid, or 0 when there is none yet."""
        if self._centroids is None or not len(self._centroids):
            return 0
        return int(np.argmax(self._centroids @ vector))

    def assign(self, vector: NDArray[np.floating[Any]]) -> int:
        """Put a question in its cluster, moving the centroid; returns the index."""
        unit = vector.astype(np.float64)
        if self._centroids is None:
            self._centroids = np.zeros((0, len(unit)))
        similarity = self._centroids @ unit
        if len(similarity) < self._count and (not len(similarity) or similarity.max() < self._NEW_BELOW):
            self._centroids = np.vstack([self._centroids, unit])
            self._sizes = np.append(self._sizes, 1.0)
            return len(self._sizes) - 1
        index = int(np.argmax(similarity))
        self._sizes[index] += 1.0
        moved = self._centroids[index] + (unit - self._centroids[index]) / self._sizes[index]
        norm = math.sqrt(float(moved @ moved))
        self._centroids[index] = moved / norm if norm > 0 else moved
        return index

    def state_dict(self) -> dict[str, Any]:
        centroids = self._centroids
        return {"centroids": None if centroids is None else centroids.copy(), "sizes": self._sizes.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        centroids = state["centroids"]
        self._centroids = None if centroids is None else np.array(centroids, np.float64)
        self._sizes = np.array(state["sizes"], np.float64)
