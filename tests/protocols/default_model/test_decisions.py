from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from spatialwhisperer.protocols.default_model.temperatures import calibration, judge, pooled, temperature_of_others

from spatialwhisperer.protocols.default_model.labels import LABELS
from spatialwhisperer.protocols.default_model.unseen_patients import HeldOut
from spatialwhisperer.statistics.calibration import expected_calibration_error, fit_temperature, probabilities


def section(name: str, temperature: float, seed: int) -> HeldOut:
    """A section whose correct labels are drawn from its scores at a temperature."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(4000, len(LABELS)))
    correct = [rng.choice(len(LABELS), p=p) for p in probabilities(scores, temperature)]
    return HeldOut(name, pd.DataFrame(), scores, np.eye(len(LABELS), dtype=bool)[correct], {}, {})


@pytest.fixture
def held_out() -> dict[str, list[HeldOut]]:
    return {"A": [section("A1", 0.5, 0), section("A2", 0.5, 1)], "C": [section("C1", 1.5, 2)]}


def test_a_patient_is_measured_at_the_temperature_of_the_others(held_out) -> None:
    assert temperature_of_others(held_out, "A") == pytest.approx(1.5, rel=0.1)
    assert temperature_of_others(held_out, "C") == pytest.approx(0.5, rel=0.1)
    assert temperature_of_others({"A": held_out["A"]}, "A") == pytest.approx(0.5, rel=0.1)


def test_the_temperature_is_that_of_all_rows_and_its_error_that_of_other_patients(held_out) -> None:
    found = calibration(held_out, before=10.0)
    scores, correct = pooled([part for parts in held_out.values() for part in parts])
    assert found.temperature == fit_temperature(scores, correct)
    assert found.n == 12_000
    assert found.labels == tuple(LABELS)
    assert (found.normalize, found.background) == ("none", None)
    # each patient is far from the temperature of the other one
    assert found.ece is not None
    assert found.ece > 0.05


def test_errors_before_and_after_are_means_over_patients_at_their_temperatures(held_out) -> None:
    found = calibration(held_out, before=10.0)

    def error(patient: str, temperature: float) -> float:
        rows = judge(*pooled(held_out[patient]), temperature)
        return expected_calibration_error(rows.summed, rows.correct)

    after = [error(patient, temperature_of_others(held_out, patient)) for patient in ("A", "C")]
    before = [error(patient, 10.0) for patient in ("A", "C")]
    assert found.ece == pytest.approx(np.mean(after))
    assert found.ece_before == pytest.approx(np.mean(before))
    assert found.ece != pytest.approx(found.ece_before, abs=0.01)


def test_labels_that_regions_cannot_tell_apart_share_their_confidence() -> None:
    scores = np.zeros((1, len(LABELS)))
    scores[0, list(LABELS).index("T cell")] = 1.0
    correct = np.zeros((1, len(LABELS)), bool)
    correct[0, list(LABELS).index("T cell")] = True
    rows = judge(scores, correct, 1.0)
    p = probabilities(scores, 1.0)[0]
    together = [list(LABELS).index(name) for name in ("T cell", "B cell", "plasma cell", "myeloid cell")]
    assert rows.correct.tolist() == [True]
    assert rows.summed[0] == pytest.approx(p[together].sum())
    assert rows.confidence[0] == pytest.approx(p.max())
