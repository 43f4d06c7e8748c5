"""Options of a training run that are grouped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class ExpressionOptions:
    """What a model learns beside the joint space, so that it predicts expression.

    Attributes
    ----------
    genes
        Genes to predict; ``None`` chooses them on the training groups by the rule of the preset.
    values_layer
        Layer with the values to predict as they are, such as batch-corrected ones; ``None`` takes raw counts, brought into the
        value space of the preset.
    cross_validate
        Train again without each patient (without each section where there is one patient), to learn how well each gene is predicted
        on tissue that training has not seen, and how to weigh retrieval and regression. The choice of genes and a fitted gene
        encoder stay those of all training rows. ``None`` does so for frozen features.
    """

    genes: Sequence[str] | None = None
    values_layer: str | None = None
    cross_validate: bool | None = None
