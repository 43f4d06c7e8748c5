"""How well each gene is predicted on held-out training tissue, and the weight of the regression that is best there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import inform
from spatialwhisperer.statistics.expression.metrics import moments, pearson, unpredicted

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import scipy.sparse as sp

    from spatialwhisperer.models.expression.predictor import ExpressionPredictor
    from spatialwhisperer.tl._training.expression.values import Values

TIE = 0.005
"""Mean correlations that differ by less than this count as equal when the weight of the regression is chosen."""

OWN = "own"
"""Name of the predictions of the regression on features of its own."""


def with_accuracy(
    predictor: ExpressionPredictor,
    predicted: Mapping[str, np.ndarray],
    values: Values,
    training: np.ndarray,
    rows: pd.DataFrame,
) -> ExpressionPredictor:
    """The predictor with the held-out correlation of each method, and with the weight of the regression that was best.

    Parameters
    ----------
    predictor
        The predictor.
    predicted
        Name of a method to predictions of the rows of the values, each (m, g).
    values
        True expression.
    training
        Rows that were predicted, Boolean, shape (m,).
    rows
        `Inputs.observations`.
    """
    known = np.flatnonzero(training)
    each = {method: x[known] for method, x in predicted.items() if method != OWN}
    return predictor.with_accuracy(*_weighed(each, values.matrix[known], _sections(rows, values)[known]))


def with_own_accuracy(
    predictor: ExpressionPredictor, predicted: Mapping[str, np.ndarray], values: Values, rows: pd.DataFrame
) -> ExpressionPredictor:
    """The same for the regression on features of its own, on the rows that have them; see `with_accuracy`.

    Where nothing was predicted, it takes the weight of the other regression.
    """
    own = predicted.get(OWN)
    known = np.flatnonzero(np.isfinite(own).all(axis=1)) if own is not None else np.empty(0, int)
    if own is None or not len(known):
        inform(
            "How well the regression on fine images predicts each gene on held-out tissue was not measured: too few are left."
        )
        return predictor.with_accuracy({}, predictor.config.weight, own=True)
    each = {"retrieval": predicted["retrieval"][known], "regression": own[known]}
    accuracy, weight = _weighed(each, values.matrix[known], _sections(rows, values)[known])
    del accuracy["retrieval"]
    return predictor.with_accuracy(accuracy, weight, own=True)


def _sections(rows: pd.DataFrame, values: Values) -> np.ndarray:
    return rows["section"].to_numpy()[values.rows]


def _weighed(
    predicted: Mapping[str, np.ndarray], truth: sp.csr_matrix, sections: np.ndarray
) -> tuple[dict[str, np.ndarray], float | None]:
    """Correlation of each gene by method, and the best weight of the regression; ``None`` where there is one method, or nothing to measure."""
    accuracy = {method: by_section(truth, x, sections) for method, x in predicted.items()}
    if len(predicted) < 2:
        return accuracy, None
    if not np.isfinite(accuracy["regression"]).any():
        # no section has enough spots, or no gene varies: no weight is better than another
        return {**accuracy, "both": accuracy["regression"]}, None
    weights = np.linspace(0, 1, 11)
    mixed = [
        by_section(truth, w * predicted["regression"] + (1 - w) * predicted["retrieval"], sections) for w in weights
    ]
    means = np.array([np.nanmean(r) for r in mixed])
    # among equally good weights the largest: on other patients the regression is more robust than retrieval
    best = int(np.flatnonzero(means >= means.max() - TIE)[-1])
    return {**accuracy, "both": mixed[best]}, float(weights[best])


def by_section(truth: sp.csr_matrix, predicted: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """Pearson correlation of each gene within sections, averaged over the sections where the gene varies; float32 (g,).

    A constant prediction has a correlation of 0 with a gene that varies. Sections of fewer than four spots are left out.
    """
    each = [moments(truth[sections == s], predicted[sections == s]) for s in np.unique(sections)]
    stacked = np.stack([np.where(unpredicted(m), 0.0, pearson(m)) for m in each])
    defined = np.isfinite(stacked).sum(axis=0)
    return np.where(defined > 0, np.nansum(stacked, axis=0) / np.maximum(defined, 1), np.nan).astype(np.float32)
