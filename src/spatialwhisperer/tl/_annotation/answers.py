"""Scores and probabilities of labels: from words alone, with examples, or with the regions that a calibrated decision tells first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from spatialwhisperer.statistics.calibration import probabilities
from spatialwhisperer.tl._annotation import decision, scoring
from spatialwhisperer.tl._annotation.examples import refine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from spatialwhisperer.models.configuration.annotation import Annotation
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._annotation.scoring import Correction


class Answers(NamedTuple):
    """Scores and probabilities of the labels, shape (n, c).

    Attributes
    ----------
    scores, probability
        Cosines, or logarithms of probabilities where there are examples; and probabilities.
    fitted
        The decision that made the probabilities; ``None`` where they are a softmax of the scores.
    words
        Weight of the words beside the examples; ``None`` without examples.
    """

    scores: np.ndarray
    probability: np.ndarray
    fitted: Annotation | None = None
    words: float | None = None


def answers(
    model: Whisperer,
    z: np.ndarray,
    text: np.ndarray,
    *,
    labels: Sequence[str],
    sections: np.ndarray,
    correction: Correction,
    examples: Mapping[str, np.ndarray] | None,
    fitted: Annotation | None,
    device: str | None,
) -> Answers:
    """Answers for unit rows (n, u) and unit labels (c, u); rows with NaN stay NaN.

    Parameters
    ----------
    model
        The model.
    z, text
        Embeddings of rows and of labels.
    labels, sections
        Names of the labels, and section of each row.
    correction
        Normalisation and temperature, and the rows that have no part in means over a section.
    examples
        Positions of labelled rows by label; ``None`` without examples.
    fitted
        The calibrated decision for these labels; ``None`` where there is none.
    device
        Torch device.
    """
    scores, probability = scoring.score_rows(z, text, sections=sections, correction=scoring.of_cosines(correction))
    if examples is not None:
        scores, words = refine(
            scores,
            z,
            examples,
            labels,
            sections=sections,
            temperature=correction.temperature,
            empty=correction.empty,
        )
        return Answers(scores, probabilities(scores, correction.temperature), words=words)
    if fitted is None or not fitted.decides:
        return Answers(scores, probability)
    regions = decision.region_scores(model, fitted, z, sections=sections, correction=correction, device=device)
    return Answers(scores, decision.label_probabilities(fitted, scores, regions), fitted)
