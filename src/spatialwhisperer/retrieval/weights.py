"""How neighbours weigh: the rules of the papers, by name."""

from __future__ import annotations

import numpy as np

WEIGHTS = {
    "uniform": "every neighbour the same (BLEEP, HECLIP)",
    "inv_sq_l1": "1 / d², d the L1 distance of the vectors as given (mclSTExp, code of HER2+)",
    "inv_sq_l2": "1 / d², d the L2 distance of the vectors as given (mclSTExp, paper)",
    "exp_gap": "exp(-d²), d the L2 distance of the vectors as given: the gaps to the best hit count (BLEEP, 'weighted')",
    "softmax": "exp(cosine / temperature)",
    "raw_cosine": "cosine over the sum of cosines, which may be negative (Loki PredEx)",
    "clipped_cosine": "the same with negative cosines counted as zero, so that values stay within those of the bank",
}
"""How neighbours weigh: name to meaning. Weights of a query always sum to one."""

NEAREST = 1e-6
"""Distances below this share of the query's own length count as this share: the weight of an exact copy stays finite."""

METRICS = {"inv_sq_l1": "cityblock", "inv_sq_l2": "sqeuclidean", "exp_gap": "sqeuclidean"}
"""Distance that a rule needs, by the name that SciPy knows."""


def weigh(
    weights: str, cosine: np.ndarray, distance: np.ndarray | None, query: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights before they are divided by their sum, as factor times exp(log)."""
    factor, log = np.ones_like(cosine), np.zeros_like(cosine)
    if weights == "softmax":
        log = cosine / temperature
    elif weights == "raw_cosine":
        factor = cosine.copy()
    elif weights == "clipped_cosine":
        # never exactly zero: a query that resembles nothing gets the mean of its neighbours
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
