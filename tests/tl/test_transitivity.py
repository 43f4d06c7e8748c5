"""The report on image, expression and text: what it holds, and that bad data are noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.models.configuration.model import ModelConfig
from spatialwhisperer.models.whisperer import Whisperer
from spatialwhisperer.tl.transitivity import transitivity

if TYPE_CHECKING:
    from pathlib import Path

PAIRED = {
    "transitive_consistency",
    "label_kappa",
    "image_gene_error",
    "image_gene_rank",
    "chain_error",
}
EXPRESSION = {"coverage", "bridge_error", "bridge_auroc", "bridge_mixing", "bridge_mmd_p", "expression_cross_entropy"}
ALWAYS = {"prompt_margin", "largest_hub"}


@pytest.fixture(scope="module")
def report(simulated: Any, model: Any, labels: dict[str, str]) -> pd.DataFrame:
    return transitivity(simulated.sections["P3"], model=model, labels=labels)


def test_another_patient_of_the_same_tissue_is_covered(report: pd.DataFrame, simulated: Any) -> None:
    """Every quantity is there, and nothing is written."""
    assert list(report.index[:2]) == ["transitive_consistency", "coverage"]
    assert set(report.index) >= PAIRED | EXPRESSION | ALWAYS | {"image_coverage", "image_distance", "image_scale"}
    value = report["value"]
    assert value["transitive_consistency"] > 0.7
    # spots are mixtures of cells, and captions came with single cells
    assert value["coverage"] > 0.4
    assert report.attrs["expression_alike"] > 0.8
    assert value["image_gene_rank"] > 0.6
    assert 0 < value["chain_error"] < 1
    inside = report.dropna(subset=["low"])
    assert (inside["low"] <= inside["high"]).all()
    assert (report["meaning"].str.len() > 20).all()
    assert report.attrs["untestable"] == []
    assert report.attrs["range"] == []
    assert report.attrs["n"] == 120
    assert report.attrs["intervals"] == "covariance of neighbouring rows fitted by distance"
    table = simulated.sections["P3"]["table"]
    assert "X_sw_image" not in table.obsm
    assert not [column for column in table.obs if column.startswith("sw_")]


def test_details_are_plain_values(report: pd.DataFrame, labels: dict[str, str]) -> None:
    import json

    attrs = json.loads(json.dumps(report.attrs))
    assert attrs["classes"] == list(labels)
    assert np.shape(attrs["prompt_distance"]) == (5, 5)
    assert sum(attrs["class_rows"]) == 120
    assert len(attrs["class_patches"]) == 5
    for auroc, patches, n in zip(attrs["class_auroc"], attrs["class_patches"], attrs["class_rows"], strict=True):
        assert np.isfinite(auroc) == (patches >= 3 and n >= 10)


def test_the_seed_decides_and_the_model_may_be_a_folder(
    report: pd.DataFrame, simulated: Any, model: Any, labels: Any
) -> None:
    again = transitivity(simulated.sections["P3"], model=model.folder, labels=labels)
    pd.testing.assert_frame_equal(report, again)


def test_shuffled_tiles_are_noticed(section: Any, model: Any, labels: Any, report: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    x = section["table"].obsm["X_stain_texture"]
    section["table"].obsm["X_stain_texture"] = x[rng.permutation(len(x))]
    bad = transitivity(section, model=model, labels=labels)
    assert bad["value"]["transitive_consistency"] < report["value"]["transitive_consistency"] - 0.15
    assert "no better than by chance" in bad["meaning"]["transitive_consistency"]
    assert "registered" in bad["meaning"]["image_gene_rank"]
    assert bad["value"]["coverage"] == report["value"]["coverage"]


def test_other_expression_is_noticed(section: Any, model: Any, labels: Any) -> None:
    """The same counts under other genes: an embedding is near the training data all the same, the counts are not."""
    table = section["table"]
    order = np.random.default_rng(0).permutation(table.n_vars)
    table.X = table.X[:, order]
    bad = transitivity(section, model=model, labels=labels)
    assert bad["value"]["coverage"] < 0.2
    assert "do not expect" in bad["meaning"]["coverage"]


def test_agreement_is_untestable_without_expression(section: Any, model: Any, labels: Any) -> None:
    table = section["table"]
    bare = ad.AnnData(
        np.zeros((table.n_obs, 0), np.float32), obs=table.obs.copy(), obsm={"spatial": table.obsm["spatial"]}
    )
    bare.obsm["X_stain_texture"] = table.obsm["X_stain_texture"]
    bare.uns["spatialwhisperer"] = table.uns["spatialwhisperer"]
    got = transitivity(bare, model=model, labels=labels)
    assert np.isnan(got.loc[["transitive_consistency", "coverage"], "value"]).all()
    assert got["meaning"]["coverage"].startswith("Untestable: these data hold no expression")
    assert not set(got.index) & (PAIRED | EXPRESSION) - {"transitive_consistency", "coverage"}
    assert set(got.index) >= ALWAYS | {"image_coverage", "image_distance", "gene_text_rank"}


def test_agreement_is_untestable_without_an_image(simulated: Any, model: Any, labels: Any) -> None:
    cells = simulated.reference[:60].copy()
    got = transitivity(cells, model=model, labels=labels)
    assert got["meaning"]["transitive_consistency"].startswith("Untestable: these data hold no image")
    assert got["value"]["coverage"] > 0.8
    assert "image_coverage" not in got.index
    assert "taken to be independent" in got.attrs["intervals"]


def test_bad_calls_are_refused(section: Any, model: Any, own: Any, labels: Any) -> None:
    with pytest.raises(ValueError, match="max_rows"):
        transitivity(section, model=model, labels=labels, max_rows=3)
    with pytest.raises(ValueError, match="at least 20 are needed"):
        transitivity(section["table"][:10].copy(), model=model, labels=labels)
    images = ModelConfig(own.config.projection_dim, {m: own.config.modalities[m] for m in ("image", "gene")})
    no_text = Whisperer(images, encoders=own.encoders)
    with pytest.raises(KeyError, match="reads no text .it has: image, gene"):
        transitivity(section, model=no_text, labels=labels)
    empty = ad.AnnData(np.zeros((30, 0), np.float32))
    with pytest.raises(KeyError, match="nothing to assess"):
        transitivity(empty, model=model, labels=labels)
    own.reference = None
    with pytest.raises(ValueError, match="no sample of its training tissue"):
        transitivity(section, model=own, labels=labels)


# ------------------------------------------------------------------------------------------------- real sections


@pytest.mark.slow
def test_real_sections_and_their_negatives(data_folder: Path) -> None:
    """A real section is covered by text of other patients; its counts under other genes are not, and tiles of other spots disagree."""
    from spatialwhisperer.protocols import captions as words

    def table(name: str) -> Any:
        data = sw.datasets.her2st(name, data_dir=data_folder)
        sw.pp.embed_images(data, tile_um=154.0, tile_px=48)
        return data

    texts = sw.datasets.her2st(["B1", "D1", "G2", "H1"], data_dir=data_folder, with_image=False)
    words.add_captions(texts["table"])
    preset = sw.models.get_preset("spatialwhisperer").replace(projection_dim=64, schedule="sequential")
    model = sw.tl.train(
        [table("C3"), table("C4"), texts],
        preset=preset,
        image=sw.tl.ImageFeatures(tile_um=154.0, tile_px=48),
        text=sw.tl.TextFeatures(key=words.CAPTION_COLUMNS),
        max_epochs=20,
    )
    user = table("C5")
    good = transitivity(user, model=model, labels=words.TARGETS)
    assert good["value"]["coverage"] > 0.5
    assert good["value"]["transitive_consistency"] > 0.57
    assert 0 < good["value"]["chain_error"] < 1
    rng = np.random.default_rng(0)
    counts = user["table"].X
    user["table"].X = counts[:, rng.permutation(counts.shape[1])]
    assert transitivity(user, model=model, labels=words.TARGETS)["value"]["coverage"] < 0.2
    user["table"].X = counts
    user["table"].obsm["X_stain_texture"] = rng.permutation(user["table"].obsm["X_stain_texture"])
    bad = transitivity(user, model=model, labels=words.TARGETS)
    assert bad["value"]["transitive_consistency"] < good["value"]["transitive_consistency"] - 0.05
