"""Rank-value tokens of the rows of a sparse matrix. Imports numba: import it inside functions."""

from __future__ import annotations

import numpy as np

from spatialwhisperer._compute.kernels import kernel

_MOST_BITS = 11
_HALF = np.uint64(32)
_PLACE = np.uint64(2**32 - 1)
_ONE = np.uint64(1)

# a product of two rounded numbers is within 4 units of the last place of the published quotients: neighbouring buckets of 2**4 hold all
# pairs of values that rounding may exchange
_LEAST_SHIFT = np.uint64(4)


@kernel(nogil=True, error_model="numpy")
def rank_tokens(
    data: np.ndarray,
    indices: np.ndarray,
    indptr: np.ndarray,
    token: np.ndarray,
    median: np.ndarray,
    total: np.ndarray,
    most: int,
    begin: np.ndarray,
    out: np.ndarray,
    length: np.ndarray,
) -> None:
    """Write the tokens of each row, highest value first and ties in the order of the columns.

    The value of a count is ``count / total / median``, in units of 10,000. The order comes from the leading bits of
    ``count * (1 / median)``, in two passes of a radix sort; neighbours that are alike in them are compared by their values.

    Parameters
    ----------
    data, indices, indptr
        Counts, CSR in canonical form.
    token, median
        Of each column; a column whose token is negative is left out.
    total
        Total of each row; NaN takes the sum of the row.
    most
        Longest row of tokens.
    begin
        Where each row starts in ``out``.
    out
        Where to write the tokens, integers.
    length
        Where to write how many tokens each row has, int64 (n,): -1 where a count is negative or not finite.
    """
    inverse = np.where(token >= 0, 1.0 / median, 0.0)
    widest = 0
    for i in range(len(length)):
        widest = max(widest, indptr[i + 1] - indptr[i])
    item, other = np.empty(widest, np.uint64), np.empty(widest, np.uint64)
    high, low = np.empty(1 << _MOST_BITS, np.uint32), np.empty(1 << _MOST_BITS, np.uint32)
    for i in range(len(length)):
        row, column = data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
        if not _products(row, column, inverse, item.view(np.float64)):
            length[i] = -1
            continue
        k = _spread(item[: len(row)], other, most, high, low)
        whole = _sum(row) if np.isnan(total[i]) else total[i]
        _settle(item, k, row, column, median, whole)
        length[i] = min(k, most)
        for r in range(length[i]):
            out[begin[i] + r] = token[column[item[r] & _PLACE]]


@kernel(nogil=True, error_model="numpy")
def _products(row: np.ndarray, column: np.ndarray, inverse: np.ndarray, out: np.ndarray) -> bool:
    """Write ``count * inverse``; whether all counts are finite and not negative."""
    wrong = 0
    for j in range(len(row)):
        count = np.float64(row[j])
        wrong += not ((count >= 0) & (count < np.inf))
        out[j] = count * inverse[column[j]]
    return wrong == 0


@kernel(nogil=True, error_model="numpy", fastmath={"reassoc"})
def _sum(row: np.ndarray) -> float:
    """Sum in any order, which is the same for whole numbers."""
    out = 0.0
    for j in range(len(row)):
        out += np.float64(row[j])
    return out


@kernel(nogil=True, error_model="numpy")
def _spread(item: np.ndarray, other: np.ndarray, most: int, high: np.ndarray, low: np.ndarray) -> int:
    """Sort products by their leading bits, which order positive numbers, in descending order and stable.

    ``item`` comes with the bits of the products and leaves with the number of the bucket, from above, and the place in the row.
    Products of zero come last and are not counted. Where there are more than ``most``, buckets that cannot reach them are left out.
    """
    lowest, highest, k = np.uint64(2**64 - 1), np.uint64(0), 0
    for j in range(len(item)):
        highest = max(highest, item[j])
        lowest = min(lowest, item[j] - _ONE)  # zero becomes the largest
        k += item[j] > 0
    if k == 0:
        return 0
    digit = np.uint64(_MOST_BITS)
    while digit > 6 and (1 << digit) > k:
        digit -= _ONE
    shift, last = _LEAST_SHIFT, (_ONE << digit << digit) - _ONE
    while (highest - lowest) >> shift >= last:
        shift += _ONE
    for j in range(len(item)):
        item[j] = min((highest - item[j]) >> shift, last) << _HALF | np.uint64(j)
    _count(item, high, low, digit)
    n = len(item)
    if k > most:
        n = _highest(item, most, digit, high)
        _count(item[:n], high, low, digit)
        k = min(n, k)
    _starts(high, low, 1 << digit)
    mask = (_ONE << digit) - _ONE
    for j in range(n):
        at = (item[j] >> _HALF) & mask
        other[low[at]] = item[j]
        low[at] += np.uint32(1)
    for j in range(n):
        at = other[j] >> _HALF >> digit
        item[high[at]] = other[j]
        high[at] += np.uint32(1)
    return k


@kernel(nogil=True, error_model="numpy")
def _count(item: np.ndarray, high: np.ndarray, low: np.ndarray, digit: np.uint64) -> None:
    """How many items there are of each digit."""
    mask = (_ONE << digit) - _ONE
    for b in range(1 << digit):
        high[b] = low[b] = 0
    for j in range(len(item)):
        high[item[j] >> _HALF >> digit] += np.uint32(1)
        low[(item[j] >> _HALF) & mask] += np.uint32(1)


@kernel(nogil=True, error_model="numpy")
def _highest(item: np.ndarray, most: int, digit: np.uint64, high: np.ndarray) -> int:
    """Keep the items of the highest buckets that hold ``most``, and of the next, whose values may be equal."""
    seen, bucket = np.int64(0), 0
    while seen < most:
        seen += np.int64(high[bucket])
        bucket += 1
    last = np.uint64(bucket) << digit
    kept = 0
    for j in range(len(item)):
        own = item[j]
        item[kept] = own
        kept += (own >> _HALF) <= last
    return kept


@kernel(nogil=True, error_model="numpy")
def _starts(high: np.ndarray, low: np.ndarray, buckets: np.uint64) -> None:
    """Turn the number of items in each bucket into where the bucket starts."""
    above, below = np.uint32(0), np.uint32(0)
    for b in range(buckets):
        own, its = high[b], low[b]
        high[b], low[b] = above, below
        above += own
        below += its


@kernel(nogil=True, error_model="numpy")
def _settle(item: np.ndarray, k: int, row: np.ndarray, column: np.ndarray, median: np.ndarray, whole: float) -> None:
    """Order neighbours whose buckets are the same or next to each other by their values, equal ones by their places."""
    for j in range(1, k):
        own, at = item[j], j
        bucket = own >> _HALF
        if (item[at - 1] >> _HALF) + _ONE < bucket:
            continue
        place = np.int64(own & _PLACE)
        value = row[place] / whole * 10_000.0 / median[column[place]]
        while at > 0 and (item[at - 1] >> _HALF) + _ONE >= bucket:
            before = np.int64(item[at - 1] & _PLACE)
            its = row[before] / whole * 10_000.0 / median[column[before]]
            if its > value or (its == value and before < place):
                break
            item[at] = item[at - 1]
            at -= 1
        item[at] = own
