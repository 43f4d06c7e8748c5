"""Reliability, abstention and the best labels of annotated tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._provenance import record
from spatialwhisperer.statistics.calibration import expected_calibration_error, probabilities
from spatialwhisperer.tl._annotation.record import AnnotationRecord
from spatialwhisperer.tl.evaluation.calibration import abstention_curve, evaluate_calibration, top_labels
from spatialwhisperer.tl.evaluation.errors import best_wording_sd, evaluate_errors

CLASSES = ["a", "b/c", "d e"]


def made(temperature: float, kind: Any = "cosine") -> AnnotationRecord:
    """What an annotation records of its scores."""
    return AnnotationRecord(
        classes=tuple(CLASSES),
        labels=tuple(CLASSES),
        prompts=tuple((name,) for name in CLASSES),
        scores=kind,
        normalize="none",
        background=None,
        temperature=temperature,
        calibrated=False,
        examples=None,
        group_key=None,
        level=None,
        min_confidence=0.0,
        min_margin=0.0,
        rollup=False,
        model={},
    )


def annotated(scores: np.ndarray, truth: Any, *, temperature: float = 1.0, kind: Any = "cosine") -> Any:
    """A table as an annotation leaves it."""
    n = len(scores)
    adata = ad.AnnData(np.zeros((n, 1), np.float32), obs=pd.DataFrame(index=[f"r{i}" for i in range(n)]))
    best = np.where(np.isfinite(scores).all(axis=1), np.nan_to_num(scores).argmax(1), -1)
    adata.obs["sw_label"] = pd.Categorical.from_codes(best, categories=pd.Index(CLASSES))
    adata.obsm["sw_label_scores"] = np.asarray(scores, np.float32)
    adata.uns["sw_label"] = {"classes": np.array(CLASSES)}
    adata.obs["truth"] = pd.Categorical(truth)
    record(adata, "sw_label", made(temperature, kind))
    return adata


@pytest.fixture
def drawn() -> Any:
    """The truth is drawn from the probabilities at temperature 1."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1.5, (3000, 3))
    p = probabilities(scores, 1.0)
    truth = np.array(CLASSES)[(p.cumsum(1) < rng.random((3000, 1))).sum(1)]
    return annotated(scores, truth)


def test_bins_compare_confidence_with_accuracy(drawn: Any) -> None:
    bins = evaluate_calibration(drawn, "truth")
    assert bins.columns.tolist() == ["low", "high", "confidence", "accuracy", "n"]
    assert len(bins) == 15
    assert bins["n"].sum() == bins.attrs["n"] == 3000
    p = probabilities(drawn.obsm["sw_label_scores"].astype(float), 1.0)
    correct = np.array(CLASSES)[p.argmax(1)] == drawn.obs["truth"].to_numpy()
    assert bins.attrs["ece"] == pytest.approx(expected_calibration_error(p.max(1), correct), abs=1e-5)
    assert bins.attrs["ece"] < 0.03
    assert bins.attrs["accuracy"] == pytest.approx(correct.mean())
    by_hand = (bins["n"] * (bins["accuracy"] - bins["confidence"]).abs()).sum() / 3000
    assert bins.attrs["ece"] == pytest.approx(by_hand)
    record(drawn, "sw_label", made(0.2))
    assert evaluate_calibration(drawn, "truth", n_bins=5).attrs["ece"] > 0.15


def test_the_error_of_few_calibrated_rows_is_due_to_chance(drawn: Any) -> None:
    few = pd.DataFrame([evaluate_calibration(drawn[i : i + 200].copy(), "truth").attrs for i in range(0, 2000, 200)])
    assert few["ece"].mean() > 0.05
    assert few["ece_by_chance"].mean() == pytest.approx(few["ece"].mean(), abs=0.015)
    assert few["ece_debiased"].mean() < 0.75 * few["ece"].mean()
    assert (few["ece_low"] == 0).mean() >= 0.9
    assert (few["ece_high"] > few["ece_debiased"]).all()
    assert evaluate_calibration(drawn, "truth").attrs["ece_high"] < few["ece_high"].min()


