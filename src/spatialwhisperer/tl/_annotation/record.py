"""What is recorded of an annotation, for the functions that read its scores later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spatialwhisperer._frozen import frozen
from spatialwhisperer._storage.schema import Stored


@dataclass(frozen=True)
class AnnotationRecord(Stored):
    """How labels and scores were made.

    Attributes
    ----------
    classes
        Class of each column of the scores.
    labels, prompts
        Labels that were asked for, and their sentences.
    scores
        Whether the stored scores are cosines (perhaps centred), probabilities, or, with examples, logarithms of probabilities times
        the temperature.
    normalize, background, temperature, calibrated
        The correction, and whether the temperature was fitted for it and these labels.
    examples
        Number of examples of each label.
    group_key, level, min_confidence, min_margin, min_rows, rollup
        Arguments of the call.
    model
        Facts about the model.
    unknown
        "abstain" or "label", as asked for; ``None`` where rows were not compared with the training tissue.
    row_limit, section_limit
        Distances above which a row and a section are out of range; ``None`` where they were not compared.
    without_label
        Number of rows without a label, by the reason.
    trained_on
        Sections that the model was trained on.
    text_similarity, nearest_text
        Of each label, the highest cosine of its text features with those of a text that the model was trained with, and that text.
        Empty where the model stores no features of such texts.
    text_limit
        Similarity below which a text is far from all of them; ``None`` where there are none.
    negations
        Sentences that the model reads as negations, so that they score high where what they name is absent.
    probabilities
        "softmax" where they follow from the scores and the temperature, "stored" where they are in ``.obsm``.
    regions
        Regions that were told before the labels in them.
    path
        Classes that were chosen among before the ones in them, each by the names of its classes; empty where the label is the most
        probable class of all.
    examples_weight
        Weight of the words beside the examples; ``None`` without examples.
    coarser
        Classes in each region and each coarser term that a row could get instead of one of them.
    """

    classes: tuple[str, ...]
    labels: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    scores: Literal["cosine", "probability", "logarithm"]
    normalize: str
    background: str | None
    temperature: float
    calibrated: bool
    examples: tuple[int, ...] | None
    group_key: str | None
    level: tuple[str | None, ...] | None
    min_confidence: float
    min_margin: float
    rollup: bool
    model: Mapping[str, Any]
    unknown: str | None = None
    row_limit: float | None = None
    section_limit: float | None = None
    without_label: Mapping[str, int] = field(default_factory=frozen)
    min_rows: int = 1
    trained_on: tuple[str, ...] = ()
    text_similarity: tuple[float, ...] = ()
    nearest_text: tuple[str, ...] = ()
    text_limit: float | None = None
    probabilities: Literal["softmax", "stored"] = "softmax"
    regions: tuple[str, ...] = ()
    path: tuple[tuple[str, ...], ...] = ()
    examples_weight: float | None = None
    coarser: Mapping[str, tuple[str, ...]] = field(default_factory=frozen)
    negations: tuple[str, ...] = ()
