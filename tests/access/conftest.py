"""Small objects, built piece by piece: an image of 100 x 60 pixels, three spots, and the tables that annotate them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

XY = np.array([[50.0, 20.0], [30.5, 41.2], [77.0, 22.0]])
RGB = np.random.default_rng(0).integers(0, 255, (3, 60, 100), dtype=np.uint8)


def image(pixels: np.ndarray, maps: dict[str, Any], **options: Any) -> Any:
    from spatialdata.models import Image2DModel

    return Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=maps, **options)


def spots(xy: np.ndarray, maps: dict[str, Any], index: Any = None) -> Any:
    from spatialdata.models import ShapesModel

    index = [f"i{k}" for k in range(len(xy))] if index is None else index
    return ShapesModel.parse(xy, geometry=0, radius=2.0, index=np.array(index), transformations=maps)


def table(regions: dict[str, list[Any]]) -> ad.AnnData:
    from spatialdata.models import TableModel

    obs = pd.DataFrame(
        {
            "where": pd.Categorical([region for region, ids in regions.items() for _ in ids]),
            "which": [i for ids in regions.values() for i in ids],
        },
        index=[f"{region}_{i}" for region, ids in regions.items() for i in ids],
    )
    adata = ad.AnnData(csr_matrix(np.ones((len(obs), 2), np.float32)), obs=obs)
    return TableModel.parse(adata, region=list(regions), region_key="where", instance_key="which")


def maps(**systems: Any) -> dict[str, Any]:
    """Coordinate systems by name: a factor, or an affine matrix."""
    from spatialdata.transformations import Affine, Scale

    xy = ("x", "y")
    return {
        name: Affine(value, input_axes=xy, output_axes=xy) if np.ndim(value) else Scale([value, value], xy)
        for name, value in systems.items()
    }


def sdata(**groups: Any) -> Any:
    import spatialdata as sd

    return sd.SpatialData(**groups)


def one(**changes: Any) -> Any:
    """A SpatialData with one image, three spots and their table; elements by group in the place of its own."""
    groups = {
        "images": {"he": image(RGB, maps(S=1.0))},
        "shapes": {"spots": spots(XY, maps(S=1.0))},
        "tables": {"table": table({"spots": ["i0", "i1", "i2"]})},
    }
    return sdata(**(groups | changes))


def library(xy: np.ndarray, *, name: str = "L", pixels: np.ndarray = RGB, **scalefactors: float) -> ad.AnnData:
    """An AnnData of one library with its image at full resolution."""
    adata = ad.AnnData(csr_matrix(np.ones((len(xy), 2), np.float32)))
    adata.obs_names = [f"r{k}" for k in range(len(xy))]
    adata.obsm["spatial"] = np.array(xy, dtype=float)
    adata.uns["spatial"] = {name: {"images": {"fullres": np.moveaxis(pixels, 0, -1)}, "scalefactors": scalefactors}}
    return adata


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """The functions of this file."""
    return SimpleNamespace(
        image=image,
        spots=spots,
        table=table,
        maps=maps,
        sdata=sdata,
        one=one,
        library=library,
        XY=XY,
        RGB=RGB,
    )
