"""Expression by retrieval: the nearest keys of every query, their weights, and the weighted mean of their expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._compute.blocks import blocks, each
from spatialwhisperer._messages import listing, progress
from spatialwhisperer.retrieval.search import (
    QUERY_ROWS,
    check_bank,
    embeddings,
    groups,
    search,
    search_all,
)
from spatialwhisperer.retrieval.vectors import ELEMENTS, Vectors
from spatialwhisperer.retrieval.weights import METRICS, WEIGHTS, weigh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spatialwhisperer.retrieval.rule import Retrieval

SLACK = 16
"""Additional candidates that are ranked again in float64, so that rounding in the search does not change the result."""

CLOSE = 4e-6
"""Where the cosine of the last candidate is closer to the k-th than this, other keys may be too: the bank is searched in float64."""


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of every query, nearest first.

    Attributes
    ----------
    index
        Rows of the bank, int64, shape (q, k); -1 for a query without direction.
    weight
        float32, shape (q, k); rows sum to one, NaN where the index is -1.
    similarity
        Cosines in descending order, float32, shape (q, k); NaN where the index is -1.
    """

    index: np.ndarray
    weight: np.ndarray
    similarity: np.ndarray


def retrieve(
    queries: np.ndarray,
    keys: np.ndarray,
    *,
    k: int = 50,
    weights: str = "uniform",
    temperature: float = 0.1,
    query_group: Sequence[Any] | np.ndarray | None = None,
    key_group: Sequence[Any] | np.ndarray | None = None,
    block_rows: int = 8192,
    device: str | None = None,
) -> Neighbours:
    """Find the k keys of highest cosine for every query, exactly, and weigh them.

    The bank is searched block by block in float32, and the best candidates are ranked again in float64. Keys whose cosines are equal
    as float32 come in the order of the bank. (A GPU with TF32 switched on is less exact.) Beyond input and output, memory grows with
    the bank by 16 bytes a row.

    Parameters
    ----------
    queries
        Embeddings, shape (q, d). A row with a value that is not finite, or of length zero, has no neighbours.
    keys
        Embeddings of the bank, shape (m, d). Rows that are not finite or of length zero are never found.
    k
        Number of neighbours.
    weights
        One of `WEIGHTS`. Distances are those of the vectors as given, not of unit vectors. The smallest distance is 1e-6 times the length
        of the query.
    temperature
        What cosines are divided by for "softmax".
    query_group, key_group
        Section or patient of every row, shapes (q,) and (m,). A query never gets keys of its own group.
    block_rows
        Rows of the bank that are searched at a time.
    device
        Torch device of the search; ``None`` takes ``settings.device``.

    Returns
    -------
    Neighbours of shape (q, k).

    Raises
    ------
    ValueError
        If shapes do not fit, an option is unknown, only one of queries and keys has groups or a group is missing, or k is larger than
        the number of keys that some query may use.

    Notes
    -----
    Weights: BLEEP (Xie et al., NeurIPS 2023), mclSTExp (Min et al., Briefings in Bioinformatics 2024), Loki (Chen et
    al., Nature Methods 2025). The published exp(-(d² - d₁² + 1)) of BLEEP, d₁ of the best hit, equals exp(-d²) once
    weights sum to one, and is computed so that it cannot overflow.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.retrieval.retrieval import retrieve
    >>> bank = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> near = retrieve(np.array([[2.0, 0.1]]), bank, k=2, weights="softmax", temperature=1.0)
    >>> near.index, near.weight.round(2)
    (array([[0, 2]]), array([[0.56, 0.44]], dtype=float32))
    """
    if k is None:
        raise ValueError("k must be a number here; for the whole bank call retrieve_mean with Retrieval(k=None).")
    _check_options(k, weights, temperature, block_rows)
    queries, keys = embeddings(queries, keys)
    asks, bank = Vectors(queries), Vectors(keys)
    asks.group, bank.group = groups(query_group, key_group, len(queries), len(keys))
    check_bank(k, asks, bank)
    index = np.full((len(queries), k), -1, dtype=np.int64)
    weight, similarity = (np.full(index.shape, np.nan, dtype=np.float32) for _ in range(2))
    starts = range(0, len(asks.rows), QUERY_ROWS)
    for start in progress(starts, desc="retrieve", unit="block"):
        rows = asks.rows[start : start + QUERY_ROWS]
        candidates = search(asks, rows, bank, min(k + SLACK, len(bank.rows)), block_rows, device)
        *near, close = _rank_all(asks, rows, bank, *candidates, k, weights, temperature)
        index[rows], weight[rows], similarity[rows] = near
        if close.any() and k + SLACK < len(bank.rows):
            rows = rows[close]
            candidates = search_all(asks, rows, bank, k, block_rows)
            index[rows], weight[rows], similarity[rows], _ = _rank_all(
                asks, rows, bank, *candidates, k, weights, temperature
            )
    return Neighbours(index, weight, similarity)


