"""Drawn slides: ellipses of haematoxylin on eosin, whose number, places and areas are known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


class Drawn(NamedTuple):
    """An image, uint8 (3, height, width), and centres (x, y) in pixels and areas in square microns of its nuclei."""

    image: np.ndarray
    centres: np.ndarray
    area_um2: np.ndarray


def draw(
    height: int, width: int, *, mpp: float = 0.5, pitch_um: float = 20.0, seed: int = 0, noise: float = 3.0
) -> Drawn:
    """Draw one ellipse in each cell of a grid, with tissue everywhere but in the upper fifth."""
    rng = np.random.default_rng(seed)
    step = pitch_um / mpp
    x, y = (
        a.ravel()
        for a in np.meshgrid(np.arange(step, width - step, step), np.arange(height / 5 + step, height - step, step))
    )
    x, y = x + rng.uniform(-2, 2, len(x)) / mpp, y + rng.uniform(-2, 2, len(y)) / mpp
    long, short, angle = (
        rng.uniform(3.5, 6, len(x)) / mpp,
        rng.uniform(2.5, 3.4, len(x)) / mpp,
        rng.uniform(0, np.pi, len(x)),
    )
    stain = np.zeros((height, width))
    for a, b, c, d, e in zip(x, y, long, short, angle, strict=True):
        r = int(c) + 3
        rows, columns = slice(max(int(b) - r, 0), int(b) + r), slice(max(int(a) - r, 0), int(a) + r)
        v, u = np.mgrid[rows, columns]
        u, v = u + 0.5 - a, v + 0.5 - b
        p, q = u * np.cos(e) + v * np.sin(e), v * np.cos(e) - u * np.sin(e)
        part = stain[rows, columns]
        part[(p / c) ** 2 + (q / d) ** 2 <= 1] = rng.uniform(0.7, 1.0)
    stain = gaussian_filter(stain, 0.4 / mpp)
    tissue = np.where(np.arange(height) > height / 5, 0.15, 0.0)[:, None]
    density = stain[..., None] * HAEMATOXYLIN + tissue[..., None] * EOSIN
    pixels = 240 * 10**-density + rng.normal(0, noise, (height, width, 3))
    return Drawn(
        np.moveaxis(pixels.clip(0, 255).astype(np.uint8), -1, 0).copy(),
        np.column_stack([x, y]),
        np.pi * long * short * mpp**2,
    )


def slide_of(image: np.ndarray, *, mpp: float | None = 0.5, name: str = "he", chunks: int | None = None) -> Any:
    """The image as a slide without a table."""
    import dask.array as da
    import spatialdata as sd
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity, Scale

    systems: dict[str, Any] = {name: Identity()} | ({} if mpp is None else {"microns": Scale([mpp, mpp], ("x", "y"))})
    pixels = image if chunks is None else da.from_array(image, chunks=(3, chunks, chunks))
    element = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=systems)
    return sd.SpatialData(images={name: element})


def found_at(frame: Any, centres: np.ndarray) -> np.ndarray:
    """Number of the shape around each centre, -1 where there is none."""
    import shapely

    points, shapes = shapely.STRtree(frame.geometry.to_numpy()).query(shapely.points(centres), predicate="within")
    out = np.full(len(centres), -1)
    out[points] = shapes
    return out
