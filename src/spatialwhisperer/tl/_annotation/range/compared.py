"""Whether rows show tissue, and whether that is like the training tissue: what scores and predictions from images start with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spatialwhisperer._messages import inform, warn
from spatialwhisperer.models.training_range import on_tissue
from spatialwhisperer.tl._annotation.range.training_range import range_warnings, slide_ranges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialwhisperer._access.result import Result
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.models.whisperer import Whisperer
    from spatialwhisperer.tl._annotation.range.training_range import SectionRange


class Compared(NamedTuple):
    """How the images of a slide compare with those of the training.

    Attributes
    ----------
    ranges
        Of each section; empty where the model does not tell.
    empty
        Rows that have a tile, but no whole one on tissue, Boolean, shape (n,).
    """

    ranges: list[SectionRange]
    empty: np.ndarray

    def say(self, model: Whisperer, what: str) -> None:
        """Warn of the differences, and say how many rows get no score (``what``) because they show no tissue."""
        for sentence in range_warnings(self.ranges, model):
            warn(sentence)
        say_empty(self.empty, f"{what} (NaN)")


def say_empty(empty: np.ndarray, what: str) -> None:
    """Say how many rows show no tissue, and what they do not have because of that."""
    n = int(empty.sum())
    if n:
        inform(f"{n} of {len(empty)} rows {'has' if n == 1 else 'have'} no whole tile on tissue and no {what}.")


def compare(slide: Slide, model: Whisperer, features: np.ndarray | None, results: Sequence[Result]) -> Compared:
    """Compare the image features of a slide with the training tissue.

    Parameters
    ----------
    slide
        The slide.
    model
        The model.
    features
        Raw image features, shape (n, d); ``None`` where the image encoder is trained with the model.
    results
        Features that were just computed.

    Raises
    ------
    ValueError
        If no row has a whole tile on tissue.
    """
    ranges = slide_ranges(slide, model, features, results)
    # rows without features say nothing about tissue
    shown = features is None or bool(np.isfinite(features).all(axis=1).any())
    if shown and ranges and not any(r.n_tissue for r in ranges):
        raise ValueError(
            f"None of the {slide.n_rows} rows has a whole tile on tissue: they show the empty background. Check the coordinates and "
            "the microns per pixel, or take tiles where there is tissue: sw.pp.tiles(data, at='grid', tile_um=…)."
        )
    empty = np.zeros(slide.n_rows, bool)
    if ranges and features is not None and model.reference is not None:
        empty = np.isfinite(features).all(axis=1) & ~on_tissue(features, model.reference.config.encoder)
    return Compared(ranges, empty)
