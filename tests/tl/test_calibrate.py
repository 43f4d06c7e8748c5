"""Temperatures, reliability and abstention on annotated tables."""

from __future__ import annotations

import json
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import record, recorded
from spatialwhisperer.statistics.calibration import expected_calibration_error, fit_temperature, shares
from spatialwhisperer.tl.calibrate import calibrate
from spatialwhisperer.tl.evaluation.calibration import abstention_curve, evaluate_calibration, top_labels

CLASSES = ["a", "b/c", "d e"]


def annotated(scores: np.ndarray, truth: Any, *, temperature: float = 1.0, kind: str = "cosine") -> ad.AnnData:
    """A table as an annotation leaves it."""
    n = len(scores)
    adata = ad.AnnData(np.zeros((n, 1), np.float32), obs=pd.DataFrame(index=[f"r{i}" for i in range(n)]))
    best = np.where(np.isfinite(scores).all(axis=1), np.nan_to_num(scores).argmax(1), -1)
    adata.obs["sw_label"] = pd.Categorical.from_codes(best, categories=CLASSES)
    adata.obsm["sw_label_scores"] = np.asarray(scores, np.float32)
    adata.uns["sw_label"] = {"classes": np.array(CLASSES)}
    adata.obs["truth"] = pd.Categorical(truth)
    record(adata, "sw_label", temperature=temperature, scores=kind)
    return adata


