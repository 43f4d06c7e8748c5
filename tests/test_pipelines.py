"""Annotated data go on through scanpy, squidpy and spatialdata-plot as they are."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.tl._annotation.labels import class_embeddings

mpl.use("agg")


@pytest.fixture(autouse=True)
def _close() -> Any:
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(params=["Visium-like AnnData", "plain AnnData", "SpatialData"])
def data(request: Any, section: Any, adata: Any) -> Any:
    """One section in the three forms that users have it in; plain: features and positions, no image."""
    if request.param == "SpatialData":
        return section
    library = adata.uns["spatial"]["P3"]
    if request.param == "plain AnnData":
        del adata.uns["spatial"]
    else:
        library["images"]["hires"] = (library["images"]["fullres"][::4, ::4] / 255).astype(np.float32)
        library["scalefactors"] |= {"tissue_hires_scalef": 0.25, "spot_diameter_fullres": 110.0}
    return adata


@pytest.fixture
def table(data: Any, model: Any, labels: dict[str, str]) -> Any:
    """The table of the annotated section; every label was given to several rows."""
    # "/" is what cell types hold and storage formats do not like
    prompts = {name.replace("T cell", "T/NK cell"): text for name, text in labels.items()}
    sw.tl.zero_shot_annotate(data, prompts, model=model)
    out = data["table"] if hasattr(data, "tables") else data
    assert out.obs["sw_label"].value_counts().min() > 1
    return out


@pytest.fixture
def abstained(table: Any) -> Any:
    """The same with rows that were given no label."""
    table.obs["sw_label"] = table.obs["sw_label"].where(table.obs["sw_label_confidence"] > 0.9)
    assert 0 < table.obs["sw_label"].isna().sum() < 60
    return table


def enrichment(table: Any) -> np.ndarray:
    """Neighbourhood enrichment of the labels, computed and drawn."""
    import squidpy as sq

    sq.gr.spatial_neighbors(table, coord_type="generic", n_neighs=6)
    sq.gr.nhood_enrichment(table, cluster_key="sw_label", n_perms=50, seed=0, show_progress_bar=False)
    sq.pl.nhood_enrichment(table, cluster_key="sw_label")
    return table.uns["sw_label_nhood_enrichment"]["zscore"]


@pytest.mark.slow
def test_neighbourhoods(table: Any) -> None:
    import squidpy as sq

    z = enrichment(table)
    assert z.shape == (5, 5)
    assert np.isfinite(z).all()
    # cells of a type lie together in the simulated tissue
    assert (np.diag(z) > 2).sum() >= 4
    sq.gr.interaction_matrix(table, cluster_key="sw_label")
    sq.pl.interaction_matrix(table, cluster_key="sw_label")
    sq.gr.centrality_scores(table, cluster_key="sw_label")
    sq.gr.co_occurrence(table, cluster_key="sw_label", interval=5, show_progress_bar=False)
    sq.gr.spatial_autocorr(table, attr="obs", genes=["sw_label_confidence"])
    assert np.isfinite(table.uns["moranI"]["I"]).all()


@pytest.mark.slow
def test_neighbours_on_the_grid_and_of_embeddings(adata: Any, model: Any, labels: dict[str, str]) -> None:
    import scanpy as sc
    import squidpy as sq

    sw.tl.zero_shot_annotate(adata, labels, model=model)
    sq.gr.spatial_neighbors(adata)
    sq.gr.nhood_enrichment(adata, cluster_key="sw_label", n_perms=10, seed=0, show_progress_bar=False)
    assert adata.uns["sw_label_nhood_enrichment"]["zscore"].shape[0] >= 2
    sc.pp.neighbors(adata, use_rep="X_sw_image", n_neighbors=5)
    assert adata.obsp["distances"].shape == (120, 120)


def test_neighbourhoods_of_a_spatialdata(section: Any, model: Any, labels: dict[str, str]) -> None:
    import squidpy as sq

    sw.tl.zero_shot_annotate(section, labels, model=model)
    sq.gr.spatial_neighbors(section, elements_to_coordinate_systems={"P3_spots": "P3"}, table_key="table")
    sq.gr.nhood_enrichment(section["table"], cluster_key="sw_label", n_perms=20, seed=0, show_progress_bar=False)
    assert np.isfinite(section["table"].uns["sw_label_nhood_enrichment"]["zscore"]).all()


def test_neighbourhoods_of_the_rows_that_have_a_label(abstained: Any) -> None:
    """Squidpy counts no missing labels; the copy of a subset holds neither these nor labels that nobody was given."""
    kept = abstained[abstained.obs["sw_label"].notna()].copy()
    assert np.isfinite(enrichment(kept)).all()


def test_a_label_that_no_row_was_given(data: Any, model: Any, labels: dict[str, str]) -> None:
    import scanpy as sc
    import squidpy as sq

    kept = data["table"] if hasattr(data, "tables") else data
    kept.obsm["X_words"] = class_embeddings(model, [[p] for p in labels.values()])[np.arange(kept.n_obs) % 5]
    sw.tl.zero_shot_annotate(data, {"bone": "bone", **labels}, model=model, embedding_key="X_words")
    assert "bone" in kept.uns["sw_label"]["classes"]
    assert "bone" not in kept.obs["sw_label"].cat.categories
    sc.tl.dendrogram(kept, "sw_label", use_rep="X_words")
    assert np.isfinite(enrichment(kept)).all()
    sq.gr.centrality_scores(kept, cluster_key="sw_label")
    sc.tl.rank_genes_groups(kept, "sw_label", method="wilcoxon")
    sq.pl.spatial_scatter(kept, color="sw_label", shape=None, library_id=next(iter(kept.uns.get("spatial", {})), None))
    # with other labels the colours that were drawn with mean nothing
    sw.tl.zero_shot_annotate(data, ["fat tissue", "cancer"], model=model)
    sq.pl.spatial_scatter(kept, color="sw_label", shape=None, library_id=next(iter(kept.uns.get("spatial", {})), None))


@pytest.mark.slow
@pytest.mark.parametrize("some_abstain", [False, True])
def test_markers(table: Any, some_abstain: bool, request: Any) -> None:
    """Labels from the image find the genes that mark the cell types."""
    import scanpy as sc

    if some_abstain:
        table = request.getfixturevalue("abstained")
    adata = table.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.tl.rank_genes_groups(adata, "sw_label", method="wilcoxon")
    for name in ("cancer cell", "T/NK cell", "adipocyte"):
        top = sc.get.rank_genes_groups_df(adata, name)["names"].head(5)
        marked = adata.var["marker_of"].astype(str)[top]
        assert (marked == name.replace("T/NK", "T")).mean() >= 0.6
    sc.pl.rank_genes_groups_dotplot(adata, n_genes=2, show=False)
    sc.tl.dendrogram(adata, "sw_label", use_rep="X_sw_image")


@pytest.mark.parametrize("some_abstain", [False, True])
def test_scatter_plots(table: Any, some_abstain: bool, request: Any) -> None:
    import matplotlib.pyplot as plt
    import scanpy as sc
    import squidpy as sq

    if some_abstain:
        table = request.getfixturevalue("abstained")
    if "spatial" in table.uns:
        sq.pl.spatial_scatter(table, color=["sw_label", "sw_label_confidence"])
        sc.pl.spatial(table, color="sw_label", show=False)
    sq.pl.spatial_scatter(
        table, color="sw_label", shape=None, library_id=next(iter(table.uns.get("spatial", {})), None)
    )
    plt.close("all")
    ax = sc.pl.embedding(table, "spatial", color="sw_label", show=False)
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    assert words == [*table.obs["sw_label"].cat.categories, *["NA"] * some_abstain]


def test_one_palette_for_all(section: Any, model: Any, labels: dict[str, str]) -> None:
    """A palette given once is what the others draw with."""
    import scanpy as sc

    sw.tl.zero_shot_annotate(section, labels, model=model)
    given = dict(zip(labels, ["#e41a1c", "#377eb8", "#4daf4a", "#984ea3", "#ff7f00"], strict=True))
    sw.pl.annotation(section, palette=given)
    table = section["table"]
    ax = sc.pl.embedding(table, "spatial", color="sw_label", show=False)
    drawn = [mpl.colors.to_hex(c) for c in ax.collections[0].get_facecolors()]
    assert drawn == [given[name] for name in table.obs["sw_label"]]
    pytest.importorskip("spatialdata_plot", reason="spatialdata-plot is not installed")
    assert legend_of(section) == {name: given[name] for name in set(table.obs["sw_label"])}


def legend_of(sdata: Any) -> dict[str, str]:
    """Words and colours that spatialdata-plot draws the labels with, over the slide."""
    import matplotlib.pyplot as plt
    import spatialdata_plot  # noqa: F401

    ax = plt.subplots()[1]
    shown = sdata.pl.render_images("P3_image").pl.render_shapes("P3_spots", color="sw_label")
    shown.pl.show(coordinate_systems="P3", ax=ax)
    legend: Any = ax.get_legend()
    handles = [h.get_facecolor() for h in legend.legend_handles]
    return {
        text.get_text(): mpl.colors.to_hex(tuple(np.ravel(colour)[:3]))
        for text, colour in zip(legend.get_texts(), handles, strict=True)
    }


@pytest.mark.parametrize("some_abstain", [False, True])
def test_spatialdata_plot(section: Any, model: Any, labels: dict[str, str], some_abstain: bool) -> None:
    pytest.importorskip("spatialdata_plot", reason="spatialdata-plot is not installed")
    import matplotlib.pyplot as plt

    sw.tl.zero_shot_annotate(section, labels, model=model, min_confidence=0.9 * some_abstain)
    assert section["table"].obs["sw_label"].isna().any() == some_abstain
    assert set(legend_of(section)) == {*section["table"].obs["sw_label"].dropna(), *["NA"] * some_abstain}
    shown = section.pl.render_shapes("P3_spots", color="sw_label_confidence")
    shown.pl.show(coordinate_systems="P3", ax=plt.subplots()[1])
