"""Everything about a model but its weights, as frozen values: what ``config.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import listing
from spatialwhisperer._storage.schema import Stored, from_plain, to_plain
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models.configuration.annotation import Annotation, Number, check_fraction, check_positive
from spatialwhisperer.models.configuration.augmentation import Augmentation
from spatialwhisperer.models.configuration.refinement import Refinement

Standardize = Literal["section", "global", "none"]
Norm = Literal["l2", "none"]


@dataclass(frozen=True)
class HeadConfig(Stored):
    """A projection head; see :mod:`spatialwhisperer.networks.heads`.

    Attributes
    ----------
    kind
        Name of the head.
    in_dim
        Number of input columns: those of the features, or of the context where there is one.
    dropout
        Dropout in training.
    """

    kind: str
    in_dim: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(in_dim=self.in_dim)
        check_fraction(dropout=self.dropout)


@dataclass(frozen=True)
class ContextConfig(Stored):
    """Which other rows enter the embedding of a row, before its head; see :mod:`spatialwhisperer.networks.context`.

    Attributes
    ----------
    kind
        Name of the module.
    options
        Arguments of the module, such as ``n_neighbours``.
    chunk
        Number of rows that are mixed with each other at inference ("batch_peer").
    """

    kind: str
    options: Mapping[str, Number] = field(default_factory=frozen)
    chunk: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(dropout=self.options.get("dropout", 0.0))

    @property
    def array_positions(self) -> bool:
        """Whether positions are array coordinates, which are whole numbers."""
        return self.kind == "batch_peer"


@dataclass(frozen=True)
class ModalityConfig(Stored):
    """How the rows of one modality are mapped into the joint space.

    Attributes
    ----------
    features
        How the features are computed. Where the encoder was trained with the model, it names the encoder that training started from.
    feature_dim
        Number of features of a row, before context and head.
    head
        Head that maps features into the joint space.
    context
        Module between features and head; ``None`` where there is none.
    standardize
        How features are standardised: "section" (z-scores within each section), "global" (by training statistics) or "none".
    trained
        Whether the encoder was trained with the model, which then takes raw inputs (tiles, counts or texts).
    """

    features: FeatureRecipe
    feature_dim: int
    head: HeadConfig
    context: ContextConfig | None = None
    standardize: Standardize = "none"
    trained: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(feature_dim=self.feature_dim)


@dataclass(frozen=True)
class RegressionFeatures(Stored):
    """Image features that the regression reads and the joint space does not.

    Attributes
    ----------
    recipe
        How they are computed.
    dim
        Number of features.
    standardize
        How they are standardised: "section" (z-scores within each section) or "global" (by training statistics).
    """

    recipe: FeatureRecipe
    dim: int
    standardize: Literal["section", "global"] = "global"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(dim=self.dim)


@dataclass(frozen=True)
class Training(Stored):
    """How the model was trained.

    Attributes
    ----------
    preset, protocol, schedule, image_link, locking
        See :class:`~spatialwhisperer.models.Preset`.
    pairs
        Number of training pairs, by the names of their modalities ("image–gene").
    groups, validation_groups
        Patients (groups) that were trained on, and those that were held out.
    random_state
        Seed.
    penalties
        Ridge penalties of closed-form solutions, by name.
    augmentation
        Random changes of the tiles; ``None`` where the image encoder was frozen, or its tiles were taken as they are.
    refinement
        What became of the contrastive refinement of the image head; ``None`` where there was none.
    sections
        Names of the sections and other tables that were trained on.
    versions
        Versions of packages in training.
    group_key
        Column of ``.obs`` that the patients (groups) were read from; ``None`` where there was none.
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
    augmentation: Augmentation | None = None
    refinement: Refinement | None = None
    sections: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=frozen)
    group_key: str | None = None


@dataclass(frozen=True)
class Card(Stored):
    """Model card of a published model.

    Attributes
    ----------
    name, tissue, use, data
        Name, training tissue, intended use and source of the data, in words.
    sections_with_image, sections_with_text
        Training sections with an image, and with captions.
    patients
        Training patients.
    recipe
        Arguments of the training.
    random_state
        Seed.
    held_out_macro_auroc
        Macro AUROC of the annotation on patients that were held out, by data set.
    versions
        Versions of packages in training.
    command
        Command that trains the model again.
    licence
        Licence of the weights, and of what is needed beside them; empty where the model has no terms of its own.
    """

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
    licence: str = ""


@dataclass(frozen=True)
class ModelConfig(Stored):
    """Everything about a model but its weights.

    Attributes
    ----------
    projection_dim
        Dimension of the joint space.
    modalities
        How each modality is mapped into it.
    temperature
        Initial temperature of the contrastive loss.
    norm
        "l2" compares rows of the joint space at unit length, "none" as the head returns them.
    decoder_dim
        Number of genes that a decoder predicts from the joint space; ``None`` where there is no decoder.
    labels
        Captions of the training data.
    wordings
        Caption to the other texts that it was trained with.
    training, annotation, card
        How the model was trained, how its annotation was calibrated, and its model card; ``None`` where it is not known.

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
    wordings: Mapping[str, tuple[str, ...]] = field(default_factory=frozen)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(projection_dim=self.projection_dim, temperature=self.temperature)
        if self.decoder_dim is not None:
            check_positive(decoder_dim=self.decoder_dim)

    @checked
    def modality(self, name: str) -> ModalityConfig:
        """Return one modality.

        Raises
        ------
        KeyError
            If the model has none of that name.
        """
        if name not in self.modalities:
            raise KeyError(f"This model has no modality {name!r} (it has: {listing(self.modalities)}).")
        return self.modalities[name]

    def with_modality(self, name: str, **changes: Any) -> ModelConfig:
        """Return a copy in which values of one modality are changed."""
        return replace(self, modalities={**self.modalities, name: replace(self.modality(name), **changes)})

    def to_json(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return to_plain(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> ModelConfig:
        """Check plain values and build the configuration.

        Raises
        ------
        ValueError
            If a value is missing, unknown, or of another type.
        """
        return from_plain(cls, plain, "the configuration of a model")