def test_neighbours_that_are_alike_widen_the_interval(drawn: Any) -> None:
    """Rows in the order of their correctness, on a grid, and in a random order on the same grid."""
    rows = drawn[:400].copy()
    rows.obsm["spatial"] = np.argwhere(np.ones((20, 20))).astype(float)
    mixed = evaluate_calibration(rows, "truth").attrs
    correct = probabilities(rows.obsm["sw_label_scores"].astype(float), 1.0).argmax(1)
    wrong = np.array(CLASSES)[correct] != rows.obs["truth"].to_numpy()
    tile = np.repeat(np.arange(16), 25)
    order = np.argsort(wrong + np.random.default_rng(0).normal(0, 0.4, 400), kind="stable")
    place = np.random.default_rng(1).permutation(16)[tile]
    xy = np.stack(np.divmod(place, 4), axis=1) * 5 + np.stack(np.divmod(np.arange(400) % 25, 5), axis=1)
    apart = rows[order].copy()
    apart.obsm["spatial"] = xy.astype(float)
    together = evaluate_calibration(apart, "truth").attrs
    assert together["ece"] == pytest.approx(mixed["ece"])
    assert together["ece_debiased"] < mixed["ece_debiased"]
    width = [a["ece_high"] - a["ece_low"] for a in (mixed, together)]
    assert width[1] > 1.3 * width[0] or np.isnan(width[1])


def test_stored_probabilities_are_taken_as_they_are(drawn: Any) -> None:
    plain = evaluate_calibration(drawn, "truth")
    p = probabilities(drawn.obsm["sw_label_scores"], 1.0)
    same = evaluate_calibration(annotated(p, drawn.obs["truth"], temperature=7.0, kind="probability"), "truth")
    assert np.allclose(plain, same, equal_nan=True, atol=1e-6)


def test_labels_that_the_truth_cannot_tell_apart_are_summed(drawn: Any) -> None:
    drawn.obs["coarse"] = np.where(drawn.obs["truth"] == "a", "A", "B")
    got = evaluate_calibration(drawn, "coarse", mapping={"A": "a", "B": ["b/c", "d e"]})
    p = probabilities(drawn.obsm["sw_label_scores"].astype(float), 1.0)
    two = np.stack([p[:, 0], p[:, 1:].sum(1)], axis=1)
    # a label is correct for every class of its set, which the truth cannot tell apart
    best = (p.argmax(1) > 0).astype(int)
    correct = np.array(["A", "B"])[best] == drawn.obs["coarse"].to_numpy()
    assert got.attrs["ece"] == pytest.approx(expected_calibration_error(two[np.arange(3000), best], correct), abs=1e-5)
    assert got.attrs["ece"] < 0.03
    assert got.attrs["accuracy"] == pytest.approx(correct.mean())
    curve = abstention_curve(drawn, "coarse", mapping={"A": "a", "B": ["b/c", "d e"]})
    assert curve["threshold"].iloc[0] == pytest.approx(p.max(), abs=1e-5)
    assert curve["accuracy"].iloc[-1] == pytest.approx(correct.mean())
    # a label that is correct for no class is a set of its own, and rows of classes without a label are left out
    some = evaluate_calibration(drawn, "truth", mapping={"a": "a", "b/c": "b/c"})
    known = drawn.obs["truth"] != "d e"
    assert some.attrs["n"] == known.sum()
    assert some.attrs["confidence"] == pytest.approx(p[known].max(1).mean(), abs=1e-5)


@pytest.mark.parametrize("function", [evaluate_calibration, abstention_curve, evaluate_errors])
def test_classes_that_are_whole_numbers_are_mapped_by_them(drawn: Any, function: Any) -> None:
    drawn.obs["number"] = drawn.obs["truth"].cat.codes.to_numpy()
    got = function(drawn, "number", mapping=dict(enumerate(CLASSES)))
    pd.testing.assert_frame_equal(got, function(drawn, "truth"))


