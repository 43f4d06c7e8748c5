"""Features of the concentric windows of a tile, from the nuclei whose centroids lie in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer.encoders.image._nuclei.table import AREA, MEASURES, X, Y

if TYPE_CHECKING:
    from spatialwhisperer.encoders.image._nuclei.table import Nuclei
    from spatialwhisperer.encoders.image._nuclei.words import NucleusWords

WINDOWS_UM = (100.0, 154.0, 300.0)
"""Edges of the windows."""

FEWEST = 3
"""Nuclei that a window needs for features other than counts."""

COUNT, MEDIAN_AREA, LYMPHOCYTES = "log_nuclei_per_mm2", "log_median_area_um2", "lymphocyte_like_fraction"
"""Features of a window that people read."""

# stain of nuclei and of the rings around them
_MEANS = tuple(range(MEASURES.index("h"), MEASURES.index("contrast") + 1))
_LOG_AREA, _AXIS, _CIRCULARITY = (MEASURES.index(name) for name in ("log_area", "axis_ratio", "circularity"))
# areas of the mask, which reaches 0.5 µm beyond nuclei: 13 to 38 µm² without that
_LYMPHOCYTE_UM2, _LYMPHOCYTE_AXIS = (20.0, 50.0), 0.65
_N_OWN = 4


def names(n_words: int) -> list[str]:
    """Names of the features: those that people read, then means, then words; of the smallest window first."""
    out = []
    for um in WINDOWS_UM:
        own = [COUNT, MEDIAN_AREA, LYMPHOCYTES, "nuclear_area_fraction"]
        own += [f"mean_{MEASURES[k]}" for k in _MEANS]
        own += [f"word{k}_density" for k in range(n_words)] + [f"word{k}_fraction" for k in range(n_words)]
        out += [f"{name}_{um:g}um" for name in own]
    return out


def describe(nuclei: Nuclei, words: NucleusWords, edge_px: int, mpp: float) -> np.ndarray:
    """Features of one tile.

    Parameters
    ----------
    nuclei
        Nuclei of the tile.
    words
        Words of nuclei.
    edge_px, mpp
        Edge of the tile, and microns per pixel.

    Returns
    -------
    float32 (d,); NaN where a window holds fewer than three nuclei, counts and densities excepted.
    """
    places, measures = nuclei
    resemblance = words.resemblance(measures)
    lymphocytes = is_lymphocyte_like(measures, words.centre)
    away = from_centre(nuclei, edge_px) * mpp
    first = _N_OWN + len(_MEANS)
    fractions = first + resemblance.shape[1]
    out = []
    for um in WINDOWS_UM:
        inside = away < um / 2
        n, mm2 = int(inside.sum()), (um / 1000) ** 2
        own = np.full(fractions + resemblance.shape[1], np.nan)
        own[0] = np.log1p(n / mm2)
        own[3] = places[inside, AREA].sum() * (mpp / um) ** 2
        # square roots even out the variance of counts
        own[first:fractions] = np.sqrt(resemblance[inside].sum(axis=0) / mm2)
        if n >= FEWEST:
            own[1], own[2] = np.median(measures[inside, _LOG_AREA]), lymphocytes[inside].mean()
            own[_N_OWN:first] = measures[inside][:, _MEANS].mean(axis=0)
            own[fractions:] = resemblance[inside].mean(axis=0)
        out.append(own)
    return np.concatenate(out).astype(np.float32)


def from_centre(nuclei: Nuclei, edge_px: int) -> np.ndarray:
    """Distance of each nucleus from the centre of a tile, along rows or columns, whichever is larger, in pixels."""
    return np.abs(nuclei.places[:, [X, Y]] - (edge_px - 1) / 2).max(axis=1)


def is_lymphocyte_like(measures: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Which nuclei are small and round.

    They have 20 to 50 µm² in the mask, an axis ratio of at least 0.65, and at least the median circularity of the training.
    """
    least, most = np.log(_LYMPHOCYTE_UM2)
    small = (measures[:, _LOG_AREA] >= least) & (measures[:, _LOG_AREA] <= most)
    return small & (measures[:, _AXIS] >= _LYMPHOCYTE_AXIS) & (measures[:, _CIRCULARITY] >= centre[_CIRCULARITY])
