from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer import _keys
from spatialwhisperer._provenance import record
from spatialwhisperer.pl.expression import expression, gene_ranking
from spatialwhisperer.statistics.expression.value_spaces import to_space


@pytest.fixture
def prediction(adata: Any) -> Any:
    """Half of the truth and noise, least of it in the first gene; no prediction for five rows."""
    import anndata as ad

    truth = to_space(np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X))
    noise = np.random.default_rng(0).normal(0, 0.6, truth.shape)
    noise[:, 0] *= 0.01
    values = (truth / 2 + noise).astype(np.float32)
    values[:5] = np.nan
    out = ad.AnnData(values, obs=adata.obs[[]].copy(), var=adata.var[[]].copy())
    record(out, _keys.EXPRESSION, {"value_space": "per_spot_log1p"})
    return out


@pytest.fixture
def report() -> pd.DataFrame:
    r = np.linspace(0.8, -0.1, 30)
    out = pd.DataFrame({"pearson": r, "pearson_sd": 0.05}, index=[f"G{i}" for i in range(30)])
    out.loc["G29"] = np.nan
    return out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SpatialData", "AnnData"])
def test_three_panels_for_each_gene(kind: str, section: Any, adata: Any, prediction: Any) -> None:
    if kind == "SpatialData":
        section["sw_expression"] = prediction
        axes = expression(section, n_genes=2)
    else:
        axes = expression(adata, n_genes=2, prediction=prediction)
    assert len(axes) == 6
    best = prediction.var_names[0]
    assert axes[0].get_title().endswith(f"{best}, measured")
    assert axes[1].get_title().endswith(f"{best}, predicted")
    assert axes[2].get_title() == "r = 1.00"
    assert axes[2].get_xlabel() == "measured, ln(1 + CP10k)"
    assert len(np.asarray(axes[0].collections[0].get_offsets())) == 120
    assert len(np.asarray(axes[1].collections[0].get_offsets())) == 115
    assert len(np.asarray(np.asarray(axes[2].collections[0].get_offsets()))) == 115
    axes[0].figure.canvas.draw()


def test_named_genes_and_section(section: Any, prediction: Any) -> None:
    section["sw_expression"] = prediction
    names = list(prediction.var_names[[7, 3]])
    axes = expression(section, genes=names, section="P3_spots")
    assert [ax.get_title().split()[1].rstrip(",") for ax in axes[::3]] == names
    with pytest.raises(KeyError, match="genes not both predicted and measured: NOPE"):
        expression(section, genes=["NOPE"])
    with pytest.raises(KeyError, match="no sections"):
        expression(section, section="P9")
    with pytest.raises(ValueError, match="n_genes must be a positive whole number, not 0"):
        expression(section, n_genes=0)


def test_a_constant_prediction(section: Any, prediction: Any) -> None:
    prediction.X = np.ones_like(prediction.X)
    section["sw_expression"] = prediction
    with pytest.raises(ValueError, match="No gene has a correlation"):
        expression(section)
    axes = expression(section, genes=[prediction.var_names[0]])
    assert axes[2].get_title() == "r undefined"
    axes[0].figure.canvas.draw()


def test_without_a_prediction(section: Any, adata: Any) -> None:
    with pytest.raises(KeyError, match="Run sw.tl.predict_expression"):
        expression(section)
    with pytest.raises(KeyError, match="a table of its own. Pass prediction="):
        expression(adata)


@pytest.fixture
def unmeasured(section: Any) -> Any:
    """The image of the section alone, with a grid of tiles and values that were predicted for them."""
    import anndata as ad
    from spatialdata import SpatialData

    import spatialwhisperer as sw

    slide = SpatialData(images=dict(section.images))
    sw.pp.tiles(slide, at="grid", tile_um=80)
    rows = slide["sw_tiles"].obs_names
    values = np.random.default_rng(0).normal(size=(len(rows), 4)).astype(np.float32)
    values[0] = np.nan
    var = pd.DataFrame({"held_out_pearson": np.array([0.1, np.nan, 0.4, 0.2], np.float32)}, index=["A", "B", "C", "D"])
    predicted = ad.AnnData(values, obs=pd.DataFrame(index=rows), var=var)
    record(predicted, _keys.EXPRESSION, {"value_space": "per_spot_log1p"})
    slide["sw_expression"] = predicted
    return slide


def test_a_slide_without_expression_has_the_prediction_alone(unmeasured: Any) -> None:
    axes = expression(unmeasured)
    assert [ax.get_title().split(": ")[1] for ax in axes] == [
        "C\npredicted, ln(1 + CP10k), r = 0.40 held out",
        "D\npredicted, ln(1 + CP10k), r = 0.20 held out",
        "A\npredicted, ln(1 + CP10k), r = 0.10 held out",
    ]
    assert axes[0].figure.axes[:3] == axes
    axes[0].figure.canvas.draw()


def test_named_genes_of_a_slide_without_expression(unmeasured: Any, caplog: pytest.LogCaptureFixture) -> None:
    axes = expression(unmeasured, genes=["B", "A", "D", "C"])
    assert [ax.get_title().split(": ")[1].split("\n")[0] for ax in axes] == ["B", "A", "D", "C"]
    assert "held out" not in axes[0].get_title()
    with pytest.raises(KeyError, match=r"genes not predicted: E \(there are A, B, C, D\)"):
        expression(unmeasured, genes=["A", "E"])
    with pytest.raises(ValueError, match="is in value space 'per_spot_log1p'"):
        expression(unmeasured, value_space="per_spot_log10")
    del unmeasured["sw_expression"].var["held_out_pearson"]
    unmeasured["sw_expression"].X[:, 1] *= 100
    with caplog.at_level("INFO", logger="spatialwhisperer"):
        assert ": B\n" in expression(unmeasured, n_genes=1)[0].get_title()
    assert "the genes whose prediction varies most are drawn" in caplog.text


def test_a_prediction_without_values_is_refused_on_a_slide_without_expression(unmeasured: Any) -> None:
    unmeasured["sw_expression"].X[:] = np.nan
    with pytest.raises(ValueError, match="Every row of the prediction has a NaN"):
        expression(unmeasured)


def test_genes_are_ranked_and_coloured_by_their_set(report: pd.DataFrame) -> None:
    import matplotlib.pyplot as plt

    ax = gene_ranking(report, n=5)
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"G{i}" for i in range(5)]
    assert ax.yaxis_inverted()
    assert ax.get_legend() is None
    whole = gene_ranking(report, n=100)
    assert len(whole.get_yticklabels()) == 29
    own: Any = plt.figure().subplots()
    sets = {"absent": ["X"], "late_set": ["G3"], "early_set": ["G0", "G3"]}
    assert gene_ranking(report, n=5, gene_sets=sets, ax=own) is own
    # in the order in which the genes are drawn; sets that no drawn gene is in are left out
    legend: Any = own.get_legend()
    assert [t.get_text() for t in legend.get_texts()] == ["early set", "late set", "in no set"]
    own.figure.canvas.draw()


def test_ranking_of_one_section(report: pd.DataFrame) -> None:
    report["pearson_sd"] = np.nan
    assert gene_ranking(report).get_xlabel() == "Pearson r over spots"


def test_ranking_refuses(report: pd.DataFrame) -> None:
    with pytest.raises(KeyError, match="lacks pearson_sd"):
        gene_ranking(report[["pearson"]])
    with pytest.raises(ValueError, match="n must be a positive whole number, not 0"):
        gene_ranking(report, n=0)
    with pytest.raises(ValueError, match="No gene of the report has a correlation"):
        gene_ranking(report * np.nan)
