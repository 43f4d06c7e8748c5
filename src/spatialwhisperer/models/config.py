"""What a model is, as plain frozen values: the one place that knows what ``config.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import listing
from spatialwhisperer._schema import Stored, from_plain, to_plain
from spatialwhisperer.encoders.recipe import FeatureRecipe

Standardize = Literal["section", "global", "none"]
Norm = Literal["l2", "none"]
Normalize = Literal["none", "softmax", "centre"]
Background = Literal["section", "training"]
Number = int | float | bool | str


@dataclass(frozen=True)
class HeadConfig(Stored):
    """A projection head; see :mod:`spatialwhisperer.networks.heads`.

    Attributes
    ----------
    kind
        Its name.
    in_dim
        Columns that it takes: of the features, or of their context where there is one.
    dropout
        While it is trained.
    """

    kind: str
    in_dim: int
    dropout: float = 0.0


@dataclass(frozen=True)
class ContextConfig(Stored):
    """What a row sees of other rows before its head; see :mod:`spatialwhisperer.networks.context`.

    Attributes
    ----------
    kind
        Its name.
    options
        Of the module.
    chunk
        Rows that are mixed with each other at inference, for "batch_peer".
    """

    kind: str
    options: Mapping[str, Number] = field(default_factory=frozen)
    chunk: int | None = None

    @property
    def array_positions(self) -> bool:
        """Whether it takes whole-numbered array coordinates."""
        return self.kind == "batch_peer"


@dataclass(frozen=True)
class ModalityConfig(Stored):
    """How the rows of one modality reach the joint space.

    Attributes
    ----------
    features
        How its features are made; of a trained modality, which encoder was trained.
    feature_dim
        Features of a row, before context and head.
    head
        Into the joint space.
    context
        Between features and head.
    standardize
        How features are standardised: within each section, by training statistics, or not at all.
    trained
        Whether the encoder was trained with the head; the model then takes raw inputs.
    """

    features: FeatureRecipe
    feature_dim: int
    head: HeadConfig
    context: ContextConfig | None = None
    standardize: Standardize = "none"
    trained: bool = False


@dataclass(frozen=True)
class Training(Stored):
    """What the model says about its training.

    Attributes
    ----------
    preset, protocol, schedule, image_link, locking
        What was trained; see :class:`~spatialwhisperer.models.Preset`.
    pairs
        Number of pairs by the names of their modalities ("image–gene").
    groups, validation_groups
        Patients (groups) that were trained on, and held out.
    random_state
        Seed.
    penalties
        Of what was solved in closed form, by name.
    """

    preset: str
    protocol: str
    schedule: str
    image_link: str | None
    locking: str
    pairs: Mapping[str, int]
    groups: tuple[str, ...]
    validation_groups: tuple[str, ...]
    random_state: int
    penalties: Mapping[str, float] = field(default_factory=frozen)


@dataclass(frozen=True)
class Annotation(Stored):
    """How scores become probabilities; see :func:`spatialwhisperer.tl.calibrate`.

    Attributes
    ----------
    normalize, background
        The correction that the temperature was fitted for.
    temperature
        What scores are divided by before a softmax.
    ece, ece_before
        Expected calibration error of the rows it was fitted on, with it and at the temperature of the training.
    n
        Number of these rows.
    labels
        Labels that it was fitted for.
    """

    normalize: Normalize
    temperature: float
    background: Background | None = None
    ece: float | None = None
    ece_before: float | None = None
    n: int | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card(Stored):
    """What a published model says about itself."""

    name: str
    tissue: str
    use: str
    data: str
    sections_with_image: tuple[str, ...]
    sections_with_text: tuple[str, ...]
    patients: tuple[str, ...]
    recipe: Mapping[str, Any]
    random_state: int
    held_out_macro_auroc: Mapping[str, float]
    versions: Mapping[str, str]
    command: str


@dataclass(frozen=True)
class ModelConfig(Stored):
    """Everything about a model but its weights.

    Attributes
    ----------
    projection_dim
        Dimension of the joint space.
    modalities
        How each modality reaches it.
    temperature
        Start value of the contrastive temperature.
    norm
        Whether rows of the joint space are compared at unit length.
    decoder_dim
        Genes that a decoder predicts from the joint space; ``None``: there is none.
    labels
        Captions seen in training.
    training, annotation, card
        See the classes; ``None`` where there is nothing to say.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.default_model().config.modalities["image"].features.name
    'stain_texture'
    """

    projection_dim: int
    modalities: Mapping[str, ModalityConfig]
    temperature: float = 0.07
    norm: Norm = "l2"
    decoder_dim: int | None = None
    labels: tuple[str, ...] = ()
    training: Training | None = None
    annotation: Annotation | None = None
    card: Card | None = None

    def modality(self, name: str) -> ModalityConfig:
        """One modality.

        Raises
        ------
        KeyError
            If the model has none of that name.
        """
        if name not in self.modalities:
            raise KeyError(f"This model has no modality {name!r} (it has: {listing(self.modalities)}).")
        return self.modalities[name]

    def with_modality(self, name: str, **changes: Any) -> ModelConfig:
        """Change the values of one modality."""
        return replace(self, modalities={**self.modalities, name: replace(self.modality(name), **changes)})

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return to_plain(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> ModelConfig:
        """Check plain values and build what they describe.

        Raises
        ------
        ValueError
            If a value is missing, unknown, or of another type.
        """
        return from_plain(cls, plain, "the configuration of a model")
