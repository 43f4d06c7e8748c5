from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded

KEYS = ("sw_label", "sw_query", "rolled", "X_sw_image", "X_sw_gene", "X_stain_texture", "X_pca", "sw_tiles")
TERMS = [
    ("C:0", "cell", ()),
    ("C:1", "structural / supporting cell", ("C:0",)),
    ("C:2", "fat", ("C:1",)),
    ("C:3", "stroma", ("C:1",)),
]
LABELS = ["cancer cell", "B/plasma cell", "fat (µm-große Tropfen)", "stroma"]


@pytest.fixture
def full(section: Any, model: Any) -> Any:
    """A section with every key that the package writes."""
    sw.pp.tiles(section, tile_um=80, tile_px=64)
    sw.pp.embed_genes(section, model.encoders["gene"])
    sw.tl.embed(section, model=model, modality="gene")
    sw.tl.zero_shot_annotate(section, LABELS, model=model, min_confidence=0.9)
    terms = sw.models.Ontology(sw.models.Term(i, name, parents=parents) for i, name, parents in TERMS)
    sw.tl.zero_shot_annotate(
        section,
        ["fat", "stroma", "cancer cell", "B/plasma cell"],
        model=model,
        normalize="centre",
        min_confidence=0.6,
        min_margin=0.05,
        hierarchy=sw.tl.Hierarchy(rollup=True, ontology=terms),
        key_added="rolled",
    )
    sw.tl.query(section, "fat / adipose tissue", model=model)
    sw.pl.annotation(section, with_image=False)
    table = section["table"]
    assert 0 < table.obs["sw_label"].isna().sum() < 120
    table.obsm["X_sw_image"][3] = np.nan
    return section


def check(before: ad.AnnData, after: ad.AnnData) -> None:
    for column in ("sw_label_confidence", "sw_label_margin", "rolled_margin", "sw_query"):
        assert after.obs[column].dtype == before.obs[column].dtype == np.float32
        assert np.array_equal(after.obs[column], before.obs[column], equal_nan=True)
    label = after.obs["sw_label"]
    assert isinstance(label.dtype, pd.CategoricalDtype)
    assert label.cat.categories.tolist() == before.obs["sw_label"].cat.categories.tolist()
    assert np.array_equal(label.cat.codes, before.obs["sw_label"].cat.codes)
    for column in ("rolled", "rolled_cl"):
        assert after.obs[column].cat.categories.tolist() == before.obs[column].cat.categories.tolist()
        assert np.array_equal(after.obs[column].cat.codes, before.obs[column].cat.codes)
    assert "structural / supporting cell" in after.obs["rolled"].cat.categories
    assert {"C:1", "C:2"} <= set(after.obs["rolled_cl"].cat.categories)
    assert set(after.obsm) == set(before.obsm)
    for key in before.obsm:
        assert after.obsm[key].dtype == before.obsm[key].dtype
        assert np.array_equal(after.obsm[key], before.obsm[key], equal_nan=True)
    assert [str(c) for c in after.uns["sw_label"]["classes"]] == LABELS
    assert list(after.uns["sw_label_colors"]) == list(before.uns["sw_label_colors"])
    assert set(after.uns["spatialwhisperer"]) == set(before.uns["spatialwhisperer"]) == set(KEYS)
    for key in KEYS:
        assert recorded(after, key) == recorded(before, key)
        assert str(after.uns["spatialwhisperer"][key]["version"]) == sw.__version__


def still_works(data: Any, model: Any) -> None:
    """What was read back can be read by the functions that come next."""
    result: Any = sw.tl.evaluate_annotation(
        data, "cell_type", mapping={"cancer cell": "cancer cell", "T cell": "B/plasma cell"}
    )
    assert np.isfinite(result.loc["macro", "auroc"])
    mapping = {"cancer cell": "cancer cell", "T cell": ["B/plasma cell"]}
    assert 0 <= sw.tl.evaluate_calibration(data, "cell_type", mapping=mapping).attrs["ece"] <= 1
    assert sw.tl.top_labels(data, 2, key="rolled").notna().all(axis=None)
    scores: Any = sw.tl.zero_shot_annotate(data, LABELS, model=model, embedding_key="X_sw_gene", inplace=False)
    assert np.isfinite(scores).all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_anndata(full: Any, model: Any, tmp_path: Any, kind: str) -> None:
    table = full["table"]
    path = tmp_path / f"table.{kind}"
    getattr(table, f"write_{kind}")(path)
    after = getattr(ad, f"read_{kind}")(path)
    check(table, after)
    still_works(after, model)


@pytest.mark.slow
def test_spatialdata(full: Any, model: Any, tmp_path: Any, caplog: Any) -> None:
    before = full["table"].copy()
    full.write(tmp_path / "s.zarr")
    after = sd.read_zarr(tmp_path / "s.zarr")
    check(before, after["table"])
    still_works(after, model)
    with caplog.at_level("INFO", logger="spatialwhisperer"):
        z: Any = sw.tl.embed(after, model=model, inplace=False)
    # the features that were stored are those of the model, and known to be
    assert "computed again" not in caplog.text
    again: Any = sw.tl.embed(full, model=model, inplace=False)
    assert np.array_equal(z, again)


@pytest.mark.slow
def test_a_grid(simulated: Any, model: Any, tmp_path: Any) -> None:
    slide = sd.SpatialData(images=dict(simulated.sections["P3"].images))
    sw.pp.tiles(slide, at="grid", tile_um=200)
    sw.tl.zero_shot_annotate(slide, LABELS, model=model)
    slide.write(tmp_path / "g.zarr")
    after = sd.read_zarr(tmp_path / "g.zarr")
    assert np.array_equal(after["sw_tiles"].obsm["sw_label_scores"], slide["sw_tiles"].obsm["sw_label_scores"])
    given = slide["sw_tiles"].obs["sw_label"].cat.categories.tolist()
    assert after["sw_tiles"].obs["sw_label"].cat.categories.tolist() == given
    assert len(after.shapes["P3_image_tiles"]) == after["sw_tiles"].n_obs


def test_views_and_subsets_keep_the_results(full: Any) -> None:
    half = full["table"][::2].copy()
    assert set(half.obs["sw_label"].cat.categories) <= set(LABELS)
    assert half.obsm["sw_label_scores"].shape == (60, 4)
    assert (recorded(half, "sw_label") or {})["classes"] == LABELS
