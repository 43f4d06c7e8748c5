"""Which slides of a corpus are built again, and which changes are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer.pp.corpus.embedding import Encoders, captions_of
from spatialwhisperer.pp.corpus.stamps import ROWS, stamps_of
from spatialwhisperer.training.corpus.shards import Corpus
from tests import corpora

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GENES = [f"GENE{i}" for i in range(20)]
ALL = {ROWS, "image", "gene", "text"}


def slide() -> Any:
    """Counts of 30 spots with captions, on an image of one pixel per micron."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"patient": "A", "text": "a tumour"}, index=[f"r{i}" for i in range(30)])
    out = ad.AnnData(sp.csr_matrix(rng.poisson(2, (30, 20)).astype(np.float32)), obs, pd.DataFrame(index=GENES))
    out.obsm["spatial"] = rng.integers(20, 80, (30, 2)).astype(float)
    image = rng.integers(0, 255, (100, 100, 3)).astype(np.uint8)
    scales = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 55.0}
    out.uns["spatial"] = {"L": {"images": {"hires": image}, "scalefactors": scales}}
    return out


@pytest.fixture(scope="module")
def pca() -> Any:
    return sw.pp.fit_gene_encoder(slide(), "pca", n_latent=3, n_top_genes=None)


def stamps(table: Any, pca: Any, *, layer: str | None = None, mpp: float = 1.0) -> dict[str, str]:
    gene = sw.tl.GeneFeatures(pca, layer=layer)
    text: Any = sw.tl.TextFeatures(corpora.HashedText())
    encoders = Encoders.of(sw.tl.ImageFeatures("stain_texture", tile_um=20, tile_px=16), gene, text, None, None)
    opened = Slide.open(table, mpp=mpp)
    return stamps_of(opened, table.obs["patient"], encoders, ALL - {ROWS}, captions_of(table, ["text"]))


def replace_counts(table: Any) -> None:
    table.X = table.X[::-1].copy()


def move(table: Any) -> None:
    table.obsm["spatial"] = table.obsm["spatial"] + 5.0


def replace_image(table: Any) -> None:
    table.uns["spatial"]["L"]["images"]["hires"] = table.uns["spatial"]["L"]["images"]["hires"][::-1].copy()


def rename(table: Any) -> None:
    table.obs_names = [f"s{i}" for i in range(30)]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (replace_counts, {"gene"}),
        (move, {"image"}),
        (replace_image, {"image"}),
        (rename, {ROWS, "image"}),
        (lambda t: t.obs.__setitem__("text", "a lymph node"), {"text"}),
        (lambda t: t.obs.__setitem__("patient", "B"), {ROWS}),
        (lambda t: t.obs.__setitem__("clinic", "C"), set()),
        (lambda t: setattr(t, "X", t.X.toarray()), set()),
        (lambda t: setattr(t, "X", t.X.tocsc().astype(np.int64)), set()),
    ],
)
def test_a_change_is_in_the_stamp_of_what_it_changes(change: Callable[[Any], None], parts: set[str], pca: Any) -> None:
    before, table = stamps(slide(), pca), slide()
    assert set(before) == ALL
    change(table)
    now = stamps(table, pca)
    assert {part for part in ALL if now[part] != before[part]} == parts


def test_another_scale_or_layer_is_a_change(pca: Any) -> None:
    table = slide()
    before = stamps(table, pca)
    assert stamps(table, pca, mpp=2.0)["image"] != before["image"]
    table.layers["same"], table.layers["other"] = table.X.copy(), table.X[::-1].copy()
    assert stamps(table, pca, layer="same") == before
    assert stamps(table, pca, layer="other")["gene"] != before["gene"]


def test_counts_in_a_file_have_the_stamp_of_those_in_memory(pca: Any, tmp_path: Path) -> None:
    slide().write_h5ad(tmp_path / "a.h5ad")
    stored: Any = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert stamps(stored, pca) == stamps(slide(), pca)
    stored.file.close()


def held(folder: Path) -> dict[str, set[tuple[str, ...]]]:
    return {s.name: {shard.modalities for shard in s.shards} for s in Corpus.open(folder).manifest.slides}


def test_a_modality_that_was_not_asked_for_can_be_added(tmp_path: Path) -> None:
    folder = corpora.build(tmp_path / "c", image=None)
    assert held(folder) == {"cells": {("gene", "text")}, "S0": set(), "S1": set(), "S2": set()}
    corpora.build(folder)
    complete = {"cells": {("gene", "text")}, **dict.fromkeys(("S0", "S1", "S2"), {("gene", "image")})}
    assert held(folder) == complete
    # what is not asked for stays
    corpora.build(folder, text=None)
    assert held(folder) == complete


def test_captions_can_be_added_to_slides_that_had_none(tmp_path: Path) -> None:
    given = corpora.sources()[:1]
    folder = corpora.build(tmp_path / "c", given, text=None)
    given[0].data["S1"].obs["text"] = "a tumour"
    corpora.build(folder, given)
    assert held(folder) == {"S0": {("gene", "image")}, "S1": {("gene", "image", "text")}, "S2": {("gene", "image")}}
    assert len([*folder.glob("shards/*/*")]) == 3
    given[0].data["S1"].obs["text"] = "a lymph node"
    with pytest.raises(ValueError, match=r"slides/S1 \(captions\) changed since they were built"):
        corpora.build(folder, given)


def test_a_slide_that_left_no_row_is_built_when_it_changed(tmp_path: Path) -> None:
    given = corpora.sources()
    features = given[0].data["S1"].obsm["X_image"].copy()
    given[0].data["S1"].obsm["X_image"][:] = np.nan
    folder = corpora.build(tmp_path / "c", given)
    assert held(folder)["S1"] == set()
    given[0].data["S1"].obsm["X_image"] = features
    corpora.build(folder, given)
    assert held(folder)["S1"] == {("gene", "image")}
