"""Rows of a slide that are observations of a model's bank of expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from spatialwhisperer._access.table.fingerprints import row_ids

if TYPE_CHECKING:
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.models.expression.predictor import ExpressionPredictor

LEAST = 0.05
"""Fraction of the rows of a section, or of the observations of one in the bank, that must be the same: a few may be by chance."""


class Own(NamedTuple):
    """What the bank holds of the rows of a slide.

    Attributes
    ----------
    known
        Which rows are observations of the bank, Boolean, shape (n,).
    section, group
        Code of their section and patient in the bank, shape (n,), -1 for rows that have none there. Where the bank holds most rows of
        a section, the others have the codes of these: they are of the same tissue.
    """

    known: np.ndarray
    section: np.ndarray
    group: np.ndarray


def own_observations(slide: Slide, predictor: ExpressionPredictor) -> Own:
    """Find rows in the bank by their names and positions."""
    section, group = np.full((2, slide.n_rows), -1)
    if "row" not in predictor.arrays:
        return Own(section >= 0, section, group)
    found = _found(slide, predictor)
    section[found["at"]], group[found["at"]] = found["section"], found["group"]
    known = section >= 0
    for _, rows in found.groupby("own"):
        others = (slide.sections == slide.sections[rows["at"].iloc[0]]) & ~known
        if others.sum() <= len(rows):
            section[others], group[others] = rows["section"].mode()[0], rows["group"].mode()[0]
    return Own(known, section, group)


def _found(slide: Slide, predictor: ExpressionPredictor) -> pd.DataFrame:
    """Position, section and patient of each row that the bank holds; of several, in the section that holds most of the others."""
    codes = pd.factorize(slide.sections)[0]
    bank = pd.DataFrame({"id": predictor.arrays["row"], **{k: predictor.arrays[k] for k in ("section", "group")}})
    rows = pd.DataFrame({"at": np.arange(len(codes)), "id": row_ids(slide), "own": codes})
    pairs = rows.merge(bank, on="id")
    n = pairs.groupby(["own", "section"])["at"].transform("nunique").to_numpy()
    sizes = np.bincount(codes), np.bincount(bank["section"])
    smaller = np.minimum(sizes[0][pairs["own"]], sizes[1][pairs["section"]])
    pairs = pairs.assign(n=n)[n >= LEAST * smaller]
    return pairs.sort_values("n", ascending=False, kind="stable").drop_duplicates("at")
