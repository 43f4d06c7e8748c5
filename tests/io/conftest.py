"""Files of slides as people have them, made on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData


def some_tissue(height: int = 300, width: int = 400, seed: int = 0) -> np.ndarray:
    """A white slide with a pink, textured ellipse: uint8, shape (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (0.38 * height)) ** 2 + ((x - width / 2) / (0.38 * width)) ** 2 < 1
    pixels = np.full((height, width, 3), 245, np.uint8)
    pixels[inside] = (np.array([190, 120, 170]) + rng.normal(0, 18, (int(inside.sum()), 3))).clip(0, 255)
    return pixels


@pytest.fixture(scope="session")
def tissue() -> np.ndarray:
    return some_tissue()


@pytest.fixture
def slide_file(tmp_path: Path) -> Path:
    """A TIFF with a resolution of 0.5 µm per pixel."""
    import tifffile

    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, some_tissue(900, 1200), photometric="rgb", resolution=(20_000, 20_000), resolutionunit=3)
    return path


def pixels_of(sdata: SpatialData, name: str | None = None) -> np.ndarray:
    """The finest level of the image, shape (y, x, 3)."""
    element: Any = sdata.images[name or next(iter(sdata.images))]
    array = element["scale0"]["image"] if hasattr(element, "children") else element
    return np.moveaxis(array.to_numpy(), 0, -1)


def mpp_of(sdata: SpatialData) -> float | None:
    """Microns per pixel that the package finds."""
    from spatialwhisperer._access.sections.regions import image_scales

    found = image_scales(sdata, next(iter(sdata.images)))
    return found[0].mpp if found else None
