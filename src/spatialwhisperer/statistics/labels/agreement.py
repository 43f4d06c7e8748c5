"""How far two answers to the same question agree, and whether doubt tells wrong answers from correct ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer.statistics.intervals.auroc import auroc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialwhisperer.statistics.intervals.spatial import SpatialErrors

COLUMNS = ("auroc", "low", "high", "difference", "difference_low", "difference_high", "n", "n_wrong")


def agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """One minus the Jensen–Shannon divergence, in bits, of two probability vectors (Lin, IEEE Trans. Inf. Theory 1991, eq. 4.1).

    Parameters
    ----------
    one, other
        Probabilities of the same rows and classes, shape (n, classes).

    Returns
    -------
    Shape (n,), between 0 (no class is possible for both) and 1 (equal); NaN where a probability is.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.labels.agreement import agreement
    >>> agreement(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
    [1.0, 0.0]
    """
    from scipy.special import rel_entr

    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    middle = (one + other) / 2
    divergence = (rel_entr(one, middle) + rel_entr(other, middle)).sum(axis=1) / (2 * np.log(2))
    return np.clip(1 - divergence, 0, 1)


def error_detection(doubt: Mapping[str, np.ndarray], wrong: np.ndarray, errors: SpatialErrors) -> pd.DataFrame:
    """How well measures of doubt tell wrong answers from correct ones.

    Parameters
    ----------
    doubt
        Measures by name, each of shape (n,), high where the answer is in doubt; NaN where it is not known. The others are compared with
        the first.
    wrong
        Whether the answer is wrong, Boolean, shape (n,).
    errors
        Of these rows, for intervals that account for neighbours that are alike.

    Returns
    -------
    DataFrame with one row for each measure. ``auroc`` is the probability that a wrong answer is in more doubt than a correct one, with the
    95 % interval ``low`` to ``high``. ``difference`` is the AUROC minus that of the first measure on the same rows, with its paired
    interval. ``n`` rows have the measure, and ``n_wrong`` of them are wrong. Values are NaN where no row is wrong, or none is correct.
    """
    first = next(iter(doubt.values()))
    return pd.DataFrame(
        [_detected(values, first, wrong, errors) for values in doubt.values()],
        index=pd.Index(list(doubt), name="doubt"),
        columns=list(COLUMNS),
    )


def _detected(values: np.ndarray, first: np.ndarray, wrong: np.ndarray, errors: SpatialErrors) -> list[float]:
    used = np.isfinite(values)
    value = auroc(values[used], wrong[used])
    # values of rows that are not used are not read, but have to be numbers
    interval = errors.auroc(np.where(used, values, 0), wrong, used=used).interval(value, bounded=True)
    paired = [np.nan] * 3
    both = used & np.isfinite(first)
    if values is not first:
        own, reference = (np.where(both, x, 0) for x in (values, first))
        gain = auroc(own[both], wrong[both]) - auroc(reference[both], wrong[both])
        paired = [gain, *errors.auroc(own, wrong, reference, both).interval(gain, within=(-1, 1))]
    return [value, *interval, *paired, int(used.sum()), int((wrong & used).sum())]
