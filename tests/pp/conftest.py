"""Slides of noise or of one disc of tissue, and an encoder whose features are the pixels that it was given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from tests.pyramids import computed

SIDE = 600
XY = np.array([[150.0, 120.0], [300.5, 410.2], [477.0, 222.0], [90.0, 505.0], [301.0, 300.0]])


class Pixels:
    """An encoder whose features are pixels, so that a feature says exactly which tile was read."""

    def __init__(self, **spec: Any) -> None:
        nothing = dict.fromkeys(("input_px", "mpp", "tile_um", "dim"))
        self.spec = SimpleNamespace(**({"name": "pixels", "licence": "BSD-3-Clause"} | nothing | spec))
        self.seen: dict[str, Any] = {"sizes": [], "mpp": set()}

    def encode(self, tiles: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
        assert tiles.dtype == np.uint8
        assert device is None
        self.seen["sizes"].append(len(tiles))
        self.seen["mpp"].add(mpp)
        return tiles.reshape(len(tiles), -1)[:, ::7].astype(np.float32)


def as_features(tiles: list[np.ndarray]) -> np.ndarray:
    """What `Pixels` makes of tiles."""
    return np.stack(tiles).reshape(len(tiles), -1)[:, ::7].astype(np.float32)


def noise(seed: int = 0, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (3, height, width), dtype=np.uint8)


def disc(height: int = 600, width: int = 800, background: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """A pink, noisy disc on one background, and the mask of the disc."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    tissue = (x - 300) ** 2 + (y - 320) ** 2 < 200**2
    image = np.full((3, height, width), background, np.int64)
    for channel, value in enumerate((205, 120, 170)):
        image[channel][tissue] = value
    image += rng.integers(-12, 12, image.shape)
    return image.clip(0, 255).astype(np.uint8), tissue


def cut(image: np.ndarray, x: float, y: float, p: int) -> np.ndarray:
    """The tile, by padding the whole image: slow and plain. Between pixels it is interpolated linearly."""
    padded = np.pad(image, ((0, 0), (2 * p, 2 * p), (2 * p, 2 * p)), constant_values=255).astype(float)
    corner = np.array([y, x]) - p / 2 + 2 * p
    (top, left), (down, right) = np.floor(corner + 1e-6).astype(int), corner - np.floor(corner + 1e-6)
    wide = padded[:, top : top + p + 1, left : left + p + 1]
    tall = (1 - right) * wide[:, :, :-1] + right * wide[:, :, 1:]
    return np.floor((1 - down) * tall[:, :-1] + down * tall[:, 1:] + 0.501).astype(np.uint8)


def spatialdata(
    images: np.ndarray | dict[str, np.ndarray],
    xy: np.ndarray | None = None,
    *,
    name: str = "S",
    kind: str = "circles",
    multiscale: bool = False,
    image_map: np.ndarray | None = None,
    shapes_map: np.ndarray | None = None,
    with_table: bool = True,
    mpp: float | None = 0.5,
) -> Any:
    """Images ``<name>_image``; on the first one the shapes or labels ``<name>_spots``, and a table that annotates these.

    The maps are affine matrices to the coordinate system of the section.
    """
    import geopandas as gpd
    import shapely
    import spatialdata as sd
    from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine, Identity, Scale

    images = images if isinstance(images, dict) else {name: images}
    name = next(iter(images))

    def maps(system: str, matrix: np.ndarray | None) -> dict[str, Any]:
        place = Identity() if matrix is None else Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))
        scale = {} if mpp is None or matrix is not None else {"microns": Scale([mpp, mpp], ("x", "y"))}
        return {system: place} | scale

    pyramid: dict[str, Any] = {"scale_factors": [2, 2]} if multiscale else {}
    groups: dict[str, Any] = {
        "images": {
            f"{key}_image": computed(
                Image2DModel.parse(image, dims=("c", "y", "x"), transformations=maps(key, image_map), **pyramid)
            )
            for key, image in images.items()
        }
    }
    if xy is None:
        return sd.SpatialData(**groups)
    region, own = f"{name}_spots", maps(name, shapes_map)
    index: np.ndarray = np.array([f"i{k}" for k in range(len(xy))])
    if kind == "labels":
        pixels = np.zeros(images[name].shape[1:], np.int64)
        for k, (x, y) in enumerate(xy.astype(int)):
            pixels[y - 2 : y + 2, x - 2 : x + 2] = k + 1
        index = np.arange(len(xy)) + 1
        groups["labels"] = {region: Labels2DModel.parse(pixels, dims=("y", "x"), transformations=own)}
    elif kind == "polygons":
        squares = gpd.GeoDataFrame(geometry=shapely.box(*(xy - 3).T, *(xy + 3).T), index=index)
        groups["shapes"] = {region: ShapesModel.parse(squares, transformations=own)}
    else:
        circles = ShapesModel.parse(xy, geometry=0, radius=5.0, index=index, transformations=own)
        groups["shapes"] = {region: circles}
    if with_table:
        obs = pd.DataFrame(
            {"region": pd.Categorical([region] * len(xy)), "instance_id": index}, index=[f"{name}_{k}" for k in index]
        )
        table = ad.AnnData(csr_matrix(np.ones((len(xy), 3), np.float32)), obs=obs)
        groups["tables"] = {
            "table": TableModel.parse(table, region=region, region_key="region", instance_key="instance_id")
        }
    return sd.SpatialData(**groups)


def visium(images: dict[str, np.ndarray], xy: dict[str, np.ndarray], factor: float | None = None) -> ad.AnnData:
    """The AnnData that scanpy's Visium reader makes; ``factor`` stores float images scaled by it as ``hires``."""
    library = np.concatenate([[name] * len(points) for name, points in xy.items()])
    adata = ad.AnnData(csr_matrix(np.ones((len(library), 3), np.float32)))
    adata.obs_names = [f"r{k}" for k in range(len(library))]
    adata.obs["library_id"] = pd.Categorical(library)
    adata.obsm["spatial"] = np.concatenate(list(xy.values()))
    for name, image in images.items():
        last = np.moveaxis(image, 0, -1)
        key, scale = ("fullres", {}) if factor is None else ("hires", {"tissue_hires_scalef": factor})
        entry = last if factor is None else (last / 255).astype(np.float32)
        adata.uns.setdefault("spatial", {})[name] = {"images": {key: entry}, "scalefactors": scale}
    return adata


def state(data: Any) -> str:
    """Everything that a failed call must leave alone."""
    if isinstance(data, ad.AnnData):
        return (
            str(sorted(data.obsm)) + str(sorted(data.uns)) + str(list(data.obs)) + str(data.uns.get("spatialwhisperer"))
        )
    return str(sorted(str(e[:2]) for e in data.gen_elements())) + "".join(state(t) for t in data.tables.values())


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """The functions of this file."""
    return SimpleNamespace(
        Pixels=Pixels,
        as_features=as_features,
        noise=noise,
        disc=disc,
        cut=cut,
        spatialdata=spatialdata,
        visium=visium,
        state=state,
        SIDE=SIDE,
        XY=XY,
    )


@pytest.fixture
def noisy(build: Any) -> ad.AnnData:
    """Five spots of one library on noise."""
    return build.visium({"L": build.noise()}, {"L": build.XY})
