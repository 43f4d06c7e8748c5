"""Caption agreement: how well images rank the rows of a section as the fixed bridge modality does. It needs no label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from collections.abc import Sequence

QUANTILE = 0.75
"""A caption counts as true in the rows whose score of the fixed side lies above this quantile of their section."""

FEWEST_ROWS = 8
"""A section with fewer rows is not scored: its top quartile would be a single row."""


def caption_agreement(image: np.ndarray, fixed: np.ndarray, sections: np.ndarray) -> float:
    """Mean over captions of the AUROC of the image score against the top quartile of the fixed side's score of the same row.

    It is computed within each section and averaged over sections.

    Parameters
    ----------
    image, fixed
        Scores of the rows for each caption, shape (n, c): of the image, and of the fixed embedding of the same rows.
    sections
        Section of each row, shape (n,).

    Returns
    -------
    The agreement, .5 for scores that have nothing in common; NaN where no section has enough rows and a caption that varies.
    """
    names = np.unique(sections)
    values = [_section_agreement(image[sections == s], fixed[sections == s]) for s in names]
    defined = [v for v in values if np.isfinite(v)]
    return float(np.mean(defined)) if defined else float("nan")


def _section_agreement(image: np.ndarray, fixed: np.ndarray) -> float:
    if len(fixed) < FEWEST_ROWS:
        return float("nan")
    present = fixed > np.quantile(fixed, QUANTILE, axis=0)
    known = present.any(axis=0)
    return float(np.mean(_aurocs(image[:, known], present[:, known]))) if known.any() else float("nan")


def _aurocs(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """AUROC of each column, by the sum of ranks; ties count half."""
    n_present = present.sum(axis=0)
    ranks = rankdata(scores, axis=0)
    above = (ranks * present).sum(axis=0) - n_present * (n_present + 1) / 2
    return np.asarray(above / (n_present * (len(present) - n_present)))


def units_agreement(
    image: np.ndarray, fixed: np.ndarray, sections: np.ndarray, units: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """The agreement of each unit (patient or section), in the order of the names, shape (number of names,)."""
    inside = [units == name for name in names]
    return np.array([caption_agreement(image[at], fixed[at], sections[at]) for at in inside])
