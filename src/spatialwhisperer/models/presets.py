"""Each published system is one configuration of the same parts; nothing here computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MODALITIES = ("gene", "text", "image")
"""Order of the letters in a locking code."""


@dataclass(frozen=True)
class Recipe:
    """How heads are trained.

    Attributes
    ----------
    heads
        Head of each modality.
    projection_dim
        Dimension of the joint space.
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
    """

    heads: Mapping[str, str]
    projection_dim: int
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
        The recipe of each schedule.
    """

    name: str
    paper: str
    pairs: Mapping[tuple[str, str], float]
    locking: str
    temperature: float
    standardize: Mapping[str, str]
    joint: Recipe
    sequential: Recipe


_JOINT = Recipe(
    heads=MappingProxyType({"gene": "bn_shortcut", "text": "bn_shortcut", "image": "bn_shortcut"}),
    projection_dim=512,
    learning_rate=1e-3,
    tower_learning_rate=1e-5,
    weight_decay=0.0,
    betas=(0.9, 0.98),
    warmup=0.03,
    final_learning_rate=0.05,
    batch_size=512,
    max_epochs=4,
    min_steps=300,
)

_SEQUENTIAL = Recipe(
    heads=MappingProxyType({"gene": "linear_norm", "text": "bn_shortcut", "image": "bn_shortcut"}),
    projection_dim=64,
    learning_rate=2e-3,
    tower_learning_rate=1e-5,
    weight_decay=0.05,
    betas=(0.9, 0.999),
    warmup=0.1,
    final_learning_rate=0.0,
    batch_size=512,
    max_epochs=4,
    min_steps=300,
    dropout=MappingProxyType({"gene": 0.1}),
    text_loss="sigmoid",
)

PRESETS: dict[str, Preset] = {
    "spatialwhisperer": Preset(
        name="spatialwhisperer",
        paper="Schaefer et al., Transitive Representation Learning Enhances Histopathology Annotation, ICML 2026",
        pairs=MappingProxyType({("image", "gene"): 1.0, ("gene", "text"): 1.0}),
        locking="LLL",
        temperature=0.07,
        standardize=MappingProxyType({"image": "section", "gene": "global", "text": "none"}),
        joint=_JOINT,
        sequential=_SEQUENTIAL,
    ),
}


def get_preset(preset: str | Preset) -> Preset:
    """Return a preset by name, or the preset itself.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"Unknown preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    return PRESETS[preset]


def presets() -> pd.DataFrame:
    """List the presets.

    Returns
    -------
    DataFrame with one row per preset: paper, pairs, locking code and heads.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.presets().index.tolist()
    ['spatialwhisperer']
    """
    import pandas as pd

    rows = {
        p.name: {
            "paper": p.paper,
            "pairs": ", ".join("–".join(pair) for pair in p.pairs),
            "locking": p.locking,
            "heads": ", ".join(f"{m} {h}" for m, h in p.joint.heads.items()),
        }
        for p in PRESETS.values()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def recipe_dict(recipe: Recipe) -> dict[str, object]:
    """A recipe as plain values for a JSON file."""
    plain = {k: dict(v) if isinstance(v, Mapping) else v for k, v in vars(recipe).items()}
    return plain


__all__ = ["MODALITIES", "PRESETS", "Preset", "Recipe", "get_preset", "presets", "recipe_dict"]
