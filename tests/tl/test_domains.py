"""Spatial domains of predicted, observed and embedded tissue."""

from __future__ import annotations

from typing import Any, cast

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded
from spatialwhisperer.tl import domains
from spatialwhisperer.tl._tissue.neighbours import Smoothing
from spatialwhisperer.tl.domains import spatial_domains
from spatialwhisperer.tl.evaluation.domains import evaluate_domains


def agreement(adata: ad.AnnData) -> float:
    return adjusted_rand_score(adata.obs["region"], adata.obs["sw_domain"].astype(str))


def test_neighbours_improve_domains(halves: Any) -> None:
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
    record: Any = recorded(halves, "sw_domain")
    assert record["smoothing"]["weight"] == 0.5


def test_parameters_are_recorded_where_they_were_used(halves: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domains, "leiden", lambda z, *_, **__: np.arange(len(z)) % 2)
    options: dict[str, Any] = {"n_domains": 2, "library_key": "section", "n_init": 3, "n_pcs": 4, "random_state": 5}
    common = {"n_domains": 2, "n_pcs": 4, "random_state": 5, "group_key": None, "n_top_genes": None, "layer": None}
    spatial_domains(halves, use="values", **options)
    spatial_domains(halves, use="values", method="leiden", n_top_genes=7, layer=None, key_added="other", **options)
    for key, own in (("sw_domain", {"method": "kmeans", "n_init": 3}), ("other", {"method": "leiden", "n_init": None})):
        record: Any = recorded(halves, key)
        expected = common | own | {"use": "values"}
        assert {name: record[name] for name in expected} == expected
    halves.layers["counts"] = np.ones(halves.shape, np.float32)
    options |= {"layer": "counts", "n_top_genes": 7}
    spatial_domains(halves, use="observed", method="leiden", key_added="third", **options)
    third: Any = recorded(halves, "third")
    assert (third["use"], third["layer"], third["n_top_genes"]) == ("observed", "counts", 7)


def test_rows_with_nan_have_no_domain_and_groups_are_partitioned_apart(halves: Any) -> None:
    halves.obsm["values"][[0, 200]] = np.nan
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    options: dict[str, Any] = {"n_domains": 2, "use": "values", "group_key": "section", "inplace": False}
    domain: Any = spatial_domains(halves, **options)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert np.flatnonzero(domain.isna()).tolist() == [0, 200]
    assert domain.name == "sw_domain"
    alone: Any = spatial_domains(halves[:144].copy(), **options)
    assert domain[:144].tolist() == alone.tolist()
    assert "sw_domain" not in halves.obs
    again: Any = spatial_domains(halves, **options)
    pd.testing.assert_series_equal(domain, again)


def test_observed_and_predicted_expression_are_partitioned(section: Any) -> None:
    table = section["table"]
    spatial_domains(section, use="observed", n_domains=3, n_top_genes=40, smooth=0.3)
    assert adjusted_rand_score(table.obs["cell_type"].astype(str), table.obs["sw_domain"].astype(str)) > 0.2
    with pytest.raises(KeyError, match=r"Run sw\.tl\.predict_expression first"):
        spatial_domains(section, n_domains=3)
    with pytest.raises(KeyError, match="Run sw.tl.embed"):
        spatial_domains(section, n_domains=3, use="embedding")
    predicted: Any = ad.AnnData(np.log1p(table.X.toarray().astype(np.float32)), obs=pd.DataFrame(index=table.obs_names))
    predicted.X[4] = np.nan
    bare = table.copy()
    del bare.uns["spatialdata_attrs"]
    spatial_domains(bare, n_domains=3, prediction=predicted)
    assert np.flatnonzero(bare.obs["sw_domain"].isna()).tolist() == [4]
    section.tables["sw_expression"] = predicted
    spatial_domains(section, n_domains=3, key_added="from_prediction")
    assert section["table"].obs["from_prediction"].tolist() == bare.obs["sw_domain"].tolist()
    with pytest.raises(ValueError, match="has 5 rows, the table 120"):
        spatial_domains(bare, n_domains=3, prediction=predicted[:5].copy())
    result = evaluate_domains(section, "cell_type", use=["observed", "expression"], n_seeds=2)
    assert result["use"].tolist() == ["observed", "expression", "observed", "expression"]
    assert result["n"].tolist() == [120, 119, 120, 119]


