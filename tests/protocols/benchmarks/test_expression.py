from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.benchmarks.expression import (
    CEILING,
    PUBLISHED,
    ceiling,
    fold_rows,
    mean_pearson,
    measures,
)
from spatialwhisperer.protocols.benchmarks.expression_run import on_common_genes
from spatialwhisperer.protocols.benchmarks.expression_table import summary
from spatialwhisperer.protocols.benchmarks.folder.folds import units_of
from spatialwhisperer.protocols.benchmarks.folder.sections import BenchmarkSection
from spatialwhisperer.protocols.benchmarks.genes import Genes, values_of
from spatialwhisperer.protocols.benchmarks.regressions import FIXED, OURS
from spatialwhisperer.statistics.expression.structure import neighbour_weights

GENES = [f"G{i}" for i in range(30)]


def section(name: str, patient: str, seed: int) -> BenchmarkSection:
    """Rows whose first ten genes follow two image features, the first of which is the darkness; the others are noise."""
    rng = np.random.default_rng(seed)
    xy = np.stack(np.divmod(np.arange(144), 12), axis=1).astype(float)
    smooth = np.stack([np.sin(xy[:, 0] / 3 + seed), np.cos(xy[:, 1] / 3)], axis=1)
    rate = np.full((144, 30), 20.0)
    rate[:, :5] *= np.exp(0.8 * smooth[:, :1])
    rate[:, 5:10] *= np.exp(0.8 * smooth[:, 1:])
    obs = pd.DataFrame({"section": name, "patient": patient}, index=[f"{name}:{i}" for i in range(144)])
    table = ad.AnnData(rng.poisson(rate).astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES))
    table.obs["sw_darkness"] = smooth[:, 0]
    table.obsm["X_both"] = np.hstack([smooth, rng.normal(size=(144, 8))]).astype(np.float32)
    table.obsm["X_noise"] = rng.normal(size=(144, 10)).astype(np.float32)
    table.obsm["spatial"] = xy
    return BenchmarkSection(name, patient, table, None)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    sections = [section(f"s{i}", f"P{i}", i) for i in range(5)]
    units = units_of(sections, "patient", [])
    genes = Genes(GENES[:10], GENES, {"first": GENES[:5], "second": GENES[5:10], "small": GENES[:4]})
    return fold_rows(sections[:3], sections[3:], units, genes, {"both": "X_both", "noise": "X_noise"})


def test_ridge_finds_genes_that_follow_the_features_and_floors_what_they_know(rows):
    r = (
        rows[(rows["metric"] == "pearson") & (rows["section"] != "all")]
        .groupby(["encoder", "predictor"])["value"]
        .mean()
    )
    assert r["both", OURS] > 0.6
    assert abs(r["noise", OURS]) < 0.1
    # one of the two features, for half of the genes
    assert r["", "darkness"] == pytest.approx(r["both", OURS] / 2, abs=0.1)
    assert r["", "training mean"] == 0.0
    # in logarithms the ceiling is a little too low
    assert r["", CEILING] == pytest.approx(r["both", OURS], abs=0.05)
    assert r["both", FIXED] > 0.6
    assert r["both", PUBLISHED] > 0.6
    assert set(rows["section"]) == {"s3", "s4", "all"}


def test_structure_is_predicted_where_genes_are(rows):
    own = rows[(rows["encoder"] == "both") & (rows["predictor"] == OURS)].groupby("metric")["value"].mean()
    assert own["moran_predicted"] > own["moran_truth"] > 0.3
    assert own["gene_gene_r"] > 0.9
    assert own["pathway_r"] > 0.8
    noise = rows[(rows["encoder"] == "noise") & (rows["predictor"] == OURS)].groupby("metric")["value"].mean()
    assert abs(noise["pathway_r"]) < 0.25
    mean = rows[(rows["predictor"] == "training mean") & (rows["metric"] == "moran_r")]["value"]
    assert mean.isna().all()


def test_measures_equal_an_independent_computation():
    rng = np.random.default_rng(5)
    xy = rng.uniform(0, 10, (60, 2))
    truth, predicted = rng.normal(size=(60, 8)), rng.normal(size=(60, 8))
    predicted[:, :4] += truth[:, :4]
    predicted[:, 6] = 0.5
    predicted[7] = np.nan
    names = [f"G{i}" for i in range(8)]
    genes = Genes(names[:7], names, {"a": names[:5], "b": names[3:], "few": names[:3]})
    found = measures(truth, predicted, xy, 7, genes)
    keep = np.arange(60) != 7
    t, p = truth[keep], predicted[keep]
    each = [np.corrcoef(t[:, i], p[:, i])[0, 1] for i in range(6)]
    assert found["pearson"] == pytest.approx(sum(each) / 7)

    w = neighbour_weights(xy[keep]).toarray()

    def moran(x: np.ndarray) -> float:
        z = x - x.mean()
        return len(z) / w.sum() * (z @ w @ z) / (z @ z)

    one, other = ([moran(x[:, i]) for i in range(6)] for x in (t, p))
    assert found["moran_r"] == pytest.approx(np.corrcoef(one, other)[0, 1])
    assert found["moran_predicted"] == pytest.approx(np.mean(other))
    assert found["moran_truth"] == pytest.approx(np.mean([*one, moran(t[:, 6])]))

    def z(x: np.ndarray) -> np.ndarray:
        sd = x.std(axis=0)
        return (x - x.mean(axis=0)) / np.where(sd > 1e-12, sd, 1)

    scores = [np.corrcoef(z(t)[:, c].mean(axis=1), z(p)[:, c].mean(axis=1))[0, 1] for c in (slice(0, 5), slice(3, 8))]
    assert found["pathway_r"] == pytest.approx(np.mean(scores))


