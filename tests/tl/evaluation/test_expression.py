from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import spatialwhisperer as sw
from spatialwhisperer import _keys
from spatialwhisperer._provenance import record
from spatialwhisperer.statistics.value_spaces import to_space
from spatialwhisperer.tl.evaluation import baselines as floors
from spatialwhisperer.tl.evaluation.baselines import tissue_darkness
from spatialwhisperer.tl.evaluation.expression import evaluate_expression

SPACE = "per_spot_log1p"


def guess(table: Any, noise: float = 0.5, space: str = SPACE, n_genes: int | None = None) -> Any:
    """A prediction of a table: the truth and noise."""
    import anndata as ad

    truth = to_space(table.X, space, library=np.asarray(table.X.sum(axis=1)).ravel())
    truth = truth.toarray() if sp.issparse(truth) else truth
    values = truth + np.random.default_rng(0).normal(0, noise, truth.shape)
    out = ad.AnnData(values.astype(np.float32), obs=table.obs[[]].copy(), var=table.var[[]].copy())
    out = out if n_genes is None else out[:, :n_genes].copy()
    record(out, _keys.EXPRESSION, value_space=space)
    return out


@pytest.fixture
def train(simulated: Any) -> list[Any]:
    return [simulated.sections["P1"], simulated.sections["P2"]]


def cell(result: pd.DataFrame, **where: str) -> float:
    keep = np.ones(len(result), bool)
    for column, value in where.items():
        keep &= (result[column] == value).to_numpy()
    (value,) = result.loc[keep, "value"]
    return float(value)


def test_values_are_those_of_a_loop(section: Any) -> None:
    table = section["table"]
    prediction = guess(table)
    section["sw_expression"] = prediction
    result = evaluate_expression(section, baselines=False)
    assert list(result) == ["group", "predictor", "gene_list", "metric", "value"]
    truth = to_space(table.X, SPACE, library=np.asarray(table.X.sum(axis=1)).ravel())
    truth = truth.toarray() if sp.issparse(truth) else truth
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(truth.T, prediction.X.T, strict=True)]
    where = {"group": "mean", "predictor": "prediction", "gene_list": "ACG"}
    assert cell(result, **where, metric="pearson") == pytest.approx(np.nanmean(r), rel=1e-5)
    assert cell(result, **where, metric="mse") == pytest.approx(((truth - prediction.X) ** 2).mean(), rel=1e-5)
    assert cell(result, **where, metric="n_genes") == table.n_vars
    assert SPACE in result.attrs["convention"]


def test_the_library_is_all_counts(adata: Any) -> None:
    """A prediction of few genes is measured in the space of all of them."""
    few = guess(adata, noise=0.0, n_genes=20)
    result = evaluate_expression(adata, few, hits=())
    assert cell(result, group="mean", metric="mse") == pytest.approx(0, abs=1e-10)


def test_sections_count_alike(adata: Any) -> None:
    """The mean is over groups, however many rows they have."""
    adata.obs["part"] = np.where(np.arange(adata.n_obs) < 20, "small", "large")
    prediction = guess(adata)
    result = evaluate_expression(adata, prediction, group_key="part", baselines=False)
    r = [cell(result, group=g, gene_list="ACG", metric="pearson") for g in ("small", "large")]
    assert cell(result, group="mean", gene_list="ACG", metric="pearson") == pytest.approx(np.mean(r))
    alone = evaluate_expression(adata[:20].copy(), prediction[:20].copy(), baselines=False)
    assert cell(alone, group="mean", gene_list="ACG", metric="pearson") == pytest.approx(r[0])


def test_lists_come_from_training_data(section: Any, train: list[Any]) -> None:
    prediction = guess(section["table"])
    result = evaluate_expression(section, prediction, train=train)
    assert set(result["gene_list"]) == {"ACG", "HEG50", "HVG50"}
    recorded = prediction.copy()
    lists = {"HEG50": list(prediction.var_names[:50]), "HVG50": list(prediction.var_names[:7])}
    record(recorded, _keys.EXPRESSION, value_space=SPACE, gene_lists=lists)
    from_record = evaluate_expression(section, recorded)
    assert cell(from_record, group="mean", gene_list="HVG50", metric="n_genes") == 7
    assert set(evaluate_expression(section, prediction)["gene_list"]) == {"ACG"}


def test_lists_of_the_test_section(section: Any) -> None:
    table = section["table"]
    prediction = guess(table)
    result = evaluate_expression(section, prediction, gene_lists_from="test")
    truth = to_space(table.X, SPACE, library=np.asarray(table.X.sum(axis=1)).ravel())
    truth = truth.toarray() if sp.issparse(truth) else truth
    top = np.argsort(-truth.mean(axis=0), kind="stable")[:50]
    r = [np.corrcoef(truth[:, g], prediction.X[:, g])[0, 1] for g in top]
    assert cell(result, group="mean", gene_list="HEG50", metric="pearson") == pytest.approx(np.mean(r), rel=1e-5)
    assert "own measured values" in result.attrs["convention"]


def test_own_lists_and_genes(section: Any) -> None:
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


