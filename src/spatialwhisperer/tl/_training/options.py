"""Groups of options of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spatialwhisperer._checks.checked import checked_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.pp.features.options import ImageFeatures


@checked_options
@dataclass(frozen=True)
class ExpressionOptions:
    """How a model is trained to predict expression.

    Attributes
    ----------
    genes
        Genes to predict, by name or Ensembl id; one that is named twice is taken once. ``None`` chooses them on the training groups by
        the rule of the preset.
    values_layer
        Layer with values that are predicted as they are, such as batch-corrected values; ``None`` takes raw counts and transforms them
        into the value space of the preset.
    cross_validate
        Measure how well each gene is predicted on held-out tissue, and choose the weights of retrieval and regression by it. The model is
        trained again without each patient, or without each section where there is only one patient. A patient is left out with all
        its sections, those without an image too. Three things have seen it all the same: which genes are chosen, a gene encoder that
        is fitted before the model is trained, and the weight of retrieval and regression, which is the best over all patients. So
        held-out correlations are slightly too high. A regression on features of its own (``image``) is measured on what has them:
        if that is one patient, its sections are left out in turn. ``None`` does all this where the encoders are frozen.
    image
        Image features of the regression, beside those of the joint space: the name of an encoder or :class:`ImageFeatures`, or several,
        which are put side by side. Where an image is too coarse for them, the regression reads the image features of the model. Sizes
        that are left open are those of the model, the preset or the encoder. ``None`` takes the encoders of the preset, where that of the
        model is among them; ``()`` always reads the image features of the model.

    Raises
    ------
    ValueError
        If ``genes`` is empty.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.tl.ExpressionOptions(image=["stain_texture", "nuclei"]).image
    ['stain_texture', 'nuclei']
    """

    genes: str | Sequence[str] | None = None
    values_layer: str | None = None
    cross_validate: bool | None = None
    image: str | ImageFeatures | Sequence[str | ImageFeatures] | None = None

    def __post_init__(self) -> None:
        if self.genes is not None and not len(self.genes):
            raise ValueError("genes is empty: name at least one gene, or leave it out, and the preset chooses them.")
