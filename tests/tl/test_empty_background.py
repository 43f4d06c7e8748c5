"""Rows that show bare background change no result of the rows on tissue."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw

N_TISSUE, N_EMPTY = 60, 20
LABELS = ["T cell", "fibroblast", "fat cell"]


@pytest.fixture(scope="module")
def slide() -> ad.AnnData:
    """A section with bare background at its right, and rows there with counts of other rows."""
    encoder: Any = sw.models.default_model().encoders["gene"]
    genes = encoder.genes
    simulated = sw.datasets.simulate_sections(1, N_TISSUE, n_genes=len(genes), n_reference_cells=50, random_state=0)
    section = simulated.sections["P1"]
    table = section["table"]
    pixels = np.moveaxis(section.images["P1_image"]["scale0"]["image"].to_numpy(), 0, -1)
    margin = np.full((pixels.shape[0], 1200, 3), np.percentile(pixels, 99), pixels.dtype)
    rows = np.r_[np.arange(N_TISSUE), np.random.default_rng(0).integers(0, N_TISSUE, N_EMPTY)]
    at = np.stack(np.meshgrid(np.arange(4), np.arange(5)), -1).reshape(-1, 2)
    bare = at * [150, 200] + [pixels.shape[1] + 350, 400]
    out = ad.AnnData(
        table.X[rows],
        obs=table.obs[["cell_type"]].iloc[rows].reset_index(drop=True).rename(index=str),
        var=pd.DataFrame(index=genes),
    )
    out.obsm["spatial"] = np.concatenate([np.asarray(table.obsm["spatial"]), bare])
    image: dict[str, Any] = {"images": {"fullres": np.concatenate([pixels, margin], axis=1)}}
    out.uns["spatial"] = {"P1": image | {"scalefactors": {"microns_per_pixel": 0.5}}}
    out.obs["part"] = np.where(np.arange(out.n_obs) % 2, "odd", "even")
    sw.tl.embed(out)
    del out.obsm["X_sw_image"]
    sw.tl.tissue_darkness(out, tile_um=100)
    return out


@pytest.fixture(autouse=True)
def _lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="spatialwhisperer")


@pytest.fixture
def both(slide: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData]:
    """The rows on tissue alone, and all rows."""
    return slide[:N_TISSUE].copy(), slide.copy()


def test_a_report_of_evidence_leaves_them_out(both: Any, caplog: Any) -> None:
    alone, whole = (sw.tl.evidence(one, labels=LABELS) for one in both)
    pd.testing.assert_frame_equal(whole, alone)
    assert whole.attrs == alone.attrs
    assert "20 of 80 rows have no whole tile on tissue and no part in this report." in caplog.text


def test_a_report_of_transitivity_leaves_them_out(both: Any, caplog: Any) -> None:
    alone, whole = (sw.tl.transitivity(one, labels=LABELS) for one in both)
    pd.testing.assert_frame_equal(whole, alone)
    assert whole.attrs["n"] == N_TISSUE
    assert "20 of 80 rows have no whole tile on tissue and no part in this report." in caplog.text


def test_they_have_no_agreement_and_no_part_in_that_of_others(both: Any, caplog: Any) -> None:
    alone, whole = both
    for one in both:
        sw.tl.zero_shot_annotate(one, LABELS, modality="image", unknown="label")
        sw.tl.agreement(one)
    assert np.allclose(whole.obs["sw_label_agreement"][:N_TISSUE], alone.obs["sw_label_agreement"], atol=1e-6)
    assert whole.obs["sw_label_gene"][:N_TISSUE].tolist() == alone.obs["sw_label_gene"].tolist()
    assert whole.obs[["sw_label_agreement", "sw_label_gene"]][N_TISSUE:].isna().all(axis=None)
    assert "20 of 80 rows have no whole tile on tissue and no agreement (NaN)." in caplog.text
    # the embeddings are written as they are
    assert np.isfinite(whole.obsm["X_sw_image"]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"normalize": "centre", "background": "section"},
        {"group_key": "part"},
        {"examples": {"T cell": [0, 1, 2], "fibroblast": [3, 4, 5]}},
    ],
    ids=["centre", "groups", "examples"],
)
def test_they_have_no_part_in_means_of_an_annotation(both: Any, options: Any, caplog: Any) -> None:
    alone, whole = (sw.tl.zero_shot_annotate(one, LABELS, inplace=False, **options) for one in both)
    assert alone is not None
    assert whole is not None
    assert np.allclose(whole[:N_TISSUE], alone, atol=1e-5)
    # what labels they get is the matter of unknown
    assert np.isfinite(whole).all(axis=None)
    assert "20 of 80 rows have no whole tile on tissue and no part in means over rows." in caplog.text


def test_they_are_not_calibrated_on(both: Any) -> None:
    model = sw.models.Whisperer.load("her2st-mini")
    alone, whole = (sw.tl.calibrate(one, "cell_type", model=model, labels=LABELS, modality="image") for one in both)
    pd.testing.assert_frame_equal(whole, alone)


def test_stored_embeddings_all_count(both: Any) -> None:
    """They do not tell where there is no tissue."""
    _, whole = both
    sw.tl.embed(whole)
    options: Any = {"normalize": "centre", "inplace": False}
    cosines = sw.tl.zero_shot_annotate(whole, LABELS, embedding_key="X_sw_image", inplace=False)
    centred = sw.tl.zero_shot_annotate(whole, LABELS, embedding_key="X_sw_image", **options)
    assert cosines is not None
    assert centred is not None
    assert np.allclose(centred, cosines - cosines.mean(), atol=1e-5)
