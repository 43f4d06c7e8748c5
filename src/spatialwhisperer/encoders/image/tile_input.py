"""The one check that every image encoder makes of its input."""

from __future__ import annotations

import numpy as np


def check_tiles(tiles: np.ndarray, mpp: float, *, smallest: int = 1) -> np.ndarray:
    """Return tiles as a uint8 array (n, 3, p, p), or say what is wrong with them or with `mpp`."""
    tiles = np.asarray(tiles)
    if tiles.dtype != np.uint8:
        raise TypeError(
            f"Tiles must be uint8 intensities of 0 to 255, not {tiles.dtype}. "
            "For floats in [0, 1] pass np.rint(tiles * 255).astype('uint8')."
        )
    if tiles.ndim != 4 or tiles.shape[1] != 3 or tiles.shape[2] != tiles.shape[3]:
        hint = " Channels come first: tiles.transpose(0, 3, 1, 2)." if tiles.ndim == 4 and tiles.shape[-1] == 3 else ""
        raise ValueError(f"Tiles must have the shape (n, 3, p, p), not {tiles.shape}.{hint}")
    if tiles.shape[-1] < smallest:
        raise ValueError(
            f"This encoder needs tiles of at least {smallest} px, not {tiles.shape[-1]} px; cut larger ones."
        )
    if not (np.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp is microns per pixel and must be positive, not {mpp!r}.")
    return tiles
