"""The objects that the campaigns damage, made once a process, and copies of them."""

from __future__ import annotations

import tempfile
import warnings
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import spatialdata as sd

import spatialwhisperer as sw

LABELS = ["tumour", "fat"]
TILES = sw.tl.ImageFeatures(tile_um=80, tile_px=48)

SDATA, VISIUM, GRID, COUNTS = KINDS = ("SpatialData", "AnnData with an image", "tiles of a slide", "counts")


@lru_cache
def simulated() -> Any:
    return sw.datasets.simulate_sections(2, 40, n_genes=60, n_reference_cells=60, mpp=1.0, random_state=0)


@lru_cache
def folder() -> Path:
    """A folder in which calls may write what they like."""
    return Path(tempfile.mkdtemp(prefix="torture"))


@lru_cache
def trained() -> Any:
    """A model that predicts expression, of both sections and the reference."""
    sections, reference = simulated()
    with warnings.catch_warnings(), sw.settings.override(verbose=False, progress=False):
        warnings.simplefilter("ignore")
        return sw.tl.train(
            [*(whole_copy(s) for s in sections.values()), reference.copy()],
            image=TILES,
            gene="pca",
            expression=sw.tl.ExpressionOptions(cross_validate=False),
            max_epochs=1,
            folder=folder() / "run",
        )


@lru_cache
def prepared(kind: str) -> Any:
    """A section of that kind with features, labels, a truth, batches and patients."""
    with warnings.catch_warnings(), sw.settings.override(verbose=False, progress=False):
        warnings.simplefilter("ignore")
        return {SDATA: _section, VISIUM: _visium, GRID: _grid, COUNTS: _counts}[kind]()


def fresh(kind: str) -> Any:
    """A copy of what is prepared, to be damaged."""
    return whole_copy(prepared(kind))


def whole_copy(data: Any) -> Any:
    """A copy that shares with the original only what is read lazily."""
    if isinstance(data, ad.AnnData):
        return data.copy()
    shapes = {name: element.copy() for name, element in data.shapes.items()}
    for name, element in shapes.items():
        element.attrs = deepcopy(data.shapes[name].attrs)
    tables = {name: table.copy() for name, table in data.tables.items()}
    images = {name: _image_copy(element) for name, element in data.images.items()}
    return sd.SpatialData(
        images=images, labels=dict(data.labels), points=dict(data.points), shapes=shapes, tables=tables
    )


def _image_copy(element: Any) -> Any:
    """A copy with transformations of its own."""
    if not hasattr(element, "children"):
        out = element.copy(deep=False)
        out.attrs = deepcopy(element.attrs)
        return out
    out = element.copy(deep=False)
    for name, node in out.children.items():
        for key in node.data_vars:
            array = element[name][key].copy(deep=False)
            array.attrs = deepcopy(array.attrs)
            out[name][key] = array
    return out


def table_of(data: Any) -> ad.AnnData:
    return data if isinstance(data, ad.AnnData) else data.tables["table"]


def replace_table(data: Any, table: ad.AnnData) -> None:
    """Put another table into the place of the first one. An AnnData takes over what the other holds."""
    if isinstance(data, ad.AnnData):
        data._init_as_actual(table)
    else:
        del data.tables["table"]
        data.tables["table"] = table


def _section() -> Any:
    section = whole_copy(simulated().sections["P1"])
    del section.tables["cells"], section.shapes["P1_cells"]
    table = section["table"]
    _columns(table)
    _other_elements(section)
    sw.tl.zero_shot_annotate(section, LABELS)
    sw.tl.query(section, "fat")
    sw.pp.embed_genes(section, "pca", n_latent=4, n_top_genes=None)
    sw.tl.tissue_darkness(section, tile_um=80, tile_px=32)
    sw.tl.spatial_domains(section, n_domains=2, use="X_sw_image")
    return section


