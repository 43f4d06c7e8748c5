"""The best genes of each row in one pass over the stored values. Imports numba: import it inside functions."""

from __future__ import annotations

import numpy as np

from spatialwhisperer._compute.kernels import kernel

_SMALL = 4095
"""Largest count that is sorted by counting."""


@kernel(nogil=True)
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
    top = best.shape[1]
    value, place = np.empty(top, np.float64), np.zeros(_SMALL + 1, np.int64)
    for i in range(len(best)):
        valid, highest, used = True, 0.0, 0
        for j in range(indptr[i], indptr[i + 1]):
            v = np.float64(data[j])
            # infinity minus itself is NaN, which equals nothing
            valid &= (v >= 0) & (v == np.floor(v)) & (v - v == 0)
            if usable[indices[j]] and v > 0:
                highest = max(highest, v)
                used += 1
        if not valid:
            length[i] = -1
            continue
        row = slice(indptr[i], indptr[i + 1])
        length[i] = min(used, top)
        if highest <= _SMALL:
            _by_counting(data[row], indices[row], usable, int(highest), place, best[i])
        else:
            _by_insertion(data[row], indices[row], usable, value, best[i])


@kernel(nogil=True)
def _by_counting(data, indices, usable, highest, place, best):
    """A counting sort, whose time does not depend on how many genes are asked for; ``place`` is zero before and after."""
    for j in range(len(data)):
        if usable[indices[j]]:
            place[int(data[j])] += 1
    before, least = 0, highest + 1
    while least > 1 and before < len(best):
        least -= 1
        here = place[least]
        place[least] = before
        before += here
    for j in range(len(data)):
        v = int(data[j])
        # most counts are too small
        if v >= least and usable[indices[j]]:
            if place[v] < len(best):
                best[place[v]] = indices[j]
            place[v] += 1
    place[: highest + 1] = 0


@kernel(nogil=True)
def _by_insertion(data, indices, usable, value, best):
    k, worst, top = 0, 0.0, len(best)
    for j in range(len(data)):
        v = np.float64(data[j])
        # columns ascend within a row, so an equal count that comes later ranks lower
        if v <= worst or not usable[indices[j]]:
            continue
        place = min(k, top - 1)
        while place > 0 and value[place - 1] < v:
            value[place], best[place] = value[place - 1], best[place - 1]
            place -= 1
        value[place], best[place] = v, indices[j]
        k = min(k + 1, top)
        if k == top:
            worst = value[top - 1]


@kernel(nogil=True)
def write_words(best, length, letters, start, out, end):
    """Write the words of each row with a space after each.

    Parameters
    ----------
    best, length
        Words of each row (n, top), and how many it has (n,).
    letters, start
        Bytes of all words one after the other, each with its space, and where each starts (words + 1,).
    out, end
        Where to write the bytes, and where each row ends (n,).
    """
    at = 0
    for i in range(len(best)):
        for k in range(length[i]):
            for j in range(start[best[i, k]], start[best[i, k] + 1]):
                out[at] = letters[j]
                at += 1
        end[i] = at
