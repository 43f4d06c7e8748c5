"""The temperature of a model, fitted on rows with known labels."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded
from spatialwhisperer._storage.schema import to_plain
from spatialwhisperer.models.configuration.annotation import Annotation, Region
from spatialwhisperer.statistics.calibration import expected_calibration_error, fit_temperature, probabilities
from spatialwhisperer.tl.calibrate import calibrate
from spatialwhisperer.tl.evaluation.calibration import evaluate_calibration


def test_the_temperature_is_stored_in_the_model_and_used(
    section: Any, own: Any, labels: dict[str, str], keys: Any, tmp_path: Any
) -> None:
    table = section["table"]
    before = keys.of(table)
    report = calibrate(section, "cell_type", model=own, labels=labels, method="temperature")
    assert keys.of(table) == before
    assert report.index.tolist() == ["none", "centre"]
    assert report["chosen"].sum() == 1
    assert (report["nll"] <= report["nll_before"]).all()
    best = report.index[report["chosen"]][0]
    fitted = own.config.annotation
    assert fitted.normalize == best == report["nll_left_out"].astype(float).idxmin()
    assert report["method"].tolist() == ["temperature", "temperature"]
    assert report["nll_left_out"].tolist() == report["nll_left_out_temperature"].tolist()
    assert (fitted.scale, fitted.offset, dict(fitted.regions)) == ((), (), {})
    assert fitted.temperature == report.loc[best, "temperature"]
    assert (fitted.ece, fitted.ece_before) == tuple(report.loc[best, ["ece", "ece_before"]])
    assert fitted.n == 120
    assert list(fitted.labels) == list(labels)
    json.dumps(to_plain(fitted))

    scores: Any = sw.tl.zero_shot_annotate(section, labels, model=own, normalize="none", inplace=False)
    truth = table.obs["cell_type"].astype(str).to_numpy()
    correct = truth[:, None] == np.array(list(labels))
    assert report["temperature"]["none"] == pytest.approx(fit_temperature(scores.to_numpy(float), correct), rel=1e-3)

    # figures before are those at the temperature before
    first = report["temperature_before"]["none"]
    assert first == pytest.approx(1 / own.scale)
    for temperature, suffix in ((first, "_before"), (report["temperature"]["none"], "")):
        p, best_is_correct = (
            probabilities(scores.to_numpy(float), temperature),
            correct[range(120), scores.to_numpy().argmax(1)],
        )
        expected = expected_calibration_error(p.max(1), best_is_correct)
        assert report[f"ece{suffix}"]["none"] == pytest.approx(expected, abs=1e-4)
        assert report[f"nll{suffix}"]["none"] == pytest.approx(-np.log(p[correct]).mean(), abs=1e-4)
    assert report["ece"]["none"] != pytest.approx(report["ece_before"]["none"], abs=1e-3)

    # the fitted normalisation and temperature are what an annotation uses, and what evaluation reads
    sw.tl.zero_shot_annotate(section, labels, model=own)
    record: Any = recorded(table, "sw_label")
    assert record["normalize"] == best
    assert record["temperature"] == fitted.temperature
    assert record["calibrated"]
    bins = evaluate_calibration(section, "cell_type")
    assert bins.attrs["ece"] == pytest.approx(fitted.ece, abs=0.005)
    p = probabilities(table.obsm["sw_label_scores"], fitted.temperature)
    assert np.allclose(table.obs["sw_label_confidence"], p.max(1), atol=1e-5)
    # … and are saved with the model
    own.save(tmp_path / "m")
    assert sw.models.Whisperer.load(tmp_path / "m").config.annotation == fitted


def test_another_normalisation_has_the_temperature_of_the_training(
    section: Any, own: Any, labels: dict[str, str]
) -> None:
    calibrate(section, "cell_type", model=own, labels=labels, normalize="centre")
    assert own.config.annotation.normalize == "centre"
    assert own.config.annotation.background == "section"
    kinds: list[tuple[Any, bool]] = [("none", False), ("softmax", False), ("centre", True), (None, True)]
    for kind, fitted in kinds:
        sw.tl.zero_shot_annotate(section, labels, model=own, normalize=kind)
        record: Any = recorded(section["table"], "sw_label")
        assert record["calibrated"] == fitted
        expected = own.config.annotation.temperature if fitted else 1 / own.scale
        assert record["temperature"] == expected
    sw.tl.zero_shot_annotate(section, ["fat", "tumour"], model=own)
    record = recorded(section["table"], "sw_label")
    assert not record["calibrated"]


def test_probabilities_are_summed_where_the_truth_is_coarser(section: Any, own: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    names = list(labels)
    immune = [n for n in names if n in ("T cell", "macrophage")]
    table.obs["coarse"] = ["immune" if t in immune else "rest" for t in table.obs["cell_type"].astype(str)]
    mapping = {"immune": immune, "rest": [n for n in names if n not in immune]}
    report = calibrate(
        section, "coarse", model=own, labels=labels, mapping=mapping, normalize="none", method="temperature"
    )
    sw.tl.zero_shot_annotate(section, labels, model=own)
    bins = evaluate_calibration(section, "coarse", mapping=mapping)
    assert bins.attrs["ece"] == pytest.approx(report["ece"]["none"], abs=0.005)
    assert bins.attrs["accuracy"] == pytest.approx(report["accuracy"]["none"])


def test_softmax_is_calibrated_like_cosines(section: Any, own: Any, labels: dict[str, str]) -> None:
    plain = calibrate(section, "cell_type", model=own, labels=labels, normalize="none")
    soft = calibrate([section], "cell_type", model=own, labels=labels, normalize="softmax")
    assert np.allclose(plain.iloc[0, :8].astype(float), soft.iloc[0, :8].astype(float))
    assert own.config.annotation.normalize == "softmax"


def test_scales_and_offsets_are_stored_in_the_model_and_used(
    section: Any, own: Any, labels: dict[str, str], tmp_path: Any
) -> None:
    table = section["table"]
    options: dict[str, Any] = {"model": own, "labels": labels, "normalize": "none"}
    report = calibrate(section, "cell_type", method="vector", **options)
    fitted = own.config.annotation
    assert report["method"]["none"] == "vector"
    assert len(fitted.scale) == len(fitted.offset) == len(labels)
    assert fitted.prompts == tuple((prompt,) for prompt in labels.values())
    assert (fitted.modality, fitted.min_confidence) == ("image", report["min_confidence"]["none"])
    assert fitted.min_confidence >= 0.5

    sw.tl.zero_shot_annotate(section, labels, model=own, unknown="label")
    scores = table.obsm["sw_label_scores"].astype(float)
    logits = scores * np.array(fitted.scale) / fitted.temperature + fitted.offset
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(table.obsm["sw_label_probability"], p, atol=1e-5)
    assert np.allclose(table.obs["sw_label_confidence"], p.max(1), atol=1e-5)
    # rows below the smallest confidence abstain without being asked
    low = p.max(1) < fitted.min_confidence
    assert low.any()
    assert (table.obs["sw_label_reason"] == "below min_confidence").tolist() == low.tolist()
    record: Any = recorded(table, "sw_label")
    assert (record["min_confidence"], record["probabilities"]) == (fitted.min_confidence, "stored")
    # … and evaluation reads the same probabilities
    assert evaluate_calibration(section, "cell_type").attrs["ece"] == pytest.approx(fitted.ece, abs=0.005)
    assert np.allclose(sw.tl.top_labels(section, 1)["probability_1"], p.max(1), atol=1e-5)
    sw.tl.zero_shot_annotate(section, labels, model=own, unknown="label", min_confidence=0)
    assert table.obs["sw_label"].notna().all()
    # other words, other labels and the counts are compared as before
    for other, modality in (({**labels, "fat": "adipocytes"}, "image"), (["fat", "tumour"], "image"), (labels, "gene")):
        sw.tl.zero_shot_annotate(section, other, model=own, modality=modality, unknown="label")
        assert "sw_label_probability" not in table.obsm
        assert table.obs["sw_label"].notna().all()
    own.save(tmp_path / "m")
    assert sw.models.Whisperer.load(tmp_path / "m").config.annotation == fitted


def test_a_smallest_confidence_alone_is_used_too(section: Any, own: Any, labels: dict[str, str]) -> None:
    calibrate(section, "cell_type", model=own, labels=labels, method="temperature", normalize="none")
    fitted = own.config.annotation
    sw.tl.zero_shot_annotate(section, labels, model=own, unknown="label")
    table = section["table"]
    low = table.obs["sw_label_confidence"] < fitted.min_confidence
    assert (table.obs["sw_label_reason"] == "below min_confidence").tolist() == low.tolist()
    assert "sw_label_probability" not in table.obsm


def test_regions_of_the_model_are_kept_and_are_what_is_fitted(section: Any, own: Any, labels: dict[str, str]) -> None:
    names = list(labels)
    regions = {
        "first": Region((labels[names[0]],), tuple(names[:2])),
        "second": Region((labels[names[2]],), tuple(names[2:])),
    }
    before = Annotation("none", 0.1, labels=tuple(names), regions=regions)
    own.update(annotation=before)
    calibrate(section, "cell_type", model=own, labels=labels, normalize="none", method="vector")
    fitted = own.config.annotation
    assert dict(fitted.regions) == regions
    assert (len(fitted.scale), fitted.labels) == (2, tuple(names))


def test_labels_that_no_row_has_are_named(section: Any, own: Any, labels: dict[str, str]) -> None:
    truth = section["table"].obs["cell_type"].astype(object)
    absent = list(labels)[1]
    section["table"].obs["known"] = truth.where(truth != absent)
    with pytest.warns(SpatialWhispererWarning, match=f"No row that was calibrated on has the label {absent}, so"):
        calibrate(section, "known", model=own, labels=labels, normalize="none", method="vector")
    fitted = own.config.annotation
    others = np.delete(fitted.offset, 1)
    assert fitted.offset[1] == pytest.approx(others.mean())
    assert fitted.scale[1] == pytest.approx(1)
    assert np.ptp(others) > 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        calibrate(section, "known", model=own, labels=labels, normalize="none", method="temperature")
        calibrate(section, "cell_type", model=own, labels=labels, normalize="none", method="vector")


def test_patients_of_the_training_are_named(simulated: Any, section: Any, own: Any, labels: dict[str, str]) -> None:
    trained = simulated.sections["P1"]["table"].copy()
    options = {"model": own, "labels": labels, "normalize": "none"}
    with pytest.warns(SpatialWhispererWarning, match="The model was trained on rows of P1"):
        calibrate([section, trained], "cell_type", **options)
    own.config = replace(own.config, training=replace(own.config.training, groups=("1", "P2")))
    trained.obs["patient"] = [1.0] * (trained.n_obs - 1) + [np.nan]
    with pytest.warns(SpatialWhispererWarning, match="The model was trained on rows of 1. "):
        calibrate([section, trained], "cell_type", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        calibrate(section, "cell_type", **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"truth": "nowhere"}, KeyError, r"neither in \.obs"),
        ({"truth": 3}, TypeError, "truth must be text, not 3"),
        ({"mapping": {"T cell": "x"}}, ValueError, "None of the true classes"),
        ({"normalize": "zscore"}, ValueError, "or None, not 'zscore'"),
        ({"method": "isotonic"}, ValueError, "method must be"),
        ({"background": "slide"}, ValueError, "'section' or 'training' here"),
        ({"mapping": {"T cell": "T cell"}}, ValueError, "are 'T cell'; a temperature needs rows of two classes"),
        ({"model": "folder"}, TypeError, r"Open it first: model = sw\.models\.Whisperer\.load"),
        ({"data": []}, ValueError, "empty list"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    section: Any, own: Any, labels: dict[str, str], options: Any, error: Any, message: str
) -> None:
    arguments = {"data": section, "truth": "cell_type", "model": own, "labels": labels} | options
    before = own.config
    with pytest.raises(error, match=message):
        calibrate(arguments.pop("data"), arguments.pop("truth"), **arguments)
    assert own.config == before
