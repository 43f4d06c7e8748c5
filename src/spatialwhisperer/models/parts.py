"""The parts that a preset is put together from, as plain frozen values; nothing here computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from spatialwhisperer.retrieval.rule import MODALITIES, Retrieval

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Recipe:
    """How heads are trained.

    Attributes
    ----------
    heads
        Head of each modality.
    projection_dim
        Dimension of the joint space; ``None``: that of the gene features.
    learning_rate
        Of heads and temperature.
    tower_learning_rate
        Of unlocked towers.
    weight_decay, betas
        Of AdamW.
    warmup
        Share of the steps over which the learning rate rises; unlocked towers stay frozen meanwhile and then rise likewise.
    final_learning_rate
        Share of the learning rate at which the cosine ends.
    batch_size
        Pairs in a step.
    max_epochs, min_steps
        Epochs; raised so that small data sees at least that many steps.
    dropout
        Inside the heads, by modality.
    text_loss
        Loss of pairs with text: "info_nce", or "sigmoid", which knows every caption of a row and weighs captions equally.
    optimizer
        "adamw", or "adam": coupled L2 on every parameter.
    schedule
        Of the learning rate after the warm-up: "cosine" or "constant".
    learn_temperature
        Whether the temperature is a parameter.
    regression_weight
        Weight of the squared error of the decoder that is trained beside the contrastive loss; 0: no decoder.
    closed_form
        Of the sequential schedule: with frozen features and a ridge link nothing is trained, see
        :mod:`spatialwhisperer.training.closed_form`; the joint space is then that of the gene features. Else the rest of the
        recipe holds.
    neighbour_share
        Of the closed form: weight of the mean of the nearest rows of the section in an image embedding.
    """

    heads: Mapping[str, str]
    projection_dim: int | None
    learning_rate: float
    tower_learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    warmup: float
    final_learning_rate: float
    batch_size: int
    max_epochs: int
    min_steps: int
    dropout: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    text_loss: str = "info_nce"
    optimizer: str = "adamw"
    schedule: str = "cosine"
    learn_temperature: bool = True
    regression_weight: float = 0.0
    closed_form: bool = False
    neighbour_share: float = 0.0


@dataclass(frozen=True)
class PairLoss:
    """The contrastive loss of image and gene: ``λ CE(Sᵀ, T_c) + (1−λ) CE(S, T_r)`` with ``S = Z_g Z_iᵀ / τ``.

    Attributes
    ----------
    lam
        Weight of the half in which each image chooses among the genes.
    alpha, beta
        Weights of image–image and gene–gene similarity in soft targets.
    targets
        "identity" or "soft".
    stop_grad
        No gradient through soft targets.
    column_targets
        Targets of the image half: "transpose" of the row softmax, as published, or "renormalise" to sum to one.
    negatives_scope
        "global": negatives of all devices; "device": of the own one.
    """

    lam: float = 0.5
    alpha: float = 0.0
    beta: float = 0.0
    targets: str = "identity"
    stop_grad: bool = False
    column_targets: str = "transpose"
    negatives_scope: str = "global"


@dataclass(frozen=True)
class Context:
    """What a row sees of other rows before its head.

    Attributes
    ----------
    kind
        "batch_peer", "section_knn", "section_mean" or "none".
    sides
        Modalities that it is used on.
    options
        Of the module.
    chunk
        Rows of one sequence at inference (batch_peer).
    """

    kind: str = "none"
    sides: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    chunk: int | None = None


@dataclass(frozen=True)
class Expression:
    """How a preset predicts expression.

    Attributes
    ----------
    value_space
        Space of the predicted values; see :mod:`spatialwhisperer.statistics.value_spaces`.
    input_space
        Space of the expression that the gene side reads, where its encoder is the identity.
    genes, n_genes
        How genes are chosen where the caller names none: "hvg" (union of the most variable of each section), "mean" (union
        of the strongest of each section) or "all"; and how many of each section.
    retrieval
        From the bank of training observations.
    regression_rank
        Components of expression that the ridge regression beside retrieval is shrunk towards.
    method
        "retrieval", "regression" or "both" where the caller does not say.
    by_default
        Whether training fits this part where the caller does not say.
    """

    value_space: str = "per_spot_log1p"
    input_space: str = "per_spot_log1p"
    genes: str = "hvg"
    n_genes: int = 1000
    retrieval: Retrieval = field(default_factory=Retrieval)
    regression_rank: int = 20
    method: str = "retrieval"
    by_default: bool = True


@dataclass(frozen=True)
class Evaluation:
    """What the published evaluation lets the test section take part in; benchmarks read this, training does not.

    Attributes
    ----------
    gene_fit
        Sections that the genes are chosen on: "train" or "all".
    correction
        "none", or "harmony" over all sections, the corrected matrix being input, bank and truth.
    heg_from
        Whose expression ranks the genes of HEG50 and HVG50: "train" or "test".
    """

    gene_fit: str = "train"
    correction: str = "none"
    heg_from: str = "train"


@dataclass(frozen=True)
class Preset:
    """A published system as parts and numbers.

    Attributes
    ----------
    name, paper
        What it is and where it is described.
    pairs
        Modality pairs that are trained, each with its weight.
    locking
        Code of three letters in the order gene, text, image: ``L`` locked, ``U`` pretrained and unfrozen after the
        warm-up, ``u`` trained from random weights.
    temperature
        Start value.
    standardize
        Modality to ``"section"`` (z-scores within each section), ``"global"`` (training statistics) or ``"none"``.
    joint, sequential
        The recipe of each schedule; ``None``: the schedule is not part of it.
    image_encoder, gene_encoder
        Encoders that :func:`spatialwhisperer.tl.train` takes where the caller names none.
    gene_options
        Of the gene encoder, where it is fitted here.
    tile_um
        Edge of the tiles where the caller names none; several: features of each size side by side.
    published_image_encoder
        Image encoder of the paper.
    norm
        "l2": rows of the joint space have unit length; "none": they are what the head gives.
    loss, context, expression, evaluation
        See the classes.
    protocol
        "strict", or "peer": as the published code does it.
    """

    name: str
    paper: str
    pairs: Mapping[tuple[str, str], float]
    locking: str
    temperature: float
    standardize: Mapping[str, str]
    joint: Recipe
    sequential: Recipe | None = None
    image_encoder: str = "stain_texture"
    gene_encoder: str = "pca"
    gene_options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    tile_um: tuple[float, ...] | float | None = None
    published_image_encoder: str = ""
    norm: str = "l2"
    loss: PairLoss = field(default_factory=PairLoss)
    context: Context = field(default_factory=Context)
    expression: Expression | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    protocol: str = "strict"


__all__ = ["MODALITIES", "Context", "Evaluation", "Expression", "PairLoss", "Preset", "Recipe", "Retrieval"]