def test_rows_without_truth_or_scores_are_left_out(drawn: Any) -> None:
    drawn.obs.loc["r0", "truth"] = np.nan
    drawn.obsm["sw_label_scores"][1] = np.nan
    assert evaluate_calibration(drawn, "truth").attrs["n"] == 2998
    drawn.obs.loc["r5", "sw_label"] = np.nan  # a row that abstained still counts
    assert evaluate_calibration(drawn, "truth").attrs["n"] == 2998


def test_several_objects_are_pooled(drawn: Any) -> None:
    halves = [drawn[:1000].copy(), drawn[1000:].copy()]
    pd.testing.assert_frame_equal(evaluate_calibration(halves, "truth"), evaluate_calibration(drawn, "truth"))
    halves[1].uns["sw_label"] = {"classes": np.array(["x", "y", "z"])}
    with pytest.raises(ValueError, match="annotated with different labels"):
        evaluate_calibration(halves, "truth")


@pytest.mark.parametrize("function", [evaluate_calibration, abstention_curve])
def test_several_objects_have_a_frame_each(drawn: Any, function: Any) -> None:
    frame = pd.get_dummies(drawn.obs["truth"].astype(str))
    halves = [drawn[:1000].copy(), drawn[1000:].copy()]
    with pytest.raises(ValueError, match="one DataFrame for 2 objects"):
        function(halves, frame)
    frames = [frame.loc[part.obs_names[::-1]] for part in halves]
    pd.testing.assert_frame_equal(function(halves, frames), function(drawn, "truth"))


def test_rows_of_no_class_are_left_out(drawn: Any) -> None:
    frame = pd.get_dummies(drawn.obs["truth"].astype(str))
    frame.iloc[:500] = False
    frame.iloc[500:600] = True
    found = [evaluate_calibration(drawn, frame[order]) for order in (CLASSES, CLASSES[::-1])]
    assert found[0].attrs["n"] == 2400
    for one in found:
        pd.testing.assert_frame_equal(one, evaluate_calibration(drawn[600:].copy(), "truth"))


def of_sections(tables: dict[str, Any], *, stated: bool) -> Any:
    """A SpatialData of spots that all lie at the same places, with or without the positions in the table."""
    import spatialdata as sd

    grid = np.argwhere(np.ones((8, 10))).astype(float)
    parts, shapes = [], {}
    for name, table in tables.items():
        part = table.copy()
        part.obs = part.obs.assign(region=pd.Categorical([name] * len(grid)), instance=np.arange(len(grid)))
        part.obs_names = [f"{name} {i}" for i in range(len(grid))]
        shapes[name] = sd.models.ShapesModel.parse(grid, geometry=0, radius=0.4)
        if stated:
            part.obsm["spatial"] = grid
        parts.append(part)
    whole: Any = ad.concat(parts, uns_merge="same")
    whole.obs["region"] = pd.Categorical(whole.obs["region"])
    table = sd.models.TableModel.parse(whole, region=list(tables), region_key="region", instance_key="instance")
    return sd.SpatialData(shapes=shapes, tables={"table": table})


@pytest.mark.parametrize("stated", [True, False])
def test_sections_of_one_object_are_those_of_a_list(drawn: Any, stated: bool) -> None:
    tables = {name: drawn[i * 80 : i * 80 + 80].copy() for i, name in enumerate("ABC")}
    whole = of_sections(tables, stated=stated)
    parts = [of_sections({name: table}, stated=stated) for name, table in tables.items()]
    together, apart = evaluate_calibration(whole, "truth"), evaluate_calibration(parts, "truth")
    for name in ("ece", "ece_low", "ece_high", "n"):
        assert together.attrs[name] == pytest.approx(apart.attrs[name], rel=1e-6)
    doubts: Any = [evaluate_errors(data, "truth").loc["1 − confidence"] for data in (whole, parts)]
    pd.testing.assert_series_equal(*doubts)
    # the places count: without them all rows would be independent
    nowhere = whole["table"][:].copy()
    nowhere.obsm.pop("spatial", None)
    assert together.attrs["ece_high"] != evaluate_calibration(nowhere, "truth").attrs["ece_high"]


