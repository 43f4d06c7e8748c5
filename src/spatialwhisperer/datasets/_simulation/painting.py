"""The H&E image of a simulated section: stain colours of the patient, textures, and the order of painting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from spatialwhisperer.datasets._simulation.tissue import DARK, GRID_UM, VESICULAR, stain_maps

if TYPE_CHECKING:
    from spatialwhisperer.datasets._simulation.tissue import Cells, Tissue

# optical densities of R, G, B: haematoxylin, eosin
STAINS = np.array([[0.65, 0.70, 0.29], [0.09, 0.95, 0.30]])
TEXTURE_PX = 1024


def _texture(rng: np.random.Generator, sigma: float) -> np.ndarray:
    noise = gaussian_filter(rng.standard_normal((TEXTURE_PX, TEXTURE_PX)), sigma, mode="wrap")
    return (noise / noise.std()).astype(np.float32)


def paint_section(
    rng: np.random.Generator,
    tissue: Tissue,
    cells: Cells,
    *,
    size_px: int,
    mpp: float,
    stain_sd: float,
) -> np.ndarray:
    """Return the section's image, uint8 (3, size_px, size_px)."""
    from spatialwhisperer.datasets._simulation import kernels

    haem = np.empty((size_px, size_px), dtype=np.float32)
    eosin = np.empty_like(haem)
    fine, coarse = _texture(rng, 0.7), _texture(rng, max(0.7, 2.2 / mpp))
    kernels.paint_background(haem, eosin, fine=fine, coarse=coarse, px_per_cell=GRID_UM / mpp, **stain_maps(tissue))
    n_holes = len(tissue.holes_um)
    # two waves that dent the outline, and whether there is blood inside
    wobble = np.column_stack(
        [
            rng.uniform(0.02, 0.10, n_holes),
            rng.uniform(0, 2 * np.pi, n_holes),
            rng.uniform(-0.05, 0.05, n_holes),
            rng.random(n_holes) < 0.65,
        ]
    )
    kernels.paint_discs(
        haem, eosin, tissue.holes_um / mpp, tissue.hole_radius_um / mpp, tissue.hole_kind, wobble, 1.6 / mpp, fine
    )
    n = len(cells.kind)
    kernels.paint_nuclei(
        haem,
        eosin,
        cells.xy / mpp,
        cells.long / mpp,
        cells.short / mpp,
        cells.angle,
        DARK[cells.kind] * np.exp(rng.normal(0, 0.14, n)),
        VESICULAR[cells.kind] * rng.uniform(0.5, 1.0, n),
        fine,
    )
    vectors = STAINS * np.exp(rng.normal(0, stain_sd / 3, STAINS.shape)) * np.exp(rng.normal(0, stain_sd, (2, 1)))
    background = np.array([243.0, 241.0, 244.0]) + rng.uniform(-3, 3, 3)
    rgb = np.empty((3, size_px, size_px), dtype=np.uint8)
    kernels.stain(rgb, haem, eosin, vectors, background, fine, 2.0)
    return rgb
