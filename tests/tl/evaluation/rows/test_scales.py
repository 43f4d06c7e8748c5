"""Whether measured and predicted values were scaled over comparable sets of genes."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer import _keys
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.counts import counts_matrix
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import record
from spatialwhisperer.tl.evaluation import baselines
from spatialwhisperer.tl.evaluation.expression import evaluate_expression
from spatialwhisperer.tl.evaluation.genes import gene_report
from spatialwhisperer.tl.evaluation.rows import pairs
from spatialwhisperer.tl.evaluation.rows.pairs import make_pair
from spatialwhisperer.tl.evaluation.rows.scales import warn_of_scales

SPACE = "per_spot_log1p"
FEW = [f"GENE{i}" for i in range(8)]


@pytest.fixture
def table() -> Any:
    """Counts of 30 rows and 40 genes."""
    counts = np.random.default_rng(0).poisson(5, (30, 40)).astype(np.float32)
    obs, var = pd.DataFrame(index=[f"r{i}" for i in range(30)]), pd.DataFrame(index=[f"GENE{i}" for i in range(40)])
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var)


def scale_of(table: Any, prediction: Any) -> list[str]:
    """Warnings of different scales."""
    options: dict[str, Any] = dict.fromkeys(("genes", "value_space", "layer", "group_key"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_scales(make_pair(Slide.open(table), prediction, key=_keys.EXPRESSION, **options).scales)
    return [str(w.message) for w in caught if "different scales" in str(w.message)]


def trained(prediction: Any, genes: int, counted: int, space: str = SPACE) -> Any:
    out = prediction.copy()
    record(out, _keys.EXPRESSION, {"value_space": space, "measured": {"genes": genes, "counted": counted}})
    return out


def test_a_panel_and_a_model_of_whole_tables_are_on_different_scales(table: Any, guess: Any) -> None:
    prediction = guess(table)[:, FEW].copy()
    panel = table[:, FEW].copy()
    assert scale_of(table, trained(prediction, 40, 40)) == []
    assert scale_of(panel, trained(prediction, 8, 8)) == []
    (text,) = scale_of(panel, trained(prediction, 40, 40))
    assert (
        "far fewer in the measured table (8) than the 40 that are counted in the training tables of the model. Their"
        in text
    )
    (text,) = scale_of(table, trained(prediction, 8, 8))
    assert (
        "far fewer in the training tables of the model (8) than the 40 that are counted in the measured table. Their"
        in text
    )
    # genes that nothing counts change no total
    empty = table.copy()
    empty.X = sp.csr_matrix(np.where(np.arange(40) < 8, table.X.toarray(), 0))
    assert scale_of(empty, trained(prediction, 8, 8)) == []
    # within a section each gene is scaled by itself
    assert scale_of(panel, trained(prediction, 40, 40, "per_gene_log10_peer")) == []


@pytest.mark.parametrize("space", [SPACE, "per_spot_log10"])
def test_genes_of_the_model_are_counted_where_those_of_training_are_not_known(
    table: Any, guess: Any, space: str
) -> None:
    prediction = guess(table, space=space)
    assert scale_of(table[:, :20].copy(), prediction) == []
    (text,) = scale_of(table[:, FEW].copy(), prediction)
    assert "The measured table of 8 genes has 8 of the 40 genes of the model" in text


def test_training_tables_of_the_baselines_are_compared_too(table: Any, guess: Any) -> None:
    train = table.copy()
    train.obs_names = [f"t{i}" for i in range(30)]
    prediction = guess(table)[:, FEW].copy()
    with pytest.warns(
        SpatialWhispererWarning,
        match=r"far fewer in train\[1\] \(8\) than the 40 that are counted in the measured table",
    ):
        evaluate_expression(table, prediction, train=[train, train[:, FEW].copy()])
    with pytest.warns(
        SpatialWhispererWarning,
        match=r"far fewer in the measured table \(8\) than the 40 that are counted in train\[0\]",
    ):
        evaluate_expression(table[:, FEW].copy(), prediction, train=train)


def test_one_call_says_it_once(table: Any, guess: Any) -> None:
    """The training tables of the model are most often those of the baselines too."""
    train = table.copy()
    train.obs_names = [f"t{i}" for i in range(30)]
    panel, prediction = table[:, FEW].copy(), guess(table)[:, FEW].copy()
    for known in (trained(prediction, 40, 40), prediction, guess(table)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            evaluate_expression(panel, known, train=[train, train])
        texts = [str(w.message) for w in caught if "different scales" in str(w.message)]
        assert len(texts) == 1
        assert "far fewer in the measured table (8) than the 40 that are counted in" in texts[0]
    with pytest.warns(SpatialWhispererWarning, match=r"far fewer in the measured table \(8\)"):
        gene_report(panel, trained(prediction, 40, 40))


def test_each_table_is_read_once(table: Any, guess: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train = table.copy()
    train.obs_names = [f"t{i}" for i in range(30)]
    read: list[int] = []

    def counted(one: Any, layer: str | None) -> Any:
        read.append(id(one))
        return counts_matrix(one, layer)

    for module in (pairs, baselines):
        monkeypatch.setattr(module, "counts_matrix", counted)
    result = evaluate_expression(table, trained(guess(table), 40, 40), train=train)
    assert "total UMI (oracle)" in set(result["predictor"])
    assert sorted(read) == sorted([id(table), id(train)])


def test_a_table_of_another_species_is_refused(table: Any, guess: Any) -> None:
    mouse = table.copy()
    mouse.var_names = [*FEW, *(name.capitalize() for name in table.var_names[8:])]
    message = r"Only 8 of the 40 predicted genes are in {}\. .* another species' symbols: 8 names are the same"
    with pytest.raises(ValueError, match=message.format("the measured table")):
        evaluate_expression(mouse, guess(table))
    mouse.obs_names = [f"m{i}" for i in range(30)]
    with pytest.raises(ValueError, match=message.format(r"train\[0\]")):
        evaluate_expression(table, guess(table), train=mouse)
