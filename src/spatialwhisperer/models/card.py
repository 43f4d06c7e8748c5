"""Descriptions of a model in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer.models.configuration.model import ModelConfig


def describe(config: ModelConfig, expression: str | None = None) -> str:
    """Encoders, heads, expression and training, one line each."""
    lines = [f"Whisperer: {' + '.join(config.modalities)} in {config.projection_dim} dimensions"]
    for name, modality in config.modalities.items():
        trained = ", trained" if modality.trained else ""
        seen = f" -> {modality.context.kind}" if modality.context is not None else ""
        lines.append(
            f"  {name}: {modality.features.name}{trained} ({modality.feature_dim}){seen} -> {modality.head.kind}"
        )
    if expression is not None:
        lines.append(f"  expression: {expression}")
    if (training := config.training) is not None:
        counts = ", ".join(f"{n} {pair}" for pair, n in training.pairs.items())
        lines.append(f"  trained {training.schedule} on {counts}; groups: {listing(training.groups, 8)}")
        if training.refinement is not None:
            lines.append(f"  contrastive refinement of the image head: {training.refinement.reason}")
    if config.card is not None and config.card.licence:
        lines.append(f"  licence: {config.card.licence}")
    return "\n".join(lines)


def introduction(config: ModelConfig, mpp: Sequence[float] | None) -> str:
    """One line about the training data of a model with a card.

    Parameters
    ----------
    config
        The model.
    mpp
        Lowest and highest microns per pixel of the training images; ``None`` where they are not known.
    """
    card = config.card
    if card is None:
        return "A model without a card; not for diagnosis"
    sections = {*card.sections_with_image, *card.sections_with_text}
    parts = [f"{len(sections)} sections of {len(card.patients)} patients", card.tissue]
    if mpp:
        ends = dict.fromkeys(f"{value:.2g}" for value in mpp)
        parts.append(f"images of {'–'.join(ends)} µm per pixel")
    return f"{card.name}: {', '.join(parts)}; not for diagnosis"
