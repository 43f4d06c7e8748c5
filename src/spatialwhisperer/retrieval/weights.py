"""Weights of neighbours: the rules of the published methods, by name."""

from __future__ import annotations

import numpy as np

WEIGHTS = {
    "uniform": "equal weights (BLEEP, HECLIP)",
    "inv_sq_l1": "1 / d² with the L1 distance d of the vectors as given (mclSTExp, code of HER2+)",
    "inv_sq_l2": "1 / d² with the L2 distance d of the vectors as given (mclSTExp, paper)",
    "exp_gap": "exp(-d²) with the L2 distance d of the vectors as given, relative to the best hit (BLEEP, 'weighted')",
    "softmax": "exp(cosine / temperature)",
    "raw_cosine": "cosine divided by the sum of cosines, which may be negative (Loki PredEx)",
    "clipped_cosine": "as raw_cosine with negative cosines set to zero, so that values stay within the range of the bank",
}
"""Name of a rule to its definition. The weights of a query always sum to one."""

NEAREST = 1e-6
"""Smallest distance, as a fraction of the length of the query: the weight of an exact copy stays finite."""

METRICS = {"inv_sq_l1": "cityblock", "inv_sq_l2": "sqeuclidean", "exp_gap": "sqeuclidean"}
"""Distance that a rule needs, by its name in :func:`scipy.spatial.distance.cdist`."""


def weigh(
    weights: str, cosine: np.ndarray, distance: np.ndarray | None, query: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Unnormalised weights, as the two parts of ``factor * exp(log)``.

    Parameters
    ----------
    weights
        One of `WEIGHTS`.
    cosine
        Cosines of queries and keys, shape (q, k).
    distance
        Distances of the kind that `METRICS` names, shape (q, k); ``None`` where the rule needs none.
    query
        Vectors of the queries, shape (q, d).
    temperature
        Of "softmax".

    Returns
    -------
    ``factor`` and ``log``, both of shape (q, k).
    """
    factor, log = np.ones_like(cosine), np.zeros_like(cosine)
    if weights == "softmax":
        log = cosine / temperature
    elif weights == "raw_cosine":
        factor = cosine.copy()
    elif weights == "clipped_cosine":
        # never exactly zero: a query without a positive cosine gets the mean of its neighbours
        factor = np.maximum(cosine, 1e-9)
    elif weights == "exp_gap":
        log = -np.asarray(distance)
    elif weights == "inv_sq_l1":
        floor = NEAREST * np.abs(query).sum(axis=1, keepdims=True)
        factor = 1 / np.square(np.maximum(np.asarray(distance), floor))
    elif weights == "inv_sq_l2":
        floor = NEAREST**2 * np.square(query).sum(axis=1, keepdims=True)
        factor = 1 / np.maximum(np.asarray(distance), floor)
    return factor, log
