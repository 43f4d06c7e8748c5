from __future__ import annotations

import sys
from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.pl.batches import batches
from spatialwhisperer.tl.evaluation.batches import batch_report


@pytest.fixture
def objects() -> list[ad.AnnData]:
    """Two batches of two labels, with an embedding in which they mix and one in which they do not."""
    rng = np.random.default_rng(0)
    out = []
    for i, name in enumerate("AB"):
        label = rng.integers(0, 2, 100 + 50 * i)
        obs = pd.DataFrame({"patient": name, "label": np.array(["x", "y"])[label]})
        obs.index = [f"{name}{j}" for j in range(len(obs))]
        adata = ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)
        noise = rng.normal(size=(len(obs), 4))
        adata.obsm["mixed"] = noise + 5 * np.eye(4)[label]
        adata.obsm["apart"] = noise + 5 * np.eye(4)[label] + 20 * i * np.eye(4)[3]
        out.append(adata)
    return out


def test_each_embedding_has_a_row_of_batches_labels_and_bars(objects: list[Any]) -> None:
    objects[0].obs.loc[objects[0].obs_names[0], "label"] = np.nan
    axes: Any = batches(
        objects, batch_key="patient", embeddings=["mixed", "apart"], labels_key="label", reduction="pca"
    )
    assert len(axes) == 6
    assert [ax.get_title() for ax in axes[:2]] == ["mixed by patient", "mixed by label"]
    assert [t.get_text() for t in axes[0].get_legend().get_texts()] == ["A", "B"]
    assert [t.get_text() for t in axes[1].get_legend().get_texts()] == ["x", "y", "no label"]
    assert len(axes[2].patches) == 4
    # dots of 250 rows are as large as dots get
    assert axes[0].collections[0].get_sizes().tolist() == [30]
    axes[0].figure.canvas.draw()


def test_columns_have_the_colours_that_are_stored(objects: list[Any]) -> None:
    for adata, colours in zip(objects, (["red"], ["blue"]), strict=True):
        adata.obs["patient"] = adata.obs["patient"].astype("category")
        adata.uns["patient_colors"] = colours
    objects[1].uns["label_colors"] = ["lime", "black"]
    axes: Any = batches(objects, batch_key="patient", embeddings="mixed", labels_key="label", reduction="pca", k=5)
    shown = [[mpl.colors.to_hex(dot.get_color()) for dot in ax.get_legend().get_lines()] for ax in axes[:2]]
    assert shown == [["#ff0000", "#0000ff"], ["#00ff00", "#000000"]]
    drawn = axes[0].collections[0]
    assert {mpl.colors.to_hex(c) for c in drawn.get_facecolor()} == set(shown[0])


def test_a_report_that_is_given_is_not_computed_again(
    objects: list[ad.AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = batch_report(objects, batch_key="patient", embedding="mixed")
    monkeypatch.delattr(sys.modules["spatialwhisperer.pl.batches"], "batch_report")
    axes = batches(objects, batch_key="patient", embeddings="mixed", report=report, reduction="pca")
    assert [t.get_text() for t in axes[1].texts] == [f"{report[c]['mixed']:.2f}" for c in ("mixing", "batch_accuracy")]


def test_an_embedding_without_a_report_and_an_unknown_reduction_are_refused(objects: list[ad.AnnData]) -> None:
    report = batch_report(objects, batch_key="patient", embedding="mixed")
    with pytest.raises(KeyError, match="no row for apart"):
        batches(objects, batch_key="patient", embeddings="apart", report=report)
    unknown: Any = "tsne"
    with pytest.raises(ValueError, match="'umap' or 'pca', not 'tsne'"):
        batches(objects, batch_key="patient", embeddings="mixed", reduction=unknown)


@pytest.mark.slow
def test_umap(objects: list[ad.AnnData]) -> None:
    (scatter, _) = batches(objects, batch_key="patient", embeddings="apart")
    assert scatter.get_xlabel() == "UMAP 1"


def test_an_embedding_of_one_column_is_drawn_on_a_line(objects: list[ad.AnnData]) -> None:
    for adata in objects:
        adata.obsm["one"] = np.arange(adata.n_obs, dtype=float)[:, None]
    axes = batches(objects, batch_key="patient", embeddings="one", reduction="pca", k=5)
    assert np.ptp(np.asarray(axes[0].collections[0].get_offsets())[:, 1]) == 0
