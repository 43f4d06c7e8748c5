"""The decision that a model was calibrated for: the region first, and the cell type inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spatialwhisperer.statistics.calibration import probabilities
from spatialwhisperer.statistics.labels.tree import best_on_path, class_probabilities, equal_classes, nested
from spatialwhisperer.statistics.labels.vector_scaling import Scaling
from spatialwhisperer.tl._annotation import scoring
from spatialwhisperer.tl._annotation.labels import class_embeddings
from spatialwhisperer.tl._annotation.rollup import Coarse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialwhisperer.models.configuration.annotation import Annotation, Region
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._annotation.rollup import Classes
    from spatialwhisperer.tl._annotation.scoring import Correction


class Decided(NamedTuple):
    """Probabilities, and the classes that are chosen among before the labels in them.

    Attributes
    ----------
    probability
        Of each label, or of each class of a level; shape (n, classes).
    code
        The best one of each row, -1 without an embedding, shape (n,).
    classes
        What is scored, with the coarser terms that rows may get.
    stored
        Whether the probabilities are more than a softmax of the scores.
    path
        As in :class:`~spatialwhisperer.tl._annotation.record.AnnotationRecord`.
    """

    probability: np.ndarray
    code: np.ndarray
    classes: Classes
    stored: bool
    path: tuple[tuple[str, ...], ...] = ()


def fitted_decision(
    model: Whisperer,
    labels: Sequence[str],
    sentences: Sequence[Sequence[str]],
    correction: Correction,
    modality: str | None,
) -> Annotation | None:
    """The calibration of the model where it holds scales, offsets, regions or a smallest confidence for these labels, in these words.

    It is in the order of the labels; ``None`` where there is none.
    """
    fitted = _same_words(model, labels, sentences)
    if fitted is None or not correction.calibrated or not (fitted.decides or fitted.min_confidence):
        return None
    return fitted if fitted.modality in (None, modality) else None


def regions_of(model: Whisperer, labels: Sequence[str], sentences: Sequence[Sequence[str]]) -> Mapping[str, Region]:
    """Regions that the model tells before these labels, in these words; none where it does not."""
    fitted = _same_words(model, labels, sentences)
    return {} if fitted is None else fitted.regions


def fitted_for(model: Whisperer, labels: Sequence[str], sentences: Sequence[Sequence[str]]) -> bool:
    """Whether the temperature of the model was fitted for these labels, in these words, or for any."""
    fitted = model.config.annotation
    return fitted is not None and (not fitted.labels or _same_words(model, labels, sentences) is not None)


def _same_words(model: Whisperer, labels: Sequence[str], sentences: Sequence[Sequence[str]]) -> Annotation | None:
    """The calibration of the model in the order of the labels; ``None`` where it is for other labels, or for other words for them."""
    fitted = model.config.annotation
    if fitted is None or sorted(labels) != sorted(fitted.labels):
        return None
    fitted = fitted.in_order(labels)
    # the embedding of a label is the mean of its descriptions, whatever their order
    asked = [sorted(group) for group in sentences]
    return fitted if not fitted.prompts or [sorted(group) for group in fitted.prompts] == asked else None


def unused(model: Whisperer, labels: Sequence[str], sentences: Sequence[Sequence[str]], modality: str | None) -> str:
    """What to say of a calibrated decision that is for another modality, other labels, or other words; empty where there is none."""
    fitted = model.config.annotation
    if fitted is None or not (fitted.decides or fitted.min_confidence):
        return ""
    if fitted.modality not in (None, modality):
        what = f"{fitted.modality} embeddings"
    elif _same_words(model, labels, sentences):
        return ""
    else:
        what = "other words for its labels" if sorted(labels) == sorted(fitted.labels) else "other labels"
    lost = ", and rows whose label is unsure keep it" if fitted.min_confidence else ""
    return (
        f"The model was calibrated for {what}, so that confidence is not calibrated here{lost}. "
        "Fit it to these: sw.tl.calibrate; or pass min_confidence=…."
    )


def scaling(fitted: Annotation) -> Scaling:
    """Temperature, scales and offsets as arrays."""
    n = len(fitted.regions or fitted.labels)
    return Scaling(
        fitted.temperature, np.array(fitted.scale) if fitted.scale else np.ones(n), np.array(fitted.offset or [0.0] * n)
    )


def membership(fitted: Annotation) -> np.ndarray:
    """Which label belongs to which region, Boolean of shape (labels, regions)."""
    return np.array([[label in region.labels for region in fitted.regions.values()] for label in fitted.labels])


def region_scores(
    model: Whisperer,
    fitted: Annotation,
    z: np.ndarray,
    *,
    sections: np.ndarray,
    correction: Correction,
    device: str | None = None,
) -> np.ndarray | None:
    """Corrected cosines of rows with the regions, shape (n, regions); ``None`` where there are no regions."""
    if not fitted.regions:
        return None
    text = class_embeddings(model, [list(region.prompts) for region in fitted.regions.values()], device=device)
    return scoring.score_rows(z, text, sections=sections, correction=scoring.of_cosines(correction))[0]


def label_probabilities(fitted: Annotation, cosines: np.ndarray, regions: np.ndarray | None) -> np.ndarray:
    """Probability of each label, float32 of shape (n, labels).

    Parameters
    ----------
    fitted
        The calibration.
    cosines
        Corrected cosines with the labels, shape (n, labels).
    regions
        Corrected cosines with the regions, shape (n, regions); ``None`` where there are no regions.
    """
    if regions is None:
        return scaling(fitted).probabilities(cosines.astype(np.float64)).astype(np.float32)
    of_region = scaling(fitted).probabilities(regions.astype(np.float64))
    out = np.empty(cosines.shape, np.float64)
    for number, inside in enumerate(membership(fitted).T):
        within = probabilities(cosines[:, inside].astype(np.float64), fitted.temperature)
        out[:, inside] = of_region[:, [number]] * within
    return out.astype(np.float32)


def decide(probability: np.ndarray, classes: Classes, fitted: Annotation | None) -> Decided:
    """Probabilities of what is asked for, and the best of them.

    Without a calibrated decision every class of a level has the same prior probability (:func:`equal_classes`).

    Parameters
    ----------
    probability
        Of each label, shape (n, labels).
    classes
        What is scored.
    fitted
        The calibrated decision that the probabilities come from.
    """
    stored = fitted is not None
    if classes.member is not None:
        if fitted is None:
            probability = equal_classes(probability, classes.member)
        probability, stored = class_probabilities(probability, classes.member), True
    tree = None if classes.coarse is None else classes.coarse.member
    if fitted is None and tree is not None:
        probability, stored = equal_classes(probability, tree), True
    if fitted is not None and fitted.regions and classes.member is None:
        tree = membership(fitted)
        if classes.coarse is None:
            classes = _with_regions(classes, fitted)
    names = classes.classes
    path = () if tree is None else tuple(tuple(names[i] for i in sorted(inside)) for inside in nested(tree))
    return Decided(probability, chosen(probability, names, path), classes, stored, path)


def chosen(probability: np.ndarray, classes: Sequence[str], path: Sequence[Sequence[str]]) -> np.ndarray:
    """The class that each row gets, shape (n,); -1 in rows without probabilities.

    Parameters
    ----------
    probability
        Of each class, shape (n, classes).
    classes
        Their names.
    path
        As in :class:`~spatialwhisperer.tl._annotation.record.AnnotationRecord`.
    """
    if not path:
        return scoring.best_labels(probability).code
    return best_on_path(probability, np.array([[name in inside for inside in path] for name in classes]))


def _with_regions(classes: Classes, fitted: Annotation) -> Classes:
    """Regions of several labels are the coarser terms of rows whose label is not sure."""
    several = {name: region for name, region in fitted.regions.items() if len(region.labels) > 1}
    member = np.array([[label in region.labels for region in several.values()] for label in fitted.labels])
    coarse = Coarse([region.cl for region in several.values()], member.reshape(len(fitted.labels), len(several)))
    return classes._replace(coarse=coarse, coarse_names=list(several))
