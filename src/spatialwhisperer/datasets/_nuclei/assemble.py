"""Image, nuclei and tiles of one labelled image as a SpatialData."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._messages import listing
from spatialwhisperer.datasets._nuclei.tiles import count_tiles, find_nuclei
from spatialwhisperer.datasets.cells import CELL_TYPE, COUNTS

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

    from spatialwhisperer.datasets._nuclei.layout import LabelledImage, Layout
    from spatialwhisperer.datasets._nuclei.tiles import TileCounts


def assemble(name: str, image: LabelledImage, layout: Layout) -> SpatialData:
    """Image, nuclei and tiles of one image as a SpatialData.

    Raises
    ------
    ValueError
        If image and masks differ in size, a class code is unknown, or no tile is left.
    """
    from spatialdata import SpatialData

    from spatialwhisperer.datasets._sections.elements import circles, image_element, pyramid

    size = tuple(image.pixels.shape[1:])
    if image.instances.shape != size or image.classes.shape != size:
        raise ValueError(
            f"Image {name!r} has {size} pixels, its masks {image.instances.shape} and {image.classes.shape}: they do not "
            "belong together."
        )
    nuclei = find_nuclei(image.instances, image.classes)
    wrong = sorted(set(nuclei["code"]) - set(range(len(layout.classes))))
    if wrong:
        raise ValueError(
            f"Image {name!r} has nuclei of the class {listing(wrong)}; known are 0 to {len(layout.classes) - 1}."
        )
    tiles = count_tiles(nuclei, len(layout.classes), tile_px=layout.tile_px, always_drop=layout.always_drop)
    if not len(tiles.cells):
        raise ValueError(
            f"Image {name!r} ({size[1]} x {size[0]} px, {len(nuclei)} nuclei) has no tile of {layout.tile_px} px that lies "
            "inside it and holds a nucleus. Leave it out with images=[…], or take a smaller tile_px."
        )
    elements: dict[str, Any] = {"section": name, "mpp": layout.mpp}
    shapes = {f"{name}_tiles": _squares(tiles.centres(layout.tile_px), layout.tile_px, **elements)}
    tables = {"table": _tile_table(name, tiles, image, layout)}
    shapes[f"{name}_nuclei"] = circles(nuclei[["x", "y"]].to_numpy(), np.sqrt(nuclei["area"] / np.pi), **elements)
    tables["nuclei"] = _nuclei_table(name, nuclei, layout)
    images = {f"{name}_image": image_element(pyramid(image.pixels), **elements)}
    return SpatialData(images=images, shapes=shapes, tables=tables)


def _squares(centres: np.ndarray, edge: int, *, section: str, mpp: float) -> GeoDataFrame:
    import geopandas as gpd
    import shapely
    from spatialdata.models import ShapesModel

    from spatialwhisperer.datasets._sections.elements import transformations

    (x, y), half = centres.T, edge / 2
    squares = gpd.GeoDataFrame(geometry=shapely.box(x - half, y - half, x + half, y + half))
    return ShapesModel.parse(squares, transformations=transformations(section, mpp))


def _tile_table(name: str, tiles: TileCounts, image: LabelledImage, layout: Layout) -> AnnData:
    obs = pd.DataFrame(
        {
            "section": name,
            "x_array": tiles.cells[:, 0],
            "y_array": tiles.cells[:, 1],
            "n_cells": tiles.counts.sum(axis=1),
            CELL_TYPE: pd.Categorical.from_codes(tiles.counts.argmax(axis=1), categories=pd.Index(layout.classes)),
            **({} if image.describe is None else image.describe(tiles.cells)),
        },
        index=[f"{name}_{x}x{y}" for x, y in tiles.cells],
    )
    table = _table(obs, f"{name}_tiles")
    table.obsm["spatial"] = tiles.centres(layout.tile_px)
    table.obsm[COUNTS] = tiles.counts
    table.uns[COUNTS] = {"classes": np.array(layout.classes, dtype=object)}
    table.uns[layout.dataset] = json.dumps(
        {k: getattr(layout, k) for k in ("source", "licence", "mpp", "tile_px")} | {"image": name}
    )
    return table


def _nuclei_table(name: str, nuclei: pd.DataFrame, layout: Layout) -> AnnData:
    obs = pd.DataFrame(
        {
            "section": name,
            "instance": nuclei.index.to_numpy(),
            "area_px": nuclei["area"].to_numpy(),
            CELL_TYPE: pd.Categorical.from_codes(nuclei["code"].to_numpy(), categories=pd.Index(layout.classes)),
        },
        index=[f"{name}_nucleus_{i}" for i in nuclei.index],
    )
    table = _table(obs, f"{name}_nuclei")
    table.obsm["spatial"] = nuclei[["x", "y"]].to_numpy()
    return table


def _table(obs: pd.DataFrame, region: str) -> AnnData:
    import anndata as ad

    from spatialwhisperer.datasets._sections.elements import table_element

    obs["section"] = pd.Categorical(obs["section"])
    obs["region"], obs["instance_id"] = region, np.arange(len(obs))
    return table_element(ad.AnnData(sp.csr_matrix((len(obs), 0), dtype=np.float32), obs=obs), regions=[region])
