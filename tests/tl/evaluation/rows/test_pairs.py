"""Measured and predicted values of the same rows and genes."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer import _keys
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import record
from spatialwhisperer.tl.evaluation.rows.pairs import Pair, make_pair, values_of

SPACE = "per_spot_log1p"


def paired(data: Any, prediction: Any = None, **options: Any) -> Pair:
    unset: dict[str, Any] = dict.fromkeys(("genes", "value_space", "layer", "group_key"))
    slide = Slide.open(data, table_key=options.pop("table_key", None))
    return make_pair(slide, prediction, **(unset | {"key": _keys.EXPRESSION} | options))


@pytest.fixture
def table() -> Any:
    """Counts of 30 rows and 6 genes."""
    counts = np.random.default_rng(0).poisson(5, (30, 6)).astype(np.float32)
    obs = pd.DataFrame({"part": ["a"] * 10 + ["b"] * 20}, index=[f"r{i}" for i in range(30)])
    var = pd.DataFrame({"gene_ids": [f"ENSG{i}" for i in range(6)]}, index=[f"G{i}" for i in range(6)])
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var)


def test_truth_and_prediction_are_in_one_space(table: Any, guess: Any, measured: Any) -> None:
    pair = paired(table, guess(table, noise=0.0))
    assert pair.genes == list(table.var_names)
    assert pair.space == SPACE
    assert np.allclose(pair.truth.toarray(), measured(table), atol=1e-6)
    assert np.allclose(pair.truth.toarray(), pair.predicted, atol=1e-6)
    assert len(set(pair.groups)) == 1


def test_genes_are_chosen_in_the_order_of_the_caller(table: Any, guess: Any) -> None:
    prediction = guess(table)
    pair = paired(table, prediction, genes=["G4", "G1", "G4"])
    assert pair.genes == ["G4", "G1"]
    assert np.array_equal(pair.predicted, prediction[:, ["G4", "G1"]].X)
    assert paired(table, prediction, genes="G2").genes == ["G2"]


def test_genes_are_matched_by_id_where_names_differ(table: Any, guess: Any) -> None:
    prediction = guess(table)
    prediction.var["gene_id"] = table.var["gene_ids"].to_numpy()
    prediction.var_names = [f"alias {i}" for i in range(6)]
    pair = paired(table, prediction)
    assert pair.gene_ids == [f"ENSG{i}" for i in range(6)]
    assert pair.truth.shape == (30, 6)


def test_groups_are_those_of_a_column(table: Any, guess: Any) -> None:
    assert paired(table, guess(table), group_key="part").groups.tolist() == table.obs["part"].tolist()


def test_a_gene_that_was_not_measured_counts_as_zero(table: Any, measured: Any) -> None:
    values = values_of(Slide.open(table), np.array([2, -1, 0]), space=SPACE, layer=None).values.toarray()
    assert np.allclose(values[:, [0, 2]], measured(table)[:, [2, 0]], atol=1e-6)
    assert (values[:, 1] == 0).all()


@pytest.mark.parametrize("known", [True, False])
def test_a_spot_is_scaled_over_all_genes_of_the_model(table: Any, guess: Any, measured: Any, known: bool) -> None:
    """Whichever of them are evaluated."""
    space = "per_spot_log10"
    all_of = measured(table[:, :5].copy(), space)
    prediction = guess(table, space=space)[:, :5].copy()
    if known:
        # a model of five genes, of which two are in the table of the prediction
        library = {"genes": ["G0", "alias", "G2", "G3", "G4"], "gene_ids": ["", "ENSG1", "", "", ""]}
        record(prediction, _keys.EXPRESSION, {"value_space": space, "library": library})
        prediction = prediction[:, ["G4", "G1"]].copy()
    pair = paired(table, prediction, genes=["G4", "G1"])
    assert np.allclose(pair.truth.toarray(), all_of[:, [4, 1]], atol=1e-6)
    record(prediction, _keys.EXPRESSION, {"value_space": SPACE, "library": None})
    assert paired(table, prediction).library is None


def test_a_spatialdata_holds_its_prediction(section: Any, guess: Any) -> None:
    with pytest.raises(KeyError, match=r"Run sw\.tl\.predict_expression"):
        paired(section)
    section["sw_expression"] = guess(section["table"])
    assert paired(section, table_key="table").truth.shape == (120, 150)
    with pytest.raises(TypeError, match="the table itself"):
        paired(section, section)
    with pytest.raises(ValueError, match="are the same table"):
        paired(section, section["table"], value_space=SPACE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"value_space": "counts"}, ValueError, "Unknown value space 'counts'"),
        ({"value_space": "per_gene_log10_peer"}, ValueError, "cannot be converted to 'per_gene_log10_peer'"),
        ({"genes": ["ELSEWHERE"]}, KeyError, "genes not both predicted and measured: ELSEWHERE"),
        ({"genes": []}, KeyError, "genes not both predicted and measured: none"),
        ({"group_key": "batch"}, KeyError, "group_key='batch'"),
    ],
)
def test_bad_arguments_are_refused(table: Any, guess: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        paired(table, guess(table), **options)


def test_rows_must_be_the_same_in_the_same_order(table: Any, guess: Any) -> None:
    prediction = guess(table)
    with pytest.raises(KeyError, match="a table of its own. Pass prediction="):
        paired(table)
    with pytest.raises(ValueError, match=r"has 10 rows, the table 30.*: adata\[prediction.obs_names\].copy"):
        paired(table, prediction[:10].copy())
    with pytest.raises(ValueError, match=r"has 30 rows, the table 10.*prediction=prediction\[adata.obs_names\].copy"):
        paired(table[:10].copy(), prediction)
    other = prediction[:10].copy()
    other.obs_names = [f"other_{name}" for name in other.obs_names]
    with pytest.raises(ValueError, match="has 10 rows, the table 30.*predict again"):
        paired(table, other)
    with pytest.raises(ValueError, match="differ in 30 names"):
        paired(table, prediction[::-1].copy())


def test_genes_must_be_measured(table: Any, guess: Any) -> None:
    prediction = guess(table)
    prediction.var_names = [*table.var_names[:-2], "X1", "X2"]
    with pytest.warns(SpatialWhispererWarning, match="2 predicted genes were not measured"):
        assert len(paired(table, prediction).genes) == 4
    prediction.var_names = [f"X{i}" for i in range(6)]
    with pytest.raises(ValueError, match=r"No predicted gene \(X0"):
        paired(table, prediction)


def test_a_prediction_needs_values_and_a_space(table: Any, guess: Any) -> None:
    empty = guess(table)
    empty.X[:, 0] = np.nan
    with pytest.raises(ValueError, match=r"Every row of the prediction has a NaN \(0 of 30"):
        paired(table, empty)
    empty.X[:, 0] = np.inf
    with pytest.raises(ValueError, match="30 infinite values"):
        paired(table, empty)
    silent = guess(table)
    del silent.uns[_keys.UNS]
    with pytest.raises(ValueError, match="The value space of the prediction is not recorded"):
        paired(table, silent)


@pytest.mark.parametrize(("value", "text"), [(-1.0, "negative"), (np.nan, "NaN"), (0.5, "non-integer")])
def test_measured_values_must_be_counts(table: Any, guess: Any, value: float, text: str) -> None:
    prediction = guess(table)
    table.X.data[0] = value
    with pytest.raises(ValueError, match=text):
        paired(table, prediction)


def test_values_of_a_layer_must_be_finite(table: Any, guess: Any) -> None:
    table.layers["mine"] = np.full((30, 6), np.nan, np.float32)
    with pytest.raises(ValueError, match=r"\.layers\['mine'\] holds values that are not finite"):
        paired(table, guess(table, space="as given"), layer="mine")
