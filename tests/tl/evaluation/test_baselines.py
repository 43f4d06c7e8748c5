"""Baselines of predicted expression."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._provenance import record
from spatialwhisperer.statistics.expression.value_spaces import to_space
from spatialwhisperer.tl.evaluation.baselines import (
    TrainingSpots,
    _ranks,
    aligned_neighbours,
    by_rank,
    read_training,
    tissue_darkness,
)
from spatialwhisperer.tl.evaluation.expression import evaluate_expression
from spatialwhisperer.tl.evaluation.rows.pairs import Pair, make_pair

SPACE = "per_spot_log1p"


def paired(data: Any, prediction: Any) -> Pair:
    options: dict[str, Any] = dict.fromkeys(("genes", "value_space", "layer", "group_key"))
    return make_pair(Slide.open(data), prediction, key="sw_expression", **options)


# ------------------------------------------------------------------------------------------------- one number per spot


def test_ranks_are_the_middles_of_equal_parts_of_a_section() -> None:
    values = np.array([3.0, 1.0, np.nan, 2.0, 2.0, 5.0])
    ranks = _ranks(values, np.array(["a", "a", "a", "a", "b", "b"]))
    np.testing.assert_allclose(ranks, [5 / 6, 1 / 6, np.nan, 3 / 6, 1 / 4, 3 / 4])


def test_spots_of_the_nearest_rank_are_averaged() -> None:
    rng = np.random.default_rng(0)
    values = sp.random(90, 600, 0.3, format="csr", random_state=0, dtype=np.float32)
    sections = np.repeat(["a", "b", "c"], 30)
    known, asked = rng.random(90), rng.random(25)
    known[[3, 50]], asked[7] = np.nan, np.nan
    training = TrainingSpots(values, pd.DataFrame(index=range(90)), sections, known, [])
    out = by_rank(training, known, asked, np.full(25, "t"), k=10)
    rank, target = _ranks(known, sections), _ranks(asked, np.full(25, "t"))
    assert np.isnan(out[7]).all()
    for i in np.setdiff1d(np.arange(25), [7]):
        distance = np.abs(rank - target[i])
        nearest = np.sort(distance[np.isfinite(distance)])[:10]
        # ties at the edge leave a choice: the distances must be the least, and the mean that of some such choice
        window = np.flatnonzero(distance <= nearest[-1] + 1e-12)
        if len(window) == 10:
            np.testing.assert_allclose(out[i], values[window].toarray().mean(axis=0), atol=1e-6)
    few = by_rank(training, known, asked, np.full(25, "t"), k=200)
    assert np.isfinite(few[0]).all()


def test_darkness_is_the_mean_optical_density(section: Any, adata: Any) -> None:
    # at full resolution, so that both read the same pixels
    tissue_darkness(section, tile_um=80, tile_px=160)
    dark = section["table"].obs["sw_darkness"]
    assert dark.dtype == np.float32
    again: Any = tissue_darkness(adata, tile_um=80, tile_px=160, inplace=False)
    np.testing.assert_allclose(again, dark, rtol=1e-5)
    adata.uns["spatial"]["P3"]["images"]["fullres"][:] = 255
    again = tissue_darkness(adata, tile_um=80, inplace=False)
    assert again.max() == 0
    adata.uns["spatial"]["P3"]["images"]["fullres"][:] = 3
    again = tissue_darkness(adata, tile_um=80, inplace=False)
    assert again.max() == 0
    adata.uns["spatial"]["P3"]["images"]["fullres"][:] = (255, 100, 25)
    expected = -np.log10(np.array([255, 100, 25]) / 255).mean()
    again = tissue_darkness(adata, tile_um=80, inplace=False)
    np.testing.assert_allclose(again, expected, rtol=1e-5)
    assert "sw_darkness" not in adata.obs


def test_darkness_needs_the_size_of_a_tile(adata: Any) -> None:
    del adata.uns["spatialwhisperer"]
    with pytest.raises(ValueError, match=r"Pass tile_um=…, or run sw\.pp\.tiles"):
        tissue_darkness(adata)


# ------------------------------------------------------------------------------------------------- training spots


def test_neighbours_in_aligned_sections_are_averaged(section: Any, train: list[Any], guess: Any) -> None:
    test, bank = section["table"], [x["table"].copy() for x in train]
    rng = np.random.default_rng(0)
    # patient 1 is 1.0 in a column with missing values
    for table, patient in ((test, 1), (bank[0], 1.0), (bank[1], np.nan)):
        table.obs["patient"] = patient
        table.obs["warped_x"], table.obs["warped_y"] = rng.random((2, table.n_obs))
    test.obs.loc[test.obs_names[:3], "warped_x"] = np.nan
    prediction = guess(test)
    result = evaluate_expression(section, prediction, train=bank)
    near = result.set_index(["group", "predictor", "gene_list", "metric"])["value"]["mean", "aligned neighbours", "ACG"]
    assert near["n_spots"] == test.n_obs - 3
    xy, other = (t.obs[["warped_x", "warped_y"]].to_numpy() for t in (test, bank[0]))
    nearest = np.argsort(((xy[5] - other) ** 2).sum(axis=1))[:5]
    values = to_space(sp.csr_matrix(bank[0].X), SPACE).toarray()
    pair = paired(section, prediction)
    training = read_training(bank, pair, layer=None, options={})
    out: Any = aligned_neighbours(pair, training, "patient")
    np.testing.assert_allclose(out[5], values[nearest].mean(axis=0), atol=1e-5)


def test_training_spots_of_all_objects_are_read(section: Any, train: list[Any], guess: Any) -> None:
    spots = read_training(train, paired(section, guess(section["table"])), layer=None, options={})
    assert spots.values.shape == (240, 150)
    assert len(spots.obs) == len(spots.totals) == 240
    assert set(spots.sections) == {"0:P1_spots", "1:P2_spots"}
    assert np.allclose(spots.totals[:120], np.asarray(train[0]["table"].X.sum(axis=1)).ravel())


def test_training_data_must_not_hold_what_is_evaluated(adata: Any, train: list[Any], guess: Any) -> None:
    pair = paired(adata, guess(adata))
    for leak in (adata, adata.copy(), adata[30:].copy(), adata[:, 20:].copy()):
        with pytest.raises(ValueError, match=r"train\[1\] holds rows that are evaluated"):
            read_training([train[0], leak], pair, layer=None, options={})


@pytest.mark.parametrize("counts_of_a_row", [0.2, 1.0])
def test_shallow_sections_with_the_same_names_are_not_the_same(counts_of_a_row: float) -> None:
    rng = np.random.default_rng(0)
    one, other = (
        ad.AnnData(sp.csr_matrix(rng.poisson(counts_of_a_row / 60, (500, 60)), dtype=np.float32)) for _ in "ab"
    )
    prediction = ad.AnnData(
        rng.normal(size=one.shape).astype(np.float32),
        obs=pd.DataFrame(index=one.obs_names),
        var=pd.DataFrame(index=one.var_names),
    )
    record(prediction, "sw_expression", {"value_space": SPACE})
    pair = paired(one, prediction)
    assert len(read_training([other], pair, layer=None, options={}).totals) == 500
    with pytest.raises(ValueError, match="holds rows that are evaluated"):
        read_training([one.copy()], pair, layer=None, options={})


def test_values_that_are_no_counts_must_not_hold_what_is_evaluated(adata: Any, train: list[Any], guess: Any) -> None:
    other = train[0]["table"].copy()
    for table in (adata, other):
        table.layers["mine"] = np.log1p(table.X.toarray() if sp.issparse(table.X) else table.X)
    prediction = guess(adata, space="as given")
    pair = make_pair(
        Slide.open(adata), prediction, genes=None, value_space=None, layer="mine", group_key=None, key="sw_expression"
    )
    for leak in (adata, adata.copy(), adata[30:].copy(), adata[:, 20:].copy()):
        with pytest.raises(ValueError, match=r"train\[1\] holds rows that are evaluated"):
            read_training([other, leak], pair, layer="mine", options={})
    # barcodes of another section are the same
    other.obs_names = adata.obs_names
    read_training([other], pair, layer="mine", options={})
    # zeros in both say nothing
    adata.layers["mine"][:] = other.layers["mine"][:] = 0
    read_training([other], replace(pair, truth=pair.truth * 0), layer="mine", options={})


def test_training_spots_are_scaled_over_all_genes_of_the_model(adata: Any, train: list[Any], guess: Any) -> None:
    space = "per_spot_log10"
    some = [str(g) for g in adata.var_names[[7, 3, 30]]]
    prediction = guess(adata, space=space)
    options: Any = {"value_space": None, "layer": None, "group_key": None, "key": "sw_expression"}
    every, few = (
        read_training(train, make_pair(Slide.open(adata), prediction, genes=g, **options), layer=None, options={})
        for g in (None, some)
    )
    np.testing.assert_array_equal(few.values.toarray(), every.values[:, [7, 3, 30]].toarray())


def test_training_data_need_a_predicted_gene(adata: Any, train: list[Any], guess: Any) -> None:
    other = train[0]["table"].copy()
    other.var_names = [f"X{i}" for i in range(other.n_vars)]
    other.var = other.var[[]]
    with pytest.raises(ValueError, match=r"train\[0\] has none of the predicted genes"):
        read_training([other], paired(adata, guess(adata)), layer=None, options={})
