"""Labels do not depend on how the pixels of a section are stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from tests.pyramids import computed

if TYPE_CHECKING:
    from pathlib import Path


def slide(pixels: np.ndarray, xy: np.ndarray, mpp: float, factors: list[int] | None = None) -> Any:
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Scale

    systems = {"microns": Scale([mpp, mpp], axes=("x", "y"))}
    chunks = da.from_array(np.moveaxis(pixels, -1, 0), chunks=(3, 1024, 1024))
    image = computed(
        Image2DModel.parse(chunks, c_coords=["r", "g", "b"], transformations=systems, scale_factors=factors)
    )
    obs = pd.DataFrame({"where": pd.Categorical(["spots"] * len(xy)), "which": np.arange(len(xy))})
    table = ad.AnnData(np.zeros((len(xy), 1), np.float32), obs=obs.set_index(obs["which"].astype(str).to_numpy()))
    return SpatialData(
        images={"he": image},
        shapes={"spots": ShapesModel.parse(xy, geometry=0, radius=10.0, transformations=systems)},
        tables={"table": TableModel.parse(table, region="spots", region_key="where", instance_key="which")},
    )


def labels(*arguments: Any) -> np.ndarray:
    return np.asarray(sw.tl.zero_shot_annotate(slide(*arguments), modality="image", inplace=False)).argmax(axis=1)


@pytest.mark.slow
def test_a_flat_image_a_pyramid_and_a_finer_copy_have_the_same_labels(data_folder: Path) -> None:
    from PIL import Image

    folder = data_folder / "her2st" / "C4"
    meta = json.loads((folder / "meta.json").read_text())
    xy, mpp = np.asarray(ad.read_h5ad(folder / "counts.h5ad").obsm["spatial"], float), meta["um_per_px"]
    corner = (np.median(xy, axis=0) - 1900).astype(int)
    with Image.open(folder / meta["image"]) as opened:
        # an odd size, which leaves a pixel over at every level
        picture = opened.convert("RGB").crop((*corner, *(corner + 3801)))
    xy = xy[((xy > corner) & (xy < corner + 3801)).all(axis=1)] - corner
    pixels = np.asarray(picture)
    flat = labels(pixels, xy, mpp)
    assert len(flat) > 100
    assert len(np.unique(flat)) >= 3
    assert (labels(pixels, xy, mpp, [2, 2]) == flat).mean() >= 0.995
    fine = pixels.repeat(2, axis=0).repeat(2, axis=1)
    assert (labels(fine, 2 * xy, mpp / 2, [2, 2, 2]) == flat).mean() >= 0.995
    smooth = np.asarray(picture.resize((7602, 7602), Image.Resampling.BICUBIC))
    assert (labels(smooth, 2 * xy, mpp / 2) == flat).mean() >= 0.97
