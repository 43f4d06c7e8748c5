"""Images whose pixels are no squares have the features of the image with square pixels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest

import spatialwhisperer as sw

if TYPE_CHECKING:
    from pathlib import Path


def squeezed(pixels: np.ndarray, x: int, y: int) -> np.ndarray:
    """Means of ``x`` times ``y`` pixels."""
    _, height, width = pixels.shape
    means = pixels.reshape(3, height // y, y, width // x, x).mean(axis=(2, 4))
    return np.rint(means).astype(np.uint8)


@pytest.mark.parametrize("place", ["microns", "S"])
@pytest.mark.slow
def test_features_of_a_squeezed_image_are_those_of_the_image(data_folder: Path, place: str) -> None:
    from PIL import Image
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale

    folder = data_folder / "her2st" / "C4"
    meta = json.loads((folder / "meta.json").read_text())
    xy = np.asarray(ad.read_h5ad(folder / "counts.h5ad").obsm["spatial"], float)
    left, top = (np.median(xy, axis=0) - 750).astype(int)
    with Image.open(folder / meta["image"]) as opened:
        pixels = np.moveaxis(np.asarray(opened.convert("RGB").crop((left, top, left + 1500, top + 1500))), -1, 0)
    found = {}
    for x, y in ((1, 1), (2, 1), (1, 2)):
        scale = np.array([x, y], float) * (meta["um_per_px"] if place == "microns" else 1.0)
        image = Image2DModel.parse(
            squeezed(pixels, x, y), c_coords=["r", "g", "b"], transformations={place: Scale(scale, axes=("x", "y"))}
        )
        sdata = SpatialData(images={"he": image})
        known = {} if place == "microns" else {"mpp": meta["um_per_px"] * (x * y) ** 0.5}
        sw.pp.tiles(sdata, at="grid", tile_um=100, tissue=None, **known)
        sw.pp.embed_images(sdata, tile_um=100, tile_px=48)
        found[x, y] = np.asarray(sdata["sw_tiles"].obsm["X_stain_texture"])
        # squares in microns, whatever the pixels are
        widths = np.ptp(sdata["he_tiles"].geometry.bounds.to_numpy()[0].reshape(2, 2), axis=0) * scale
        assert widths[0] == pytest.approx(widths[1])
    for other in ((2, 1), (1, 2)):
        with np.errstate(invalid="ignore"):
            r = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(found[1, 1].T, found[other].T, strict=True)])
        assert np.nanmedian(r) > 0.98
        assert np.nanquantile(r, 0.05) > 0.8
