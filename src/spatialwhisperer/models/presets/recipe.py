"""How the heads of a preset are trained, as plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - annotations are looked up when values are checked
from dataclasses import dataclass, field

from spatialwhisperer._checks.checked import checked, checked_fields
from spatialwhisperer._checks.values import check_number
from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import listing
from spatialwhisperer._modalities import MODALITIES

_CHOICES = {
    "text_loss": ("info_nce", "sigmoid"),
    "refine": ("auto", "never"),
    "decay": ("matrices", "all"),
    "last_batch": ("drop", "keep"),
    "mixture": ("balanced", "natural"),
    "select": ("last", "best"),
    "optimizer": ("adamw", "adam"),
    "schedule": ("cosine", "constant"),
}
_NOT_NEGATIVE = ("learning_rate", "tower_learning_rate", "weight_decay", "min_steps", "regression_weight")
_FRACTIONS = ("final_learning_rate", "neighbour_weight")


@checked_fields
@dataclass(frozen=True)
class Recipe:
    """How heads are trained.

    Attributes
    ----------
    heads
        Name of the head of each modality; see :mod:`spatialwhisperer.networks.heads`.
    projection_dim
        Dimension of the joint space; ``None`` takes that of the gene features.
    learning_rate
        Learning rate of the heads and of the temperature.
    tower_learning_rate
        Learning rate of encoders that are trained.
    weight_decay, betas
        Parameters of AdamW.
    decay
        Parameters that the weight decay of "adamw" applies to: "matrices", so not biases and norms, or "all".
    warmup
        Fraction of the steps, or from 1 on their number, over which the learning rate of the heads rises. Encoders that start from
        pretrained weights (``U``) stay frozen during it; their learning rate rises afterwards, over as many steps.
    final_learning_rate
        Learning rate at the end of the cosine, as a fraction of the highest one.
    batch_size
        Pairs in a batch on each process. A step has as many times more as there are processes (devices), and batches whose gradients
        are accumulated.
    last_batch
        "drop" leaves out the last batch of an epoch where it is incomplete; "keep" trains on it too.
    mixture
        Which items a batch holds: "balanced", those of each set of modalities in equal parts, or "natural", as the data have them.
    max_epochs, min_steps
        Number of epochs. It is raised where data are few, so that there are at least ``min_steps`` steps of the optimiser.
    dropout
        Dropout inside the heads, by modality.
    text_loss
        Loss of pairs with text: "info_nce", or "sigmoid", which compares each row with all captions and gives every caption the same
        weight.
    optimizer
        "adamw", or "adam", whose weight decay is an L2 penalty on every parameter.
    schedule
        Learning rate after the warm-up: "cosine" or "constant". (:class:`Preset` has another attribute of this name, and
        :meth:`Preset.replace` changes that one.)
    select
        Weights that a run ends with: those of the "last" epoch, or of the "best" one, whose loss on the validation groups is lowest;
        without such groups on a fifth of the rows, drawn at random, which are not trained on.
    learn_temperature
        Whether the temperature is trained. It then stays at 0.01 or above, as in CLIP.
    regression_weight
        Weight of the squared error of a decoder of expression that is trained beside the contrastive loss; 0 trains none.
    closed_form
        Solve the sequential schedule in closed form where all encoders are frozen and the image link is a ridge regression. The joint
        space is then that of the gene features; see :mod:`spatialwhisperer.training.closed_form`.
    neighbour_weight
        For the closed form: an image embedding is the weighted mean of its own row and of the mean of the nearest rows of the section,
        and this is the weight of the latter.
    refine
        For the closed form: "auto" refines the image head by contrastive steps where left-out patients gain from it, see
        :mod:`spatialwhisperer.training.refinement`; "never" keeps the closed form.
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
    dropout: Mapping[str, float] = field(default_factory=frozen)
    text_loss: str = "info_nce"
    optimizer: str = "adamw"
    schedule: str = "cosine"
    learn_temperature: bool = True
    regression_weight: float = 0.0
    closed_form: bool = False
    neighbour_weight: float = 0.0
    refine: str = "never"
    decay: str = "matrices"
    last_batch: str = "drop"
    mixture: str = "balanced"
    select: str = "last"

    def __post_init__(self) -> None:
        # a batch of one pair has no negative
        for name, least in (("projection_dim", 1), ("batch_size", 2), ("max_epochs", 1)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ValueError(f"{name} must be at least {least}; found {value!r}.")
        if not (0 <= self.warmup < 1 or (self.warmup >= 1 and float(self.warmup).is_integer())):
            raise ValueError(
                f"warmup must be a fraction of the steps below 1, or a whole number of steps; found {self.warmup!r}."
            )
        for name in _NOT_NEGATIVE:
            check_number(name, getattr(self, name), least=0)
        for name in _FRACTIONS:
            check_number(name, getattr(self, name), least=0, most=1)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers from 0 to below 1; found {self.betas!r}.")
        # those of a preset stay where its heads are replaced by those of other modalities
        if unknown := [modality for modality in self.dropout if modality not in {*self.heads, *MODALITIES}]:
            raise ValueError(f"dropout names {listing(unknown)}; the heads are of {listing(self.heads)}.")
        for name, (one, other) in _CHOICES.items():
            if getattr(self, name) not in (one, other):
                raise ValueError(f"{name} must be {one!r} or {other!r}, not {getattr(self, name)!r}.")

    def warmup_steps(self, total: int) -> int:
        """Steps of the warm-up in a run of so many steps, at least one."""
        return max(1, round(self.warmup * total) if self.warmup < 1 else min(round(self.warmup), total))

    @checked
    def head(self, modality: str) -> str:
        """Name of the head of a modality.

        Raises
        ------
        ValueError
            If the recipe has none for it.
        """
        if modality not in self.heads:
            raise ValueError(
                f"This recipe has no head for {modality!r} (it has: {listing(self.heads)}). Name one: preset.replace(heads={{…}})."
            )
        return self.heads[modality]
