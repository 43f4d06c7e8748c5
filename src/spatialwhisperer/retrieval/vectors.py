"""Embeddings of queries or of a bank, with their lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._compute.blocks import blocks, each

if TYPE_CHECKING:
    from collections.abc import Iterator

ELEMENTS = 2_000_000
"""Largest number of float64 values in a working array (more where a single row has more)."""


class Vectors:
    """Embeddings of queries or of the bank.

    Attributes
    ----------
    vectors
        Embeddings, float32 or float64 of shape (n, d); a copy where they are of another type.
    length
        Length of each row, float64, shape (n,).
    rows
        Rows with a direction: finite, and of positive length.
    group
        Code of the group of each row, shape (n,), or ``None``.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors = _floats(vectors)
        from spatialwhisperer.retrieval.kernels import lengths

        self.length = np.zeros(len(vectors))
        each(lambda rows: lengths(vectors[rows], self.length[rows]), blocks(*vectors.shape))
        self.rows = np.flatnonzero(np.isfinite(self.length) & (self.length > 0))
        self.group: np.ndarray | None = None

    def unit(self, rows: np.ndarray) -> np.ndarray:
        """Some rows scaled to unit length, float32."""
        kind = np.float32 if self.vectors.dtype == np.float32 else np.float64
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
            # a view, where the rows ascend without a gap
            part, length = (x[rows[0] : rows[-1] + 1] for x in (self.vectors, self.length))
            return (part * (1 / length[:, None]).astype(kind)).astype(np.float32, copy=False)
        return (self.vectors[rows] * (1 / self.length[rows, None]).astype(kind)).astype(np.float32, copy=False)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """The rows with a direction, in blocks of a size."""
        for s in range(0, len(self.rows), size):
            yield self.rows[s : s + size]


def _floats(x: np.ndarray) -> np.ndarray:
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32 if x.dtype == np.float16 else np.float64)