def test_baselines(section: Any, train: list[Any]) -> None:
    prediction = guess(section["table"])
    # the shared sections stay as they are
    train = [x["table"].copy() for x in train]
    for i, table in enumerate([section["table"], *train]):
        table.obs["scalar"] = np.random.default_rng(i).random(table.n_obs)
    result = evaluate_expression(section, prediction, train=train, scalar_key="scalar")
    assert set(result["predictor"]) == {"prediction", "training mean", "scalar", "total UMI (oracle)"}
    mean = {"group": "mean", "predictor": "training mean", "gene_list": "ACG"}
    assert np.isnan(cell(result, **mean, metric="pearson"))
    assert cell(result, **mean, metric="n_undefined") == prediction.n_vars
    assert abs(cell(result, group="mean", predictor="scalar", gene_list="ACG", metric="pearson")) < 0.1
    assert set(evaluate_expression(section, prediction, train=train, baselines=False)["predictor"]) == {"prediction"}


def test_by_rank_is_a_brute_force_search() -> None:
    rng = np.random.default_rng(0)
    values = sp.random(90, 600, 0.3, format="csr", random_state=0, dtype=np.float32)
    sections = np.repeat(["a", "b", "c"], 30)
    known, asked = rng.random(90), rng.random(25)
    known[[3, 50]], asked[7] = np.nan, np.nan
    training = floors.Training(values, pd.DataFrame(index=range(90)), sections, known)
    out = floors.by_rank(training, known, asked, np.full(25, "t"), k=10)
    rank, target = floors._ranks(known, sections), floors._ranks(asked, np.full(25, "t"))
    assert np.isnan(out[7]).all()
    for i in np.setdiff1d(np.arange(25), [7]):
        distance = np.abs(rank - target[i])
        nearest = np.sort(distance[np.isfinite(distance)])[:10]
        # ties at the edge leave a choice: the distances must be the least, and the mean that of some such choice
        window = np.flatnonzero(distance <= nearest[-1] + 1e-12)
        if len(window) == 10:
            np.testing.assert_allclose(out[i], values[window].toarray().mean(axis=0), atol=1e-6)
    few = floors.by_rank(training, known, asked, np.full(25, "t"), k=200)
    assert np.isfinite(few[0]).all()


def test_neighbours_in_aligned_sections(section: Any, train: list[Any]) -> None:
    test, bank = section["table"], [x["table"].copy() for x in train]
    rng = np.random.default_rng(0)
    for table, patient in ((test, "A"), (bank[0], "A"), (bank[1], "B")):
        table.obs["patient"] = patient
        table.obs["warped_x"], table.obs["warped_y"] = rng.random((2, table.n_obs))
    test.obs.loc[test.obs_names[:3], "warped_x"] = np.nan
    result = evaluate_expression(section, guess(test), train=bank)
    near = {"group": "mean", "predictor": "aligned neighbours", "gene_list": "ACG"}
    assert cell(result, **near, metric="n_spots") == test.n_obs - 3
    xy, other = (t.obs[["warped_x", "warped_y"]].to_numpy() for t in (test, bank[0]))
    nearest = np.argsort(((xy[5] - other) ** 2).sum(axis=1))[:5]
    values = to_space(sp.csr_matrix(bank[0].X), SPACE).toarray()
    pair = make_pair_of(section, guess(test))
    training = floors.read_training(bank, pair, layer=None, table_key=None)
    out = floors.aligned_neighbours(pair, training, "patient")
    np.testing.assert_allclose(out[5], values[nearest].mean(axis=0), atol=1e-5)


def make_pair_of(data: Any, prediction: Any) -> Any:
    from spatialwhisperer.tl.evaluation.pairs import make_pair

    options = dict.fromkeys(("genes", "value_space", "layer", "group_key", "table_key"))
    return make_pair(data, prediction, key="sw_expression", **options)


def test_rows_without_a_prediction_are_left_out(adata: Any) -> None:
    prediction = guess(adata)
    prediction.X[:10] = np.nan
    result = evaluate_expression(adata, prediction)
    assert cell(result, group="mean", metric="n_spots") == adata.n_obs - 10
    rest = evaluate_expression(adata[10:].copy(), prediction[10:].copy())
    assert cell(result, group="mean", metric="pearson") == pytest.approx(cell(rest, group="mean", metric="pearson"))


def test_darkness(section: Any, adata: Any) -> None:
    # at full resolution, so that both read the same pixels
    tissue_darkness(section, tile_um=80, tile_px=160)
    dark = section["table"].obs["sw_darkness"]
    assert dark.dtype == np.float32
    np.testing.assert_allclose(tissue_darkness(adata, tile_um=80, tile_px=160, inplace=False), dark, rtol=1e-5)
    adata.uns["spatial"]["P3"]["images"]["fullres"][:] = 255
    assert tissue_darkness(adata, tile_um=80, inplace=False).max() == 0
    adata.uns["spatial"]["P3"]["images"]["fullres"][:] = 3
    assert tissue_darkness(adata, tile_um=80, inplace=False).max() == 0
    adata.uns["spatial"]["P3"]["images"]["fullres"][:] = (255, 100, 25)
    expected = -np.log10(np.array([255, 100, 25]) / 255).mean()
    np.testing.assert_allclose(tissue_darkness(adata, tile_um=80, inplace=False), expected, rtol=1e-5)
    assert "sw_darkness" not in adata.obs


