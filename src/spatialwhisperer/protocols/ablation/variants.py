"""The changes to the recipe of the embedded model that are compared with it, each in one respect."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import spatialwhisperer as sw
from spatialwhisperer._frozen import frozen
from spatialwhisperer.models.configuration.parts import PairLoss
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation.splits import TILE_UM
from spatialwhisperer.protocols.default_model.recipe import TrainingRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping

BASE = "recipe of the embedded model"


@dataclass(frozen=True)
class Images:
    """Which image features a row is trained on.

    Attributes
    ----------
    tile_um
        Edges of the tiles in microns.
    encoder
        "stain_texture", "as stained" (the same without the normalisation of stains) or "nuclei".
    """

    tile_um: tuple[float, ...] = TrainingRecipe().tile_um
    encoder: Literal["stain_texture", "as stained", "nuclei"] = "stain_texture"


@dataclass(frozen=True)
class Variant:
    """The recipe with one part changed.

    Attributes
    ----------
    part, change
        Which part, and what it is instead.
    preset
        What :meth:`spatialwhisperer.models.Preset.replace` changes.
    recipe
        What is trained on, where it is not the recipe of the embedded model.
    images
        Image features.
    standardize
        How they are standardised: by "global" statistics of the training, or within each "section".
    negations
        Whether texts that negate a caption are trained on.
    cells
        Whether single cells are trained on.
    against
        Part and change of the row that it differs from in one respect; ``None`` is the recipe of the embedded model.
    slow
        Whether it takes much longer than the others.
    """

    part: str
    change: str
    preset: Mapping[str, Any] = field(default_factory=frozen)
    recipe: TrainingRecipe = field(default_factory=lambda: replace(TrainingRecipe(), gene_encoder="pca"))
    images: Images = field(default_factory=Images)
    standardize: Literal["global", "section"] = "global"
    negations: bool = True
    cells: bool = True
    against: str | None = None
    slow: bool = False

    @property
    def name(self) -> str:
        """Part and change."""
        return f"{self.part}: {self.change}" if self.part else self.change


_RECIPE = replace(TrainingRecipe(), gene_encoder="pca")
_CONTRASTIVE: dict[str, Any] = {"closed_form": False, "image_link": "contrastive", "text_loss": "info_nce"}
# texts that negate a caption are learnt in closed form alone, so that contrastive rows are compared with the recipe without them
_POSITIVE = Variant("captions", "with wordings, without negations", negations=False)
_INFO_NCE = Variant(
    "loss", "InfoNCE from random heads, genes and text first", _CONTRASTIVE, negations=False, against=_POSITIVE.name
)
_JOINT: dict[str, Any] = {"schedule": "joint", "joint": sw.models.get_preset("spatialwhisperer").joint}
_ALL_PAIRS = Variant(
    "loss",
    "InfoNCE from random heads, all pairs together, published heads",
    _JOINT,
    negations=False,
    against=_POSITIVE.name,
)
_AS_STAINED = Images(encoder="as stained")


def _weighted(gene_text: float) -> dict[str, Any]:
    return _JOINT | {"pairs": {("image", "gene"): 1.0, ("gene", "text"): gene_text}}


VARIANTS = (
    Variant("", BASE),
    Variant(
        "locking",
        "text encoder trained",
        _CONTRASTIVE | {"locking": "LUL"},
        negations=False,
        against=_INFO_NCE.name,
        slow=True,
    ),
    _INFO_NCE,
    Variant(
        "loss",
        "sigmoid for texts, InfoNCE for images",
        _CONTRASTIVE | {"text_loss": "sigmoid"},
        negations=False,
        against=_POSITIVE.name,
    ),
    Variant(
        "loss",
        "soft targets for images",
        _CONTRASTIVE | {"loss": PairLoss(alpha=0.5, beta=0.5, targets="soft")},
        negations=False,
        against=_INFO_NCE.name,
    ),
    _ALL_PAIRS,
    Variant("pairs", "weight of gene–text pairs 0.25", _weighted(0.25), negations=False, against=_ALL_PAIRS.name),
    Variant("pairs", "weight of gene–text pairs 4", _weighted(4.0), negations=False, against=_ALL_PAIRS.name),
    Variant("pairs", "no single cells", cells=False),
    Variant("pairs", "one caption of each kind per row", recipe=replace(_RECIPE, text_key=captions.CAPTION_COLUMNS)),
    Variant("image encoder", "tiles of 154 µm", images=Images((TILE_UM,))),
    Variant("image encoder", "tiles of 100 to 600 µm", images=Images((*TrainingRecipe().tile_um, 600.0))),
    Variant("image encoder", "nuclei", images=Images((), "nuclei")),
    Variant("captions", "16 captions alone", recipe=replace(_RECIPE, wordings=False)),
    _POSITIVE,
    Variant("normalisation", "z-scores within the section", standardize="section"),
    Variant("normalisation", "stains as they are", images=_AS_STAINED),
    Variant(
        "normalisation", "stains as they are, z-scores within the section", images=_AS_STAINED, standardize="section"
    ),
    Variant("refinement", "on", {"refine": "auto"}),
    Variant("gene encoder", "scVI", recipe=replace(_RECIPE, gene_encoder="scvi"), slow=True),
)
"""The recipe itself, with a PCA for the genes, and its changes."""

PARTS = tuple(dict.fromkeys(v.part for v in VARIANTS if v.part))


def chosen(parts: tuple[str, ...], *, slow: bool) -> list[Variant]:
    """The recipe, the changes of some parts, and the rows that these are compared with.

    Parameters
    ----------
    parts
        Parts; none takes all.
    slow
        Whether slow changes are among them.
    """
    asked = [v for v in VARIANTS if (not parts or v.part in parts) and (slow or not v.slow)]
    by_name = {v.name: v for v in VARIANTS}
    needed = {BASE}
    for one in asked:
        name: str | None = one.name
        while name is not None:
            needed.add(name)
            name = by_name[name].against
    return [v for v in VARIANTS if v.name in needed]
