"""The decision of the embedded model: offsets and scales of the regions, and the smallest confidence, from patients left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from spatialwhisperer.models.configuration.annotation import Annotation
from spatialwhisperer.protocols.default_model.labels import LABELS, TISSUE
from spatialwhisperer.protocols.default_model.unseen_patients import HeldOut
from spatialwhisperer.statistics.calibration import expected_calibration_error, probabilities
from spatialwhisperer.statistics.labels.abstention import commonest_class, least_confidence
from spatialwhisperer.statistics.labels.vector_scaling import LeftOut, choose_scaling, scaling_units
from spatialwhisperer.tl.evaluation.rows.truth import Judged, judged

ByPatient = Mapping[str, Sequence[HeldOut]]
"""Held-out sections by patient."""


class Decision(NamedTuple):
    """What is fitted on some patients, and used on others.

    Attributes
    ----------
    found
        Scales and offsets of the regions.
    min_confidence
        Confidence below which a row gets no label.
    """

    found: LeftOut
    min_confidence: float


def pooled(parts: Sequence[HeldOut]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the regions and the correct regions of several sections."""
    return np.concatenate([p.scores for p in parts]), np.concatenate([p.correct for p in parts])


def fit_decision(held_out: ByPatient) -> Decision:
    """Fit the decision on the held-out scores of all patients; its penalty is chosen by leaving out patients, sections or blocks again."""
    rows = [(patient, part) for patient, parts in held_out.items() for part in parts]
    scores, correct = pooled([part for _, part in rows])
    sections = np.concatenate([[part.section] * len(part.scores) for _, part in rows])
    patients = np.concatenate([[patient] * len(part.scores) for patient, part in rows])
    positions = np.concatenate([part.positions for _, part in rows])
    units = scaling_units(patients, sections, positions)
    found = choose_scaling(scores, correct, sections=sections, units=units)
    # the scores are of patients that the model has not seen; a decision of other rows has other confidences
    rows_judged = _judged(found.scaling.probabilities(scores), correct)
    least = least_confidence(rows_judged.confidence, rows_judged.correct, sections, commonest_class(correct, sections))
    return Decision(found, least)


def decision_of_others(held_out: ByPatient, patient: str) -> Decision:
    """The decision that is fitted on all patients but one; that of a single patient on its own."""
    others = {p: parts for p, parts in held_out.items() if p != patient}
    return fit_decision(others or held_out)


def calibration(held_out: ByPatient, before: float) -> Annotation:
    """The decision that is fitted on the rows of all patients.

    Its calibration error is the mean over patients of the error of the decision of the other patients.

    Parameters
    ----------
    held_out
        Held-out sections.
    before
        Temperature of the training.
    """
    found, least = fit_decision(held_out)
    scaling = found.scaling
    across = [(pooled(parts), decision_of_others(held_out, patient)) for patient, parts in held_out.items()]
    return Annotation(
        normalize="none",
        temperature=scaling.temperature,
        background=None,
        ece=float(np.mean([_ece(other.found.scaling.probabilities(own[0]), own[1]) for own, other in across])),
        ece_before=float(np.mean([_ece(probabilities(own[0], before), own[1]) for own, _ in across])),
        n=sum(len(part.scores) for parts in held_out.values() for part in parts),
        labels=tuple(LABELS),
        prompts=tuple(label.prompts for label in LABELS.values()),
        modality="image",
        scale=tuple(scaling.scale.tolist()),
        offset=tuple(scaling.offset.tolist()),
        regions=TISSUE,
        min_confidence=least,
    )


def judge(part: HeldOut, decision: Decision) -> Judged:
    """Best region of each row, its probability, and whether it is correct."""
    return _judged(decision.found.scaling.probabilities(part.scores), part.correct)


def _judged(probability: np.ndarray, correct: np.ndarray) -> Judged:
    return judged(probability, correct, np.eye(correct.shape[1], dtype=bool))


def _ece(probability: np.ndarray, correct: np.ndarray) -> float:
    rows = _judged(probability, correct)
    return expected_calibration_error(rows.summed, rows.correct)
