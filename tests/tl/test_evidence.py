"""Which labels are told apart from the density of the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.tl.evidence import evidence

if TYPE_CHECKING:
    import pandas as pd


@pytest.fixture(scope="module")
def report(simulated: Any, model: Any, labels: Any) -> pd.DataFrame:
    return evidence(simulated.sections["P3"], model=model, labels=labels)


def test_simulated_labels_are_told_apart(report: pd.DataFrame, simulated: Any, labels: Any) -> None:
    """Tiles show the cell types, so that image and expression agree beyond darkness for most of them."""
    assert report.index.tolist() == list(labels)
    assert report.columns.tolist() == [
        "r2_darkness",
        "auroc_vs_expression",
        "auroc_darkness",
        "p_value",
        "p_beyond_darkness",
        "meaning",
    ]
    assert report["r2_darkness"].between(0, 1).all()
    assert (report["p_beyond_darkness"] < 0.05).sum() >= 3
    assert 1 <= report.attrs["effective_rank"] <= 5
    assert report.attrs["n"] == 120
    untold = report.index[report["meaning"].str.contains("not told apart from tissue density")]
    assert report.attrs["not_told_apart"] == untold.tolist()
    assert {"cell_type", "patient", "section"} <= set(simulated.sections["P3"]["table"].obs)
    assert not [c for c in simulated.sections["P3"]["table"].obs if "label" in c or "class" in c]


def test_auroc_is_that_of_the_scores_of_the_annotation(
    report: pd.DataFrame, section: Any, model: Any, labels: Any
) -> None:
    from sklearn.metrics import roc_auc_score

    by = [
        sw.tl.zero_shot_annotate(section, labels, model=model, modality=m, normalize="none", inplace=False)
        for m in ("image", "gene")
    ]
    image, gene = by
    assert image is not None
    assert gene is not None
    name = next(iter(labels))
    present = gene[name] > gene[name].quantile(0.75)
    assert report["auroc_vs_expression"][name] == pytest.approx(roc_auc_score(present, image[name]), abs=1e-4)


def test_shuffled_tiles_are_not_told_apart(section: Any, model: Any, labels: Any) -> None:
    table = section["table"]
    rng = np.random.default_rng(0)
    table.obsm["X_stain_texture"] = table.obsm["X_stain_texture"][rng.permutation(table.n_obs)]
    shuffled = evidence(section, model=model, labels=labels)
    assert len(shuffled.attrs["not_told_apart"]) >= 4
    assert shuffled["auroc_vs_expression"].mean() == pytest.approx(0.5, abs=0.12)


def test_without_expression_the_darkness_is_all_that_is_known(section: Any, model: Any, labels: Any) -> None:
    table = section["table"]
    bare = ad.AnnData(np.zeros((table.n_obs, 0), np.float32), obs=table.obs.copy(), obsm=dict(table.obsm))
    bare.uns["spatialwhisperer"] = table.uns["spatialwhisperer"]
    with pytest.raises(KeyError, match="tissue_darkness"):
        evidence(bare, model=model, labels=labels)
    first = np.asarray(evidence(section, model=model, labels=labels)["r2_darkness"])
    bare.obs["sw_darkness"] = sw.tl.tissue_darkness(section, tile_um=80, inplace=False)
    got = evidence(bare, model=model, labels=labels)
    assert got["r2_darkness"].to_numpy() == pytest.approx(first, abs=1e-6)
    assert got[["auroc_vs_expression", "p_value", "p_beyond_darkness"]].isna().all(axis=None)
    scores = sw.tl.zero_shot_annotate(bare, labels, model=model, normalize="none", inplace=False)
    assert scores is not None
    bare.obs["own"] = scores.iloc[:, 0].to_numpy()
    bare.obs["words"] = "dark"
    with pytest.raises(ValueError, match=r"\.obs\['words'\] must be a column of numbers"):
        evidence(bare, model=model, labels=labels, darkness_key="words")
    by_score = evidence(bare, model=model, labels=labels, darkness_key="own")
    assert by_score["r2_darkness"].iloc[0] > 0.95
    assert (
        by_score["meaning"].iloc[0]
        == f"{list(labels)[0]}: not told apart from tissue density here (R² {by_score['r2_darkness'].iloc[0]:.2f})."
    )


def test_a_darkness_that_does_not_vary_tells_nothing_apart(section: Any, model: Any, labels: Any) -> None:
    section["table"].obs["sw_darkness"] = 0.3
    got = evidence(section, model=model, labels=labels)
    assert got[["r2_darkness", "p_beyond_darkness"]].isna().all(axis=None)
    assert got["p_value"].notna().all()
    assert got.attrs["not_told_apart"] == list(labels)
    name = next(iter(labels))
    assert (
        got["meaning"][name] == f"{name}: not told apart from tissue density, because the darkness does not vary here."
    )


def test_a_model_without_images_is_refused(section: Any, own: Any, labels: Any) -> None:
    from spatialwhisperer.models.configuration.model import ModelConfig
    from spatialwhisperer.models.whisperer import Whisperer

    config = ModelConfig(own.config.projection_dim, {m: own.config.modalities[m] for m in ("gene", "text")})
    with pytest.raises(KeyError, match="reads no image"):
        evidence(section, model=Whisperer(config, encoders=own.encoders), labels=labels)