def _other_elements(section: Any) -> None:
    from spatialdata.models import Image2DModel, Labels2DModel, PointsModel
    from spatialdata.transformations import Identity

    rng = np.random.default_rng(0)
    places = pd.DataFrame(rng.uniform(0, 800, (30, 2)), columns=["x", "y"])
    section.points["transcripts"] = PointsModel.parse(places, transformations={"P1": Identity()})
    section.labels["cells"] = Labels2DModel.parse(
        rng.integers(0, 9, (60, 60)), dims=("y", "x"), transformations={"P1": Identity()}
    )
    # two channels: not the H&E image
    fluorescence = rng.integers(0, 255, (2, 60, 60), dtype=np.uint8)
    section.images["fluorescence"] = Image2DModel.parse(
        fluorescence, dims=("c", "y", "x"), transformations={"P1": Identity()}
    )


def _columns(table: Any) -> None:
    number = np.arange(table.n_obs)
    table.obs["patient"] = pd.Categorical(np.where(number % 2, "A", "B"))
    table.obs["batch"] = pd.Categorical(np.where(number < table.n_obs // 2, "u", "v"))
    table.obs["truth"] = pd.Categorical(np.where(number % 3, "fat", "tumour"))
    table.obs["text"] = pd.Categorical(np.where(number % 3, "fat tissue", "a tumour"))
    table.layers["counts"] = table.X.copy()


def _visium() -> Any:
    section = prepared(SDATA)
    table = section["table"].copy()
    del table.uns["spatialdata_attrs"]
    for key in ("region", "instance_id"):
        del table.obs[key]
    pixels = np.moveaxis(section.images["P1_image"]["scale0"]["image"].to_numpy(), 0, -1)
    factors = {"microns_per_pixel": 1.0, "spot_diameter_fullres": 55.0, "tissue_hires_scalef": 0.5}
    table.uns["spatial"] = {"P1": {"images": {"fullres": pixels, "hires": pixels[::2, ::2]}, "scalefactors": factors}}
    table.obs["array_row"] = np.arange(table.n_obs) // 7
    table.obs["array_col"] = np.arange(table.n_obs) % 7
    sw.tl.zero_shot_annotate(table, LABELS)
    return table


def _grid() -> Any:
    slide = whole_copy(simulated().sections["P1"])
    for group in (slide.tables, slide.shapes):
        for name in list(group):
            del group[name]
    sw.pp.tiles(slide, tile_um=154, at="grid", key_added="tiles")
    table = slide.tables[next(iter(slide.tables))]
    if "table" not in slide.tables:
        slide.tables["table"] = table
        for name in [n for n in slide.tables if n != "table"]:
            del slide.tables[name]
    sw.tl.zero_shot_annotate(slide, LABELS)
    number = np.arange(slide["table"].n_obs)
    for name, every, (a, b) in (("patient", 2, "AB"), ("batch", 2, "uv"), ("truth", 3, LABELS)):
        slide["table"].obs[name] = pd.Categorical(np.where(number % every, a, b))
    return slide


def _counts() -> Any:
    cells = simulated().reference[:40].copy()
    cells.X = cells.X.astype(np.float32)
    _columns(cells)
    sw.pp.embed_genes(cells, "pca", n_latent=4, n_top_genes=None)
    _take_labels(cells, prepared(SDATA)["table"])
    return cells


def _take_labels(cells: Any, table: Any) -> None:
    """The labels of a section, as if a model had given them: training one takes long."""
    for name in ("sw_label", "sw_label_confidence", "sw_label_margin"):
        cells.obs[name] = table.obs[name].to_numpy()
    cells.obs["sw_label"] = pd.Categorical(cells.obs["sw_label"], categories=table.obs["sw_label"].cat.categories)
    cells.obsm["sw_label_scores"] = table.obsm["sw_label_scores"].copy()
    cells.uns["sw_label"] = deepcopy(table.uns["sw_label"])
    cells.uns["spatialwhisperer"]["sw_label"] = dict(table.uns["spatialwhisperer"]["sw_label"])


@lru_cache
def _expression() -> ad.AnnData:
    with warnings.catch_warnings(), sw.settings.override(verbose=False, progress=False):
        warnings.simplefilter("ignore")
        section = whole_copy(simulated().sections["P1"])
        sw.tl.predict_expression(section, model=trained(), k=5)
    return section["sw_expression"]


def prediction() -> ad.AnnData:
    """Expression that the model predicts for the section."""
    return _expression().copy()