@pytest.fixture
def drawn() -> ad.AnnData:
    """Truth drawn from the shares at temperature 1."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1.5, (3000, 3))
    p = shares(scores, 1.0)
    truth = np.array(CLASSES)[(p.cumsum(1) < rng.random((3000, 1))).sum(1)]
    return annotated(scores, truth)


# ------------------------------------------------------------------------------------------------- evaluation


def test_bins_of_an_annotation(drawn: ad.AnnData) -> None:
    bins = evaluate_calibration(drawn, "truth")
    assert bins.columns.tolist() == ["low", "high", "confidence", "accuracy", "n"]
    assert len(bins) == 15
    assert bins["n"].sum() == bins.attrs["n"] == 3000
    p = shares(drawn.obsm["sw_label_scores"].astype(float), 1.0)
    right = np.array(CLASSES)[p.argmax(1)] == drawn.obs["truth"].to_numpy()
    assert bins.attrs["ece"] == pytest.approx(expected_calibration_error(p.max(1), right), abs=1e-5)
    assert bins.attrs["ece"] < 0.03
    assert bins.attrs["accuracy"] == pytest.approx(right.mean())
    by_hand = (bins["n"] * (bins["accuracy"] - bins["confidence"]).abs()).sum() / 3000
    assert bins.attrs["ece"] == pytest.approx(by_hand)
    record(drawn, "sw_label", temperature=0.2, scores="cosine")
    assert evaluate_calibration(drawn, "truth", n_bins=5).attrs["ece"] > 0.15


def test_stored_shares_count_as_they_are(drawn: ad.AnnData) -> None:
    plain = evaluate_calibration(drawn, "truth")
    p = shares(drawn.obsm["sw_label_scores"], 1.0)
    same = evaluate_calibration(annotated(p, drawn.obs["truth"], temperature=7.0, kind="share"), "truth")
    assert np.allclose(plain, same, equal_nan=True, atol=1e-6)


def test_labels_that_the_truth_cannot_tell_apart_are_summed(drawn: ad.AnnData) -> None:
    drawn.obs["coarse"] = np.where(drawn.obs["truth"] == "a", "A", "B")
    got = evaluate_calibration(drawn, "coarse", mapping={"A": "a", "B": ["b/c", "d e"]})
    p = shares(drawn.obsm["sw_label_scores"].astype(float), 1.0)
    two = np.stack([p[:, 0], p[:, 1:].sum(1)], axis=1)
    # the label that was given is judged, and it is right in a part that the truth cannot divide
    best = (p.argmax(1) > 0).astype(int)
    right = np.array(["A", "B"])[best] == drawn.obs["coarse"].to_numpy()
    assert got.attrs["ece"] == pytest.approx(expected_calibration_error(two[np.arange(3000), best], right), abs=1e-5)
    assert got.attrs["ece"] < 0.03
    assert got.attrs["accuracy"] == pytest.approx(right.mean())
    curve = abstention_curve(drawn, "coarse", mapping={"A": "a", "B": ["b/c", "d e"]})
    assert curve["threshold"].iloc[0] == pytest.approx(p.max(), abs=1e-5)
    assert curve["accuracy"].iloc[-1] == pytest.approx(right.mean())
    # a label that is right for nobody stays apart, and its rows are left out of the truth
    some = evaluate_calibration(drawn, "truth", mapping={"a": "a", "b/c": "b/c"})
    known = drawn.obs["truth"] != "d e"
    assert some.attrs["n"] == known.sum()
    assert some.attrs["confidence"] == pytest.approx(p[known].max(1).mean(), abs=1e-5)


def test_rows_without_truth_or_scores_are_left_out(drawn: ad.AnnData) -> None:
    drawn.obs.loc["r0", "truth"] = np.nan
    drawn.obsm["sw_label_scores"][1] = np.nan
    assert evaluate_calibration(drawn, "truth").attrs["n"] == 2998
    drawn.obs.loc["r5", "sw_label"] = np.nan  # abstained: still judged
    assert evaluate_calibration(drawn, "truth").attrs["n"] == 2998


def test_several_objects_are_pooled(drawn: ad.AnnData) -> None:
    halves = [drawn[:1000].copy(), drawn[1000:].copy()]
    pd.testing.assert_frame_equal(evaluate_calibration(halves, "truth"), evaluate_calibration(drawn, "truth"))
    halves[1].uns["sw_label"] = {"classes": np.array(["x", "y", "z"])}
    with pytest.raises(ValueError, match="annotated with different labels"):
        evaluate_calibration(halves, "truth")


def test_what_abstaining_buys(drawn: ad.AnnData) -> None:
    curve = abstention_curve(drawn, "truth")
    assert curve.columns.tolist() == ["threshold", "coverage", "accuracy", "n"]
    assert curve["coverage"].is_monotonic_increasing
    assert curve["threshold"].is_monotonic_decreasing
    assert curve["n"].iloc[-1] == 3000
    p = shares(drawn.obsm["sw_label_scores"], 1.0)
    right = np.array(CLASSES)[p.argmax(1)] == drawn.obs["truth"].to_numpy()
    for row in (100, len(curve) // 2, len(curve) - 1):
        at = curve.iloc[row]
        kept = p.max(1) >= np.float32(at["threshold"])
        assert kept.mean() == pytest.approx(at["coverage"])
        assert right[kept].mean() == pytest.approx(at["accuracy"])
    assert curve["accuracy"].iloc[len(curve) // 4] > curve["accuracy"].iloc[-1]


def test_rows_of_one_confidence_are_kept_together() -> None:
    scores = np.log(np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1]]))
    curve = abstention_curve(annotated(scores, ["a", "b/c", "a"]), "truth")
    assert curve["coverage"].tolist() == [pytest.approx(2 / 3), 1.0]
    assert curve["accuracy"].tolist() == [0.5, pytest.approx(2 / 3)]


def test_top_labels() -> None:
    scores = np.log(np.array([[0.7, 0.1, 0.2], [0.2, 0.5, 0.3], [np.nan] * 3]))
    top = top_labels(annotated(scores, ["a", "a", "a"]), 2)
    assert top["label_1"].tolist()[:2] == ["a", "b/c"]
    assert top["label_2"].tolist()[:2] == ["d e", "d e"]
    assert np.allclose(top["share_1"][:2], [0.7, 0.5])
    assert top.iloc[2].isna().all()
    assert top.index.tolist() == ["r0", "r1", "r2"]
    with pytest.raises(ValueError, match="k must be a whole number between 1 and the 3"):
        top_labels(annotated(scores, ["a", "a", "a"]), 4)


@pytest.mark.parametrize("function", [evaluate_calibration, abstention_curve])
def test_what_is_refused(drawn: ad.AnnData, function: Any) -> None:
    with pytest.raises(KeyError, match=r"neither in \.obs"):
        function(drawn, "nowhere")
    with pytest.raises(ValueError, match="None of the true classes"):
        function(drawn, "truth", mapping={"a": "x"})
    with pytest.raises(TypeError, match="mapping must be a mapping"):
        function(drawn, "truth", mapping=["a"])
    with pytest.raises(KeyError, match=r"Run sw\.tl\.zero_shot_annotate"):
        function(drawn, "truth", key="other")
    del drawn.uns["spatialwhisperer"]
    with pytest.raises(KeyError, match="Annotate again"):
        function(drawn, "truth")


def test_no_row_to_judge(drawn: ad.AnnData) -> None:
    drawn.obsm["sw_label_scores"][:] = np.nan
    with pytest.raises(ValueError, match=r"3000 rows have a known truth"):
        evaluate_calibration(drawn, "truth")


# ------------------------------------------------------------------------------------------------- fitting


@pytest.fixture
def own(model: Any) -> Any:
    """The model, to be written to."""
    import copy

    return copy.deepcopy(model)


def test_a_temperature_for_a_model(section: Any, own: Any, labels: dict[str, str], tmp_path: Any) -> None:
    table = section["table"]
    before = set(table.obsm), set(table.obs), set(table.uns)
    own.config["annotation"] = {"levels": {"coarse": ["x"]}}
    report = calibrate(section, "cell_type", model=own, labels=labels)
    assert (set(table.obsm), set(table.obs), set(table.uns)) == before
    assert report.index.tolist() == ["none", "centre"]
    assert report["chosen"].sum() == 1
    assert (report["nll"] <= report["nll_before"]).all()
    best = report.index[report["chosen"]][0]
    kept = own.config["annotation"]
    assert kept["levels"] == {"coarse": ["x"]}
    assert kept["normalize"] == best == report["nll"].idxmin()
    assert kept["temperature"] == report.loc[best, "temperature"]
    assert kept["n"] == 120
    assert kept["labels"] == list(labels)
    assert {"ece", "ece_before"} <= set(kept)
    json.dumps(kept)

    scores = sw.tl.zero_shot_annotate(section, labels, model=own, normalize="none", inplace=False).to_numpy(float)
    truth = table.obs["cell_type"].astype(str).to_numpy()
    right = truth[:, None] == np.array(list(labels))
    assert report.loc["none", "temperature"] == pytest.approx(fit_temperature(scores, right), rel=1e-3)

    # the fitted normalisation and temperature are what an annotation uses, and what evaluation reads
    sw.tl.zero_shot_annotate(section, labels, model=own)
    told = recorded(table, "sw_label")
    assert told["normalize"] == best
    assert told["temperature"] == kept["temperature"]
    assert told["calibrated"]
    bins = evaluate_calibration(section, "cell_type")
    assert bins.attrs["ece"] == pytest.approx(kept["ece"], abs=0.005)
    p = shares(table.obsm["sw_label_scores"], kept["temperature"])
    assert np.allclose(table.obs["sw_label_confidence"], p.max(1), atol=1e-5)
    # … and survive the model's folder
    own.save(tmp_path / "m")
    assert sw.models.Whisperer.load(tmp_path / "m").config["annotation"] == kept


def test_another_normalisation_has_the_models_own_temperature(section: Any, own: Any, labels: dict[str, str]) -> None:
    calibrate(section, "cell_type", model=own, labels=labels, normalize="centre")
    assert own.config["annotation"]["normalize"] == "centre"
    assert own.config["annotation"]["background"] == "section"
    for kind, fitted in (("none", False), ("softmax", False), ("centre", True), (None, True)):
        sw.tl.zero_shot_annotate(section, labels, model=own, normalize=kind)
        told = recorded(section["table"], "sw_label")
        assert told["calibrated"] == fitted
        expected = own.config["annotation"]["temperature"] if fitted else 1 / own.scale
        assert told["temperature"] == expected
    sw.tl.zero_shot_annotate(section, ["fat", "tumour"], model=own)
    assert not recorded(section["table"], "sw_label")["calibrated"]


def test_labels_under_a_coarser_truth(section: Any, own: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    names = list(labels)
    immune = [n for n in names if n in ("T cell", "macrophage")]
    table.obs["coarse"] = ["immune" if t in immune else "rest" for t in table.obs["cell_type"].astype(str)]
    mapping = {"immune": immune, "rest": [n for n in names if n not in immune]}
    report = calibrate(section, "coarse", model=own, labels=labels, mapping=mapping, normalize="none")
    sw.tl.zero_shot_annotate(section, labels, model=own)
    bins = evaluate_calibration(section, "coarse", mapping=mapping)
    assert bins.attrs["ece"] == pytest.approx(report.loc["none", "ece"], abs=0.005)
    assert bins.attrs["accuracy"] == pytest.approx(report.loc["none", "accuracy"])


def test_softmax_is_calibrated_like_cosines(section: Any, own: Any, labels: dict[str, str]) -> None:
    plain = calibrate(section, "cell_type", model=own, labels=labels, normalize="none")
    soft = calibrate([section], "cell_type", model=own, labels=labels, normalize="softmax")
    assert np.allclose(plain.iloc[0, :8].astype(float), soft.iloc[0, :8].astype(float))
    assert own.config["annotation"]["normalize"] == "softmax"


def test_patients_of_the_training_are_named(simulated: Any, section: Any, own: Any, labels: dict[str, str]) -> None:
    taught = simulated.sections["P1"]["table"].copy()
    options = {"model": own, "labels": labels, "normalize": "none"}
    with pytest.warns(sw._utils.SpatialWhispererWarning, match="Rows of P1 taught this model"):
        calibrate([section, taught], "cell_type", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", sw._utils.SpatialWhispererWarning)
        calibrate(section, "cell_type", **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"truth": "nowhere"}, KeyError, r"neither in \.obs"),
        ({"truth": 3}, TypeError, "the name of a column"),
        ({"mapping": {"T cell": "x"}}, ValueError, "None of the true classes"),
        ({"normalize": "zscore"}, ValueError, "or None, not 'zscore'"),
        ({"background": "slide"}, ValueError, "'section' or 'training' here"),
        ({"mapping": {"T cell": "T cell"}}, ValueError, "are 'T cell'; a temperature needs rows of two classes"),
        ({"model": "folder"}, TypeError, r"Open it first: model = sw\.models\.Whisperer\.load"),
        ({"data": []}, ValueError, "empty list"),
    ],
)
def test_refused_fits(section: Any, own: Any, labels: dict[str, str], options: Any, error: Any, message: str) -> None:
    arguments = {"data": section, "truth": "cell_type", "model": own, "labels": labels} | options
    before = json.dumps(own.config, default=str)
    with pytest.raises(error, match=message):
        calibrate(arguments.pop("data"), arguments.pop("truth"), **arguments)
    assert json.dumps(own.config, default=str) == before
