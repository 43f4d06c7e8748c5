"""Genes ranked by how well they are predicted, and the gene sets that they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spatialwhisperer import _keys
from spatialwhisperer._provenance import record
from spatialwhisperer.statistics.expression import metrics
from spatialwhisperer.statistics.expression.value_spaces import to_space
from spatialwhisperer.tl.evaluation.genes import gene_report, gene_set_enrichment, read_gene_sets

SPACE = "per_spot_log1p"


def predicted(table: Any, noise: np.ndarray) -> Any:
    import anndata as ad

    values = to_space(np.asarray(table.X), SPACE)
    values = values + np.random.default_rng(len(table)).normal(0, 1, values.shape) * noise
    out = ad.AnnData(values.astype(np.float32), obs=table.obs[[]].copy(), var=table.var[[]].copy())
    record(out, _keys.EXPRESSION, {"value_space": SPACE})
    return out


def sections(*sizes: int) -> tuple[list[Any], list[Any]]:
    """Sections of 12 genes, predicted with more noise from gene to gene; G11 is absent in all."""
    import anndata as ad

    rng = np.random.default_rng(0)
    tables = []
    for n in sizes:
        counts = rng.poisson(4.0, (n, 12)).astype(np.float32)
        counts[:, 11] = 0
        obs = pd.DataFrame(index=[f"{n}_{i}" for i in range(n)])
        tables.append(ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(12)])))
    noise = np.linspace(0.1, 20, 12)
    return tables, [predicted(t, noise) for t in tables]


@pytest.fixture
def objects() -> tuple[list[Any], list[Any]]:
    return sections(60, 40)


def test_figures_are_those_of_a_loop_over_sections(objects: Any) -> None:
    tables, predictions = objects
    report = gene_report(tables, predictions)
    assert report.index.name == "gene"
    assert report["rank"].iloc[:-1].tolist() == list(range(1, 12))
    assert report.index[0] == "G0"
    assert report["pearson"].iloc[:-1].is_monotonic_decreasing
    for gene in ("G0", "G3", "G9"):
        tests = [
            stats.pearsonr(to_space(t.X, SPACE)[:, i].astype(float), p.X[:, i].astype(float))
            for t, p in zip(tables, predictions, strict=True)
            for i in [list(t.var_names).index(gene)]
        ]
        sizes = np.array([t.n_obs for t in tables])
        r, p = np.array([[t.statistic, t.pvalue] for t in tests]).T
        row = report.loc[gene]
        np.testing.assert_allclose(row["pearson"], r.mean(), rtol=1e-4)
        np.testing.assert_allclose(row["pearson_sd"], r.std(ddof=1), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(row["mean_neg_log10_p"], -np.log10(p).mean(), rtol=1e-3)
        score = metrics.random_effects(r[:, None], sizes)[0]
        np.testing.assert_allclose(row["neg_log10_p"], -np.log10(2 * stats.t.sf(abs(score[0]), df=1)), rtol=1e-3)
        assert row["n_sections"] == 2
    known = report["p_adjusted"].notna()
    expected = stats.false_discovery_control(10 ** -report.loc[known, "neg_log10_p"])
    np.testing.assert_allclose(report.loc[known, "p_adjusted"], expected, rtol=1e-6)


def test_genes_that_several_sections_agree_on_are_significant() -> None:
    assert gene_report(*sections(60, 40, 50, 70))["significant"]["G0"]


def test_p_values_of_one_section_are_those_of_its_correlations(objects: Any) -> None:
    report = gene_report(objects[0][:1], objects[1][:1])
    z = np.arctanh(report["pearson"].iloc[1:-1]) * np.sqrt(60 - 3)
    np.testing.assert_allclose(report["neg_log10_p"].iloc[1:-1], -np.log10(2 * stats.norm.sf(abs(z))), rtol=1e-6)
    assert report["significant"]["G0"]


def test_an_undefined_gene_comes_last(objects: Any) -> None:
    report = gene_report(*objects)
    last = report.iloc[-1]
    assert last.name == "G11"
    assert np.isnan(last["pearson"])
    assert np.isnan(last["rank"])
    assert last["n_sections"] == 0
    assert not last["significant"]


@pytest.mark.parametrize("n", [2, 3])
def test_a_section_of_a_few_spots_does_not_count(n: int) -> None:
    tables, predictions = sections(60, 40, n)
    both = gene_report(tables[:2], predictions[:2])
    pd.testing.assert_frame_equal(gene_report(tables, predictions), both)
    alone = gene_report(tables[2], predictions[2])
    assert alone[["pearson", "neg_log10_p", "mean_neg_log10_p", "rank"]].isna().all(axis=None)
    assert (alone["n_sections"] == 0).all()
    assert not alone["significant"].any()


def test_a_negative_correlation_is_not_significant() -> None:
    tables, predictions = sections(60, 40, 50, 70)
    for p in predictions:
        p.X = -p.X
    report = gene_report(tables, predictions)
    assert report["p_adjusted"]["G0"] < 0.05
    assert not report["significant"]["G0"]


def test_a_gene_whose_sections_disagree_is_not_significant() -> None:
    """Each section has p below 1e-4; combined without their signs that is p below 1e-16."""
    tables, predictions = sections(60, 40, 50, 70)
    for p in predictions[1::2]:
        p.X[:, 0] *= -1
    report = gene_report(tables, predictions)
    assert report["mean_neg_log10_p"]["G0"] > 4
    assert report["p_adjusted"]["G0"] > 0.5
    assert report["between_sections"]["G0"] > 1
    assert not report["significant"]["G0"]
    assert report["neg_log10_p"]["G1"] > report["neg_log10_p"]["G0"]


def test_genes_of_some_objects_are_reported_over_those(objects: Any) -> None:
    tables, predictions = objects
    report = gene_report(tables, [predictions[0], predictions[1][:, :5].copy()])
    assert report["n_sections"]["G0"] == 2
    assert report["n_sections"]["G8"] == 1
    assert np.isnan(report["pearson_sd"]["G8"])


def test_a_gene_that_is_named_need_not_be_in_every_object(objects: Any) -> None:
    tables, predictions = objects
    predictions[1] = predictions[1][:, :5].copy()
    # of the second object nothing is asked
    predictions[0].X[0, 3] = np.nan
    whole = gene_report(tables[:1], predictions[:1], genes=["G8"])
    pd.testing.assert_frame_equal(gene_report(tables, predictions, genes=["G8"]), whole)
    both = gene_report(tables, predictions, genes=["G8", "G1"])
    assert both["n_sections"].to_dict() == {"G1": 2, "G8": 1}
    with pytest.raises(KeyError, match="no object has both predicted and measured: NOPE"):
        gene_report(tables, predictions, genes=["G8", "NOPE"])
    with pytest.raises(KeyError, match="no object has both predicted and measured: NOPE"):
        gene_report(tables, predictions, genes="NOPE")


def test_one_object_needs_no_list(objects: Any) -> None:
    tables, predictions = objects
    one = gene_report(tables[0], predictions[0], genes=["G0", "G2"])
    assert set(one.index) == {"G0", "G2"}


def test_bad_arguments_are_refused(objects: Any, section: Any) -> None:
    tables, predictions = objects
    with pytest.raises(ValueError, match="2 objects and 1 predictions"):
        gene_report(tables, predictions[:1])
    with pytest.raises(ValueError, match="empty list"):
        gene_report([])
    with pytest.raises(ValueError, match="alpha must be a number between 0 and 1, not 5"):
        gene_report(tables, predictions, alpha=5)
    with pytest.raises(KeyError, match="Run sw.tl.predict_expression"):
        gene_report([section])


def scores() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"pearson": rng.normal(0.2, 0.1, 200)}, index=[f"G{i}" for i in range(200)])


def test_enrichment_has_the_figures_of_scipy() -> None:
    report = scores()
    report.loc["G3", "pearson"] = np.nan
    top = list(report["pearson"].nlargest(12).index)
    sets = {"best": [*top, "G3", "ELSEWHERE"], "any": [f"G{i}" for i in range(50, 90)], "tiny": ["G1"]}
    out = gene_set_enrichment(report, sets, n_top=20)
    assert list(out.index) == ["best", "any"]
    score = report["pearson"].dropna()
    for name, genes in sets.items():
        if name == "tiny":
            continue
        inside = score.index.isin(genes)
        test = stats.mannwhitneyu(score[inside], score[~inside], alternative="greater")
        assert out.loc[name, "p"] == pytest.approx(test.pvalue)
        hits = int(score.nlargest(20).index.isin(genes).sum())
        assert out.loc[name, "n_top"] == hits
        assert out.loc[name, "p_top"] == pytest.approx(stats.hypergeom.sf(hits - 1, 199, inside.sum(), 20))
    assert out["auroc"]["best"] == pytest.approx(1)
    np.testing.assert_allclose(out["p_adjusted"], stats.false_discovery_control(out["p"]))


def test_genes_that_are_tied_with_the_last_of_the_highest_count_too() -> None:
    report = pd.DataFrame(
        {"pearson": [*np.ones(5), *np.full(20, 0.5), *np.zeros(35)]}, index=[f"G{i}" for i in range(60)]
    )
    sets = {"a": [f"G{i}" for i in range(3, 13)]}
    one, other = (gene_set_enrichment(r, sets, n_top=10).loc["a"] for r in (report, report.iloc[::-1]))
    assert one.to_dict() == other.to_dict()
    assert one["n_top"] == 10
    assert one["p_top"] == pytest.approx(stats.hypergeom.sf(9, 60, 10, 25))
    level = gene_set_enrichment(report.assign(pearson=0.5), sets, n_top=10).loc["a"]
    assert level["p_top"] == 1


def test_bad_gene_sets_are_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="No gene set has at least 5"):
        gene_set_enrichment(scores(), {"a": ["X"]})
    with pytest.raises(KeyError, match="'auc' is not a column"):
        gene_set_enrichment(scores(), {"a": ["X"]}, by="auc")
    with pytest.raises(ValueError, match="There are no gene sets"):
        gene_set_enrichment(scores(), {})
    with pytest.raises(ValueError, match="n_top must be a positive whole number, not 0"):
        gene_set_enrichment(scores(), {"a": ["X"]}, n_top=0)
    with pytest.raises(FileNotFoundError):
        read_gene_sets(tmp_path / "absent.gmt")
    (tmp_path / "broken.gmt").write_text("SET one two\n")
    with pytest.raises(ValueError, match="Line 1 of .* is not GMT"):
        read_gene_sets(tmp_path / "broken.gmt")
    series = pd.Series({"a": ["G1", "G2"]})
    with pytest.raises(
        TypeError, match=r"must be a dictionary or the path of a GMT file; found Series\. .*\.to_dict\(\)"
    ):
        read_gene_sets(series)  # type: ignore[arg-type]
    assert read_gene_sets({str(name): genes for name, genes in series.to_dict().items()}) == {"a": ["G1", "G2"]}
    (tmp_path / "twice.gmt").write_text("ONE\t\tA\nTWO\t\tB\nONE\t\tC\n")
    with pytest.raises(ValueError, match="Line 3 of .* names the gene set 'ONE' a second time"):
        read_gene_sets(tmp_path / "twice.gmt")


def test_gene_sets_are_read_from_gmt(tmp_path: Any) -> None:
    path = tmp_path / "sets.gmt"
    path.write_text("ONE\thttp://x\tA\tB\n\nTWO\t\tC\tD\t\n")
    assert read_gene_sets(path) == {"ONE": ["A", "B"], "TWO": ["C", "D"]}
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # of an editor on Windows
    assert read_gene_sets(path) == {"ONE": ["A", "B"], "TWO": ["C", "D"]}


def test_a_hallmark_set_is_found(data_folder: Any) -> None:
    path = data_folder / "genes" / "hallmark_v7.0.gmt"
    if not path.is_file():
        pytest.skip("needs genes/hallmark_v7.0.gmt in the data folder")
    sets = read_gene_sets(path)
    assert len(sets) == 50
    chosen = sets["HALLMARK_INTERFERON_GAMMA_RESPONSE"]
    genes = sorted({g for s in sets.values() for g in s})
    report = pd.DataFrame({"pearson": np.random.default_rng(0).normal(0, 0.1, len(genes))}, index=genes)
    report.loc[chosen, "pearson"] += 0.2
    out = gene_set_enrichment(report, str(path))
    assert out.index[0] == "HALLMARK_INTERFERON_GAMMA_RESPONSE"
    assert out["auroc"].iloc[0] > 0.8


@pytest.mark.parametrize(
    ("gene_sets", "error", "message"),
    [
        (7, TypeError, "gene_sets must be a dictionary or the path"),
        ("", ValueError, "gene_sets must name a file"),
        ("no_such.gmt", FileNotFoundError, "There is no file no_such.gmt"),
        ({"a": None}, TypeError, "The gene set 'a' must be a list of genes"),
        ({"a": "TP53"}, TypeError, "The gene set 'a' must be a list of genes"),
    ],
)
def test_gene_sets_are_lists_or_a_file(gene_sets: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_gene_sets(gene_sets)
