"""How a model turns scores into labels, as frozen values: part of its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import listing
from spatialwhisperer._storage.schema import Stored

Normalize = Literal["none", "softmax", "centre"]
Background = Literal["section", "training"]
Number = int | float | bool | str
T = TypeVar("T")


@dataclass(frozen=True)
class Region(Stored):
    """A kind of tissue, which is told before the cell types in it.

    Attributes
    ----------
    prompts
        Descriptions of it, whose embeddings are averaged.
    labels
        Labels that occur in it.
    cl
        Id of the region in the ontology; ``None`` where it has none.
    """

    prompts: tuple[str, ...]
    labels: tuple[str, ...]
    cl: str | None = None


@dataclass(frozen=True)
class Annotation(Stored):
    """How scores become probabilities, and which rows get a label; see :func:`spatialwhisperer.tl.calibrate`.

    A score becomes the logit ``scale * score / temperature + offset``, and the softmax of the logits is the probability. Where there are
    regions, this is done for them, and the probability of a label is that of its region times its probability inside the region, a
    softmax over the labels of the region at the temperature.

    Attributes
    ----------
    normalize, background
        Correction of the scores that the temperature was fitted for; see :func:`spatialwhisperer.tl.zero_shot_annotate`.
    temperature
        Scores are divided by it before the softmax.
    ece, ece_before
        Expected calibration error: with these values, and with the temperature of the training. It is that of the rows that they were
        fitted on, but for the embedded model that of patients that were left out.
    n
        Number of rows that it was fitted on.
    labels
        Labels that it was fitted for.
    prompts
        Their descriptions; empty where any description has the same temperature.
    modality
        What the rows were embedded from; ``None`` where any modality has the same temperature.
    scale, offset
        Of each region, or of each label where there are no regions; empty where there is a temperature alone.
    regions
        Regions by name, which hold each label once; empty where labels are compared directly.
    min_confidence
        Confidence below which rows get no label where the caller does not say another one.
    """

    normalize: Normalize
    temperature: float
    background: Background | None = None
    ece: float | None = None
    ece_before: float | None = None
    n: int | None = None
    labels: tuple[str, ...] = ()
    prompts: tuple[tuple[str, ...], ...] = ()
    modality: str | None = None
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    regions: Mapping[str, Region] = field(default_factory=frozen)
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(temperature=self.temperature, **{f"scale[{i}]": value for i, value in enumerate(self.scale)})
        check_fraction(min_confidence=self.min_confidence)
        inside = [label for region in self.regions.values() for label in region.labels]
        if self.regions and sorted(inside) != sorted(self.labels):
            raise ValueError(f"regions must hold each label once: {listing(self.labels)}; found {listing(inside)}.")
        expected = len(self.regions or self.labels)
        if len(self.scale) != len(self.offset) or (self.scale and len(self.scale) != expected):
            raise ValueError(
                f"scale and offset need {expected} values each, one for each {'region' if self.regions else 'label'}; found "
                f"{len(self.scale)} and {len(self.offset)}."
            )

    @property
    def decides(self) -> bool:
        """Whether probabilities are more than a softmax at the temperature."""
        return bool(self.scale or self.regions)

    def in_order(self, labels: Sequence[str]) -> Annotation:
        """The same calibration for its labels in another order."""
        at = [self.labels.index(label) for label in labels]

        def moved(values: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(values[i] for i in at) if values else ()

        named = replace(self, labels=moved(self.labels), prompts=moved(self.prompts))
        # regions have scales of their own
        return named if self.regions else replace(named, scale=moved(self.scale), offset=moved(self.offset))


def check_positive(**values: float) -> None:
    """Refuse values, by name, that are not positive and finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, not {value!r}.")


def check_fraction(**values: Number) -> None:
    """Refuse values, by name, that do not lie between 0 and 1."""
    for name, value in values.items():
        if isinstance(value, str) or not 0 <= value <= 1:
            raise ValueError(f"{name} must be a number between 0 and 1, not {value!r}.")