def test_accuracy_rises_where_uncertain_rows_abstain(drawn: Any) -> None:
    curve = abstention_curve(drawn, "truth")
    assert curve.columns.tolist() == ["threshold", "coverage", "accuracy", "n"]
    assert curve["coverage"].is_monotonic_increasing
    assert curve["threshold"].is_monotonic_decreasing
    assert curve["n"].iloc[-1] == 3000
    p = probabilities(drawn.obsm["sw_label_scores"], 1.0)
    correct = np.array(CLASSES)[p.argmax(1)] == drawn.obs["truth"].to_numpy()
    for row in (100, len(curve) // 2, len(curve) - 1):
        at = curve.iloc[row]
        kept = p.max(1) >= np.float32(at["threshold"])
        assert kept.mean() == pytest.approx(at["coverage"])
        assert correct[kept].mean() == pytest.approx(at["accuracy"])
    assert curve["accuracy"].iloc[len(curve) // 4] > curve["accuracy"].iloc[-1]


def test_rows_of_one_confidence_are_kept_together() -> None:
    scores = np.log(np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1]]))
    curve = abstention_curve(annotated(scores, ["a", "b/c", "a"]), "truth")
    assert curve["coverage"].tolist() == [pytest.approx(2 / 3), 1.0]
    assert curve["accuracy"].tolist() == [0.5, pytest.approx(2 / 3)]


def test_top_labels_come_with_their_probabilities() -> None:
    scores = np.log(np.array([[0.7, 0.1, 0.2], [0.2, 0.5, 0.3], [np.nan] * 3]))
    top = top_labels(annotated(scores, ["a", "a", "a"]), 2)
    assert top["label_1"].tolist()[:2] == ["a", "b/c"]
    assert top["label_2"].tolist()[:2] == ["d e", "d e"]
    assert np.allclose(top["probability_1"][:2], [0.7, 0.5])
    assert top.iloc[2].isna().all()
    assert top.index.tolist() == ["r0", "r1", "r2"]
    with pytest.raises(ValueError, match="k must be a whole number between 1 and the 3"):
        top_labels(annotated(scores, ["a", "a", "a"]), 4)


def test_labels_that_were_chosen_along_a_path_are_judged() -> None:
    p = np.array([[0.3, 0.3, 0.4], [0.25, 0.15, 0.6], [np.nan] * 3])
    table = annotated(p, ["a", "d e", "a"], kind="probability")
    table.obs["sw_label"] = pd.Categorical(["a", "d e", None], categories=CLASSES)
    record(table, "sw_label", replace(made(1.0, "probability"), path=(("a", "b/c"),)))
    top: Any = top_labels(table, 3)
    assert top.loc["r0", ["label_1", "label_2", "label_3"]].tolist() == ["a", "d e", "b/c"]
    assert np.allclose(
        top.loc["r0", ["probability_1", "probability_2", "probability_3"]].astype(float), [0.3, 0.4, 0.3]
    )
    assert top.loc["r1", ["label_1", "label_2", "label_3"]].tolist() == ["d e", "a", "b/c"]
    assert top.loc["r2"].isna().all()
    assert abstention_curve(table, "truth")[["threshold", "accuracy"]].to_numpy() == pytest.approx(
        np.array([[0.6, 1], [0.3, 1]])
    )
    assert evaluate_calibration(table, "truth").attrs["confidence"] == pytest.approx(0.45)
    table.obsm["sw_label_wording_sd"] = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)
    assert np.array_equal(np.asarray(best_wording_sd(table, "sw_label")), [1, 6, np.nan], equal_nan=True)


@pytest.mark.parametrize("function", [evaluate_calibration, abstention_curve])
def test_what_cannot_be_compared_is_refused(drawn: Any, function: Any) -> None:
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


def test_a_row_with_scores_is_needed(drawn: Any) -> None:
    drawn.obsm["sw_label_scores"][:] = np.nan
    with pytest.raises(ValueError, match=r"3000 rows have a known truth"):
        evaluate_calibration(drawn, "truth")


def test_a_record_that_says_no_temperature_is_refused(drawn: Any) -> None:
    record(drawn, "sw_label", {"scores": "cosine"})
    with pytest.raises(KeyError, match="at which temperature its scores become probabilities. Annotate again"):
        top_labels(drawn, 2)
