"""The decision of the embedded model, fitted on held-out patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.default_model.decisions import (
    calibration,
    decision_of_others,
    fit_decision,
    judge,
    pooled,
)
from spatialwhisperer.protocols.default_model.labels import LABELS, TISSUE
from spatialwhisperer.protocols.default_model.unseen_patients import HeldOut
from spatialwhisperer.statistics.calibration import expected_calibration_error, probabilities
from spatialwhisperer.statistics.labels.vector_scaling import Scaling

N = len(TISSUE)


def section(name: str, temperature: float, seed: int, offset: float = 0.0, n: int = 1500) -> HeldOut:
    """A section whose correct regions are drawn from its scores at a temperature, with an offset of the first region."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, N))
    p = Scaling(temperature, np.ones(N), offset * np.eye(N)[0]).probabilities(scores)
    correct = np.eye(N, dtype=bool)[[rng.choice(N, p=row) for row in p]]
    nothing = np.full(n, np.nan)
    return HeldOut(name, pd.DataFrame(), scores, correct, rng.random((n, 2)), {}, {}, nothing, scores)


@pytest.fixture(scope="module")
def held_out() -> dict[str, list[HeldOut]]:
    return {"A": [section("A1", 0.5, 0), section("A2", 0.5, 1)], "C": [section("C1", 1.5, 2, offset=2.0)]}


@pytest.mark.slow
def test_a_patient_is_measured_by_the_decision_of_the_others(held_out) -> None:
    of_c = decision_of_others(held_out, "A").found.scaling
    assert of_c.temperature == pytest.approx(1.5, rel=0.2)
    # classes weigh as the square roots of their rows, which is half of the offset
    assert of_c.offset[0] - of_c.offset[1:].mean() == pytest.approx(1.0, abs=0.3)
    of_a = decision_of_others(held_out, "C").found.scaling
    assert of_a.temperature == pytest.approx(0.5, rel=0.1)
    assert np.allclose(of_a.offset - of_a.offset.mean(), 0, atol=0.2)
    alone = decision_of_others({"A": held_out["A"]}, "A").found.scaling
    assert alone.temperature == pytest.approx(0.5, rel=0.1)


@pytest.mark.slow
def test_the_decision_is_that_of_all_rows_and_its_error_that_of_other_patients(held_out) -> None:
    found = calibration(held_out, before=10.0)
    fitted = fit_decision(held_out)
    assert found.temperature == fitted.found.scaling.temperature
    assert found.min_confidence == fitted.min_confidence >= 0.5
    assert (found.n, found.labels, found.modality) == (4500, tuple(LABELS), "image")
    assert found.prompts == tuple(label.prompts for label in LABELS.values())
    assert dict(found.regions) == TISSUE
    assert (found.normalize, found.background) == ("none", None)

    def error(patient: str, p: np.ndarray) -> float:
        correct = pooled(held_out[patient])[1]
        return expected_calibration_error(p.max(axis=1), correct[np.arange(len(p)), p.argmax(axis=1)])

    scores = {patient: pooled(parts)[0] for patient, parts in held_out.items()}
    after = [error(p, decision_of_others(held_out, p).found.scaling.probabilities(scores[p])) for p in scores]
    before = [error(p, probabilities(scores[p], 10.0)) for p in scores]
    assert found.ece == pytest.approx(np.mean(after))
    assert found.ece_before == pytest.approx(np.mean(before))
    # each patient is far from the decision of the other one
    assert np.mean(after) > 0.05


def test_the_best_region_is_judged_by_its_probability(held_out) -> None:
    part, decision = held_out["A"][0], decision_of_others(held_out, "A")
    rows = judge(part, decision)
    p = decision.found.scaling.probabilities(part.scores)
    assert np.allclose(rows.confidence, p.max(axis=1))
    assert rows.correct.tolist() == part.correct[np.arange(len(p)), p.argmax(axis=1)].tolist()
