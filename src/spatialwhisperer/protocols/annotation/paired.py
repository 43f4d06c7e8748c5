"""Differences between methods on the same spots, with intervals, and how many score maps a method really has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialwhisperer._access.slide import Slide
from spatialwhisperer.statistics.evidence import effective_rank
from spatialwhisperer.statistics.intervals import auroc as roc
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.statistics.intervals.uncertainty import Uncertainty, over_units

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

AGAINST = ("darkness", "probe")
"""What each method is compared with."""


def paired(
    scored: Mapping[str, pd.DataFrame], truth: pd.DataFrame, test: AnnData, against: Sequence[str] = AGAINST
) -> pd.DataFrame:
    """Compare the macro AUROC of each method with that of each reference, on the same spots and classes of one section.

    Parameters
    ----------
    scored
        Scores of the section by method.
    truth
        Nullable Boolean columns.
    test
        The section.
    against
        What each method is compared with.

    Returns
    -------
    Columns ``method``, ``against``, ``difference``, ``low`` and ``high`` (95 % interval over the spots, whose neighbours are not
    independent), ``variance`` and ``effective_rank`` of the method's score maps.
    """
    errors = SpatialErrors(Slide.open(test).positions(), np.zeros(test.n_obs))
    rows = []
    for name, scores in scored.items():
        rank = effective_rank(scores[np.isfinite(scores).all(axis=1)].to_numpy(np.float64))
        for reference in against:
            value, error = _difference(scores, scored[reference], truth, errors)
            rows.append((name, reference, value, *error.interval(value, within=(-1, 1)), error.variance, rank))
    columns = ["method", "against", "difference", "low", "high", "variance", "effective_rank"]
    return pd.DataFrame(rows, columns=columns)


def _difference(
    one: pd.DataFrame, other: pd.DataFrame, truth: pd.DataFrame, errors: SpatialErrors
) -> tuple[float, Uncertainty]:
    """Mean difference of the AUROCs of the classes that both have; its variance as :meth:`SpatialErrors.macro_auroc` finds it."""
    values, moved, each = [], [], []
    for name in truth:
        if name not in one or name not in other:
            continue
        a, b = one[name].to_numpy(np.float64), other[name].to_numpy(np.float64)
        used = np.asarray(truth[name].notna()) & np.isfinite(a) & np.isfinite(b)
        present = truth[name].fillna(value=False).astype(bool).to_numpy() & used
        if not 0 < present.sum() < used.sum():
            continue
        values.append(roc.auroc(a[used], present[used]) - roc.auroc(b[used], present[used]))
        influence = np.zeros(len(used))
        influence[used] = roc.influence(a[used], present[used]) - roc.influence(b[used], present[used])
        moved.append(influence * len(used) / used.sum())
        each.append(errors.auroc(a, present, b, used).variance)
    if not values:
        return np.nan, Uncertainty(0.0, 1.0, 0.0)
    together = errors.influence(np.mean(moved, axis=0))
    variance = max(together.variance, float(np.sum(each)) / len(each) ** 2)
    return float(np.mean(values)), Uncertainty(variance, together.df, together.parts)


def over_sections(table: pd.DataFrame) -> pd.DataFrame:
    """Mean difference of each split, with an interval.

    Parameters
    ----------
    table
        Results of :func:`paired`, with the columns ``split`` and ``test``.

    Returns
    -------
    Columns ``split``, ``method``, ``against``, ``difference``, ``low``, ``high``, ``over`` and ``effective_rank``. The interval is over
    the sections of the split (Student's t) where there are three or more, and over the spots of its section otherwise.
    """
    rows = []
    for (split, method, against), part in table.groupby(["split", "method", "against"], sort=False):
        values = part["difference"].to_numpy(np.float64)
        mean = float(values.mean())
        several = len(values) >= 3
        low, high = (
            over_units(values, np.arange(len(values))).interval(mean, within=(-1, 1))
            if several
            else part[["low", "high"]].iloc[0]
        )
        over = f"{len(values)} sections" if several else "spots"
        rows.append((split, method, against, mean, low, high, over, part["effective_rank"].mean()))
    columns = ["split", "method", "against", "difference", "low", "high", "over", "effective_rank"]
    return pd.DataFrame(rows, columns=columns)


def null_p_values(table: pd.DataFrame, nulls: Mapping[str, str]) -> pd.DataFrame:
    """How often shuffled image–gene pairs rank a class as well as the method does.

    Parameters
    ----------
    table
        AUROCs with the columns ``split``, ``test``, ``class``, ``method``, ``truth`` and ``auroc``.
    nulls
        Method -> the method whose runs are draws of its null distribution.

    Returns
    -------
    Columns ``split``, ``test``, ``method``, ``class``, ``auroc``, ``null_q95`` and ``p``: one plus the number of draws that are at least as
    high, over one plus the number of draws.
    """
    place = ["split", "test", "class"]
    rows = []
    for method, null in nulls.items():
        draws = {key: part["auroc"].to_numpy() for key, part in table[table["method"] == null].groupby(place)}
        for key, part in table[(table["method"] == method) & (table["truth"] == "all")].groupby(place, sort=False):
            split, test, name = map(str, key)
            value = float(part["auroc"].mean())
            p = (1 + (draws[key] >= value).sum()) / (1 + len(draws[key]))
            rows.append((split, test, method, name, value, float(np.quantile(draws[key], 0.95)), p))
    return pd.DataFrame(rows, columns=["split", "test", "method", "class", "auroc", "null_q95", "p"])
