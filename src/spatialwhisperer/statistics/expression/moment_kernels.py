"""Compiled loops of `expression_metrics.moments`. Columns are processed in strips whose sums stay in the fastest cache."""

from __future__ import annotations

import numpy as np

from spatialwhisperer._compute.kernels import kernel

_STRIP = 512
_ROWS = 64


@kernel()
def column_sums(values):
    """Sum, minimum and maximum of each column of a dense matrix (n, g); three arrays of shape (g,)."""
    n, g = values.shape
    total, low, high = np.zeros(g), np.full(g, np.inf), np.full(g, -np.inf)
    for start in range(0, g, _STRIP):
        stop = min(start + _STRIP, g)
        for i in range(n):
            for j in range(start, stop):
                v = np.float64(values[i, j])
                total[j] += v
                low[j] = min(low[j], v)
                high[j] = max(high[j], v)
    return total, low, high


@kernel(nogil=True)
def dense_moments(truth, predicted, first, last, out):
    """Write sum, minimum, maximum and centred sum of squares of truth, the same of prediction, and their centred sum of products.

    Sums of squares cancel unless they are centred. A block of rows is centred by its own mean while it is in the cache, and blocks are
    put together by the differences of their means (Chan, Golub and LeVeque, 1983), so that the matrices are read once.

    Parameters
    ----------
    truth, predicted
        Dense, shape (n, g).
    first, last
        Columns to read.
    out
        Shape (9, g), float64.
    """
    n, width = predicted.shape[0], last - first
    total_t, total_p, tt, pp, tp = np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width)
    # extremes in the type of the values, where more of them fit in a vector
    low_t, high_t = np.full(width, np.inf, truth.dtype), np.full(width, -np.inf, truth.dtype)
    low_p, high_p = np.full(width, np.inf, predicted.dtype), np.full(width, -np.inf, predicted.dtype)
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
        size = stop - start
        mean_t, mean_p = np.zeros(width), np.zeros(width)
        at = (start, stop, first, last)
        _add(truth, at, mean_t, low_t, high_t)
        _add(predicted, at, mean_p, low_p, high_p)
        # the factor is zero for the first block, which has none before it
        before, apart = max(start, 1), size * (start / stop)
        for j in range(width):
            d = mean_t[j] / size - total_t[j] / before
            e = mean_p[j] / size - total_p[j] / before
            tt[j] += apart * d * d
            pp[j] += apart * e * e
            tp[j] += apart * d * e
            total_t[j] += mean_t[j]
            total_p[j] += mean_p[j]
            mean_t[j] /= size
            mean_p[j] /= size
        _add_products(truth, predicted, at, mean_t, mean_p, tt, pp, tp)
    for j in range(width):
        out[0, first + j], out[1, first + j], out[2, first + j], out[3, first + j] = (
            total_t[j],
            low_t[j],
            high_t[j],
            tt[j],
        )
        out[4, first + j], out[5, first + j], out[6, first + j], out[7, first + j] = (
            total_p[j],
            low_p[j],
            high_p[j],
            pp[j],
        )
        out[8, first + j] = tp[j]


@kernel(nogil=True)
def _add(values, at, total, low, high):
    start, stop, first, last = at
    for i in range(start, stop):
        # a contiguous row and plain comparisons, which are compiled to vector instructions
        row = values[i, first:last]
        for j in range(len(row)):
            total[j] += np.float64(row[j])
        for j in range(len(row)):
            v = row[j]
            low[j] = v if v < low[j] else low[j]
            high[j] = v if v > high[j] else high[j]


@kernel(nogil=True)
def _add_products(truth, predicted, at, mean_truth, mean_predicted, tt, pp, tp):
    start, stop, first, last = at
    for i in range(start, stop):
        row, other = truth[i, first:last], predicted[i, first:last]
        for j in range(len(mean_truth)):
            t, p = np.float64(row[j]) - mean_truth[j], np.float64(other[j]) - mean_predicted[j]
            tt[j] += t * t
            pp[j] += p * p
            tp[j] += t * p


@kernel()
def centred_sparse(data, indices, indptr, mean_truth, predicted, mean_predicted):
    """Sums over the rows of the squares of truth, in CSR, and prediction and of their product, each centred by its mean; three arrays (g,).

    The centred prediction sums to zero over the rows, so that the mean of the truth does not enter the product, and zeros of the truth
    add nothing to it.
    """
    n, g = predicted.shape
    tt, pp, tp = np.zeros(g), np.zeros(g), np.zeros(g)
    stored = np.zeros(g, np.int64)
    for i in range(n):
        for j in range(g):
            p = predicted[i, j] - mean_predicted[j]
            pp[j] += p * p
        for at in range(indptr[i], indptr[i + 1]):
            j = indices[at]
            t = data[at] - mean_truth[j]
            tt[j] += t * t
            tp[j] += data[at] * (predicted[i, j] - mean_predicted[j])
            stored[j] += 1
    for j in range(g):
        tt[j] += (n - stored[j]) * mean_truth[j] * mean_truth[j]
    return tt, pp, tp


@kernel()
def sparse_sums(data, indices, n, g):
    """As `column_sums` for a CSR matrix with n rows and g columns."""
    total, low, high = np.zeros(g), np.full(g, np.inf), np.full(g, -np.inf)
    stored = np.zeros(g, np.int64)
    for at in range(len(data)):
        j, v = indices[at], np.float64(data[at])
        total[j] += v
        low[j] = min(low[j], v)
        high[j] = max(high[j], v)
        stored[j] += 1
    for j in range(g):
        if stored[j] < n:
            low[j] = min(low[j], 0.0)
            high[j] = max(high[j], 0.0)
    return total, low, high
