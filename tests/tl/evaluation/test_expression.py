"""Predicted expression compared with the measured one, and with baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer.tl.evaluation.expression import evaluate_expression
from spatialwhisperer.tl.evaluation.genes import gene_report

if TYPE_CHECKING:
    import pandas as pd

SPACE = "per_spot_log1p"


def cell(result: pd.DataFrame, **where: str) -> float:
    keep = np.ones(len(result), bool)
    for column, value in where.items():
        keep &= (result[column] == value).to_numpy()
    (value,) = result.loc[keep, "value"]
    return float(value)


def test_figures_are_those_of_a_loop(section: Any, guess: Any, measured: Any) -> None:
    table = section["table"]
    prediction = guess(table)
    section["sw_expression"] = prediction
    result = evaluate_expression(section, baselines=False)
    assert list(result) == ["group", "predictor", "gene_list", "metric", "value"]
    truth = measured(table)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(truth.T, prediction.X.T, strict=True)]
    where = {"group": "mean", "predictor": "prediction", "gene_list": "ACG"}
    assert cell(result, **where, metric="pearson") == pytest.approx(np.nanmean(r), rel=1e-5)
    assert cell(result, **where, metric="mse") == pytest.approx(((truth - prediction.X) ** 2).mean(), rel=1e-5)
    assert cell(result, **where, metric="n_genes") == table.n_vars
    assert SPACE in result.attrs["convention"]


def test_the_library_is_that_of_all_genes(adata: Any, guess: Any) -> None:
    """Also where few genes were predicted."""
    few = guess(adata, noise=0.0, n_genes=20)
    result = evaluate_expression(adata, few, hits=())
    assert cell(result, group="mean", metric="mse") == pytest.approx(0, abs=1e-10)


def test_groups_have_the_same_weight(adata: Any, guess: Any) -> None:
    """However many rows they have."""
    adata.obs["part"] = np.where(np.arange(adata.n_obs) < 20, "small", "large")
    prediction = guess(adata)
    result = evaluate_expression(adata, prediction, group_key="part", baselines=False)
    r = [cell(result, group=g, gene_list="ACG", metric="pearson") for g in ("small", "large")]
    assert cell(result, group="mean", gene_list="ACG", metric="pearson") == pytest.approx(np.mean(r))
    alone = evaluate_expression(adata[:20].copy(), prediction[:20].copy(), baselines=False)
    assert cell(alone, group="mean", gene_list="ACG", metric="pearson") == pytest.approx(r[0])


def test_a_group_of_a_few_rows_has_no_correlations(adata: Any, guess: Any) -> None:
    few, large = np.arange(adata.n_obs) < 3, np.arange(adata.n_obs) >= 3
    adata.obs["part"] = np.where(few, "few", "large")
    prediction = guess(adata)
    prediction.X[large, 0] = 1  # constant, which counts as 0 where there is a correlation
    prediction.X[few, 1] = 1
    how: Any = {"value_space": SPACE, "group_key": "part", "baselines": False, "hits": ()}
    both = evaluate_expression(adata, prediction, **how)
    alone = evaluate_expression(adata[large].copy(), prediction[large].copy(), **how)
    for metric in ("pearson", "pearson_defined", "rmse_z"):
        assert np.isnan(cell(both, group="few", metric=metric))
        assert cell(both, group="mean", metric=metric) == pytest.approx(cell(alone, group="large", metric=metric))
    assert cell(both, group="few", metric="n_constant") == 0
    assert cell(both, group="few", metric="n_undefined") == cell(both, group="few", metric="n_genes")
    assert np.isfinite(cell(both, group="few", metric="mse"))
    genes = evaluate_expression(adata, prediction, per_gene=True, **how)
    assert genes.loc[genes["group"] == "few", ["pearson", "rmse_z"]].isna().all(axis=None)
    assert "fewer than 4 spots have none" in both.attrs["convention"]


def test_the_libraries_of_a_table_are_groups(adata: Any, guess: Any) -> None:
    adata.obs["slide"] = np.where(np.arange(adata.n_obs) < 20, "first", "second")
    adata.uns["spatial"] = {"first": {}, "second": {}}
    result = evaluate_expression(adata, guess(adata), baselines=False, library_key="slide")
    assert set(result["group"]) == {"first", "second", "mean"}
    assert set(gene_report(adata, guess(adata), library_key="slide")["n_sections"]) <= {1, 2}


def test_gene_lists_come_from_training_data(section: Any, train: list[Any], guess: Any) -> None:
    prediction = guess(section["table"])
    result = evaluate_expression(section, prediction, train=train)
    assert set(result["gene_list"]) == {"ACG", "HEG50", "HVG50"}
    lists = {"HEG50": list(prediction.var_names[:50]), "HVG50": list(prediction.var_names[:7])}
    from_record = evaluate_expression(section, guess(section["table"], gene_lists=lists))
    assert cell(from_record, group="mean", gene_list="HVG50", metric="n_genes") == 7
    assert set(evaluate_expression(section, prediction)["gene_list"]) == {"ACG"}


def test_gene_lists_may_come_from_the_evaluated_section(section: Any, guess: Any, measured: Any) -> None:
    table = section["table"]
    prediction = guess(table)
    result = evaluate_expression(section, prediction, gene_lists_from="test")
    truth = measured(table)
    top = np.argsort(-truth.mean(axis=0), kind="stable")[:50]
    r = [np.corrcoef(truth[:, g], prediction.X[:, g])[0, 1] for g in top]
    assert cell(result, group="mean", gene_list="HEG50", metric="pearson") == pytest.approx(np.mean(r), rel=1e-5)
    assert "own measured values" in result.attrs["convention"]


def test_lists_and_genes_of_the_user_are_evaluated(section: Any, guess: Any) -> None:
    prediction = guess(section["table"])
    names = list(prediction.var_names)
    result = evaluate_expression(section, prediction, gene_lists={"mine": [*names[:4], "ELSEWHERE"]}, hits=(1, 3, 5))
    assert cell(result, group="mean", gene_list="mine", metric="n_genes") == 4
    kept = set(result.loc[result["gene_list"] == "mine", "metric"])
    assert {"hit@1", "hit@3"} < kept
    assert "hit@5" not in kept
    some = evaluate_expression(section, prediction, genes=names[5:9], per_gene=True)
    assert list(some["gene"]) == names[5:9]
    assert list(some.columns[:4]) == ["group", "predictor", "gene", "pearson"]
    every = evaluate_expression(section, prediction, per_gene=True).set_index("gene")
    np.testing.assert_allclose(every.loc[names[5:9], "pearson"], some["pearson"])


def test_baselines_stand_beside_the_prediction(section: Any, train: list[Any], guess: Any) -> None:
    prediction = guess(section["table"])
    # the sections of the session are not changed
    train = [x["table"].copy() for x in train]
    for i, table in enumerate([section["table"], *train]):
        table.obs["scalar"] = np.random.default_rng(i).random(table.n_obs)
    result = evaluate_expression(section, prediction, train=train, scalar_key="scalar")
    assert set(result["predictor"]) == {"prediction", "training mean", "scalar", "total UMI (oracle)"}
    mean = {"group": "mean", "predictor": "training mean", "gene_list": "ACG"}
    assert cell(result, **mean, metric="pearson") == 0
    assert np.isnan(cell(result, **mean, metric="pearson_defined"))
    assert cell(result, **mean, metric="n_undefined") == prediction.n_vars
    assert abs(cell(result, group="mean", predictor="scalar", gene_list="ACG", metric="pearson")) < 0.1
    assert set(evaluate_expression(section, prediction, train=train, baselines=False)["predictor"]) == {"prediction"}


def test_a_predictor_of_one_gene_does_not_win(section: Any, guess: Any, measured: Any) -> None:
    """Constant in all genes but one, which is copied: 1 over the genes with a correlation, about 0 over the genes that vary."""
    truth = measured(section["table"])
    prediction = guess(section["table"])
    varies = truth.std(axis=0) > 0
    copied = int(np.flatnonzero(varies)[0])
    prediction.X = np.zeros_like(prediction.X)
    prediction.X[:, copied] = truth[:, copied]
    result = evaluate_expression(section, prediction, baselines=False)
    where = {"group": "mean", "gene_list": "ACG"}
    assert cell(result, **where, metric="pearson_defined") == pytest.approx(1, abs=1e-6)
    assert cell(result, **where, metric="pearson") == pytest.approx(1 / varies.sum(), abs=1e-6)
    assert cell(result, **where, metric="n_constant") == varies.sum() - 1
    assert cell(result, **where, metric="n_undefined") == len(varies) - 1
    of_genes = evaluate_expression(section, prediction, baselines=False, per_gene=True)
    assert of_genes["pearson"].isna().sum() == len(varies) - 1
    assert "constant" not in of_genes


def test_rows_without_a_prediction_are_left_out(adata: Any, guess: Any) -> None:
    prediction = guess(adata)
    prediction.X[:10] = np.nan
    result = evaluate_expression(adata, prediction)
    assert cell(result, group="mean", metric="n_spots") == adata.n_obs - 10
    rest = evaluate_expression(adata[10:].copy(), prediction[10:].copy())
    assert cell(result, group="mean", metric="pearson") == pytest.approx(cell(rest, group="mean", metric="pearson"))


def test_bad_arguments_are_refused(adata: Any, guess: Any) -> None:
    prediction = guess(adata)
    with pytest.raises(ValueError, match="No gene of the list 'mine'"):
        evaluate_expression(adata, prediction, gene_lists={"mine": ["ELSEWHERE"]})
    with pytest.raises(ValueError, match="'ACG' is taken"):
        evaluate_expression(adata, prediction, gene_lists={"ACG": ["ELSEWHERE"]})
    with pytest.raises(ValueError, match="hits must be a positive whole number, not 0"):
        evaluate_expression(adata, prediction, hits=(0,))
    with pytest.raises(ValueError, match="gene_lists_from must be one of"):
        evaluate_expression(adata, prediction, gene_lists_from="validation")  # type: ignore[arg-type]


def test_values_of_a_layer_are_compared_as_given(adata: Any, guess: Any) -> None:
    prediction = guess(adata, space="as given")
    with pytest.raises(KeyError, match="name the layer"):
        evaluate_expression(adata, prediction)
    adata.layers["mine"] = prediction.X.copy()
    result = evaluate_expression(adata, prediction, layer="mine")
    assert cell(result, group="mean", metric="pearson") == pytest.approx(1)


@pytest.mark.slow
def test_aligned_neighbours_of_real_sections_reach_what_is_known(data_folder: Any) -> None:
    """Serial sections without any image; the leave-one-out mean of HEG50 and HVG50 lies near 0.33 and 0.41."""
    import anndata as ad

    import spatialwhisperer as sw

    tables = {
        n: sw.datasets.her2st(n, data_dir=data_folder, with_image=False)["table"] for n in ("C2", "C3", "C4", "C5")
    }
    genes = sorted(set.intersection(*(set(t.var_names) for t in tables.values())))
    tables = {name: table[:, genes].copy() for name, table in tables.items()}
    reached = []
    for name, table in tables.items():
        blank = ad.AnnData(np.zeros(table.shape, np.float32), obs=table.obs[[]], var=table.var[[]])
        others = [t for n, t in tables.items() if n != name]
        result = evaluate_expression(table, blank, value_space=SPACE, train=others, hits=())
        mean = result[(result["predictor"] == "aligned neighbours") & (result["group"] == "mean")]
        reached.append([cell(mean, gene_list=g, metric="pearson") for g in ("HEG50", "HVG50")])
    np.testing.assert_allclose(np.mean(reached, axis=0), [0.332, 0.411], atol=0.005)
