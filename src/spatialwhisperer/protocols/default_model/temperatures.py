"""The temperature of the embedded model, fitted and measured on held-out patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spatialwhisperer.models.config import Annotation
from spatialwhisperer.protocols.default_model.labels import LABELS, REGIONS
from spatialwhisperer.protocols.default_model.unseen_patients import HeldOut
from spatialwhisperer.statistics.calibration import expected_calibration_error, fit_temperature, probabilities
from spatialwhisperer.tl.evaluation.truth import Judged, indistinct, judged

ByPatient = Mapping[str, Sequence[HeldOut]]
"""Held-out sections by patient."""


def pooled(parts: Sequence[HeldOut]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and correct labels of several sections."""
    return np.concatenate([p.labels for p in parts]), np.concatenate([p.correct for p in parts])


def calibration(held_out: ByPatient, before: float) -> Annotation:
    """Temperature that is fitted on the rows of all patients.

    Its calibration error is the mean over patients of the error at the temperature of the other patients.

    Parameters
    ----------
    held_out
        Held-out sections.
    before
        Temperature of the training.
    """
    scores, correct = pooled([part for parts in held_out.values() for part in parts])
    across = [(pooled(parts), temperature_of_others(held_out, patient)) for patient, parts in held_out.items()]
    return Annotation(
        normalize="none",
        temperature=fit_temperature(scores, correct),
        background=None,
        ece=float(np.mean([_ece(*own, t) for own, t in across])),
        ece_before=float(np.mean([_ece(*own, before) for own, _ in across])),
        n=len(scores),
        labels=tuple(LABELS),
    )


def temperature_of_others(held_out: ByPatient, patient: str) -> float:
    """Temperature that is fitted on the rows of all patients but one; of a single patient on its own."""
    others = [part for p, parts in held_out.items() if p != patient for part in parts]
    return fit_temperature(*pooled(others or held_out[patient]))


def judge(scores: np.ndarray, correct: np.ndarray, temperature: float) -> Judged:
    """Best label of each row, its probability at a temperature, and whether it is correct."""
    return judged(probabilities(scores, temperature), correct, indistinct(REGIONS, list(LABELS)))


def _ece(scores: np.ndarray, correct: np.ndarray, temperature: float) -> float:
    rows = judge(scores, correct, temperature)
    return expected_calibration_error(rows.summed, rows.correct)
