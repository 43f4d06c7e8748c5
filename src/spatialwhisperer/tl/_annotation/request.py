"""What a call of `zero_shot_annotate` asks for, checked before any data are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spatialwhisperer.tl._annotation import scoring
from spatialwhisperer.tl._annotation.labelled import Limits
from spatialwhisperer.tl._annotation.labels import check_labels, fill_templates
from spatialwhisperer.tl._annotation.rollup import Hierarchy, place_classes

if TYPE_CHECKING:
    from spatialwhisperer.models.configuration.annotation import Annotation
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._annotation.rollup import Classes


@dataclass(frozen=True)
class Request:
    """What the caller asks for, checked before any data are read.

    Attributes
    ----------
    labels, sentences
        Labels, and the sentences that describe each.
    classes
        What is scored, and where it lies in the ontology.
    hierarchy, min_confidence, min_margin, min_rows
        As the caller passed them.
    """

    labels: list[str]
    sentences: list[list[str]]
    classes: Classes
    hierarchy: Hierarchy
    min_confidence: float | None
    min_margin: float
    min_rows: int


def checked_request(
    model: Whisperer,
    labels: Any,
    templates: Any,
    hierarchy: Hierarchy,
    min_confidence: Any,
    min_margin: Any,
    min_rows: int,
) -> Request:
    """Check what the caller asks for.

    Raises
    ------
    ValueError
        If labels, templates, thresholds or terms do not fit.
    """
    names, prompts = check_labels(labels, model)
    sentences = fill_templates(prompts, templates)
    if min_confidence is not None:
        scoring.check_fraction("min_confidence", min_confidence)
    scoring.check_fraction("min_margin", min_margin)
    known = model.config.annotation
    _check_rollup(hierarchy, known.min_confidence if min_confidence is None and known else min_confidence, min_margin)
    classes = place_classes(model, names, labels, hierarchy)
    return Request(names, sentences, classes, hierarchy, min_confidence, float(min_margin), min_rows)


def limits_of(request: Request, fitted: Annotation | None) -> Limits:
    """What keeps a label from a row; the smallest confidence is that of the calibrated decision where the caller leaves it open."""
    least = request.min_confidence
    if least is None:
        least = 0.0 if fitted is None else fitted.min_confidence
    _check_rollup(request.hierarchy, least, request.min_margin)
    return Limits(float(least), request.min_margin, request.min_rows)


def _check_rollup(hierarchy: Hierarchy, least: float | None, min_margin: float) -> None:
    if hierarchy.rollup and not least and not min_margin:
        raise ValueError(
            "rollup=True gives a coarser label to rows that would abstain, and without a threshold no row abstains. Pass "
            "min_confidence=0.5 or so."
        )
