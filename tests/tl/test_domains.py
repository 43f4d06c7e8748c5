from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded
from spatialwhisperer.tl._tissue.clusters import by_size, components, smoothed
from spatialwhisperer.tl._tissue.neighbours import spatial_graph
from spatialwhisperer.tl.domains import spatial_domains
from spatialwhisperer.tl.evaluation.domains import evaluate_domains


@pytest.fixture
def halves() -> ad.AnnData:
    """Two sections of a 12 x 12 lattice each, left half against right half, in weak values."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(range(12), range(12)), -1).reshape(-1, 2).astype(float)
    region = np.where(xy[:, 0] < 7, "left", "right")
    obs = pd.DataFrame({"section": np.repeat(["s", "t"], 144), "region": np.tile(region, 2)})
    obs.index = [f"r{i}" for i in range(288)]
    adata = ad.AnnData(np.zeros((288, 1), np.float32), obs=obs)
    adata.obsm["spatial"] = np.vstack([xy, xy])
    adata.obsm["values"] = (np.tile(region == "left", 2)[:, None] + rng.normal(0, 0.55, (288, 3))).astype(np.float32)
    return adata


def agreement(adata: ad.AnnData) -> float:
    return adjusted_rand_score(adata.obs["region"], adata.obs["sw_domain"].astype(str))


def test_neighbours_help(halves: ad.AnnData) -> None:
    options: dict[str, Any] = {"n_domains": 2, "use": "values", "library_key": "section"}
    spatial_domains(halves, **options)
    alone = agreement(halves)
    halves.uns["sw_domain_colors"] = ["red", "blue"]
    spatial_domains(halves, **options, smooth=0.5)
    assert agreement(halves) > alone + 0.1
    assert "sw_domain_colors" not in halves.uns
    domain = halves.obs["sw_domain"]
    assert domain.cat.categories.tolist() == ["0", "1"]
    assert (domain == "0").sum() >= (domain == "1").sum()
    assert recorded(halves, "sw_domain")["smooth"] == 0.5


def test_the_graph_keeps_to_sections(halves: ad.AnnData) -> None:
    common: dict[str, Any] = {"library_key": "section", "table_key": None}
    graph = spatial_graph(halves, n_neighs=4, neighbors_key=None, **common)
    assert (graph != graph.T).nnz == 0
    assert graph[:144, 144:].nnz == 0
    assert graph.sum(axis=1).min() >= 4
    halves.obsp["mine_connectivities"] = graph
    given = spatial_graph(halves, n_neighs=99, neighbors_key="mine", **common)
    assert (given != graph).nnz == 0
    with pytest.raises(KeyError, match=r"'yours_connectivities' is not in \.obsp \(found: mine"):
        spatial_graph(halves, n_neighs=4, neighbors_key="yours", **common)


def test_smoothing_by_hand() -> None:
    import scipy.sparse as sp

    graph = sp.csr_matrix(np.array([[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], float))
    z = np.array([[0.0], [2.0], [4.0], [7.0]])
    assert smoothed(z, graph, 0.5, 1).ravel().tolist() == [1.5, 1, 2, 7]
    assert smoothed(z, graph, 0.5, 2).ravel().tolist() == [1.5, 1.25, 1.75, 7]
    assert smoothed(z, graph, 0.0, 3) is z


def test_largest_first() -> None:
    assert by_size(np.array([5, 2, 2, 9, 9, 9])).tolist() == [2, 1, 1, 0, 0, 0]
    assert by_size(np.array([3, 1])).tolist() == [0, 1]


def test_components_do_not_depend_on_the_seed() -> None:
    x = np.random.default_rng(0).normal(size=(40, 20))
    assert np.array_equal(components(x, 5, 0), components(x, 5, 1))
    assert components(x, 50, 0).shape == (40, 20)
    assert components(x, None, 0).shape == (40, 20)


def test_nan_rows_groups_and_the_random_state(halves: ad.AnnData) -> None:
    halves.obsm["values"][[0, 200]] = np.nan
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    options: dict[str, Any] = {"n_domains": 2, "use": "values", "group_key": "section", "inplace": False}
    domain = spatial_domains(halves, **options)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert domain is not None
    assert np.flatnonzero(domain.isna()).tolist() == [0, 200]
    assert domain.name == "sw_domain"
    alone = spatial_domains(halves[:144].copy(), **options)
    assert alone is not None
    assert domain[:144].tolist() == alone.tolist()
    assert "sw_domain" not in halves.obs
    pd.testing.assert_series_equal(domain, spatial_domains(halves, **options))


def test_observed_and_predicted_expression(section: Any) -> None:
    table = section["table"]
    spatial_domains(section, use="observed", n_domains=3, n_top_genes=40, smooth=0.3)
    assert adjusted_rand_score(table.obs["cell_type"].astype(str), table.obs["sw_domain"].astype(str)) > 0.2
    with pytest.raises(KeyError, match=r"Run sw\.tl\.predict_expression first"):
        spatial_domains(section, n_domains=3)
    with pytest.raises(KeyError, match="Run sw.tl.embed"):
        spatial_domains(section, n_domains=3, use="embedding")
    predicted = ad.AnnData(np.log1p(table.X.toarray().astype(np.float32)), obs=pd.DataFrame(index=table.obs_names))
    predicted.X[4] = np.nan
    bare = table.copy()
    del bare.uns["spatialdata_attrs"]
    spatial_domains(bare, n_domains=3, prediction=predicted)
    assert np.flatnonzero(bare.obs["sw_domain"].isna()).tolist() == [4]
    section.tables["sw_expression"] = predicted
    spatial_domains(section, n_domains=3, key_added="from_prediction")
    assert section["table"].obs["from_prediction"].tolist() == bare.obs["sw_domain"].tolist()
    with pytest.raises(ValueError, match="has 5 rows and the table 120"):
        spatial_domains(bare, n_domains=3, prediction=predicted[:5].copy())
    result = evaluate_domains(section, "cell_type", use=["observed", "expression"], n_seeds=2)
    assert result["use"].tolist() == ["observed", "expression", "observed", "expression"]
    assert result["n"].tolist() == [120, 119, 120, 119]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_domains": 500}, ValueError, "n_domains=500 is more than the 288 rows"),
        ({"n_domains": 150, "group_key": "section"}, ValueError, "144 rows of section s"),
        ({"n_domains": 1}, ValueError, "above 1, not 1"),
        ({"smooth": 2}, ValueError, "between 0 and 1, not 2"),
        ({"method": "ward"}, ValueError, "choose one of kmeans, leiden"),
        ({"n_pcs": 0}, ValueError, "n_pcs must be a positive whole number"),
        ({"use": "X_uni"}, KeyError, r"sw\.pp\.embed_images"),
        ({"group_key": "donor"}, KeyError, "group_key='donor'"),
        ({"smooth": 0.5, "n_neighs": 0}, ValueError, "n_neighs must be at least 1"),
        ({"use": "observed", "n_top_genes": 0}, ValueError, "n_top_genes must be at least 1"),
        ({"prediction": ad.AnnData(np.zeros((1, 1)))}, ValueError, "prediction applies to use='expression'"),
    ],
)
def test_what_is_refused(halves: ad.AnnData, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        spatial_domains(halves, **{"n_domains": 2, "use": "values"} | options)
    assert "sw_domain" not in halves.obs
    assert not halves.uns


@pytest.mark.slow
def test_communities(halves: ad.AnnData) -> None:
    pytest.importorskip("igraph")
    options: dict[str, Any] = {"use": "values", "library_key": "section", "method": "leiden", "smooth": 0.6}
    spatial_domains(halves, n_domains=4, **options)
    first = halves.obs["sw_domain"]
    assert first.nunique() == 4
    spatial_domains(halves, n_domains=4, **options)
    pd.testing.assert_series_equal(first, halves.obs["sw_domain"])


def test_communities_need_igraph(halves: ad.AnnData) -> None:
    try:
        import igraph  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ImportError, match=r"spatialwhisperer\[leiden\]"):
            spatial_domains(halves, n_domains=2, use="values", method="leiden")
        assert "sw_domain" not in halves.obs


def test_evaluation_by_section(halves: ad.AnnData) -> None:
    halves.obs["region"] = halves.obs["region"].astype(object)
    halves.obs.loc[halves.obs_names[:3], "region"] = "undetermined"
    halves.obs.loc[halves.obs_names[3], "region"] = np.nan
    result = evaluate_domains(halves, "region", use="values", library_key="section", n_seeds=4)
    assert result["section"].tolist() == ["s", "t", "mean"]
    assert result["n"].tolist() == [140, 144, 284]
    assert result["n_domains"].tolist()[:2] == [2, 2]
    assert result["ari"].iloc[2] == pytest.approx(result["ari"].iloc[:2].mean())
    better = evaluate_domains(halves, "region", use="values", library_key="section", n_seeds=4, smooth=0.5)
    assert better["ari"].iloc[2] > result["ari"].iloc[2]
    one = halves[144:].copy()
    alone = evaluate_domains([one, one], "region", use="values", n_seeds=4)
    assert alone["ari"].iloc[0] == pytest.approx(result["ari"].iloc[1])
    assert "deviation over seeds" in result.attrs["convention"]


def test_evaluation_needs_two_regions(halves: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="Section s has one label only"):
        evaluate_domains(halves, "region", use="values", library_key="section", ignore=["left"])
    with pytest.raises(ValueError, match="n_domains=900 does not fit"):
        evaluate_domains(halves, "region", use="values", n_domains=900)
    with pytest.raises(KeyError, match="truth='label' is not in .obs"):
        evaluate_domains(halves, "label", use="values")


def test_fewer_distinct_rows_than_domains(halves: ad.AnnData) -> None:
    halves.obsm["values"] = np.repeat([[0.0], [1.0]], 144, axis=0)
    with pytest.warns(SpatialWhispererWarning, match="Only 2 domains"):
        spatial_domains(halves, n_domains=3, use="values")
    assert halves.obs["sw_domain"].cat.categories.tolist() == ["0", "1"]


@pytest.mark.slow
def test_real_sections(data_folder: Any) -> None:
    import spatialwhisperer as sw

    data = sw.datasets.her2st(["B1", "D1"], data_dir=data_folder / "her2st", with_image=False)
    result = evaluate_domains(data, "pathologist_label", use="observed", n_seeds=5)
    assert result["n"].tolist()[:2] == [269, 255]
    assert result["n_domains"].tolist()[:2] == [4, 3]
    assert result["ari"].between(0.15, 0.45).all()
