"""Rows that get no label because their tissue is unlike the training tissue, and why any row has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import listing
from spatialwhisperer.statistics.standardize import MIN_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models.reference import Reference
    from spatialwhisperer.tl._annotation.range.training_range import SectionRange

SECTION, ROW = "section out of range", "row out of range"
NO_EMBEDDING, CONFIDENCE, MARGIN = "no embedding", "below min_confidence", "below min_margin"
RARE = "label below min_rows"

REASONS = (NO_EMBEDDING, SECTION, ROW, CONFIDENCE, MARGIN, RARE)
"""Why a row has no label; of several reasons the first."""

NOT_HELD = (
    "This model does not hold the distances of left-out training tissue, so that no row abstains because of its tissue. Models with "
    "a frozen image encoder hold them when they are trained anew."
)


@dataclass(frozen=True)
class RowRange:
    """How the tiles of rows compare with the training tissue.

    Attributes
    ----------
    distance
        Distance from the nearest training section, in standard deviations of training rows, float32, shape (n,); NaN where there is
        no tile (:meth:`~spatialwhisperer.models.reference.Reference.row_distance`).
    limit
        Distance above which a row is out of range.
    section
        Rows of sections that are out of range as a whole, Boolean, shape (n,).
    """

    distance: np.ndarray
    limit: float
    section: np.ndarray

    @property
    def row(self) -> np.ndarray:
        """Rows that are out of range by themselves, Boolean, shape (n,)."""
        return self.distance > self.limit

    @property
    def outside(self) -> np.ndarray:
        """Rows that are out of range, by themselves or with their section, Boolean, shape (n,)."""
        return self.section | self.row


def row_ranges(
    reference: Reference | None, features: np.ndarray | None, sections: np.ndarray, ranges: Sequence[SectionRange]
) -> RowRange | None:
    """Compare rows and their sections with the training tissue.

    Parameters
    ----------
    reference
        That of a trained model.
    features
        Raw image features, shape (n, d); ``None`` where the image encoder is trained with the model.
    sections
        Section of each row, shape (n,).
    ranges
        Of each section.

    Returns
    -------
    ``None`` where the model does not tell: it trained its image encoder, or it was made before these distances were measured.
    """
    limit = None if reference is None else reference.row_limit()
    if features is None or reference is None or limit is None:
        return None
    out = [one.name for one in ranges if verdict(one) == "out of range"]
    distance = reference.row_distance(features)
    return RowRange(distance, limit, np.isin(np.asarray(sections).astype(str), out) & np.isfinite(distance))


def verdict(one: SectionRange) -> str:
    """Whether a section as a whole is like the training sections: "in range", "out of range" or "too few rows"."""
    if one.look is not None and one.limit is not None and one.look > one.limit:
        return "out of range"
    if one.distance is None or one.limit is None or one.n_tissue < MIN_ROWS:
        return "too few rows"
    return "out of range" if one.distance > one.limit else "in range"


def report(found: RowRange | None, ranges: Sequence[SectionRange], min_confidence: float = 0.0) -> str | None:
    """One line on the rows that get no label because of their tissue; ``None`` where there are none.

    Parameters
    ----------
    found, ranges
        How rows and sections compare with the training tissue.
    min_confidence
        Confidence below which rows get no label either.
    """
    if found is None or not found.outside.any():
        return None
    parts = []
    if found.section.any():
        out = [
            f"{r.name} ({r.distance:.1f})" for r in ranges if r.distance is not None and verdict(r) == "out of range"
        ]
        limit = next(r.limit for r in ranges if r.limit is not None)
        parts.append(
            f"{_rows(int(found.section.sum()))} of sections whose distance is above the limit of {limit:.1f} standard deviations: "
            f"{listing(out, 5)}."
        )
    alone = int((found.row & ~found.section).sum())
    if alone:
        further = "further " if parts else ""
        parts.append(f"{_rows(alone, further)} above the limit of single rows, {found.limit:.1f} standard deviations.")
    # their confidence may be too low as well
    remedy = (
        "unknown='label' labels those of them that are sure enough, and together with min_confidence=0 all of them."
        if min_confidence > 0
        else "unknown='label' labels these rows nevertheless."
    )
    return (
        f"{int(found.outside.sum())} of {len(found.distance)} rows get no label, because their images are unlike the training "
        f"tissue. {' '.join(parts)} sw.tl.tissue_range reports the distances; {remedy}"
    )


def _rows(n: int, further: str = "") -> str:
    return f"{n} {further}{'row is' if n == 1 else 'rows are'}"


def reasons(code: np.ndarray, labelled: np.ndarray, found: RowRange | None, low: np.ndarray) -> np.ndarray:
    """Why each row has no label, ``None`` where it has one; object array of shape (n,).

    Parameters
    ----------
    code
        Best label of each row, -1 where it has no embedding, shape (n,).
    labelled
        Which rows have a label.
    found
        Rows that are out of range, where that was asked.
    low
        Which of the other rows are below the smallest confidence, shape (n,).
    """
    out = np.where(low, CONFIDENCE, MARGIN).astype(object)
    if found is not None:
        out[found.row] = ROW
        out[found.section] = SECTION
    out[code < 0] = NO_EMBEDDING
    out[labelled] = None
    return out