def impute(neighbours: Neighbours, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Average the values of the neighbours.

    Parameters
    ----------
    neighbours
        Of q queries, as `retrieve` returns them.
    values
        Expression of the bank, sparse or dense, shape (m, g).

    Returns
    -------
    Weighted mean and weighted standard deviation over the neighbours, float32, shapes (q, g); NaN for a query without
    neighbours. With the negative weights of "raw_cosine" a negative variance counts as zero.

    Raises
    ------
    ValueError
        If the values are not a matrix, or have fewer rows than the bank.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.retrieval.retrieval import impute, retrieve
    >>> bank = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> mean, std = impute(retrieve(np.array([[2.0, 0.1]]), bank, k=2), np.array([[4.0], [9.0], [2.0]]))
    >>> mean.tolist(), std.tolist()
    ([[3.0]], [[1.0]])
    """
    values = _matrix(values)
    q, k = neighbours.index.shape
    if neighbours.index.size and neighbours.index.max() >= values.shape[0]:
        raise ValueError(
            f"The neighbours point at row {neighbours.index.max()}, but values has {values.shape[0]} rows. "
            "Pass the values of the bank that was searched, row for row."
        )
    mean, std = (np.full((q, values.shape[1]), np.nan, dtype=np.float32) for _ in range(2))
    known = np.flatnonzero((neighbours.index >= 0).all(axis=1))
    average = _averages(values)

    def fill(part: slice) -> None:
        at = known[part]
        weight = neighbours.weight[at].astype(np.float64)
        # weights that sum to one only in float32 would add to the standard deviation
        weight /= weight.sum(axis=1, keepdims=True)
        found = np.empty((2, len(at), values.shape[1]), np.float32)
        average(neighbours.index[at], weight, *found)
        mean[at], std[at] = found

    each(fill, blocks(len(known), k * values.shape[1], ELEMENTS))
    return mean, std


def retrieve_mean(
    queries: np.ndarray,
    keys: np.ndarray,
    values: Any,
    *,
    retrieval: Retrieval,
    query_group: Sequence[Any] | np.ndarray | None = None,
    key_group: Sequence[Any] | np.ndarray | None = None,
    block_rows: int = 8192,
    device: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Retrieve and average in one call, over k neighbours or over the whole bank.

    Over the whole bank, keys are read block by block in float64 on the CPU, so that no matrix of all queries by all keys is needed.

    Parameters
    ----------
    queries, keys
        Embeddings, shapes (q, d) and (m, d), as for `retrieve`.
    values
        Expression of the bank, sparse or dense, shape (m, g).
    retrieval
        k, weights and temperature. Its modalities are not read: the caller has chosen the embeddings.
    query_group, key_group
        Section or patient of every row, shapes (q,) and (m,). A query never gets keys of its own group.
    block_rows
        Rows of the bank that are read at a time.
    device
        Torch device of the search for k neighbours; ``None`` takes ``settings.device``.

    Returns
    -------
    Weighted mean and weighted standard deviation, float32, shapes (q, g); NaN for a query without direction.

    Raises
    ------
    ValueError
        As `retrieve` and `impute` do.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.models import Retrieval
    >>> from spatialwhisperer.retrieval.retrieval import retrieve_mean
    >>> bank, expression = np.eye(3), np.array([[4.0], [9.0], [2.0]])
    >>> mean, std = retrieve_mean(bank[:1], bank, expression, retrieval=Retrieval(k=None, weights="raw_cosine"))
    >>> float(mean[0, 0])
    4.0
    """
    values = _matrix(values)
    queries, keys = embeddings(queries, keys)
    if values.shape[0] != len(keys):
        raise ValueError(
            f"keys has {len(keys)} rows and values {values.shape[0]}; both must describe the same bank, row for row."
        )
    options: dict[str, Any] = {"weights": retrieval.weights, "temperature": retrieval.temperature}
    if retrieval.k is not None:
        where: dict[str, Any] = {
            "query_group": query_group,
            "key_group": key_group,
            "block_rows": block_rows,
            "device": device,
        }
        return impute(retrieve(queries, keys, k=retrieval.k, **options, **where), values)
    _check_options(None, retrieval.weights, retrieval.temperature, block_rows)
    asks, bank = Vectors(queries), Vectors(keys)
    asks.group, bank.group = groups(query_group, key_group, len(queries), len(keys))
    check_bank(1, asks, bank)
    mean, std = (np.full((len(queries), values.shape[1]), np.nan, dtype=np.float32) for _ in range(2))
    block_rows = min(block_rows, max(64, ELEMENTS // max(1, values.shape[1])))
    step = max(1, min(QUERY_ROWS, ELEMENTS // max(block_rows, values.shape[1])))
    for start in progress(range(0, len(asks.rows), step), desc="retrieve", unit="block"):
        at = asks.rows[start : start + step]
        mean[at], std[at] = _average_of_all(asks, at, bank, values, block_rows, **options)
    return mean, std


def _rank_all(
    asks: Vectors, rows: np.ndarray, bank: Vectors, candidates: np.ndarray, allowed: np.ndarray, *options: Any
) -> tuple[np.ndarray, ...]:
    parts = blocks(len(rows), candidates.shape[1] * asks.vectors.shape[1], ELEMENTS)
    ranked = each(lambda at: _rank(asks, rows[at], bank, candidates[at], allowed[at], *options), parts)
    return tuple(np.concatenate(field) for field in zip(*ranked, strict=True))


def _rank(
    asks: Vectors,
    rows: np.ndarray,
    bank: Vectors,
    candidates: np.ndarray,
    allowed: np.ndarray,
    k: int,
    weights: str,
    temperature: float,
) -> tuple[np.ndarray, ...]:
    """Index, weight and cosine of the k best candidates, in float64, and whether other keys may be as close as the k-th."""
    from spatialwhisperer.retrieval.kernels import dots

    query = asks.vectors[rows].astype(np.float64)
    cosine = np.empty(candidates.shape)
    dots(query, bank.vectors, candidates, cosine)
    cosine /= asks.length[rows, None] * bank.length[candidates]
    # as float32, so that copies of a key tie exactly and come in the order of the bank
    key = np.where(allowed, -cosine.astype(np.float32), np.inf)
    order = np.lexsort((candidates, key), axis=1)
    kth, last = (np.take_along_axis(key, order[:, [at]], 1)[:, 0] for at in (k - 1, -1))
    order = order[:, :k]
    index, cosine = np.take_along_axis(candidates, order, 1), np.take_along_axis(cosine, order, 1)
    distance = None
    if weights in METRICS:
        gap = bank.vectors[index].astype(np.float64) - query[:, None, :]
        distance = np.abs(gap).sum(axis=2) if METRICS[weights] == "cityblock" else np.square(gap).sum(axis=2)
    factor, log = weigh(weights, cosine, distance, query, temperature)
    weight = factor * np.exp(log - log.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    return index, weight.astype(np.float32), cosine.astype(np.float32), last - kth < CLOSE


def _average_of_all(
    asks: Vectors, rows: np.ndarray, bank: Vectors, values: Any, block_rows: int, *, weights: str, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation over the whole bank. Sums are scaled by the largest exponent so far, against overflow."""
    from scipy.spatial.distance import cdist

    query = asks.vectors[rows].astype(np.float64)
    top = np.full((len(rows), 1), -np.inf)
    total = np.zeros((len(rows), 1))
    first, second = (np.zeros((len(rows), values.shape[1])) for _ in range(2))
    for block in bank.blocks(block_rows):
        keys = bank.vectors[block].astype(np.float64)
        cosine = (query @ keys.T) / (asks.length[rows, None] * bank.length[block])
        distance = cdist(query, keys, METRICS[weights]) if weights in METRICS else None
        factor, log = weigh(weights, cosine, distance, query, temperature)
        if asks.group is not None and bank.group is not None:
            factor[asks.group[rows][:, None] == bank.group[block][None, :]] = 0
            log[factor == 0] = -np.inf
        new = np.maximum(top, log.max(axis=1, keepdims=True))
        # a query without usable keys so far keeps its zeros
        shift = np.where(np.isfinite(new), new, 0)
        part, fade = factor * np.exp(log - shift), np.exp(top - shift)
        dense = _dense(values, block)
        total = total * fade + part.sum(axis=1, keepdims=True)
        first = first * fade + part @ dense
        second = second * fade + part @ np.square(dense, out=dense)
        top = new
    return _moments(first / total, second / total)


def _moments(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return first, np.sqrt(np.maximum(second - np.square(first), 0))


def _averages(values: Any) -> Callable[..., None]:
    """The kernel that averages rows of a matrix: of neighbours and weights it writes mean and standard deviation."""
    from spatialwhisperer.retrieval import kernels

    if sp.issparse(values):
        parts = values.data, values.indices, values.indptr
        return lambda index, weight, mean, std: kernels.average_sparse(index, weight, *parts, mean, std)
    return lambda index, weight, mean, std: kernels.average_dense(index, weight, values, mean, std)


def _dense(values: Any, rows: np.ndarray) -> np.ndarray:
    part = values[rows]
    return (part.toarray() if sp.issparse(part) else part).astype(np.float64)


def _matrix(values: Any) -> Any:
    matrix: Any = values.tocsr() if sp.issparse(values) else np.asarray(values)
    if matrix.ndim != 2:
        raise ValueError(f"values must be a matrix of shape (bank, genes), not of shape {matrix.shape}.")
    if sp.issparse(matrix) and not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix if matrix.dtype in (np.float32, np.float64) else matrix.astype(np.float64)


def _check_options(k: int | None, weights: str, temperature: float, block_rows: int = 1) -> None:
    if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1):
        raise ValueError(f"k must be a whole number of at least 1, or None for the whole bank, not {k!r}.")
    if weights not in WEIGHTS:
        raise ValueError(f"Unknown weights {weights!r}; choose one of {listing(WEIGHTS)}.")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature!r}.")
    if block_rows < 1:
        raise ValueError(f"block_rows must be at least 1, not {block_rows!r}.")
