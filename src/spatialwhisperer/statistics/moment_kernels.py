"""Compiled loops of `expression_metrics.moments`. Columns are processed in strips whose sums stay in the fastest cache."""

from __future__ import annotations

import numpy as np

from spatialwhisperer._compute.kernels import kernel

_STRIP = 512


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


@kernel()
def centred_dense(truth, mean_truth, predicted, mean_predicted):
    """Sums over the rows of the squares of truth and prediction and of their product, each centred by its mean; three arrays (g,)."""
    n, g = predicted.shape
    tt, pp, tp = np.zeros(g), np.zeros(g), np.zeros(g)
    for start in range(0, g, _STRIP):
        stop = min(start + _STRIP, g)
        for i in range(n):
            for j in range(start, stop):
                t = truth[i, j] - mean_truth[j]
                p = predicted[i, j] - mean_predicted[j]
                tt[j] += t * t
                pp[j] += p * p
                tp[j] += t * p
    return tt, pp, tp


@kernel()
def centred_sparse(data, indices, indptr, mean_truth, predicted, mean_predicted):
    """As `centred_dense` for a truth in CSR.

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
