"""Which image features are like those of the training tissue: distances, and the limits that left-out training tissue sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from spatialwhisperer.encoders.image.stain import TISSUE_FRACTION
from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

Unseen = Literal["groups", "sections", "rows"]
"""What was left out of the training tissue to measure distances: patients, sections or rows."""

FAR = 2.0
"""Distance beyond which a section is unlike the training sections, where these are of one patient."""

LEAST = 1.0
"""No section is called unlike the training sections when its mean differs by less than the rows of one section do."""

LEAST_LOOK = 1.25
"""The same for what the encoder saw of whole images, which differs more between two images of the same tissue."""

MARGIN = 1.5
"""A new section may lie this much further away than the furthest section of a patient that was left out."""

UNSEEN_ROWS = 0.975
"""Quantile of the distance of rows that were left out, beyond which a row is unlike the training rows.

``python -m spatialwhisperer.protocols guard`` measures how many rows of a patient lie beyond the limit of another (column "two
patients").
"""

ONE_PATIENT = 1.25
"""What the limit of rows is multiplied by where all training sections are of one patient.

Rows of a new patient lie further away than those of a known one. ``python -m spatialwhisperer.protocols guard`` measures what this
leaves (column "one patient").
"""

QUANTILES = np.linspace(0, 1, 401)
"""Which quantiles of the distance of rows are stored."""

_LARGEST = 10.0
_CHUNK = 256


def nearest(points: np.ndarray, centres: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Root mean square difference of each point to its nearest centre, in standard deviations, each cut off at ten.

    Parameters
    ----------
    points, centres
        Shapes (n, d) and (s, d).
    sd
        Standard deviations, shape (d,).

    Returns
    -------
    float64 of shape (n,).
    """
    out = np.empty(len(points))
    # differences are taken in double precision once; what follows fits into the cache in single precision
    offsets = ((centres - centres[0]) / sd).astype(np.float32)
    for start in range(0, len(points), _CHUNK):
        first = ((points[start : start + _CHUNK] - centres[0]) / sd).astype(np.float32)
        best = np.full(len(first), np.inf, np.float32)
        for offset in offsets:
            z = first - offset
            np.clip(z, -_LARGEST, _LARGEST, out=z)
            np.minimum(best, np.einsum("ij,ij->i", z, z), out=best)
        out[start : start + _CHUNK] = np.sqrt(best / len(sd))
    return out


def on_tissue(features: np.ndarray, encoder: str | None) -> np.ndarray:
    """Which rows have a complete tile on tissue, from their features (n, d) by an encoder; Boolean, shape (n,)."""
    complete = np.isfinite(features).all(axis=1)
    if encoder != "stain_texture":
        return complete
    # of several tile sizes the first is taken; the feature is the square root of the fraction
    fraction = features[:, StainTextureEncoder().feature_names().index("tissue_fraction")]
    return complete & (np.nan_to_num(fraction) >= np.sqrt(TISSUE_FRACTION))


def image_scale(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and the pooled standard deviation of sections, from their means and standard deviations, shape (s, d).

    The standard deviation of a constant feature is 1.
    """
    centres = mean.astype(np.float64)
    sd = np.sqrt((std.astype(np.float64) ** 2).mean(axis=0))
    tiny = sd <= 1e-6 * np.maximum(1.0, np.abs(centres).max(axis=0))
    return centres, np.where(tiny, 1.0, sd)


def unseen_distances(
    parts: Sequence[np.ndarray], groups: Sequence[str], mean: np.ndarray, std: np.ndarray
) -> tuple[Unseen, np.ndarray, np.ndarray]:
    """Distances of training tissue from the rest of it, when its patient is left out.

    Parameters
    ----------
    parts
        Raw features of some rows of each section, shape (n_i, d).
    groups
        Patient of each section. Where there is only one, its sections are left out in turn; where there is only one section, its
        rows are compared with their own mean.
    mean, std
        Statistics of the sections, shape (s, d).

    Returns
    -------
    What was left out ("groups", "sections" or "rows"); `QUANTILES` of the distance of rows, each patient with the same weight; and
    the distance of each section, 0 where only rows were compared.
    """
    kind: Unseen = "groups" if len(set(groups)) > 1 else "sections" if len(parts) > 1 else "rows"
    units = np.asarray(groups) if kind == "groups" else np.arange(len(parts))
    rows, weights, sections = [], [], np.zeros(len(parts), np.float32)
    for unit in dict.fromkeys(units.tolist()):
        inside = np.flatnonzero(units == unit)
        rest = np.flatnonzero(units != unit) if kind != "rows" else inside
        centres, sd = image_scale(mean[rest], std[rest])
        own = [nearest(parts[i], centres, sd) for i in inside.tolist()]
        n = sum(len(d) for d in own)
        rows += own
        weights += [np.full(len(d), 1 / n) for d in own]
        if kind != "rows":
            sections[inside] = nearest(mean[inside].astype(np.float64), centres, sd)
    return kind, _quantiles(np.concatenate(rows), np.concatenate(weights)).astype(np.float32), sections


def look_scale(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and the pooled standard deviation of what the encoder saw of images: means, then standard deviations, shape (s, 2 d)."""
    means, deviations = np.split(looks, 2, axis=1)
    return image_scale(means, deviations)


def unseen_looks(looks: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Distance of what was seen of each image from those of other patients, of one patient from other sections, shape (s,)."""
    units = np.asarray(groups) if len(set(groups)) > 1 else np.arange(len(looks)).astype(str)
    out = np.zeros(len(looks), np.float32)
    for at, unit in enumerate(units):
        if (units != unit).any():
            centres, sd = look_scale(looks[units != unit])
            out[at] = nearest(looks[at : at + 1, : looks.shape[1] // 2], centres, sd)[0]
    return out


def row_limit(quantiles: np.ndarray, *, patients: bool) -> float:
    """Distance beyond which a row is unlike the training rows, from the quantiles of rows that were left out."""
    limit = float(np.interp(UNSEEN_ROWS, np.linspace(0, 1, len(quantiles)), quantiles))
    return limit if patients else ONE_PATIENT * limit


def section_limit(distances: np.ndarray) -> float:
    """Distance beyond which a section is unlike the training sections, from those of patients that were left out."""
    return max(LEAST, MARGIN * float(np.max(distances)))


def _quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted quantiles: the value below which half of its own weight and all smaller ones lie, linear in between."""
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    below = np.cumsum(weights) - weights / 2
    return np.interp(QUANTILES, below / weights.sum(), values)
