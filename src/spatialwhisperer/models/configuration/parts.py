"""The parts of a preset, as plain frozen values; nothing here computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from spatialwhisperer._annotations import is_number, iterated, shown
from spatialwhisperer._checks.checked import checked, checked_fields
from spatialwhisperer._frozen import FrozenMapping, frozen
from spatialwhisperer._messages import listing
from spatialwhisperer._modalities import MODALITIES, get_modality
from spatialwhisperer.models.configuration.augmentation import Augmentation
from spatialwhisperer.models.presets.recipe import Recipe
from spatialwhisperer.retrieval.rule import Retrieval


@checked_fields
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
        "identity" (only the own pair is a match) or "soft" (similar pairs are partial matches).
    stop_grad
        Let no gradient through soft targets.
    column_targets
        Targets of the image half: "transpose" of the row softmax, as published, or "renormalise" to sum to one.
    negatives_scope
        Where negatives come from in training on several devices: all of them ("global"), or the same one ("device").
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
    """Which other rows enter the embedding of a row, before its head; see :mod:`spatialwhisperer.networks.context`.

    Attributes
    ----------
    kind
        "batch_peer", "section_knn", "section_mean" or "none".
    modalities
        Modalities that it is used for.
    options
        Arguments of the module, such as ``n_neighbours``.
    chunk
        Number of rows that are mixed with each other at inference ("batch_peer").
    """

    kind: str = "none"
    modalities: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=frozen)
    chunk: int | None = None

    @property
    def array_positions(self) -> bool:
        """Whether positions are array coordinates, which are whole numbers."""
        return self.kind == "batch_peer"


@dataclass(frozen=True)
class Expression:
    """How a preset predicts expression.

    Attributes
    ----------
    value_space
        How predicted values are scaled and transformed: "per_spot_log1p", "per_spot_log10" or "per_gene_log10_peer", which
        :doc:`/concepts` defines.
    input_space
        The same of the expression that the gene encoder "identity" returns.
    genes, n_genes
        How genes are chosen where none are named: "hvg" (union of the most variable genes of each section), "mean" (union of the
        most expressed genes of each section) or "all"; and how many of each section.
    retrieval
        How values are retrieved from the bank of training observations.
    regression_rank
        Number of principal components of expression towards which the ridge regression is shrunk.
    image
        Image encoders whose features, side by side, are the input of the regression on images that are fine enough for them; empty
        where it always reads the image features of the model.
    method
        Default method of prediction: "retrieval", "regression" or "both".
    by_default
        Whether training fits this part where ``expression=None``.
    """

    value_space: str = "per_spot_log1p"
    input_space: str = "per_spot_log1p"
    genes: str = "hvg"
    n_genes: int = 1000
    retrieval: Retrieval = field(default_factory=Retrieval)
    regression_rank: int = 20
    image: tuple[str, ...] = ()
    method: str = "retrieval"
    by_default: bool = True


@dataclass(frozen=True)
class Evaluation:
    """Where the published evaluation uses the test section too. The protocols of this package read it, training does not.

    Attributes
    ----------
    gene_fit
        Sections that the genes are chosen on: "train" or "all".
    correction
        "none", or "harmony" over all sections; the corrected matrix is then input, bank and ground truth.
    heg_from
        Sections whose expression ranks the genes of HEG50 and HVG50: "train" or "test".
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
        Name, and where the method is described.
    pairs
        Modality pairs that are trained, each with the weight of its loss.
    locking
        Code of three letters in the order gene, text, image: ``L`` keeps the encoder frozen, ``U`` trains it from its pretrained
        weights after the warm-up, ``u`` trains it from random weights. The published SpatialWhisperer is ``LUL``.
    temperature
        Initial temperature of the contrastive loss.
    standardize
        How features are standardised, by modality: ``"section"`` (z-scores within each section), ``"global"`` (by training
        statistics), ``"none"``, or ``"auto"``: ``"global"`` where the image encoder normalises the stains of each image, so that the
        result of a row does not depend on the other rows of its section, else ``"section"``.
    joint, sequential
        Recipe of each schedule; ``None`` where the method does not have it.
    schedule
        "joint" trains all pairs together, as published. "sequential" trains the pairs without an image first, and then maps images
        into the space of the genes, which stays fixed. ``None`` takes "sequential" below 5000 pairs with an image, and with any number
        of pairs for a closed form that is refined.
    image_link
        How the sequential schedule maps images: "ridge" (closed form) or "contrastive". ``None`` takes "ridge", unless the image
        encoder or a decoder is trained.
    image_encoder, gene_encoder, text_encoder
        Default encoders. The gene encoder "auto" is scVI where there are at least 1,000 rows with counts, else PCA.
    gene_options
        Options of the default gene encoder, where training fits it.
    tile_um
        Default edge of the tiles in microns; of several edges the features are concatenated.
    published_image_encoder
        Image encoder of the paper.
    norm
        "l2" compares rows of the joint space at unit length, "none" as the head returns them.
    loss, context, expression, evaluation
        See the classes.
    augmentation
        Random changes of the tiles where the image encoder is trained; ``None`` takes them as they are. Frozen features and inference do
        not use it.
    protocol
        "strict", or "peer", which follows the published code.

    Raises
    ------
    ValueError
        If values do not fit each other.
    """

    name: str
    paper: str
    pairs: Mapping[tuple[str, str], float]
    locking: str
    temperature: float
    standardize: Mapping[str, str]
    joint: Recipe
    sequential: Recipe | None = None
    schedule: str | None = None
    image_link: str | None = None
    image_encoder: str = "stain_texture"
    gene_encoder: str = "pca"
    text_encoder: str = "minilm"
    gene_options: Mapping[str, Any] = field(default_factory=frozen)
    tile_um: tuple[float, ...] | float | None = None
    published_image_encoder: str = ""
    norm: str = "l2"
    loss: PairLoss = field(default_factory=PairLoss)
    context: Context = field(default_factory=Context)
    expression: Expression | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    protocol: str = "strict"

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", _pairs(self.pairs))
        _check_locking(self.locking)
        _check_schedule(self)

    @checked
    def letter(self, modality: str) -> str:
        """Letter of a modality in the locking code; "L" for a modality that the code has no letter for."""
        return dict(zip(MODALITIES, self.locking, strict=False)).get(modality, "L")

    @property
    def bridge(self) -> str | None:
        """The modality that is part of all pairs, through which text reaches images; ``None`` where there is none."""
        shared = set.intersection(*(set(pair) for pair in self.pairs)) - {"image", "text"}
        return shared.pop() if len(shared) == 1 else None

    def replace(self, **changes: Any) -> Preset:
        """Change values of the preset, or of the recipes of its schedules.

        Parameters
        ----------
        **changes
            Attributes of `Preset`, or of :class:`Recipe`; the latter change in the recipe of each schedule.

        Returns
        -------
        A new preset, checked.

        Raises
        ------
        TypeError
            If there is no attribute of that name.
        ValueError
            If values do not fit each other.

        Examples
        --------
        >>> import spatialwhisperer as sw
        >>> preset = sw.models.get_preset("bleep").replace(locking="LLU", learning_rate=1e-4)
        >>> preset.locking, preset.joint.learning_rate
        ('LLU', 0.0001)
        """
        own, recipe = {f.name for f in fields(self)}, {f.name for f in fields(Recipe)}
        unknown = [name for name in changes if name not in own | recipe]
        if unknown:
            near = get_close_matches(unknown[0], [*own, *recipe], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"A preset has no {unknown[0]!r}.{hint} It has {listing(sorted(own | recipe), 60)}.")
        of_recipe = {name: value for name, value in changes.items() if name not in own}
        changed = replace(self, **{name: value for name, value in changes.items() if name in own})
        if "projection_dim" in of_recipe and changed.solved_in_closed_form:
            raise ValueError(
                f"projection_dim: in the sequential schedule of {self.name!r} the joint space is that of the "
                f"{self.bridge} features. Add schedule='joint' or image_link='contrastive', or take preset 'spatialwhisperer'."
            )
        recipes = {"joint": changed.joint, "sequential": changed.sequential}
        changed_recipes: dict[str, Any] = {
            name: replace(one, **of_recipe) for name, one in recipes.items() if one is not None
        }
        return replace(changed, **changed_recipes)

    @property
    def solved_in_closed_form(self) -> bool:
        """Whether the sequential schedule is solved in closed form, so that nothing but its refinement is trained."""
        closed = self.sequential is not None and self.sequential.closed_form and self.schedule != "joint"
        return closed and self.image_link in (None, "ridge") and self.locking == "LLL"


def _pairs(pairs: Mapping[tuple[str, str], float] | Sequence[tuple[str, str]]) -> FrozenMapping:
    named = list(pairs) if isinstance(pairs, Mapping) else iterated(pairs)
    if named is None or any(not isinstance(p, tuple | list) for p in named):
        raise TypeError(
            f"pairs must be pairs of modalities, such as [('image', 'gene')], with or without weights; found {shown(pairs)}."
        )
    weights: dict[Any, Any] = dict(pairs) if isinstance(pairs, Mapping) else {tuple(p): 1.0 for p in named}
    for pair, weight in weights.items():
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"A pair must be two different modalities, such as ('image', 'gene'); found {pair!r}.")
        for name in pair:
            get_modality(name)
        if not is_number(weight) or not weight >= 0:
            raise ValueError(f"The weight of pair {pair!r} must not be negative; found {weight!r}.")
    if not any(weights.values()):
        raise ValueError("pairs names no pair with a weight above 0; there is nothing to train.")
    return FrozenMapping(weights)


def _check_locking(locking: str) -> None:
    if not isinstance(locking, str) or len(locking) != 3 or set(locking) - set("LUu"):
        raise ValueError(
            f"locking must be three letters of L, U and u in the order gene, text, image (such as 'LUL'); found {locking!r}."
        )


def _check_schedule(preset: Preset) -> None:
    if preset.schedule not in (None, "joint", "sequential"):
        raise ValueError(f"schedule must be 'joint' or 'sequential', not {preset.schedule!r}.")
    if preset.schedule == "sequential" and preset.sequential is None:
        raise ValueError(f"The preset {preset.name!r} has no sequential schedule; use schedule='joint'.")
    link = preset.image_link
    if link not in (None, "ridge", "contrastive"):
        raise ValueError(f"image_link must be 'ridge' or 'contrastive', not {link!r}.")
    if link is not None and (preset.schedule == "joint" or preset.sequential is None):
        raise ValueError("image_link applies to schedule='sequential'.")
    if link == "ridge" and preset.letter("image") != "L":
        raise ValueError("image_link='ridge' needs frozen image features; a trained image encoder takes 'contrastive'.")
