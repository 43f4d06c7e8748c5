"""The methods that are compared: their names in tables, and what each of the trained ones is trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import spatialwhisperer as sw
from spatialwhisperer.models.published.names import image_text_names
from spatialwhisperer.protocols import captions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from spatialwhisperer.models import GeneEncoder, Preset, Whisperer

METHODS = {
    "whisperer": "whisperer: closed form, several captions per spot, several tile sizes",
    "whisperer, one size": "whisperer, 154 µm only",
    "whisperer, one caption": "whisperer, one caption of each kind per spot, as in the rows below",
    "sequential": "sequential (the default at this size)",
    "joint": "joint InfoNCE, published heads",
    "joint linear": "joint InfoNCE, linear heads with strong dropout",
    "darkness": "darkness (mean optical density) of the tile alone; whether a class is darker or lighter is learnt from training",
    "probe": "supervised probe on the same image features",
    "own probe": "the same probe trained on the test section's own labels (ceiling of the features)",
    "two-stage": "two-stage: image → expression → label",
    "two-stage, several": "two-stage, several captions per spot, several tile sizes",
    "expression": "sequential, the section's own expression as input",
    "whisperer expression": "whisperer, the section's own expression as input",
    "shuffled": "null of sequential: shuffled image–gene pairs, mean",
    "shuffled q95": "null of sequential: shuffled image–gene pairs, 95 % quantile",
    "whisperer shuffled": "null of whisperer: shuffled image–gene pairs, mean",
    "whisperer shuffled q95": "null of whisperer: shuffled image–gene pairs, 95 % quantile",
    **{name: f"{name}: published model of images and texts, nothing trained here" for name in image_text_names()},
}
"""Name in tables."""

NULLS = {"shuffled": "shuffled q95", "whisperer shuffled": "whisperer shuffled q95"}
"""Methods whose runs are draws of a null distribution, each with the method that is its 95 % quantile."""


@dataclass(frozen=True)
class Method:
    """A method that is trained.

    Attributes
    ----------
    preset
        What is trained.
    captions
        Columns of ``.obs`` with captions.
    several_sizes
        Whether it reads tiles of several sizes.
    """

    preset: Preset
    captions: tuple[str, ...]
    several_sizes: bool = False

    @property
    def has_seed(self) -> bool:
        """Whether two seeds may give two models."""
        return not self.preset.solved_in_closed_form

    def train(
        self,
        data: Sequence[AnnData],
        encoder: GeneEncoder,
        key: str,
        *,
        random_state: int,
        max_epochs: int | None = None,
    ) -> Whisperer:
        """Train on objects with image features under a key, counts or captions.

        Parameters
        ----------
        data
            The objects.
        encoder
            Fitted gene encoder.
        key
            Key of ``.obsm`` with image features.
        random_state
            Seed.
        max_epochs
            Epochs; ``None`` takes those of the preset.
        """
        return sw.tl.train(
            data,
            preset=self.preset,
            image=sw.tl.ImageFeatures(key=key),
            gene=encoder,
            text=sw.tl.TextFeatures(key=self.captions),
            expression=False,
            max_epochs=max_epochs,
            random_state=random_state,
        )


_PUBLISHED = sw.models.get_preset("spatialwhisperer").replace(projection_dim=64)
_LINEAR = replace(
    _PUBLISHED.joint,
    heads={"gene": "linear_norm", "text": "bn_shortcut", "image": "linear_norm"},
    dropout={"image": 0.8},
    weight_decay=1.0,
)
_CLOSED = sw.models.get_preset("whisperer").replace(schedule="sequential", refine="never")

TRAINED = {
    "whisperer": Method(_CLOSED, captions.SEVERAL_COLUMNS, several_sizes=True),
    "whisperer, one size": Method(_CLOSED, captions.SEVERAL_COLUMNS),
    "whisperer, one caption": Method(_CLOSED, captions.CAPTION_COLUMNS, several_sizes=True),
    "sequential": Method(_PUBLISHED.replace(schedule="sequential"), captions.CAPTION_COLUMNS),
    "joint": Method(_PUBLISHED.replace(schedule="joint"), captions.CAPTION_COLUMNS),
    "joint linear": Method(_PUBLISHED.replace(schedule="joint", joint=_LINEAR), captions.CAPTION_COLUMNS),
}
"""Methods that are trained, by name."""