def test_mean_pearson_counts_a_constant_prediction_as_nothing_and_leaves_out_a_constant_gene():
    truth = np.array([[1.0, 5, 1], [2, 5, 3], [3, 5, 2], [4, 5, 2]])
    predicted = np.array([[2.0, 1, 4], [4, 2, 4], [6, 3, 4], [8, 3, 4]])
    assert mean_pearson(truth, predicted) == pytest.approx(0.5)
    assert np.isnan(mean_pearson(truth[:, 1:2], predicted[:, 1:2]))


def test_the_ceiling_is_what_the_known_rates_reach():
    rng = np.random.default_rng(6)
    rate = np.exp(rng.normal(0.5, 0.8, (3000, 12)))
    rate = np.hstack([rate, np.full((3000, 1), 400.0)])
    table = ad.AnnData(rng.poisson(rate).astype(np.float32))
    names = [str(n) for n in table.var_names[:12]]
    counted, true = values_of(table, names), np.log1p(1e4 * rate / rate.sum(axis=1, keepdims=True))[:, :12]
    known = np.mean([np.corrcoef(counted[:, i], true[:, i])[0, 1] for i in range(12)])
    # halves in a logarithm are a little noisier than the formula for sums assumes
    assert ceiling(table, names) == pytest.approx(known, abs=0.06)


def test_folds_weigh_alike_and_the_interval_is_over_folds():
    table = pd.DataFrame(
        [
            (fold, name, "x", OURS, "pearson", value)
            for fold, name, value in [
                ("A", "1", 0.1),
                ("A", "2", 0.3),
                ("B", "3", 0.4),
                ("C", "4", 0.6),
                ("C", "all", 9),
            ]
        ],
        columns=["fold", "section", "encoder", "predictor", "metric", "value"],
    )
    row = summary(table).iloc[0]
    # 0.4 ± 4.303 · 0.2 / √3
    assert row["r"] == "0.400 [-0.097, 0.897]"
    assert row["r, all rows"] == "9.000"


def test_sections_of_other_panels_are_cut_to_common_genes():
    one, other = section("a", "A", 0), section("b", "B", 1)
    other.table._inplace_subset_var(GENES[::-1][:20])
    found = on_common_genes([one, other])
    assert list(found[0].table.var_names) == list(found[1].table.var_names) == GENES[10:]
    np.testing.assert_array_equal(found[0].table.X, one.table[:, GENES[10:]].X)
    with pytest.raises(ValueError, match="not in all sections: G0"):
        on_common_genes([one, other], ["G0", "G12"])


def test_the_command_measures_a_folder_of_hest_and_repeats_no_features(hest, tmp_path, corner_colour, capsys):
    names = [str(n) for n in ad.read_h5ad(hest / "st" / "SIMP1.h5ad").var_names]
    (tmp_path / "genes.json").write_text(json.dumps({"genes": names[:12]}))
    (tmp_path / "sets.gmt").write_text("markers\t\t" + "\t".join(names[:8]) + "\nothers\t\tX\tY\n")
    arguments = ["hest-bench", "--data", str(hest), "--out", str(tmp_path), "--encoders", corner_colour]
    arguments += ["--genes", str(tmp_path / "genes.json"), "--gene-sets", str(tmp_path / "sets.gmt")]
    main(arguments)
    rows = pd.read_csv(tmp_path / "hest_bench.csv", keep_default_na=False, na_values={"value": [""]})
    assert set(rows["fold"]) == {"Patient 0", "Patient 1", "Patient 2"}
    assert set(rows["n_genes"]) == {12}
    text = (tmp_path / "hest_bench.md").read_text()
    assert text.startswith("### Patients left out\n\n3 sections of 3 patients, 270 rows; 3 folds, 12 genes.")
    assert "r pathways" in text
    assert "corner_colour" in capsys.readouterr().err
    main([*arguments, "--folds", "2"])
    assert "SIMP1: corner_colour" not in capsys.readouterr().err


def test_a_folder_of_one_patient_is_refused_and_nothing_is_written(hest, tmp_path, corner_colour):
    arguments = ["hest-bench", "--data", str(hest), "--out", str(tmp_path / "out"), "--encoders", corner_colour]
    with pytest.raises(ValueError, match=r"No patient can be left out|Nothing can be left out"):
        main([*arguments, "--where", "organ=Lung"])
    with pytest.raises(SystemExit, match="COLUMN=VALUE"):
        main([*arguments, "--where", "Lung"])
    with pytest.raises(SystemExit, match="--rows must be positive"):
        main([*arguments, "--rows", "0"])
    assert not (tmp_path / "out").exists()
