"""The best genes of each row in one pass over the stored values. Imports numba: import it inside functions."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def best_genes(
    data: np.ndarray,
    indices: np.ndarray,
    indptr: np.ndarray,
    usable: np.ndarray,
    best: np.ndarray,
    length: np.ndarray,
) -> None:
    """Write the genes of each row, highest count first and ties in gene order, into ``best`` (n, top).

    The matrix is a CSR in canonical form. ``length`` (n,) gets how many genes each row has, and -1 where a stored value is not a count.
    """
    n, top = best.shape
    value = np.empty(top, np.float64)
    for i in range(n):
        k, worst, valid = 0, 0.0, True
        for j in range(indptr[i], indptr[i + 1]):
            v = np.float64(data[j])
            # infinity minus itself is NaN, which equals nothing
            valid &= (v >= 0) & (v == np.floor(v)) & (v - v == 0)
            # columns ascend within a row, so an equal count that comes later ranks lower
            if v <= worst or not usable[indices[j]]:
                continue
            place = min(k, top - 1)
            while place > 0 and value[place - 1] < v:
                value[place], best[i, place] = value[place - 1], best[i, place - 1]
                place -= 1
            value[place], best[i, place] = v, indices[j]
            k = min(k + 1, top)
            if k == top:
                worst = value[top - 1]
        length[i] = k if valid else -1
