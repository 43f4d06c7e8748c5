"""Images with labelled nuclei: nuclei and tiles of one image, and images that are read one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._checks import positive
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from spatialdata import SpatialData

TILE_PX = 224
COUNTS = "cell_counts"
CELL_TYPE = "cell_type"


class CellImages(Mapping):
    """Images by name, each read from its file when it is asked for and not kept.

    Parameters
    ----------
    names
        Names in order.
    read
        Reads one image as a SpatialData.
    classes
        Names of the nuclear classes, in the order of the counts.
    """

    def __init__(self, names: Sequence[str], read: Callable[[str], SpatialData], classes: Sequence[str]) -> None:
        self.names = list(names)
        self.classes = list(classes)
        self._read = read
        self._known = set(self.names)

    def __getitem__(self, name: str) -> SpatialData:
        if name not in self._known:
            raise KeyError(f"There is no image {name!r} (found: {listing(self.names)}).")
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __repr__(self) -> str:
        return f"CellImages of {len(self)} images ({listing(self.names, 3)}), classes: {listing(self.classes)}"


@dataclass
class LabelledImage:
    """One image with its masks.

    Attributes
    ----------
    pixels
        RGB, uint8 (3, h, w), numpy or dask.
    instances
        Nucleus of each pixel, 0 for none; integers (h, w).
    classes
        Class of each pixel as its position among the names, integers (h, w).
    describe
        Further columns of the table, from the column and row of each tile, shape (n, 2).
    """

    pixels: Any
    instances: np.ndarray
    classes: np.ndarray
    describe: Callable[[np.ndarray], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Layout:
    """How the images of a data set become tiles.

    Attributes
    ----------
    dataset, source, licence
        What the provenance says.
    classes
        Names by class code.
    mpp
        Microns per pixel.
    tile_px
        Edge of a tile.
    always_drop
        Whether nuclei in the last occupied row and column of the grid go even where there is only one of either.
    """

    dataset: str
    source: str
    licence: str
    classes: tuple[str, ...]
    mpp: float
    tile_px: int
    always_drop: bool

    def __post_init__(self) -> None:
        positive("mpp", self.mpp)
        if isinstance(self.tile_px, bool) or not isinstance(self.tile_px, int) or self.tile_px < 1:
            raise ValueError(f"tile_px must be a positive whole number, not {self.tile_px!r}.")


def choose(images: str | Sequence[str] | None, available: Sequence[str], where: str) -> list[str]:
    """Names that were asked for, or all.

    Raises
    ------
    ValueError
        If a name is unknown or repeated, or there is none.
    """
    names = list(available) if images is None else [images] if isinstance(images, str) else list(images)
    unknown = [n for n in names if n not in set(available)]
    if unknown or not names:
        raise ValueError(f"{where} has no image {listing(unknown)}; it has {listing(available)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"Each image can be asked for once; got {listing(names)}.")
    return names


def folder_of(data_dir: str | Path) -> Path:
    """The folder, or a `FileNotFoundError`."""
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder.")
    return folder


# ------------------------------------------------------------------------------------------------- nuclei and tiles


def find_nuclei(instances: np.ndarray, classes: np.ndarray) -> pd.DataFrame:
    """Nuclei of an instance mask.

    Parameters
    ----------
    instances
        Nucleus of each pixel, 0 for none; shape (h, w).
    classes
        Class code of each pixel, same shape.

    Returns
    -------
    DataFrame by instance, ascending: ``x`` and ``y`` (mean of the pixels), ``code`` (class at its first pixel in reading
    order, which is the rule of the published benchmark), ``area`` in pixels.
    """
    flat = np.flatnonzero(np.ravel(instances))
    ids, first, inverse = np.unique(np.ravel(instances)[flat], return_index=True, return_inverse=True)
    area = np.bincount(inverse, minlength=len(ids))
    y, x = np.divmod(flat, instances.shape[1])
    mean = [np.bincount(inverse, weights=v, minlength=len(ids)) / np.maximum(area, 1) for v in (x, y)]
    code = np.ravel(classes)[flat[first]].astype(np.int64)
    return pd.DataFrame({"x": mean[0], "y": mean[1], "code": code, "area": area}, index=pd.Index(ids, name="instance"))


@dataclass(frozen=True)
class TileCounts:
    """Non-empty tiles of a grid: column and row of shape (n, 2), nuclei per class of shape (n, k)."""

    cells: np.ndarray
    counts: np.ndarray

    def centres(self, tile_px: int) -> np.ndarray:
        """Positions (x, y) of the centres in pixels, shape (n, 2)."""
        return (self.cells + 0.5) * tile_px


def count_tiles(nuclei: pd.DataFrame, n_classes: int, *, tile_px: int, always_drop: bool) -> TileCounts:
    """Count nuclei in the tiles of a grid that starts at the origin; the order is by column, then by row.

    Tiles in the last occupied column and row may leave the image and are dropped; unless ``always_drop``, only where the
    grid has more than one of both.
    """
    cells = np.floor(nuclei[["x", "y"]].to_numpy() / tile_px).astype(np.int64).reshape(-1, 2)
    code = nuclei["code"].to_numpy()
    if len(cells):
        last = cells.max(axis=0)
        if always_drop or (last > 0).all():
            kept = (cells < last).all(axis=1)
            cells, code = cells[kept], code[kept]
    where, inverse = np.unique(cells, axis=0, return_inverse=True)
    counts = np.zeros((len(where), n_classes), np.int32)
    np.add.at(counts, (inverse.ravel(), code), 1)
    return TileCounts(where, counts)


# ------------------------------------------------------------------------------------------------- SpatialData


def assemble(name: str, image: LabelledImage, layout: Layout) -> SpatialData:
    """Image, nuclei and tiles of one image as a SpatialData.

    Raises
    ------
    ValueError
        If image and masks differ in size, a class code is unknown, or no tile is left.
    """
    from spatialdata import SpatialData

    from spatialwhisperer.datasets._elements import circles, image_element

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
    elements = {"section": name, "mpp": layout.mpp}
    shapes = {f"{name}_tiles": _squares(tiles.centres(layout.tile_px), layout.tile_px, **elements)}
    tables = {"table": _tile_table(name, tiles, image, layout)}
    shapes[f"{name}_nuclei"] = circles(nuclei[["x", "y"]], np.sqrt(nuclei["area"] / np.pi), **elements)
    tables["nuclei"] = _nuclei_table(name, nuclei, layout)
    return SpatialData(images={f"{name}_image": image_element(image.pixels, **elements)}, shapes=shapes, tables=tables)


def _squares(centres: np.ndarray, edge: int, *, section: str, mpp: float) -> Any:
    import geopandas as gpd
    import shapely
    from spatialdata.models import ShapesModel

    from spatialwhisperer.datasets._elements import transformations

    (x, y), half = centres.T, edge / 2
    squares = gpd.GeoDataFrame(geometry=shapely.box(x - half, y - half, x + half, y + half))
    return ShapesModel.parse(squares, transformations=transformations(section, mpp))


def _tile_table(name: str, tiles: TileCounts, image: LabelledImage, layout: Layout) -> Any:
    obs = pd.DataFrame(
        {
            "section": name,
            "x_array": tiles.cells[:, 0],
            "y_array": tiles.cells[:, 1],
            "n_cells": tiles.counts.sum(axis=1),
            CELL_TYPE: pd.Categorical.from_codes(tiles.counts.argmax(axis=1), categories=list(layout.classes)),
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


def _nuclei_table(name: str, nuclei: pd.DataFrame, layout: Layout) -> Any:
    obs = pd.DataFrame(
        {
            "section": name,
            "instance": nuclei.index.to_numpy(),
            "area_px": nuclei["area"].to_numpy(),
            CELL_TYPE: pd.Categorical.from_codes(nuclei["code"], categories=list(layout.classes)),
        },
        index=[f"{name}_nucleus_{i}" for i in nuclei.index],
    )
    table = _table(obs, f"{name}_nuclei")
    table.obsm["spatial"] = nuclei[["x", "y"]].to_numpy()
    return table


def _table(obs: pd.DataFrame, region: str) -> Any:
    import anndata as ad

    from spatialwhisperer.datasets._elements import table_element

    obs["section"] = pd.Categorical(obs["section"])
    obs["region"], obs["instance_id"] = region, np.arange(len(obs))
    return table_element(ad.AnnData(sp.csr_matrix((len(obs), 0), dtype=np.float32), obs=obs), regions=[region])
