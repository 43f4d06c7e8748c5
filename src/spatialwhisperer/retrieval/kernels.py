"""Compiled loops of the search on a CPU and of the averages over neighbours. Imports numba: import it inside functions."""

from __future__ import annotations

import numpy as np

from spatialwhisperer._compute.kernels import kernel

_STRIP = 32
_SIGN = np.int16(15)
_REST = np.int16(0x7FFF)

_ROUNDED = np.float32(1 - 2.0**-8)

_SUMS = {"reassoc", "contract", "nsz"}


@kernel(nogil=True, fastmath=_SUMS)
def _dot32(a, b):
    total = np.float32(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@kernel(nogil=True, fastmath=_SUMS)
def _dot64(a, b):
    total = 0.0
    for j in range(len(a)):
        total += np.float64(a[j]) * np.float64(b[j])
    return total


@kernel(nogil=True, fastmath=_SUMS)
def lengths(vectors, out):
    """Write the length of each row in float64."""
    for i in range(len(vectors)):
        out[i] = np.sqrt(_dot64(vectors[i], vectors[i]))


@kernel(nogil=True)
def dots(queries, vectors, rows, out):
    """Write the products of each query (q, d) with its own rows of a matrix (q, c), in float64."""
    for i in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            out[i, c] = _dot64(queries[i], vectors[rows[i, c]])


@kernel(nogil=True, fastmath=_SUMS)
def rounding(x, bits, out):
    """Write the length of the difference of each row (n, d) and its bfloat16, whose bits are int16; float32 (n,)."""
    wide = np.empty(x.shape[1], np.int32)
    rounded = wide.view(np.float32)
    for i in range(len(x)):
        for j in range(x.shape[1]):
            wide[j] = np.int32(bits[i, j]) << 16
        total = np.float32(0)
        for j in range(x.shape[1]):
            difference = x[i, j] - rounded[j]
            total += difference * difference
        out[i] = np.sqrt(total)


@kernel(nogil=True, inline="always")
def _ordered(bits):
    """Integers in the order of the bfloat16 numbers that the bits stand for."""
    return bits ^ ((bits >> _SIGN) & _REST)


@kernel(nogil=True)
def count_above(rough, threshold):
    """Number of rough values (q, m) above the threshold of their row (q,), as `sift` reads them."""
    found = 0
    for i in range(rough.shape[0]):
        for j in range(rough.shape[1]):
            found += _ordered(rough[i, j]) > threshold[i]
    return found


@kernel(nogil=True)
def sift(rough, threshold, slack, unit, keys, rows, query_group, key_group, best, index):
    """Put each key that is nearer than the farthest of the best ones in its place, by its cosine in float32.

    Parameters
    ----------
    rough
        Bits of cosines in bfloat16 (q, m), int16.
    threshold
        Rough values up to it are not looked at; ordered integers (q,), int16.
    slack
        Largest error of a rough cosine of each query before it is rounded itself, float32 (q,).
    unit, keys
        Unit vectors of the queries (q, d) and of the keys (m, d), float32.
    rows
        Row of the bank of each key, int64 (m,).
    query_group, key_group
        Groups (q,) and (m,); a query takes no key of its own group. Both of length 0 without groups.
    best, index
        The best cosines of each query and their rows (q, n): heaps whose first entry is the smallest.
    """
    m, grouped = rough.shape[1], len(query_group) > 0
    number = np.empty(1, np.float32)
    bits = number.view(np.int32)
    for i in range(rough.shape[0]):
        row, least = rough[i], threshold[i]
        for start in range(0, m, _STRIP):
            stop = min(start + _STRIP, m)
            some = 0
            for j in range(start, stop):
                some += _ordered(row[j]) > least
            if some == 0:
                continue
            for j in range(start, stop):
                if _ordered(row[j]) <= least or (grouped and query_group[i] == key_group[j]):
                    continue
                value = _dot32(unit[i], keys[j])
                if value > best[i, 0]:
                    _replace_first(best[i], index[i], value, rows[j])
                    number[0] = (best[i, 0] - slack[i]) * _ROUNDED
                    # a positive number without its last bits is a smaller one
                    if number[0] > 0:
                        least = max(least, np.int16(bits[0] >> 16))


@kernel(nogil=True)
def sift_exact(cosine, rows, query_group, key_group, best, index):
    """As `sift` with cosines in float32 (q, m)."""
    m, grouped = cosine.shape[1], len(query_group) > 0
    for i in range(cosine.shape[0]):
        row = cosine[i]
        for start in range(0, m, _STRIP):
            stop = min(start + _STRIP, m)
            some, least = 0, best[i, 0]
            for j in range(start, stop):
                some += row[j] > least
            if some == 0:
                continue
            for j in range(start, stop):
                if row[j] > best[i, 0] and not (grouped and query_group[i] == key_group[j]):
                    _replace_first(best[i], index[i], row[j], rows[j])


@kernel(nogil=True)
def _replace_first(best, index, value, row):
    n, at = len(best), 0
    while True:
        child = 2 * at + 1
        if child + 1 < n and best[child + 1] < best[child]:
            child += 1
        if child >= n or best[child] >= value:
            break
        best[at], index[at] = best[child], index[child]
        at = child
    best[at], index[at] = value, row


@kernel(nogil=True, fastmath=_SUMS)
def average_dense(index, weight, values, mean, std):
    """Write the weighted mean and standard deviation of some rows of a matrix (m, g) for each query; weights (q, k) sum to one."""
    g = values.shape[1]
    first, second = np.empty(g), np.empty(g)
    for i in range(index.shape[0]):
        first[:] = 0.0
        second[:] = 0.0
        for c in range(index.shape[1]):
            row, w = values[index[i, c]], weight[i, c]
            for j in range(g):
                v = np.float64(row[j])
                first[j] += w * v
                second[j] += w * v * v
        for j in range(g):
            mean[i, j] = first[j]
            std[i, j] = np.sqrt(max(second[j] - first[j] * first[j], 0.0))


@kernel(nogil=True)
def average_sparse(index, weight, data, indices, indptr, mean, std):
    """As `average_dense` for a matrix in CSR without duplicates."""
    g = mean.shape[1]
    first, second = np.empty(g), np.empty(g)
    for i in range(index.shape[0]):
        first[:] = 0.0
        second[:] = 0.0
        for c in range(index.shape[1]):
            w = weight[i, c]
            for at in range(indptr[index[i, c]], indptr[index[i, c] + 1]):
                v = np.float64(data[at])
                first[indices[at]] += w * v
                second[indices[at]] += w * v * v
        for j in range(g):
            mean[i, j] = first[j]
            std[i, j] = np.sqrt(max(second[j] - first[j] * first[j], 0.0))
