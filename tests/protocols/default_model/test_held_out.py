"""What is measured of a held-out section."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.default_model import held_out
from spatialwhisperer.protocols.default_model.decisions import Decision, decision_of_others
from spatialwhisperer.protocols.default_model.doubt import doubt_columns
from spatialwhisperer.protocols.default_model.hard_labels import hard_labels
from spatialwhisperer.protocols.default_model.held_out import _row
from spatialwhisperer.protocols.default_model.labels import TISSUE
from spatialwhisperer.protocols.default_model.unseen_patients import HeldOut
from spatialwhisperer.statistics.calibration import probabilities
from spatialwhisperer.statistics.labels.vector_scaling import LeftOut, Scaling

if TYPE_CHECKING:
    from pathlib import Path

    from spatialwhisperer.protocols.default_model.recipe import TrainingRecipe

N = len(TISSUE)
TEMPERATURE = 0.5
PLAIN = Scaling(TEMPERATURE, np.ones(N), np.zeros(N))
DECISION = Decision(LeftOut(PLAIN, None, 0.0, 0.0), 0.5)


@pytest.fixture
def part() -> HeldOut:
    """Ten rows of two classes: the three most confident labels and the sixth are correct."""
    malignant, fat = (list(TISSUE).index(name) for name in ("tumour", "adipose tissue"))
    scores = np.zeros((10, N))
    scores[:, malignant] = np.linspace(2.0, 0.2, 10)
    correct = np.zeros((10, N), bool)
    right = np.isin(np.arange(10), [0, 1, 2, 5])
    correct[right, malignant] = True
    correct[~right, fat] = True
    return HeldOut(
        "A1",
        pd.DataFrame({"auroc": [0.6, 0.9]}),
        scores,
        correct,
        np.arange(20.0).reshape(10, 2),
        {"auroc": 0.7, "kappa": 0.3},
        {"words": 0.8, "examples": 0.85, "words, balanced": 0.5, "examples, balanced": 0.6},
        np.linspace(0.9, 0.1, 10),
        np.full((10, N), np.nan),
    )


def test_accuracy_is_that_of_the_most_confident_rows(part: HeldOut) -> None:
    row = _row(part, DECISION)
    kept = [row[f"correct, {c} kept"] for c in ("100%", "50%", "25%", "10%")]
    # ten, five, two and one row
    assert kept == pytest.approx([4 / 10, 3 / 5, 1, 1])
    assert row["commonest class"] == pytest.approx(0.6)


def test_the_calibration_error_is_that_of_the_probabilities_at_the_temperature(part: HeldOut) -> None:
    p = probabilities(part.scores, TEMPERATURE).max(axis=1)
    right = part.correct[np.arange(10), part.scores.argmax(axis=1)]
    which = np.ceil(p * 15)
    by_hand = sum(abs((right[which == b] - p[which == b]).sum()) for b in np.unique(which)) / 10
    assert _row(part, DECISION)["ECE"] == pytest.approx(by_hand)


@pytest.mark.slow
def test_each_patient_is_measured_by_the_decision_of_the_others(
    part: HeldOut, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = replace(part, section="C1", scores=3 * part.scores)
    parts = {"A": [part], "C": [other]}
    asked = []

    def leave_out(patient: str, _materials: Any, recipe: TrainingRecipe, seed: int) -> list[HeldOut]:
        asked.append((patient, recipe.gene_encoder, seed))
        return parts[patient]

    monkeypatch.setattr(held_out, "load", lambda _data, *, smoke: SimpleNamespace(patients=["A", "C"], smoke=smoke))
    monkeypatch.setattr(held_out, "leave_patient_out", leave_out)
    table = held_out.run(tmp_path, tmp_path / "out", gene_encoder="pca", seed=7)
    assert asked == [("A", "pca", 7), ("C", "pca", 7)]
    of_c, of_a = (decision_of_others(parts, patient) for patient in ("A", "C"))
    assert table["ECE"].tolist() == [_row(part, of_c)["ECE"], _row(other, of_a)["ECE"]]
    read = pd.read_csv(tmp_path / "out" / "held_out.csv", index_col="section")
    assert np.allclose(read, table, equal_nan=True)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"held_out.csv", "held_out.md", "held_out.png"}


def test_what_was_measured_before_stands_under_its_name(part: HeldOut) -> None:
    row = _row(part, DECISION)
    assert row["section"] == "A1"
    assert row["macro AUROC"] == pytest.approx(0.75)
    assert (row["AUROC against expression"], row["kappa with expression"]) == (0.7, 0.3)
    assert (row["regions, words"], row["regions, 5 examples each"]) == (0.8, 0.85)
    assert (row["balanced accuracy, words"], row["balanced accuracy, 5 examples each"]) == (0.5, 0.6)


def test_hard_labels_are_measured_by_class_and_where_they_are_kept(part: HeldOut) -> None:
    row = hard_labels(part, DECISION)
    # all ten rows are called tumour, four are
    assert row["accuracy"] == pytest.approx(0.4)
    # the four rows of tumour are too few to count
    assert row["balanced accuracy"] == 0
    p = probabilities(part.scores, TEMPERATURE).max(axis=1)
    kept = p >= 0.5
    assert 0 < row["kept"] == kept.mean() < 1
    assert row["accuracy of kept"] == pytest.approx(part.correct[kept, 0].mean())
    twice: dict[str, Any] = {n: np.concatenate([getattr(part, n)] * 2) for n in ("scores", "correct", "positions")}
    more = replace(part, **twice)
    row = hard_labels(more, DECISION)
    assert row["balanced accuracy"] == pytest.approx((1 + 0) / 2)
    assert row["macro-F1"] == pytest.approx((2 * 8 / (20 + 8) + 0) / 2)


def test_doubt_is_judged_by_the_rows_whose_region_is_wrong(part: HeldOut) -> None:
    malignant = list(TISSUE).index("tumour")
    sd = part.wording_sd.copy()
    sd[:, malignant] = part.correct.argmax(axis=1) != malignant
    row = doubt_columns(replace(part, wording_sd=sd), DECISION)
    # rows are in the order of their confidence, and so is the agreement; the correct ones are 0, 1, 2 and 5
    above = np.mean([w > r for w in (3, 4, 6, 7, 8, 9) for r in (0, 1, 2, 5)])
    assert row["errors by confidence"] == pytest.approx(above)
    assert row["errors by agreement"] == pytest.approx(above)
    assert row["errors by wording sd"] == 1
    assert np.isnan(doubt_columns(part, DECISION)["errors by wording sd"])
