"""Search on a CPU: rough cosines in bfloat16 where the processor multiplies them fast, and float32 for the few that may matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._compute.blocks import blocks, each
from spatialwhisperer._compute.precision import processor_has_bfloat16

if TYPE_CHECKING:
    from spatialwhisperer.retrieval.vectors import Vectors

MANY = 0.04
"""Fraction of rough cosines to be computed again above which a product in float32 takes less time."""

_ROWS_OF_EACH = 64
"""Rows of the bank that are compared in float32, for each key to find, before a rough cosine can tell much."""

_QUERIES = 64

_SUM = np.float32(2e-5)
"""Above the rounding of a sum in float32 of products of unit vectors."""


class Sieve:
    """The n best keys of some queries, as heaps whose first entry is the smallest.

    Parameters
    ----------
    asks, rows
        Queries, and which of them.
    bank
        Keys.
    n
        Number of keys to find.
    rough
        Whether to look at cosines in bfloat16 first; ``None`` asks the processor. The result is the same.
    """

    def __init__(self, asks: Vectors, rows: np.ndarray, bank: Vectors, n: int, *, rough: bool | None = None) -> None:
        self.bank, self.unit = bank, np.ascontiguousarray(asks.unit(rows))
        self.best = np.full((len(rows), n), -np.inf, np.float32)
        self.index = np.zeros((len(rows), n), np.int64)
        self.grouped = asks.group is not None and bank.group is not None
        self.group = asks.group[rows] if asks.group is not None and self.grouped else np.zeros(0, np.int64)
        self.rough = processor_has_bfloat16() if rough is None else rough

    def search(self, block_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the bank, in any order, and which of them the query may use; shapes (q, n)."""
        known = 0
        for start in range(0, len(self.bank.rows), block_rows):
            rows = self.bank.rows[start : start + block_rows]
            self._add(rows, rough=self.rough and known >= _ROWS_OF_EACH * self.best.shape[1])
            known += len(rows)
        return self.index, self.best > -np.inf

    def _add(self, rows: np.ndarray, *, rough: bool) -> None:
        keys = self.bank.unit(rows)
        group = self.bank.group[rows] if self.bank.group is not None and self.grouped else self.group[:0]
        if not (rough and self._add_rough(keys, rows, group)):
            self._add_exact(keys, rows, group)

    def _add_exact(self, keys: np.ndarray, rows: np.ndarray, group: np.ndarray) -> None:
        from spatialwhisperer.retrieval.kernels import sift_exact

        # NumPy's BLAS is fast on more kinds of processors than torch's
        cosine = self.unit @ keys.T
        each(
            lambda at: sift_exact(cosine[at], rows, self.group[at], group, self.best[at], self.index[at]),
            blocks(len(self.unit), 1, _QUERIES),
        )

    def _add_rough(self, keys: np.ndarray, rows: np.ndarray, group: np.ndarray) -> bool:
        """Whether rough cosines tell enough apart; nothing is added where they do not, and they are not tried again."""
        import torch

        from spatialwhisperer.retrieval.kernels import count_above, sift

        halves = [torch.from_numpy(x).bfloat16() for x in (self.unit, keys)]
        rough = (halves[0] @ halves[1].T).view(torch.int16).numpy()
        # |ab − cd| ≤ |a − c||b| + |c||b − d|, and unit vectors are at most 1.01 long in bfloat16
        own, other = (_rounding(x, half) for x, half in zip((self.unit, keys), halves, strict=True))
        slack = own + np.float32(1.01) * other.max() + _SUM
        least = self.best[:, 0] - slack
        threshold = _ordered_below(least - np.abs(least) * np.float32(2.0**-8))
        parts = blocks(len(self.unit), 1, _QUERIES)
        above = sum(each(lambda at: count_above(rough[at], threshold[at]), parts))
        if above > MANY * rough.size:
            self.rough = False
            return False

        def add(at: slice) -> None:
            heaps = self.best[at], self.index[at]
            sift(rough[at], threshold[at], slack[at], self.unit[at], keys, rows, self.group[at], group, *heaps)

        each(add, parts)
        return True


def _rounding(x: np.ndarray, half: Any) -> np.ndarray:
    """How far each row (n, d) is from its bfloat16, float32 (n,)."""
    import torch

    from spatialwhisperer.retrieval.kernels import rounding

    bits, out = half.view(torch.int16).numpy(), np.empty(len(x), np.float32)
    each(lambda at: rounding(x[at], bits[at], out[at]), blocks(*x.shape))
    return out


def _ordered_below(values: np.ndarray) -> np.ndarray:
    """Integers in the order of the bfloat16 numbers, of the next one that is not above each value."""
    bits = (values.astype(np.float32).view(np.int32) >> 16).astype(np.int16)
    # cutting off bits brings a number nearer to zero, which is up for a negative one
    return (bits ^ ((bits >> 15) & 0x7FFF)) - (bits < 0)
