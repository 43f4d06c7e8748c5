"""Standardising features: z-scores within sections or by training statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

CLIP = 6.0
"""Standardised features are clipped at this absolute value; a few artefacts would otherwise dominate a linear fit."""

MIN_ROWS = 20
"""Sections with fewer complete rows are standardised by training statistics, because their own would be too noisy."""


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the rows without NaN, both float32 of shape (d,); a constant feature gets 1.

    Raises
    ------
    ValueError
        If every row holds NaN.
    """
    complete = features[np.isfinite(features).all(axis=1)]
    if not len(complete):
        raise ValueError("All rows of these features hold NaN; there is nothing to standardise by.")
    mean = complete.mean(axis=0, dtype=np.float64)
    std = complete.std(axis=0, dtype=np.float64)
    tiny = std <= 1e-7 * np.maximum(1.0, np.abs(mean))
    return mean.astype(np.float32), np.where(tiny, 1.0, std).astype(np.float32)


def standardize(
    features: np.ndarray,
    *,
    how: str,
    mean: np.ndarray,
    std: np.ndarray,
    sections: Sequence[Any] | np.ndarray | None = None,
    clip: float = CLIP,
) -> np.ndarray:
    """Z-scores within each section, by training statistics, or not at all.

    Parameters
    ----------
    features
        Shape (n, d); rows with NaN stay NaN.
    how
        "section" (z-scores within each section), "global" (by training statistics) or "none".
    mean, std
        Training statistics, shape (d,).
    sections
        Section of each row, shape (n,); ``None`` is one section.
    clip
        Largest absolute value of the result.

    Returns
    -------
    float32 of shape (n, d).

    Raises
    ------
    ValueError
        If ``how`` is unknown.
    """
    if how == "none":
        return np.asarray(features, dtype=np.float32)
    if how == "global":
        return np.clip((features - mean) / std, -clip, clip).astype(np.float32)
    if how != "section":
        raise ValueError(f"standardize must be 'section', 'global' or 'none', not {how!r}.")
    codes = (
        np.zeros(len(features), int) if sections is None else np.unique(np.asarray(sections), return_inverse=True)[1]
    )
    out = np.empty(features.shape, np.float32)
    for code in range(codes.max(initial=-1) + 1):
        rows = codes == code
        enough = np.isfinite(features[rows]).all(axis=1).sum() >= MIN_ROWS
        m, s = statistics(features[rows]) if enough else (mean, std)
        out[rows] = np.clip((features[rows] - m) / s, -clip, clip)
    return out
