"""Rank-value tokens of the rows of a sparse matrix. Imports numba: import it inside functions."""

from __future__ import annotations

import numpy as np
from numba import njit

_BUCKETS = 4096
_LONG = 48


@njit(cache=True, nogil=True, error_model="numpy")
def rank_tokens(
    data: np.ndarray,
    indices: np.ndarray,
    indptr: np.ndarray,
    token: np.ndarray,
    median: np.ndarray,
    total: np.ndarray,
    most: int,
    out: np.ndarray,
) -> np.ndarray:
    """Write the tokens of each row, highest value first and ties in the order of the columns, into ``out`` (n, most).

    The value of a count is ``count / total / median``, in units of 10,000. The values of a row go into buckets by their leading
    bits, which order positive numbers, and each bucket is sorted on its own.

    Parameters
    ----------
    data, indices, indptr
        Counts, CSR in canonical form.
    token, median
        Of each column; a column whose token is negative is left out.
    total
        Total of each row.
    most
        Longest row of tokens.
    out
        Where to write, integers (n, most).

    Returns
    -------
    How many tokens each row has, int64 (n,).
    """
    n = len(indptr) - 1
    length = np.zeros(n, np.int64)
    widest = 0
    for i in range(n):
        widest = max(widest, indptr[i + 1] - indptr[i])
    value, column = np.empty(widest, np.float64), np.empty(widest, np.int64)
    ranked, place = np.empty(widest, np.float64), np.empty(widest, np.int64)
    start = np.empty(_BUCKETS + 1, np.int64)
    for i in range(n):
        k = 0
        for j in range(indptr[i], indptr[i + 1]):
            g = indices[j]
            if data[j] > 0 and token[g] >= 0:
                value[k] = data[j] / total[i] * 10_000.0 / median[g]
                column[k] = g
                k += 1
        _spread(value, column, k, ranked, place, start)
        length[i] = min(k, most)
        for r in range(length[i]):
            out[i, r] = token[place[r]]
    return length


@njit(cache=True, nogil=True, error_model="numpy")
def _spread(
    value: np.ndarray, column: np.ndarray, k: int, ranked: np.ndarray, place: np.ndarray, start: np.ndarray
) -> None:
    """Sort the first ``k`` values in descending order, equal ones as they came."""
    if k == 0:
        return
    bits = value[:k].view(np.int64)
    lowest, highest = bits[0], bits[0]
    for j in range(1, k):
        lowest, highest = min(lowest, bits[j]), max(highest, bits[j])
    shift = 0
    while (highest >> shift) - (lowest >> shift) >= _BUCKETS:
        shift += 1
    top = highest >> shift
    used = top - (lowest >> shift) + 1
    for b in range(used + 1):
        start[b] = 0
    for j in range(k):
        start[top - (bits[j] >> shift) + 1] += 1
    for b in range(used):
        start[b + 1] += start[b]
    for j in range(k):
        b = top - (bits[j] >> shift)
        ranked[start[b]], place[start[b]] = value[j], column[j]
        start[b] += 1
    begin = 0
    for b in range(used):
        if start[b] - begin > _LONG:
            order = np.argsort(-ranked[begin : start[b]], kind="mergesort")
            ranked[begin : start[b]] = ranked[begin : start[b]][order]
            place[begin : start[b]] = place[begin : start[b]][order]
        begin = start[b]
    # buckets follow each other, so that a value moves within its own
    for j in range(1, k):
        v, g, at = ranked[j], place[j], j
        while at > 0 and ranked[at - 1] < v:
            ranked[at], place[at] = ranked[at - 1], place[at - 1]
            at -= 1
        ranked[at], place[at] = v, g