def test_bad_input(section: Any, adata: Any, train: list[Any]) -> None:
    prediction = guess(adata)
    with pytest.raises(KeyError, match="Run sw.tl.predict_expression"):
        evaluate_expression(section)
    with pytest.raises(KeyError, match="does not carry its prediction"):
        evaluate_expression(adata)
    with pytest.raises(ValueError, match="Unknown value space 'counts'"):
        evaluate_expression(adata, prediction, value_space="counts")
    with pytest.raises(ValueError, match="cannot be carried over to 'per_gene_log10_peer'"):
        evaluate_expression(adata, prediction, value_space="per_gene_log10_peer")
    with pytest.raises(ValueError, match="has 10 rows, the measured table 120"):
        evaluate_expression(adata, prediction[:10].copy())
    with pytest.raises(ValueError, match="differ in 120 names"):
        evaluate_expression(adata, prediction[::-1].copy())
    with pytest.raises(ValueError, match="Gene list 'mine'"):
        evaluate_expression(adata, prediction, gene_lists={"mine": ["ELSEWHERE"]})
    with pytest.raises(ValueError, match="'ACG' is taken"):
        evaluate_expression(adata, prediction, gene_lists={"ACG": ["ELSEWHERE"]})
    with pytest.raises(KeyError, match="genes not both predicted and measured: ELSEWHERE"):
        evaluate_expression(adata, prediction, genes=["ELSEWHERE"])
    with pytest.raises(KeyError, match="group_key='batch'"):
        evaluate_expression(adata, prediction, group_key="batch")
    with pytest.raises(ValueError, match="hits must be positive"):
        evaluate_expression(adata, prediction, hits=(0,))
    with pytest.raises(ValueError, match="gene_lists_from must be one of"):
        evaluate_expression(adata, prediction, gene_lists_from="validation")
    with pytest.raises(ValueError, match=r"train\[1\] holds rows that are evaluated"):
        evaluate_expression(adata, prediction, train=[train[0], adata.copy()])
    with pytest.raises(ValueError, match="are the same table"):
        evaluate_expression(section, section["table"], value_space=SPACE)
    with pytest.raises(TypeError, match="the table itself"):
        evaluate_expression(section, section)


def test_bad_values(adata: Any, train: list[Any]) -> None:
    prediction = guess(adata)
    other = prediction.copy()
    other.var_names = [f"X{i}" for i in range(other.n_vars)]
    with pytest.raises(ValueError, match=r"No predicted gene \(X0"):
        evaluate_expression(adata, other)
    some = prediction.copy()
    some.var_names = [*prediction.var_names[:-2], "X1", "X2"]
    with pytest.warns(sw._utils.SpatialWhispererWarning, match="2 predicted genes were not measured"):
        assert cell(evaluate_expression(adata, some), group="mean", metric="n_genes") == adata.n_vars - 2
    empty = prediction.copy()
    empty.X[:, 0] = np.nan
    with pytest.raises(ValueError, match=r"Every row of the prediction has a NaN \(0 of 120"):
        evaluate_expression(adata, empty)
    empty.X[:, 0] = np.inf
    with pytest.raises(ValueError, match="120 infinite values"):
        evaluate_expression(adata, empty)
    silent = prediction.copy()
    del silent.uns[_keys.UNS]
    with pytest.raises(ValueError, match="does not say in which value space"):
        evaluate_expression(adata, silent)
    counts = sp.csr_matrix(adata.X, dtype=np.float32)
    for value, text in ((-1.0, "negative"), (np.nan, "NaN"), (0.5, "non-integer")):
        broken = adata.copy()
        broken.X = counts.copy()
        broken.X.data[0] = value
        with pytest.raises(ValueError, match=text):
            evaluate_expression(broken, prediction)
    stranger = train[0]["table"].copy()
    stranger.var_names = [f"X{i}" for i in range(stranger.n_vars)]
    stranger.var = stranger.var[[]]
    with pytest.raises(ValueError, match=r"train\[0\] has none of the predicted genes"):
        evaluate_expression(adata, prediction, train=[stranger])


def test_values_as_given(adata: Any) -> None:
    prediction = guess(adata)
    record(prediction, _keys.EXPRESSION, value_space="as given")
    with pytest.raises(KeyError, match="name the layer"):
        evaluate_expression(adata, prediction)
    adata.layers["mine"] = prediction.X.copy()
    result = evaluate_expression(adata, prediction, layer="mine")
    assert cell(result, group="mean", metric="pearson") == pytest.approx(1)


@pytest.mark.slow
def test_aligned_neighbours_of_real_sections(data_folder: Any) -> None:
    """Serial sections without any image; the leave-one-out mean of HEG50 and HVG50 lies near 0.33 and 0.41."""
    import anndata as ad

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