def test_the_error_about_rows_in_another_order_names_the_call_that_helps(halves: Any) -> None:
    prediction = ad.AnnData(halves.obsm["values"].astype(np.float32), obs=halves.obs[[]].copy())
    options: dict[str, Any] = {"n_domains": 2, "library_key": "section", "inplace": False}
    with pytest.raises(ValueError, match=r"differ in 288 names.*prediction=prediction\[adata\.obs_names\]"):
        spatial_domains(halves, prediction=prediction[::-1].copy(), **options)
    expected = spatial_domains(halves, prediction=prediction, **options)
    again = spatial_domains(halves, prediction=prediction[::-1].copy()[halves.obs_names], **options)
    assert (cast("pd.Series[Any]", expected) == again).all()


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
        ({"use": "observed", "n_top_genes": 0}, ValueError, "n_top_genes must be a positive whole number, not 0"),
        ({"prediction": ad.AnnData(np.zeros((1, 1)))}, ValueError, "prediction applies to use='expression'"),
    ],
)
def test_bad_arguments_are_refused(halves: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        spatial_domains(halves, **{"n_domains": 2, "use": "values"} | options)
    assert "sw_domain" not in halves.obs
    assert not halves.uns


@pytest.mark.slow
def test_communities_are_as_many_as_asked_for(halves: Any) -> None:
    pytest.importorskip("igraph")
    options: dict[str, Any] = {
        "use": "values",
        "library_key": "section",
        "method": "leiden",
        "smooth": Smoothing(0.6, n_neighs=4),
    }
    spatial_domains(halves, n_domains=4, **options)
    first = halves.obs["sw_domain"]
    assert first.nunique() == 4
    spatial_domains(halves, n_domains=4, **options)
    pd.testing.assert_series_equal(first, halves.obs["sw_domain"])


def test_communities_need_igraph(halves: Any) -> None:
    try:
        import igraph  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ImportError, match=r"spatialwhisperer\[leiden\]"):
            spatial_domains(halves, n_domains=2, use="values", method="leiden")
        assert "sw_domain" not in halves.obs


def test_fewer_domains_are_warned_of(halves: Any) -> None:
    halves.obsm["values"] = np.repeat([[0.0], [1.0]], 144, axis=0)
    with pytest.warns(SpatialWhispererWarning, match="Only 2 domains"):
        spatial_domains(halves, n_domains=3, use="values")
    assert halves.obs["sw_domain"].cat.categories.tolist() == ["0", "1"]


@pytest.mark.parametrize("equal", [False, True], ids=["distinct rows", "equal rows"])
@pytest.mark.parametrize("method", ["kmeans", "leiden"])
def test_domains_do_not_depend_on_the_order_of_the_rows(halves: Any, method: Any, equal: bool) -> None:
    rng = np.random.default_rng(0)
    # values in which nothing is apart, on a lattice where neighbours are equally near: any dependence shows
    halves.obsm["values"] = rng.normal(size=(halves.n_obs, 12))
    if equal:  # as in a small panel of genes: the same values at different places
        halves.obsm["values"] = (rng.random((halves.n_obs, 6)) < 0.2) + 1.0
    shuffled = halves[rng.permutation(halves.n_obs)].copy()
    options: dict[str, Any] = {
        "n_domains": 5,
        "use": "values",
        "library_key": "section",
        "method": method,
        "smooth": 0.4,
    }
    one, other = (cast("pd.Series[Any]", spatial_domains(x, **options, inplace=False)) for x in (halves, shuffled))
    assert one.nunique() == 5
    assert (one == other.loc[one.index]).all()


def test_domains_of_a_lattice_turn_with_it(halves: Any) -> None:
    rng = np.random.default_rng(0)
    halves.obsm["values"] = rng.normal(size=(halves.n_obs, 4))
    x, y = halves.obsm["spatial"].T.copy()
    options: dict[str, Any] = {
        "n_domains": 3,
        "use": "values",
        "library_key": "section",
        "smooth": 0.6,
        "inplace": False,
    }
    domain: Any = spatial_domains(halves, **options)
    for moved in (np.c_[11 - y, x], np.c_[11 - x, y]):
        halves.obsm["spatial"] = moved
        pd.testing.assert_series_equal(cast("pd.Series[Any]", spatial_domains(halves, **options)), domain)


@pytest.mark.parametrize(
    ("found", "message"), [(2, "Only 2 domains were found in section t"), (4, "4 domains were found in section t")]
)
def test_another_number_of_domains_is_said_of_its_group(
    halves: Any, monkeypatch: pytest.MonkeyPatch, found: int, message: str
) -> None:
    numbers = iter([3, found])
    monkeypatch.setattr(domains, "leiden", lambda z, *_, **__: np.arange(len(z)) % next(numbers))
    with pytest.warns(SpatialWhispererWarning, match=message) as said:
        spatial_domains(halves, n_domains=3, use="values", method="leiden", group_key="section")
    assert len(said) == 1
